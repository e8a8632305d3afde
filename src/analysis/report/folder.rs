//! The report as files.

use super::contents::Analysis;
use super::page::{PANEL, page};
use super::{criteria_figure, fit_figure, json, optimum_map, residual_figure, terminal};
use crate::error::{Error, Result, replace};
use crate::plot::{Chart, Figure};
use std::path::Path;

/// Writes a report into a folder, which is made if it is not there. Each file is
/// replaced at once, the page last.
///
/// `tables` are further files, name and content, such as `predictions.csv`.
///
/// # Errors
/// [`Error::File`].
pub fn write(folder: &Path, analysis: &Analysis, tables: &[(&str, &str)]) -> Result<()> {
    let pictures = folder.join("figures");
    std::fs::create_dir_all(&pictures).map_err(|e| Error::file(&pictures, "create", &e))?;
    for (name, figure) in figures(analysis) {
        figure.write_svg(&pictures.join(format!("{name}.svg")))?;
        figure.write_png(&pictures.join(format!("{name}.png")))?;
    }
    for (name, content) in tables {
        replace(&folder.join(name), content)?;
    }
    replace(&folder.join("table.txt"), terminal(analysis))?;
    replace(&folder.join("fit.json"), json(analysis))?;
    replace(&folder.join("index.html"), page(analysis))
}

/// Every figure that has data, with its name.
pub(super) fn figures(analysis: &Analysis) -> Vec<(&'static str, Figure)> {
    let row = |charts: Vec<Chart>| {
        (!charts.is_empty()).then(|| Figure::row(charts).with_panel_size(PANEL.0, PANEL.1))
    };
    let all = [
        ("fit", fit_figure::figure(analysis)),
        ("optima", row(Vec::from_iter(optimum_map::chart(analysis)))),
        ("criteria", row(criteria_figure::charts(analysis))),
        ("residuals", row(residual_figure::charts(analysis))),
    ];
    all.into_iter()
        .filter_map(|(name, figure)| Some((name, figure?)))
        .collect()
}
