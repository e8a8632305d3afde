//! Parts of a study that several machines run side by side.

use super::plan::{Cell, Plan};
use super::row::Row;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};

/// Part I of M of a study's replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Part `index` of `count`, counted from 1.
    ///
    /// # Errors
    /// [`Error::Value`] unless 1 <= index <= count.
    pub fn new(index: u32, count: u32) -> Result<Self> {
        if !(1..=count).contains(&index) {
            let message = format!("expected I/M with 1 <= I <= M, got {index}/{count}");
            return Err(Error::value("shard", message));
        }
        Ok(Shard { index, count })
    }

    /// The part, from 1.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Whether a replicate belongs to this part:
    ///
    /// ```text
    /// (rank of the cell + replicate) mod M = I - 1
    /// ```
    ///
    /// Ranks run from 0 over all cells of the plan, large samples first. So every
    /// part has its share of every cell, and what is left over where M does not
    /// divide the replicates moves on from cell to cell.
    pub fn holds(self, plan: &Plan, cell: &Cell, replicate: u64) -> bool {
        let is_before =
            |other: &&Cell| (cell.n, other.name.as_str()) < (other.n, cell.name.as_str());
        let rank = plan.cells.iter().filter(is_before).count() as u64;
        let count = u64::from(self.count);
        (rank % count + replicate % count) % count == u64::from(self.index - 1)
    }

    /// The name of the file that this part alone writes.
    pub fn file_name(self) -> String {
        format!("rows.{}-of-{}.csv", self.index, self.count)
    }

    /// The part whose rows a file of this name holds.
    fn of_file_name(name: &str) -> Option<Self> {
        let middle = name.strip_prefix("rows.")?.strip_suffix(".csv")?;
        let (index, count) = middle.split_once("-of-")?;
        let shard = Shard::new(index.parse().ok()?, count.parse().ok()?).ok()?;
        (shard.file_name() == name).then_some(shard)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {}", self.index, self.count)
    }
}

/// The row files of all parts in `folder`, by number of parts and part.
///
/// # Errors
/// [`Error::File`] if the folder cannot be listed.
pub fn shard_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::file(folder, "read", &e))?;
    let mut shards: Vec<Shard> = entries
        .filter_map(|entry| Shard::of_file_name(entry.ok()?.file_name().to_str()?))
        .collect();
    shards.sort_by_key(|shard| (shard.count, shard.index));
    let path = |shard: Shard| folder.join(shard.file_name());
    Ok(shards.into_iter().map(path).collect())
}

/// The rows of several files, each replicate once. A replicate may stand in
/// several files, since parts may be repeated with another M: it is the same row
/// then, but for its time, and the first one is kept.
///
/// # Errors
/// [`Error::Input`] if two rows of one replicate differ in more than their time.
pub fn merged(files: Vec<(PathBuf, Vec<Row>)>) -> Result<Vec<Row>> {
    let (paths, parts): (Vec<PathBuf>, Vec<Vec<Row>>) = files.into_iter().unzip();
    let mut rows: Vec<Row> = Vec::new();
    // Of each replicate: its file and its place in `rows`.
    let mut found: HashMap<(String, u64), (usize, usize)> = HashMap::new();
    for (file, part) in parts.into_iter().enumerate() {
        for row in part {
            match found.entry((row.cell.clone(), row.replicate)) {
                Entry::Vacant(free) => {
                    free.insert((file, rows.len()));
                    rows.push(row);
                }
                Entry::Occupied(taken) => {
                    let (first, place) = *taken.get();
                    if !rows[place].equals_but_for_time(&row) {
                        let (name, other) = (&row.cell, paths[first].display());
                        let message =
                            format!("{name}/{} differs from its row in {other}", row.replicate);
                        return Err(Error::input(&paths[file], "", message));
                    }
                }
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_reads_back_to_its_shard() {
        let shard = Shard::new(2, 4).unwrap();
        assert_eq!(Shard::of_file_name(&shard.file_name()), Some(shard));
        for other in [
            "rows.csv",
            "rows.5-of-4.csv",
            "rows.0-of-4.csv",
            "rows.02-of-4.csv",
            "rows.2-of-4.csv.new",
            "rows.2-of-.csv",
        ] {
            assert_eq!(Shard::of_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_shard_outside_its_count_is_refused() {
        assert!(Shard::new(0, 3).is_err());
        assert!(Shard::new(4, 3).is_err());
        assert!(Shard::new(1, 0).is_err());
    }
}
