//! How well standard errors agree with a parametric bootstrap.
//!
//! The studies print their tables and are run by hand (`docs/fitting.md`):
//!
//! ```text
//! cargo test --lib study_agreement -- --ignored --nocapture
//! ```

use super::tests::{Raw, design, optimum, standardised};
use super::{BootstrapFits, Expected, Limit, Profiles, UncertaintyOptions, uncertainty};
use crate::analysis::{Design, GateChoice, Optimum, Part, Quantity, Specification, quantities};
use crate::backend::Cpu;
use crate::fit::inference::{Bootstrap, Ending, Information, Refit};
use crate::model::Parameters;
use crate::num::sum::{mean_and_deviation, quantile};

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
pub(super) struct Case {
    pub name: &'static str,
    pub design: Design,
    pub specification: Specification,
    pub start: Parameters,
}

/// Each row as often as `copies` says: the same maximum, `copies` times the information.
pub(super) fn cases(copies: usize) -> Vec<Case> {
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
