//! Mixtures for tests: every gate, kind of expert, and law of the input.

use crate::model::{
    Expert, ExpertGate, ExpertKind, Gate, GateKind, InputLaw, Parameters, Response, Selection,
    VarianceStructure, Weights,
};

/// Every gate.
pub fn gates() -> Vec<GateKind> {
    let mut kinds = vec![GateKind::Softmax, GateKind::Sigmoid, GateKind::Constant];
    for response in [Response::Absolute, Response::Softplus, Response::Square] {
        for weights in [Weights::Softmax, Weights::Normalised] {
            kinds.push(GateKind::Competition {
                response,
                weights,
                kappa: 1.3,
            });
        }
    }
    kinds
}

const KINDS: [ExpertKind; 5] = [
    ExpertKind::Linear,
    ExpertKind::Tanh,
    ExpertKind::Sigmoid,
    ExpertKind::Relu,
    ExpertKind::Gelu,
];

/// A mixture of `count` experts, of all kinds in turn or all linear.
pub fn mixture(
    kind: GateKind,
    top_k: Option<usize>,
    d: usize,
    count: usize,
    linear: bool,
) -> Parameters {
    let expert = |i: usize| {
        let t = i as f64;
        let kind_of_mean = if linear {
            ExpertKind::Linear
        } else {
            KINDS[i % KINDS.len()]
        };
        Expert {
            kind: kind_of_mean,
            slope: (0..d).map(|j| 1.1 - 0.7 * t + 0.4 * j as f64).collect(),
            intercept: 0.45 * t - 0.6,
            scale: (kind_of_mean != ExpertKind::Linear).then_some(1.5 - 0.2 * t),
            variance: 0.2 + 0.15 * t,
            gate: match kind {
                GateKind::Softmax | GateKind::Sigmoid => ExpertGate::Router {
                    slope: (0..d).map(|j| 0.6 * t - 0.5 - 0.3 * j as f64).collect(),
                    intercept: 0.2 * t,
                },
                _ => ExpertGate::Bias(0.3 - 0.2 * t),
            },
        }
    };
    Parameters {
        gate: Gate {
            kind,
            top_k,
            selection: match d % 2 {
                0 => Selection::Score,
                _ => Selection::Slope,
            },
        },
        variance_structure: VarianceStructure::PerExpert,
        experts: (0..count).map(expert).collect(),
    }
}

/// Every law of an input of dimension d that has no lattice.
pub fn laws(d: usize) -> Vec<InputLaw> {
    let coordinates = |from: f64, by: f64| (0..d).map(|j| from + by * j as f64).collect();
    let point = |k: usize| {
        (0..d)
            .map(|j| (k as f64 - 1.5) * (1.0 - 0.3 * j as f64))
            .collect()
    };
    vec![
        InputLaw::Uniform {
            low: coordinates(-1.3, 0.1),
            high: coordinates(0.9, 0.37),
        },
        InputLaw::Normal {
            mean: coordinates(0.0, 0.21),
            sd: coordinates(0.7, 0.3),
            truncation: 2.5,
        },
        InputLaw::Grid {
            points: (0..7).map(point).collect(),
            lattice: None,
        },
    ]
}
