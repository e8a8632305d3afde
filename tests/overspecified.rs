//! More experts than the truth has: counts on a lattice, and fits whose likelihood
//! is nearly flat.

use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::fit::{Options, Start, StartContext, fit, maximise};
use smoe_lab::model::{Data, ExpertGate, GateKind, Model, draw_sample, read_model};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::claim::Claim;
use smoe_lab::sim::row::{RowFile, StartOutcome};
use smoe_lab::sim::run::{self, Request};
use smoe_lab::sim::study::read_study;
use smoe_lab::sim::summary::Finding;
use smoe_lab::sim::{Plan, Row, Summary, Verdict};
use std::path::{Path, PathBuf};

const STUDIES: [&str; 3] = [
    "overspecified-absolute",
    "overspecified-softmax",
    "overspecified-softplus",
];

fn sims() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sims")
}

fn plan(name: &str) -> Plan {
    Plan::new(read_study(&sims().join(format!("{name}.toml"))).unwrap()).unwrap()
}

fn rows(plan: &Plan, n: u64, replicates: u64) -> Vec<Row> {
    let cell = plan.cells.iter().find(|cell| cell.n == n).unwrap();
    (0..replicates)
        .map(|replicate| run::replicate(plan, cell, replicate).unwrap())
        .collect()
}

/// Passes of the fit that gave the estimate.
fn best_passes(row: &Row) -> f64 {
    let best = |a: &StartOutcome, b: &StartOutcome| a.log_likelihood.total_cmp(&b.log_likelihood);
    row.start_outcomes().max_by(best).unwrap().passes
}

fn truth(name: &str) -> Model {
    read_model(&sims().join(format!("truths/{name}.toml"))).unwrap()
}

fn sample(model: &Model, n: u64, seed: u64) -> Data {
    let stream = Stream::named(seed, "lattice", 0, Purpose::Data);
    draw_sample(model, 0, n as usize, &stream)
}

/// Fixed seeds: no chance is left.
#[test]
fn over_specified_fits_are_certified_within_the_claimed_passes() {
    for name in STUDIES {
        let plan = plan(name);
        for n in [1_000, 100_000, 1_000_000_000] {
            let mut passes: Vec<f64> = Vec::new();
            for row in rows(&plan, n, 12) {
                assert!(row.converged, "{name}, n = {n}: {}", row.stop);
                assert!(row.likelihood_ratio() > 0.0 && row.likelihood_ratio() < 60.0);
                assert!(row.information_distance.is_nan());
                passes.push(best_passes(&row));
            }
            passes.sort_by(f64::total_cmp);
            assert!(passes[11] <= 500.0, "{name}, n = {n}: {passes:?}");
            assert!(passes[5] <= 100.0, "{name}, n = {n}: {passes:?}");
        }
    }
}

/// A certificate of a nearly flat likelihood is worth something if other starts
/// find nothing better nearby.
#[test]
fn no_step_of_any_size_improves_a_certified_over_specified_fit() {
    for name in STUDIES {
        let plan = plan(name);
        let planned = &plan.truths[0];
        let cell = plan.cells.iter().find(|c| c.n == 1_000_000).unwrap();
        let replayed = run::replay(&plan, cell, 0).unwrap();
        let best = replayed.outcomes.best();
        let stream = Stream::named(plan.study.seed, &cell.name, 0, Purpose::Data);
        let data = draw_sample(&planned.model, 0, 1_000_000, &stream);
        let layout = planned.template.layout();
        let directions = Stream::named(1, "directions", 0, Purpose::Data);
        for trial in 0..300 {
            let size = 10f64.powf(-6.0 * directions.uniform_pair(trial, 99)[0]);
            let packed = layout.pack(&best.parameters);
            let mut moved: Vec<f64> = packed
                .iter()
                .enumerate()
                .map(|(j, v)| v + size * directions.standard_normal(trial, j as u64))
                .collect();
            planned.bounds.project(&mut moved);
            let there = Cpu::new().log_likelihood(&layout.unpack(&planned.template, &moved), &data);
            let gain = there - best.log_likelihood;
            assert!(gain < 1e-6, "{name}: {gain:e} by {size:e}");
        }
    }
}

