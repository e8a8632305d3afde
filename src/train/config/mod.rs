//! What a training run is: one TOML file, checked before anything is computed.
//!
//! ```text
//! run.toml + --set a.b=c -> Run (checked; unknown keys refused) -> everything else
//! ```
//!
//! | table | module | decides |
//! |---|---|---|
//! | `[data]` | [`data`] | text, vocabulary, order of windows |
//! | `[batch]` | here | tokens of an optimiser step |
//! | `[model]` | [`model`] | the transformer |
//! | `[experts]` | [`model`] | the sparse layers |
//! | `[router]` | [`router`] | the method: scores, choice, losses |
//! | `[competition]` | [`competition`] | what experts decide themselves |
//! | `[optimiser]` | [`optimiser`] | AdamW and the learning rate |
//! | `[evaluation]`, `[checkpoints]`, `[log]` | here | what is measured, kept and written, when |
//!
//! A key that is absent takes its default, of `[router]` and `[competition]` that of
//! the method. The run is written beside its results as it was read, overrides
//! included.

pub mod competition;
pub mod data;
mod load;
pub mod model;
pub mod optimiser;
pub mod router;

pub use competition::Competing;
pub use data::Data;
pub use load::{read, with_overrides};
pub use model::{Experts, FeedForward, Layout, Model, Position};
pub use optimiser::Optimiser;
pub use router::{Method, Router, Scores};

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The run's folder.
    pub name: String,
    /// One or two sentences for the page.
    #[serde(default)]
    pub about: String,
    /// Names every random stream of the run.
    #[serde(default = "one")]
    pub seed: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Text.
    pub data: Data,
    /// Tokens of a step.
    #[serde(default)]
    pub batch: Batch,
    /// The transformer.
    #[serde(default)]
    pub model: Model,
    /// The sparse layers.
    #[serde(default)]
    pub experts: Experts,
    /// The method.
    #[serde(default)]
    pub router: Router,
    /// What differs from the method's own competition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub competition: Option<competition::Table>,
    /// AdamW.
    #[serde(default)]
    pub optimiser: Optimiser,
    /// When and on what the loss is measured.
    #[serde(default)]
    pub evaluation: Evaluation,
    /// What is kept.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// What is written.
    #[serde(default)]
    pub log: Log,
}

fn one() -> u64 {
    1
}

/// The tokens of an optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Sequences of one micro-batch.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Micro-batches of an optimiser step.
    pub micro_batches: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            sequences: 32,
            length: 128,
            micro_batches: 1,
        }
    }
}

impl Batch {
    /// Tokens of a micro-batch.
    pub fn tokens(&self) -> usize {
        self.sequences * self.length
    }

    /// Tokens of an optimiser step.
    pub fn step_tokens(&self) -> usize {
        self.tokens() * self.micro_batches
    }
}

/// When and on what the validation loss is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// Steps between measurements; the last step is always measured.
    pub every: u64,
    /// Windows of the validation split that are measured during training, evenly
    /// spaced; all if absent.
    pub windows: Option<usize>,
}

impl Default for Evaluation {
    fn default() -> Self {
        Evaluation {
            every: 250,
            windows: None,
        }
    }
}

/// What is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps between checkpoints; the last step is always kept.
    pub every: u64,
    /// Latest checkpoints kept, beside the best.
    pub keep: usize,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints {
            every: 500,
            keep: 2,
        }
    }
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps between lines of the log.
    pub every: u64,
    /// Steps between routing statistics.
    pub statistics: u64,
    /// Steps between sampled texts; none if absent.
    pub sample: Option<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            every: 10,
            statistics: 250,
            sample: None,
        }
    }
}

impl Run {
    /// The method with every value filled in.
    ///
    /// # Errors
    /// [`Error::Value`] with the key at fault.
    pub fn method(&self) -> Result<Method> {
        router::resolve(self)
    }

    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Value`] with the key at fault.
    pub fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || !self.name.chars().all(plain) || self.name.starts_with('.') {
            let message = "must be a folder's name of letters, digits, '-', '_' and '.'";
            return Err(Error::value("name", message));
        }
        positive("steps", self.steps)?;
        positive("batch.sequences", self.batch.sequences as u64)?;
        positive("batch.length", self.batch.length as u64)?;
        positive("batch.micro_batches", self.batch.micro_batches as u64)?;
        positive("evaluation.every", self.evaluation.every)?;
        positive("checkpoints.every", self.checkpoints.every)?;
        positive("checkpoints.keep", self.checkpoints.keep as u64)?;
        positive("log.every", self.log.every)?;
        positive("log.statistics", self.log.statistics)?;
        positive("log.sample", self.log.sample.unwrap_or(1))?;
        self.data.check()?;
        self.model.check(&self.batch)?;
        self.experts.check()?;
        self.optimiser.check(self.steps)?;
        self.method().map(drop)
    }
}

/// Fails unless the value is at least 1.
pub(crate) fn positive(key: &str, value: u64) -> Result<()> {
    match value {
        0 => Err(Error::value(key, "must be at least 1")),
        _ => Ok(()),
    }
}

/// Fails unless the value is finite and within the bounds.
pub(crate) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    match (low..=high).contains(&value) {
        true => Ok(()),
        false => Err(Error::value(key, format!("must be {low} to {high}"))),
    }
}

#[cfg(test)]
mod tests;
