//! Analytic derivatives against finite differences, for every gate and expert.

mod common;

use common::{EXPERT_KINDS, gate_kinds, mixture};
use ndarray::{Array1, Array2};
use proptest::prelude::*;
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::model::{Data, Gate, Parameters, Point, Selection, VarianceStructure};

fn every_structure(top_k: Option<usize>, dimension: usize, noise: &[f64]) -> Vec<Parameters> {
    let mut all = Vec::new();
    for kind in gate_kinds() {
        for expert in EXPERT_KINDS {
            for variance in [VarianceStructure::PerExpert, VarianceStructure::Shared] {
                for selection in [Selection::Score, Selection::Slope] {
                    let gate = Gate {
                        kind,
                        top_k,
                        selection,
                    };
                    all.push(mixture(gate, expert, 3, dimension, variance, noise));
                }
            }
        }
    }
    all
}

/// Central difference with one Richardson step: error O(step^4).
fn difference(f: impl Fn(f64) -> f64, step: f64) -> f64 {
    let central = |h: f64| (f(h) - f(-h)) / (2.0 * h);
    (4.0 * central(step / 2.0) - central(step)) / 3.0
}

/// True if no kink or change of selection lies within reach of the differences.
fn is_smooth_near(parameters: &Parameters, x: &[f64]) -> bool {
    let means: Vec<f64> = parameters.experts.iter().map(|e| e.mean(x)).collect();
    let clear = parameters
        .experts
        .iter()
        .zip(&means)
        .all(|(e, m)| e.predictor(x).abs() > 0.05 && m.abs() > 0.05);
    let layout = parameters.layout();
    let packed = layout.pack(parameters);
    let selection = parameters.selection(x, &means);
    let stable = (0..packed.len()).all(|j| {
        [-0.01, 0.01].iter().all(|shift| {
            let mut moved = packed.clone();
            moved[j] += shift;
            let moved = layout.unpack(parameters, &moved);
            let means: Vec<f64> = moved.experts.iter().map(|e| e.mean(x)).collect();
            moved.selection(x, &means) == selection
        })
    });
    clear && stable
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_score_matches_finite_differences_for_every_gate_and_expert(
        noise in proptest::collection::vec(-1.2f64..1.2, 31),
        x in proptest::collection::vec(-1.0f64..1.0, 2),
        y in -3.0f64..3.0,
        top_k in prop_oneof![Just(None), Just(Some(1)), Just(Some(2))],
    ) {
        for parameters in every_structure(top_k, 2, &noise) {
            if !is_smooth_near(&parameters, &x) {
                continue;
            }
            let layout = parameters.layout();
            let packed = layout.pack(&parameters);
            let mut score = vec![0.0; layout.len()];
            let mut point = Point::new(&parameters);
            let value = parameters.score(&layout, &mut point, &x, y, &mut score);
            let reference = parameters.log_density(&x, y);
            prop_assert!((value - reference).abs() < 1e-12 * (1.0 + reference.abs()));
            for (j, analytic) in score.iter().enumerate() {
                let numeric = difference(|h| {
                    let mut moved = packed.clone();
                    moved[j] += h;
                    layout.unpack(&parameters, &moved).log_density(&x, y)
                }, 2e-3);
                prop_assert!(
                    (analytic - numeric).abs() < 1e-7 * (1.0 + analytic.abs()),
                    "{:?} {:?} {}: {analytic} {numeric}",
                    parameters.gate, parameters.experts[0].kind, layout.coordinates()[j]
                );
            }
        }
    }

    #[test]
    fn the_hessian_matches_differences_of_the_gradient(
        noise in proptest::collection::vec(-1.2f64..1.2, 31),
        x in proptest::collection::vec(-1.0f64..1.0, 2),
        y in -3.0f64..3.0,
        top_k in prop_oneof![Just(None), Just(Some(2))],
    ) {
        let data = Data::new(
            Array2::from_shape_vec((1, 2), x.clone()).unwrap(),
            Array1::from(vec![y]),
        ).unwrap();
        for parameters in every_structure(top_k, 2, &noise) {
            if !is_smooth_near(&parameters, &x) {
                continue;
            }
            let layout = parameters.layout();
            let packed = layout.pack(&parameters);
            let all = Cpu::new().derivatives(&parameters, &data);
            let (value, gradient) = Cpu::new().gradient(&parameters, &data);
            let outer_sum = Cpu::new().score_outer(&parameters, &data);
            prop_assert!((all.log_likelihood - value).abs() < 1e-12 * (1.0 + value.abs()));
            for a in 0..layout.len() {
                prop_assert!((all.gradient[a] - gradient[a]).abs() < 1e-11 * (1.0 + gradient[a].abs()));
                for b in 0..layout.len() {
                    let numeric = difference(|h| {
                        let mut moved = packed.clone();
                        moved[b] += h;
                        Cpu::new().gradient(&layout.unpack(&parameters, &moved), &data).1[a]
                    }, 2e-3);
                    let analytic = all.hessian[[a, b]];
                    prop_assert!(
                        (analytic - numeric).abs() < 1e-6 * (1.0 + analytic.abs()),
                        "{:?} {:?} {} {}: {analytic} {numeric}",
                        parameters.gate, parameters.experts[0].kind,
                        layout.coordinates()[a], layout.coordinates()[b]
                    );
                    let outer = gradient[a] * gradient[b];
                    prop_assert!((outer_sum[[a, b]] - outer).abs() < 1e-10 * (1.0 + outer.abs()));
                }
            }
        }
    }

    #[test]
    fn packing_and_unpacking_give_the_same_density(
        noise in proptest::collection::vec(-1.2f64..1.2, 31),
        x in -1.0f64..1.0,
        y in -3.0f64..3.0,
    ) {
        for parameters in every_structure(Some(2), 1, &noise) {
            let layout = parameters.layout();
            let packed = layout.pack(&parameters);
            let back = layout.unpack(&parameters, &packed);
            // Adding and removing the gauge may reorder near-ties of a selection.
            if is_smooth_near(&parameters, &[x]) {
                let (a, b) = (parameters.log_density(&[x], y), back.log_density(&[x], y));
                prop_assert!((a - b).abs() < 1e-11 * (1.0 + a.abs()), "{:?}", parameters.gate);
            }
            for (a, b) in layout.pack(&back).iter().zip(&packed) {
                prop_assert!((a - b).abs() < 1e-14 * (1.0 + a.abs()));
            }
        }
    }
}

#[test]
fn sums_over_rows_do_not_depend_on_the_number_of_threads() {
    use smoe_lab::rng::{Purpose, Stream};
    let model = common::competition(smoe_lab::model::Response::Softplus);
    let stream = Stream::named(1, "threads", 0, Purpose::Data);
    let data = smoe_lab::model::draw_sample(&model, 0, 600_000, &stream);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| Cpu::new().derivatives(&model.parameters, &data))
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}
