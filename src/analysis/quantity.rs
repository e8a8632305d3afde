//! Parameters as users read them: raw units, named terms.

use super::Design;
use crate::model::{ExpertGate, Parameters};

/// What part of a model a quantity belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A coefficient of an expert's mean.
    Mean,
    /// An expert's standard deviation.
    Deviation,
    /// A coefficient of the gate, relative to the last expert's where only
    /// differences matter.
    Gate,
}

/// How a quantity follows from its linear form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The linear form itself.
    Linear,
    /// e to its power: standard deviations.
    Exponential,
}

/// A quantity in raw units: f(offset + weights . packed), packed the coordinates of the
/// standardised parameters ([`crate::model::Layout`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// Such as `expert[1].x^2`, `expert[2].sigma`, `gate[1].(Intercept)`; experts
    /// count from 1. A shared standard deviation is `sigma`.
    pub name: String,
    /// From 0.
    pub expert: usize,
    /// What it belongs to.
    pub part: Part,
    /// The term, or `sigma`, or `bias`.
    pub term: String,
    /// Added to the linear form.
    pub offset: f64,
    /// Shape: P.
    pub weights: Vec<f64>,
    /// f
    pub scale: Scale,
}

impl Quantity {
    /// offset + weights . packed
    pub fn linear_form(&self, packed: &[f64]) -> f64 {
        let products = self.weights.iter().zip(packed).map(|(w, p)| w * p);
        self.offset + products.sum::<f64>()
    }

    /// f of a linear form.
    pub fn transformed(&self, linear_form: f64) -> f64 {
        match self.scale {
            Scale::Linear => linear_form,
            Scale::Exponential => linear_form.exp(),
        }
    }

    /// Its value.
    pub fn value(&self, packed: &[f64]) -> f64 {
        self.transformed(self.linear_form(packed))
    }
}

/// Every quantity of a model: the experts' coefficients, then standard deviations, then
/// the gate.
pub fn quantities(design: &Design, parameters: &Parameters) -> Vec<Quantity> {
    let layout = parameters.layout();
    let zero = vec![0.0; layout.len()];
    let mut all = Vec::new();
    let deviation = design.response.deviation;
    let count = parameters.experts.len();
    for expert in 0..count {
        let first = layout.mean_offset(expert);
        let slopes = parameters.dimension();
        for (row, term) in design
            .expert
            .to_raw
            .rows()
            .into_iter()
            .zip(&design.expert.terms)
        {
            let mut weights = zero.clone();
            // Packed: slopes, then the intercept.
            weights[first + slopes] = deviation * row[0];
            for j in 0..slopes {
                weights[first + j] = deviation * row[1 + j];
            }
            all.push(Quantity {
                name: format!("expert[{}].{term}", expert + 1),
                expert,
                part: Part::Mean,
                term: term.clone(),
                // The mean of y goes to the intercept, the first term.
                offset: match term == INTERCEPT {
                    true => design.response.mean,
                    false => 0.0,
                },
                weights,
                scale: Scale::Linear,
            });
        }
    }
    let mut seen = None;
    for expert in 0..count {
        let offset = layout.variance_offset(expert);
        let shared = count > 1 && layout.variance_offset(0) == layout.variance_offset(count - 1);
        if seen == Some(offset) {
            continue;
        }
        seen = Some(offset);
        let mut weights = zero.clone();
        weights[offset] = 0.5;
        all.push(Quantity {
            name: match shared {
                true => "sigma".to_string(),
                false => format!("expert[{}].sigma", expert + 1),
            },
            expert,
            part: Part::Deviation,
            term: "sigma".to_string(),
            offset: deviation.ln(),
            weights,
            scale: Scale::Exponential,
        });
    }
    for expert in 0..count {
        let Some(first) = layout.gate_offset(expert) else {
            continue;
        };
        let mut push = |term: &str, weights: Vec<f64>| {
            all.push(Quantity {
                name: format!("gate[{}].{term}", expert + 1),
                expert,
                part: Part::Gate,
                term: term.to_string(),
                offset: 0.0,
                weights,
                scale: Scale::Linear,
            });
        };
        match parameters.experts[expert].gate {
            ExpertGate::None => {}
            ExpertGate::Bias(_) => {
                let mut weights = zero.clone();
                weights[first] = 1.0;
                push("bias", weights);
            }
            ExpertGate::Router { .. } => {
                let slopes = parameters.dimension();
                let rows = design.gate.to_raw.rows().into_iter();
                for (row, term) in rows.zip(&design.gate.terms) {
                    let mut weights = zero.clone();
                    weights[first + slopes] = row[0];
                    for j in 0..slopes {
                        weights[first + j] = row[1 + j];
                    }
                    push(term, weights);
                }
            }
        }
    }
    all
}

/// The name of the intercept's term.
pub const INTERCEPT: &str = "(Intercept)";
