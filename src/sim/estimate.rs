//! One sample, one estimator: what a replicate computes before it is measured.

use super::plan::{Cell, PlannedTruth};
use super::study::Labels;
use crate::backend::{Backend, Cpu, Derivatives, Labelled};
use crate::error::Result;
use crate::fit::{self, DistillationOptions, Effort, MultiStart, Outcome, StartContext, Stop};
use crate::model::{Data, Parameters, draw_labelled_sample, draw_sample};
use crate::rng::Stream;

/// What the estimator made of a sample.
pub(super) struct Estimated<'a> {
    /// Stored rows of the sample.
    pub rows: usize,
    /// Every start's outcome.
    pub outcomes: MultiStart,
    /// The log-likelihood of the truth, of the kind that the outcomes have.
    pub log_likelihood_truth: f64,
    /// The derivatives of the log-likelihood of what the estimator saw: labels too,
    /// where it was told them.
    pub derivatives: DerivativesAt<'a>,
}

/// The log-likelihood of one sample with its derivatives, as a function of parameters.
pub(super) type DerivativesAt<'a> = Box<dyn Fn(&Parameters) -> Result<Derivatives> + Sync + 'a>;

/// Draws the sample of a cell's replicate and fits it, with passes on `backend`
/// where the estimator sees pairs alone. `start(k)` is the stream of start k.
///
/// # Errors
/// As [`fit::fit`] and [`fit::labelled_maximum`].
pub(super) fn estimate<'a>(
    backend: &'a dyn Backend,
    truth: &'a PlannedTruth,
    cell: &Cell,
    data: &Stream,
    start: impl Fn(usize) -> Stream,
) -> Result<Estimated<'a>> {
    let rows = cell.n as usize;
    if let Some(options) = truth.fit.distillation_options() {
        return distilled(truth, cell, &options, data, start);
    }
    match truth.fit.labels {
        Labels::Hidden => {
            let data = draw_sample(&truth.model, 0, rows, data);
            let context = context(truth, &data);
            let options = truth.fit.options();
            let outcomes = fit::fit(backend, context, &cell.starts, start, &options)?;
            Ok(Estimated {
                rows: data.len(),
                outcomes,
                log_likelihood_truth: backend.log_likelihood(&truth.model.parameters, &data),
                derivatives: Box::new(move |at| Ok(backend.derivatives(at, &data))),
            })
        }
        Labels::Known => {
            let (data, labels) = draw_labelled_sample(&truth.model, 0, rows, data)?;
            let context = context(truth, &data);
            let newton = truth.fit.newton();
            let from = |(k, s): (usize, &fit::Start)| {
                let from = s.parameters(context, &start(k))?;
                fit::labelled_maximum(&data, &labels, &from, &truth.bounds, newton)
            };
            let outcomes = cell.starts.iter().enumerate().map(from);
            let outcomes = MultiStart::new(outcomes.collect::<Result<_>>()?);
            let experts = truth.own.parameters.experts.len();
            let log_likelihood_truth = Labelled::new(&data, &labels, experts)?
                .log_likelihood(&truth.own.parameters, &data);
            Ok(Estimated {
                rows: data.len(),
                outcomes,
                log_likelihood_truth,
                derivatives: Box::new(move |at| {
                    let labelled = Labelled::new(&data, &labels, at.experts.len())?;
                    Ok(labelled.derivatives(at, &data))
                }),
            })
        }
    }
}

/// Trains a router on the sample in its order; the first start begins it, and its
/// stream tosses the coins.
fn distilled<'a>(
    truth: &PlannedTruth,
    cell: &Cell,
    options: &DistillationOptions,
    data: &Stream,
    start: impl Fn(usize) -> Stream,
) -> Result<Estimated<'a>> {
    let data = draw_sample(&truth.model, 0, cell.n as usize, data);
    let stream = start(0);
    let from = cell.starts[0].parameters(context(truth, &data), &stream)?;
    let distilled = fit::distil(&data, &from, &truth.fit.limits, options, &stream)?;
    let outcome = Outcome {
        log_likelihood: Cpu::new().log_likelihood(&distilled.router, &data),
        parameters: distilled.router,
        stop: distilled.stop,
        scaled_score: f64::NAN,
        on_bound: Vec::new(),
        effort: Effort {
            gradient: distilled.competition_steps + distilled.router_steps,
            rows: data.len(),
            ..Effort::default()
        },
    };
    Ok(Estimated {
        rows: data.len(),
        outcomes: MultiStart::new(vec![outcome]),
        log_likelihood_truth: Cpu::new().log_likelihood(&truth.model.parameters, &data),
        derivatives: Box::new(move |at| Ok(Cpu::new().derivatives(at, &data))),
    })
}

/// What the starts of a truth's fits may look at.
pub(super) fn context<'a>(truth: &'a PlannedTruth, data: &'a Data) -> StartContext<'a> {
    StartContext {
        template: &truth.template,
        truth: Some(&truth.template),
        data,
        bounds: &truth.bounds,
    }
}

/// True if a fit ended as its estimator is meant to: at a certified maximum; where
/// nothing follows the method, by the method's own rule; after its one pass.
pub(super) fn is_success(truth: &PlannedTruth, stop: &Stop) -> bool {
    let by_rule = matches!(stop, Stop::SmallGain | Stop::PassCompleted);
    stop.is_converged() || (by_rule && truth.fit.ends_by_its_own_rule())
}
