//! Expert means.

use crate::num::log_space::softplus_derivatives;
use serde::{Deserialize, Serialize};

/// The mean function of an expert, m(x) = scale * activation(slope . x + intercept).
///
/// `Linear` has the identity as activation. Theory sections: arXiv 2505.13380
/// section 3 and the sibling papers' expert families, as reconstructed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpertKind {
    /// t
    Linear,
    /// tanh t
    Tanh,
    /// 1 / (1 + e^-t)
    Sigmoid,
    /// max(t, 0)
    Relu,
    /// t Phi(t), Phi the standard normal distribution function
    Gelu,
}

/// An expert's activation and its first two derivatives at one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanDerivatives {
    /// activation(t)
    pub value: f64,
    /// activation'(t)
    pub first: f64,
    /// activation''(t)
    pub second: f64,
}

impl ExpertKind {
    /// The activation and its derivatives at t. At the kink of ReLU the
    /// derivative is 0.
    #[inline]
    pub fn activation(self, t: f64) -> MeanDerivatives {
        let (value, first, second) = match self {
            ExpertKind::Linear => (t, 1.0, 0.0),
            ExpertKind::Tanh => {
                let h = t.tanh();
                let slope = 1.0 - h * h;
                (h, slope, -2.0 * h * slope)
            }
            ExpertKind::Sigmoid => {
                let (_, h, slope) = softplus_derivatives(t);
                (h, slope, slope * (1.0 - 2.0 * h))
            }
            ExpertKind::Relu => {
                if t > 0.0 {
                    (t, 1.0, 0.0)
                } else {
                    (0.0, 0.0, 0.0)
                }
            }
            ExpertKind::Gelu => {
                let below = 0.5 * libm::erfc(-t * std::f64::consts::FRAC_1_SQRT_2);
                let at = (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
                (t * below, below + t * at, at * (2.0 - t * t))
            }
        };
        MeanDerivatives {
            value,
            first,
            second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn activation_derivatives_match_finite_differences(t in -5.0f64..5.0) {
            let step = 1e-5;
            for kind in [
                ExpertKind::Linear, ExpertKind::Tanh, ExpertKind::Sigmoid,
                ExpertKind::Relu, ExpertKind::Gelu,
            ] {
                prop_assume!(kind != ExpertKind::Relu || t.abs() > 1e-3);
                let at = kind.activation(t);
                let (up, down) = (kind.activation(t + step), kind.activation(t - step));
                prop_assert!(((up.value - down.value) / (2.0 * step) - at.first).abs() < 1e-8);
                prop_assert!(((up.first - down.first) / (2.0 * step) - at.second).abs() < 1e-8);
            }
        }
    }
}
