//! Designs and models made by hand, for tests.

use super::{Design, Scaled, Side};
use crate::model::{
    Data, Expert, ExpertGate, ExpertKind, Gate, GateKind, Parameters, Selection, VarianceStructure,
};
use ndarray::{Array1, Array2};

/// A design whose features are `inputs` as they are, used by experts and gate alike,
/// and y = `mean` + `deviation` * responses.
pub(super) fn design(
    inputs: Array2<f64>,
    responses: Array1<f64>,
    mean: f64,
    deviation: f64,
) -> Design {
    let d = inputs.ncols();
    let side = || Side {
        terms: std::iter::once("(Intercept)".to_string())
            .chain((0..d).map(|j| format!("x{j}")))
            .collect(),
        features: (0..d).collect(),
        to_raw: Array2::eye(1 + d),
    };
    let response = Scaled {
        name: "y".to_string(),
        mean,
        deviation,
    };
    let data = Data::new(inputs, responses).expect("sound by construction");
    Design::by_hand(data, response, side(), side())
}

/// An expert of one feature: slope, intercept, variance, and the gate's slope and
/// intercept.
pub(super) fn line(slope: f64, intercept: f64, variance: f64, gate: [f64; 2]) -> Expert {
    Expert {
        kind: ExpertKind::Linear,
        slope: vec![slope],
        intercept,
        scale: None,
        variance,
        gate: ExpertGate::Router {
            slope: vec![gate[0]],
            intercept: gate[1],
        },
    }
}

/// A softmax-gated mixture.
pub(super) fn softmax(experts: Vec<Expert>) -> Parameters {
    mixture(GateKind::Softmax, experts)
}

/// A mixture of regressions: the weights are softmax of the gates' intercepts.
pub(super) fn constant(mut experts: Vec<Expert>) -> Parameters {
    for expert in &mut experts {
        if let ExpertGate::Router { intercept, .. } = expert.gate {
            expert.gate = ExpertGate::Bias(intercept);
        }
    }
    mixture(GateKind::Constant, experts)
}

fn mixture(kind: GateKind, experts: Vec<Expert>) -> Parameters {
    Parameters {
        gate: Gate {
            kind,
            top_k: None,
            selection: Selection::Score,
        },
        variance_structure: VarianceStructure::PerExpert,
        experts,
    }
}
