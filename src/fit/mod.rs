//! Maximum likelihood over a compact parameter set.
//!
//! ```text
//! start -> em | gradient -> newton -> boundary -> outcome     (each start)
//!                                              -> multistart   (the best, and all the others)
//! ```
//!
//! The parameter set is a box ([`Bounds`]): in the theorems the set is compact,
//! and without it the likelihood of an over-specified mixture is unbounded. The
//! methods are described in `docs/methods.md`.

mod boundary;
mod bounds;
mod chart;
mod em;
mod gradient;
mod multistart;
mod newton;
mod outcome;
mod quadratic;
mod start;

pub use bounds::{Bounds, Centre, Limits};
pub use em::{EmOptions, expectation_maximisation};
pub use gradient::{GradientOptions, quasi_newton};
pub use multistart::{Method, MultiStart, Options, fit, maximise};
pub use newton::{NewtonOptions, polish};
pub use outcome::{Effort, Outcome, Stop};
pub use start::{Start, StartContext};
