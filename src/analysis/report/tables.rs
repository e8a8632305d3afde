//! The tables that terminal and page both show.

use super::cells::{ABSENT, Digits};
use super::contents::{Analysis, Criterion, FittedModel};
use super::estimate_rows::{EstimateRow, estimate_rows};
use super::wording;
use crate::analysis::{Design, Fitted, Optimum};
use crate::plot::number::{counted, decimal, percent, rounded, stated};

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
    let model = analysis.model();
    let rows = estimate_rows(&analysis.design, model);
    let level = model.uncertainty.as_ref().map_or(0.95, |u| u.level);
    let level = format!("{} %", stated((1e6 * level).round() / 1e4));
    let has = |of: fn(&EstimateRow) -> bool| rows.iter().any(of);
    let with_bootstrap = has(|row| row.bootstrap.is_some() || row.bootstrap_reason.is_some());
    let with_expected = has(|row| row.expected.is_some());
    let with_profiles = has(EstimateRow::has_profile);
    let kind = match with_profiles {
        true => format!("{level} profile interval"),
        false => format!("{level} Wald interval"),
    };
    let mut headings = vec!["Quantity", "Estimate", "Std. error", "Sandwich"];
    if with_expected {
        headings.push("Expected");
    }
    if with_bootstrap {
        headings.push("Bootstrap");
    }
    headings.push(&kind);
    let mut table = Table::new("Estimates, in raw units", 1, &headings);
    let (mut marked_wald, mut marked_cut) = (false, false);
    for row in &rows {
        let digits = Digits::of(row.value, row.standard_error.or(row.sandwich));
        let wald = row.wald.filter(|_| row.profile.is_none());
        let is_cut = row.profile.is_some_and(|profile| profile.is_cut);
        let mark = match (with_profiles, wald, is_cut) {
            (true, Some(_), _) => " w",
            (_, _, true) => " b",
            _ => "",
        };
        (marked_wald, marked_cut) = (marked_wald || mark == " w", marked_cut || mark == " b");
        let mut cells = vec![
            row.name.clone(),
            digits.text(row.value),
            digits.optional(row.standard_error),
            digits.optional(row.sandwich),
        ];
        if with_expected {
            cells.push(digits.optional(row.expected));
        }
        if with_bootstrap {
            cells.push(digits.optional(row.bootstrap));
        }
        cells.push(digits.interval(row.profile.map(|p| p.ends).or(wald)) + mark);
        table.rows.push(cells);
    }
    if marked_wald {
        table.notes.push("w: Wald interval.".to_string());
    }
    if marked_cut {
        table
            .notes
            .push("b: an end is where the parameter set ends.".to_string());
    }
    if has(|row| row.name.starts_with("gate[")) && is_relative(analysis) {
        let last = model.experts;
        table
            .notes
            .push(format!("The gate is relative to expert {last}."));
    }
    table
        .notes
        .extend(reasons("standard error", &rows, |row| row.reason.as_ref()));
    let of_profile = |row: &EstimateRow| match row.reason == row.profile_reason {
        true => None,
        false => row.profile_reason.clone(),
    };
    let different: Vec<EstimateRow> = rows
        .iter()
        .map(|row| EstimateRow {
            profile_reason: of_profile(row),
            ..row.clone()
        })
        .collect();
    let profile_reasons = reasons("profile interval", &different, |row| {
        row.profile_reason.as_ref()
    });
    table.notes.extend(profile_reasons);
    table.notes.extend(bootstrap_note(analysis));
    (!table.rows.is_empty()).then_some(table)
}

/// Whether only differences of gate coefficients matter.
fn is_relative(analysis: &Analysis) -> bool {
    let best = analysis.model().best();
    best.is_some_and(|best| best.parameters.gate.kind.is_translation_invariant())
}

/// Why something is missing: the quantities of each reason.
fn reasons(
    what: &str,
    rows: &[EstimateRow],
    of: fn(&EstimateRow) -> Option<&String>,
) -> Vec<String> {
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        let Some(reason) = of(row) else {
            continue;
        };
        match said.iter_mut().find(|(known, _)| known == reason) {
            Some((_, names)) => names.push(&row.name),
            None => said.push((reason, vec![&row.name])),
        }
    }
    said.into_iter()
        .map(|(reason, names)| {
            let names = match names.len() == rows.len() {
                true => "any quantity".to_string(),
                false => names.join(", "),
            };
            format!("No {what} of {names}: {reason}.")
        })
        .collect()
}

