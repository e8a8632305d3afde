//! The parameters of one mixture.

use super::gate::{Gate, GateKind};
use super::{ExpertKind, Layout};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Whether experts have variances of their own or one in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VarianceStructure {
    /// One variance per expert.
    #[default]
    PerExpert,
    /// One variance for all.
    Shared,
}

/// The parameters that an expert's log-weight has of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpertGate {
    /// None: competition without bias.
    None,
    /// An additive bias: competition and constant gates.
    Bias(f64),
    /// An affine score: the routers.
    Router {
        /// Shape: d.
        slope: Vec<f64>,
        /// Added to slope . x.
        intercept: f64,
    },
}

/// One expert: mean, variance, and its own part of the gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Expert {
    /// The mean function.
    pub kind: ExpertKind,
    /// Shape: d.
    pub slope: Vec<f64>,
    /// Added to slope . x before the activation.
    pub intercept: f64,
    /// Output weight of the hidden unit; `None` fixes it at 1.
    pub scale: Option<f64>,
    /// Variance of y about the mean (not the standard deviation).
    pub variance: f64,
    /// The expert's own log-weight parameters.
    pub gate: ExpertGate,
}

/// A mixture: the gate and the experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// The gate.
    pub gate: Gate,
    /// Per-expert or shared variance.
    pub variance_structure: VarianceStructure,
    /// The experts, at least one.
    pub experts: Vec<Expert>,
}

impl Expert {
    /// slope . x + intercept
    #[inline]
    pub fn predictor(&self, x: &[f64]) -> f64 {
        dot(&self.slope, x) + self.intercept
    }

    /// The mean at x.
    #[inline]
    pub fn mean(&self, x: &[f64]) -> f64 {
        self.scale.unwrap_or(1.0) * self.kind.activation(self.predictor(x)).value
    }

    /// Number of the mean's parameters: scale (if any), slope, intercept.
    #[inline]
    pub fn mean_length(&self) -> usize {
        self.slope.len() + 1 + usize::from(self.scale.is_some())
    }

    /// True for an affine mean without an output weight of its own.
    pub fn is_linear(&self) -> bool {
        self.kind == ExpertKind::Linear && self.scale.is_none()
    }

    /// True if the two means are of one family: only their numbers differ.
    pub fn is_alike(&self, other: &Expert) -> bool {
        self.kind == other.kind && self.scale.is_some() == other.scale.is_some()
    }

    /// The logarithm of the atom's mass, up to a common factor: its bias, or its
    /// log-weight at the origin of the input.
    pub fn log_mass(&self) -> f64 {
        match self.gate {
            ExpertGate::Router { intercept, .. } => intercept,
            _ => self.bias(),
        }
    }

    /// The additive bias, 0 where there is none.
    pub fn bias(&self) -> f64 {
        match self.gate {
            ExpertGate::Bias(bias) => bias,
            _ => 0.0,
        }
    }
}

