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

mod design;
mod fitted;
mod formula;
mod quantity;
mod responsibility;
mod search;
mod specification;
mod table;

pub use design::{Design, NewRows, Scaled, Side};
pub use fitted::{Attainment, Fitted, Optimum, Spurious};
pub use formula::{Component, Formula, Term};
pub use quantity::{INTERCEPT, Part, Quantity, Scale, quantities};
pub use responsibility::{effective_rows, responsibilities};
pub use search::search;
pub use specification::{GateChoice, Specification, SpuriousRule};
pub use table::{Cells, Column, Table};
