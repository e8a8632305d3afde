//! Maximum likelihood over a compact parameter set.
//!
//! ```text
//! start -> em | gradient -> newton, boundary | none -> outcome (each start)
//!                                                   -> multistart (the best, and all the others)
//! ```
//!
//! The parameter set is a box ([`Bounds`]): in the theorems the set is compact,
//! and without it the likelihood of an over-specified mixture is unbounded. The
//! methods are described in `docs/methods.md`.

mod batch;
mod boundary;
mod bounds;
mod chart;
mod distillation;
mod em;
mod gate_maximum;
mod gradient;
pub mod inference;
mod labelled;
mod multistart;
mod newton;
mod outcome;
mod published;
mod quadratic;
mod schedule;
mod start;

#[doc(hidden)]
pub use batch::Phases;
pub use batch::{Batch, most_samples};
pub use boundary::has_jumps;
pub use bounds::{Bounds, Centre, Limits};
pub use distillation::{
    DistillationLoss, DistillationOptions, Distilled, distil, undistilled_router,
};
pub use em::{EmOptions, GainMeasure, GateStep, expectation_maximisation};
pub use gradient::{GradientOptions, quasi_newton};
pub use labelled::labelled_maximum;
pub use multistart::{Method, MultiStart, Options, Polish, fit, maximise};
pub use newton::{NewtonOptions, polish};
pub use outcome::{Effort, Outcome, Stop};
pub use published::{
    Assignment, CopyWeight, NoiseDraws, PublishedStart, ShrinkingNoise, StartingVariance,
};
pub use schedule::Schedule;
pub use start::{Start, StartContext, partition_start};
