//! How a fit ended: always a value, never an error.

use crate::model::{Coordinate, Parameters};
use std::fmt;

/// Why an estimator stopped.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// Certified: the projected score, scaled by the observed information, is
    /// below tolerance and so is the last gain in log-likelihood.
    Converged,
    /// As [`Stop::Converged`], at a kink of the likelihood: zero lies, within
    /// tolerance, in the convex hull of the scores around the point.
    ConvergedAtKink,
    /// As [`Stop::Converged`], of a top-K mixture whose selection is about to
    /// change: where the log-likelihood jumps, or bends.
    ///
    /// * The score is that on the cell of parameters at which every row keeps its
    ///   selection, and on the faces of this polyhedron that it presses against
    ///   (an observation at which two experts nearly tie): the Newton step on it
    ///   is shorter than the tolerance, and the likelihood concave along those
    ///   faces. The likelihood at the observation itself is that of a limit from
    ///   this side.
    /// * No end of a segment of one selection, moved by up to max(16, n^(1/2))
    ///   observations either way, no new segment of up to 4 observations at such an
    ///   end, and no two such moves of up to 4 observations each, with all
    ///   parameters following, makes the likelihood larger by 1e-7: as far as its
    ///   second-order expansion with an allowance for the third order tells, and
    ///   by climbs in every cell where that leaves a hope. Rows that lose more than
    ///   100 together are not passed.
    ///
    /// Directions in which the likelihood is exactly flat (the scale of a top-1
    /// router) are left where they are. `docs/methods.md`, 4.
    ConvergedAtJump,
    /// The last gain was below tolerance; nothing was certified (EM and
    /// gradient steps before the polish).
    SmallGain,
    /// The iteration limit was reached.
    MaxIterations,
    /// No step along the search direction raises the likelihood, although the
    /// score is above tolerance: a jump of a top-K likelihood that the search
    /// along boundaries does not treat, or rounding.
    NoAscent,
    /// The score is below tolerance, but the likelihood is not concave there, and
    /// no step along its curvature raises it.
    Saddle,
    /// An EM step would lower the log-likelihood beyond rounding, even halved.
    Decreased {
        /// Iteration, from 1.
        iteration: usize,
        /// Size of the fall.
        size: f64,
    },
    /// The log-likelihood or a derivative is not finite.
    NonFinite {
        /// Iteration, from 1; 0 is the start itself.
        iteration: usize,
    },
    /// The linear system of a step has no solution.
    Singular {
        /// Iteration, from 1.
        iteration: usize,
    },
    /// There are not more rows than parameters.
    TooFewRows,
    /// The device has too little memory for the sample; nothing was run.
    OutOfMemory {
        /// Bytes that are needed.
        needed: usize,
        /// Bytes that are free.
        free: usize,
    },
    /// A stochastic estimator has seen every row once; nothing was certified.
    PassCompleted,
}

impl Stop {
    /// True if the maximum is certified.
    pub fn is_converged(&self) -> bool {
        matches!(
            self,
            Stop::Converged | Stop::ConvergedAtKink | Stop::ConvergedAtJump
        )
    }

    /// The reason in one word, as it stands in a row.
    pub fn name(&self) -> &'static str {
        match self {
            Stop::Converged => "Converged",
            Stop::ConvergedAtKink => "ConvergedAtKink",
            Stop::ConvergedAtJump => "ConvergedAtJump",
            Stop::SmallGain => "SmallGain",
            Stop::MaxIterations => "MaxIterations",
            Stop::NoAscent => "NoAscent",
            Stop::Saddle => "Saddle",
            Stop::Decreased { .. } => "Decreased",
            Stop::NonFinite { .. } => "NonFinite",
            Stop::Singular { .. } => "Singular",
            Stop::TooFewRows => "TooFewRows",
            Stop::OutOfMemory { .. } => "OutOfMemory",
            Stop::PassCompleted => "PassCompleted",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Stop::Decreased { iteration, size } => {
                write!(f, "Decreased at iteration {iteration} by {size:e}")
            }
            Stop::NonFinite { iteration } => write!(f, "NonFinite at iteration {iteration}"),
            Stop::Singular { iteration } => write!(f, "Singular at iteration {iteration}"),
            Stop::OutOfMemory { needed, free } => {
                write!(f, "OutOfMemory: {needed} bytes needed, {free} free")
            }
            other => f.write_str(other.name()),
        }
    }
}

/// Work done by a fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Expectation-maximisation iterations.
    pub em: usize,
    /// Quasi-Newton iterations.
    pub gradient: usize,
    /// Newton iterations.
    pub newton: usize,
    /// Rows visited, over all passes.
    pub rows: usize,
}

impl std::ops::AddAssign for Effort {
    fn add_assign(&mut self, other: Effort) {
        self.em += other.em;
        self.gradient += other.gradient;
        self.newton += other.newton;
        self.rows += other.rows;
    }
}

/// The result of one estimator run from one start.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Where it stopped.
    pub parameters: Parameters,
    /// The log-likelihood there.
    pub log_likelihood: f64,
    /// Why it stopped.
    pub stop: Stop,
    /// sqrt(s' M^-1 s) of the projected score s with the information M; NaN
    /// before the polish.
    pub scaled_score: f64,
    /// Coordinates that sit on the boundary of the parameter set.
    pub on_bound: Vec<Coordinate>,
    /// Work done.
    pub effort: Effort,
}
