//! How the study was done: the D, E, M and P of ADEMP, and what limits it.

use super::estimator::estimators;
use crate::plot::html::{code, definitions, details, list, paragraph, paragraphs};
use crate::report::format::{stated, stated_interval, thousands};
use crate::report::starts::{describe, is_oracle};
use crate::report::wording::{
    claim_text, constant_definition, log_corrected_slopes, loss_definition, loss_name,
    series_label, statistic_symbol, window_text,
};
use crate::sim::Plan;
use crate::sim::claim::{Claim, Constant};
use crate::sim::statistic::Statistic;
use crate::sim::study::{Admission, Centre, Replicates, Truth};
use crate::sim::summary::Summary;

/// Longest line of a truth that is shown whole: a grid of inputs is one line.
const LONGEST_LINE: usize = 240;

/// The truths and the sizes.
pub(super) fn data(plan: &Plan) -> String {
    let sizes: Vec<String> = plan
        .study
        .grid
        .n
        .values()
        .into_iter()
        .map(thousands)
        .collect();
    let mut html = paragraph(
        "Inputs X are independent draws from the input law. Given X = x, Y has the Gaussian \
         mixture density Σᵢ wᵢ(x) N(y; mᵢ(x), vᵢ) with the experts' means m and variances v \
         and the gate's weights w given below.",
    );
    html += &from_data(plan);
    html += &paragraph(&format!(
        "Sample sizes: {}. {}",
        sizes.join(", "),
        replicates(&plan.study.replicates)
    ));
    let mut seen = Vec::new();
    for cell in &plan.cells {
        let name = &plan.truths[cell.truth].name;
        let known = |k: &usize| plan.truths[*k].name == *name;
        if !seen.iter().any(known) {
            seen.push(cell.truth);
        }
    }
    for (k, &truth) in seen.iter().enumerate() {
        let planned = &plan.truths[truth];
        let name = match planned.name.as_str() {
            "" => "Truth".to_string(),
            name => format!("Truth, {}", name.replace('=', " ").replace(',', ", ")),
        };
        let heading = format!(
            "{name}: P = {} free parameters",
            planned.regularity.parameters
        );
        let heading = match planned.is_exact() {
            true => heading,
            false => format!(
                "{heading}; fitted: {} experts, {}",
                planned.template.experts.len(),
                planned.bounds.dimension()
            ),
        };
        let text = code(&shortened(&planned.model.to_toml()));
        html += &match k {
            0 => paragraph(&heading) + &text,
            _ => details(&heading, &text),
        };
    }
    html
}

/// Where a truth that was fitted to data comes from.
fn from_data(plan: &Plan) -> String {
    let Truth::Data(truth) = &plan.study.truth else {
        return String::new();
    };
    let mut pairs = vec![
        ("File".to_string(), truth.data.display().to_string()),
        ("Response".to_string(), truth.response.clone()),
        (
            "Columns of the experts".to_string(),
            truth.expert.join(", "),
        ),
        ("Columns of the gate".to_string(), truth.gate.join(", ")),
        ("Experts".to_string(), truth.experts.to_string()),
    ];
    if let Some(fitted) = &plan.fitted {
        pairs.push(("Rows".to_string(), thousands(fitted.rows as u64)));
        pairs.push((
            "Log-likelihood of the fit".to_string(),
            format!("{:.4}", fitted.outcome.log_likelihood).replace('-', "−"),
        ));
        pairs.push((
            "Starts that reached it".to_string(),
            format!("{} of {}", fitted.hits, fitted.starts),
        ));
    }
    paragraph("The truth is a maximum likelihood fit to data:") + &definitions(&pairs)
}

fn replicates(replicates: &Replicates) -> String {
    match replicates {
        Replicates::Fixed(count) => format!("{} replicates per cell.", thousands(*count)),
        Replicates::Precision(p) => format!(
            "Replicates per cell: as many as give the first slope claim a standard error of {}, \
             judged by the first {}; at most {}.",
            stated(p.target_slope_se),
            thousands(p.pilot),
            thousands(p.at_most)
        ),
    }
}

