//! The report as one self-contained page: results first, then the design in
//! ADEMP order (Morris, White and Crowther 2019), limits, and how to repeat it.

mod design;
mod estimator;
mod results;

use super::environment::Environment;
use super::format::thousands;
use super::wording::{failed, seconds, verdict_counts};
use crate::plot::Chart;
use crate::plot::html::{code, definitions, document, paragraph, paragraphs};
use crate::sim::{Plan, Row, Summary};

/// The page. Nothing in it is loaded from elsewhere.
pub(super) fn page(
    plan: &Plan,
    rows: &[Row],
    summary: &Summary,
    environment: &Environment,
    rates: &[Chart],
    constants: &[Chart],
) -> String {
    let study = &plan.study;
    let aim = paragraphs(&study.aim) + &paragraph(&format!("Reference: {}", study.reference));
    let sections = [
        ("aim", "Aim", aim),
        ("results", "Results", results::verdicts(plan, summary)),
        ("rates", "Rates", results::rates(plan, summary, rates)),
        (
            "constants",
            "Constants",
            results::constants(summary, constants),
        ),
        ("parameters", "Parameters", results::coordinates(summary)),
        (
            "failures",
            "Failures",
            results::failed_fits(plan, rows, summary),
        ),
        (
            "starts",
            "Starting points",
            results::starting_points(plan, rows),
        ),
        ("data", "Data-generating mechanism", design::data(plan)),
        ("estimands", "Estimands", design::estimands(plan)),
        ("methods", "Methods", design::methods(plan)),
        ("measures", "Performance measures", design::measures(plan)),
        ("limits", "Limits", design::limits(plan, summary)),
        ("environment", "Environment", environment_list(environment)),
        ("reproduce", "Reproduce", reproduce(plan, rows)),
    ];
    document(&study.title, &headline(plan, summary), &sections)
}

fn headline(plan: &Plan, summary: &Summary) -> String {
    format!(
        "{} fits in {} cells, {} of them {}. Claims: {}.",
        thousands(summary.rows as u64),
        plan.cells.len(),
        match summary.failures {
            0 => "none".to_string(),
            count => thousands(count as u64),
        },
        failed(plan),
        verdict_counts(summary)
    )
}

pub(in crate::report) fn environment_list(environment: &Environment) -> String {
    let unknown = || "not recorded".to_string();
    let mut pairs = vec![
        ("Version", format!("smoe-lab {}", environment.version)),
        (
            "Compiler",
            environment.rustc.clone().unwrap_or_else(unknown),
        ),
        ("System", environment.os.clone()),
        ("Processor", environment.cpu.clone().unwrap_or_else(unknown)),
        (
            "Threads",
            format!("{} on {} cores", environment.threads, environment.cores),
        ),
        ("Started", environment.started.clone()),
        ("Duration", seconds(environment.seconds)),
        ("Study hash", environment.study.clone()),
    ];
    if let Some(device) = &environment.device {
        pairs.insert(4, ("Device", device.clone()));
    }
    let pairs: Vec<(String, String)> = pairs
        .into_iter()
        .map(|(term, text)| (term.to_string(), text))
        .collect();
    definitions(&pairs)
}

fn reproduce(plan: &Plan, rows: &[Row]) -> String {
    let study = &plan.study;
    // An absolute path means nothing on another machine.
    let path = if study.path.is_relative() {
        study.path.display().to_string()
    } else {
        format!("{}.toml", study.name)
    };
    let command = |words: &str| format!("cargo run --bin rate_sweep -- {words}");
    let replicate = rows.iter().find(|r| !r.converged).or(rows.first());
    let name = match (replicate, plan.cells.first()) {
        (Some(row), _) => format!("{}/{}", row.cell, row.replicate),
        (None, Some(cell)) => format!("{}/0", cell.name),
        (None, None) => String::new(),
    };
    let mut html = paragraph(
        "Run the study; rows that exist are kept, missing ones are computed, and this page is \
         written again:",
    );
    html += &code(&command(&format!("run {path}")));
    html += &paragraph("Write this page again from the stored rows, without any fit:");
    html += &code(&command(&format!("report {path}")));
    html += &paragraph(
        "Compute one replicate again, with every start's outcome. Its name is its cell, a slash \
         and the replicate, as in the first columns of the rows; nothing else decides its \
         random numbers:",
    );
    html + &code(&command(&format!("replay {path} '{name}'")))
}
