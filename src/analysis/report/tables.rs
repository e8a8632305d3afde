//! The tables that terminal and page both show.

use super::cells::{ABSENT, Digits};
use super::contents::{Analysis, Estimated, FittedModel};
use super::wording;
use crate::analysis::{Design, Optimum};
use crate::plot::number::{counted, decimal, percent};

/// A table of text; the cells are typeset as [`crate::plot::number`] does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) caption: String,
    /// Leading columns that hold words.
    pub(super) words: usize,
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// Said below it, one line each.
    pub(super) notes: Vec<String>,
}

impl Table {
    fn new(caption: &str, words: usize, headings: &[&str]) -> Self {
        Table {
            caption: caption.to_string(),
            words,
            headings: headings.iter().map(|h| h.to_string()).collect(),
            ..Table::default()
        }
    }
}

/// Every quantity with its uncertainty; `None` if there is no optimum.
pub(super) fn estimates(analysis: &Analysis) -> Option<Table> {
    let rows = &analysis.model().estimates;
    let (profile, wald) = (
        rows.iter().filter(|row| row.profile.is_some()).count(),
        rows.iter()
            .filter(|row| row.profile.is_none() && row.wald.is_some())
            .count(),
    );
    let kind = match (profile, wald) {
        (_, 0) if profile > 0 => "95 % profile interval",
        (0, _) if wald > 0 => "95 % Wald interval",
        _ => "95 % interval",
    };
    let mixed = profile > 0 && wald > 0;
    let headings = ["Quantity", "Estimate", "Std. error", "Sandwich", kind];
    let mut table = Table::new("Estimates, in raw units", 1, &headings);
    for row in rows {
        let digits = Digits::of(row.estimate, row.standard_error.or(row.sandwich_error));
        let mark = match (mixed, row.profile, row.wald) {
            (true, None, Some(_)) => " w",
            _ => "",
        };
        table.rows.push(vec![
            row.name.clone(),
            digits.text(row.estimate),
            digits.optional(row.standard_error),
            digits.optional(row.sandwich_error),
            digits.interval(row.profile.or(row.wald)) + mark,
        ]);
    }
    if mixed {
        table.notes.push("Profile intervals; w: Wald.".to_string());
    }
    if rows.iter().any(|row| row.name.starts_with("gate[")) && is_relative(analysis) {
        table.notes.push(format!(
            "Gate coefficients are relative to expert {}.",
            analysis.model().experts
        ));
    }
    table.notes.extend(reasons(rows));
    (!table.rows.is_empty()).then_some(table)
}

/// Whether only differences of gate coefficients matter.
fn is_relative(analysis: &Analysis) -> bool {
    let best = analysis.model().best();
    best.is_some_and(|best| best.parameters.gate.kind.is_translation_invariant())
}

/// Why errors are missing: the quantities of each reason.
fn reasons(rows: &[Estimated]) -> Vec<String> {
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        let Some(reason) = &row.reason else {
            continue;
        };
        match said.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(&row.name),
            None => said.push((reason, vec![&row.name])),
        }
    }
    said.into_iter()
        .map(|(reason, names)| match names.len() == rows.len() {
            true => format!("No quantity has a standard error: {reason}."),
            false => format!("{}: {reason}.", names.join(", ")),
        })
        .collect()
}

/// What falls to each expert at the best optimum.
pub(super) fn experts(analysis: &Analysis) -> Option<Table> {
    let best = analysis.model().best()?;
    let n = analysis.rows() as f64;
    let mut table = Table::new("Experts", 1, &["Expert", "Effective rows", "Share"]);
    for (expert, rows) in best.effective_rows.iter().enumerate() {
        table.rows.push(vec![
            format!("expert[{}]", expert + 1),
            decimal(*rows, 1),
            percent(rows / n),
        ]);
    }
    Some(table)
}

/// Most optima in a table.
const MOST_OPTIMA: usize = 20;

/// Every optimum of the chosen model.
pub(super) fn optima(analysis: &Analysis) -> Option<Table> {
    let model = analysis.model();
    let best = model.best()?;
    let kinds = &analysis.start_kinds;
    let mut headings = vec!["#", "State", "Log-likelihood", "Below the best", "Hits"];
    let by_kind = best.hits.len() == kinds.len() && kinds.len() > 1;
    if by_kind {
        headings.extend(kinds.iter().map(String::as_str));
    }
    let mut table = Table::new("Optima", 2, &headings);
    for (k, optimum) in model.fitted.optima.iter().enumerate().take(MOST_OPTIMA) {
        let mut cells = vec![
            (k + 1).to_string(),
            wording::state(optimum).to_string(),
            wording::log_likelihood(optimum.log_likelihood),
            decimal(best.log_likelihood - optimum.log_likelihood, 6),
            hits(optimum).to_string(),
        ];
        if by_kind {
            cells.extend(optimum.hits.iter().map(usize::to_string));
        }
        table.rows.push(cells);
        let remark = wording::remark(&analysis.design, optimum);
        table
            .notes
            .extend(remark.map(|text| format!("{}: {text}.", k + 1)));
    }
    let left_out = model.fitted.optima.len().saturating_sub(MOST_OPTIMA);
    if left_out > 0 {
        table.notes.push(format!(
            "{} more are in fit.json.",
            counted(left_out, "optimum").replace("optimums", "optima")
        ));
    }
    table
        .notes
        .push(format!("Starts: {}.", model.fitted.starts));
    table.notes.extend(failures(model));
    Some(table)
}