/// Long lines cut: thousands of grid points tell a reader nothing.
fn shortened(text: &str) -> String {
    let line = |line: &str| {
        let length = line.chars().count();
        if length <= LONGEST_LINE {
            return format!("{line}\n");
        }
        let head: String = line.chars().take(LONGEST_LINE).collect();
        format!("{head} … ({length} characters)\n")
    };
    text.lines().map(line).collect()
}

/// What is estimated.
pub(super) fn estimands(plan: &Plan) -> String {
    let mut pairs: Vec<(String, String)> = plan
        .study
        .losses
        .iter()
        .map(|&loss| (loss_name(loss), loss_definition(loss).to_string()))
        .collect();
    for claim in &plan.study.claim {
        let text = match claim {
            Claim::Slope {
                loss,
                statistic,
                window,
                ..
            } => format!(
                "β in log s = α + β log n for {}, s the {}",
                window_text(*window),
                match statistic {
                    Statistic::Mean => format!("mean of {}", loss.symbol()),
                    other => statistic_symbol(*other, *loss),
                }
            ),
            Claim::Level { .. } => "what remains where the loss does not fall".to_string(),
            Claim::ChiSquare { constant, .. } => constant_definition(*constant).to_string(),
            Claim::Intervals { .. } => {
                "share of free coordinates whose interval, estimate ± 1.96 standard errors from \
                 the inverse observed information, holds the true value"
                    .to_string()
            }
            Claim::Efficiency { .. } => {
                "ratio of the mean squared errors on the same data, scaled by the bounds of the \
                 estimator in the denominator and averaged over the experts’ coordinates; \
                 expected: the ratio of the bounds"
                    .to_string()
            }
            Claim::Constant { constant, .. } => constant_definition(*constant).to_string(),
            Claim::Coverage { .. } => {
                "how often the interval of one study of that size holds the true slope".to_string()
            }
            Claim::Passes { .. } => {
                "rows visited over the number of stored rows, per fit; uncertified fits count as \
                 endless"
                    .to_string()
            }
            Claim::SampleSize { window, .. } => {
                format!(
                    "where the fitted line over {} reaches it",
                    window_text(*window)
                )
            }
        };
        pairs.push((claim_text(plan, claim), text));
    }
    definitions(&pairs)
}

/// The estimator.
pub(super) fn methods(plan: &Plan) -> String {
    let study = &plan.study;
    let mut html = estimators(plan);
    html += &list(&starts(plan));
    let limits = &study.fit.limits;
    let (reach, variances) = match limits.centre {
        Centre::Origin => ("in absolute value", "in"),
        Centre::Truth => ("from the truth’s", "the truth’s times a factor in"),
    };
    let at_most = |size: f64| format!("at most {} {reach}", stated(size));
    html += &definitions(
        &[
            (
                "Slopes, intercepts, output weights",
                at_most(limits.coefficient),
            ),
            ("Biases, router intercepts", at_most(limits.bias)),
            ("Router slopes", at_most(limits.gate_slope)),
            (
                "Variances",
                format!("{variances} {}", stated_interval(limits.variance)),
            ),
            (
                "Seed",
                format!(
                    "{}; every random stream is a function of the seed, the cell's name, the \
                 replicate and the purpose, so that neither threads nor other cells change it",
                    study.seed
                ),
            ),
        ]
        .map(|(term, text)| (term.to_string(), text)),
    );
    match toml::to_string(study) {
        Ok(text) => html + &details("The study file, as it was read", &code(&text)),
        Err(_) => html,
    }
}

/// The starts in words, by the level of the start factor where there is one.
fn starts(plan: &Plan) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for cell in &plan.cells {
        let level = cell
            .series
            .split(',')
            .find_map(|part| part.strip_prefix("start="));
        let mut names: Vec<(String, usize)> = Vec::new();
        for start in &cell.starts {
            let name = start.name();
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => names.push((name, 1)),
            }
        }
        for (name, count) in names {
            let prefix = level.map_or(String::new(), |level| format!("{level}: "));
            let times = if count > 1 {
                format!(" × {count}")
            } else {
                String::new()
            };
            let item = format!("{prefix}start {name}{times}: {}", describe(&name));
            if !items.contains(&item) {
                items.push(item);
            }
        }
    }
    items
}