#[test]
fn copies_share_their_experts_weight_and_keep_the_density() {
    for name in ["s4-absolute", "s5-softmax", "s6-softplus"] {
        let model = truth(name);
        for copies in [[2, 1], [1, 2], [3, 2]] {
            let copied = model.parameters.split(&copies).unwrap();
            assert_eq!(copied.experts.len(), copies.iter().sum::<usize>());
            for (x, y) in [(-0.8, -1.0), (0.1, 0.3), (0.9, 2.0)] {
                let difference =
                    copied.log_density(&[x], y) - model.parameters.log_density(&[x], y);
                assert!(
                    difference.abs() < 1e-12,
                    "{name} {copies:?}: {difference:e}"
                );
            }
        }
    }
}

/// Pearson's statistic over cells that expect 20 counts or more (the rest in one)
/// is chi-square up to the approximation; the bound is the quantile of a
/// false-failure rate of 1e-6 by Wilson and Hilferty's formula, z = 4.753.
#[test]
fn counts_follow_the_probabilities_of_their_cells() {
    for (seed, name) in ["s4-absolute", "s5-softmax", "s6-softplus"]
        .iter()
        .enumerate()
    {
        let model = truth(name);
        let n = 1_000_000;
        let data = sample(&model, n, seed as u64);
        let smallest = model.parameters.experts.iter().map(|e| e.variance.sqrt());
        let step = 0.5 * smallest.fold(f64::INFINITY, f64::min);
        let (mut statistic, mut cells) = (0.0, 0);
        let (mut rest_seen, mut rest_expected) = (n as f64, n as f64);
        for i in 0..data.len() {
            let (x, y) = data.row(i);
            let expected = n as f64 * step * model.parameters.log_density(&x, y).exp() / 7.0;
            if expected >= 20.0 {
                statistic += (data.count(i) - expected).powi(2) / expected;
                cells += 1;
                rest_seen -= data.count(i);
                rest_expected -= expected;
            }
        }
        statistic += (rest_seen - rest_expected).powi(2) / rest_expected;
        let freedom = f64::from(cells);
        let spread = 2.0 / (9.0 * freedom);
        let bound = freedom * (1.0 - spread + 4.753 * spread.sqrt()).powi(3);
        assert!(cells > 50, "{name}: {cells} cells");
        assert!(statistic < bound, "{name}: {statistic} of {bound}");
    }
}

/// The mean of y is normal at this n; 4.9 standard errors leave 1e-6 on both
/// sides together.
#[test]
fn the_moments_of_a_lattice_sample_are_those_of_the_density() {
    let model = truth("s5-softmax");
    let n = 100_000_000;
    let data = sample(&model, n, 7);
    let (mut mean, mut square) = (0.0, 0.0);
    if let smoe_lab::model::InputLaw::Grid { points, .. } = &model.input {
        for x in points {
            let law = model.parameters.conditional(x);
            for i in law.active() {
                let mass = law.log_weights[i].exp() / points.len() as f64;
                mean += mass * law.means[i];
                square += mass * (law.means[i] * law.means[i] + law.variances[i]);
            }
        }
    }
    let total = data.sample_size();
    let sum = |f: &dyn Fn(f64) -> f64| -> f64 {
        (0..data.len())
            .map(|i| data.count(i) * f(data.row(i).1))
            .sum()
    };
    let error = ((square - mean * mean) / total).sqrt();
    assert!((sum(&|y| y) / total - mean).abs() < 4.9 * error);
    let fourth = sum(&|y| y.powi(4)) / total;
    let error = ((fourth - square * square) / total).sqrt();
    assert!((sum(&|y| y * y) / total - square).abs() < 4.9 * error);
}

