//! Router distillation in the statistical model: one stochastic pass that trains a
//! competition mixture and a softmax router with the same experts.
//!
//! ```text
//! competition step, probability lambda(t):
//!     experts, biases <- + gamma M_c^-1 score of the competition-gated likelihood
//!     router          <- - gamma M_d^-1 gradient of the distillation loss
//! router step:
//!     experts, router <- + gamma M_r^-1 score of the router-gated likelihood
//! ```
//!
//! The loss compares router weights s^R with competition weights s^C, all experts in
//! play, which are a fixed target: no gradient reaches the experts (arXiv 2505.13380,
//! from its code). Each M is the running mean of scores' outer products, or of the
//! loss's Gauss-Newton matrix, of earlier batches; gamma = scale (1 + t)^-exponent, and the estimate is
//! the mean of the late iterates (Polyak and Juditsky 1992), so that where both
//! likelihoods have their maximum at one point the error is of order n^(-1/2) without
//! tuning. Where they do not, the limit of the experts depends on lambda and on the
//! M, as it does on the optimiser in practice.

use super::bounds::{Bounds, Limits};
use super::outcome::Stop;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::model::{Data, ExpertGate, Gate, GateKind, Layout, Parameters, Point, Selection};
use crate::num::dense::solve_ridged;
use crate::rng::Stream;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// How far the router's weights are from the competition's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DistillationLoss {
    /// mean_i (s^R_i - s^C_i)^2 + alpha / K sum over the K winners of the same
    /// (arXiv 2505.13380, its code: alpha = 0.2 or 0.1).
    Hybrid {
        /// Weight of the winners' part.
        alpha: f64,
    },
    /// sum_i s^C_i log(s^C_i / s^R_i)
    KullbackLeibler,
}

/// How one pass trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillationOptions {
    /// When experts compete.
    pub schedule: Schedule,
    /// What the router learns from in a competition step.
    pub loss: DistillationLoss,
    /// Rows of a step.
    pub batch_rows: usize,
    /// gamma at the first step.
    pub step_scale: f64,
    /// gamma falls as (1 + t)^-exponent; averaging wants it between 1/2 and 1.
    pub step_exponent: f64,
    /// Share of the steps, the last, whose iterates are averaged.
    pub averaged_share: f64,
}

impl DistillationOptions {
    /// Defaults for the rest: batches of 32 rows, gamma = (1 + t)^-0.6, the last
    /// three quarters averaged.
    pub fn new(schedule: Schedule, loss: DistillationLoss) -> Self {
        DistillationOptions {
            schedule,
            loss,
            batch_rows: 32,
            step_scale: 1.0,
            step_exponent: 0.6,
            averaged_share: 0.75,
        }
    }
}

/// What one pass made.
#[derive(Clone, Debug, PartialEq)]
pub struct Distilled {
    /// The router-gated mixture: what inference uses.
    pub router: Parameters,
    /// The competition-gated mixture with the same experts.
    pub competition: Parameters,
    /// [`Stop::PassCompleted`], [`Stop::TooFewRows`] or [`Stop::NonFinite`] with the
    /// step; parameters are then the last sound ones.
    pub stop: Stop,
    /// Competition steps.
    pub competition_steps: usize,
    /// Router steps.
    pub router_steps: usize,
}

/// Rows, at the start's parameters, of the first preconditioners.
const FIRST_ROWS: usize = 256;
/// Longest step in units of one row's information. Only the first steps are as long:
/// gradients are skewed, and cutting those of every step would move their mean.
const LONGEST: f64 = 0.5;

/// The router-gated mixture with the experts of `competition` and weights that do
/// not depend on the input; as many experts are kept.
pub fn undistilled_router(competition: &Parameters) -> Parameters {
    let mut router = competition.clone();
    router.gate = Gate {
        kind: GateKind::Softmax,
        top_k: competition.gate.top_k,
        selection: Selection::Score,
    };
    for expert in &mut router.experts {
        expert.gate = ExpertGate::Router {
            slope: vec![0.0; expert.slope.len()],
            intercept: 0.0,
        };
    }
    router
}

