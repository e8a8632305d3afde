//! The factors of the design and what their levels do.

use super::{FitVariant, Study, Truth};
use crate::error::{Error, Result};
use crate::fit::Start;
use crate::model::{ExpertGate, GateKind, Model, Response, Weights};
use serde::{Deserialize, Serialize};

/// The factors of the design.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Sample sizes.
    pub n: Sizes,
    /// Variants of the truth's competition gate; absent: the gate as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gate: Vec<GateVariant>,
    /// Variants of the estimator, on the same data; absent: `fit` as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fit: Vec<FitVariant>,
    /// Sets of starting points; absent: `fit.starts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<StartSet>,
}

/// Sample sizes: a list, or points equally spaced in log n.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sizes {
    /// As given.
    List(Vec<u64>),
    /// Rounded to whole numbers.
    LogSpaced(LogSpaced),
}

/// Equally spaced in the logarithm, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpaced {
    /// The first.
    pub from: f64,
    /// The last.
    pub to: f64,
    /// How many.
    pub points: usize,
}

impl LogSpaced {
    /// The numbers, from the first to the last.
    pub fn values(&self) -> Vec<f64> {
        let ratio = (self.to / self.from).ln() / (self.points.max(2) - 1) as f64;
        (0..self.points)
            .map(|k| self.from * (ratio * k as f64).exp())
            .collect()
    }
}

impl Sizes {
    /// The sizes in the order given.
    pub fn values(&self) -> Vec<u64> {
        match self {
            Sizes::List(list) => list.clone(),
            Sizes::LogSpaced(spaced) => {
                let values = spaced.values().into_iter();
                values.map(|n| n.round() as u64).collect()
            }
        }
    }
}

/// A named variant of a competition gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateVariant {
    /// The level's name in cell names.
    pub name: String,
    /// Replaces the truth's response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// Replaces the truth's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Replaces the truth's `top_k`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Replaces the truth's biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub biases: Option<Biases>,
}

/// What a gate variant does with the biases of a competition truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Biases {
    /// Removes them, from the truth and from the model that is fitted.
    None,
}

/// A named set of starting points; the best outcome is the estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSet {
    /// The level's name in cell names.
    pub name: String,
    /// The starts.
    pub starts: Vec<Start>,
}

/// One level of every factor besides n, by position; 0 where a factor is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// Of the truths.
    pub truth: usize,
    /// Of the gate variants.
    pub gate: usize,
    /// Of the estimators.
    pub fit: usize,
    /// Of the sets of starts.
    pub start: usize,
    /// The levels by name, such as `gate=softplus,start=near`.
    pub series: String,
    /// The part of it that decides the data.
    pub data: String,
}

/// The levels that are there, with commas between.
pub(in crate::sim) fn join(parts: &[&Option<String>]) -> String {
    let given: Vec<&str> = parts.iter().filter_map(|p| p.as_deref()).collect();
    given.join(",")
}

impl GateVariant {
    /// `truth` with this variant's gate.
    ///
    /// # Errors
    /// [`Error::Value`] if the truth's gate is not a competition gate or the
    /// result is not a valid mixture.
    pub fn apply(&self, truth: &Model) -> Result<Model> {
        let mut model = truth.clone();
        let GateKind::Competition {
            response, weights, ..
        } = &mut model.parameters.gate.kind
        else {
            return Err(Error::value(
                "grid.gate",
                "variants need a truth with a competition gate",
            ));
        };
        *response = self.response.unwrap_or(*response);
        *weights = self.weights.unwrap_or(*weights);
        if self.top_k.is_some() {
            model.parameters.gate.top_k = self.top_k;
        }
        if let Some(Biases::None) = self.biases {
            for expert in &mut model.parameters.experts {
                expert.gate = ExpertGate::None;
            }
        }
        model.validate()?;
        Ok(model)
    }
}

impl Study {
    /// Every combination of the factors besides n, in plan order.
    pub fn combinations(&self) -> Vec<Combination> {
        fn levels<'a>(
            factor: &str,
            names: impl Iterator<Item = &'a String>,
        ) -> Vec<Option<String>> {
            let named: Vec<_> = names.map(|name| Some(format!("{factor}={name}"))).collect();
            if named.is_empty() { vec![None] } else { named }
        }
        let files = match &self.truth {
            Truth::Files(truth) => truth.files.as_slice(),
            _ => &[],
        };
        let truths = levels("truth", files.iter().map(|f| &f.name));
        let gates = levels("gate", self.grid.gate.iter().map(|g| &g.name));
        let fits = levels("fit", self.grid.fit.iter().map(|f| &f.name));
        let starts = levels("start", self.grid.start.iter().map(|s| &s.name));
        let mut combinations = Vec::new();
        for (truth, truth_name) in truths.iter().enumerate() {
            for (gate, gate_name) in gates.iter().enumerate() {
                for (fit, fit_name) in fits.iter().enumerate() {
                    for (start, start_name) in starts.iter().enumerate() {
                        combinations.push(Combination {
                            truth,
                            gate,
                            fit,
                            start,
                            series: join(&[truth_name, gate_name, fit_name, start_name]),
                            data: join(&[truth_name, gate_name]),
                        });
                    }
                }
            }
        }
        combinations
    }
}
