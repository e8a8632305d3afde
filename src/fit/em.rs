//! Expectation maximisation for every gate, by one minorising step.
//!
//! With responsibilities r, weights w and residuals z at the current point, the
//! expected complete-data log-likelihood is minorised in the mean of expert i by
//! a quadratic of curvature L + r/v (L: [`crate::model::GateKind::curvature_bound`]),
//! whose maximum is the step
//!
//! ```text
//! W_i <- W_i + [sum (L + r/v) u u']^-1 sum u [(r - w) s' + r z / v]
//! v_i <- sum r z^2 / sum r                       (same r, new residuals)
//! ```
//!
//! For a linear expert under a router or constant gate L = 0 and this is
//! weighted least squares; for softplus competition it is the closed-form step
//! with L = kappa/4 + kappa^2/2. Gate parameters of their own (biases, router
//! scores) take a Fisher-scoring step on the multinomial part: together with the
//! experts when the gate does not depend on the means, after them, with fresh
//! responsibilities, when it does. Every step is accepted only if the exact
//! log-likelihood does not fall; otherwise it is halved.

use super::bounds::Bounds;
use super::outcome::{Effort, Outcome, Stop};
use crate::backend::{Backend, EmStatistics};
use crate::model::{Data, GateKind, Layout, Parameters, VarianceStructure};
use crate::num::dense::solve_ridged;
use ndarray::Array1;

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmOptions {
    /// Most iterations.
    pub max_iterations: usize,
    /// Stop when an iteration gains less log-likelihood than this (total, not
    /// per row).
    pub gain: f64,
}

/// Halvings of a step that lowers the likelihood before giving up.
const MAX_HALVINGS: usize = 40;

/// What a step moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Experts,
    Gate,
    Both,
}

/// Runs EM from `start` until the gain is small.
///
/// Stops with [`Stop::SmallGain`], [`Stop::MaxIterations`],
/// [`Stop::Decreased`], [`Stop::Singular`] or [`Stop::NonFinite`].
pub fn expectation_maximisation(
    backend: &dyn Backend,
    data: &Data,
    start: &Parameters,
    bounds: &Bounds,
    options: EmOptions,
) -> Outcome {
    let layout = start.layout();
    let mut climb = Climb {
        backend,
        data,
        layout: &layout,
        bounds,
        template: start,
        packed: layout.pack(start),
        effort: Effort::default(),
    };
    bounds.project(&mut climb.packed);
    let mut statistics = climb.statistics(&climb.packed.clone());
    let stop = climb.run(&mut statistics, options);
    Outcome {
        parameters: climb.parameters(&climb.packed),
        log_likelihood: statistics.log_likelihood,
        stop,
        scaled_score: f64::NAN,
        on_bound: bounds.at_bound(&layout, &climb.packed),
        effort: climb.effort,
    }
}

struct Climb<'a> {
    backend: &'a dyn Backend,
    data: &'a Data,
    layout: &'a Layout,
    bounds: &'a Bounds,
    template: &'a Parameters,
    packed: Vec<f64>,
    effort: Effort,
}