/// Trains on the rows of `data` in their order, once, from the competition mixture
/// `start` and a router that knows nothing; step t's coin is draw (t, 0) of `stream`.
///
/// # Errors
/// [`Error::Value`] if `start` is no competition mixture, if the limits lie around
/// the truth, or if an option is out of its range.
pub fn distil(
    data: &Data,
    start: &Parameters,
    limits: &Limits,
    options: &DistillationOptions,
    stream: &Stream,
) -> Result<Distilled> {
    options.validate(start, limits)?;
    let mut training = Training::new(start, limits, options.loss);
    let steps = data.len() / options.batch_rows;
    if data.len() <= training.position.len() || steps < 2 {
        return Ok(training.distilled(training.position.clone(), Stop::TooFewRows, [0, 0]));
    }
    training.read_first(data);
    let first_averaged = ((1.0 - options.averaged_share) * steps as f64).floor() as usize;
    let mut mean = Array1::<f64>::zeros(training.position.len());
    let mut taken = [0, 0];
    for t in 0..steps {
        let rows = t * options.batch_rows..(t + 1) * options.batch_rows;
        let lambda = options.schedule.probability(t as f64 / steps as f64);
        let gamma = options.step_scale * (1.0 + t as f64).powf(-options.step_exponent);
        let competes = stream.uniform_pair(t as u64, 0)[0] < lambda;
        let moved = match competes {
            true => training.competition_step(data, rows, gamma),
            false => training.router_step(data, rows, gamma),
        };
        let Some(position) = moved else {
            let stop = Stop::NonFinite { iteration: t + 1 };
            return Ok(training.distilled(training.position.clone(), stop, taken));
        };
        training.position = position;
        taken[usize::from(!competes)] += 1;
        if t >= first_averaged {
            let weight = 1.0 / (t - first_averaged + 1) as f64;
            let change = (&training.position - &mean) * weight;
            mean += &change;
        }
    }
    Ok(training.distilled(mean, Stop::PassCompleted, taken))
}

impl DistillationOptions {
    fn validate(&self, start: &Parameters, limits: &Limits) -> Result<()> {
        if !matches!(start.gate.kind, GateKind::Competition { .. }) {
            return Err(Error::value("gate.kind", "distillation needs competition"));
        }
        if limits.centre != super::bounds::Centre::Origin {
            return Err(Error::value(
                "fit.limits.centre",
                "must be \"origin\": a router has no truth of its own",
            ));
        }
        let in_range = [
            ("batch_rows", self.batch_rows >= 1),
            (
                "step_scale",
                self.step_scale > 0.0 && self.step_scale.is_finite(),
            ),
            ("step_exponent", (0.0..=1.0).contains(&self.step_exponent)),
            (
                "averaged_share",
                self.averaged_share > 0.0 && self.averaged_share <= 1.0,
            ),
        ];
        match in_range.iter().find(|(_, fine)| !fine) {
            None => Ok(()),
            Some((name, _)) => Err(Error::value(*name, "is out of range")),
        }
    }
}

/// A mean of matrices that grows by one batch at a time.
struct RunningMean {
    sum: Array2<f64>,
    rows: f64,
}

impl RunningMean {
    fn new(size: usize) -> Self {
        RunningMean {
            sum: Array2::zeros((size, size)),
            rows: 0.0,
        }
    }

    fn add(&mut self, batch: &Batch) {
        self.sum += &batch.curvature;
        self.rows += batch.rows;
    }

    /// gamma M^-1 times the batch's mean gradient, no longer than [`LONGEST`] in M.
    fn step(&self, batch: &Batch, gamma: f64) -> Option<Array1<f64>> {
        let matrix = &self.sum / self.rows;
        let gradient = &batch.gradient / batch.rows;
        if gradient.iter().any(|v| !v.is_finite()) {
            return None;
        }
        if gradient.iter().all(|v| *v == 0.0) {
            return Some(gradient);
        }
        let step = solve_ridged(&matrix, &gradient)? * gamma;
        let length = step.dot(&matrix.dot(&step)).max(0.0).sqrt();
        Some(step * (LONGEST / length.max(LONGEST)))
    }
}

/// Sums over the rows of a batch.
struct Batch {
    gradient: Array1<f64>,
    curvature: Array2<f64>,
    rows: f64,
}

impl Batch {
    fn new(size: usize) -> Self {
        Batch {
            gradient: Array1::zeros(size),
            curvature: Array2::zeros((size, size)),
            rows: 0.0,
        }
    }
}

/// One of the two mixtures and what belongs to it.
struct Side {
    template: Parameters,
    layout: Layout,
    bounds: Bounds,
    information: RunningMean,
    /// Where its coordinates stand in the common position.
    places: Vec<usize>,
}

impl Side {
    fn new(template: Parameters, limits: &Limits, places: Vec<usize>) -> Self {
        let layout = template.layout();
        Side {
            bounds: limits.bounds(&layout),
            information: RunningMean::new(layout.len()),
            template,
            layout,
            places,
        }
    }

    fn parameters(&self, position: &Array1<f64>) -> Parameters {
        let packed: Vec<f64> = self.places.iter().map(|&k| position[k]).collect();
        self.layout.unpack(&self.template, &packed)
    }

