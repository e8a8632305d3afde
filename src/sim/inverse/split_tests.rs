//! Splits against densities, differences and themselves.

use super::distance::Distance;
use super::neighbourhood::Tilt;
use super::split::{Bounds, Part, Split, Spread};
use crate::loss::divergence::{Wanted, divergence};
use crate::model::{
    Expert, ExpertGate, ExpertKind, Gate, GateKind, InputLaw, Model, Parameters, Response,
    Selection, VarianceStructure, Weights,
};
use crate::num::least_squares::Residuals;

const BOUNDS: Bounds = Bounds {
    coefficient: 1.0,
    log_variance: 1.0,
    gate: 1.0,
    log_share: 1.0,
};

fn expert(slope: f64, intercept: f64, variance: f64, gate: ExpertGate) -> Expert {
    Expert {
        kind: ExpertKind::Linear,
        slope: vec![slope],
        intercept,
        scale: None,
        variance,
        gate,
    }
}

fn truth(kind: GateKind) -> Model {
    let gates = match kind {
        GateKind::Softmax => [0.8, -0.3].map(|slope| ExpertGate::Router {
            slope: vec![slope],
            intercept: 0.2 * slope,
        }),
        _ => [0.3, -0.1].map(ExpertGate::Bias),
    };
    let [first, second] = gates;
    Model {
        input: InputLaw::Grid {
            points: vec![vec![-0.8], vec![0.4], vec![0.9]],
            lattice: None,
        },
        parameters: Parameters {
            gate: Gate {
                kind,
                top_k: None,
                selection: Selection::default(),
            },
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![
                expert(2.0, 1.0, 0.3, first),
                expert(-1.5, 0.25, 0.4, second),
            ],
        },
    }
}

fn kinds() -> Vec<GateKind> {
    let mut kinds = vec![GateKind::Softmax, GateKind::Constant];
    for response in [Response::Absolute, Response::Softplus, Response::Square] {
        for weights in [Weights::Softmax, Weights::Normalised] {
            kinds.push(GateKind::Competition {
                response,
                weights,
                kappa: 1.0,
            });
        }
    }
    kinds
}

/// Hidden units with output weights; no mean or predictor is zero on the grid.
fn units(kind: GateKind, unit: ExpertKind) -> Model {
    let mut model = truth(kind);
    for (expert, scale) in model.parameters.experts.iter_mut().zip([1.4, -0.8]) {
        expert.kind = unit;
        expert.scale = Some(scale);
    }
    model
}

const UNITS: [ExpertKind; 4] = [
    ExpertKind::Tanh,
    ExpertKind::Sigmoid,
    ExpertKind::Relu,
    ExpertKind::Gelu,
];

/// Whether this truth is split: an absolute response to a ReLU of zero is refused.
fn is_split(kind: GateKind, unit: ExpertKind) -> bool {
    unit != ExpertKind::Relu || !matches!(kind, GateKind::Competition { .. })
}