impl Climb<'_> {
    fn run(&mut self, statistics: &mut EmStatistics, options: EmOptions) -> Stop {
        if !statistics.log_likelihood.is_finite() {
            return Stop::NonFinite { iteration: 0 };
        }
        let driven_by_means = matches!(self.template.gate.kind, GateKind::Competition { .. });
        let has_gate = !statistics.gate_score.is_empty();
        let parts: &[Part] = match (driven_by_means, has_gate) {
            (false, _) => &[Part::Both],
            (true, true) => &[Part::Experts, Part::Gate],
            (true, false) => &[Part::Experts],
        };
        for iteration in 1..=options.max_iterations {
            let before = statistics.log_likelihood;
            for &part in parts {
                let Some(target) = self.propose(statistics, part) else {
                    return Stop::Singular { iteration };
                };
                if let Err(stop) = self.advance(statistics, target, iteration) {
                    return stop;
                }
            }
            self.effort.em += 1;
            if statistics.log_likelihood - before < options.gain {
                return Stop::SmallGain;
            }
        }
        Stop::MaxIterations
    }

    fn parameters(&self, packed: &[f64]) -> Parameters {
        self.layout.unpack(self.template, packed)
    }

    fn statistics(&mut self, packed: &[f64]) -> EmStatistics {
        self.effort.rows += self.data.len();
        self.backend
            .em_statistics(&self.parameters(packed), self.data)
    }

    /// The unsafeguarded step.
    fn propose(&self, statistics: &EmStatistics, part: Part) -> Option<Vec<f64>> {
        let mut target = self.packed.clone();
        if part != Part::Gate {
            self.propose_experts(statistics, &mut target)?;
        }
        if part != Part::Experts && !statistics.gate_score.is_empty() {
            let step = solve_ridged(&statistics.gate_information, &statistics.gate_score);
            // Without information (all experts but one extinct) the gate rests.
            if let Some(step) = step {
                let first = target.len() - step.len();
                target[first..]
                    .iter_mut()
                    .zip(&step)
                    .for_each(|(t, s)| *t += s);
            }
        }
        self.bounds.project(&mut target);
        Some(target)
    }

    fn propose_experts(&self, statistics: &EmStatistics, target: &mut [f64]) -> Option<()> {
        let mut squares = Vec::new();
        for (i, sums) in statistics.experts.iter().enumerate() {
            if sums.responsibility == 0.0 {
                squares.push(0.0);
                continue;
            }
            let wanted = solve_ridged(&sums.curvature, &sums.score)?;
            let offset = self.layout.mean_offset(i);
            let block = offset..offset + wanted.len();
            let moved: Array1<f64> = block
                .map(|j| {
                    let value = target[j] + wanted[j - offset];
                    value.clamp(self.bounds.low[j], self.bounds.high[j]) - target[j]
                })
                .collect();
            for (j, step) in moved.iter().enumerate() {
                target[offset + j] += step;
            }
            // sum r (z - u'step)^2, from the current residuals so that nothing
            // large cancels.
            squares.push(
                sums.squares - 2.0 * moved.dot(&sums.moment) + moved.dot(&sums.gram.dot(&moved)),
            );
        }
        match self.template.variance_structure {
            VarianceStructure::PerExpert => {
                for (i, sums) in statistics.experts.iter().enumerate() {
                    if sums.responsibility > 0.0 && squares[i] > 0.0 {
                        target[self.layout.variance_offset(i)] =
                            (squares[i] / sums.responsibility).ln();
                    }
                }
            }
            VarianceStructure::Shared => {
                let total: f64 = squares.iter().sum();
                let mass: f64 = statistics.experts.iter().map(|s| s.responsibility).sum();
                if total > 0.0 {
                    target[self.layout.variance_offset(0)] = (total / mass).ln();
                }
            }
        }
        Some(())
    }

    /// Moves to `target`, or as far towards it as the likelihood allows.
    fn advance(
        &mut self,
        statistics: &mut EmStatistics,
        mut target: Vec<f64>,
        iteration: usize,
    ) -> Result<(), Stop> {
        let rounding = 1e-13 * (1.0 + statistics.log_likelihood.abs());
        let mut fall = f64::INFINITY;
        for _ in 0..MAX_HALVINGS {
            let next = self.statistics(&target);
            fall = statistics.log_likelihood - next.log_likelihood;
            if fall <= rounding {
                *statistics = next;
                self.packed = target;
                return Ok(());
            }
            for (t, p) in target.iter_mut().zip(&self.packed) {
                *t = 0.5 * (*t + p);
            }
        }
        if fall.is_finite() {
            Err(Stop::Decreased {
                iteration,
                size: fall,
            })
        } else {
            Err(Stop::NonFinite { iteration })
        }
    }
}
