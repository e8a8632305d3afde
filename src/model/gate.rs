//! Gates: how the weights of the experts depend on the input.

use crate::num::log_space::softplus_derivatives;
use serde::{Deserialize, Serialize};

/// How strongly an expert responds, a function rho of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// |t|: the norm of a scalar output (arXiv 2402.02526 as reconstructed).
    Absolute,
    /// log(1 + e^t) (arXiv 2505.13380 as reconstructed).
    Softplus,
    /// t^2 / 2
    Square,
}

/// How responses become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// proportional to exp(kappa rho + bias)
    Softmax,
    /// proportional to rho exp(bias)
    Normalised,
}

/// By which score a router selects its `top_k` experts (the papers and their
/// code differ; `docs/notation.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// By gate_slope . x + gate_intercept, as in the authors' code.
    #[default]
    Score,
    /// By gate_slope . x alone, as in the papers on top-K softmax gating.
    Slope,
}

/// What the log-weights are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GateKind {
    /// Weights from the experts' own responses.
    Competition {
        /// rho
        response: Response,
        /// Softmax or normalised sum.
        weights: Weights,
        /// Factor of rho inside the softmax; 1 unless stated.
        kappa: f64,
    },
    /// Softmax of affine router scores.
    Softmax,
    /// Normalised sigmoids of affine router scores.
    Sigmoid,
    /// Weights that do not depend on the input.
    Constant,
}

/// A gate: the kind, how many experts it keeps and by which score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// What the log-weights are made of.
    pub kind: GateKind,
    /// How many experts are kept; `None` keeps all.
    pub top_k: Option<usize>,
    /// For routers, the score by which they are kept.
    pub selection: Selection,
}

/// A log-weight as a function of what drives it, with two derivatives.
///
/// The driver is the expert's mean for competition, the affine router score for
/// routers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogWeight {
    /// s
    pub value: f64,
    /// s'
    pub first: f64,
    /// s''
    pub second: f64,
    /// The score by which competition selects.
    pub selection: f64,
}

impl Response {
    /// rho, rho' and rho'' at t; at the kink of |t| the derivative is 0.
    #[inline]
    pub fn derivatives(self, t: f64) -> (f64, f64, f64) {
        match self {
            Response::Absolute => {
                let sign = if t > 0.0 {
                    1.0
                } else if t < 0.0 {
                    -1.0
                } else {
                    0.0
                };
                (t.abs(), sign, 0.0)
            }
            Response::Softplus => softplus_derivatives(t),
            Response::Square => (0.5 * t * t, t, 1.0),
        }
    }

    /// log rho and its two derivatives at t, exact where rho itself underflows.
    ///
    /// Where rho = 0 the value is -inf and the derivatives are given as 0, so
    /// that an expert of weight zero pulls at nothing.
    #[inline]
    pub fn log_derivatives(self, t: f64) -> (f64, f64, f64) {
        match self {
            Response::Softplus if t < -30.0 => {
                // log log(1 + e^t) = t - e^t / 2 + O(e^2t)
                let e = t.exp();
                (t - 0.5 * e, 1.0 - 0.5 * e, -0.5 * e)
            }
            Response::Softplus => {
                let (rho, first, second) = softplus_derivatives(t);
                let slope = first / rho;
                (rho.ln(), slope, second / rho - slope * slope)
            }
            _ if t == 0.0 => (f64::NEG_INFINITY, 0.0, 0.0),
            Response::Absolute => (t.abs().ln(), 1.0 / t, -1.0 / (t * t)),
            Response::Square => {
                let value = 2.0 * t.abs().ln() - std::f64::consts::LN_2;
                (value, 2.0 / t, -2.0 / (t * t))
            }
        }
    }

    /// rho(t + step) - rho(t), to full relative accuracy however small the step.
    fn increment(self, t: f64, step: f64) -> f64 {
        match self {
            Response::Absolute if t != 0.0 && t * (t + step) >= 0.0 => step.copysign(t * step),
            Response::Absolute => (t + step).abs() - t.abs(),
            Response::Softplus => (softplus_derivatives(t).1 * step.exp_m1()).ln_1p(),
            Response::Square => step * (t + 0.5 * step),
        }
    }

    /// log rho(t + step) - log rho(t), likewise.
    fn log_increment(self, t: f64, step: f64) -> f64 {
        // log |1 + u|, which ln_1p gives for u > -1 only.
        let log_of_one_plus = |u: f64| {
            if u > -1.0 {
                u.ln_1p()
            } else {
                (1.0 + u).abs().ln()
            }
        };
        match self {
            Response::Absolute => log_of_one_plus(step / t),
            Response::Softplus => (self.increment(t, step) / softplus_derivatives(t).0).ln_1p(),
            Response::Square => 2.0 * log_of_one_plus(step / t),
        }
    }

    /// A score in the same order as rho that neither underflows nor ties where
    /// rho does not.
    #[inline]
    fn selection(self, t: f64) -> f64 {
        match self {
            Response::Softplus => t,
            Response::Absolute | Response::Square => t.abs(),
        }
    }
}

