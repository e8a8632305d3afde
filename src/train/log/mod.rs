//! What a run reports while it trains: `log.jsonl`, and the same scalars for
//! TensorBoard.
//!
//! | file | content |
//! |---|---|
//! | [`row`] | the rows, typed |
//! | [`mod@file`] | `log.jsonl`: written row by row, cut at a step on resume |
//! | [`events`] | TensorBoard's event file |
//!
//! Only `seconds` and `tokens_per_second` depend on the clock: two runs of one seed
//! have equal rows [without them](Row::without_clock).

pub mod events;
pub mod file;
mod number;
pub mod row;

pub use events::Events;
pub use file::{Log, read};
pub(in crate::train) use number::{number, numbers};
pub use row::{Auxiliary, Evaluation, Row, Statistics, Step, Text};

use crate::error::{Error, Result};
use std::path::Path;

/// Replaces a file at once: it is the old or the new one, never half of it.
///
/// # Errors
/// [`Error::File`].
pub(in crate::train) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::write(&temporary, content)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|e| {
            // Best effort: the first failure is the one to report.
            let _ = std::fs::remove_file(&temporary);
            Error::file(path, "write", &e)
        })
}
