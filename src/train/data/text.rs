//! Source texts and how they are split.

use crate::error::{Error, Result};
use crate::train::data::Split;
use crate::train::data::memory::Memory;
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The name of the text that is part of this crate: Karpathy's selection of
/// Shakespeare (public domain), 1 115 394 characters.
pub const TINYSHAKESPEARE: &str = "tinyshakespeare";

static TINYSHAKESPEARE_TEXT: &[u8] = include_bytes!("tinyshakespeare.txt.gz");

/// How one text is split, in the order train, validation, test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Splits {
    /// By shares of its bytes (vocabulary of bytes) or characters (others); train gets
    /// the rest, rounded down.
    Shares {
        /// Between 0 and 1.
        validation: f64,
        /// Between 0 and 1.
        test: f64,
    },
    /// 90, 5 and 5 million bytes: the convention for enwik8 and text8. Unless tokens are
    /// bytes, a character on a border goes to the later split.
    Enwik8,
}

impl Default for Splits {
    fn default() -> Self {
        Splits::Shares {
            validation: 0.1,
            test: 0.0,
        }
    }
}

impl FromStr for Splits {
    type Err = Error;

    /// A convention by its name: `enwik8` or `text8`.
    fn from_str(name: &str) -> Result<Splits> {
        match name {
            "enwik8" | "text8" => Ok(Splits::Enwik8),
            _ => Err(Error::value("splits", "must be enwik8 or text8")),
        }
    }
}

/// What a text is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Characters,
}

/// The text of one split.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub split: Split,
    /// The file it comes from.
    pub path: PathBuf,
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl Part {
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }

    /// An error about the text, with the file and the place in it.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::input(&self.path, "", message)
    }
}

/// The splits of a source: a text file, a folder with one text file per split, or
/// [`TINYSHAKESPEARE`].
///
/// # Errors
/// [`Error::File`], [`Error::Input`], [`Error::Value`].
pub(super) fn open(source: &Path, splits: Option<Splits>, unit: Unit) -> Result<Vec<Part>> {
    if source == Path::new(TINYSHAKESPEARE) {
        let mut text = Vec::new();
        let read = GzDecoder::new(TINYSHAKESPEARE_TEXT).read_to_end(&mut text);
        read.map_err(|e| Error::file(source, "read", &e))?;
        let memory = Memory::Owned(text);
        return cut(source, memory, splits.unwrap_or_default(), unit);
    }
    let metadata = std::fs::metadata(source).map_err(|e| Error::file(source, "read", &e))?;
    match (metadata.is_dir(), splits) {
        (false, splits) => cut(
            source,
            checked(source, unit)?,
            splits.unwrap_or_default(),
            unit,
        ),
        (true, None) => folder(source, unit),
        (true, Some(_)) => {
            let message = "is a folder, whose files are the splits: give no shares";
            Err(Error::input(source, "", message))
        }
    }
}

/// Maps a file that is not empty and, if characters are asked for, UTF-8.
fn checked(path: &Path, unit: Unit) -> Result<Memory> {
    let memory = Memory::map(path)?;
    if memory.is_empty() {
        return Err(Error::input(path, "", "is empty, a text was expected"));
    }
    if unit == Unit::Characters
        && let Err(error) = std::str::from_utf8(&memory)
    {
        let at = error.valid_up_to();
        let message = format!("is not UTF-8 at byte {at}; the vocabulary bytes takes any file");
        return Err(Error::input(path, "", message));
    }
    Ok(memory)
}

fn cut(path: &Path, memory: Memory, splits: Splits, unit: Unit) -> Result<Vec<Part>> {
    let [first, second] = match splits {
        Splits::Shares { validation, test } => {
            for (key, share) in [("validation", validation), ("test", test)] {
                if !(0.0..1.0).contains(&share) {
                    return Err(Error::value(key, "must be a share from 0 to below 1"));
                }
            }
            if validation + test >= 1.0 {
                let message = "with test, leaves nothing to train on";
                return Err(Error::value("validation", message));
            }
            let units = count(&memory, unit);
            let first = (units as f64 * (1.0 - validation - test)) as usize;
            let second = units - (units as f64 * test) as usize;
            [first, second].map(|units| offset(&memory, units, unit))
        }
        Splits::Enwik8 => {
            if memory.len() != 100_000_000 {
                let got = memory.len();
                let message = format!("has {got} bytes, enwik8 and text8 have 100000000");
                return Err(Error::input(path, "", message));
            }
            [90_000_000, 95_000_000].map(|byte| boundary(&memory, byte, unit))
        }
    };
    let memory = Arc::new(memory);
    let ranges = [
        (Split::Train, 0..first),
        (Split::Validation, first..second),
        (Split::Test, second..memory.len()),
    ];
    let parts = ranges.into_iter().filter(|(_, range)| !range.is_empty());
    let part = |(split, range)| Part {
        split,
        path: path.to_path_buf(),
        memory: memory.clone(),
        range,
    };
    Ok(parts.map(part).collect())
}

