//! What was found.

use crate::plot::Chart;
use crate::plot::html::{annotated, code, escape, panels, paragraph, table, typeset};
use crate::report::format::{interval, percent, rounded, thousands, with_error};
use crate::report::starts::{SAME_MAXIMUM, StartRecord, start_records};
use crate::report::wording::{
    accepted, claim_text, claim_theorem, claims, failed, failures, incompleteness,
    log_corrected_slopes, measured, seconds, series_label, statistic_symbol, stop_counts,
};
use crate::sim::claim::Constant;
use crate::sim::column::Loss;
use crate::sim::statistic::Statistic;
use crate::sim::study::Admission;
use crate::sim::summary::{CellSummary, ClaimResult, CoordinateSummary, SeriesSummary, Summary};
use crate::sim::{Plan, Row, Verdict};

/// Failed replicates named on the page.
const NAMED_FAILURES: usize = 20;

/// The claims with their verdicts.
pub(super) fn verdicts(plan: &Plan, summary: &Summary) -> String {
    let mut html = String::new();
    if let Some(sentence) = incompleteness(plan, summary) {
        html += &format!("<p class=\"warning\">{}</p>\n", escape(&sentence));
    }
    if plan.study.claim.is_empty() {
        return html + &paragraph("This study claims nothing; it measures.");
    }
    html += "<div class=\"scroll\"><table class=\"claims\">\n<thead><tr><th>Series</th>\
             <th>Measured [95 %]</th><th>Accepted</th><th>Verdict</th></tr></thead>\n";
    for (claim, results) in claims(plan, summary) {
        html += &format!(
            "<tbody>\n<tr><th colspan=\"4\" scope=\"rowgroup\">{}{}</th></tr>\n",
            typeset(&claim_text(plan, claim)),
            match claim_theorem(claim) {
                "" => String::new(),
                theorem => format!(" <span class=\"theorem\">{}</span>", typeset(theorem)),
            }
        );
        html += &results.iter().map(verdict_row).collect::<String>();
        html += "</tbody>\n";
    }
    html += "</table></div>\n";
    html + &paragraph(
        "A claim holds if the whole 95 % interval lies in the accepted range, fails if it lies \
         outside, and is undecided if it straddles an end: then more replicates are needed. \
         Window and range stood in the study file before the recorded run; a range that was set \
         after an earlier look says so under Limits.",
    )
}

fn verdict_row(result: &ClaimResult) -> String {
    let (value, ends) = measured(&result.finding);
    format!(
        "<tr><td>{}</td><td><span>{}</span> <span>{}</span></td><td>{}</td>\
         <td><span class=\"verdict {}\">{}</span></td></tr>\n",
        escape(&series_label(&result.series)),
        escape(&value),
        escape(&ends),
        escape(&accepted(result)),
        verdict_class(result.verdict),
        result.verdict.name()
    )
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Fails => "fails",
        Verdict::Undecided => "undecided",
        Verdict::Measured => "measured",
        Verdict::Missing => "missing",
    }
}

/// Figures and table of the mean losses.
pub(super) fn rates(plan: &Plan, summary: &Summary, charts: &[Chart]) -> String {
    let losses = &plan.study.losses;
    if losses.is_empty() {
        return String::new();
    }
    let mut html = figures(
        charts,
        "Points: means over the fits that count, with 95 % intervals. Solid: the regression of the \
         claim over its window. Broken: the theorem’s curve, scaled to meet it at the \
         geometric middle of the window.",
    );
    let mut headings = vec!["n".to_string(), "replicates".into(), "failures".into()];
    let columns = columns(summary, losses);
    headings.extend(columns.iter().map(|(loss, s)| statistic_symbol(*s, *loss)));
    html += &series_tables(
        summary,
        "mean (Monte-Carlo standard error)",
        &headings,
        |cell| {
            let mut cells = vec![
                thousands(cell.n),
                thousands(cell.rows as u64),
                thousands(cell.failures as u64),
            ];
            cells.extend(columns.iter().map(|(loss, s)| loss_cell(cell, *loss, *s)));
            cells
        },
    );
    html + &log_corrected(summary)
}

/// The losses, each with the statistics besides its mean that claims name.
fn columns(summary: &Summary, losses: &[Loss]) -> Vec<(Loss, Statistic)> {
    let mut columns = Vec::new();
    for &loss in losses {
        columns.push((loss, Statistic::Mean));
        let cells = summary.series.iter().flat_map(|s| &s.cells);
        for found in cells.flat_map(|c| &c.losses).filter(|l| l.loss == loss) {
            for (statistic, _) in &found.statistics {
                if !columns.contains(&(loss, *statistic)) {
                    columns.push((loss, *statistic));
                }
            }
        }
    }
    columns
}