/// How performance is measured, with Monte-Carlo standard errors.
pub(super) fn measures(plan: &Plan) -> String {
    let has = |wanted: fn(&Claim) -> bool| plan.study.claim.iter().any(wanted);
    let by_rule = plan.truths.iter().any(|t| t.fit.ends_by_its_own_rule());
    let mut pairs = vec![
        (
            "Mean loss",
            match plan.study.admit {
                Admission::Certified => {
                    "m = average over the R certified fits of a cell; standard error s/√R with s \
                     their standard deviation; Student's 95 % interval"
                }
                Admission::AboveTruth => {
                    "m = average over the R fits of a cell that are certified or have at least \
                     the truth's likelihood; standard error s/√R with s their standard \
                     deviation; Student's 95 % interval"
                }
                Admission::Any => {
                    "m = average over the R fits of a cell with a finite likelihood, certified or \
                     not; standard error s/√R with s their standard deviation; Student's 95 % \
                     interval"
                }
            },
        ),
        (
            "Failure rate",
            match by_rule {
                false => "share of fits without a certified maximum, with Wilson's 95 % interval",
                true => {
                    "share of fits without a certified maximum, or, where nothing follows the \
                     method, that its own rule did not stop, with Wilson's 95 % interval"
                }
            },
        ),
    ];
    if has(|c| matches!(c, Claim::Slope { .. } | Claim::Coverage { .. })) {
        pairs.push((
            "Slope",
            "weighted least squares of log m on log n, weights 1/SE² with SE = s/(m√R); 95 % \
             interval by the bootstrap over replicates within each n, studentised by the \
             regression's own standard error",
        ));
    }
    let statistic = |claim: &Claim| match claim {
        Claim::Slope { statistic, .. } => *statistic,
        _ => Statistic::Mean,
    };
    let mut statistics = plan.study.claim.iter().map(statistic);
    if statistics.any(|s| matches!(s, Statistic::Quantile(_))) {
        pairs.push((
            "Quantile",
            "interpolated order statistic q(p) in the place of m; SE of its logarithm is half of \
             log q(p + e) − log q(p − e) with e = √(p(1 − p)/R), one standard error of a rank",
        ));
    }
    let mut statistics = plan.study.claim.iter().map(statistic);
    if statistics.any(|s| matches!(s, Statistic::Moment(_))) {
        pairs.push((
            "Moment",
            "(average of the r-th powers)^(1/r) in the place of m; SE of its logarithm is s/(a r \
             √R), a and s the average and the standard deviation of the powers",
        ));
    }
    if has(|c| matches!(c, Claim::Level { .. })) {
        pairs.push((
            "Level",
            "mean loss at the largest n; holds if its 95 % interval lies in the accepted range",
        ));
    }
    if has(|c| matches!(c, Claim::ChiSquare { .. })) {
        pairs.push((
            "Limit law",
            "the mean of R ratios has mean 1 and variance 2/(P R) in the limit; holds if at every \
             n it lies within the normal interval of the stated probability, else fails; the n \
             with the largest deviation is shown",
        ));
    }
    if has(|c| matches!(c, Claim::Intervals { .. })) {
        pairs.push((
            "Coverage of intervals",
            "per fit the share of free coordinates covered, an interval without a finite standard \
             error covering nothing; the mean over fits and n with Student's 95 % interval, the \
             coordinates of one fit being dependent",
        ));
    }
    if has(|c| matches!(c, Claim::Efficiency { .. })) {
        pairs.push((
            "Efficiency",
            "ratio of the mean scaled squared errors over the replicates in which both fits \
             count; 95 % interval of its logarithm by the delta method on pairs",
        ));
    }
    if has(|c| matches!(c, Claim::SampleSize { .. })) {
        pairs.push((
            "Sample size",
            "where the same line reaches the accuracy; percentile bootstrap",
        ));
    }
    if has(|c| matches!(c, Claim::Constant { .. })) {
        pairs.push((
            "Constants",
            "mean over the same fits of the statistic divided by P; its limit is 1",
        ));
    }
    if has(|c| matches!(c, Claim::Coverage { .. })) {
        pairs.push((
            "Coverage",
            "disjoint groups of replicates, one interval each; judged by the binomial law of \
             95 % coverage: holds if p ≥ 0.05, fails if p < 0.001",
        ));
    }
    if has(|c| matches!(c, Claim::Passes { .. })) {
        pairs.push((
            "Passes",
            "over all fits from one start each; holds if Wilson's intervals of the shares of fits \
             within the two limits lie above 1/2 and 99/100, fails if one lies below",
        ));
    }
    let pairs: Vec<(String, String)> = pairs
        .into_iter()
        .map(|(term, text)| (term.to_string(), text.to_string()))
        .collect();
    definitions(&pairs)
}

