//! Mixtures of experts fitted to people's data.
//!
//! ```text
//! table (CSV, Parquet) + formulas -> design (standardised) + specification
//!     -> search (many starts, every optimum) -> fitted
//!     -> quantities in raw units -> uncertainty, criteria, residuals, prediction -> report
//! ```
//!
//! Everything is fitted in standardised coordinates, so that no answer depends on the
//! units or the origin of a column; everything is reported in raw units.

mod analyse;
mod criteria;
mod dendrogram;
#[cfg(test)]
mod dendrogram_tests;
mod design;
#[cfg(test)]
mod example;
mod fitted;
mod formula;
mod prediction;
mod quantile;
mod quantity;
pub mod report;
mod residuals;
mod responsibility;
mod search;
mod specification;
mod table;
mod tails;
mod uncertainty;

pub use analyse::{Request, analyse, predictions};
pub use criteria::{Criteria, Remark, criteria};
pub use dendrogram::{Dendrogram, Level, Merge, Undefined, dendrogram};
pub use design::{Design, NewRows, Scaled, Side};
pub use fitted::{Attainment, Fitted, Optimum, Spurious};
pub use formula::{Component, Formula, Term};
pub use prediction::{Observed, Prediction, predict, write_predictions};
pub use quantity::{INTERCEPT, Part, Quantity, Scale, quantities};
pub use residuals::{KolmogorovSmirnov, LARGEST, Residuals, residuals};
pub use responsibility::{
    effective_rows, entropy, mean_weights, responsibilities, responsibilities_at,
};
pub use search::search;
pub use specification::{GateChoice, Specification, SpuriousRule};
pub use table::{Cells, Column, Table};
pub use uncertainty::{
    BootstrapEstimate, BootstrapFits, Estimate, Limit, Missing, ProfileLimits, Profiles,
    Uncertainty, UncertaintyOptions, uncertainty,
};
