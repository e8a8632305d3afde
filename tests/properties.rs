//! What must hold for every mixture: symmetries of the losses, inequalities
//! between the distances, total mass one, and a sampler that draws from the
//! density it claims.

mod common;

use common::{RESPONSES, dense, gate_kinds, mixture};
use proptest::prelude::*;
use smoe_lab::loss::density::{DensityDistance, Effort, density_distance};
use smoe_lab::loss::divergence::{Wanted, divergence};
use smoe_lab::loss::voronoi::{applicable, voronoi_loss};
use smoe_lab::model::{
    Conditional, Expert, ExpertGate, ExpertKind, Gate, GateKind, InputLaw, Model, Parameters,
    Response, Selection, VarianceStructure, Weights, draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};

/// Beyond this many standard errors a normal lies with probability 1e-6.
const SIGMAS: f64 = 4.89;

/// Numbers enough for three experts of any kind in one dimension.
fn noise() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(-1.2f64..1.2, 22)
}

/// Every gate kind, dense and with two of three experts kept.
fn gates() -> Vec<Gate> {
    let mut gates = Vec::new();
    for kind in gate_kinds() {
        for top_k in [None, Some(2)] {
            gates.push(Gate {
                top_k,
                ..dense(kind)
            });
        }
    }
    gates
}

/// Three linear experts in one dimension.
fn three(gate: Gate, noise: &[f64]) -> Parameters {
    let structure = VarianceStructure::PerExpert;
    mixture(gate, ExpertKind::Linear, 3, 1, structure, noise)
}

fn on_unit_interval(parameters: Parameters) -> Model {
    let input = InputLaw::Uniform {
        low: vec![-1.0],
        high: vec![1.0],
    };
    Model { input, parameters }
}

fn distance(truth: &Model, fitted: &Parameters) -> DensityDistance {
    density_distance(truth, fitted, Wanted::All, Effort::default()).unwrap()
}

/// h, h^2, V, KL and every applicable Voronoi loss, with names.
fn losses(truth: &Model, fitted: &Parameters) -> Vec<(&'static str, f64)> {
    let d = distance(truth, fitted);
    let mut all = vec![
        ("hellinger", d.hellinger.value),
        ("hellinger_sq", d.hellinger_sq.value),
        ("total_variation", d.total_variation.value),
        ("kullback_leibler", d.kullback_leibler.value),
    ];
    for loss in applicable(truth) {
        all.push((loss.name(), voronoi_loss(loss, fitted, truth).unwrap()));
    }
    all
}

/// The same conditional law with all log-weights moved by slope x + intercept
/// (by the intercept alone where the gate has no slopes).
fn translated(parameters: &Parameters, by_slope: f64, by_intercept: f64) -> Parameters {
    let mut moved = parameters.clone();
    for expert in &mut moved.experts {
        match &mut expert.gate {
            ExpertGate::None => {}
            ExpertGate::Bias(bias) => *bias += by_intercept,
            ExpertGate::Router { slope, intercept } => {
                slope[0] += by_slope;
                *intercept += by_intercept;
            }
        }
    }
    moved
}