    /// Score and outer products of scores over the rows.
    fn batch(&self, position: &Array1<f64>, data: &Data, rows: std::ops::Range<usize>) -> Batch {
        let parameters = self.parameters(position);
        let size = self.layout.len();
        let mut point = Point::new(&parameters);
        let mut batch = Batch::new(size);
        let mut score = vec![0.0; size];
        let mut x = vec![0.0; data.dimension()];
        for n in rows {
            let y = data.read_row(n, &mut x);
            parameters.score(&self.layout, &mut point, &x, y, &mut score);
            for a in 0..size {
                batch.gradient[a] += score[a];
                for b in 0..size {
                    batch.curvature[[a, b]] += score[a] * score[b];
                }
            }
            batch.rows += 1.0;
        }
        batch
    }

    /// Moves the common position by `step` in this side's coordinates, in its box.
    fn advance(&self, position: &mut Array1<f64>, step: &Array1<f64>) {
        for (j, &place) in self.places.iter().enumerate() {
            position[place] =
                (position[place] + step[j]).clamp(self.bounds.low[j], self.bounds.high[j]);
        }
    }
}

/// The state of a pass. The common position: means and log-variances, then biases,
/// then the router.
struct Training {
    position: Array1<f64>,
    competition: Side,
    router: Side,
    loss: DistillationLoss,
    /// Gauss-Newton matrix of the loss in the router's own coordinates.
    curvature: RunningMean,
    /// First coordinate of the gate in both layouts.
    shared: usize,
}

impl Training {
    fn new(start: &Parameters, limits: &Limits, loss: DistillationLoss) -> Self {
        let untrained = undistilled_router(start);
        let layouts = [start.layout(), untrained.layout()];
        let gates = (0..start.experts.len()).filter_map(|i| layouts[1].gate_offset(i));
        let shared = gates.min().unwrap_or(layouts[1].len());
        let biases = layouts[0].len() - shared;
        let own = layouts[1].len() - shared;
        let mut position = layouts[0].pack(start);
        position.extend(vec![0.0; own]);
        let beyond = |first: usize, count: usize| -> Vec<usize> {
            (0..shared).chain(first..first + count).collect()
        };
        let mut training = Training {
            position: Array1::from(position),
            competition: Side::new(start.clone(), limits, beyond(shared, biases)),
            router: Side::new(untrained, limits, beyond(shared + biases, own)),
            loss,
            curvature: RunningMean::new(own),
            shared,
        };
        for side in [&training.competition, &training.router] {
            let rest = Array1::zeros(side.layout.len());
            side.advance(&mut training.position, &rest);
        }
        training
    }

    /// The preconditioners of the first steps.
    fn read_first(&mut self, data: &Data) {
        let rows = 0..FIRST_ROWS.min(data.len());
        for side in [&mut self.competition, &mut self.router] {
            let batch = side.batch(&self.position, data, rows.clone());
            side.information.add(&batch);
        }
        let batch = self.distillation(data, rows);
        self.curvature.add(&batch);
    }

    fn competition_step(
        &mut self,
        data: &Data,
        rows: std::ops::Range<usize>,
        gamma: f64,
    ) -> Option<Array1<f64>> {
        let distillation = self.distillation(data, rows.clone());
        let own = self.curvature.step(&distillation, gamma)?;
        self.curvature.add(&distillation);
        let side = &mut self.competition;
        let batch = side.batch(&self.position, data, rows);
        let step = side.information.step(&batch, gamma)?;
        side.information.add(&batch);
        let mut position = self.position.clone();
        side.advance(&mut position, &step);
        let mut whole = Array1::zeros(self.router.layout.len());
        for (k, value) in own.iter().enumerate() {
            whole[self.shared + k] = -value;
        }
        self.router.advance(&mut position, &whole);
        Some(position)
    }

    fn router_step(
        &mut self,
        data: &Data,
        rows: std::ops::Range<usize>,
        gamma: f64,
    ) -> Option<Array1<f64>> {
        let side = &mut self.router;
        let batch = side.batch(&self.position, data, rows);
        let step = side.information.step(&batch, gamma)?;
        side.information.add(&batch);
        let mut position = self.position.clone();
        side.advance(&mut position, &step);
        Some(position)
    }

