//! The index of a folder of studies: what was claimed, measured and found, of
//! all of them at a glance. Made from recorded rows alone.
//!
//! | file | content |
//! |---|---|
//! | `README.md` | one table line per claim |
//! | `index.html` | the same with thumbnails of the plots |

mod condensed;
mod entry;
mod inverse;
mod markdown;
mod monte_carlo;
mod page;
mod top_k;

pub use entry::IndexEntry;

use crate::error::{Error, Result};
use std::path::Path;

/// The generated files of an index.
const FILES: [&str; 2] = ["README.md", "index.html"];
/// The first line of both: files without it are not ours to replace.
const MARK: &str = "<!-- Written by `rate_sweep index` from the recorded rows: do not edit. -->";

/// The entries in the order of the index: by part, then by name.
fn sorted(entries: &[IndexEntry]) -> Vec<&IndexEntry> {
    let mut sorted: Vec<&IndexEntry> = entries.iter().collect();
    sorted.sort_by_key(|entry| (entry.heading(), &entry.name));
    sorted
}

/// The entries under one heading each.
fn groups(entries: &[IndexEntry]) -> Vec<(&str, Vec<&IndexEntry>)> {
    let sorted = sorted(entries);
    let groups = sorted.chunk_by(|a, b| a.heading() == b.heading());
    groups
        .map(|group| (group[0].heading(), group.to_vec()))
        .collect()
}

fn texts(entries: &[IndexEntry]) -> [String; 2] {
    let groups = groups(entries);
    [markdown::table(&groups), page::page(&groups)]
}

/// Writes both files of the index into a folder of studies.
///
/// # Errors
/// [`Error::Input`] if one of them exists and is not an index; [`Error::File`].
pub fn write_index(folder: &Path, entries: &[IndexEntry]) -> Result<()> {
    let paths = FILES.map(|name| folder.join(name));
    for path in &paths {
        if path.exists() && !is_ours(path) {
            let message = "exists and was not written by this command: move it away";
            return Err(Error::input(path, "", message));
        }
    }
    for (path, text) in paths.iter().zip(texts(entries)) {
        crate::error::replace(path, &text)?;
    }
    Ok(())
}

/// True if the folder has an index.
pub fn has_index(folder: &Path) -> bool {
    FILES.iter().any(|name| is_ours(&folder.join(name)))
}

/// Why the stored index is not what the rows give now; `None` if it is.
pub fn index_is_stale(folder: &Path, entries: &[IndexEntry]) -> Option<String> {
    let mut files = FILES.into_iter().zip(texts(entries));
    files.find_map(|(name, now)| super::stale_file(folder, name, &now))
}

fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}
