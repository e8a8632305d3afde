//! A text becomes a folder of tokens.
//!
//! ```text
//! text -> splits -> vocabulary -> train.bin, validation.bin, test.bin, description.json
//! ```
//!
//! A `.bin` file is its tokens and nothing else (the layout of nanoGPT): unsigned
//! integers of 2 bytes, or 4 where the vocabulary exceeds 65 536, the lowest byte first.

use crate::error::{Error, Result};
use crate::train::data::Split;
use crate::train::data::bpe;
use crate::train::data::description::{
    DESCRIPTION, Description, FORMAT, SplitDescription, hexadecimal,
};
use crate::train::data::text::{Part, Splits, Unit, open, pieces};
use crate::train::data::tokens::Width;
use crate::train::data::vocabulary::{TOKENIZER, Vocabulary};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Bytes of text made tokens at a time.
const PIECE: usize = 1 << 20;

/// Pieces made tokens at once, on all threads; written in order.
const GROUP: usize = 16;

/// Which vocabulary a text gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// [`Vocabulary::Bytes`].
    Bytes,
    /// [`Vocabulary::Characters`].
    Characters,
    /// An existing tokenizer.
    Tokenizer(PathBuf),
    /// Byte-pair encoding of bytes, trained on the train split, with this many tokens.
    BytePairs(usize),
}

impl FromStr for Choice {
    type Err = Error;

    /// `bytes`, `characters`, `bpe:SIZE`, or the path of a tokenizer's `.json`.
    fn from_str(text: &str) -> Result<Choice> {
        let wrong = || {
            let message = "must be bytes, characters, bpe:SIZE or the path of a tokenizer.json";
            Error::value("vocabulary", message)
        };
        match (text, text.strip_prefix("bpe:")) {
            ("bytes", _) => Ok(Choice::Bytes),
            ("characters", _) => Ok(Choice::Characters),
            (_, Some(size)) => size.parse().map(Choice::BytePairs).map_err(|_| wrong()),
            _ if text.ends_with(".json") => Ok(Choice::Tokenizer(text.into())),
            _ => Err(wrong()),
        }
    }
}

impl Choice {
    fn unit(&self) -> Unit {
        match self {
            Choice::Bytes => Unit::Bytes,
            _ => Unit::Characters,
        }
    }
}

/// What to prepare.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// A text file; a folder with a text file for each split (WikiText), told by the
    /// words train, valid and test in their names; or [`crate::train::data::TINYSHAKESPEARE`].
    pub source: PathBuf,
    /// The vocabulary.
    pub vocabulary: Choice,
    /// How one file is split, [`Splits::default`] if absent; a folder needs none.
    pub splits: Option<Splits>,
}

/// Writes a prepared folder, which must not exist or be empty; a failure leaves nothing
/// behind. `progress` is told bytes of text done and in all.
///
/// # Errors
/// [`Error::File`], [`Error::Input`] and [`Error::Value`], one line each.
pub fn prepare(
    preparation: &Preparation,
    folder: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Description> {
    let staging = Staging::beside(folder)?;
    let file = |split: Split| {
        let path = staging.0.join(split.file());
        File::create_new(&path).map_err(|e| Error::file(&path, "write", &e))
    };
    let (vocabulary, description, files) = encode(preparation, file, progress)?;
    for (split, file) in files {
        let path = staging.0.join(split.file());
        file.sync_all()
            .map_err(|e| Error::file(&path, "write", &e))?;
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = staging.0.join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::file(&path, "write", &e))
    };
    if let Some(json) = vocabulary.tokenizer_json() {
        write(TOKENIZER, json)?;
    }
    write(DESCRIPTION, description.to_json().as_bytes())?;
    staging.put(folder)?;
    Ok(description)
}

