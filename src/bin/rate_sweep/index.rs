//! The index of a folder of studies and of its folder of inverse-bound studies.

use crate::inverse;
use crate::output::print;
use crate::studies::{cores, plans};
use smoe_lab::error::{Error, Result};
use smoe_lab::report::{Environment, IndexEntry, has_index, index_is_stale, write_index};
use smoe_lab::sim::Summary;
use smoe_lab::sim::inverse::finding::findings;
use smoe_lab::sim::inverse::minimum::read_minima;
use smoe_lab::sim::inverse::study::read_inverse_study;
use smoe_lab::sim::row::read_rows;
use std::path::Path;
use std::time::SystemTime;

pub fn write(folder: &Path) -> Result<bool> {
    if !folder.is_dir() {
        return Err(Error::input(folder, "", "is not a folder of studies"));
    }
    write_index(folder, &entries(folder)?)?;
    print(&format!("index: {}\n", folder.join("index.html").display()));
    Ok(true)
}

/// Says if a folder's index is not what its records give; a folder need not have
/// one.
pub fn check(folder: &Path) -> Result<bool> {
    if !folder.is_dir() || !has_index(folder) {
        return Ok(true);
    }
    let stale = index_is_stale(folder, &entries(folder)?);
    if let Some(reason) = &stale {
        print(&format!("the index is stale: {reason}\n"));
    }
    Ok(stale.is_none())
}

fn entries(folder: &Path) -> Result<Vec<IndexEntry>> {
    let mut entries = Vec::new();
    for plan in plans(folder)? {
        let record = folder.join("records").join(&plan.study.name);
        let summary = match record.exists() {
            true => Some(Summary::new(&plan, &read_rows(&record, &plan)?)),
            false => None,
        };
        entries.push(IndexEntry::of_study(&plan, summary.as_ref()));
    }
    for file in inverse::files(folder)? {
        let plan = read_inverse_study(&file)?;
        let record = plan
            .study
            .relative(Path::new("records"))
            .join(&plan.study.name);
        let (mut found, mut environment) = (None, None);
        if record.exists() {
            found = Some(findings(&plan, &read_minima(&record, &plan)?));
        }
        if record.join("environment.toml").exists() {
            let now = SystemTime::now();
            environment = Some(Environment::read_or_capture(
                &record,
                &plan.hash,
                cores(),
                now,
            )?);
        }
        let place = format!("{}/", inverse::FOLDER);
        let entry =
            IndexEntry::of_inverse_study(&plan, found.as_deref(), environment.as_ref(), &place);
        entries.push(entry);
    }
    Ok(entries)
}