#[test]
fn a_lattice_sample_has_exactly_n_counts_in_a_bounded_number_of_rows() {
    let model = truth("s6-softplus");
    for n in [1, 10, 1_000, 1_000_000_000, 1_000_000_000_000] {
        let data = sample(&model, n, 3);
        assert_eq!(data.sample_size(), n as f64);
        assert!(data.len() < 1000);
        assert!(
            data.counts()
                .unwrap()
                .iter()
                .all(|c| c.fract() == 0.0 && *c > 0.0)
        );
    }
}

/// A pass visits at most a few hundred rows whatever n (the test above).
#[test]
fn a_fit_to_ten_thousand_million_rows_is_certified_in_a_few_hundred_passes() {
    for name in STUDIES {
        let plan = plan(name);
        for row in rows(&plan, 10_000_000_000, 3) {
            assert!(row.converged, "{name}: {}", row.stop);
            assert!(best_passes(&row) < 300.0, "{name}");
        }
    }
}

/// The default reaches what long expectation maximisation reaches, from poor
/// starts, in fewer passes.
#[test]
fn two_steps_of_em_and_newton_reach_what_em_reaches() {
    let mut model = truth("s5-softmax");
    // As in tests/common, but on a lattice: a fit of a few hundred rows.
    model.parameters.experts[0].intercept = 0.5;
    model.parameters.experts[1].intercept = -0.5;
    let data = sample(&model, 20_000, 11);
    let mut bounds = smoe_lab::fit::Bounds {
        low: vec![-10.0; 8],
        high: vec![10.0; 8],
    };
    bounds.low[4] = -5.0;
    bounds.low[5] = -5.0;
    let context = StartContext {
        template: &model.parameters,
        truth: None,
        data: &data,
        bounds: &bounds,
    };
    let long = Options {
        max_iterations: 2000,
        gain: 1e-6,
        ..Options::default()
    };
    for k in 0..8 {
        let stream = Stream::named(5, "poor", 0, Purpose::Start(k));
        let start = Start::KMeans.parameters(context, &stream).unwrap();
        let run = |options| maximise(&Cpu::new(), &data, &start, &bounds, options);
        let (quick, slow) = (run(&Options::default()), run(&long));
        assert!(quick.stop.is_converged() && slow.stop.is_converged());
        assert!(quick.log_likelihood > slow.log_likelihood - 1e-6);
        assert!(quick.effort.rows <= 20 * data.len(), "{:?}", quick.effort);
        assert!(2 * quick.effort.rows < slow.effort.rows);
    }
}

/// Two near-equal experts, one of them the last, whose gate has no coordinates
/// of its own.
#[test]
fn the_last_expert_may_be_the_one_that_is_split() {
    for name in ["s4-absolute", "s5-softmax"] {
        let model = truth(name);
        let template = model.parameters.split(&[1, 2]).unwrap();
        let layout = template.layout();
        let packed = layout.pack(&template);
        let bounds = smoe_lab::fit::Bounds {
            low: packed.iter().map(|v| v - 0.9).collect(),
            high: packed.iter().map(|v| v + 0.9).collect(),
        };
        for seed in 0..6 {
            let data = sample(&model, 10_000_000, 20 + seed);
            let context = StartContext {
                template: &template,
                truth: Some(&template),
                data: &data,
                bounds: &bounds,
            };
            let starts = vec![Start::PerturbedTruth { radius: 0.3 }; 3];
            let stream = |k: usize| Stream::named(seed, "last", 0, Purpose::Start(k as u32));
            let found = fit(&Cpu::new(), context, &starts, stream, &Options::default()).unwrap();
            let best = found.best();
            assert!(best.stop.is_converged(), "{name} {seed}: {}", best.stop);
            assert!(best.effort.rows <= 200 * data.len(), "{:?}", best.effort);
        }
    }
}

