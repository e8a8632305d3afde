//! Commands on inverse-bound studies.

use crate::output::print;
use crate::studies::{cores, toml_files};
use smoe_lab::error::Result;
use smoe_lab::report::{self, Environment};
use smoe_lab::sim::Verdict;
use smoe_lab::sim::inverse::finding::{Finding, findings};
use smoe_lab::sim::inverse::minimum::read_minima;
use smoe_lab::sim::inverse::study::read_inverse_study;
use smoe_lab::sim::inverse::sweep::minima;
use smoe_lab::sim::inverse::top_k::record::{read_infima, verdicts};
use smoe_lab::sim::inverse::top_k::search::infima;
use smoe_lab::sim::inverse::top_k::study::read_top_k_study;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How much of a study is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Full,
    Smoke,
}

/// The folder of inverse-bound studies inside a folder of studies.
pub const FOLDER: &str = "inverse";
/// The folder of top-K studies inside that one.
const TOP_K: &str = "top-k";

/// Runs one study, or with [`Size::Smoke`] a small version of it in a folder of its
/// own, which decides nothing.
pub fn run(study: &Path, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
    match is_top_k(study) {
        true => run_top_k(study, jobs, out, size),
        false => run_spreads(study, jobs, out, size),
    }
}

/// Top-K studies lie in a folder of that name.
fn is_top_k(study: &Path) -> bool {
    let folder = study.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name == TOP_K)
}

fn run_top_k(study: &Path, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
    let plan = read_top_k_study(study)?;
    let plan = match size {
        Size::Full => plan,
        Size::Smoke => plan.smoke(),
    };
    let folder = out.join(&plan.study.name);
    let started = SystemTime::now();
    let infima = infima(&plan, jobs)?;
    let environment = Environment::capture(&plan.hash, jobs.unwrap_or_else(cores), started);
    report::write_top_k(&folder, &plan, &infima, &environment)?;
    print(&report::top_k_table(&plan, &infima));
    print(&format!("page: {}\n", folder.join("index.html").display()));
    Ok(size == Size::Smoke || verdicts(&plan, &infima).iter().all(is_good))
}

fn is_good(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Missing | Verdict::Fails)
}

fn run_spreads(study: &Path, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
    let plan = read_inverse_study(study)?;
    let plan = match size {
        Size::Full => plan,
        Size::Smoke => plan.smoke(),
    };
    let folder = out.join(&plan.study.name);
    let started = SystemTime::now();
    let found = minima(&plan, jobs, |cell| {
        let coordinate = cell.case.coordinate.name();
        eprintln!(
            "{}, {coordinate}, {} copies done",
            cell.gate, cell.case.copies
        );
    })?;
    let findings = findings(&plan, &found);
    let threads = jobs.unwrap_or_else(cores);
    let environment = Environment::capture(&plan.hash, threads, started);
    report::write_inverse(&folder, &plan, &findings, &environment)?;
    print(&report::inverse_table(&plan, &findings));
    print(&format!("page: {}\n", folder.join("index.html").display()));
    Ok(size == Size::Smoke || findings.iter().all(Finding::holds))
}

/// The inverse-bound studies of a folder of studies; none without their folder.
pub fn files(studies: &Path) -> Result<Vec<PathBuf>> {
    let folder = studies.join(FOLDER);
    match folder.is_dir() {
        true => toml_files(&folder),
        false => Ok(Vec::new()),
    }
}

/// Judges the recorded minima of the inverse-bound studies in the folder
/// `inverse` of a folder of studies, if there is one.
pub fn check(studies: &Path) -> Result<bool> {
    let mut good = check_top_k(&studies.join(FOLDER).join(TOP_K))?;
    for file in files(studies)? {
        let plan = read_inverse_study(&file)?;
        let name = &plan.study.name;
        let folder = plan.study.relative(Path::new("records")).join(name);
        if !folder.exists() {
            print(&format!("{name}: no recorded minima\n"));
            continue;
        }
        let findings = findings(&plan, &read_minima(&folder, &plan)?);
        let stale = report::inverse_is_stale(&folder, &plan, &findings);
        good &= stale.is_none() && findings.iter().all(Finding::holds);
        print(&report::inverse_table(&plan, &findings));
        if let Some(reason) = stale {
            print(&format!("{name}: the report is stale: {reason}\n"));
        }
    }
    Ok(good)
}

fn check_top_k(folder: &Path) -> Result<bool> {
    let files = match folder.is_dir() {
        true => toml_files(folder)?,
        false => Vec::new(),
    };
    let mut good = true;
    for file in files {
        let plan = read_top_k_study(&file)?;
        let name = &plan.study.name;
        let folder = plan.study.relative(Path::new("records")).join(name);
        if !folder.exists() {
            print(&format!("{name}: no recorded infima\n"));
            continue;
        }
        let infima = read_infima(&folder, &plan)?;
        let stale = report::top_k_is_stale(&folder, &plan, &infima);
        good &= stale.is_none() && verdicts(&plan, &infima).iter().all(is_good);
        print(&report::top_k_table(&plan, &infima));
        if let Some(reason) = stale {
            print(&format!("{name}: the report is stale: {reason}\n"));
        }
    }
    Ok(good)
}
