//! What the records of a folder of studies say: `check` judges it, `index` shows it.

use crate::output::print;
use crate::{inverse, studies};
use smoe_lab::error::{Error, Result};
use smoe_lab::report::{IndexEntry, has_index, index_is_stale, write_index};
use std::path::Path;

/// One study with its record.
pub struct Judged {
    /// What `check` prints.
    pub text: String,
    /// False if a claim fails or lacks rows, or a report is stale.
    pub good: bool,
    /// What the index says.
    pub entry: IndexEntry,
}

/// Judges the records of a folder of studies, its folder of inverse-bound studies
/// and the index, if there is one; or the record of one study.
pub fn check(studies: &Path) -> Result<bool> {
    let mut good = true;
    let entries = judge(studies, |judged| {
        print(&judged.text);
        good &= judged.good;
    })?;
    if studies.is_dir() && has_index(studies) {
        let stale = index_is_stale(studies, &entries);
        if let Some(reason) = &stale {
            print(&format!("the index is stale: {reason}\n"));
        }
        good &= stale.is_none();
    }
    Ok(good)
}

/// Writes the index of a folder of studies.
pub fn index(folder: &Path) -> Result<bool> {
    if !folder.is_dir() {
        return Err(Error::input(folder, "", "is not a folder of studies"));
    }
    write_index(folder, &judge(folder, |_| ())?)?;
    print(&format!("index: {}\n", folder.join("index.html").display()));
    Ok(true)
}

/// Each record is read once; all study files are read before the first record.
fn judge(studies: &Path, mut each: impl FnMut(&Judged)) -> Result<Vec<IndexEntry>> {
    let mut entries = Vec::new();
    let mut take = |judged: Judged| {
        each(&judged);
        entries.push(judged.entry);
    };
    let plans = studies::plans(studies)?;
    let designs = inverse::designs(studies)?;
    for plan in &plans {
        take(studies::judged(plan)?);
    }
    for design in &designs {
        take(design.judged()?);
    }
    Ok(entries)
}
