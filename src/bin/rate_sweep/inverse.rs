//! Commands on inverse-bound and top-K studies.

use crate::judged::Judged;
use crate::output::print;
use crate::studies::{cores, toml_files};
use smoe_lab::error::Result;
use smoe_lab::report::{self, Environment, IndexEntry};
use smoe_lab::sim::Verdict;
use smoe_lab::sim::inverse::finding::{Finding, findings};
use smoe_lab::sim::inverse::minimum::read_minima;
use smoe_lab::sim::inverse::study::{InversePlan, read_inverse_study};
use smoe_lab::sim::inverse::sweep::minima;
use smoe_lab::sim::inverse::top_k::record::{Infimum, read_infima, verdicts};
use smoe_lab::sim::inverse::top_k::search::infima;
use smoe_lab::sim::inverse::top_k::study::{TopKPlan, read_top_k_study};
use std::path::Path;
use std::time::SystemTime;

/// How much of a study is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Full,
    Smoke,
}

impl Size {
    pub fn of(smoke: bool) -> Self {
        match smoke {
            true => Size::Smoke,
            false => Size::Full,
        }
    }
}

/// The folder of inverse-bound studies inside a folder of studies.
const FOLDER: &str = "inverse";
/// The folder of top-K studies inside that one.
const TOP_K: &str = "top-k";

/// A study without Monte Carlo.
pub enum Design {
    Spreads(InversePlan),
    TopK(TopKPlan),
}

/// The inverse-bound and top-K studies of a folder of studies; none without their
/// folder.
pub fn designs(studies: &Path) -> Result<Vec<Design>> {
    let folder = studies.join(FOLDER);
    let mut files = Vec::new();
    for folder in [folder.join(TOP_K), folder] {
        if folder.is_dir() {
            files.splice(0..0, toml_files(&folder)?);
        }
    }
    files.iter().map(|file| Design::read(file)).collect()
}

/// Runs one study, or with [`Size::Smoke`] a small version of it in a folder of its
/// own, which decides nothing.
pub fn run(study: &Path, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
    Design::read(study)?.run(jobs, out, size)
}

impl Design {
    /// Top-K studies lie in a folder of that name.
    fn read(study: &Path) -> Result<Self> {
        let folder = study.parent().and_then(Path::file_name);
        match folder.is_some_and(|name| name == TOP_K) {
            true => Ok(Design::TopK(read_top_k_study(study)?)),
            false => Ok(Design::Spreads(read_inverse_study(study)?)),
        }
    }

    pub fn run(self, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
        match self {
            Design::Spreads(plan) => run_spreads(plan, jobs, out, size),
            Design::TopK(plan) => run_top_k(plan, jobs, out, size),
        }
    }

    /// True if `out` holds results of this very study.
    pub fn is_done(&self, out: &Path) -> bool {
        match self {
            Design::Spreads(plan) => {
                let stored = read_minima(&out.join(&plan.study.name), plan);
                let missing = |f: &Finding| f.verdict() == Verdict::Missing;
                stored.is_ok_and(|stored| !findings(plan, &stored).iter().any(missing))
            }
            Design::TopK(plan) => {
                let stored = read_infima(&out.join(&plan.study.name), plan);
                stored.is_ok_and(|stored| !verdicts(plan, &stored).contains(&Verdict::Missing))
            }
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Design::Spreads(plan) => &plan.study.name,
            Design::TopK(plan) => &plan.study.name,
        }
    }

    /// What its record says, in the folder `records` beside the study.
    pub fn judged(&self) -> Result<Judged> {
        match self {
            Design::Spreads(plan) => {
                let record = plan.study.relative(Path::new("records"));
                spreads_judged(plan, &record.join(&plan.study.name))
            }
            Design::TopK(plan) => {
                let record = plan.study.relative(Path::new("records"));
                top_k_judged(plan, &record.join(&plan.study.name))
            }
        }
    }
}

fn run_top_k(plan: TopKPlan, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
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
    Ok(size == Size::Smoke || are_good(&plan, &infima))
}

fn are_good(plan: &TopKPlan, infima: &[Infimum]) -> bool {
    let bad = [Verdict::Missing, Verdict::Fails];
    !verdicts(plan, infima).iter().any(|v| bad.contains(v))
}

fn run_spreads(plan: InversePlan, jobs: Option<usize>, out: &Path, size: Size) -> Result<bool> {
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

fn spreads_judged(plan: &InversePlan, record: &Path) -> Result<Judged> {
    let place = place();
    let Some(environment) = environment(record, &plan.hash)? else {
        return Ok(Judged {
            text: format!("{}: no recorded minima\n", plan.study.name),
            good: true,
            entry: IndexEntry::of_inverse_study(plan, None, None, &place),
        });
    };
    let findings = findings(plan, &read_minima(record, plan)?);
    let stale = report::inverse_is_stale(record, plan, &findings);
    let text = report::inverse_table(plan, &findings);
    Ok(Judged {
        good: stale.is_none() && findings.iter().all(Finding::holds),
        text: text + &stale_text(&plan.study.name, stale),
        entry: IndexEntry::of_inverse_study(plan, Some(&findings), environment.as_ref(), &place),
    })
}

fn top_k_judged(plan: &TopKPlan, record: &Path) -> Result<Judged> {
    let place = format!("{}{TOP_K}/", place());
    let Some(environment) = environment(record, &plan.hash)? else {
        return Ok(Judged {
            text: format!("{}: no recorded infima\n", plan.study.name),
            good: true,
            entry: IndexEntry::of_top_k_study(plan, None, None, &place),
        });
    };
    let infima = read_infima(record, plan)?;
    let stale = report::top_k_is_stale(record, plan, &infima);
    let text = report::top_k_table(plan, &infima);
    Ok(Judged {
        good: stale.is_none() && are_good(plan, &infima),
        text: text + &stale_text(&plan.study.name, stale),
        entry: IndexEntry::of_top_k_study(plan, Some(&infima), environment.as_ref(), &place),
    })
}

/// Where inverse-bound studies stand, seen from an index.
fn place() -> String {
    format!("{FOLDER}/")
}

/// The stored environment of a record, if it has one; `None` without a record.
fn environment(record: &Path, hash: &str) -> Result<Option<Option<Environment>>> {
    if !record.exists() {
        return Ok(None);
    }
    if !record.join("environment.toml").exists() {
        return Ok(Some(None));
    }
    let now = SystemTime::now();
    let stored = Environment::read_or_capture(record, hash, cores(), now)?;
    Ok(Some(Some(stored)))
}

/// What `check` says of a report that is not what its record gives.
pub fn stale_text(name: &str, stale: Option<String>) -> String {
    let text = |reason| format!("{name}: the report is stale: {reason}\n");
    stale.map_or(String::new(), text)
}
