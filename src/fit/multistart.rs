//! One estimator run, and many.

use super::boundary::search;
use super::bounds::Bounds;
use super::em::{EmOptions, GainMeasure, GateStep, expectation_maximisation};
use super::gradient::{GradientOptions, quasi_newton};
use super::newton::{NewtonOptions, polish};
use super::outcome::{Effort, Outcome, Stop};
use super::start::{Start, StartContext};
use crate::backend::Backend;
use crate::error::Result;
use crate::model::{Data, Parameters};
use crate::rng::Stream;
use serde::{Deserialize, Serialize};

/// How the way from the start to the basin of a maximum is gone; the polish then
/// finishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Expectation maximisation.
    Em,
    /// L-BFGS.
    Gradient,
}

/// What follows the method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Polish {
    /// Newton to a certified maximum.
    Newton(NewtonOptions),
    /// Nothing: the estimate is where the method's own rule stops it, as in the
    /// published simulations. A fit that did ends [`Stop::SmallGain`].
    None,
}

impl Default for Polish {
    fn default() -> Self {
        Polish::Newton(NewtonOptions::default())
    }
}

/// An estimator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The method before the polish.
    pub method: Method,
    /// Iteration limit of that method.
    pub max_iterations: usize,
    /// That method stops when an iteration gains less log-likelihood than this.
    pub gain: f64,
    /// The unit of `gain` for [`Method::Em`]; L-BFGS counts total gains.
    pub gain_measure: GainMeasure,
    /// How far the gate goes in one EM iteration.
    pub gate_step: GateStep,
    /// If there are more rows than this, starts, method and polish run first on
    /// this many leading rows (a random subset, for independent rows), then the
    /// polish on all; without a polish there is no pilot.
    pub pilot_rows: Option<usize>,
    /// What follows the method.
    pub polish: Polish,
}

impl Options {
    /// The estimator of the published simulations of softmax gating: exact EM
    /// without a polish, stopped when an iteration changes the log-likelihood by
    /// less than 1e-6 in the unit given, or after 2000 iterations (arXiv
    /// 2305.03288, 2510.12744: [`GainMeasure::Relative`]; 2309.13850:
    /// [`GainMeasure::Mean`]).
    pub fn published(gain_measure: GainMeasure) -> Self {
        Options {
            method: Method::Em,
            max_iterations: 2000,
            gain: 1e-6,
            gain_measure,
            gate_step: GateStep::ToMaximum,
            pilot_rows: None,
            polish: Polish::None,
        }
    }
}

/// Two EM iterations, then the polish, on 2000 rows first: from poor starts (least squares in parts
/// with 40 % wrong labels, random lines) this reaches the maximum that EM alone
/// reaches, as often, in 10 to 20 passes instead of 30 to 200.
impl Default for Options {
    fn default() -> Self {
        Options {
            method: Method::Em,
            max_iterations: 2,
            gain: 0.1,
            gain_measure: GainMeasure::default(),
            gate_step: GateStep::default(),
            pilot_rows: Some(2_000),
            polish: Polish::default(),
        }
    }
}

/// The leading rows on which a fit begins, if there are more and the options ask
/// for it. Leading rows are a random subset, leading cells of counts are not.
fn pilot(data: &Data, options: &Options) -> Option<(Data, NewtonOptions)> {
    let rows = options.pilot_rows.filter(|&rows| rows < data.len())?;
    match options.polish {
        Polish::Newton(newton) if data.counts().is_none() => Some((data.head(rows), newton)),
        _ => None,
    }
}

/// The start itself as the outcome, if there are not more rows than parameters.
pub(super) fn too_few_rows(
    backend: &dyn Backend,
    data: &Data,
    start: &Parameters,
    bounds: &Bounds,
) -> Option<Outcome> {
    (data.sample_size() <= bounds.dimension() as f64).then(|| Outcome {
        parameters: start.clone(),
        log_likelihood: backend.log_likelihood(start, data),
        stop: Stop::TooFewRows,
        scaled_score: f64::NAN,
        on_bound: Vec::new(),
        effort: Effort::default(),
    })
}

/// Runs the estimator from one starting point.
pub fn maximise(
    backend: &dyn Backend,
    data: &Data,
    start: &Parameters,
    bounds: &Bounds,
    options: &Options,
) -> Outcome {
    if let Some(refused) = too_few_rows(backend, data, start, bounds) {
        return refused;
    }
    let mut spent = Effort::default();
    if let Some((head, newton)) = pilot(data, options) {
        let first = maximise(backend, &head, start, bounds, options);
        // A pilot that did not end at a maximum says nothing about where one is.
        if first.stop.is_converged() {
            let mut outcome = finish(backend, data, &first.parameters, bounds, newton);
            outcome.effort += first.effort;
            return outcome;
        }
        spent = first.effort;
    }
    let near = match options.method {
        Method::Em => {
            let stop = EmOptions {
                max_iterations: options.max_iterations,
                gain: options.gain,
                gain_measure: options.gain_measure,
                gate_step: options.gate_step,
            };
            expectation_maximisation(backend, data, start, bounds, stop)
        }
        Method::Gradient => {
            let stop = GradientOptions {
                max_iterations: options.max_iterations,
                gain: options.gain,
            };
            quasi_newton(backend, data, start, bounds, stop)
        }
    };
    if matches!(near.stop, Stop::NonFinite { .. } | Stop::Singular { .. }) {
        return near;
    }
    let Polish::Newton(newton) = options.polish else {
        return near;
    };
    let mut outcome = finish(backend, data, &near.parameters, bounds, newton);
    outcome.effort += near.effort;
    outcome.effort += spent;
    outcome
}