/// One file per split: `wiki.train.tokens`, `valid.txt` and the like.
fn folder(folder: &Path, unit: Unit) -> Result<Vec<Part>> {
    let cannot = |e| Error::file(folder, "read", &e);
    let mut files: BTreeMap<Split, PathBuf> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(split) = split_of(&name).filter(|_| path.is_file()) else {
            continue;
        };
        if let Some(other) = files.insert(split, path.clone()) {
            // In the order of names, whatever the order of the folder.
            let [a, b] = match other < path {
                true => [&other, &path],
                false => [&path, &other],
            };
            let [a, b] = [a, b].map(|path| path.file_name().unwrap_or_default().display());
            let message = format!("has two files for {split}: {a} and {b}");
            return Err(Error::input(folder, "", message));
        }
    }
    for split in [Split::Train, Split::Validation] {
        if !files.contains_key(&split) {
            let name = match split {
                Split::Validation => "valid",
                _ => "train",
            };
            let message = format!("has no file for {split}, such as {name}.txt or wiki.{name}.raw");
            return Err(Error::input(folder, "", message));
        }
    }
    let part = |(split, path): (Split, PathBuf)| {
        let memory = checked(&path, unit)?;
        Ok(Part {
            split,
            path,
            range: 0..memory.len(),
            memory: Arc::new(memory),
        })
    };
    files.into_iter().map(part).collect()
}

/// The split that a word of a file's name says.
fn split_of(name: &str) -> Option<Split> {
    if name.starts_with('.') {
        return None;
    }
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| match word.to_ascii_lowercase().as_str() {
        "train" => Some(Split::Train),
        "valid" | "validation" | "val" => Some(Split::Validation),
        "test" => Some(Split::Test),
        _ => None,
    })
}

/// True for the first byte of a character of UTF-8.
fn starts_character(byte: u8) -> bool {
    byte & 0xC0 != 0x80
}

fn count(text: &[u8], unit: Unit) -> usize {
    match unit {
        Unit::Bytes => text.len(),
        Unit::Characters => text.iter().filter(|byte| starts_character(**byte)).count(),
    }
}

/// The byte at which unit `units` starts.
fn offset(text: &[u8], units: usize, unit: Unit) -> usize {
    if unit == Unit::Bytes {
        return units;
    }
    let (mut at, mut left) = (0, units);
    for block in text.chunks(1 << 16) {
        let characters = count(block, unit);
        if characters > left {
            let starts = |(_, byte): &(usize, &u8)| starts_character(**byte);
            let start = block.iter().enumerate().filter(starts).nth(left);
            return at + start.map_or(block.len(), |(start, _)| start);
        }
        left -= characters;
        at += block.len();
    }
    text.len()
}

/// The last place at or before `byte` that no character crosses.
pub(super) fn boundary(text: &[u8], byte: usize, unit: Unit) -> usize {
    let crosses = |at: &usize| *at < text.len() && !starts_character(text[*at]);
    let mut at = byte.min(text.len());
    while unit == Unit::Characters && at > 0 && crosses(&at) {
        at -= 1;
    }
    at
}

/// A text in pieces of about `size` bytes that can be made tokens one by one.
///
/// A piece ends between characters. Where the next `size` bytes have a single space
/// between two letters, it ends before that space: there tokenizers that take a word
/// with the space before it, or without, cut in any case, so that the pieces' tokens
/// are the whole text's.
pub(super) fn pieces(text: &[u8], unit: Unit, size: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(end_of_piece(rest, unit, size));
        rest = after;
        Some(piece)
    })
}

fn end_of_piece(text: &[u8], unit: Unit, size: usize) -> usize {
    if text.len() <= size {
        return text.len();
    }
    if unit == Unit::Characters {
        let reach = &text[size - 1..text.len().min(2 * size)];
        let between = |three: &[u8]| {
            three[0].is_ascii_alphabetic() && three[1] == b' ' && three[2].is_ascii_alphabetic()
        };
        if let Some(at) = reach.windows(3).position(between) {
            return size + at;
        }
    }
    match boundary(text, size, unit) {
        // A piece of a few bytes may be less than a character.
        0 => text.len(),
        end => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_split_by_a_whole_word() {
        assert_eq!(split_of("wiki.train.tokens"), Some(Split::Train));
        assert_eq!(split_of("valid.txt"), Some(Split::Validation));
        assert_eq!(split_of("wiki.TEST.raw"), Some(Split::Test));
        assert_eq!(split_of("training.txt"), None);
        assert_eq!(split_of(".train.txt"), None);
    }

    #[test]
    fn units_are_counted_and_found_as_the_standard_library_does() {
        let text = "aé€😀".repeat(40_000);
        let bytes = text.as_bytes();
        assert_eq!(count(bytes, Unit::Characters), text.chars().count());
        for (index, (at, _)) in text.char_indices().enumerate().step_by(9973) {
            assert_eq!(offset(bytes, index, Unit::Characters), at);
        }
        let all = text.chars().count();
        assert_eq!(offset(bytes, all, Unit::Characters), bytes.len());
    }

    #[test]
    fn enwik8_is_cut_at_90_and_95_million_bytes() {
        let memory = Memory::Owned(vec![0; 100_000_000]);
        let parts = cut(Path::new("e"), memory, Splits::Enwik8, Unit::Bytes).unwrap();
        let lengths: Vec<usize> = parts.iter().map(|part| part.bytes().len()).collect();
        assert_eq!(lengths, [90_000_000, 5_000_000, 5_000_000]);
        // A character is not cut: it goes to the later split.
        let text = "aa€b".as_bytes();
        let cuts = |unit| [1, 2, 3, 4, 5, 6].map(|byte| boundary(text, byte, unit));
        assert_eq!(cuts(Unit::Characters), [1, 2, 2, 2, 5, 6]);
        assert_eq!(cuts(Unit::Bytes), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn pieces_join_to_the_text_and_cut_no_character() {
        let text = "one two  three\nfour 5 €€€€€€ six é".repeat(50);
        for size in [4, 7, 64, 100_000] {
            let all: Vec<&[u8]> = pieces(text.as_bytes(), Unit::Characters, size).collect();
            assert_eq!(all.concat(), text.as_bytes());
            assert!(all.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
            assert!(size > 64 || all.len() > 2);
        }
    }
}
