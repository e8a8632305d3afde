//! How good the standard errors and intervals are: simulations.
//!
//! The long ones print their tables and are run by hand (`docs/fitting.md`):
//!
//! ```text
//! cargo test --lib uncertainty::study -- --ignored --nocapture
//! ```

use super::tests::{PARABOLA, Raw, blank, design, drawn, optimum, standardised};
use super::{
    BootstrapFits, Expected, Limit, Profiles, Uncertainty, UncertaintyOptions, uncertainty,
};
use crate::analysis::{Design, GateChoice, Optimum, Part, Quantity, Specification, quantities};
use crate::backend::Cpu;
use crate::fit::inference::{Bootstrap, Ending, Information, Refit};
use crate::model::Parameters;
use crate::num::sum::{mean_and_deviation, quantile};
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

/// Samples of [`PARABOLA`].
fn parabola(rows: usize, gate: GateChoice) -> Case {
    let design = blank(rows);
    let specification = Specification {
        gate,
        ..Specification::default()
    };
    Case {
        name: "parabola",
        start: standardised(&design, &specification, &PARABOLA),
        design,
        specification,
    }
}

/// Covers of every quantity's 95 % intervals in `replicates` samples at the design's
/// inputs with the start for the truth.
fn coverage(case: &Case, replicates: u64) -> (Vec<Coverage>, BTreeMap<String, u64>) {
    let Case {
        design: blank,
        specification,
        start: truth,
        ..
    } = case;
    let bounds = specification.bounds(blank, truth, 1.0);
    let packed = truth.layout().pack(&truth);
    let options = UncertaintyOptions {
        profiles: Profiles::Every,
        ..UncertaintyOptions::default()
    };
    let fits: Vec<(Uncertainty, Optimum)> = (0..replicates)
        .into_par_iter()
        .map(|replicate| {
            let (design, optimum) = drawn(blank, truth, &bounds, replicate);
            let all = uncertainty(&Cpu::new(), &design, &optimum, options);
            (all.unwrap(), optimum)
        })
        .collect();
    let mut stops = BTreeMap::new();
    for (_, optimum) in &fits {
        *stops.entry(optimum.stop.to_string()).or_insert(0) += 1;
    }
    let truths = quantities(blank, truth).into_iter().enumerate();
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
    let (all, stops) = coverage(&parabola(200, GateChoice::Softmax), replicates);
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
    let fitted = |mut case: Case| {
        let bounds = case.specification.bounds(&case.design, &case.start, 1.0);
        case.start = optimum(&case.design, &case.start, &bounds).parameters;
        case
    };
    let mut all = vec![
        (parabola(200, GateChoice::Softmax), 10_000),
        (parabola(500, GateChoice::Softmax), 4_000),
        (parabola(200, GateChoice::Constant), 4_000),
    ];
    all.extend(cases(1).into_iter().map(|case| (fitted(case), 4_000)));
    for (case, replicates) in all {
        let began = std::time::Instant::now();
        let (all, stops) = coverage(&case, replicates);
        let seconds = began.elapsed().as_secs_f64();
        let (name, rows) = (case.name, case.design.data.len());
        println!("\n### {name}, n = {rows}, {replicates} samples ({seconds:.0} s): {stops:?}\n");
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

/// Two columns of a data set.
fn columns(file: &str, names: [&str; 2]) -> [Vec<f64>; 2] {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/peers");
    let path = folder.join(file);
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

/// Each row as often as `copies` says: the same maximum, `copies` times the information.
fn cases(copies: usize) -> Vec<Case> {
    let columns = |file, names| columns(file, names).map(|column| column.repeat(copies));
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
#[ignore = "a study of seconds"]
fn study_agreement_of_standard_errors_with_the_bootstrap() {
    for case in cases(1) {
        let bounds = case.specification.bounds(&case.design, &case.start, 1.0);
        let best = optimum(&case.design, &case.start, &bounds);
        let options = UncertaintyOptions {
            expected: Expected::Every,
            profiles: Profiles::Every,
            bootstrap: Some(Bootstrap {
                replicates: 10_000,
                seed: 1,
            }),
            ..UncertaintyOptions::default()
        };
        let all = uncertainty(&Cpu::new(), &case.design, &best, options).unwrap();
        let fits = all.bootstrap.as_ref().unwrap();
        println!(
            "\n### {}: log-likelihood {:.6}; {} of {} refits at a maximum, others {:?}\n",
            case.name, best.log_likelihood, fits.maxima, fits.replicates, fits.others
        );
        println!(
            "| quantity | estimate | observed | sandwich | expected | bootstrap | refits \
             | obs./boot. | sand./boot. | exp./boot. | obs./half-width | exp./half-width | skewness | bias/sd |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for e in &all.estimates {
            let boot = e.bootstrap.clone().unwrap().unwrap();
            let sd = boot.standard_deviation;
            let expected = e.expected_error.clone().unwrap();
            let errors = [&e.standard_error, &e.sandwich, &expected].map(|e| e.clone().unwrap());
            let [observed, sandwich, expected] = errors;
            let runs_away = |r: &&Refit| matches!(r.ending, Ending::RunsAway(_));
            let maximum = |r: &&Refit| r.ending == Ending::Maximum;
            let tells = |r: &&Refit| maximum(r) || runs_away(r);
            let told = fits.refits.iter().filter(tells);
            // A gate's that runs away lies beyond all others, on either side.
            let mut values: Vec<f64> = told.map(|r| e.quantity.value(&r.packed)).collect();
            values.sort_by(f64::total_cmp);
            let [low, high] = [0.158_655_254, 0.841_344_746].map(|p| quantile(&values, p));
            let robust = 0.5 * (high - low);
            println!(
                "| {} | {:.4} | {observed:.4} | {sandwich:.4} | {expected:.4} | {sd:.4} | {} \
                 | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} |",
                e.quantity.name,
                e.value,
                boot.used,
                observed / sd,
                sandwich / sd,
                expected / sd,
                observed / robust,
                expected / robust,
                skewness(&values),
                boot.bias / sd,
            );
        }
        println!("\n| quantity | Wald | profile | passes | percentile |\n|---|---|---|---|---|");
        for e in &all.estimates {
            let [low, high] = e.wald.clone().unwrap();
            let [below, above] = e.bootstrap.clone().unwrap().unwrap().percentile;
            let profile = match e.profile.clone().unwrap() {
                Ok(p) => format!("{} to {} | {}", limit(p.low), limit(p.high), p.passes),
                Err(missing) => format!("{missing} | "),
            };
            println!(
                "| {} | {low:.4} to {high:.4} | {profile} | {below:.4} to {above:.4} |",
                e.quantity.name
            );
        }
        crossing(&case, &best, fits);
    }
}

/// The same with every row 4, 16 and 64 times: what is of the sample's size goes away, what
/// is of the sample stays.
#[test]
#[ignore = "a study of minutes"]
fn study_agreement_as_the_sample_grows() {
    for copies in [1, 4, 16, 64] {
        for case in cases(copies) {
            let bounds = case.specification.bounds(&case.design, &case.start, 1.0);
            let best = optimum(&case.design, &case.start, &bounds);
            let options = UncertaintyOptions {
                expected: Expected::Every,
                bootstrap: Some(Bootstrap {
                    replicates: 4000,
                    seed: 2,
                }),
                ..UncertaintyOptions::default()
            };
            let all = uncertainty(&Cpu::new(), &case.design, &best, options).unwrap();
            let fits = all.bootstrap.as_ref().unwrap();
            let ratios = all.estimates.iter().map(|e| {
                let boot = e.bootstrap.clone().unwrap();
                let sd = boot.map_or(f64::NAN, |boot| boot.standard_deviation);
                let expected = e.expected_error.clone().unwrap().unwrap();
                let observed = e.standard_error.clone().unwrap();
                format!("{:.3} {:.3}", observed / sd, expected / sd)
            });
            let ratios: Vec<String> = ratios.collect();
            println!(
                "| {} | {copies} | {:.3} | {} |",
                case.name,
                1.0 - fits.failure_rate(),
                ratios.join(" | ")
            );
        }
    }
}

fn limit(limit: Limit) -> String {
    match limit {
        Limit::At(value) => format!("{value:.4}"),
        Limit::Bound(value) => format!("bound {value:.4}"),
        Limit::Unbounded => "unbounded".to_string(),
    }
}

fn skewness(values: &[f64]) -> f64 {
    let (mean, deviation) = mean_and_deviation(values);
    let cubes = values.iter().map(|v| ((v - mean) / deviation).powi(3));
    cubes.sum::<f64>() / values.len() as f64
}

/// Where the gate's two weights are equal, -intercept / slope: known where the slope is
/// not. Standard error by the delta method; refits with a gate that runs away included.
fn crossing(case: &Case, best: &Optimum, fits: &BootstrapFits) {
    let all = quantities(&case.design, &best.parameters);
    let gate: Vec<&Quantity> = all.iter().filter(|q| q.part == Part::Gate).collect();
    let [intercept, slope] = gate[..] else {
        return;
    };
    let at = |packed: &[f64]| -intercept.value(packed) / slope.value(packed);
    let layout = best.parameters.layout();
    let packed = layout.pack(&best.parameters);
    let information = Information::new(
        &Cpu::new(),
        &case.design.data,
        &best.parameters,
        &best.bounds,
    )
    .unwrap();
    let pairs = intercept.weights.iter().zip(&slope.weights);
    let size = slope.value(&packed);
    let weights: Vec<f64> = pairs.map(|(a, b)| (-a - at(&packed) * b) / size).collect();
    let error = information.standard_error(&weights).unwrap();
    let tells = |r: &&Refit| matches!(r.ending, Ending::Maximum | Ending::RunsAway(_));
    let mut values: Vec<f64> = fits
        .refits
        .iter()
        .filter(tells)
        .map(|r| at(&r.packed))
        .collect();
    let (_, deviation) = mean_and_deviation(&values);
    values.sort_by(f64::total_cmp);
    let [below, above] = [0.025, 0.975].map(|p| quantile(&values, p));
    println!(
        "\nThe gate crosses 1/2 at {:.4}: observed {error:.4}, bootstrap {deviation:.4} of {} \
         refits, ratio {:.3}, percentile {below:.4} to {above:.4}",
        at(&packed),
        values.len(),
        error / deviation
    );
}