/// [`prepare`] into what `sink` makes for each split.
///
/// # Errors
/// As [`prepare`], and those of `sink`.
pub(super) fn encode<S: Write>(
    preparation: &Preparation,
    sink: impl Fn(Split) -> Result<S>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Vocabulary, Description, BTreeMap<Split, S>)> {
    let unit = preparation.vocabulary.unit();
    let parts = open(&preparation.source, preparation.splits, unit)?;
    if !parts.iter().any(|part| part.split == Split::Train) {
        let message = "is too short to be split: nothing is left to train on";
        return Err(Error::input(&preparation.source, "", message));
    }
    let total = parts.iter().map(|part| part.bytes().len() as u64).sum();
    progress(0, total);
    let vocabulary = vocabulary(&preparation.vocabulary, &parts)?;
    let width = Width::of(vocabulary.size());
    let mut done = 0;
    let (mut splits, mut sinks) = (BTreeMap::new(), BTreeMap::new());
    for part in &parts {
        let mut out = sink(part.split)?;
        let (mut hash, mut tokens, mut buffer) = (Sha256::new(), 0, Vec::new());
        let pieces: Vec<&[u8]> = pieces(part.bytes(), unit, PIECE).collect();
        let mut start = 0;
        for group in pieces.chunks(GROUP) {
            let encode = |piece: &&[u8]| vocabulary.encode(piece);
            let encoded: Vec<Result<Vec<u32>>> = group.par_iter().map(encode).collect();
            for (piece, ids) in group.iter().zip(encoded) {
                let place = |e| part.error(format!("in the text from byte {start} on: {e}"));
                let ids = ids.map_err(place)?;
                buffer.clear();
                width.write(&ids, &mut buffer);
                hash.update(&buffer);
                out.write_all(&buffer)
                    .map_err(|e| Error::file(Path::new(&part.split.file()), "write", &e))?;
                tokens += ids.len() as u64;
                start += piece.len();
                done += piece.len() as u64;
                progress(done, total);
            }
        }
        if tokens < 2 {
            let (split, bytes) = (part.split, part.bytes().len());
            let message =
                format!("gives {split} {bytes} bytes and {tokens} token: too short, needs 2");
            return Err(part.error(message));
        }
        let described = SplitDescription {
            tokens,
            bytes: part.bytes().len() as u64,
            sha256: hexadecimal(hash.finalize().as_slice()),
        };
        splits.insert(part.split, described);
        sinks.insert(part.split, out);
    }
    let name = preparation.source.file_name().unwrap_or_default();
    let description = Description {
        format: FORMAT,
        source: name.to_string_lossy().into_owned(),
        vocabulary: vocabulary.describe(),
        token: width,
        splits,
    };
    Ok((vocabulary, description, sinks))
}

fn vocabulary(choice: &Choice, parts: &[Part]) -> Result<Vocabulary> {
    match choice {
        Choice::Bytes => Ok(Vocabulary::Bytes),
        Choice::Characters => {
            let texts: Result<Vec<&str>> = parts.iter().map(text_of).collect();
            Ok(Vocabulary::characters_of(texts?))
        }
        Choice::Tokenizer(path) => Vocabulary::tokenizer(path),
        Choice::BytePairs(size) => {
            let train = parts.iter().filter(|part| part.split == Split::Train);
            let texts: Result<Vec<&str>> = train.map(text_of).collect();
            bpe::train(&texts?, *size)
        }
    }
}

fn text_of(part: &Part) -> Result<&str> {
    std::str::from_utf8(part.bytes()).map_err(|e| part.error(e.to_string()))
}

/// A folder in the making, removed unless it is put in place.
struct Staging(PathBuf);

impl Staging {
    fn beside(folder: &Path) -> Result<Staging> {
        let cannot = |e| Error::file(folder, "write", &e);
        match std::fs::read_dir(folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let message = "is not empty; name a new folder, or remove it first";
                    return Err(Error::input(folder, "", message));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (),
            Err(e) => return Err(cannot(e)),
        }
        let Some(name) = folder.file_name() else {
            return Err(Error::input(folder, "", "is not the name of a folder"));
        };
        let name = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        let staging = folder.with_file_name(name);
        // What a killed process with this number left behind.
        let _ = std::fs::remove_dir_all(&staging);
        std::fs::create_dir_all(&staging).map_err(cannot)?;
        Ok(Staging(staging))
    }

    fn put(self, folder: &Path) -> Result<()> {
        let cannot = |e| Error::file(folder, "write", &e);
        if folder.is_dir() {
            std::fs::remove_dir(folder).map_err(cannot)?;
        }
        std::fs::rename(&self.0, folder).map_err(cannot)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Best effort: after a success nothing is left of it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