fn loss_cell(cell: &CellSummary, loss: Loss, statistic: Statistic) -> String {
    let found = cell.losses.iter().find(|l| l.loss == loss);
    let Some((found, estimate)) = found.and_then(|l| Some((l, l.of(statistic)?))) else {
        return "–".to_string();
    };
    let (value, error) = with_error(estimate.value, estimate.error);
    if !statistic.is_mean() {
        return annotated(&value, &format!("({error})"), "");
    }
    annotated(
        &value,
        &format!("({error})"),
        &format!("median {}", rounded(found.median, 3)),
    )
}

/// What a logarithmic factor would look like on the same windows.
fn log_corrected(summary: &Summary) -> String {
    log_corrected_slopes(summary).map_or(String::new(), |slopes| {
        paragraph(&format!(
            "For comparison: the same regression finds a slope of {slopes} for the curve \
             (log n / n)^(1/2), the bound that proofs of such rates usually give."
        ))
    })
}

/// Figures and table of the limit constants.
pub(super) fn constants(summary: &Summary, charts: &[Chart]) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let mut html = figures(
        charts,
        "Ratios to the limits of regular maximum likelihood theory, with 95 % intervals; \
         points of equal n are spread a little.",
    );
    let shown: Vec<Constant> = Constant::ALL
        .into_iter()
        .filter(|wanted| {
            let cells = summary.series.iter().flat_map(|s| &s.cells);
            cells.flat_map(|c| &c.constants).any(|(c, _)| c == wanted)
        })
        .collect();
    let mut headings = vec!["n".to_string()];
    headings.extend(shown.iter().map(|c| c.symbol().to_string()));
    html += &series_tables(
        summary,
        "ratio (Monte-Carlo standard error), 95 % interval",
        &headings,
        |cell| {
            let mut cells = vec![thousands(cell.n)];
            cells.extend(shown.iter().map(|&wanted| constant_cell(cell, wanted)));
            cells
        },
    );
    html
}

fn constant_cell(cell: &CellSummary, wanted: Constant) -> String {
    let Some((_, found)) = cell.constants.iter().find(|(c, _)| *c == wanted) else {
        return "–".to_string();
    };
    let (value, error) = with_error(found.value, found.error);
    annotated(&value, &format!("({error})"), &interval(found.interval, 3))
}

/// Bias, error against its bound and coverage of every coordinate.
pub(super) fn coordinates(summary: &Summary) -> String {
    let tables: String = summary.series.iter().filter_map(coordinate_table).collect();
    if tables.is_empty() {
        return String::new();
    }
    paragraph(
        "Errors of single parameters in packed coordinates (variances as logarithms, gate \
         parameters relative to the last expert’s). First line: n times the mean squared error \
         over its Cramér–Rao bound, with Monte-Carlo standard error; second: share of 95 % \
         intervals from the observed information that hold the truth, where rows have them.",
    ) + &tables
}

fn coordinate_table(series: &SeriesSummary) -> Option<String> {
    let last = series.cells.last()?;
    if last.coordinates.is_empty() {
        return None;
    }
    let mut headings = vec!["coordinate".to_string()];
    let with_any = || series.cells.iter().filter(|c| !c.coordinates.is_empty());
    headings.extend(with_any().map(|c| format!("n = {}", thousands(c.n))));
    headings.push(format!("bias at n = {}", thousands(last.n)));
    let rows: Vec<Vec<String>> = (0..last.coordinates.len())
        .map(|k| {
            let mut cells = vec![last.coordinates[k].coordinate.to_string()];
            cells.extend(with_any().map(|c| coordinate_cell(&c.coordinates[k])));
            let bias = last.coordinates[k].bias;
            let (value, error) = with_error(bias.value, bias.error);
            cells.push(annotated(&value, &format!("({error})"), ""));
            cells
        })
        .collect();
    let caption = match series.name.as_str() {
        "" => String::new(),
        name => series_label(name),
    };
    Some(table(&caption, 1, &headings, &rows))
}

fn coordinate_cell(found: &CoordinateSummary) -> String {
    let (value, error) = match found.scaled_mse.value.is_finite() {
        true => with_error(found.scaled_mse.value, found.scaled_mse.error),
        false => ("–".to_string(), String::new()),
    };
    let coverage = match found.intervals {
        0 => String::new(),
        count => format!("covers {}", percent(found.covered as f64 / count as f64)),
    };
    annotated(&value, &format!("({error})"), &coverage)
}

