//! A mixture laid flat for a pass, and what its derivatives are taken in.

use crate::model::{Expert, ExpertGate, Gate, GateKind, Layout, Parameters, Response, Weights};
use crate::num::log_space::LOG_TWO_PI;

/// Most experts that a tile holds.
pub(super) const MAX_EXPERTS: usize = 16;

/// One expert with a linear mean.
pub(super) struct Linear {
    /// Shape: d.
    pub slope: Vec<f64>,
    pub intercept: f64,
    /// The router's; empty for other gates. Shape: d.
    pub gate_slope: Vec<f64>,
    pub gate_intercept: f64,
    /// Additive bias, 0 where there is none.
    pub bias: f64,
    /// 1 / variance
    pub precision: f64,
    /// -(log(2 pi) + log variance) / 2
    pub log_normaliser: f64,
}

/// A mixture of linear experts.
pub(super) struct Mixture {
    pub gate: Gate,
    pub active: usize,
    pub experts: Vec<Linear>,
    /// What drives the log-weights.
    pub driven_by: DrivenBy,
    /// Whether the log-weight is something else than its driver plus a constant.
    pub bent: bool,
}

/// What the log-weight is a function of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DrivenBy {
    /// The expert's mean: competition.
    Mean,
    /// An affine score: routers.
    Router,
    /// Nothing: the constant gate.
    Nothing,
}

impl Mixture {
    /// `None` for a mixture that the fast pass does not know: nonlinear experts,
    /// or more than 16.
    pub fn new(parameters: &Parameters) -> Option<Self> {
        let known = parameters.experts.iter().all(Expert::is_linear);
        if parameters.experts.len() > MAX_EXPERTS || !known {
            return None;
        }
        let linear = |e: &Expert| {
            let (gate_slope, gate_intercept) = match &e.gate {
                ExpertGate::Router { slope, intercept } => (slope.clone(), *intercept),
                _ => (Vec::new(), 0.0),
            };
            Linear {
                slope: e.slope.clone(),
                intercept: e.intercept,
                gate_slope,
                gate_intercept,
                bias: e.bias(),
                precision: 1.0 / e.variance,
                log_normaliser: -0.5 * (LOG_TWO_PI + e.variance.ln()),
            }
        };
        let kind = parameters.gate.kind;
        Some(Mixture {
            gate: parameters.gate,
            active: parameters.active_experts(),
            experts: parameters.experts.iter().map(linear).collect(),
            driven_by: match kind {
                GateKind::Competition { .. } => DrivenBy::Mean,
                GateKind::Softmax | GateKind::Sigmoid => DrivenBy::Router,
                GateKind::Constant => DrivenBy::Nothing,
            },
            bent: !matches!(kind, GateKind::Softmax | GateKind::Constant),
        })
    }

    /// The constant L of [`GateKind::curvature_bound`], `None` if it is local.
    pub fn curvature_bound(&self) -> Option<f64> {
        match self.gate.kind {
            GateKind::Competition {
                response: Response::Softplus | Response::Absolute,
                weights: Weights::Softmax,
                ..
            }
            | GateKind::Softmax
            | GateKind::Sigmoid
            | GateKind::Constant => {
                let anywhere = self.gate.kind.log_weight(0.0);
                Some(self.gate.kind.curvature_bound(&anywhere, 0.0))
            }
            GateKind::Competition { .. } => None,
        }
    }
}

/// What the log-density depends on: every expert's mean, log-variance and gate
/// driver. A driver is affine in the packed coordinates.
pub(super) struct Driver {
    pub expert: usize,
    pub part: Part,
    /// The coordinate of each feature: (1), or (1, x_1, ..., x_d).
    pub coordinates: Vec<usize>,
}

impl Driver {
    /// Degree of its features in x.
    pub fn degree(&self) -> usize {
        usize::from(self.coordinates.len() > 1)
    }
}

/// Which of an expert's three drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Part {
    Mean,
    LogVariance,
    Gate,
}

/// The drivers that have coordinates, expert by expert.
pub(super) fn drivers(parameters: &Parameters, layout: &Layout) -> Vec<Driver> {
    let d = parameters.dimension();
    // Coordinates hold the slope first, features the constant.
    let affine = |offset: usize| {
        let mut coordinates = vec![offset + d];
        coordinates.extend(offset..offset + d);
        coordinates
    };
    let mut drivers = Vec::new();
    for (expert, e) in parameters.experts.iter().enumerate() {
        let mut add = |part, coordinates| {
            drivers.push(Driver {
                expert,
                part,
                coordinates,
            });
        };
        add(Part::Mean, affine(layout.mean_offset(expert)));
        add(Part::LogVariance, vec![layout.variance_offset(expert)]);
        if let Some(offset) = layout.gate_offset(expert) {
            let coordinates = match e.gate {
                ExpertGate::Router { .. } => affine(offset),
                _ => vec![offset],
            };
            add(Part::Gate, coordinates);
        }
    }
    drivers
}