impl GateKind {
    /// True for the two routers, whose scores are affine in the input.
    pub fn is_router(self) -> bool {
        matches!(self, GateKind::Softmax | GateKind::Sigmoid)
    }

    /// True if adding one constant to all log-weight parameters changes nothing.
    pub fn is_translation_invariant(self) -> bool {
        self != GateKind::Sigmoid
    }

    /// The log-weight at `driver`, without the additive bias.
    #[inline]
    pub fn log_weight(self, driver: f64) -> LogWeight {
        let (value, first, second, selection) = match self {
            GateKind::Competition {
                response,
                weights: Weights::Softmax,
                kappa,
            } => {
                let (rho, first, second) = response.derivatives(driver);
                let score = response.selection(driver);
                (kappa * rho, kappa * first, kappa * second, score)
            }
            GateKind::Competition {
                response,
                weights: Weights::Normalised,
                ..
            } => {
                let (value, first, second) = response.log_derivatives(driver);
                (value, first, second, response.selection(driver))
            }
            GateKind::Softmax => (driver, 1.0, 0.0, driver),
            GateKind::Sigmoid => {
                let (softplus, logistic, second) = softplus_derivatives(-driver);
                (-softplus, logistic, -second, driver)
            }
            GateKind::Constant => (0.0, 0.0, 0.0, 0.0),
        };
        LogWeight {
            value,
            first,
            second,
            selection,
        }
    }

    /// The log-weight at `driver + step` minus that at `driver`, to full relative
    /// accuracy however small the step: for mixtures so close that a difference
    /// of log-weights would be rounding.
    pub fn increment(self, driver: f64, step: f64) -> f64 {
        match self {
            GateKind::Competition {
                response,
                weights: Weights::Softmax,
                kappa,
            } => kappa * response.increment(driver, step),
            GateKind::Competition {
                response,
                weights: Weights::Normalised,
                ..
            } => response.log_increment(driver, step),
            GateKind::Softmax => step,
            GateKind::Sigmoid => -Response::Softplus.increment(-driver, -step),
            GateKind::Constant => 0.0,
        }
    }

    /// A number L such that the gate's part of the expected complete-data
    /// log-likelihood lies above its quadratic expansion with curvature -L in
    /// the expert's mean: the constant of a minorising step.
    ///
    /// With softmax weights: kappa/4 + kappa^2/2 for softplus, kappa^2/2 for
    /// |t| as long as no sign changes. No global bound exists otherwise, and the
    /// local curvature `weight (s'' + s'^2)` is returned; every step that uses it is
    /// safeguarded by the exact likelihood.
    #[inline]
    pub fn curvature_bound(self, s: &LogWeight, weight: f64) -> f64 {
        match self {
            GateKind::Competition {
                response: Response::Softplus,
                weights: Weights::Softmax,
                kappa,
            } => 0.25 * kappa.abs() + 0.5 * kappa * kappa,
            GateKind::Competition {
                response: Response::Absolute,
                weights: Weights::Softmax,
                kappa,
            } => 0.5 * kappa * kappa,
            GateKind::Competition { .. } => weight * (s.second.max(0.0) + s.first * s.first),
            _ => 0.0,
        }
    }
}

/// One of each, for tests.
#[cfg(test)]
pub(super) fn every_kind() -> Vec<GateKind> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn increments_are_differences_of_log_weights_and_exact_for_small_steps(
            t in -4.0f64..4.0, step in -1.0f64..1.0,
        ) {
            prop_assume!(t.abs() > 1e-2 && (t + step).abs() > 1e-2);
            for kind in every_kind() {
                let value = |u: f64| kind.log_weight(u).value;
                let difference = value(t + step) - value(t);
                prop_assert!((kind.increment(t, step) - difference).abs() < 1e-12, "{kind:?}");
                // Two terms of the series leave the third: small^3 s'' / 6, with a
                // third derivative of at most 4 / |t|^3 near a pole.
                let small = 1e-6 * step;
                let at = kind.log_weight(t);
                let series = small * (at.first + 0.5 * small * at.second);
                let error = (kind.increment(t, small) - series).abs();
                let bound = 1e-11 * small.abs() * t.abs().powi(-2).max(t.abs().powi(-3));
                prop_assert!(error <= bound, "{kind:?}");
            }
        }

        #[test]
        fn log_weight_derivatives_match_finite_differences(t in -4.0f64..4.0) {
            prop_assume!(t.abs() > 1e-2);
            let step = 1e-6 * t.abs();
            for kind in every_kind() {
                let at = kind.log_weight(t);
                let (up, down) = (kind.log_weight(t + step), kind.log_weight(t - step));
                let first = (up.value - down.value) / (2.0 * step);
                let second = (up.first - down.first) / (2.0 * step);
                prop_assert!((first - at.first).abs() < 1e-7 * (1.0 + at.first.abs()), "{kind:?}");
                prop_assert!((second - at.second).abs() < 1e-6 * (1.0 + at.second.abs()), "{kind:?}");
            }
        }
    }
}
