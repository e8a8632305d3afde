//! Softmax routers that are a competition gate: two models of one law.
//!
//! With linear means of constant sign s_i on the support of the input,
//!
//! ```text
//! kappa |m_i(x)| + bias_i = (kappa s_i slope_i) . x + (kappa s_i intercept_i + bias_i)
//! ```
//!
//! is an affine score, so softmax weights of absolute responses are those of a
//! softmax router whose scores are tied to the means. On such a truth competition
//! is the smaller model, and its efficiency against routing can be computed
//! (`docs/theory.md`, 11).

use super::expert::ExpertKind;
use super::gate::{Gate, GateKind, Response, Weights};
use super::input_law::InputLaw;
use super::parameters::{Expert, ExpertGate, Parameters};
use crate::error::{Error, Result};

impl Parameters {
    /// The softmax router with the same law; a softmax router is its own, and a
    /// constant gate one without slopes.
    ///
    /// # Errors
    /// [`Error::Value`] unless the gate is dense competition with absolute
    /// responses and softmax weights over linear means that are nowhere zero on
    /// the closed support of `input`.
    pub fn as_router(&self, input: &InputLaw) -> Result<Self> {
        let refused = || {
            let message = "a softmax router has the truth's law only for dense competition with \
                           absolute responses, softmax weights and linear means of constant sign";
            Error::value("gate", message)
        };
        let router_gate = |expert: &Expert| -> Option<ExpertGate> {
            match (self.gate.kind, &expert.gate) {
                (GateKind::Softmax, gate) => Some(gate.clone()),
                (GateKind::Constant, _) => Some(ExpertGate::Router {
                    slope: vec![0.0; expert.slope.len()],
                    intercept: expert.bias(),
                }),
                (
                    GateKind::Competition {
                        response: Response::Absolute,
                        weights: Weights::Softmax,
                        kappa,
                    },
                    _,
                ) if expert.kind == ExpertKind::Linear && !self.is_sparse() => {
                    let factor = kappa * expert.constant_sign(input)?;
                    Some(ExpertGate::Router {
                        slope: expert.slope.iter().map(|a| factor * a).collect(),
                        intercept: factor * expert.intercept + expert.bias(),
                    })
                }
                _ => None,
            }
        };
        let experts = self.experts.iter().map(|expert| {
            Some(Expert {
                gate: router_gate(expert)?,
                ..expert.clone()
            })
        });
        Ok(Parameters {
            gate: Gate {
                kind: GateKind::Softmax,
                ..self.gate
            },
            variance_structure: self.variance_structure,
            experts: experts.collect::<Option<_>>().ok_or_else(refused)?,
        })
    }
}

impl Expert {
    /// The sign of a linear expert's mean, if it is nowhere zero on the closed
    /// support of the input.
    pub fn constant_sign(&self, input: &InputLaw) -> Option<f64> {
        // On a box an affine function is its value at the centre plus or minus its
        // half-range.
        let on_box = |centre: &[f64], half_width: &[f64]| {
            let half_range: f64 = std::iter::zip(&self.slope, half_width)
                .map(|(a, h)| (a * h).abs())
                .sum();
            let middle = self.mean(centre);
            (middle - half_range, middle + half_range)
        };
        let (least, greatest) = match input {
            InputLaw::Uniform { low, high } => {
                let sides = || std::iter::zip(low, high);
                let centre: Vec<f64> = sides().map(|(l, h)| 0.5 * (l + h)).collect();
                let half_width: Vec<f64> = sides().map(|(l, h)| 0.5 * (h - l)).collect();
                on_box(&centre, &half_width)
            }
            InputLaw::Normal {
                mean,
                sd,
                truncation,
            } => {
                let half_width: Vec<f64> = sd.iter().map(|s| s * truncation).collect();
                on_box(mean, &half_width)
            }
            InputLaw::Grid { points, .. } => points.iter().map(|x| self.mean(x)).fold(
                (f64::INFINITY, f64::NEG_INFINITY),
                |(least, greatest), m| (least.min(m), greatest.max(m)),
            ),
        };
        match (least > 0.0, greatest < 0.0) {
            (true, false) => Some(1.0),
            (false, true) => Some(-1.0),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Selection, VarianceStructure};

    #[test]
    fn a_router_has_the_law_of_competition_between_means_of_constant_sign() {
        let expert = |slope: f64, intercept: f64, bias: f64| Expert {
            kind: ExpertKind::Linear,
            slope: vec![slope],
            intercept,
            scale: None,
            variance: 0.3,
            gate: ExpertGate::Bias(bias),
        };
        let competition = Parameters {
            gate: Gate {
                kind: GateKind::Competition {
                    response: Response::Absolute,
                    weights: Weights::Softmax,
                    kappa: 1.5,
                },
                top_k: None,
                selection: Selection::Score,
            },
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![expert(0.7, 2.0, 0.3), expert(-0.9, -2.0, 0.0)],
        };
        let input = InputLaw::Uniform {
            low: vec![-1.0],
            high: vec![1.0],
        };
        let router = competition.as_router(&input).unwrap();
        router.validate().unwrap();
        for (x, y) in [(-1.0, 1.0), (-0.3, -2.0), (0.4, 2.5), (1.0, -3.0)] {
            let difference = router.log_density(&[x], y) - competition.log_density(&[x], y);
            assert!(difference.abs() < 1e-14, "{difference}");
        }
        let wide = InputLaw::Uniform {
            low: vec![-3.0],
            high: vec![1.0],
        };
        assert!(competition.as_router(&wide).is_err());
    }
}
