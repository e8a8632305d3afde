//! One replicate: its sample, its fit, its row.

use super::column::Loss;
use super::constants::inverse_diagonal;
use super::estimate::{Estimated, estimate, is_success};
use super::plan::{Cell, Plan, PlannedTruth};
use super::row::{Row, StartOutcome};
use super::study::Study;
use crate::backend::{Backend, Cpu};
use crate::error::Result;
use crate::fit::{Bounds, MultiStart};
use crate::loss::alignment::aligned;
use crate::loss::coordinate::cell_error;
use crate::loss::density::{DensityDistance, Effort, density_distance};
use crate::loss::divergence::Wanted;
use crate::loss::selection::selection_error;
use crate::loss::voronoi::voronoi_loss;
use crate::model::Parameters;
use crate::rng::{Purpose, Stream};
use std::time::Instant;

/// Quasi-Monte-Carlo over inputs of several dimensions stops at a relative error
/// far below the spread of a loss over replicates.
pub(super) const EFFORT: Effort = Effort {
    relative_error: 1e-3,
    max_points: 1 << 10,
};

/// One replicate with all that led to its row, for `replay`.
#[derive(Debug)]
pub struct Replay {
    /// The row.
    pub row: Row,
    /// Every start's outcome.
    pub outcomes: MultiStart,
}

/// Computes the row of one replicate.
///
/// # Errors
/// As [`replay`].
pub fn replicate(plan: &Plan, cell: &Cell, replicate: u64) -> Result<Row> {
    Ok(replay(plan, cell, replicate)?.row)
}

/// Computes one replicate and keeps every start's outcome.
///
/// # Errors
/// [`crate::error::Error::Value`] if a start does not fit the study; how a fit ends is in the
/// row, never an error.
pub fn replay(plan: &Plan, cell: &Cell, replicate: u64) -> Result<Replay> {
    replay_with(&Cpu::new(), plan, cell, replicate)
}

/// [`replay`] with passes on `backend`.
pub(super) fn replay_with(
    backend: &dyn Backend,
    plan: &Plan,
    cell: &Cell,
    replicate: u64,
) -> Result<Replay> {
    let clock = Instant::now();
    let streams = Streams {
        plan,
        cell,
        replicate,
    };
    let truth = &plan.truths[cell.truth];
    let estimated = estimate(backend, truth, cell, &streams.data(), |k| streams.start(k))?;
    let fitted = fitted(truth, &estimated.outcomes);
    let distance = fitted
        .as_ref()
        .and_then(|fitted| wanted_distance(&plan.study).map(|wanted| (fitted, wanted)))
        .map(|(fitted, wanted)| density_distance(&truth.model, fitted, wanted, EFFORT))
        .transpose()?;
    let mut row = row_of(plan, cell, replicate, &estimated, distance)?;
    row.seconds = clock.elapsed().as_secs_f64();
    Ok(Replay {
        row,
        outcomes: estimated.outcomes,
    })
}

/// The random streams of one replicate.
pub(super) struct Streams<'a> {
    pub plan: &'a Plan,
    pub cell: &'a Cell,
    pub replicate: u64,
}

impl Streams<'_> {
    fn named(&self, name: &str, purpose: Purpose) -> Stream {
        Stream::named(self.plan.study.seed, name, self.replicate, purpose)
    }

    /// The sample's: cells that differ in nothing but the estimator share it.
    pub fn data(&self) -> Stream {
        self.named(&self.cell.data_name, Purpose::Data)
    }

    /// That of start k.
    pub fn start(&self, k: usize) -> Stream {
        self.named(&self.cell.name, Purpose::Start(k as u32))
    }
}

/// The best fit, its experts in the order of the truth's; `None` if it has no finite
/// likelihood.
pub(super) fn fitted(truth: &PlannedTruth, outcomes: &MultiStart) -> Option<Parameters> {
    let best = outcomes.best();
    best.log_likelihood.is_finite().then(|| {
        let aligned = aligned(&best.parameters, &truth.own.parameters);
        aligned.unwrap_or_else(|| best.parameters.clone())
    })
}

/// What must be computed of the distance between densities, if anything.
pub(super) fn wanted_distance(study: &Study) -> Option<Wanted> {
    let of_density = study.losses.iter().any(|loss| loss.is_of_density());
    of_density.then(|| match study.losses.contains(&Loss::TvMean) {
        true => Wanted::All,
        false => Wanted::Smooth,
    })
}

