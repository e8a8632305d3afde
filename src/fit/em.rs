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
//! scores) take a Fisher-scoring step on the multinomial part, or as many as lead
//! to its maximum ([`GateStep`]): together with the experts when the gate does not
//! depend on the means, after them, with fresh responsibilities, when it does.
//! With the second choice an iteration for linear experts under a router is the
//! exact EM of the papers on softmax gating. A dropped expert of a top-K gate has
//! responsibility 0, and the kept sets stay while the gate moves. Every step is
//! accepted only if the exact log-likelihood does not fall; otherwise it is halved.

use super::bounds::Bounds;
use super::gate_maximum::gate_maximum;
use super::outcome::{Effort, Outcome, Stop};
use crate::backend::{Backend, EmStatistics};
use crate::model::{Data, GateKind, Layout, Parameters, VarianceStructure};
use crate::num::dense::solve_ridged;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// How far an iteration goes, and when to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmOptions {
    /// Most iterations.
    pub max_iterations: usize,
    /// Stop when an iteration gains less log-likelihood than this, measured as
    /// `gain_measure` says.
    pub gain: f64,
    /// The unit of `gain`.
    pub gain_measure: GainMeasure,
    /// How far the gate's own parameters go in one iteration.
    pub gate_step: GateStep,
}

/// In what unit the gain of an iteration is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GainMeasure {
    /// Log-likelihood of the sample. Says how far the maximum is whatever n is.
    #[default]
    Total,
    /// The same over the log-likelihood before the iteration, in absolute value:
    /// the rule of the code of arXiv 2305.03288 and 2510.12744, with 1e-6.
    Relative,
    /// The same over the sample size: the change of the mean log-likelihood, the
    /// rule of the code of arXiv 2309.13850, with 1e-6.
    Mean,
}

/// How far the gate's own parameters go in one iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateStep {
    /// One Fisher-scoring step (generalised EM): cheap, as monotone.
    #[default]
    OneStep,
    /// To the maximum of the expected complete-data log-likelihood, by Fisher
    /// scoring to convergence: the M-step of the papers on softmax gating.
    ToMaximum,
}

impl GainMeasure {
    /// A gain in log-likelihood in this unit.
    fn of(self, gain: f64, before: f64, sample_size: f64) -> f64 {
        match self {
            GainMeasure::Total => gain,
            GainMeasure::Relative => gain / before.abs(),
            GainMeasure::Mean => gain / sample_size,
        }
    }
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
                let Some(target) = self.propose(statistics, part, options.gate_step) else {
                    return Stop::Singular { iteration };
                };
                if let Err(stop) = self.advance(statistics, target, iteration) {
                    return stop;
                }
            }
            self.effort.em += 1;
            let gain = statistics.log_likelihood - before;
            let measure = options.gain_measure;
            if measure.of(gain, before, self.data.sample_size()) < options.gain {
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
    fn propose(
        &mut self,
        statistics: &EmStatistics,
        part: Part,
        gate_step: GateStep,
    ) -> Option<Vec<f64>> {
        let mut target = self.packed.clone();
        if part != Part::Gate {
            self.propose_experts(statistics, &mut target)?;
        }
        if part != Part::Experts && !statistics.gate_score.is_empty() {
            self.propose_gate(statistics, gate_step, &mut target)?;
        }
        self.bounds.project(&mut target);
        Some(target)
    }

    fn propose_gate(
        &mut self,
        statistics: &EmStatistics,
        gate_step: GateStep,
        target: &mut [f64],
    ) -> Option<()> {
        let first = target.len() - statistics.gate_score.len();
        match gate_step {
            GateStep::OneStep => {
                let step = self.solve_unpinned(
                    first,
                    &statistics.gate_information,
                    &statistics.gate_score,
                );
                // Without information (all experts but one extinct) the gate rests.
                let step = step.unwrap_or_else(|| Array1::zeros(target.len() - first));
                let gate = target[first..].iter_mut();
                gate.zip(&step).for_each(|(t, s)| *t += s);
            }
            GateStep::ToMaximum => {
                let (template, layout) = (self.template, self.layout);
                let found = gate_maximum(template, layout, self.data, self.bounds, &self.packed)?;
                self.effort.rows += found.passes * self.data.len();
                target[first..].copy_from_slice(&found.packed[first..]);
            }
        }
        Some(())
    }

    fn propose_experts(&self, statistics: &EmStatistics, target: &mut [f64]) -> Option<()> {
        let mut squares = Vec::new();
        for (i, sums) in statistics.experts.iter().enumerate() {
            if sums.responsibility == 0.0 {
                squares.push(0.0);
                continue;
            }
            let first = self.layout.mean_offset(i);
            let wanted = self.solve_unpinned(first, &sums.curvature, &sums.score)?;
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

    /// The step M^-1 s of the coordinates from `first` on, 0 along those without
    /// freedom: the maximum of the quadratic among the others.
    fn solve_unpinned(
        &self,
        first: usize,
        matrix: &Array2<f64>,
        score: &Array1<f64>,
    ) -> Option<Array1<f64>> {
        let pinned = |j: usize| self.bounds.is_pinned(first + j);
        if !(0..score.len()).any(pinned) {
            return solve_ridged(matrix, score);
        }
        // Pinned coordinates are cut out of the system.
        let largest = matrix.diag().iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let own = if largest > 0.0 { largest } else { 1.0 };
        let held = Array2::from_shape_fn(matrix.dim(), |(i, j)| {
            match (pinned(i) || pinned(j), i == j) {
                (false, _) => matrix[[i, j]],
                (true, true) => own,
                (true, false) => 0.0,
            }
        });
        let free = |(j, s): (usize, &f64)| if pinned(j) { 0.0 } else { *s };
        solve_ridged(&held, &score.iter().enumerate().map(free).collect())
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
