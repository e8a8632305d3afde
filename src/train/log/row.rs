//! The rows of `log.jsonl`: one JSON object per line, told apart by `kind`.

use crate::train::log::number;
use crate::train::statistics::LayerStatistics;
use serde::{Deserialize, Serialize};

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Row {
    /// One optimiser step.
    Step(Step),
    /// A measured validation loss.
    Evaluation(Evaluation),
    /// Routing statistics of all sparse layers.
    Statistics(Statistics),
    /// A text that the model wrote.
    Text(Text),
}

/// One optimiser step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Steps done, this one included.
    pub step: u64,
    /// Training tokens so far.
    pub tokens: u64,
    /// Training time so far in seconds, evaluations left out.
    pub seconds: f64,
    /// Task loss in nats per token, without auxiliary losses.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Balance loss of the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Auxiliary>,
    /// z-loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub z: Option<Auxiliary>,
    /// Distillation of the competition into the router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Auxiliary>,
    /// Similarity of the winners' outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diversity: Option<Auxiliary>,
    /// Balance loss of the responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub competition_balance: Option<Auxiliary>,
    /// Euclidean norm of the gradient before clipping.
    #[serde(deserialize_with = "number")]
    pub gradient_norm: f64,
    /// Learning rate.
    pub rate: f64,
    /// Training tokens per second since the previous row.
    #[serde(deserialize_with = "number")]
    pub tokens_per_second: f64,
    /// Layers that competed at this step.
    pub competing: usize,
    /// Tokens per expert of every sparse layer, in the order of layers.
    pub load: Vec<Vec<u64>>,
}

/// An auxiliary loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auxiliary {
    /// Its value, reduced over layers, not yet multiplied.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// What multiplies it in the total loss.
    pub coefficient: f64,
}

impl Auxiliary {
    /// What it adds to the total loss.
    pub fn weighted(&self) -> f64 {
        self.coefficient * self.value
    }
}

impl Step {
    /// The auxiliary losses in use, with their names.
    pub fn auxiliaries(&self) -> impl Iterator<Item = (&'static str, Auxiliary)> {
        [
            ("balance", self.balance),
            ("z", self.z),
            ("distillation", self.distillation),
            ("diversity", self.diversity),
            ("competition balance", self.competition_balance),
        ]
        .into_iter()
        .filter_map(|(name, loss)| Some((name, loss?)))
    }
}

/// A measured validation loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Steps done.
    pub step: u64,
    /// Training tokens so far.
    pub tokens: u64,
    /// Training time so far in seconds, evaluations left out.
    pub seconds: f64,
    /// Training FLOPs so far, competition included.
    pub flops: f64,
    /// Nats per token, the router deciding.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Bits per byte of text; with one token per byte, bits per character.
    #[serde(deserialize_with = "number")]
    pub bits_per_byte: f64,
    /// exp(loss)
    #[serde(deserialize_with = "number")]
    pub perplexity: f64,
    /// Experts per token at this evaluation.
    pub top_k: usize,
}

/// Routing statistics of all sparse layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Steps done.
    pub step: u64,
    /// Sparse layers in order.
    pub layers: Vec<LayerStatistics>,
}

/// A text that the model wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Steps done.
    pub step: u64,
    /// Prompt and continuation.
    pub text: String,
}

impl Row {
    /// Steps done when the row was written.
    pub fn step(&self) -> u64 {
        match self {
            Row::Step(row) => row.step,
            Row::Evaluation(row) => row.step,
            Row::Statistics(row) => row.step,
            Row::Text(row) => row.step,
        }
    }

    /// The row with 0 for everything that depends on the clock.
    pub fn without_clock(mut self) -> Row {
        match &mut self {
            Row::Step(row) => (row.seconds, row.tokens_per_second) = (0.0, 0.0),
            Row::Evaluation(row) => row.seconds = 0.0,
            Row::Statistics(_) | Row::Text(_) => {}
        }
        self
    }
}
