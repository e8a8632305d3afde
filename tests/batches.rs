//! Whole cells on a device: the rows of recorded studies, drawn, fitted and measured
//! many at a time by the emulated device (the GPU's kernels on the processor), and on a
//! GPU if there is one.

mod common;

use common::devices;
use smoe_lab::backend::Cpu;
use smoe_lab::backend::cuda::{Cuda, Emulation, Order, Precision};
use smoe_lab::fit::{Batch, Centre, Limits, Options, Start, StartContext, fit};
use smoe_lab::model::{Data, InputLaw, Response, draw_sample};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::batch::Engine;
use smoe_lab::sim::row::RowFile;
use smoe_lab::sim::run::{self, Request};
use smoe_lab::sim::study::read_study;
use smoe_lab::sim::{Plan, Row, Shard};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn sims() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sims")
}

fn plan(name: &str) -> Plan {
    Plan::new(read_study(&sims().join(format!("{name}.toml"))).unwrap()).unwrap()
}

/// Two replicates of the cells whose name contains `only`.
fn request(only: &str) -> Request {
    Request {
        jobs: Some(2),
        only: Some(only.to_string()),
        smoke: true,
        shard: None,
    }
}

fn rows(engine: &Engine, plan: &Plan, only: &str) -> Vec<Row> {
    let folder = TempDir::new().unwrap();
    let mut file = RowFile::open(folder.path(), plan).unwrap();
    run::run_on(engine, plan, &mut file, &request(only), |_, _, _| {}).unwrap();
    file.rows.clone()
}

fn emulated(memory: usize) -> Engine {
    let emulation = Emulation {
        memory,
        ..Emulation::default()
    };
    Engine::Gpu(Cuda::emulated(emulation).unwrap())
}

/// Rows without what a run's time and its way to the maximum leave in them.
fn timeless(rows: &[Row]) -> Vec<Row> {
    let timeless = |row: &Row| Row {
        seconds: 0.0,
        ..row.clone()
    };
    rows.iter().map(timeless).collect()
}