fn expect_equal(
    gate: Gate,
    expected: &[(&'static str, f64)],
    found: &[(&'static str, f64)],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(expected.len(), found.len());
    for ((name, a), (_, b)) in expected.iter().zip(found) {
        prop_assert!(
            (a - b).abs() < 1e-8 * (1.0 + a.abs()),
            "{gate:?} {name}: {a} {b}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn losses_do_not_change_when_experts_are_permuted(p in noise(), q in noise()) {
        for gate in gates() {
            let truth = on_unit_interval(three(gate, &p));
            let fitted = three(gate, &q);
            let expected = losses(&truth, &fitted);
            for order in [[1, 2, 0], [2, 1, 0]] {
                let turned = on_unit_interval(truth.parameters.permuted(&order));
                expect_equal(gate, &expected, &losses(&turned, &fitted))?;
                expect_equal(gate, &expected, &losses(&truth, &fitted.permuted(&order)))?;
            }
        }
    }

    #[test]
    fn losses_do_not_change_when_a_gate_is_translated(
        p in noise(), q in noise(), slope in -2.0f64..2.0, intercept in -2.0f64..2.0,
    ) {
        for gate in gates().into_iter().filter(|g| g.kind.is_translation_invariant()) {
            let truth = on_unit_interval(three(gate, &p));
            let fitted = three(gate, &q);
            let expected = losses(&truth, &fitted);
            let moved = on_unit_interval(translated(&truth.parameters, slope, intercept));
            expect_equal(gate, &expected, &losses(&moved, &fitted))?;
            let moved = translated(&fitted, slope, intercept);
            expect_equal(gate, &expected, &losses(&truth, &moved))?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn distances_keep_their_order_for_every_pair_of_gates(p in noise(), q in noise()) {
        let close = 1e-9;
        for (k, gate) in gates().into_iter().enumerate() {
            let truth = on_unit_interval(three(gate, &p));
            // Sometimes near the truth, sometimes with another gate.
            let others = gates();
            let fitted = match k % 3 {
                0 => three(gate, &q),
                1 => three(others[(k + 5) % others.len()], &q),
                _ => translated_expert(&truth.parameters, 1e-3),
            };
            let d = distance(&truth, &fitted);
            let [h, h2, v, kl] =
                [d.hellinger, d.hellinger_sq, d.total_variation, d.kullback_leibler]
                    .map(|mean| mean.value);
            prop_assert!(h >= 0.0 && h2 >= 0.0 && kl >= 0.0, "{gate:?} {d:?}");
            prop_assert!(h2 <= v + close, "{gate:?} {d:?}");
            prop_assert!(v <= 2f64.sqrt() * h + close, "{gate:?} {d:?}");
            prop_assert!(h <= 1.0 + close && v <= 1.0 + close, "{gate:?} {d:?}");
            prop_assert!(h * h <= h2 + close, "Jensen: {gate:?} {d:?}");
            prop_assert!(2.0 * h2 <= kl + close, "{gate:?} {d:?}");
            // At one input the sharper V^2 <= h^2 (2 - h^2) holds too.
            for x in [-0.9, 0.1, 0.7] {
                let laws = [&truth.parameters, &fitted].map(|m| m.conditional(&[x]));
                let d = divergence(&laws[0], &laws[1], Wanted::All);
                let (h2, v) = (d.hellinger_sq, d.total_variation);
                prop_assert!(h2 <= v + close && v * v <= h2 * (2.0 - h2) + close, "{d:?}");
            }
        }
    }

    #[test]
    fn losses_are_zero_at_the_same_measure_and_positive_beside_it(
        p in noise(), which in 0usize..3,
    ) {
        for gate in gates() {
            let truth = on_unit_interval(three(gate, &p));
            let turned = truth.parameters.permuted(&[2, 0, 1]);
            for (name, value) in losses(&truth, &turned) {
                prop_assert!(value.abs() < 1e-7, "{gate:?} {name}: {value}");
            }
            let mut beside = truth.parameters.clone();
            beside.experts[which].intercept += 0.05;
            for (name, value) in losses(&truth, &beside) {
                // A sparse gate may keep this expert nowhere.
                let unseen = gate.top_k.is_some() && !is_ever_kept(&truth.parameters, which);
                prop_assert!(value > 1e-9 || unseen, "{gate:?} {name}: {value}");
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn densities_integrate_to_one(p in noise(), x in -1.0f64..1.0) {
        for gate in gates() {
            let law = three(gate, &p).conditional(&[x]);
            let deviations: Vec<f64> = law.variances.iter().map(|v| v.sqrt()).collect();
            let least = deviations.iter().copied().fold(f64::INFINITY, f64::min);
            let ends = |sign: f64| {
                let tails = law.means.iter().zip(&deviations).map(|(m, s)| sign * m + 9.0 * s);
                tails.fold(f64::NEG_INFINITY, f64::max)
            };
            let (low, high) = (-ends(-1.0), ends(1.0));
            // The trapezoidal rule: for normals of deviation s its error is
            // exp(-2 (pi s / step)^2), here below rounding.
            let step = least / 4.0;
            let nodes = ((high - low) / step).ceil() as usize;
            let mass: f64 = (0..=nodes)
                .map(|k| step * law.log_density(low + step * k as f64).exp())
                .sum();
            prop_assert!((mass - 1.0).abs() < 1e-12, "{gate:?}: {mass}");
        }
    }

    #[test]
    fn keeping_all_experts_is_the_dense_gate(p in noise(), x in -1.0f64..1.0, y in -3.0f64..3.0) {
        let stream = Stream::named(1, "all kept", 0, Purpose::Data);
        for kind in gate_kinds() {
            for selection in [Selection::Score, Selection::Slope] {
                let gate = Gate { kind, top_k: None, selection };
                let dense = three(gate, &p);
                let all = three(Gate { top_k: Some(3), ..gate }, &p);
                prop_assert_eq!(dense.conditional(&[x]), all.conditional(&[x]));
                prop_assert_eq!(dense.log_density(&[x], y), all.log_density(&[x], y));
                let [dense, all] = [dense, all].map(on_unit_interval);
                let sample = |model| draw_sample(model, 0, 20, &stream);
                prop_assert_eq!(sample(&dense), sample(&all));
                let d = distance(&dense, &all.parameters);
                prop_assert_eq!(d.hellinger.value, 0.0);
            }
        }
    }

    #[test]
    fn a_sparse_gate_keeps_k_experts_and_rescales_their_dense_weights(
        p in noise(), x in -1.0f64..1.0, k in 1usize..3,
    ) {
        for kind in gate_kinds() {
            let dense = three(dense(kind), &p).conditional(&[x]);
            let gate = Gate { kind, top_k: Some(k), selection: Selection::Score };
            let sparse = three(gate, &p).conditional(&[x]);
            let kept: Vec<usize> = sparse.active().collect();
            prop_assert_eq!(kept.len(), k);
            let total: f64 = kept.iter().map(|&i| dense.log_weights[i].exp()).sum();
            for &i in &kept {
                let weight = dense.log_weights[i].exp() / total;
                prop_assert!((sparse.log_weights[i].exp() - weight).abs() < 1e-12);
            }
        }
    }
}

fn translated_expert(parameters: &Parameters, by: f64) -> Parameters {
    let mut moved = parameters.clone();
    moved.experts[1].intercept += by;
    moved
}

/// Whether a sparse gate keeps the expert on more than a sliver of the inputs.
fn is_ever_kept(parameters: &Parameters, expert: usize) -> bool {
    let kept = |k: &i32| {
        let law = parameters.conditional(&[f64::from(*k) / 100.0]);
        law.active().any(|i| i == expert)
    };
    (-100..=100).filter(kept).count() > 2
}

/// Three experts with the same score and, but for the competition's, different
/// means.
fn tied(kind: GateKind) -> Parameters {
    let means = match kind {
        GateKind::Competition { .. } => [0.7; 3],
        _ => [0.7, -0.2, 1.5],
    };
    let gate = if kind.is_router() {
        ExpertGate::Router {
            slope: vec![0.4],
            intercept: -0.1,
        }
    } else {
        ExpertGate::Bias(0.25)
    };
    let experts = means.iter().enumerate().map(|(i, &intercept)| Expert {
        kind: ExpertKind::Linear,
        slope: vec![0.3],
        intercept,
        scale: None,
        variance: 0.1 + i as f64,
        gate: gate.clone(),
    });
    Parameters {
        gate: dense(kind),
        variance_structure: VarianceStructure::PerExpert,
        experts: experts.collect(),
    }
}

#[test]
fn ties_go_to_the_lower_index_for_every_gate() {
    for kind in gate_kinds() {
        for selection in [Selection::Score, Selection::Slope] {
            for k in 1..=2 {
                let mut parameters = tied(kind);
                parameters.gate.top_k = Some(k);
                parameters.gate.selection = selection;
                for order in [[0, 1, 2], [2, 0, 1]] {
                    let law = parameters.permuted(&order).conditional(&[0.5]);
                    let kept: Vec<usize> = law.active().collect();
                    assert_eq!(kept, (0..k).collect::<Vec<_>>(), "{kind:?} {order:?}");
                }
            }
        }
    }
}

#[test]
fn even_responses_tie_at_opposite_means() {
    for response in RESPONSES {
        for weights in [Weights::Softmax, Weights::Normalised] {
            let kind = GateKind::Competition {
                response,
                weights,
                kappa: 1.0,
            };
            let mut parameters = tied(kind);
            parameters.gate.top_k = Some(1);
            for (expert, sign) in parameters.experts.iter_mut().zip([-1.0, 1.0, 1.0]) {
                expert.slope[0] *= sign;
                expert.intercept *= sign;
            }
            let law = parameters.conditional(&[0.5]);
            // The softplus is not even: it prefers the larger mean.
            let winner = usize::from(response == Response::Softplus);
            assert_eq!(law.active().collect::<Vec<_>>(), [winner], "{kind:?}");
        }
    }
}

/// Mean, variance and fourth central moment of a mixture of normals.
fn moments(law: &Conditional) -> (f64, f64, f64) {
    let weights: Vec<f64> = law.log_weights.iter().map(|w| w.exp()).collect();
    let over = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        let components = law.means.iter().zip(&law.variances);
        weights
            .iter()
            .zip(components)
            .map(|(w, (&m, &v))| w * f(m, v))
            .sum()
    };
    let mean = over(&|m, _| m);
    let variance = over(&|m, v| v + (m - mean).powi(2));
    let fourth = over(&|m, v| {
        let d2 = (m - mean).powi(2);
        d2 * d2 + 6.0 * d2 * v + 3.0 * v * v
    });
    (mean, variance, fourth)
}

/// 20 000 responses at each of three inputs for each of 18 gates. Each of the
/// 108 checks fails a correct sampler with probability 1e-6 (4.89 standard
/// errors) and catches, with the same certainty, twice that: a mean off by 0.07
/// standard deviations or a variance off by about 10 %. Seeds are fixed.
#[test]
fn simulated_responses_have_the_conditional_mean_and_variance() {
    const ROWS: usize = 20_000;
    let noise = [
        0.9, -0.4, 0.3, 1.1, -0.8, 0.5, -1.0, 0.2, 0.7, -0.3, 0.6, -0.9, 0.1, 0.8,
    ];
    for (k, gate) in gates().into_iter().enumerate() {
        let parameters = three(gate, &noise);
        for x in [-0.8, 0.05, 0.6] {
            let input = InputLaw::Grid {
                points: vec![vec![x]],
                lattice: None,
            };
            let parameters = parameters.clone();
            let (mean, variance, fourth) = moments(&parameters.conditional(&[x]));
            let model = Model { input, parameters };
            let stream = Stream::named(11, &format!("x={x}"), k as u64, Purpose::Data);
            let data = draw_sample(&model, 0, ROWS, &stream);
            assert!((0..ROWS).all(|i| data.row(i).0 == [x]));
            let n = ROWS as f64;
            let about = |power: i32| -> f64 {
                let powers = data.responses().iter().map(|y| (y - mean).powi(power));
                powers.sum::<f64>() / n
            };
            let mean_error = about(1).abs();
            assert!(mean_error < SIGMAS * (variance / n).sqrt(), "{gate:?} {x}");
            let variance_error = (about(2) - variance).abs();
            let deviation = ((fourth - variance * variance) / n).sqrt();
            assert!(variance_error < SIGMAS * deviation, "{gate:?} {x}");
        }
    }
}

/// Every law's first coordinate against its own mean and variance, as above:
/// false failures 1e-6 per check; a mean off by 0.07 standard deviations is
/// caught with the same certainty.
#[test]
fn simulated_inputs_have_the_laws_mean_and_variance() {
    const ROWS: usize = 20_000;
    // A standard normal cut at 1: variance 1 - 2 phi(1) / (2 Phi(1) - 1).
    let cut = 1.0 - 2.0 * 0.241_970_724_519_143_4 / 0.682_689_492_137_085_9;
    let laws = [
        (
            InputLaw::Uniform {
                low: vec![-1.0],
                high: vec![3.0],
            },
            (1.0, 16.0 / 12.0),
        ),
        (
            InputLaw::Normal {
                mean: vec![2.0],
                sd: vec![0.5],
                truncation: 1.0,
            },
            (2.0, 0.25 * cut),
        ),
        (
            InputLaw::Grid {
                points: vec![vec![0.0], vec![0.0], vec![3.0]],
                lattice: None,
            },
            (1.0, 2.0),
        ),
    ];
    for (k, (input, (mean, variance))) in laws.into_iter().enumerate() {
        let parameters = three(dense(GateKind::Constant), &[0.1, 0.2, 0.3]);
        let model = Model { input, parameters };
        let stream = Stream::named(12, "inputs", k as u64, Purpose::Data);
        let data = draw_sample(&model, 0, ROWS, &stream);
        let n = ROWS as f64;
        let about = |power: i32| -> f64 {
            let powers = data.column(0).iter().map(|x| (x - mean).powi(power));
            powers.sum::<f64>() / n
        };
        assert!(about(1).abs() < SIGMAS * (variance / n).sqrt(), "{model:?}");
        let deviation = ((about(4) - variance * variance) / n).sqrt();
        assert!(
            (about(2) - variance).abs() < SIGMAS * deviation,
            "{model:?}"
        );
    }
}
