//! How often intervals hold the truth.
//!
//! The long study prints its tables and is run by hand (`docs/fitting.md`):
//!
//! ```text
//! cargo test --lib study_coverage -- --ignored --nocapture
//! ```

use super::agreement_tests::{Case, cases};
use super::tests::{PARABOLA, blank, drawn, optimum, standardised};
use super::{Missing, Profiles, Uncertainty, UncertaintyOptions, uncertainty};
use crate::analysis::{GateChoice, Optimum, Specification, quantities};
use crate::backend::Cpu;
use crate::fit::inference;
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
/// inputs with the start for the truth; fits are the maxima reached from there.
fn coverage(case: &Case, replicates: u64) -> (Vec<Coverage>, BTreeMap<String, u64>) {
    let Case {
        design: blank,
        specification,
        start: truth,
        ..
    } = case;
    let bounds = specification.bounds(blank, truth, 1.0);
    let packed = truth.layout().pack(truth);
    let options = UncertaintyOptions {
        profiles: Profiles::Every,
        ..UncertaintyOptions::default()
    };
    let fits: Vec<(Uncertainty, Optimum)> = (0..replicates)
        .into_par_iter()
        .map(|replicate| {
            let (design, optimum) = drawn(blank, truth, &bounds, replicate);
            let known = uncertainty(&Cpu::new(), &design, &optimum, options).unwrap();
            (known, optimum)
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
                    let reason = match reason {
                        Missing::Inference(inference::Missing::BetterMaximum { .. }) => {
                            "a better maximum".to_string()
                        }
                        other => other.to_string(),
                    };
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

/// The coverage of each of the ten quantities lies in [0.93, 0.97] as far as 1000 samples
/// tell: each of the 20 one-sided binomial tests fails by chance in one of 2e7 at the
/// edge of that range, all together in one of 1e6. Coverages below 0.864 and above 0.9974 are
/// detected with a probability of 0.95.
#[test]
fn profile_intervals_cover_the_truth_as_often_as_they_say() {
    let replicates = 1000;
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
