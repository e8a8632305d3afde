//! The kernels of the GPU engine against the reference, on the emulated device: what
//! runs is the same source text that a GPU gets.

mod common;

use common::{EXPERT_KINDS, dense, gate_kinds, mixture};
use ndarray::{Array1, Array2};
use smoe_lab::backend::cuda::{Cuda, Emulation};
use smoe_lab::backend::{Backend, EmStatistics, Reference};
use smoe_lab::model::{Data, Gate, Parameters, Selection, VarianceStructure};
use smoe_lab::rng::{Purpose, Stream};

/// Relative to the largest entry of the same kind.
const TOLERANCE: f64 = 1e-12;

fn data(rows: usize, d: usize) -> Data {
    let stream = Stream::named(3, "cuda", (rows * 10 + d) as u64, Purpose::Data);
    let draw = |i: usize, j: usize| stream.standard_normal(i as u64, j as u64);
    Data::new(
        Array2::from_shape_fn((rows, d), |(i, j)| draw(i, j)),
        Array1::from_shape_fn(rows, |i| 1.5 * draw(i, d)),
    )
    .unwrap()
}

fn counted(data: Data) -> Data {
    let counts = (0..data.len()).map(|i| ((i * 7) % 5) as f64).collect();
    data.with_counts(counts).unwrap()
}

fn noise(seed: u64) -> Vec<f64> {
    let stream = Stream::named(seed, "noise", 0, Purpose::Start(0));
    (0..23).map(|k| stream.standard_normal(k, 0)).collect()
}

/// Named numbers of all operations, one vector per kind.
fn sums(backend: &dyn Backend, parameters: &Parameters, data: &Data) -> Vec<(String, Vec<f64>)> {
    let (value, gradient) = backend.gradient(parameters, data);
    let derivatives = backend.derivatives(parameters, data);
    let outer = backend.score_outer(parameters, data);
    let EmStatistics {
        log_likelihood,
        experts,
        gate_score,
        gate_information,
    } = backend.em_statistics(parameters, data);
    let values = vec![
        backend.log_likelihood(parameters, data),
        value,
        derivatives.log_likelihood,
        log_likelihood,
    ];
    let mut all = vec![
        ("log-likelihood".to_string(), values),
        ("gradient".to_string(), gradient.to_vec()),
        ("score".to_string(), derivatives.gradient.to_vec()),
        (
            "Hessian".to_string(),
            derivatives.hessian.iter().copied().collect(),
        ),
        ("outer product".to_string(), outer.iter().copied().collect()),
        ("EM gate score".to_string(), gate_score.to_vec()),
        (
            "EM gate information".to_string(),
            gate_information.iter().copied().collect(),
        ),
    ];
    for (i, expert) in experts.iter().enumerate() {
        let name = |part: &str| format!("EM expert {i} {part}");
        let moments = vec![expert.responsibility, expert.squares];
        all.push((name("responsibility"), moments));
        all.push((name("score"), expert.score.to_vec()));
        all.push((name("moment"), expert.moment.to_vec()));
        all.push((
            name("curvature"),
            expert.curvature.iter().copied().collect(),
        ));
        all.push((name("gram"), expert.gram.iter().copied().collect()));
    }
    all
}

/// The largest error relative to the largest entry of its kind.
fn worst(cuda: &Cuda, parameters: &Parameters, data: &Data) -> (f64, String) {
    let got = sums(cuda, parameters, data);
    assert!(cuda.failure().is_none());
    let expected = sums(&Reference, parameters, data);
    let mut worst = (0.0, String::new());
    for ((name, got), (_, expected)) in got.iter().zip(&expected) {
        assert_eq!(got.len(), expected.len(), "{name}");
        let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (k, (a, b)) in got.iter().zip(expected).enumerate() {
            let error = (a - b).abs() / scale;
            if error.is_nan() || error > worst.0 {
                worst = (error, format!("{name}, entry {k}: {a:e} against {b:e}"));
            }
        }
    }
    worst
}

fn assert_same(what: &str, cuda: &Cuda, parameters: &Parameters, data: &Data) {
    let (error, which) = worst(cuda, parameters, data);
    assert!(error <= TOLERANCE, "{what}: {which}, error {error:e}");
}

fn emulated() -> Cuda {
    Cuda::emulated(Emulation::default()).unwrap()
}

#[test]
fn every_gate_and_expert_kind_agrees_with_the_reference() {
    let cuda = emulated();
    let mut seed = 0;
    for gate in gate_kinds() {
        for kind in EXPERT_KINDS {
            for (experts, d) in [(1, 1), (2, 0), (2, 1), (3, 2), (5, 4)] {
                seed += 1;
                let variances = match seed % 3 {
                    0 => VarianceStructure::Shared,
                    _ => VarianceStructure::PerExpert,
                };
                let parameters = mixture(dense(gate), kind, experts, d, variances, &noise(seed));
                let rows = [3, 64, 150, 333][seed as usize % 4];
                let sample = data(rows, d);
                let what = format!("{gate:?} {kind:?} K={experts} d={d} n={rows}");
                assert_same(&what, &cuda, &parameters, &sample);
                let what = format!("{what} counted");
                assert_same(&what, &cuda, &parameters, &counted(sample));
            }
        }
    }
}

#[test]
fn top_k_agrees_with_the_reference() {
    let cuda = emulated();
    let mut seed = 1000;
    for kind in gate_kinds() {
        for (experts, top_k) in [(2, 1), (3, 2), (4, 3), (7, 2)] {
            for selection in [Selection::Score, Selection::Slope] {
                seed += 1;
                let gate = Gate {
                    kind,
                    top_k: Some(top_k),
                    selection,
                };
                let structure = VarianceStructure::PerExpert;
                let expert = EXPERT_KINDS[seed as usize % EXPERT_KINDS.len()];
                let parameters = mixture(gate, expert, experts, 2, structure, &noise(seed));
                let what = format!("{gate:?} {expert:?} K={experts}");
                assert_same(&what, &cuda, &parameters, &data(100, 2));
            }
        }
    }
}
