//! A text that is ready to train on.

use crate::error::{Error, Result};
use crate::train::data::Split;
use crate::train::data::description::{DESCRIPTION, Description, sha256};
use crate::train::data::memory::Memory;
use crate::train::data::prepare::{Choice, Preparation, encode};
use crate::train::data::text::TINYSHAKESPEARE;
use crate::train::data::tokens::{Tokens, Width};
use crate::train::data::vocabulary::Vocabulary;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A prepared text.
#[derive(Clone, Debug)]
pub struct Corpus {
    source: PathBuf,
    vocabulary: Vocabulary,
    description: Description,
    digest: String,
    splits: BTreeMap<Split, Tokens>,
}

impl Corpus {
    /// Opens [`TINYSHAKESPEARE`] (characters, the last tenth for validation) or a folder
    /// that [`prepare()`](crate::train::data::prepare()) wrote. Files are mapped, not read; their
    /// sizes and the tokenizer are checked, tokens when they are read
    /// ([`Tokens::read`]).
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`], one line each.
    pub fn open(source: &Path) -> Result<Corpus> {
        match source == Path::new(TINYSHAKESPEARE) {
            true => Corpus::tinyshakespeare(),
            false => Corpus::folder(source),
        }
    }

    fn tinyshakespeare() -> Result<Corpus> {
        let preparation = Preparation {
            source: TINYSHAKESPEARE.into(),
            vocabulary: Choice::Characters,
            splits: None,
        };
        let buffer = |_| Ok(Vec::new());
        let (vocabulary, description, buffers) = encode(&preparation, buffer, &mut |_, _| ())?;
        let (width, size) = (description.token, vocabulary.size());
        let splits = buffers.into_iter().map(|(split, bytes)| {
            let path = Path::new(TINYSHAKESPEARE).join(split.file());
            let memory = Memory::Owned(bytes);
            (split, Tokens::new(memory, width, size, split, path))
        });
        Ok(Corpus {
            source: preparation.source,
            vocabulary,
            digest: sha256(description.to_json().as_bytes()),
            splits: splits.collect(),
            description,
        })
    }

    fn folder(folder: &Path) -> Result<Corpus> {
        let path = folder.join(DESCRIPTION);
        if !path.is_file() {
            let message = "is no prepared text: make one with `smoe_train data`, or name \
                           tinyshakespeare";
            return Err(Error::input(folder, "", message));
        }
        let json = std::fs::read(&path).map_err(|e| Error::file(&path, "read", &e))?;
        let description = Description::parse(&path, &json)?;
        let vocabulary = Vocabulary::described(&path, &description.vocabulary)?;
        let (width, size) = (description.token, vocabulary.size());
        if width != Width::of(size) {
            let message = format!("does not fit a vocabulary of {size}");
            return Err(Error::input(&path, "token", message));
        }
        let mut splits = BTreeMap::new();
        for (&split, described) in &description.splits {
            let path = folder.join(split.file());
            let memory = Memory::map(&path)?;
            let expected = described.tokens.saturating_mul(width.bytes() as u64);
            if memory.len() as u64 != expected {
                let (got, tokens) = (memory.len(), described.tokens);
                let message = format!(
                    "has {got} bytes, but {tokens} tokens have {expected}: prepare it again"
                );
                return Err(Error::input(&path, "", message));
            }
            splits.insert(split, Tokens::new(memory, width, size, split, path));
        }
        Ok(Corpus {
            source: folder.to_path_buf(),
            vocabulary,
            description,
            digest: sha256(&json),
            splits,
        })
    }

    /// Text to tokens and back.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Counts and hashes.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// SHA-256 of the description, which holds those of the tokens: equal digests mean
    /// equal data.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The tokens of a split.
    ///
    /// # Errors
    /// [`Error::Input`] for a split that the text has not.
    pub fn split(&self, split: Split) -> Result<Tokens> {
        let tokens = self.splits.get(&split).cloned();
        tokens.ok_or_else(|| {
            let message = format!("has no {split} split: prepare the text with one");
            Error::input(&self.source, "", message)
        })
    }

    /// Reads all tokens and compares them with the description.
    ///
    /// # Errors
    /// [`Error::Input`] with the file that was changed.
    pub fn verify(&self) -> Result<()> {
        for (split, tokens) in &self.splits {
            let expected = &self.description.splits[split].sha256;
            if tokens.sha256() != *expected {
                return Err(tokens.error("is not the file that was prepared: prepare it again"));
            }
        }
        Ok(())
    }
}
