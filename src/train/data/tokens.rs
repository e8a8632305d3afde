//! The tokens of one split.

use crate::error::{Error, Result};
use crate::train::data::Split;
use crate::train::data::description::sha256;
use crate::train::data::memory::Memory;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// How a token is stored: an unsigned integer, the lowest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Width {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl Width {
    /// The narrowest that holds every token of a vocabulary of this size.
    pub fn of(vocabulary: usize) -> Width {
        match vocabulary <= 1 << 16 {
            true => Width::U16,
            false => Width::U32,
        }
    }

    /// Bytes of a token.
    pub fn bytes(self) -> usize {
        match self {
            Width::U16 => 2,
            Width::U32 => 4,
        }
    }

    /// Appends tokens that fit.
    pub(super) fn write(self, ids: &[u32], out: &mut Vec<u8>) {
        for id in ids {
            out.extend_from_slice(&id.to_le_bytes()[..self.bytes()]);
        }
    }

    fn read(self, bytes: &[u8], out: &mut Vec<u32>) {
        match self {
            Width::U16 => {
                let ids = bytes.as_chunks().0.iter();
                out.extend(ids.map(|pair| u32::from(u16::from_le_bytes(*pair))));
            }
            Width::U32 => {
                let ids = bytes.as_chunks().0.iter();
                out.extend(ids.map(|four| u32::from_le_bytes(*four)));
            }
        }
    }
}

/// The tokens of one split, in the order of the text. Clones share memory.
#[derive(Clone, Debug)]
pub struct Tokens {
    memory: Arc<Memory>,
    width: Width,
    vocabulary: usize,
    split: Split,
    path: PathBuf,
}

impl Tokens {
    pub(super) fn new(
        memory: Memory,
        width: Width,
        vocabulary: usize,
        split: Split,
        path: PathBuf,
    ) -> Tokens {
        Tokens {
            memory: Arc::new(memory),
            width,
            vocabulary,
            split,
            path,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.memory.len() / self.width.bytes()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which split they are.
    pub fn split(&self) -> Split {
        self.split
    }

    /// The size of their vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// SHA-256 of their file.
    pub(super) fn sha256(&self) -> String {
        sha256(&self.memory)
    }

    /// An error about their file.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::input(&self.path, "", message)
    }

    /// Appends the tokens of `range` to `ids`.
    ///
    /// # Errors
    /// [`Error::Dimension`] for a range past the end; [`Error::Input`] for an id that
    /// the vocabulary has not.
    pub fn read(&self, range: Range<usize>, ids: &mut Vec<u32>) -> Result<()> {
        if range.end > self.len() || range.start > range.end {
            return Err(Error::Dimension {
                what: "end of a window",
                expected: self.len(),
                got: range.end.max(range.start),
            });
        }
        let (first, width) = (ids.len(), self.width.bytes());
        let bytes = &self.memory[range.start * width..range.end * width];
        self.width.read(bytes, ids);
        let wrong = |id: &u32| *id as usize >= self.vocabulary;
        match ids[first..].iter().position(wrong) {
            None => Ok(()),
            Some(at) => {
                let (id, size) = (ids[first + at], self.vocabulary);
                let place = range.start + at;
                let message = format!("token {place} is {id}, but the vocabulary has {size}");
                Err(self.error(message))
            }
        }
    }
}
