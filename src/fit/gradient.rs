//! Quasi-Newton ascent (argmin's L-BFGS) in coordinates that fill the box.
//!
//! Each free coordinate is low + (high - low) logistic(t) with t unbounded, so
//! that an unconstrained solver stays inside the compact parameter set.

use super::bounds::Bounds;
use super::outcome::{Effort, Outcome, Stop};
use crate::backend::Backend;
use crate::model::{Data, Layout, Parameters};
use argmin::core::{CostFunction, Executor, Gradient, State, TerminationReason, TerminationStatus};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use std::cell::{Cell, RefCell};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientOptions {
    /// Most iterations.
    pub max_iterations: usize,
    /// Stop when an iteration gains less log-likelihood than this.
    pub gain: f64,
}

/// Update pairs that L-BFGS keeps.
const MEMORY: usize = 10;
/// A start on a bound is moved inside by this fraction of the range.
const MARGIN: f64 = 1e-6;

/// Runs L-BFGS from `start`.
///
/// Stops with [`Stop::SmallGain`], [`Stop::MaxIterations`], [`Stop::NoAscent`]
/// (argmin's line search gave up) or [`Stop::NonFinite`]. The best point seen is
/// returned in each case.
pub fn quasi_newton(
    backend: &dyn Backend,
    data: &Data,
    start: &Parameters,
    bounds: &Bounds,
    options: GradientOptions,
) -> Outcome {
    let layout = start.layout();
    let mut packed = layout.pack(start);
    bounds.project(&mut packed);
    let free: Vec<usize> = (0..packed.len())
        .filter(|&j| !bounds.is_pinned(j))
        .collect();
    let passes = Cell::new(0);
    let best = RefCell::new((f64::INFINITY, Vec::new()));
    let problem = Problem {
        backend,
        data,
        template: start,
        layout: &layout,
        bounds,
        origin: packed.clone(),
        free: &free,
        passes: &passes,
        best: &best,
    };
    let initial = problem.unbounded(&packed);
    let started = problem.cost(&initial).unwrap_or(f64::INFINITY);
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY)
        .with_tolerance_grad(1e-9 * started.abs().max(1.0) / data.len().max(1) as f64)
        .and_then(|s| s.with_tolerance_cost(options.gain))
        .expect("tolerances are not negative");
    let result = if started.is_finite() && !free.is_empty() {
        Some(
            Executor::new(problem.clone(), solver)
                .configure(|state| {
                    state
                        .param(initial.clone())
                        .max_iters(options.max_iterations as u64)
                })
                .run(),
        )
    } else {
        None
    };
    let mut effort = Effort::default();
    let stop = match result {
        None if free.is_empty() => Stop::SmallGain,
        None => Stop::NonFinite { iteration: 0 },
        Some(Err(_)) => Stop::NoAscent,
        Some(Ok(run)) => {
            let state = run.state();
            effort.gradient = state.get_iter() as usize;
            match state.get_termination_status() {
                TerminationStatus::Terminated(TerminationReason::SolverConverged) => {
                    Stop::SmallGain
                }
                TerminationStatus::Terminated(TerminationReason::MaxItersReached) => {
                    Stop::MaxIterations
                }
                _ => Stop::NoAscent,
            }
        }
    };
    // The solver gives no point back when its line search fails: keep our own.
    let packed = match best.borrow().1.as_slice() {
        [] => packed,
        unbounded => problem.packed(unbounded),
    };
    let parameters = layout.unpack(start, &packed);
    let log_likelihood = backend.log_likelihood(&parameters, data);
    effort.rows = (passes.get() + 1) * data.len();
    Outcome {
        parameters,
        log_likelihood,
        stop,
        scaled_score: f64::NAN,
        on_bound: bounds.at_bound(&layout, &packed),
        effort,
    }
}

#[derive(Clone)]
struct Problem<'a> {
    backend: &'a dyn Backend,
    data: &'a Data,
    template: &'a Parameters,
    layout: &'a Layout,
    bounds: &'a Bounds,
    origin: Vec<f64>,
    free: &'a [usize],
    passes: &'a Cell<usize>,
    /// The smallest cost so far, and where.
    best: &'a RefCell<(f64, Vec<f64>)>,
}

impl Problem<'_> {
    fn packed(&self, unbounded: &[f64]) -> Vec<f64> {
        let mut packed = self.origin.clone();
        for (&j, t) in self.free.iter().zip(unbounded) {
            let (low, high) = (self.bounds.low[j], self.bounds.high[j]);
            packed[j] = low + (high - low) / (1.0 + (-t).exp());
        }
        packed
    }

    fn unbounded(&self, packed: &[f64]) -> Vec<f64> {
        self.free
            .iter()
            .map(|&j| {
                let (low, high) = (self.bounds.low[j], self.bounds.high[j]);
                let share = ((packed[j] - low) / (high - low)).clamp(MARGIN, 1.0 - MARGIN);
                (share / (1.0 - share)).ln()
            })
            .collect()
    }

    fn parameters(&self, unbounded: &[f64]) -> Parameters {
        self.passes.set(self.passes.get() + 1);
        self.layout.unpack(self.template, &self.packed(unbounded))
    }
}

impl CostFunction for Problem<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    /// Minus the log-likelihood; infinite where it is not a number.
    fn cost(&self, unbounded: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        let value = -self
            .backend
            .log_likelihood(&self.parameters(unbounded), self.data);
        let value = if value.is_nan() { f64::INFINITY } else { value };
        if value < self.best.borrow().0 {
            *self.best.borrow_mut() = (value, unbounded.clone());
        }
        Ok(value)
    }
}

impl Gradient for Problem<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, unbounded: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        let packed = self.packed(unbounded);
        let (_, gradient) = self
            .backend
            .gradient(&self.parameters(unbounded), self.data);
        Ok(self
            .free
            .iter()
            .map(|&j| {
                let (low, high) = (self.bounds.low[j], self.bounds.high[j]);
                -gradient[j] * (packed[j] - low) * (high - packed[j]) / (high - low)
            })
            .collect())
    }
}
