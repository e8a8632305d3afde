//! Text to tokens and back.
//!
//! | vocabulary | tokens |
//! |---|---|
//! | bytes | 256, one per byte; any file |
//! | characters | the distinct characters of the whole text, sorted by code point |
//! | tokenizer | those of a Hugging Face `tokenizer.json` |
//!
//! A tokenizer's own padding, truncation and start or end marks are not applied: a text
//! is one unbroken sequence of tokens.

use crate::error::{Error, Result};
use crate::train::data::description::sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokenizers::{DecoderWrapper, Tokenizer};

/// A folder's copy of a tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";

/// A folder's vocabulary, where it holds no description (a checkpoint).
pub const VOCABULARY: &str = "vocabulary.json";

/// Text to tokens and back. Clones share memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Vocabulary {
    /// One token per byte.
    Bytes,
    /// One token per character.
    Characters(Characters),
    /// A tokenizer's.
    Tokenizer(Subwords),
}

/// Distinct characters, sorted; a token is a place among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Characters(Arc<[char]>);

/// A tokenizer with the file it came from.
#[derive(Clone, Debug)]
pub struct Subwords {
    json: Arc<[u8]>,
    tokenizer: Arc<Tokenizer>,
    /// Bytes of text by token.
    bytes: Arc<[u32]>,
}

impl PartialEq for Subwords {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

/// A vocabulary as a file states it; a tokenizer lies beside it in [`TOKENIZER`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum VocabularyDescription {
    /// [`Vocabulary::Bytes`].
    Bytes,
    /// [`Vocabulary::Characters`].
    Characters {
        /// All of them, sorted.
        characters: String,
    },
    /// [`Vocabulary::Tokenizer`].
    Tokenizer {
        /// The number of tokens.
        size: usize,
        /// SHA-256 of [`TOKENIZER`].
        sha256: String,
    },
}

impl Vocabulary {
    /// The distinct characters of texts.
    pub fn characters_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vocabulary {
        let mut seen = BTreeSet::new();
        // Almost all of a text is ASCII: a table spares the search.
        let mut ascii = [false; 128];
        for c in texts.into_iter().flat_map(str::chars) {
            match ascii.get_mut(c as usize) {
                Some(flag) => *flag = true,
                None => {
                    seen.insert(c);
                }
            }
        }
        let low = (0..128u8).filter(|c| ascii[usize::from(*c)]);
        let all = low.map(char::from).chain(seen);
        Vocabulary::Characters(Characters(all.collect()))
    }

    /// The vocabulary of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`].
    pub fn tokenizer(path: &Path) -> Result<Vocabulary> {
        let json = std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?;
        Vocabulary::from_tokenizer_json(path, json)
    }

