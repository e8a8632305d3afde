//! The page of an inverse-bound study.

use super::{by_case, case_text, counts, exponent_text, verdict_text};
use crate::plot::Figure;
use crate::plot::html::{code, document, escape, paragraph, paragraphs, table};
use crate::report::environment::Environment;
use crate::report::format::decimal;
use crate::report::page::environment_list;
use crate::sim::inverse::distance::Distance;
use crate::sim::inverse::finding::{Finding, Quantity};
use crate::sim::inverse::study::InversePlan;

/// The page. Nothing in it is loaded from elsewhere.
pub(super) fn page(
    plan: &InversePlan,
    findings: &[Finding],
    environment: &Environment,
    figure: &Figure,
) -> String {
    let study = &plan.study;
    let aim = paragraphs(&study.aim) + &paragraph(&format!("Reference: {}", study.reference));
    let sections = [
        ("aim", "Aim", aim),
        ("results", "Exponents", tables(plan, findings)),
        (
            "figures",
            "Figures",
            format!("<figure>{}</figure>\n", figure.svg()),
        ),
        ("methods", "Methods", methods(plan)),
        ("truths", "Truths", truths(plan)),
        ("limits", "Limits", paragraphs(&study.limits)),
        ("environment", "Environment", environment_list(environment)),
        ("reproduce", "Reproduce", reproduce(plan)),
    ];
    let headline = format!(
        "{} minimised; claims: {}.",
        plan.cells.len(),
        counts(findings)
    );
    document(&study.title, &headline, &sections)
}

fn tables(plan: &InversePlan, findings: &[Finding]) -> String {
    let distance = plan.study.distance;
    let measured = Quantity::measured(distance);
    let mut html = paragraph(match distance {
        Distance::Hellinger => {
            "Exponents are d log / d log δ: h between neighbouring spreads (largest first), then \
             the least-squares slopes over the window of h, of the error of the masses e^bias \
             (raw) and of the masses e^(bias + κ² variance / 2) (tilted) at the minimum."
        }
        Distance::Regression => {
            "Exponents are d log / d log δ: the distance f of the regression functions between \
             neighbouring spreads (largest first), then the least-squares slopes over the window \
             of f and of the error of the masses e^bias (raw) at the minimum."
        }
    });
    if findings.iter().any(is_zero) {
        html += &paragraph(
            "∞: every minimum in the window is within its bound on rounding, so the infimum is \
             zero there as far as these numbers tell; no slope is taken.",
        );
    }
    for group in by_case(plan, findings) {
        let mut headings = vec!["gate", "local"];
        headings.extend(measured.iter().map(|q| q.heading()));
        headings.push("verdict");
        let headings: Vec<String> = headings.into_iter().map(String::from).collect();
        let rows: Vec<Vec<String>> = group
            .iter()
            .map(|(cell, finding)| {
                let local: Vec<String> = finding.local.iter().map(|e| decimal(*e, 2)).collect();
                let mut row = vec![escape(&cell.gate), local.join(" ")];
                row.extend(measured.iter().map(|q| exponent_text(finding, *q)));
                row.push(escape(&verdict_text(finding)));
                row
            })
            .collect();
        html += &table(&case_text(plan, &group[0].0.case), 2, &headings, &rows);
    }
    html
}

fn is_zero(finding: &Finding) -> bool {
    let distance = finding.exponents.first();
    distance.and_then(|e| e.value) == Some(f64::INFINITY)
}

fn methods(plan: &InversePlan) -> String {
    let (study, bounds) = (&plan.study, &plan.study.bounds);
    let minimised = match study.distance {
        Distance::Hellinger => "E h² by damped Gauss–Newton steps on the residuals √q − √p",
        Distance::Regression => {
            "E (f − f*)², f the sum of the experts' means times their weights, by damped \
             Gauss–Newton steps on the residuals f − f*"
        }
    };
    paragraph(&format!(
        "The split expert is replaced by copies that share its weight and are held 2 δ apart in \
         one coordinate. All other parameters minimise {minimised}, from the truth, from random \
         starts and from the minima of the neighbouring spreads."
    )) + &paragraph(&format!(
        "Random starts: {} per spread. Bounds on deviations from the truth: {} for slopes, \
         intercepts and scales, {} for log-variances, {} for gate parameters, {} for the contrast between \
         the logarithms of the copies' shares.",
        study.starts, bounds.coefficient, bounds.log_variance, bounds.gate, bounds.log_share
    ))
}

fn truths(plan: &InversePlan) -> String {
    let gates = plan.study.gate.iter().zip(&plan.truths);
    gates
        .map(|(gate, truth)| {
            let heading = format!("{}: expert {} is split.", gate.name, gate.expert);
            paragraph(&heading) + &code(&truth.to_toml())
        })
        .collect()
}

fn reproduce(plan: &InversePlan) -> String {
    let study = &plan.study;
    // An absolute path means nothing on another machine.
    let path = if study.path.is_relative() {
        study.path.display().to_string()
    } else {
        format!("{}.toml", study.name)
    };
    code(&format!("cargo run --bin rate_sweep -- inverse {path}"))
}
