//! A run, or several compared, as figures and one self-contained page.
//!
//! | file of a run's folder | content |
//! |---|---|
//! | `run.toml`, `log.jsonl` | read: the configuration and the log |
//! | `summary.toml` | [`Summary`] |
//! | `curves`, `load`, `routing`, `competition`, `losses`, `speed`, `experts` | figures as SVG and PNG, those that have data |
//! | `index.html` | all of it on one page, written last |
//!
//! Pure functions of those files: a page can be written while its run goes on, and
//! again later.

mod compare;
mod curve;
mod record;
mod routing;
mod run;
mod scale;
#[cfg(test)]
mod tests;
mod training;

pub use compare::compare;
pub use record::{Record, Summary};
pub use run::write;

use crate::error::Result;
use crate::plot::{Chart, Figure};
use std::path::Path;

/// Width and height of a panel on a page.
const PANEL: (u32, u32) = (520, 440);

/// Writes charts as one figure, SVG and PNG; nothing for no charts.
fn write_figure(folder: &Path, name: &str, charts: &[Chart]) -> Result<()> {
    if charts.is_empty() {
        return Ok(());
    }
    let columns = match charts.len() {
        1..=3 => charts.len(),
        4 => 2,
        _ => 3,
    };
    let figure = Figure::grid(columns, charts.to_vec()).with_panel_size(PANEL.0, PANEL.1);
    figure.write_svg(&folder.join(format!("{name}.svg")))?;
    figure.write_png(&folder.join(format!("{name}.png")))
}
