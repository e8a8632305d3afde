//! Tables, figures and page of an inverse-bound study.
//!
//! | file | content |
//! |---|---|
//! | `minima.csv` | one line per cell and spread: the result |
//! | `claims.csv` | one line per cell and quantity: exponent, claim, verdict |
//! | `exponents.svg`, `exponents.png` | smallest distance against spread |
//! | `environment.toml` | where and when the minima were computed |
//! | `index.html` | all of it on one page |

mod figures;
mod page;
mod top_k;

pub(super) use top_k::accepted_infimum;
pub use top_k::{top_k_is_stale, top_k_table, write_top_k};

use super::environment::{self, Environment};
use super::format::{decimal, six_digits, stated, stated_interval};
use crate::error::{Error, Result};
use crate::sim::Verdict;
use crate::sim::inverse::finding::{Exponent, Finding, Quantity};
use crate::sim::inverse::minimum::{self, to_csv};
use crate::sim::inverse::study::{Case, InverseCell, InversePlan};
use std::path::Path;

/// Writes minima and report into `folder`, the page last.
///
/// # Errors
/// [`Error::File`].
pub fn write_inverse(
    folder: &Path,
    plan: &InversePlan,
    findings: &[Finding],
    environment: &Environment,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
    let figure = figures::figure(plan, findings);
    let page = page::page(plan, findings, environment, &figure);
    crate::error::replace(
        &folder.join(minimum::FILE),
        to_csv(plan.study.distance, findings),
    )?;
    crate::error::replace(
        &folder.join("claims.csv"),
        inverse_claims_csv(plan, findings),
    )?;
    crate::error::replace(&folder.join(environment::FILE), &environment.to_toml()?)?;
    figure.write_svg(&folder.join("exponents.svg"))?;
    figure.write_png(&folder.join("exponents.png"))?;
    crate::error::replace(&folder.join("index.html"), &page)
}

/// Why the stored `claims.csv` is not what the minima give now; `None` if it is.
pub fn inverse_is_stale(folder: &Path, plan: &InversePlan, findings: &[Finding]) -> Option<String> {
    super::stale_file(folder, "claims.csv", &inverse_claims_csv(plan, findings))
}

/// One line per cell and quantity. Six significant digits.
pub fn inverse_claims_csv(plan: &InversePlan, findings: &[Finding]) -> String {
    let header = [
        "gate",
        "coordinate",
        "copies",
        "quantity",
        "exponent",
        "claimed",
        "tolerance",
        "untrusted",
        "verdict",
    ];
    let mut lines = vec![header.map(String::from).to_vec()];
    for (cell, finding) in plan.cells.iter().zip(findings) {
        for exponent in &finding.exponents {
            lines.push(vec![
                cell.gate.clone(),
                cell.case.coordinate.name().to_string(),
                cell.case.copies.to_string(),
                exponent.quantity.name().to_string(),
                six_digits(exponent.value),
                six_digits(exponent.claimed),
                six_digits(exponent.claimed.map(|_| cell.case.tolerance)),
                finding.untrusted.to_string(),
                exponent.verdict.name().to_string(),
            ]);
        }
    }
    super::csv::encode(&lines)
}

/// The exponents and verdicts of all cells, for the terminal: at most 100
/// characters per line while gates' names are short.
pub fn inverse_table(plan: &InversePlan, findings: &[Finding]) -> String {
    let mut text = format!(
        "{}: {}\nClaims: {}\n",
        plan.study.name,
        plan.study.title,
        counts(findings)
    );
    let width = plan.study.gate.iter().map(|g| g.name.chars().count()).max();
    let width = width.unwrap_or(0);
    for group in by_case(plan, findings) {
        let case = &group[0].0.case;
        text.push_str(&format!("\n{}\n", case_text(plan, case)));
        let locals = 5 * (case.delta.points - 1);
        let heading = format!("local, delta {} to {}", case.delta.from, case.delta.to);
        let quantities = Quantity::measured(plan.study.distance);
        let columns = |texts: Vec<String>| -> String {
            texts.iter().map(|text| format!("  {text:>6}")).collect()
        };
        let headings = quantities.iter().map(|q| q.heading().to_string()).collect();
        text.push_str(&format!(
            "  {:<width$}  {heading:<locals$}{}  verdict\n",
            "gate",
            columns(headings),
        ));
        for (cell, finding) in group {
            let local: String = finding.local.iter().map(|e| format!("{e:4.2} ")).collect();
            let values = quantities.iter().map(|q| exponent_text(finding, *q));
            text.push_str(&format!(
                "  {:<width$}  {local:<locals$}{}  {}\n",
                cell.gate,
                columns(values.collect()),
                verdict_text(finding),
            ));
        }
    }
    text.replace('−', "-")
}

/// The cells of each case with their findings, in the order of the cases.
pub(super) fn by_case<'a>(
    plan: &'a InversePlan,
    findings: &'a [Finding],
) -> Vec<Vec<(&'a InverseCell, &'a Finding)>> {
    let mut rest = plan.cells.iter().zip(findings);
    let cases = plan.study.case.iter();
    cases
        .map(|case| rest.by_ref().take(case.gates.len()).collect())
        .filter(|group: &Vec<_>| !group.is_empty())
        .collect()
}

/// What a case holds apart and claims.
pub(super) fn case_text(plan: &InversePlan, case: &Case) -> String {
    let claims = [
        (plan.study.distance.symbol(), Some(case.exponent)),
        ("raw mass", case.raw_mass),
        ("tilted mass", case.tilted_mass),
    ];
    let claims: Vec<String> = claims
        .into_iter()
        .filter_map(|(name, claim)| Some(format!("{name} {}", stated(claim?))))
        .collect();
    format!(
        "{}, {} copies: claimed {} (± {}), delta in {}",
        case.coordinate.words(),
        case.copies,
        claims.join(", "),
        stated(case.tolerance),
        stated_interval(case.window),
    )
}

fn exponent_of(finding: &Finding, quantity: Quantity) -> Option<&Exponent> {
    finding.exponents.iter().find(|e| e.quantity == quantity)
}

pub(super) fn exponent_text(finding: &Finding, quantity: Quantity) -> String {
    let value = exponent_of(finding, quantity).and_then(|e| e.value);
    value.map_or("–".to_string(), |value| decimal(value, 2))
}

/// The verdict on the cell's claims, and why it could not be had.
fn verdict_text(finding: &Finding) -> String {
    match (finding.verdict(), finding.untrusted) {
        (Verdict::Undecided, count) => format!("undecided: {count} spreads untrusted"),
        (verdict, _) => verdict.name().to_string(),
    }
}

/// "26 × holds, 1 × fails"
fn counts(findings: &[Finding]) -> String {
    let verdicts: Vec<Verdict> = findings.iter().map(Finding::verdict).collect();
    count_verdicts(&verdicts)
}

fn count_verdicts(verdicts: &[Verdict]) -> String {
    let kinds = [
        Verdict::Holds,
        Verdict::Fails,
        Verdict::Undecided,
        Verdict::Missing,
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .map(|kind| (kind, verdicts.iter().filter(|v| **v == kind).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} × {}", kind.name()))
        .collect();
    parts.join(", ")
}
