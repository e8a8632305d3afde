//! Builders shared by the test files.
#![allow(dead_code)]

use smoe_lab::backend::cuda::{Compilation, Cuda, Emulation};
use smoe_lab::model::{
    Expert, ExpertGate, ExpertKind, Gate, GateKind, InputLaw, Model, Parameters, Response,
    Selection, VarianceStructure, Weights,
};

pub const RESPONSES: [Response; 3] = [Response::Absolute, Response::Softplus, Response::Square];
pub const EXPERT_KINDS: [ExpertKind; 5] = [
    ExpertKind::Linear,
    ExpertKind::Tanh,
    ExpertKind::Sigmoid,
    ExpertKind::Relu,
    ExpertKind::Gelu,
];

/// The emulated device, and a GPU if there is one, by name; with few programs, as tests
/// have hundreds of structures.
pub fn devices() -> Vec<(String, Cuda)> {
    let emulated = Cuda::emulated(Emulation::default()).expect("a C++ compiler");
    let mut devices = vec![("emulated".to_string(), emulated)];
    if let Ok(cuda) = Cuda::open(0) {
        let cuda = cuda.with_compilation(Compilation::Generic);
        devices.push(("cuda:0".to_string(), cuda));
    }
    devices
}

/// Every gate kind.
pub fn gate_kinds() -> Vec<GateKind> {
    let mut kinds = vec![GateKind::Softmax, GateKind::Sigmoid, GateKind::Constant];
    for response in RESPONSES {
        for weights in [Weights::Softmax, Weights::Normalised] {
            let kappa = if weights == Weights::Softmax {
                0.8
            } else {
                1.0
            };
            kinds.push(GateKind::Competition {
                response,
                weights,
                kappa,
            });
        }
    }
    kinds
}

pub fn dense(kind: GateKind) -> Gate {
    Gate {
        kind,
        top_k: None,
        selection: Selection::Score,
    }
}

/// A mixture of `count` experts of one kind in `dimension` inputs; its numbers
/// are read from `noise` in turn (values of order one).
pub fn mixture(
    gate: Gate,
    kind: ExpertKind,
    count: usize,
    dimension: usize,
    variance_structure: VarianceStructure,
    noise: &[f64],
) -> Parameters {
    let mut numbers = noise.iter().copied().cycle();
    let mut next = || numbers.next().expect("cycled");
    let shared = (0.3 * next()).exp();
    let experts = (0..count)
        .map(|_| Expert {
            kind,
            slope: (0..dimension).map(|_| next()).collect(),
            intercept: next(),
            scale: (kind != ExpertKind::Linear).then(|| 1.0 + 0.5 * next()),
            variance: match variance_structure {
                VarianceStructure::Shared => shared,
                VarianceStructure::PerExpert => (0.4 * next() - 0.5).exp(),
            },
            gate: match gate.kind {
                GateKind::Softmax | GateKind::Sigmoid => ExpertGate::Router {
                    slope: (0..dimension).map(|_| next()).collect(),
                    intercept: next(),
                },
                _ => ExpertGate::Bias(next()),
            },
        })
        .collect();
    Parameters {
        gate,
        variance_structure,
        experts,
    }
}

fn linear(slope: f64, intercept: f64, variance: f64, gate: ExpertGate) -> Expert {
    Expert {
        kind: ExpertKind::Linear,
        slope: vec![slope],
        intercept,
        scale: None,
        variance,
        gate,
    }
}

fn unit_interval() -> InputLaw {
    InputLaw::Uniform {
        low: vec![-1.0],
        high: vec![1.0],
    }
}

/// Design S1: two competing experts on [-1, 1].
pub fn competition(response: Response) -> Model {
    let kind = GateKind::Competition {
        response,
        weights: Weights::Softmax,
        kappa: 1.0,
    };
    Model {
        input: unit_interval(),
        parameters: Parameters {
            gate: dense(kind),
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![
                linear(2.0, 1.0, 0.3, ExpertGate::Bias(0.3)),
                linear(-1.5, 0.5, 0.4, ExpertGate::Bias(0.0)),
            ],
        },
    }
}

/// Design S2: the same experts under a softmax router.
pub fn softmax() -> Model {
    let router = |slope: f64, intercept| ExpertGate::Router {
        slope: vec![slope],
        intercept,
    };
    Model {
        input: unit_interval(),
        parameters: Parameters {
            gate: dense(GateKind::Softmax),
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![
                linear(2.0, 1.0, 0.3, router(1.5, 0.3)),
                linear(-1.5, 0.5, 0.4, router(0.0, 0.0)),
            ],
        },
    }
}