    /// The vocabulary of the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Input`] with `path`.
    pub fn from_tokenizer_json(path: &Path, json: Vec<u8>) -> Result<Vocabulary> {
        let wrong = |message: String| Error::input(path, "", message.replace('\n', " "));
        let mut tokenizer = Tokenizer::from_bytes(&json)
            .map_err(|e| wrong(format!("is not a Hugging Face tokenizer.json: {e}")))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| wrong(e.to_string()))?;
        let bytes = bytes_by_token(&tokenizer);
        if bytes.is_empty() {
            return Err(wrong("has no tokens".to_string()));
        }
        Ok(Vocabulary::Tokenizer(Subwords {
            json: json.into(),
            tokenizer: Arc::new(tokenizer),
            bytes: bytes.into(),
        }))
    }

    /// Every token is below it.
    pub fn size(&self) -> usize {
        match self {
            Vocabulary::Bytes => 256,
            Vocabulary::Characters(characters) => characters.0.len(),
            Vocabulary::Tokenizer(subwords) => subwords.bytes.len(),
        }
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// [`Error::Value`] for what is not UTF-8 (any bytes will do for
    /// [`Vocabulary::Bytes`]) and for a character that the vocabulary has not.
    pub fn encode(&self, text: impl AsRef<[u8]>) -> Result<Vec<u32>> {
        let text = text.as_ref();
        match self {
            Vocabulary::Bytes => Ok(text.iter().map(|byte| u32::from(*byte)).collect()),
            Vocabulary::Characters(characters) => characters.encode(utf8(text)?),
            Vocabulary::Tokenizer(subwords) => {
                let encoding = subwords.tokenizer.encode_fast(utf8(text)?, false);
                let encoding = encoding.map_err(|e| Error::value("text", e.to_string()))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }

    /// The text of tokens; the inverse of [`Vocabulary::encode`] as far as a tokenizer
    /// has one.
    ///
    /// # Errors
    /// [`Error::Value`] for a token that the vocabulary has not.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>> {
        let size = self.size();
        if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
            let message = format!("token {id} is not below {size}, the size of the vocabulary");
            return Err(Error::value("text", message));
        }
        Ok(match self {
            Vocabulary::Bytes => ids.iter().map(|id| *id as u8).collect(),
            Vocabulary::Characters(characters) => {
                let text: String = ids.iter().map(|id| characters.0[*id as usize]).collect();
                text.into_bytes()
            }
            Vocabulary::Tokenizer(subwords) => {
                let text = subwords.tokenizer.decode(ids, false);
                let text = text.map_err(|e| Error::value("text", e.to_string()))?;
                text.into_bytes()
            }
        })
    }

    /// [`Vocabulary::decode`] to show: bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// As [`Vocabulary::decode`].
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode(ids)?).into_owned())
    }

    /// Bytes of text that a token stands for, for losses in bits per byte; 0 for a
    /// special token and for an id that the vocabulary has not.
    ///
    /// Exact for bytes, characters and byte-level tokenizers. Elsewhere a mark of a
    /// word's start counts as a space, also where the text has none.
    pub fn bytes_of(&self, id: u32) -> usize {
        let at = id as usize;
        match self {
            Vocabulary::Bytes => usize::from(at < 256),
            Vocabulary::Characters(characters) => characters.0.get(at).map_or(0, |c| c.len_utf8()),
            Vocabulary::Tokenizer(subwords) => subwords.bytes.get(at).map_or(0, |n| *n as usize),
        }
    }

    /// As a file states it.
    pub fn describe(&self) -> VocabularyDescription {
        match self {
            Vocabulary::Bytes => VocabularyDescription::Bytes,
            Vocabulary::Characters(characters) => VocabularyDescription::Characters {
                characters: characters.0.iter().collect(),
            },
            Vocabulary::Tokenizer(subwords) => VocabularyDescription::Tokenizer {
                size: self.size(),
                sha256: sha256(&subwords.json),
            },
        }
    }

    /// The tokenizer's file, unchanged.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        match self {
            Vocabulary::Tokenizer(subwords) => Some(&subwords.json),
            _ => None,
        }
    }

    /// The vocabulary that the file `path` describes; a tokenizer is read beside it.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`].
    pub fn described(path: &Path, description: &VocabularyDescription) -> Result<Vocabulary> {
        match description {
            VocabularyDescription::Bytes => Ok(Vocabulary::Bytes),
            VocabularyDescription::Characters { characters } => {
                let all: Vec<char> = characters.chars().collect();
                match !all.is_empty() && all.is_sorted_by(|a, b| a < b) {
                    true => Ok(Vocabulary::Characters(Characters(all.into()))),
                    false => {
                        let message = "must be distinct characters in order";
                        Err(Error::input(path, "vocabulary.characters", message))
                    }
                }
            }
            VocabularyDescription::Tokenizer { size, sha256: hash } => {
                let beside = path.with_file_name(TOKENIZER);
                let vocabulary = Vocabulary::tokenizer(&beside)?;
                let json = vocabulary.tokenizer_json().unwrap_or_default();
                match sha256(json) == *hash && vocabulary.size() == *size {
                    true => Ok(vocabulary),
                    false => {
                        let message = "is not the tokenizer that the text was prepared with";
                        Err(Error::input(&beside, "", message))
                    }
                }
            }
        }
    }

    /// Writes [`VOCABULARY`] and, for a tokenizer, [`TOKENIZER`] into a folder.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|e| Error::file(&path, "write", &e))
        };
        let json = serde_json::to_string_pretty(&self.describe());
        let json = json.expect("a vocabulary has text keys only") + "\n";
        write(VOCABULARY, json.as_bytes())?;
        self.tokenizer_json()
            .map_or(Ok(()), |json| write(TOKENIZER, json))
    }

    /// Reads what [`Vocabulary::save`] wrote.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`].
    pub fn open(folder: &Path) -> Result<Vocabulary> {
        let path = folder.join(VOCABULARY);
        let json = std::fs::read(&path).map_err(|e| Error::file(&path, "read", &e))?;
        let description =
            serde_json::from_slice(&json).map_err(|e| Error::input(&path, "", e.to_string()))?;
        Vocabulary::described(&path, &description)
    }
}

impl Characters {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ascii = [u32::MAX; 128];
        for (id, c) in self.0.iter().enumerate().take_while(|(_, c)| c.is_ascii()) {
            ascii[*c as usize] = id as u32;
        }
        let mut ids = Vec::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            let id = match ascii.get(c as usize) {
                Some(id) => Some(*id).filter(|id| *id != u32::MAX),
                None => self.0.binary_search(&c).ok().map(|id| id as u32),
            };
            let unknown = || format!("{c:?} at byte {at} is not a character of the vocabulary");
            ids.push(id.ok_or_else(|| Error::value("text", unknown()))?);
        }
        Ok(ids)
    }
}

/// # Errors
/// [`Error::Value`] with the first byte that is not UTF-8.
pub(super) fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|e| {
        let at = e.valid_up_to();
        Error::value("text", format!("is not UTF-8 at byte {at}"))
    })
}

/// Bytes of text by id. A byte-level tokenizer writes each byte as one character;
/// others mark the start of a word by U+2581 and write rare bytes as `<0xHH>`.
fn bytes_by_token(tokenizer: &Tokenizer) -> Vec<u32> {
    let byte_level = |decoder: &DecoderWrapper| matches!(decoder, DecoderWrapper::ByteLevel(_));
    let byte_level = match tokenizer.get_decoder() {
        Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders().iter().any(byte_level),
        Some(decoder) => byte_level(decoder),
        None => false,
    };
    let vocabulary = tokenizer.get_vocab(true);
    let added = tokenizer.get_added_tokens_decoder();
    let size = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
    let mut bytes = vec![0; size];
    for (token, id) in vocabulary {
        let escaped = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        let count = match added.get(&id) {
            Some(added) if added.special => 0,
            Some(added) => added.content.len(),
            None if byte_level => token.chars().count(),
            None if escaped => 1,
            None => token.replace('\u{2581}', " ").len(),
        };
        bytes[id as usize] = count as u32;
    }
    bytes
}