fn assert_jacobian(split: &Split, what: &str) {
    let problem = split.at(0.1);
    let point = point(split);
    let jacobian = problem.jacobian(&point);
    for k in 0..point.len() {
        let step = 1e-6;
        let moved = |by: f64| {
            let mut moved = point.clone();
            moved[k] += by;
            problem.values(&moved)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        let error = (&slope - &jacobian.column(k)).mapv(f64::abs);
        assert!(error.iter().all(|e| *e < 1e-8), "{what} {k}");
    }
}

#[test]
fn the_jacobian_is_that_of_the_residuals_for_every_expert_and_distance() {
    for kind in kinds() {
        for unit in UNITS {
            if !is_split(kind, unit) {
                continue;
            }
            for distance in [Distance::Hellinger, Distance::Regression] {
                for spread in [Spread::Scale, Spread::Intercept] {
                    let truth = units(kind, unit);
                    let split = Split::new(&truth, 0, 2, spread, &BOUNDS, distance).unwrap();
                    assert_jacobian(&split, &format!("{kind:?} {unit:?} {distance:?}"));
                }
            }
        }
        let truth = truth(kind);
        let distance = Distance::Regression;
        let split = Split::new(&truth, 0, 3, Spread::Slope, &BOUNDS, distance).unwrap();
        assert_jacobian(&split, &format!("{kind:?} linear"));
    }
}

#[test]
fn residuals_of_regression_functions_are_their_differences() {
    for kind in kinds() {
        for unit in [ExpertKind::Tanh, ExpertKind::Gelu] {
            let truth = units(kind, unit);
            let distance = Distance::Regression;
            let split = Split::new(&truth, 1, 2, Spread::Slope, &BOUNDS, distance).unwrap();
            let point = point(&split);
            let found = split.compare(&point, 0.2).residuals;
            let fitted = split.parameters(&point, 0.2);
            let InputLaw::Grid { points, .. } = &truth.input else {
                unreachable!()
            };
            let regression = |parameters: &Parameters, x: &[f64]| -> f64 {
                let law = parameters.conditional(x);
                let terms = law.log_weights.iter().zip(&law.means);
                terms.map(|(w, m)| w.exp() * m).sum()
            };
            for (residual, x) in found.iter().zip(points) {
                let difference = regression(&fitted, x) - regression(&truth.parameters, x);
                let expected = difference / (points.len() as f64).sqrt();
                assert!((residual - expected).abs() < 1e-14, "{kind:?} {unit:?}");
            }
        }
    }
}

#[test]
fn residuals_of_hidden_units_are_those_of_the_two_densities() {
    for unit in UNITS {
        let truth = units(GateKind::Softmax, unit);
        let distance = Distance::Hellinger;
        let split = Split::new(&truth, 0, 2, Spread::Scale, &BOUNDS, distance).unwrap();
        let point = point(&split);
        let residuals = split.compare(&point, 0.2).residuals;
        let fitted = split.parameters(&point, 0.2);
        let InputLaw::Grid { points, .. } = &truth.input else {
            unreachable!()
        };
        let at = |x: &Vec<f64>| {
            let (p, q) = (truth.parameters.conditional(x), fitted.conditional(x));
            divergence(&p, &q, Wanted::Smooth).hellinger_sq
        };
        let expected = points.iter().map(at).sum::<f64>() / points.len() as f64;
        let ratio = residuals.dot(&residuals) / expected;
        assert!((ratio - 1.0).abs() < 1e-6, "{unit:?} {ratio}");
    }
}

/// A point without symmetry.
fn point(split: &Split) -> Vec<f64> {
    (0..split.len())
        .map(|k| 0.03 * (1.7 * k as f64).sin())
        .collect()
}

#[test]
fn a_split_at_spread_zero_is_the_truth() {
    for kind in kinds() {
        for copies in [2, 3] {
            let split = Split::new(
                &truth(kind),
                0,
                copies,
                Spread::Intercept,
                &BOUNDS,
                Distance::Hellinger,
            )
            .unwrap();
            let mut point = vec![0.0; split.len()];
            for (k, value) in point.iter_mut().enumerate() {
                if split.part(k) == Part::Shares {
                    *value = 0.4;
                }
            }
            let found = split.compare(&point, 0.0);
            assert!(found.residuals.iter().all(|r| *r == 0.0), "{kind:?}");
            assert_eq!(split.mass_error(&point, 0.0, Tilt::Variance), 0.0);
        }
    }
}

#[test]
fn residuals_are_those_of_the_two_densities() {
    for kind in kinds() {
        let truth = truth(kind);
        let split =
            Split::new(&truth, 1, 3, Spread::Variance, &BOUNDS, Distance::Hellinger).unwrap();
        let point = point(&split);
        let found: f64 = split
            .compare(&point, 0.2)
            .residuals
            .iter()
            .map(|r| r * r)
            .sum();
        let InputLaw::Grid { points, .. } = &truth.input else {
            unreachable!()
        };
        let fitted = split.parameters(&point, 0.2);
        let total: f64 = points
            .iter()
            .map(|x| {
                let (p, q) = (truth.parameters.conditional(x), fitted.conditional(x));
                divergence(&p, &q, Wanted::Smooth).hellinger_sq
            })
            .sum();
        let expected = total / points.len() as f64;
        assert!(
            (found / expected - 1.0).abs() < 1e-6,
            "{kind:?} {found} {expected}"
        );
    }
}

#[test]
fn the_jacobian_is_that_of_the_residuals() {
    for kind in kinds() {
        for spread in [Spread::Slope, Spread::Intercept, Spread::Variance] {
            let split =
                Split::new(&truth(kind), 0, 3, spread, &BOUNDS, Distance::Hellinger).unwrap();
            let problem = split.at(0.1);
            let point = point(&split);
            let jacobian = problem.jacobian(&point);
            for k in 0..point.len() {
                let step = 1e-6;
                let moved = |by: f64| {
                    let mut moved = point.clone();
                    moved[k] += by;
                    problem.values(&moved)
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                let error = (&slope - &jacobian.column(k)).mapv(f64::abs);
                assert!(error.iter().all(|e| *e < 1e-8), "{kind:?} {spread:?} {k}");
            }
        }
    }
}

/// Of the residuals at delta / 2 nothing but rounding may differ from those
/// extrapolated by the exponent 2 of a pure spread, however small delta.
#[test]
fn residuals_keep_their_digits_far_below_rounding() {
    let split = Split::new(
        &truth(GateKind::Softmax),
        0,
        2,
        Spread::Slope,
        &BOUNDS,
        Distance::Hellinger,
    )
    .unwrap();
    let at = |delta: f64| {
        let found = split.compare(&vec![0.0; split.len()], delta);
        (found.residuals.dot(&found.residuals).sqrt(), found.rounding)
    };
    for delta in [1e-4, 1e-6, 1e-7] {
        let ((large, rounding), (small, _)) = (at(delta), at(0.5 * delta));
        let allowed = 1e-4 * delta + 8.0 * rounding / large;
        assert!(
            (large / small / 4.0 - 1.0).abs() < allowed,
            "{delta} {large} {small}"
        );
    }
}

#[test]
fn what_cannot_be_split_is_refused() {
    let refused = |truth: &Model, expert, copies, spread, key: &str| {
        let error =
            Split::new(truth, expert, copies, spread, &BOUNDS, Distance::Hellinger).unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    };
    let good = truth(GateKind::Constant);
    refused(&good, 2, 2, Spread::Slope, "expert");
    refused(&good, 0, 4, Spread::Slope, "copies");
    refused(&good, 0, 2, Spread::GateSlope, "coordinate");
    let mut bad = good.clone();
    bad.parameters.variance_structure = VarianceStructure::Shared;
    refused(&bad, 0, 2, Spread::Slope, "truth");
    let absolute = GateKind::Competition {
        response: Response::Absolute,
        weights: Weights::Softmax,
        kappa: 1.0,
    };
    let mut bad = truth(absolute);
    bad.parameters.experts[0].intercept = 1.6;
    refused(&bad, 0, 2, Spread::Slope, "truth");
    let mut bad = truth(absolute);
    bad.parameters
        .experts
        .iter_mut()
        .for_each(|e| e.gate = ExpertGate::None);
    refused(&bad, 0, 2, Spread::Slope, "truth");
}
