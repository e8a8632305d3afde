use super::*;
use crate::model::InputLaw;
use crate::model::{Gate, Selection, VarianceStructure};
use proptest::prelude::*;

pub(super) const ABSOLUTE: GateKind = GateKind::Competition {
    response: Response::Absolute,
    weights: Weights::Softmax,
    kappa: 1.3,
};
const SOFTPLUS: GateKind = GateKind::Competition {
    response: Response::Softplus,
    weights: Weights::Softmax,
    kappa: 1.0,
};

fn gate_of(loss: VoronoiLoss) -> GateKind {
    match loss {
        VoronoiLoss::Competition => SOFTPLUS,
        VoronoiLoss::Tilted => ABSOLUTE,
        VoronoiLoss::Softmax | VoronoiLoss::SoftmaxOverspecified => GateKind::Softmax,
        VoronoiLoss::Sigmoid => GateKind::Sigmoid,
    }
}

/// Competition and constant gates: slope, intercept, variance, bias in d = 1.
pub(super) fn biased(slope: f64, intercept: f64, variance: f64, bias: f64) -> Expert {
    Expert {
        kind: ExpertKind::Linear,
        slope: vec![slope],
        intercept,
        scale: None,
        variance,
        gate: ExpertGate::Bias(bias),
    }
}

fn unbiased(slope: f64) -> Expert {
    Expert {
        gate: ExpertGate::None,
        ..biased(slope, 0.0, 1.0, 0.0)
    }
}

pub(super) fn parameters(kind: GateKind, top_k: Option<usize>, experts: Vec<Expert>) -> Parameters {
    Parameters {
        gate: Gate {
            kind,
            top_k,
            selection: Selection::Score,
        },
        variance_structure: VarianceStructure::PerExpert,
        experts,
    }
}

/// A truth on the box [-1, 1]^d.
pub(super) fn truth_of(parameters: &Parameters) -> Model {
    let d = parameters.dimension();
    Model {
        input: InputLaw::Uniform {
            low: vec![-1.0; d],
            high: vec![1.0; d],
        },
        parameters: parameters.clone(),
    }
}

/// `count` experts over d inputs; means never zero on the box, so that every
/// loss of the gate applies.
pub(super) fn experts(
    kind: GateKind,
    d: usize,
    count: usize,
) -> impl Strategy<Value = Vec<Expert>> {
    let numbers = prop::collection::vec(-1.0f64..1.0, 2 * d + 3);
    let one = numbers.prop_map(move |v| {
        let slope: Vec<f64> = v[..d].iter().map(|a| a / d as f64).collect();
        Expert {
            kind: ExpertKind::Linear,
            slope,
            intercept: v[d].signum() * (1.1 + v[d].abs()),
            scale: None,
            variance: 1.0 + 0.8 * v[d + 1],
            gate: if kind.is_router() {
                ExpertGate::Router {
                    slope: v[d + 3..].to_vec(),
                    intercept: v[d + 2],
                }
            } else {
                ExpertGate::Bias(v[d + 2])
            },
        }
    });
    prop::collection::vec(one, count)
}

/// The mixture whose log-weights are shifted by `shift[0] + shift[1..] . x`.
fn translated(original: &Parameters, shift: &[f64]) -> Parameters {
    let mut result = original.clone();
    for expert in &mut result.experts {
        match &mut expert.gate {
            ExpertGate::None => {}
            ExpertGate::Bias(bias) => *bias += shift[0],
            ExpertGate::Router { slope, intercept } => {
                *intercept += shift[0];
                slope.iter_mut().zip(&shift[1..]).for_each(|(s, t)| *s += t);
            }
        }
    }
    result
}

/// A loss, a truth (dense or sparse) of three experts, a fit of four.
fn problems() -> impl Strategy<Value = (VoronoiLoss, Parameters, Parameters)> {
    let choices = (0..5usize, 1..3usize, prop::option::of(1..3usize));
    choices.prop_flat_map(|(loss, d, top_k)| {
        let loss = VoronoiLoss::ALL[loss];
        let kind = gate_of(loss);
        (experts(kind, d, 3), experts(kind, d, 4)).prop_map(move |(truth, fitted)| {
            let truth = parameters(kind, top_k, truth);
            (loss, truth, parameters(kind, top_k, fitted))
        })
    })
}