/// The row of one fit, given its distance from the truth if the study wants it;
/// `seconds` is left 0.
pub(super) fn row_of(
    plan: &Plan,
    cell: &Cell,
    replicate: u64,
    estimated: &Estimated,
    distance: Option<DensityDistance>,
) -> Result<Row> {
    let outcomes = &estimated.outcomes;
    let study = &plan.study;
    let truth = &plan.truths[cell.truth];
    let best = outcomes.best();
    let starts: Vec<String> = cell
        .starts
        .iter()
        .zip(&outcomes.outcomes)
        .map(|(start, o)| {
            let passes = o.effort.rows as f64 / estimated.rows as f64;
            StartOutcome {
                name: &start.name(),
                log_likelihood: o.log_likelihood,
                stop: o.stop.name(),
                passes,
            }
            .to_string()
        })
        .collect();
    let on_bound: Vec<String> = best.on_bound.iter().map(ToString::to_string).collect();
    let detail = best.stop.to_string();
    let work: usize = outcomes.outcomes.iter().map(|o| o.effort.rows).sum();
    let fitted = fitted(truth, outcomes);
    let losses = match &fitted {
        Some(fitted) => losses(study, truth, fitted, distance)?,
        None => vec![f64::NAN; study.losses.len()],
    };
    let fitted = fitted.unwrap_or_else(|| best.parameters.clone());
    let parameters = match study.record_parameters {
        true => fitted.layout().pack(&fitted),
        false => Vec::new(),
    };
    let standard_errors = study
        .record_standard_errors
        .then(|| standard_errors(&fitted, estimated, &truth.bounds))
        .transpose()?;
    Ok(Row {
        study: plan.hash.clone(),
        cell: cell.name.clone(),
        replicate,
        n: cell.n,
        stop: best.stop.name().to_string(),
        converged: is_success(truth, &best.stop),
        detail: if detail == best.stop.name() {
            String::new()
        } else {
            detail
        },
        starts: starts.join("; "),
        em: best.effort.em,
        gradient: best.effort.gradient,
        newton: best.effort.newton,
        passes: work as f64 / estimated.rows as f64,
        scaled_score: best.scaled_score,
        on_bound: on_bound.join(" "),
        log_likelihood: best.log_likelihood,
        log_likelihood_truth: estimated.log_likelihood_truth,
        losses,
        information_distance: truth.regularity.information_distance(&fitted, cell.n),
        parameters,
        standard_errors,
        seconds: 0.0,
    })
}

/// Square roots of the diagonal of the inverse observed information, over the
/// coordinates that are neither fixed nor on the boundary; NaN for the others, and
/// for all where the information is not positive definite. The information is that
/// of what the estimator saw: of labels too, where it was told them.
fn standard_errors(
    fitted: &Parameters,
    estimated: &Estimated,
    bounds: &Bounds,
) -> Result<Vec<f64>> {
    let packed = fitted.layout().pack(fitted);
    let derivatives = (estimated.derivatives)(fitted)?;
    let information = -derivatives.hessian;
    let free = |j: &usize| !bounds.is_pinned(*j) && !bounds.is_at_bound(&packed, *j);
    let free: Vec<usize> = (0..packed.len()).filter(free).collect();
    let variances = inverse_diagonal(&information, &free);
    Ok(variances.into_iter().map(f64::sqrt).collect())
}

/// The study's losses of one fit.
fn losses(
    study: &Study,
    truth: &PlannedTruth,
    fitted: &Parameters,
    distance: Option<DensityDistance>,
) -> Result<Vec<f64>> {
    study
        .losses
        .iter()
        .map(|loss| match (loss, &distance) {
            (Loss::HellingerMean, Some(d)) => Ok(d.hellinger.value),
            (Loss::HellingerSqMean, Some(d)) => Ok(d.hellinger_sq.value),
            (Loss::TvMean, Some(d)) => Ok(d.total_variation.value),
            (Loss::KlMean, Some(d)) => Ok(d.kullback_leibler.value),
            (Loss::Selection, _) => selection_error(fitted, &truth.own),
            (Loss::Cell(quantity, expert), _) => Ok(cell_error(
                *quantity,
                *expert,
                fitted,
                &truth.own.parameters,
            )),
            (loss, _) => {
                let voronoi = loss
                    .voronoi(truth.own.parameters.gate.kind)
                    .expect("what is left are Voronoi losses");
                voronoi_loss(voronoi, fitted, &truth.own)
            }
        })
        .collect()
}