    /// Gradient and Gauss-Newton matrix of the distillation loss over the rows, in
    /// the router's own coordinates.
    fn distillation(&self, data: &Data, rows: std::ops::Range<usize>) -> Batch {
        let dense = |side: &Side| {
            let mut parameters = side.parameters(&self.position);
            parameters.gate.top_k = None;
            parameters
        };
        let (teacher, student) = (dense(&self.competition), dense(&self.router));
        let (mut taught, mut learnt) = (Point::new(&teacher), Point::new(&student));
        let count = teacher.experts.len();
        let trained = self.position.len() - self.competition.layout.len();
        let mut batch = Batch::new(trained);
        let dimension = data.dimension();
        let mut features = vec![1.0; dimension + 1];
        for n in rows {
            let y = data.read_row(n, &mut features[..dimension]);
            let x = &features[..dimension];
            taught.observe(&teacher, x, y);
            learnt.observe(&student, x, y);
            let target: Vec<f64> = taught.atoms.iter().map(|a| a.weight).collect();
            let weights: Vec<f64> = learnt.atoms.iter().map(|a| a.weight).collect();
            let means: Vec<f64> = taught.atoms.iter().map(|a| a.mean).collect();
            let winners = self.competition.template.selection(x, &means);
            let (slope, bend) = self.loss.derivatives(&target, &weights, &winners);
            batch.rows += 1.0;
            // The last expert is the origin.
            for i in 0..count.min(trained / (dimension + 1)) {
                for (a, fa) in features.iter().enumerate() {
                    let row = i * (dimension + 1) + a;
                    batch.gradient[row] += slope[i] * fa;
                    for j in 0..trained / (dimension + 1) {
                        for (b, fb) in features.iter().enumerate() {
                            let column = j * (dimension + 1) + b;
                            batch.curvature[[row, column]] += bend[[i, j]] * fa * fb;
                        }
                    }
                }
            }
        }
        batch
    }

    fn distilled(&self, position: Array1<f64>, stop: Stop, taken: [usize; 2]) -> Distilled {
        Distilled {
            router: self.router.parameters(&position),
            competition: self.competition.parameters(&position),
            stop,
            competition_steps: taken[0],
            router_steps: taken[1],
        }
    }
}

impl DistillationLoss {
    /// Gradient and Gauss-Newton matrix in the router's scores.
    fn derivatives(
        self,
        target: &[f64],
        weights: &[f64],
        winners: &[bool],
    ) -> (Vec<f64>, Array2<f64>) {
        let count = weights.len();
        let spread =
            |i: usize, j: usize| weights[i] * (if i == j { 1.0 } else { 0.0 } - weights[j]);
        match self {
            DistillationLoss::KullbackLeibler => (
                weights.iter().zip(target).map(|(w, t)| w - t).collect(),
                Array2::from_shape_fn((count, count), |(i, j)| spread(i, j)),
            ),
            DistillationLoss::Hybrid { alpha } => {
                let kept = winners.iter().filter(|w| **w).count().max(1) as f64;
                let importance = |j: usize| {
                    2.0 / count as f64 + if winners[j] { 2.0 * alpha / kept } else { 0.0 }
                };
                let slope = (0..count).map(|i| {
                    let of = |j: usize| importance(j) * (weights[j] - target[j]) * spread(j, i);
                    (0..count).map(of).sum()
                });
                let bend = Array2::from_shape_fn((count, count), |(i, k)| {
                    let of = |j: usize| importance(j) * spread(j, i) * spread(j, k);
                    (0..count).map(of).sum()
                });
                (slope.collect(), bend)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_has_the_derivatives_of_its_formula() {
        let target = [0.5, 0.2, 0.3];
        let winners = [true, false, true];
        let softmax = |z: &[f64]| -> Vec<f64> {
            let total: f64 = z.iter().map(|v| v.exp()).sum();
            z.iter().map(|v| v.exp() / total).collect()
        };
        let scores = [0.3, -0.4, 0.9];
        for loss in [
            DistillationLoss::Hybrid { alpha: 0.2 },
            DistillationLoss::KullbackLeibler,
        ] {
            let value = |z: &[f64]| -> f64 {
                let s = softmax(z);
                match loss {
                    DistillationLoss::Hybrid { alpha } => {
                        let square = |j: usize| (s[j] - target[j]).powi(2);
                        let all: f64 = (0..3).map(square).sum();
                        all / 3.0 + 0.5 * alpha * (square(0) + square(2))
                    }
                    DistillationLoss::KullbackLeibler => {
                        (0..3).map(|j| target[j] * (target[j] / s[j]).ln()).sum()
                    }
                }
            };
            let (slope, bend) = loss.derivatives(&target, &softmax(&scores), &winners);
            let step = 1e-5;
            for i in 0..3 {
                let [mut up, mut down] = [scores; 2];
                up[i] += step;
                down[i] -= step;
                let difference = (value(&up) - value(&down)) / (2.0 * step);
                assert!((slope[i] - difference).abs() < 1e-9, "{loss:?}");
                assert!(bend[[i, i]] > 0.0);
                // A common shift of the scores changes nothing.
                assert!(bend.row(i).sum().abs() < 1e-12);
            }
        }
    }
}