/// A certificate leaves a gain of 1e-6 open, so two fits of one maximum are 2e-3 apart
/// in units of one row's information, at most.
fn assert_one_maximum(what: &str, n: u64, got: &Row, expected: &Row) {
    assert_eq!(got.cell, expected.cell, "{what}");
    assert_eq!(got.replicate, expected.replicate, "{what}");
    assert_eq!(got.converged, expected.converged, "{what}: {}", got.stop);
    let close = |name: &str, a: f64, b: f64, tolerance: f64| {
        let same = (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance;
        assert!(
            same,
            "{what}, {} {}: {name} {a} against {b}",
            got.cell, got.replicate
        );
    };
    let size = expected.log_likelihood.abs();
    close(
        "log-likelihood of the truth",
        got.log_likelihood_truth,
        expected.log_likelihood_truth,
        1e-12 * size,
    );
    if !expected.converged {
        return;
    }
    assert!(
        got.found_the_maximum_of(expected),
        "{what}, {} {}: {} against {}",
        got.cell,
        got.replicate,
        got.log_likelihood,
        expected.log_likelihood
    );
    let errors = |row: &Row| row.standard_errors.clone().unwrap_or_default();
    for (a, b) in errors(got).iter().zip(&errors(expected)) {
        close("standard error", *a, *b, 1e-3 * b.abs());
    }
    let root = (n as f64).sqrt();
    for (a, b) in got.losses.iter().zip(&expected.losses) {
        close("loss", *a, *b, 0.02 / root + 0.02 * b.abs());
    }
}

/// What of each study's estimator runs where: smooth and kinked likelihoods, starts
/// from data, several inputs, standard errors, top-K with and without jumps, counts
/// with near-equal experts, and estimators that only have their passes on the device.
const CELLS: [(&str, &str); 10] = [
    ("competition-exact", "n=3162"),
    ("softmax-exact", "n=1000"),
    ("density-dense", "truth=two-inputs,gate=normalised,n=3162"),
    ("exact-intervals", "truth=softmax-router,n=10000"),
    ("density-sparse", "gate=softplus,n=500"),
    ("top-k-regular", "truth=one-of-two,n=800"),
    ("overspecified-softmax", "n=1000000000"),
    ("published-softmax", "fit=published-2,n=316"),
    ("efficiency", "truth=separated,gate=bias,fit=router,n=1000"),
    ("efficiency", "truth=separated,gate=bias,fit=oracle,n=1000"),
];

#[test]
fn rows_of_a_device_are_those_of_the_processor_up_to_their_certificate() {
    for (name, cuda) in devices() {
        let engine = Engine::Gpu(cuda);
        for (study, only) in CELLS {
            let plan = plan(study);
            let got = rows(&engine, &plan, only);
            let expected = rows(&Engine::Processor, &plan, only);
            assert_eq!(got.len(), expected.len());
            assert!(!got.is_empty());
            for (got, expected) in got.iter().zip(&expected) {
                let what = format!("{study} on {name}");
                assert_one_maximum(&what, expected.n, got, expected);
            }
        }
    }
}

/// A million rows as the counts of some hundred cells, of which samples have more or
/// fewer.
#[test]
fn counts_are_fitted_as_on_the_processor() {
    let mut model = common::competition(Response::Softplus);
    model.input = InputLaw::Grid {
        points: vec![vec![-0.8], vec![0.1], vec![0.9]],
        lattice: Some(0.5),
    };
    let stream = |purpose| move |s: usize| Stream::named(8, "counts", s as u64, purpose);
    let data: Vec<Data> = (0..3)
        .map(|s| draw_sample(&model, 0, 1_000_000, &stream(Purpose::Data)(s)))
        .collect();
    let truth = &model.parameters;
    let bounds = Limits {
        coefficient: 10.0,
        bias: 5.0,
        gate_slope: 10.0,
        variance: [0.01, 10.0],
        zero_slopes: Vec::new(),
        zero_gate_slopes: Vec::new(),
        centre: Centre::Origin,
    }
    .bounds(&truth.layout());
    let options = Options::default();
    let starts = [Start::PerturbedTruth { radius: 0.1 }, Start::KMeans];
    for (name, cuda) in devices() {
        let replicates = cuda.upload(&data).unwrap();
        let batch = Batch {
            cuda: &cuda,
            replicates: &replicates,
            template: truth,
            truth: Some(truth),
            bounds: &bounds,
            sample_size: 1e6,
            options: &options,
            head: &|s, _| data[s].clone(),
        };
        let start = |s: usize, k: usize| stream(Purpose::Start(k as u32))(s);
        let fits = batch.fit(&starts, start).unwrap();
        for (s, (data, fits)) in data.iter().zip(&fits).enumerate() {
            let context = StartContext {
                template: truth,
                truth: Some(truth),
                data,
                bounds: &bounds,
            };
            let expected = fit(&Cpu::new(), context, &starts, |k| start(s, k), &options).unwrap();
            assert!(fits.best().stop.is_converged(), "{name}");
            for (got, expected) in fits.outcomes.iter().zip(&expected.outcomes) {
                let gap = (got.log_likelihood - expected.log_likelihood).abs();
                assert_eq!(got.stop, expected.stop, "{name}, sample {s}");
                assert!(gap < 2e-6, "{name}, sample {s}: {gap:e}");
            }
        }
    }
}

/// The plan of a cell with a pilot and several starts.
fn small() -> (Plan, &'static str) {
    (plan("competition-exact"), "gate=softplus,n=3162")
}

#[test]
fn rows_do_not_depend_on_what_else_is_in_a_batch() {
    let (plan, only) = small();
    let together = rows(&emulated(1 << 30), &plan, only);
    for order in [Order::Forward, Order::Reversed] {
        let emulation = Emulation {
            order,
            ..Emulation::default()
        };
        let engine = Engine::Gpu(Cuda::emulated(emulation).unwrap());
        let folder = TempDir::new().unwrap();
        let mut file = RowFile::open(folder.path(), &plan).unwrap();
        for part in 1..=2 {
            let request = Request {
                shard: Some(Shard::new(part, 2).unwrap()),
                ..request(only)
            };
            run::run_on(&engine, &plan, &mut file, &request, |_, _, _| {}).unwrap();
        }
        assert_eq!(timeless(&file.rows), timeless(&together), "{order:?}");
    }
}

#[test]
fn climbs_in_mixed_precision_end_at_the_same_certified_maxima() {
    let cuda = Cuda::emulated(Emulation::default()).unwrap();
    let engine = Engine::Gpu(cuda.with_precision(Precision::Mixed));
    for (study, only) in [
        ("competition-exact", "gate=softplus,n=316"),
        ("softmax-exact", "n=1000"),
    ] {
        let plan = plan(study);
        let got = rows(&engine, &plan, only);
        let expected = rows(&Engine::Processor, &plan, only);
        for (got, expected) in got.iter().zip(&expected) {
            assert!(got.converged);
            assert_one_maximum(study, expected.n, got, expected);
        }
    }
}

#[test]
fn a_cell_that_is_too_large_for_the_memory_is_split() {
    let (plan, only) = small();
    let together = rows(&emulated(1 << 30), &plan, only);
    // Room for the sample of n = 31623 (0.5 MB), not for two of them with their fits.
    let split = rows(&emulated(900 << 10), &plan, only);
    assert_eq!(timeless(&split), timeless(&together));
}

#[test]
fn a_sample_that_is_too_large_for_the_memory_is_a_row_with_its_reason() {
    let (plan, only) = small();
    // Room for n = 3162 (51 kB), not for n = 31623 (506 kB).
    let rows = rows(&emulated(300 << 10), &plan, only);
    assert_eq!(rows.len(), 4);
    for row in rows {
        match row.n {
            3162 => assert!(row.converged),
            _ => {
                assert_eq!(row.stop, "OutOfMemory");
                assert!(!row.converged && row.log_likelihood.is_nan());
                assert!(row.detail.contains("bytes needed"), "{}", row.detail);
                assert!(row.losses.iter().all(|loss| loss.is_nan()));
            }
        }
    }
    // A study that records standard errors has none to record.
    let plan = self::plan("exact-intervals");
    for row in self::rows(&emulated(100 << 10), &plan, "truth=softplus,n=10000") {
        assert_eq!(row.stop, "OutOfMemory");
        let errors = row.standard_errors.unwrap();
        assert!(!errors.is_empty() && errors.iter().all(|e| e.is_nan()));
    }
}
