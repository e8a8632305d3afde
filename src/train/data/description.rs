//! `description.json` of a prepared folder.

use crate::error::{Error, Result};
use crate::train::data::tokens::Width;
use crate::train::data::vocabulary::VocabularyDescription;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The version of the folder's format.
pub const FORMAT: u32 = 1;

/// The file's name.
pub const DESCRIPTION: &str = "description.json";

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    /// Its file of tokens.
    pub fn file(self) -> String {
        format!("{self}.bin")
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        })
    }
}

/// What a prepared folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the text's file or folder.
    pub source: String,
    /// The vocabulary.
    pub vocabulary: VocabularyDescription,
    /// How a token is stored.
    pub token: Width,
    /// The splits; a split without text is absent.
    pub splits: BTreeMap<Split, SplitDescription>,
}

/// One split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitDescription {
    /// Tokens.
    pub tokens: u64,
    /// Bytes of its text: what bits per byte divide by.
    pub bytes: u64,
    /// SHA-256 of its file of tokens.
    pub sha256: String,
}

impl Description {
    /// As it is written.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("a description has text keys only") + "\n"
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// [`Error::Input`] in one line.
    pub fn parse(path: &Path, json: &[u8]) -> Result<Description> {
        let wrong = |message: String| Error::input(path, "", message);
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if head.format != FORMAT {
            let (got, known) = (head.format, FORMAT);
            return Err(wrong(format!(
                "has format {got}, this version reads {known}: prepare it again"
            )));
        }
        let description: Description =
            serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if !description.splits.contains_key(&Split::Train) {
            return Err(wrong("has no train split".to_string()));
        }
        Ok(description)
    }
}

/// SHA-256 in hexadecimal digits.
pub(in crate::train) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes).as_slice())
}

pub(super) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