#[test]
fn a_truth_is_needed_where_a_start_copies_it() {
    let model = truth("s5-softmax");
    let template = model.parameters.split(&[2, 1]).unwrap();
    let data = sample(&model, 100, 1);
    let bounds = smoe_lab::fit::Bounds {
        low: vec![-10.0; 13],
        high: vec![10.0; 13],
    };
    let start = Start::PerturbedTruth { radius: 0.1 };
    let stream = Stream::named(1, "none", 0, Purpose::Start(0));
    for (truth, part) in [
        (None, "known truth"),
        (Some(&model.parameters), "own structure"),
    ] {
        let context = StartContext {
            template: &template,
            truth,
            data: &data,
            bounds: &bounds,
        };
        let error = start.parameters(context, &stream).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Without biases a copy would double its expert's weight: nothing is shared.
#[test]
fn experts_without_a_weight_of_their_own_are_copied_as_they_are() {
    let mut model = truth("s6-softplus");
    for expert in &mut model.parameters.experts {
        expert.gate = ExpertGate::None;
    }
    assert!(matches!(
        model.parameters.gate.kind,
        GateKind::Competition { .. }
    ));
    let copied = model.parameters.split(&[2, 1]).unwrap();
    assert_eq!(copied.experts[0], copied.experts[1]);
    assert_eq!(copied.experts[1], model.parameters.experts[0]);
}

/// Uncertified fits count against the claim.
#[test]
fn the_work_of_all_fits_decides_the_claim_of_passes() {
    let plan = plan("overspecified-softmax");
    let template = rows(&plan, 1_000, 1).remove(0);
    let judge = |change: &dyn Fn(u64, &mut (f64, &str))| {
        let mut all = Vec::new();
        for cell in &plan.cells {
            for replicate in 0..60 {
                let mut row = template.clone();
                (row.cell, row.n, row.replicate) = (cell.name.clone(), cell.n, replicate);
                let mut fit = (10.0 + replicate as f64, "Converged");
                change(replicate, &mut fit);
                row.starts = format!("somewhere -1 {} {}", fit.1, fit.0);
                all.push(row);
            }
        }
        let position = |c: &Claim| matches!(c, Claim::Passes { .. });
        let claim = plan.study.claim.iter().position(position).unwrap();
        Summary::new(&plan, &all).claims[claim].clone()
    };
    let good = judge(&|_, _| {});
    assert_eq!(good.verdict, Verdict::Holds);
    let Finding::Passes(Some(found)) = good.finding else {
        panic!("another finding");
    };
    assert_eq!((found.median, found.percentile_99), (39.0, 69.0));
    assert_eq!((found.uncertified, found.fits), (0, 480));

    let slow = judge(&|_, fit| fit.0 += 100.0);
    assert_eq!(slow.verdict, Verdict::Fails);
    let failed = judge(&|replicate, fit| {
        if replicate < 2 {
            fit.1 = "MaxIterations";
        }
    });
    assert_eq!(failed.verdict, Verdict::Fails);
    let Finding::Passes(Some(found)) = failed.finding else {
        panic!("another finding");
    };
    assert_eq!(
        (found.percentile_99, found.uncertified),
        (f64::INFINITY, 16)
    );
}

#[test]
fn an_over_specified_study_runs_reports_and_has_no_constants() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(sims().join("overspecified-softplus.toml")).unwrap();
    let model = sims().join("truths/s6-softplus.toml");
    let text = text
        .replace("truths/s6-softplus.toml", model.to_str().unwrap())
        .replace("replicates = 400", "replicates = 3");
    let path = folder.path().join("small.toml");
    std::fs::write(&path, text).unwrap();
    let plan = Plan::new(read_study(&path).unwrap()).unwrap();
    let mut file = RowFile::open(&folder.path().join("rows"), &plan).unwrap();
    run::run(&plan, &mut file, &Request::default(), |_, _, _| {}).unwrap();
    let summary = Summary::new(&plan, &file.rows);
    assert_eq!((summary.rows, summary.failures), (24, 0));
    assert_eq!(summary.series[0].parameters, 11);
    assert!(
        summary.series[0]
            .cells
            .iter()
            .all(|c| c.constants.is_empty())
    );
    let table = smoe_lab::report::text_table(&plan, &summary);
    assert!(table.contains("0 of 144 fits uncertified"), "{table}");
    assert!(
        file.rows
            .iter()
            .all(|row| row.losses.iter().all(|l| *l > 0.0))
    );
}
