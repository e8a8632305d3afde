//! The report as one self-contained HTML page.

use super::contents::Analysis;
use super::tables::{self, Table};
use super::{criteria_figure, fit_figure, optimum_map, residual_figure, wording};
use crate::plot::html::{self, definitions, document, escape, list, panels, paragraph};

/// Width and height of a panel of a row.
pub(super) const PANEL: (u32, u32) = (520, 440);

/// Where the rest is.
const NUMBERS: &str = "Every optimum of every number of experts, at full precision, is in \
                       fit.json beside this page; the figures are in the folder figures.";

/// The page: headline, fit, estimates, optima, number of experts, residuals.
pub fn page(analysis: &Analysis) -> String {
    let about = warnings(analysis) + &definitions(&tables::at_a_glance(analysis));
    let sections = [
        ("model", "Model", about),
        ("fit", "Fit", fit(analysis)),
        ("estimates", "Estimates", estimates(analysis)),
        ("optima", "Optima", optima(analysis)),
        ("experts", "Number of experts", number_of_experts(analysis)),
        ("residuals", "Residuals", residuals(analysis)),
        ("numbers", "Numbers", paragraph(NUMBERS)),
    ];
    let title = format!(
        "{}: {}",
        analysis.source,
        wording::formula(&analysis.design)
    );
    document(&title, &wording::headline(analysis), &sections)
}

fn warnings(analysis: &Analysis) -> String {
    let warning = |text: &String| format!("<p class=\"warning\">{}</p>\n", html::typeset(text));
    analysis.all_warnings().iter().map(warning).collect()
}

fn fit(analysis: &Analysis) -> String {
    let figure = fit_figure::figure(analysis);
    figure.map_or(String::new(), |figure| {
        html::figure(&figure, &fit_figure::caption(analysis))
    })
}

fn estimates(analysis: &Analysis) -> String {
    let all = [tables::estimates(analysis), tables::experts(analysis)];
    all.iter().flatten().map(table).collect()
}

fn optima(analysis: &Analysis) -> String {
    let chart = optimum_map::chart(analysis);
    let caption = "Each mark is an optimum that starts ended at. Spurious ones are set apart: \
                   an expert with too few rows or too small a standard deviation.";
    let map = panels(&Vec::from_iter(chart), PANEL, caption);
    map + &tables::optima(analysis)
        .as_ref()
        .map_or(String::new(), table)
}

fn number_of_experts(analysis: &Analysis) -> String {
    let caption = "Criteria of the best optimum of each number of experts.";
    let figure = panels(&criteria_figure::charts(analysis), PANEL, caption);
    figure
        + &tables::criteria(analysis)
            .as_ref()
            .map_or(String::new(), table)
}

fn residuals(analysis: &Analysis) -> String {
    let caption = analysis.residuals.as_ref().map(residual_figure::caption);
    let caption = caption.unwrap_or_default();
    let figure = panels(&residual_figure::charts(analysis), PANEL, &caption);
    figure
        + &tables::residuals(analysis)
            .as_ref()
            .map_or(String::new(), table)
}

fn table(table: &Table) -> String {
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .map(|cells| cells.iter().map(|cell| escape(cell)).collect())
        .collect();
    let body = html::table(&table.caption, table.words, &table.headings, &rows);
    match table.notes.is_empty() {
        true => body,
        false => body + &list(&table.notes),
    }
}
