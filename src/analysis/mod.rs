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
mod quantity;
mod specification;
mod uncertainty;

pub use design::{Design, Scaled, Side};
pub use fitted::{Attainment, Fitted, Optimum, Spurious};
pub use quantity::{INTERCEPT, Part, Quantity, Scale, quantities};
pub use specification::{GateChoice, Specification, SpuriousRule};
pub use uncertainty::{
    BootstrapEstimate, BootstrapFits, Estimate, Expected, Limit, Missing, ProfileLimits, Profiles,
    Uncertainty, UncertaintyOptions, uncertainty,
};
