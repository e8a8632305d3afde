//! What a fit found, for people and for programs: a terminal table, one JSON object,
//! one self-contained page with its figures.
//!
//! | file of a folder | content |
//! |---|---|
//! | `fit.json` | [`json()`] |
//! | `table.txt` | [`terminal()`] |
//! | `figures/fit`, `optima`, `criteria`, `residuals` | SVG and PNG, those that have data |
//! | `index.html` | all of it on one page, written last |
//!
//! Pure functions of an [`Analysis`]; nothing is computed here but what curves and
//! marks need.

mod cells;
mod contents;
mod criteria_figure;
mod estimate_rows;
mod fit_figure;
mod folder;
mod json;
mod optimum_map;
mod page;
mod residual_figure;
mod slice;
mod step;
mod tables;
mod terminal;
#[cfg(test)]
mod tests;
mod warnings;
mod wording;

pub use contents::{Analysis, Criterion, FittedModel};
pub use folder::write;
pub use json::json;
pub use page::page;
pub use slice::Slice;
pub use terminal::{WIDTH, terminal};