/// How the refits of a bootstrap ended.
fn bootstrap_note(analysis: &Analysis) -> Option<String> {
    let uncertainty = analysis.model().uncertainty.as_ref()?;
    let fits = uncertainty.bootstrap.as_ref()?;
    let others: Vec<String> = fits
        .others
        .iter()
        .map(|(reason, count)| format!("{count}: {reason}"))
        .collect();
    let counts = format!(
        "Bootstrap: {} of {} refits ended at a maximum with the same labels",
        fits.maxima, fits.replicates
    );
    Some(match others.is_empty() {
        true => format!("{counts}."),
        false => format!("{counts}; {}.", others.join(", ")),
    })
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
const MOST_OPTIMA: usize = 12;

/// Every optimum of the chosen model.
pub(super) fn optima(analysis: &Analysis) -> Option<Table> {
    let model = analysis.model();
    let Some(best) = model.best() else {
        let mut table = Table::new("Optima", 0, &[]);
        table.notes = failures(model);
        return Some(table);
    };
    // Kinds of start that led anywhere.
    let kinds = Fitted::start_kinds();
    let reached = |k: &usize| {
        let hits = |o: &Optimum| o.hits.get(*k).is_some_and(|hits| *hits > 0);
        model.fitted.optima.iter().any(hits)
    };
    let shown: Vec<usize> = (0..kinds.len()).filter(reached).collect();
    let mut headings = vec!["#", "State", "Log-likelihood", "Gap", "Hits"];
    headings.extend(shown.iter().map(|&k| kinds[k].as_str()));
    let mut table = Table::new("Optima", 2, &headings);
    for (k, optimum) in model.fitted.optima.iter().enumerate().take(MOST_OPTIMA) {
        let mut cells = vec![
            (k + 1).to_string(),
            wording::state(optimum).to_string(),
            wording::log_likelihood(optimum.log_likelihood),
            rounded(best.log_likelihood - optimum.log_likelihood, 4),
            hits(optimum).to_string(),
        ];
        let by_kind = shown.iter().map(|&k| optimum.hits.get(k));
        cells.extend(by_kind.map(|hits| hits.copied().unwrap_or(0).to_string()));
        table.rows.push(cells);
        // Of the others, fit.json names what runs away or is on a bound.
        let remark = match k {
            0 => wording::remark(&analysis.design, optimum),
            _ => wording::spurious_remark(optimum),
        };
        table
            .notes
            .extend(remark.map(|text| format!("{}: {text}.", k + 1)));
    }
    let left_out = model.fitted.optima.len().saturating_sub(MOST_OPTIMA);
    if left_out > 0 {
        table
            .notes
            .push(format!("{left_out} more: see fit.json or --json."));
    }
    let again = match shown.contains(&(kinds.len() - 1)) {
        true => "; rearranged: from the best optima, two experts merged and one split",
        false => "",
    };
    let starts = counted(model.fitted.starts, "start");
    table.notes.push(format!(
        "Gap: log-likelihood below the best. Hits: of {starts}{again}."
    ));
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
    let is_shown = |criterion: &Criterion| analysis.least(*criterion).is_some();
    let shown: Vec<Criterion> = Criterion::ALL.into_iter().filter(is_shown).collect();
    let mut headings = vec!["Experts", "State", "Log-likelihood", "Parameters"];
    headings.extend(shown.iter().map(|criterion| criterion.name()));
    let mut table = Table::new("Number of experts", 2, &headings);
    for (k, model) in analysis.models.iter().enumerate() {
        let best = model.best();
        let own = model.criteria.as_ref();
        let mut cells = vec![
            model.experts.to_string(),
            best.map_or("no optimum", wording::state).to_string(),
            best.map_or(ABSENT.to_string(), |best| {
                wording::log_likelihood(best.log_likelihood)
            }),
            own.map_or(ABSENT.to_string(), |c| c.parameters.to_string()),
        ];
        cells.extend(shown.iter().map(|&criterion| {
            let mark = if analysis.least(criterion) == Some(k) {
                "*"
            } else {
                ""
            };
            let value = analysis.criterion(model, criterion);
            value.map_or(ABSENT.to_string(), |value| {
                format!("{mark}{}", decimal(value, 3))
            })
        }));
        table.rows.push(cells);
    }
    table
        .notes
        .push("*: the least, which is the best, of its column.".to_string());
    if let Some(criterion) = analysis.chosen_by {
        table.notes.push(format!(
            "Reported in full: {}, by {}.",
            wording::experts(analysis.model().experts),
            criterion.name()
        ));
    }
    Some(table)
}

/// Summaries of the residuals and the largest of them.
pub(super) fn residuals(analysis: &Analysis) -> Option<Table> {
    let residuals = analysis.residuals.as_ref()?;
    let mut table = Table::new(
        "Largest quantile residuals",
        1,
        &["Row of the table", "Residual"],
    );
    for (row, value) in residuals.largest.iter().take(5) {
        table
            .rows
            .push(vec![(row + 1).to_string(), decimal(*value, 3)]);
    }
    table.notes.push(format!(
        "All: mean {}, standard deviation {}, skewness {} (0, 1, 0 if the model is right).",
        decimal(residuals.mean, 3),
        decimal(residuals.deviation, 3),
        decimal(residuals.skewness, 3)
    ));
    table.notes.extend(residuals.kolmogorov_smirnov.map(|test| {
        format!(
            "Kolmogorov-Smirnov distance from the normal law {}, p {} (too large, as the \
             parameters are estimated from the same rows).",
            decimal(test.distance, 4),
            rounded(test.p_value, 2)
        )
    }));
    (!table.rows.is_empty()).then_some(table)
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
    if let Some(criteria) = &model.criteria {
        pairs.push(("Parameters", criteria.parameters.to_string()));
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