/// Starts that ended at an optimum.
pub(super) fn hits(optimum: &Optimum) -> usize {
    optimum.hits.iter().sum()
}

/// Starts without a certified optimum, by reason, with their largest log-likelihood.
pub(super) fn grouped_failures(model: &FittedModel) -> Vec<(&'static str, usize, f64)> {
    let mut groups: Vec<(&'static str, usize, f64)> = Vec::new();
    for (stop, value) in &model.fitted.failures {
        match groups.iter_mut().find(|(name, ..)| *name == stop.name()) {
            Some((_, count, best)) => {
                *count += 1;
                *best = best.max(*value);
            }
            None => groups.push((stop.name(), 1, *value)),
        }
    }
    groups
}

fn failures(model: &FittedModel) -> Vec<String> {
    grouped_failures(model)
        .into_iter()
        .map(|(name, count, best)| {
            let starts = counted(count, "start");
            format!(
                "No certified optimum from {starts}: {name}, log-likelihood up to {}.",
                decimal(best, 3)
            )
        })
        .collect()
}

/// Criteria against the number of experts; `None` for a single number.
pub(super) fn criteria(analysis: &Analysis) -> Option<Table> {
    if analysis.models.len() < 2 {
        return None;
    }
    let with_dendrogram = analysis
        .models
        .iter()
        .any(|model| model.criteria.is_some_and(|c| c.dendrogram.is_some()));
    let mut headings = vec![
        "Experts",
        "State",
        "Log-likelihood",
        "Parameters",
        "AIC",
        "BIC",
        "ICL",
    ];
    if with_dendrogram {
        headings.push("Dendrogram");
    }
    let mut table = Table::new("Number of experts", 2, &headings);
    let least = Least::of(analysis);
    for (k, model) in analysis.models.iter().enumerate() {
        let best = model.best();
        let value = |of: usize| {
            let criteria = model.criteria.as_ref();
            let value = criteria.and_then(|criteria| criteria.all()[of]);
            let mark = if least.0[of] == Some(k) { "*" } else { "" };
            value.map_or(ABSENT.to_string(), |value| {
                format!("{}{mark}", decimal(value, 3))
            })
        };
        let mut cells = vec![
            model.experts.to_string(),
            best.map_or("no optimum", wording::state).to_string(),
            best.map_or(ABSENT.to_string(), |best| {
                wording::log_likelihood(best.log_likelihood)
            }),
            model
                .criteria
                .map_or(ABSENT.to_string(), |c| c.degrees_of_freedom.to_string()),
            value(0),
            value(1),
            value(2),
        ];
        if with_dendrogram {
            cells.push(value(3));
        }
        table.rows.push(cells);
    }
    table.notes.push("*: the least of its column.".to_string());
    if let Some(criterion) = analysis.chosen_by {
        table.notes.push(format!(
            "Reported in full: {}, by {}.",
            wording::experts(analysis.model().experts),
            criterion.name()
        ));
    }
    Some(table)
}

/// The model with the least of each criterion.
pub(super) struct Least(pub(super) [Option<usize>; 4]);

impl Least {
    pub(super) fn of(analysis: &Analysis) -> Least {
        Least(std::array::from_fn(|of| {
            let values = analysis.models.iter().enumerate();
            values
                .filter_map(|(k, model)| Some((k, model.criteria?.all()[of]?)))
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(k, _)| k)
        }))
    }
}

/// What a reader wants to know first, as terms and descriptions.
pub(super) fn at_a_glance(analysis: &Analysis) -> Vec<(String, String)> {
    let model = analysis.model();
    let design: &Design = &analysis.design;
    let mut pairs = vec![
        (
            "Data",
            format!("{}, {}", analysis.source, counted(analysis.rows(), "row")),
        ),
        ("Means", wording::formula(design)),
        ("Gate", wording::gate_of(analysis, model)),
        ("Experts", model.experts.to_string()),
    ];
    if let Some(best) = model.best() {
        pairs.push((
            "Log-likelihood",
            wording::log_likelihood(best.log_likelihood),
        ));
    }
    if let Some(criteria) = model.criteria {
        pairs.push(("Parameters", criteria.degrees_of_freedom.to_string()));
        let text = [
            ("AIC", criteria.aic),
            ("BIC", criteria.bic),
            ("ICL", criteria.icl),
        ]
        .map(|(name, value)| format!("{name} {}", decimal(value, 3)))
        .join(", ");
        pairs.push(("Criteria", text));
    }
    let starts = counted(model.fitted.starts, "start");
    pairs.push((
        "Search",
        format!("{starts}, seed {}", analysis.specification.seed),
    ));
    pairs.push(("Time", format!("{} s", decimal(analysis.seconds, 2))));
    pairs.push(("Command", analysis.command.join(" ")));
    pairs.push(("Version", format!("smoe-lab {}", env!("CARGO_PKG_VERSION"))));
    let own = |(term, text): (&str, String)| (term.to_string(), text);
    pairs.into_iter().map(own).collect()
}