/// One table per series, captioned with its name.
fn series_tables(
    summary: &Summary,
    content: &str,
    headings: &[String],
    cells: impl Fn(&CellSummary) -> Vec<String>,
) -> String {
    summary
        .series
        .iter()
        .map(|series| {
            let caption = match series.name.as_str() {
                "" => format!("P = {}: {content}", series.parameters),
                name => format!("{name}, P = {}: {content}", series.parameters),
            };
            let rows: Vec<Vec<String>> = series.cells.iter().map(&cells).collect();
            table(&caption, 0, headings, &rows)
        })
        .collect()
}

fn figures(charts: &[Chart], caption: &str) -> String {
    panels(charts, (520, 500), caption)
}

/// Failures, local optima and boundary hits, also if there were none.
pub(super) fn failed_fits(plan: &Plan, rows: &[Row], summary: &Summary) -> String {
    let mut html = paragraph(&format!(
        "Fits {}: {}. They stay in the rows with their stop reason{}, and are never drawn again.",
        failed(plan),
        failures(summary),
        match plan.study.admit {
            Admission::Certified => ", enter no mean",
            Admission::AboveTruth => ", enter means if they are at least as likely as the truth",
            Admission::Any => ", enter means if their likelihood is finite",
        }
    ));
    let stops: Vec<String> = stop_counts(summary)
        .into_iter()
        .map(|(stop, _)| stop)
        .collect();
    let mut headings: Vec<String> = ["series", "n", "replicates"].map(String::from).to_vec();
    headings.extend(stops.iter().cloned());
    headings.extend(
        [
            "failure rate",
            "on boundary",
            "below truth",
            "time",
            "passes",
        ]
        .map(String::from),
    );
    let mut lines = Vec::new();
    for series in &summary.series {
        for cell in &series.cells {
            let mut line = vec![
                escape(&series_label(&series.name)),
                thousands(cell.n),
                thousands(cell.rows as u64),
            ];
            let count = |stop: &String| cell.stops.get(stop).copied().unwrap_or(0).to_string();
            line.extend(stops.iter().map(count));
            line.push(percent(cell.failures as f64 / cell.rows as f64));
            line.push(cell.on_bound.to_string());
            line.push(cell.below_truth.to_string());
            line.push(seconds(cell.seconds));
            line.push(rounded(cell.passes, 3));
            lines.push(line);
        }
    }
    html += &table("", 1, &headings, &lines);
    html += &paragraph(
        "On boundary: certified fits with a coordinate on the boundary of the parameter set. \
         Below truth: certified fits with a smaller likelihood than the truth, hence local \
         optima. Time and passes over the sample: means per replicate, all starts together.",
    );
    html + &named_failures(plan, rows)
}

fn named_failures(plan: &Plan, rows: &[Row]) -> String {
    let failed: Vec<&Row> = rows.iter().filter(|r| !r.converged).collect();
    if failed.is_empty() {
        return String::new();
    }
    let name = |row: &&Row| {
        let reason = if row.detail.is_empty() {
            &row.stop
        } else {
            &row.detail
        };
        format!("{}/{}  {reason}\n", row.cell, row.replicate)
    };
    let named: String = failed.iter().take(NAMED_FAILURES).map(name).collect();
    let rest = failed.len().saturating_sub(NAMED_FAILURES);
    let more = match rest {
        0 => String::new(),
        _ => format!("and {rest} more, in the rows of study {}\n", plan.hash),
    };
    paragraph("The replicates, by the names that replay them:") + &code(&(named + &more))
}

/// How often each start found the best likelihood, series by series.
pub(super) fn starting_points(plan: &Plan, rows: &[Row]) -> String {
    let mut lines = Vec::new();
    for series in plan.series() {
        let cells: Vec<&str> = plan
            .cells
            .iter()
            .filter(|c| c.series == series)
            .map(|c| c.name.as_str())
            .collect();
        let records = start_records(rows.iter().filter(|r| cells.contains(&r.cell.as_str())));
        lines.extend(records.iter().map(|record| start_line(series, record)));
    }
    if lines.is_empty() {
        return String::new();
    }
    let headings = ["series", "start", "fits", "reached the best", "certified"].map(String::from);
    table("", 2, &headings, &lines)
        + &paragraph(&format!(
            "The estimate of a replicate is the outcome with the largest likelihood. Reached \
             the best: outcomes within {SAME_MAXIMUM} of that log-likelihood."
        ))
}

fn start_line(series: &str, record: &StartRecord) -> Vec<String> {
    let share = |count: usize| percent(count as f64 / record.fits as f64);
    vec![
        escape(&series_label(series)),
        escape(&record.name),
        thousands(record.fits as u64),
        share(record.best),
        share(record.certified),
    ]
}