fn evaluate(loss: VoronoiLoss, fitted: &Parameters, truth: &Parameters) -> f64 {
    voronoi_loss(loss, fitted, &truth_of(truth)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_loss_is_zero_at_the_truth_permuted_and_translated(
        (loss, truth, _) in problems(), shift in prop::collection::vec(-3.0f64..3.0, 3),
    ) {
        prop_assert!(evaluate(loss, &truth, &truth) == 0.0);
        let mut same = truth.permuted(&[2, 0, 1]);
        if truth.gate.kind.is_translation_invariant() {
            same = translated(&same, &shift);
        }
        let value = evaluate(loss, &same, &truth);
        prop_assert!((0.0..1e-12).contains(&value), "{loss:?} {value}");
    }

    #[test]
    fn the_loss_is_positive_off_the_truth(
        (loss, truth, _) in problems(), which in 0..6usize, step in 0.01f64..0.1,
    ) {
        let mut moved = truth.clone();
        moved.gate.top_k = None;
        let expert = &mut moved.experts[1];
        match which {
            0 => expert.slope[0] += step,
            1 => expert.intercept += step,
            2 => expert.variance += step,
            3 => match &mut expert.gate {
                ExpertGate::Bias(bias) => *bias += step,
                ExpertGate::Router { intercept, .. } => *intercept += step,
                ExpertGate::None => unreachable!(),
            },
            _ => {
                if let ExpertGate::Router { slope, .. } = &mut expert.gate {
                    slope[0] += step;
                } else {
                    expert.slope[0] -= step;
                }
            }
        }
        let mut dense = truth.clone();
        dense.gate.top_k = None;
        let floor = step.powi(7) * 1e-3;
        prop_assert!(evaluate(loss, &moved, &dense) > floor);
        // A sparse loss is a maximum over subsets, so it sees the move as well.
        moved.gate.top_k = truth.gate.top_k;
        prop_assert!(evaluate(loss, &moved, &truth) > floor);
    }

    #[test]
    fn the_loss_is_invariant_to_permutations_and_translations_of_both_arguments(
        (loss, truth, fitted) in problems(),
        shift in prop::collection::vec(-3.0f64..3.0, 3),
        other in prop::collection::vec(-3.0f64..3.0, 3),
    ) {
        let value = evaluate(loss, &fitted, &truth);
        let permuted = evaluate(loss, &fitted.permuted(&[3, 1, 0, 2]), &truth.permuted(&[1, 2, 0]));
        // Between far atoms, powers make the loss large.
        let tolerance = 1e-12 * (1.0 + value);
        prop_assert!((value - permuted).abs() < tolerance, "{loss:?} {value} {permuted}");
        if truth.gate.kind.is_translation_invariant() {
            let moved = evaluate(loss, &translated(&fitted, &shift), &translated(&truth, &other));
            prop_assert!((value - moved).abs() < tolerance, "{loss:?} {value} {moved}");
        }
    }

    #[test]
    fn a_sparse_truth_takes_the_largest_subset(
        truth in experts(SOFTPLUS, 1, 4), fitted in experts(SOFTPLUS, 1, 5), kept in 1..4usize,
    ) {
        let truth = parameters(SOFTPLUS, Some(kept), truth);
        let fitted = parameters(SOFTPLUS, Some(kept), fitted);
        let cells = cells(VoronoiLoss::Competition, &fitted, &truth_of(&truth)).unwrap();
        let sizes = cell_sizes(&cells, 4);
        let differences = differences(&fitted.experts, &truth.experts);
        let total = |p: &Parameters| p.experts.iter().map(|e| e.bias().exp()).sum::<f64>();
        let term = |factor: f64, j: usize| {
            let (mut mass, mut spread) = (0.0, 0.0);
            for i in (0..5).filter(|&i| cells[i] == j) {
                let omega = fitted.experts[i].bias().exp() / total(&fitted);
                mass += omega;
                spread += omega * competition_term(&differences[i][j], sizes[j]);
            }
            let true_mass = truth.experts[j].bias().exp() / total(&truth);
            (mass - factor * true_mass).abs() + spread
        };
        let maximum = |factor: f64| {
            let subsets = (0..16u32).filter(|set| set.count_ones() as usize == kept);
            let sums = subsets.map(|set| {
                (0..4).filter(|j| set >> j & 1 == 1).map(|j| term(factor, j)).sum::<f64>()
            });
            sums.fold(0.0, f64::max)
        };
        let expected = minimum_over_interval(0.0, 30.0, maximum);
        let value = evaluate(VoronoiLoss::Competition, &fitted, &truth);
        prop_assert!((value - expected).abs() < 1e-10, "{value} {expected}");
    }
}

/// The least value of a convex function, by ternary search.
pub(super) fn minimum_over_interval(
    mut low: f64,
    mut high: f64,
    function: impl Fn(f64) -> f64,
) -> f64 {
    for _ in 0..90 {
        let third = (high - low) / 3.0;
        if function(low + third) <= function(high - third) {
            high -= third;
        } else {
            low += third;
        }
    }
    function(low).min(function(high)).min(function(0.0))
}

pub(super) fn quarter_and_rest() -> Parameters {
    let experts = vec![
        biased(1.0, 0.0, 1.0, 0.25f64.ln()),
        biased(-1.0, 0.0, 1.0, 0.75f64.ln()),
    ];
    parameters(SOFTPLUS, None, experts)
}

#[test]
fn an_exact_and_a_shared_cell_have_first_and_second_powers() {
    let shift = 5.0;
    let fitted = parameters(
        SOFTPLUS,
        None,
        vec![
            biased(-0.9, 0.0, 1.1, 0.5f64.ln() + shift),
            biased(1.1, 0.0, 1.0, 0.25f64.ln() + shift),
            biased(-1.2, 0.0, 1.0, 0.25f64.ln() + shift),
        ],
    );
    let truth = quarter_and_rest();
    let value = evaluate(VoronoiLoss::Competition, &fitted, &truth);
    // Masses agree; 0.25 * 0.1 + 0.5 (0.1^2 + 0.1^2) + 0.25 * 0.2^2.
    assert!((value - 0.045).abs() < 1e-15);
    let cells = cells(VoronoiLoss::Competition, &fitted, &truth_of(&truth)).unwrap();
    assert_eq!(cells, [1, 0, 1]);
}

#[test]
fn an_empty_cell_costs_its_mass_at_the_infimum() {
    let value = |slope: f64, top_k: Option<usize>| {
        let truth = parameters(SOFTPLUS, top_k, quarter_and_rest().experts);
        let fitted = vec![biased(slope, 0.0, 1.0, 7.0)];
        let fitted = parameters(SOFTPLUS, top_k, fitted);
        evaluate(VoronoiLoss::Competition, &fitted, &truth)
    };
    // With f = e^t0: |1 - 3/4 f| + 1/4 f at f = 4/3, |1 - 1/4 f| + 3/4 f at f = 0.
    assert!((value(-1.0, None) - 1.0 / 3.0).abs() < 1e-15);
    assert!((value(1.0, None) - 1.0).abs() < 1e-15);
    // The larger of the two terms is least at f = 1.
    assert!((value(-1.0, Some(1)) - 0.25).abs() < 1e-15);
    assert!((value(1.0, Some(1)) - 0.75).abs() < 1e-15);
}

#[test]
fn the_loss_of_a_far_fit_grows_with_the_parameter_error() {
    for loss in VoronoiLoss::ALL {
        let kind = gate_of(loss);
        let atom = |slope: f64, intercept: f64, mass: f64| {
            let mut expert = biased(slope, intercept, 1.0, mass.ln());
            if kind.is_router() {
                expert.gate = ExpertGate::Router {
                    slope: vec![slope],
                    intercept: mass.ln(),
                };
            }
            expert
        };
        let truth = vec![atom(1.0, 3.0, 0.25), atom(-1.0, 3.0, 0.75)];
        let truth = parameters(kind, None, truth);
        for error in [1.0, 10.0, 1000.0] {
            let one = vec![atom(1.0, 3.0 + error, 0.25), atom(-1.0, 3.0, 0.75)];
            let value = evaluate(loss, &parameters(kind, None, one), &truth);
            let weight = if loss == VoronoiLoss::Sigmoid {
                1.0
            } else {
                0.25
            };
            assert!(
                (value / (weight * error) - 1.0).abs() < 1e-12,
                "{loss:?} {value}"
            );
        }
    }
}

#[test]
fn ties_go_to_the_lower_true_atom() {
    let truth = quarter_and_rest();
    let fitted = parameters(SOFTPLUS, None, vec![biased(0.0, 0.0, 1.0, 0.0)]);
    let truth_model = truth_of(&truth);
    let found = cells(VoronoiLoss::Competition, &fitted, &truth_model).unwrap();
    assert_eq!(found, [0]);
    // |1 - 1/4 f| + 1 + 3/4 f at f = 0.
    assert!((evaluate(VoronoiLoss::Competition, &fitted, &truth) - 2.0).abs() < 1e-15);
}

#[test]
fn without_biases_every_atom_weighs_one_over_the_true_number() {
    let truth = parameters(SOFTPLUS, None, vec![unbiased(1.0), unbiased(-1.0)]);
    let moved = parameters(SOFTPLUS, None, vec![unbiased(-1.1), unbiased(1.0)]);
    assert!((evaluate(VoronoiLoss::Competition, &moved, &truth) - 0.05).abs() < 1e-15);
    let doubled = vec![unbiased(-1.0), unbiased(1.0), unbiased(1.0)];
    let doubled = parameters(SOFTPLUS, None, doubled);
    assert_eq!(evaluate(VoronoiLoss::Competition, &doubled, &truth), 0.5);
}

#[test]
fn sigmoid_cells_weigh_equally() {
    let atom = |slope: f64, gate: f64| Expert {
        gate: ExpertGate::Router {
            slope: vec![gate],
            intercept: 0.0,
        },
        ..biased(slope, 0.0, 1.0, 0.0)
    };
    let truth = vec![atom(0.0, 0.0), atom(3.0, 0.0), atom(-3.0, 0.0)];
    let truth = parameters(GateKind::Sigmoid, None, truth);
    // Cells: one at distance 5/10, two at 0.1 and 0.2, none.
    let fitted = vec![atom(0.3, 0.4), atom(3.1, 0.0), atom(3.0, -0.2)];
    let fitted = parameters(GateKind::Sigmoid, None, fitted);
    let value = evaluate(VoronoiLoss::Sigmoid, &fitted, &truth);
    assert!((value - (0.5 + 0.01 + 0.04 + 1.0)).abs() < 1e-14);
}

/// Truth, and the fit that splits its first atom into two at distance `delta`
/// which keep mass, mean and variance of the tilted mixture.
fn tilted_split(delta: f64) -> (Parameters, Parameters) {
    let (kappa, sign) = (1.3, -1.0);
    let truth = vec![biased(0.4, -2.0, 0.8, 0.3), biased(0.2, 2.5, 0.5, 0.0)];
    let atom = &truth[0];
    let variance = atom.variance - delta * delta;
    let half = |side: f64| {
        let tilted = atom.intercept - kappa * sign * atom.variance + side * delta;
        let log_mass = atom.bias() + 0.5 * kappa * kappa * atom.variance + 0.5f64.ln();
        biased(
            0.4,
            tilted + kappa * sign * variance,
            variance,
            log_mass - 0.5 * kappa * kappa * variance,
        )
    };
    let fitted = vec![half(1.0), half(-1.0), truth[1].clone()];
    (
        parameters(ABSOLUTE, None, truth),
        parameters(ABSOLUTE, None, fitted),
    )
}

#[test]
fn a_split_that_keeps_tilted_moments_costs_delta_to_the_fourth() {
    let measure = |delta: f64| {
        let (truth, fitted) = tilted_split(delta);
        let tilted = evaluate(VoronoiLoss::Tilted, &fitted, &truth);
        let raw = |p: &Parameters, own: usize| {
            let weights: Vec<f64> = p.experts.iter().map(|e| e.bias().exp()).collect();
            weights[..own].iter().sum::<f64>() / weights.iter().sum::<f64>()
        };
        let raw_mass = (raw(&fitted, 2) - raw(&truth, 1)).abs();
        let mut density: f64 = 0.0;
        for x in [-1.0, -0.3, 0.4, 1.0] {
            for y in -8..=8 {
                let at = |p: &Parameters| p.log_density(&[x], 0.5 * f64::from(y)).exp();
                density = density.max((at(&fitted) - at(&truth)).abs());
            }
        }
        let plain = evaluate(VoronoiLoss::Competition, &fitted, &truth);
        [tilted, density, raw_mass, plain]
    };
    for delta in [0.2, 0.1, 0.05] {
        let (wide, narrow) = (measure(delta), measure(0.5 * delta));
        let order = |i: usize| (wide[i] / narrow[i]).log2();
        assert!((order(0) - 4.0).abs() < 1e-6, "tilted {}", order(0));
        assert!((order(1) - 4.0).abs() < 0.15, "density {}", order(1));
        assert!((order(2) - 2.0).abs() < 0.1, "raw mass {}", order(2));
        assert!((order(3) - 2.0).abs() < 0.1, "raw loss {}", order(3));
        // Half of the split's mass on each side, (delta^4 + (delta^2)^2) each.
        let log_masses = [0.3 + 0.5 * 1.69 * 0.8, 0.5 * 1.69 * 0.5].map(f64::exp);
        let expected = log_masses[0] / (log_masses[0] + log_masses[1]) * 2.0 * delta.powi(4);
        assert!((wide[0] / expected - 1.0).abs() < 1e-9);
    }
}