/// What the results do not show.
pub(super) fn limits(plan: &Plan, summary: &Summary) -> String {
    let mut items = Vec::new();
    if let Some(gap) = log_corrected_slopes(summary) {
        items.push(format!(
            "A slope over a finite window proves no limit. On these windows (log n / n)^(1/2) \
             has a local slope of {gap}; two slopes can be told apart here only if they \
             differ by more than the intervals are wide."
        ));
    }
    let is_constant = |c: &Claim| matches!(c, Claim::Constant { .. } | Claim::ChiSquare { .. });
    let constants = plan.study.claim.iter().any(is_constant);
    if constants {
        let names: Vec<&str> = Constant::ALL.iter().map(|c| c.symbol()).collect();
        items.push(format!(
            "{} tend to 1 only for an exactly specified regular mixture; at finite n they \
             differ from 1 by a bias of order 1/n that no number of replicates removes.",
            names.join(", ")
        ));
    }
    items.push(
        "The study looks at the truths given above, not at the supremum over all mixtures that \
         a minimax statement is about."
            .to_string(),
    );
    if plan.study.claim.len() * summary.series.len() > 1 {
        items.push(
            "Each 95 % interval is for one claim and one series; nothing is corrected for their \
             number."
                .to_string(),
        );
    }
    items.push(start_limit(plan));
    let admitted = match plan.study.admit {
        Admission::Certified => {
            "Means are over certified fits. If failures depend on the data, they are means of a \
             selected set; hence the failure counts beside them."
        }
        Admission::AboveTruth => {
            "Means are over fits that are certified or have at least the truth's likelihood, which \
             is all that the proof of a density rate asks of an estimator. An uncertified one \
             need not be the maximum: nothing that is special to the maximum follows from it. If \
             falling short depends on the data, they are means of a selected set."
        }
        Admission::Any => {
            "Means are over all fits with a finite likelihood, certified or not: they speak of \
             the algorithm as it was run, not of the maximum of the likelihood."
        }
    };
    items.push(admitted.to_string());
    paragraphs(&plan.study.limits) + &list(&items)
}

fn start_limit(plan: &Plan) -> String {
    let oracle: Vec<String> = plan
        .series()
        .into_iter()
        .filter(|series| {
            let cell = plan.cells.iter().find(|c| c.series == **series);
            cell.is_some_and(|c| c.starts.iter().any(|s| is_oracle(&s.name())))
        })
        .map(series_label)
        .collect();
    if oracle.is_empty() {
        return "No start looks at the truth: the results are those of the algorithm as a user \
                would run it."
            .to_string();
    }
    let which = match oracle.len() == plan.series().len() {
        true => "Every series has".to_string(),
        false => format!("These series have: {};", oracle.join("; ")),
    };
    format!(
        "{which} a start near the truth. It makes the estimate the maximum likelihood estimator \
         of the theorems, but says nothing about finding it without that knowledge; the table \
         of starting points does."
    )
}
