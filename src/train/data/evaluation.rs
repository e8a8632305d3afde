//! Windows of an evaluation.
//!
//! Windows lie side by side from the first token: window w predicts tokens
//! w L + 1 .. w L + L from those before them in the window. Over all windows every token
//! but the first is predicted exactly once. The last may be shorter; it is filled up
//! with token 0 and targets that are [`IGNORED`].

use crate::error::{Error, Result};
use crate::train::data::tokens::Tokens;
use crate::train::ops::cross_entropy::IGNORED;
use std::ops::Range;

/// Windows of an evaluation.
#[derive(Clone, Debug)]
pub struct EvaluationWindows {
    tokens: Tokens,
    length: usize,
    /// Those that exist.
    all: usize,
    /// Those that are read, evenly spaced.
    windows: usize,
}

impl EvaluationWindows {
    /// All windows of a split, or `windows` of them evenly spaced if it has more.
    ///
    /// # Errors
    /// [`Error::Value`] for zeros and for a split with nothing to predict.
    pub fn new(tokens: Tokens, length: usize, windows: Option<usize>) -> Result<Self> {
        if length == 0 {
            return Err(Error::value("batch.length", "must be at least 1"));
        }
        if windows == Some(0) {
            return Err(Error::value("evaluation.windows", "must be at least 1"));
        }
        if tokens.len() < 2 {
            return Err(tokens.error("has fewer than 2 tokens: nothing can be predicted"));
        }
        let all = (tokens.len() - 1).div_ceil(length);
        Ok(EvaluationWindows {
            windows: windows.map_or(all, |windows| windows.min(all)),
            tokens,
            length,
            all,
        })
    }

    /// Windows that are read.
    pub fn len(&self) -> usize {
        self.windows
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.windows == 0
    }

    /// The first token of a window.
    pub fn window(&self, window: usize) -> usize {
        let spaced = window as u128 * self.all as u128 / self.windows as u128;
        spaced as usize * self.length
    }

    /// Replaces `ids` and `targets` by those of some windows. The range may go past the
    /// last window, so that all batches have one size: what lies there is ignored.
    ///
    /// # Shapes
    /// Both: windows, length.
    ///
    /// # Errors
    /// Those of [`Tokens::read`].
    pub fn read(
        &self,
        windows: Range<usize>,
        ids: &mut Vec<u32>,
        targets: &mut Vec<u32>,
    ) -> Result<()> {
        ids.clear();
        targets.clear();
        for (row, window) in windows.enumerate() {
            if window < self.windows {
                let start = self.window(window);
                let end = (start + self.length).min(self.tokens.len() - 1);
                self.tokens.read(start..end, ids)?;
                self.tokens.read(start + 1..end + 1, targets)?;
            }
            ids.resize((row + 1) * self.length, 0);
            targets.resize((row + 1) * self.length, IGNORED);
        }
        Ok(())
    }
}