#[inline]
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Parameters {
    /// Input dimension d.
    pub fn dimension(&self) -> usize {
        self.experts[0].slope.len()
    }

    /// How many experts are kept at each input.
    pub fn active_experts(&self) -> usize {
        self.gate.top_k.unwrap_or(self.experts.len())
    }

    /// True if the gate keeps fewer experts than there are.
    pub fn is_sparse(&self) -> bool {
        self.active_experts() < self.experts.len()
    }

    /// The packed coordinates of this structure.
    pub fn layout(&self) -> Layout {
        Layout::new(self)
    }

    /// The same conditional law with expert i as `copies[i]` equal experts that
    /// share its weight: the point of an over-specified model that is the truth.
    ///
    /// Without a bias there is nothing to share: the copies then weigh more, and
    /// the law is another one.
    ///
    /// # Errors
    /// [`Error::Value`] unless there is one positive number per expert, or if the
    /// gate is a sigmoid router, whose copies cannot share a weight.
    pub fn split(&self, copies: &[usize]) -> Result<Self> {
        if copies.len() != self.experts.len() || copies.contains(&0) {
            return Err(Error::value(
                "copies",
                format!(
                    "must be {} positive numbers, one per expert of the truth",
                    self.experts.len()
                ),
            ));
        }
        if self.gate.kind == GateKind::Sigmoid {
            return Err(Error::value(
                "copies",
                "equal experts cannot share a weight under a sigmoid router",
            ));
        }
        let share = |expert: &Expert, copies: usize| {
            let mut copy = expert.clone();
            match &mut copy.gate {
                ExpertGate::None => {}
                ExpertGate::Bias(bias) => *bias -= (copies as f64).ln(),
                ExpertGate::Router { intercept, .. } => *intercept -= (copies as f64).ln(),
            }
            copy
        };
        let experts = self.experts.iter().zip(copies);
        Ok(Parameters {
            experts: experts
                .flat_map(|(e, &count)| std::iter::repeat_n(share(e, count), count))
                .collect(),
            ..self.clone()
        })
    }

    /// The same mixture with its experts in the order `order`.
    pub fn permuted(&self, order: &[usize]) -> Self {
        Parameters {
            experts: order.iter().map(|&i| self.experts[i].clone()).collect(),
            ..self.clone()
        }
    }

    /// Checks every domain: finite values, positive variances, equal
    /// dimensions, `top_k` between 1 and the number of experts, gate parameters
    /// that fit the gate's kind.
    ///
    /// # Errors
    /// [`Error::Value`] with the key of the model file that is at fault.
    pub fn validate(&self) -> Result<()> {
        if self.experts.is_empty() {
            return Err(Error::value("expert", "at least one [[expert]] is needed"));
        }
        let count = self.experts.len();
        if let Some(top_k) = self.gate.top_k
            && (top_k == 0 || top_k > count)
        {
            return Err(Error::value(
                "gate.top_k",
                format!("must be between 1 and the number of experts ({count}), got {top_k}"),
            ));
        }
        if let GateKind::Competition { kappa, .. } = self.gate.kind
            && !(kappa.is_finite() && kappa > 0.0)
        {
            return Err(Error::value(
                "gate.kappa",
                format!("must be positive and finite, got {kappa}"),
            ));
        }
        let dimension = self.dimension();
        let with_bias = |e: &Expert| matches!(e.gate, ExpertGate::Bias(_));
        for (i, expert) in self.experts.iter().enumerate() {
            expert.validate(i, dimension)?;
            let variance_differs = expert.variance != self.experts[0].variance;
            if self.variance_structure == VarianceStructure::Shared && variance_differs {
                return Err(Error::value(
                    format!("expert[{i}].variance"),
                    "all variances must be equal when the variance is shared",
                ));
            }
            let fits = match self.gate.kind {
                GateKind::Softmax | GateKind::Sigmoid => {
                    matches!(expert.gate, ExpertGate::Router { .. })
                }
                GateKind::Constant => with_bias(expert),
                GateKind::Competition { .. } => !matches!(expert.gate, ExpertGate::Router { .. }),
            };
            if !fits {
                return Err(Error::value(
                    format!("expert[{i}]"),
                    "gate parameters do not fit the gate's kind: routers need gate_slope and \
                     gate_intercept, a constant gate bias, competition bias or nothing",
                ));
            }
            if with_bias(expert) != with_bias(&self.experts[0]) {
                return Err(Error::value(
                    format!("expert[{i}].bias"),
                    "must be given for all experts or for none",
                ));
            }
        }
        Ok(())
    }
}

impl Expert {
    fn validate(&self, index: usize, dimension: usize) -> Result<()> {
        let key = |name: &str| format!("expert[{index}].{name}");
        let finite = |name: &str, values: &[f64]| match values.iter().find(|v| !v.is_finite()) {
            Some(v) => Err(Error::value(key(name), format!("must be finite, got {v}"))),
            None => Ok(()),
        };
        let length = |name: &str, values: &[f64]| {
            if values.len() == dimension {
                return Ok(());
            }
            let got = values.len();
            Err(Error::value(
                key(name),
                format!("must have {dimension} entries, the input dimension, got {got}"),
            ))
        };
        length("slope", &self.slope)?;
        finite("slope", &self.slope)?;
        finite("intercept", &[self.intercept])?;
        finite("scale", &[self.scale.unwrap_or(1.0)])?;
        if self.scale.is_some() && self.kind == ExpertKind::Linear {
            return Err(Error::value(
                key("scale"),
                "a linear expert has no output weight: its slope and intercept carry it",
            ));
        }
        if !(self.variance > 0.0 && self.variance.is_finite()) {
            return Err(Error::value(
                key("variance"),
                format!("must be positive and finite, got {}", self.variance),
            ));
        }
        match &self.gate {
            ExpertGate::None => Ok(()),
            ExpertGate::Bias(bias) => finite("bias", &[*bias]),
            ExpertGate::Router { slope, intercept } => {
                length("gate_slope", slope)?;
                finite("gate_slope", slope)?;
                finite("gate_intercept", &[*intercept])
            }
        }
    }
}
