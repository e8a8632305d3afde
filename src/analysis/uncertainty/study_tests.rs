//! How good the standard errors and intervals are: simulations.
//!
//! The long ones print their tables and are run by hand (`docs/fitting.md`):
//!
//! ```text
//! cargo test --lib uncertainty::study -- --ignored --nocapture
//! ```

use super::tests::{PARABOLA, Raw, blank, design, drawn, optimum, standardised};
use super::{Profiles, Uncertainty, UncertaintyOptions, uncertainty};
use crate::analysis::{Design, GateChoice, Optimum, Specification, quantities};
use crate::backend::Cpu;
use crate::fit::inference::{Bootstrap, Ending};
use crate::model::Parameters;
use crate::num::sum::mean_and_deviation;
use rayon::prelude::*;
use statrs::distribution::{Binomial, DiscreteCDF};
use std::collections::BTreeMap;

/// Intervals of one quantity over replicates.
#[derive(Clone, Default)]
struct Coverage {
    name: String,
    /// Profile intervals: that hold the truth, that are there.
    profile: [u64; 2],
    /// Wald intervals likewise.
    wald: [u64; 2],
    /// Profile intervals with the truth below, above.
    missed: [u64; 2],
    /// Why profile intervals are missing.
    reasons: BTreeMap<String, u64>,
    values: Vec<f64>,
    errors: Vec<f64>,
}

/// Covers of every quantity's 95 % intervals in `replicates` samples of [`PARABOLA`].
fn coverage(
    rows: usize,
    gate: GateChoice,
    replicates: u64,
) -> (Vec<Coverage>, BTreeMap<String, u64>) {
    let blank = blank(rows);
    let specification = Specification {
        gate,
        ..Specification::default()
    };
    let truth = standardised(&blank, &specification, &PARABOLA);
    let bounds = specification.bounds(&blank, &truth, 1.0);
    let packed = truth.layout().pack(&truth);
    let options = UncertaintyOptions {
        profiles: Profiles::Every,
        ..UncertaintyOptions::default()
    };
    let fits: Vec<(Uncertainty, Optimum)> = (0..replicates)
        .into_par_iter()
        .map(|replicate| {
            let (design, optimum) = drawn(&blank, &truth, &bounds, replicate);
            let all = uncertainty(&Cpu::new(), &design, &optimum, options);
            (all.unwrap(), optimum)
        })
        .collect();
    let mut stops = BTreeMap::new();
    for (_, optimum) in &fits {
        *stops.entry(optimum.stop.to_string()).or_insert(0) += 1;
    }
    let truths = quantities(&blank, &truth).into_iter().enumerate();
    let all = truths.map(|(k, quantity)| {
        let value = quantity.value(&packed);
        let mut coverage = Coverage {
            name: quantity.name,
            ..Coverage::default()
        };
        for (fit, _) in &fits {
            let estimate = &fit.estimates[k];
            match estimate.profile.as_ref().unwrap() {
                Ok(limits) => {
                    coverage.profile[0] += u64::from(limits.contains(value));
                    coverage.profile[1] += 1;
                    if !limits.contains(value) {
                        coverage.missed[usize::from(value > estimate.value)] += 1;
                    }
                }
                Err(reason) => {
                    let reason = reason.to_string();
                    *coverage.reasons.entry(reason).or_insert(0) += 1;
                }
            }
            if let (Ok([low, high]), Ok(error)) = (&estimate.wald, &estimate.standard_error) {
                coverage.wald[0] += u64::from((*low..=*high).contains(&value));
                coverage.wald[1] += 1;
                coverage.values.push(estimate.value);
                coverage.errors.push(*error);
            }
        }
        coverage
    });
    (all.collect(), stops)
}

/// The coverage of each of the ten quantities lies in [0.93, 0.97] as far as 400 samples
/// tell: each of the 20 one-sided binomial tests fails by chance in one of 2e7 at the
/// edge of that range, all together in one of 1e6. A coverage of 0.83 is detected with a
/// probability of 0.95.
#[test]
fn profile_intervals_cover_the_truth_as_often_as_they_say() {
    let replicates = 400;
    let (all, stops) = coverage(200, GateChoice::Softmax, replicates);
    assert_eq!(stops.get("Converged"), Some(&replicates), "{stops:?}");
    assert_eq!(all.len(), 10);
    for quantity in all {
        let [held, there] = quantity.profile;
        assert_eq!(
            there, replicates,
            "{}: {:?}",
            quantity.name, quantity.reasons
        );
        let [low, high] = [0.93, 0.97].map(|p| Binomial::new(p, replicates).unwrap());
        let message = format!("{}: {held} of {there}", quantity.name);
        assert!(low.cdf(held) > 5e-8, "{message}");
        assert!(held == 0 || high.sf(held - 1) > 5e-8, "{message}");
    }
}

#[test]
#[ignore = "a study of minutes"]
fn study_coverage_of_profile_intervals() {
    for (rows, gate, name, replicates) in [
        (200, GateChoice::Softmax, "gate x", 10_000),
        (500, GateChoice::Softmax, "gate x", 4_000),
        (200, GateChoice::Constant, "constant gate", 4_000),
    ] {
        let began = std::time::Instant::now();
        let (all, stops) = coverage(rows, gate, replicates);
        let seconds = began.elapsed().as_secs_f64();
        println!("\n### n = {rows}, {name}, {replicates} samples ({seconds:.0} s): {stops:?}\n");
        println!("| quantity | profile | missing | truth below, above | Wald | sd / mean error |");
        println!("|---|---|---|---|---|---|");
        for q in all {
            let share = |[held, there]: [u64; 2]| held as f64 / there as f64;
            let (_, deviation) = mean_and_deviation(&q.values);
            let (error, _) = mean_and_deviation(&q.errors);
            println!(
                "| {} | {:.4} | {:?} | {}, {} | {:.4} | {:.3} |",
                q.name,
                share(q.profile),
                q.reasons,
                q.missed[0],
                q.missed[1],
                share(q.wald),
                deviation / error,
            );
        }
    }
}