/// The polish, then the search along the boundaries of a top-K mixture.
fn finish(
    backend: &dyn Backend,
    data: &Data,
    near: &Parameters,
    bounds: &Bounds,
    newton: NewtonOptions,
) -> Outcome {
    let polished = polish(backend, data, near, bounds, newton);
    search(backend, data, bounds, newton, polished)
}

/// The outcomes of several starts.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStart {
    /// One per start, in the order of the starts.
    pub outcomes: Vec<Outcome>,
    /// Index of the largest log-likelihood; the first among equals.
    pub best: usize,
}

impl MultiStart {
    /// The outcomes, at least one, with the best of them marked.
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        let mut best = 0;
        for k in 1..outcomes.len() {
            if is_better(&outcomes[k], &outcomes[best]) {
                best = k;
            }
        }
        MultiStart { outcomes, best }
    }

    /// The outcome with the largest log-likelihood.
    pub fn best(&self) -> &Outcome {
        &self.outcomes[self.best]
    }
}

/// Runs the estimator from every start and keeps every outcome.
///
/// `stream(k)` is the random stream of start k. With a pilot, starts are made
/// and climbed on the leading rows first; those that reach the same pilot
/// maximum share one polish on all rows. An outcome that is not finite never
/// counts as best while another is.
///
/// # Errors
/// As [`Start::parameters`].
pub fn fit(
    backend: &dyn Backend,
    context: StartContext,
    starts: &[Start],
    stream: impl Fn(usize) -> Stream,
    options: &Options,
) -> Result<MultiStart> {
    let full = context.data;
    let head = pilot(full, options);
    let context = StartContext {
        data: head.as_ref().map_or(full, |(head, _)| head),
        ..context
    };
    let first = starts
        .iter()
        .enumerate()
        .map(|(k, start)| {
            let from = start.parameters(context, &stream(k))?;
            Ok(maximise(
                backend,
                context.data,
                &from,
                context.bounds,
                options,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let outcomes = match head {
        None => first,
        Some((_, newton)) => polish_distinct(backend, full, context.bounds, newton, first),
    };
    Ok(MultiStart::new(outcomes))
}

/// Log-likelihoods that differ by less are those of one maximum: two different
/// maxima agree so closely with probability 0, two labellings of one always.
const SAME: f64 = 1e-6;

/// A larger log-likelihood is better; among equals, a certified one. One that is
/// not a number is worse than any.
fn is_better(a: &Outcome, b: &Outcome) -> bool {
    let value = |o: &Outcome| match o.log_likelihood.is_nan() {
        true => f64::NEG_INFINITY,
        false => o.log_likelihood,
    };
    let gain = value(a) - value(b);
    if gain.abs() < SAME && a.stop.is_converged() != b.stop.is_converged() {
        return a.stop.is_converged();
    }
    gain > 0.0
}

/// Polishes pilot outcomes on all rows, each distinct maximum once.
fn polish_distinct(
    backend: &dyn Backend,
    data: &Data,
    bounds: &Bounds,
    newton: NewtonOptions,
    pilots: Vec<Outcome>,
) -> Vec<Outcome> {
    let twins = twins(&pilots);
    let ends = distinct(&pilots, &twins)
        .map(|pilot| finish(backend, data, &pilot.parameters, bounds, newton))
        .collect();
    shared_out(pilots, &twins, ends)
}

/// For each pilot outcome of one sample the first that is the same maximum, if that is
/// an earlier one.
pub(super) fn twins(pilots: &[Outcome]) -> Vec<Option<usize>> {
    let twin = |k: usize| (0..k).find(|&j| same_maximum(&pilots[j], &pilots[k]));
    (0..pilots.len()).map(twin).collect()
}

/// The pilot outcomes without an earlier twin.
pub(super) fn distinct<'a>(
    pilots: &'a [Outcome],
    twins: &'a [Option<usize>],
) -> impl Iterator<Item = &'a Outcome> {
    let pairs = pilots.iter().zip(twins);
    pairs
        .filter(|(_, twin)| twin.is_none())
        .map(|(pilot, _)| pilot)
}

/// The outcomes of all starts from those, `ends`, of the distinct pilots: twins share
/// one, whose work counts once.
pub(super) fn shared_out(
    pilots: Vec<Outcome>,
    twins: &[Option<usize>],
    ends: Vec<Outcome>,
) -> Vec<Outcome> {
    let mut ends = ends.into_iter();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(pilots.len());
    for (pilot, twin) in pilots.into_iter().zip(twins) {
        let mut outcome = match *twin {
            Some(j) => Outcome {
                effort: Effort::default(),
                ..outcomes[j].clone()
            },
            None => ends.next().expect("one end per distinct pilot"),
        };
        outcome.effort += pilot.effort;
        outcomes.push(outcome);
    }
    outcomes
}

/// True if two certified outcomes are the same maximum.
fn same_maximum(a: &Outcome, b: &Outcome) -> bool {
    a.stop.is_converged()
        && b.stop.is_converged()
        && (a.log_likelihood - b.log_likelihood).abs() < SAME
}
