//! The report as plain text, for the terminal.

use super::format::{counted, decimal, interval, thousands, with_error};
use super::wording::{
    accepted, claim_text, claim_theorem, claims, failures, incompleteness, measured, series_label,
    verdict_counts,
};
use crate::sim::Plan;
use crate::sim::claim::{Claim, Constant};
use crate::sim::column::Loss;
use crate::sim::summary::{ClaimResult, SeriesSummary, Summary};

/// Characters per line.
const WIDTH: usize = 100;

/// Verdicts, one table per series, failures: what a run prints at its end.
///
/// At most 100 characters per line.
pub fn text_table(plan: &Plan, summary: &Summary) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &plan.study.title);
    paragraph(&mut text, "", &plan.study.reference);
    text.push('\n');
    if !plan.study.claim.is_empty() {
        claims_text(&mut text, plan, summary);
    }
    for series in &summary.series {
        series_text(&mut text, plan, series);
    }
    if let Some(sentence) = incompleteness(plan, summary) {
        paragraph(&mut text, "", &sentence);
    }
    let line = format!("Failures: {}", failures(summary));
    paragraph(&mut text, "", &line);
    let cells = || summary.series.iter().flat_map(|s| &s.cells);
    let below: usize = cells().map(|c| c.below_truth).sum();
    let on_bound: usize = cells().map(|c| c.on_bound).sum();
    let line = format!(
        "Local optima: {} below the truth's likelihood. Boundary of the parameter set: {}.",
        counted(below, "certified fit"),
        counted(on_bound, "certified fit"),
    );
    paragraph(&mut text, "", &line);
    // A terminal's numbers are copied into other programs.
    text.replace('−', "-").replace('\u{202f}', " ")
}

/// The verdicts alone: what `check` prints for a recorded study.
pub fn claims_table(plan: &Plan, summary: &Summary) -> String {
    let mut text = String::new();
    let heading = format!("{}: {}", plan.study.name, plan.study.title);
    paragraph(&mut text, "", &heading);
    claims_text(&mut text, plan, summary);
    text.replace('−', "-").replace('\u{202f}', " ")
}

fn claims_text(text: &mut String, plan: &Plan, summary: &Summary) {
    paragraph(text, "", &format!("Claims: {}", verdict_counts(summary)));
    let widths = widths(&summary.claims);
    for (claim, results) in claims(plan, summary) {
        let heading = match claim_theorem(claim) {
            "" => claim_text(plan, claim),
            theorem => format!("{} ({theorem})", claim_text(plan, claim)),
        };
        paragraph(text, "  ", &heading);
        for result in results {
            text.push_str(&result_line(claim, result, &widths));
        }
    }
    text.push('\n');
}

/// Columns of the lines below each claim: series, value, interval, range.
fn widths(results: &[ClaimResult]) -> [usize; 4] {
    results.iter().fold([0; 4], |widths, result| {
        let (value, ends) = measured(&result.finding);
        let texts = [series_label(&result.series), value, ends, accepted(result)];
        std::array::from_fn(|k| widths[k].max(texts[k].chars().count()))
    })
}

fn result_line(claim: &Claim, result: &ClaimResult, widths: &[usize; 4]) -> String {
    let (value, ends) = measured(&result.finding);
    let range = match claim {
        Claim::SampleSize { .. } => String::new(),
        _ => format!("accepted {}", accepted(result)),
    };
    let line = format!(
        "    {:<a$}  {value:>b$} {ends:<c$}  {range:<d$}  {}",
        series_label(&result.series),
        result.verdict.name(),
        a = widths[0],
        b = widths[1],
        c = widths[2],
        d = widths[3] + "accepted ".len(),
    );
    if line.chars().count() <= WIDTH {
        return line + "\n";
    }
    format!(
        "    {}\n      {value} {ends}  {range}  {}\n",
        series_label(&result.series),
        result.verdict.name()
    )
}

fn series_text(text: &mut String, plan: &Plan, series: &SeriesSummary) {
    let name = match series.name.as_str() {
        "" => String::new(),
        name => format!("{name}: "),
    };
    let line = format!("{name}{} free parameters", series.parameters);
    paragraph(text, "", &line);
    let losses: Vec<Column> = plan
        .study
        .losses
        .iter()
        .map(|&loss| loss_column(series, loss))
        .collect();
    let constants: Vec<Column> = Constant::ALL
        .into_iter()
        .map(|constant| constant_column(series, constant))
        .filter(|column| column.cells.iter().any(|cell| cell != "–"))
        .collect();
    let mut columns = vec![
        Column::of(series, "replicates", |c| c.rows.to_string()),
        Column::of(series, "failures", |c| c.failures.to_string()),
    ];
    columns.extend(losses);
    columns.extend(constants);
    let sizes = Column::of(series, "n", |c| thousands(c.n));
    text.push_str(&blocks(&sizes, &columns));
    text.push('\n');
}

/// One column of a table.
struct Column {
    heading: String,
    cells: Vec<String>,
}

impl Column {
    fn of(
        series: &SeriesSummary,
        heading: impl Into<String>,
        cell: impl Fn(&crate::sim::summary::CellSummary) -> String,
    ) -> Self {
        Column {
            heading: heading.into(),
            cells: series.cells.iter().map(cell).collect(),
        }
    }

    fn width(&self) -> usize {
        let longest = self.cells.iter().map(|cell| cell.chars().count()).max();
        longest.unwrap_or(0).max(self.heading.chars().count())
    }
}

fn loss_column(series: &SeriesSummary, loss: Loss) -> Column {
    Column::of(series, format!("{} (SE)", loss.symbol()), |cell| {
        let found = cell.losses.iter().find(|l| l.loss == loss);
        found.map_or("–".to_string(), |l| {
            let (value, error) = with_error(l.mean.value, l.mean.error);
            format!("{value} ({error})")
        })
    })
}

fn constant_column(series: &SeriesSummary, constant: Constant) -> Column {
    Column::of(series, constant.symbol(), |cell| {
        let found = cell.constants.iter().find(|(c, _)| *c == constant);
        found.map_or("–".to_string(), |(_, e)| {
            format!("{} {}", decimal(e.value, 2), interval(e.interval, 2))
        })
    })
}

/// The columns side by side behind `key`, continued below where a line is full.
fn blocks(key: &Column, columns: &[Column]) -> String {
    let mut text = String::new();
    let mut rest = columns;
    while !rest.is_empty() {
        let mut used = 2 + key.width();
        let mut count = 0;
        for column in rest {
            used += 2 + column.width();
            if count > 0 && used > WIDTH {
                break;
            }
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        push_line(&mut text, key, now, |column| &column.heading);
        for row in 0..key.cells.len() {
            push_line(&mut text, key, now, |column| &column.cells[row]);
        }
        rest = later;
    }
    text
}

fn push_line(
    text: &mut String,
    key: &Column,
    columns: &[Column],
    cell: impl Fn(&Column) -> &String,
) {
    for column in std::iter::once(key).chain(columns) {
        let padding = column.width() - cell(column).chars().count();
        text.push_str(&" ".repeat(2 + padding));
        text.push_str(cell(column));
    }
    text.push('\n');
}

/// `content` broken at spaces, each line after `indent`; nothing if empty.
fn paragraph(text: &mut String, indent: &str, content: &str) {
    let mut line = String::new();
    for word in content.split_whitespace() {
        let width = indent.len() + line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && width > WIDTH {
            text.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        text.push_str(&format!("{indent}{line}\n"));
    }
}