/// x and y of two columns of a CSV file of the folder that SMOE_PEERS names.
fn columns(file: &str, names: [&str; 2]) -> [Vec<f64>; 2] {
    let folder = std::env::var("SMOE_PEERS").expect("SMOE_PEERS names the folder of the data");
    let path = std::path::Path::new(&folder).join(file);
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let at = names.map(|name| header.iter().position(|h| h == name).unwrap());
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    at.map(|j| rows.iter().map(|r| r[j].parse().unwrap()).collect())
}

/// A data set, a model, and its optimum in raw units to start from.
struct Case {
    name: &'static str,
    design: Design,
    specification: Specification,
    start: Parameters,
}

fn cases() -> Vec<Case> {
    let [x, y] = columns("NPreg.csv", ["x", "yn"]);
    let experts: &[(&[f64], f64)] = &[
        (&[14.77, 9.82, -0.966], 3.46),
        (&[-0.17, 4.79, 0.039], 3.44),
    ];
    let [e, w] = columns("faithful.csv", ["eruptions", "waiting"]);
    let faithful = Raw {
        experts: &[(&[63.19, 3.98], 5.4), (&[37.94, 8.18], 5.52)],
        gate: &[&[-28.05, 8.354]],
    };
    let case = |name, design: Design, gate, raw: &Raw| {
        let specification = Specification {
            gate,
            ..Specification::default()
        };
        Case {
            name,
            start: standardised(&design, &specification, raw),
            design,
            specification,
        }
    };
    let npreg = |gate| Raw { experts, gate };
    vec![
        case(
            "NPreg, gate x",
            design(&x, &y, 2, 1),
            GateChoice::Softmax,
            &npreg(&[&[-0.214, 0.0514]]),
        ),
        case(
            "NPreg, constant gate",
            design(&x, &y, 2, 0),
            GateChoice::Constant,
            &npreg(&[&[0.024]]),
        ),
        case(
            "faithful, gate eruptions",
            design(&e, &w, 1, 1),
            GateChoice::Softmax,
            &faithful,
        ),
    ]
}

#[test]
#[ignore = "a study of minutes; needs the data sets"]
fn study_agreement_of_standard_errors_with_the_bootstrap() {
    for case in cases() {
        let bounds = case.specification.bounds(&case.design, &case.start, 1.0);
        let best = optimum(&case.design, &case.start, &bounds);
        let options = UncertaintyOptions {
            profiles: Profiles::Every,
            bootstrap: Some(Bootstrap {
                replicates: 10_000,
                seed: 1,
            }),
            ..UncertaintyOptions::default()
        };
        let began = std::time::Instant::now();
        let all = uncertainty(&Cpu::new(), &case.design, &best, options).unwrap();
        let seconds = began.elapsed().as_secs_f64();
        let fits = all.bootstrap.as_ref().unwrap();
        println!(
            "\n### {}: log-likelihood {:.6}, {} of {} refits used, left out {:?} ({seconds:.0} s)\n",
            case.name, best.log_likelihood, fits.used, fits.replicates, fits.left_out
        );
        println!(
            "| quantity | estimate | observed | sandwich | bootstrap sd | observed / bootstrap | sandwich / bootstrap | robust | skewness | bias / sd | Wald | profile | percentile |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for e in &all.estimates {
            let used = fits.refits.iter().filter(|r| r.ending == Ending::Maximum);
            let values: Vec<f64> = used.map(|r| e.quantity.value(&r.packed)).collect();
            let shape = Shape::new(values);
            let boot = e.bootstrap.clone().unwrap().unwrap();
            let error = e.standard_error.clone().unwrap();
            let sandwich = e.sandwich.clone().unwrap();
            let [low, high] = e.wald.clone().unwrap();
            let profile = e.profile.clone().unwrap();
            println!(
                "| {} | {:.5} | {:.5} | {:.5} | {:.5} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} | {low:.4} {high:.4} | {} | {:.4} {:.4} |",
                e.quantity.name,
                e.value,
                error,
                sandwich,
                boot.standard_deviation,
                error / boot.standard_deviation,
                sandwich / boot.standard_deviation,
                error / shape.robust,
                shape.skewness,
                boot.bias / boot.standard_deviation,
                match &profile {
                    Ok(p) => format!("{:?} {:?} ({} passes)", p.low, p.high, p.passes),
                    Err(m) => m.to_string(),
                },
                boot.percentile[0],
                boot.percentile[1],
            );
        }
    }
}

/// What the refits of one quantity look like.
struct Shape {
    /// Half the distance of the 15.87 and 84.13 % quantiles: a normal law's standard
    /// deviation, whatever the tails.
    robust: f64,
    skewness: f64,
}

impl Shape {
    fn new(mut values: Vec<f64>) -> Self {
        let (mean, deviation) = mean_and_deviation(&values);
        let cubes = values.iter().map(|v| ((v - mean) / deviation).powi(3));
        let skewness = cubes.sum::<f64>() / values.len() as f64;
        values.sort_by(f64::total_cmp);
        let at = |p: f64| crate::num::sum::quantile(&values, p);
        Shape {
            robust: 0.5 * (at(0.841_344_746) - at(0.158_655_254)),
            skewness,
        }
    }
}
