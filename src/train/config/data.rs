//! `[data]`: text, vocabulary, order of windows.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// `tinyshakespeare` (part of this crate), or a folder that `smoe_train data` made.
    pub source: PathBuf,
    /// The order in which training windows are read.
    #[serde(default)]
    pub order: Order,
}

/// The order in which training windows are read. Each is a function of the seed and
/// the step, so a position needs no more than the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Windows start anywhere, drawn with replacement (nanoGPT).
    #[default]
    Random,
    /// Windows of one grid, each once per epoch in a random order; the grid shifts from
    /// epoch to epoch.
    Shuffled,
    /// As many streams as sequences of a step, each read from its start to its end.
    Streams,
}

impl Data {
    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self) -> Result<()> {
        match self.source.as_os_str().is_empty() {
            true => Err(Error::value(
                "data.source",
                "must name a folder, or tinyshakespeare",
            )),
            false => Ok(()),
        }
    }
}
