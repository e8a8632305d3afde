//! Replicates on a GPU: a cell's samples drawn, fitted and measured many at a time.

use super::device::DeviceDivergences;
use super::estimate::Estimated;
use super::plan::{Cell, Plan, PlannedTruth};
use super::replicate::{EFFORT, Streams, fitted, replay_with, row_of, wanted_distance};
use super::row::Row;
use super::study::Labels;
use crate::backend::Derivatives;
use crate::backend::cuda::{Cuda, Replicates, Sampling};
use crate::error::{Error, Result};
use crate::fit::{Batch, Effort, MultiStart, Outcome, Stop, has_jumps, most_samples};
use crate::loss::density::{DensityDistance, density_distances};
use crate::model::draw_sample;
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use std::time::Instant;

/// What computes rows.
#[derive(Debug)]
pub enum Engine {
    /// The processor: rows are the same bits on every machine of its kind.
    Processor,
    /// A GPU: rows agree with the processor's to the certificate of their fits.
    Gpu(Cuda),
}

/// Most replicates of a batch: it is the unit in which a run can be resumed.
const MOST_REPLICATES: usize = 1024;

/// What a device does for a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything, of many replicates at once: dense mixtures of as many experts as the
    /// truth has, whose likelihood is smooth or kinked around its maximum.
    Batches,
    /// The passes over data; the processor decides: other estimators, kept sets that
    /// change, near-equal experts, whose ridges ask for curved steps.
    Passes,
    /// Nothing: estimators that see more than pairs, and fits of many small passes:
    /// counts with near-equal experts, and the search where a likelihood jumps.
    Nothing,
}

/// The device's part in the fits of a cell.
pub(super) fn part(plan: &Plan, cell: &Cell) -> Part {
    let truth = &plan.truths[cell.truth];
    let template = &truth.template;
    let sees_pairs = truth.fit.labels == Labels::Hidden && truth.fit.distillation.is_none();
    let over_specified = template.experts.len() != truth.own.parameters.experts.len();
    let counts = truth.model.input.is_lattice();
    if !sees_pairs || has_jumps(template) || (over_specified && counts) {
        return Part::Nothing;
    }
    let plain = !over_specified && !template.is_sparse();
    let enough = cell.n > truth.bounds.dimension() as u64;
    match plain && enough && Batch::takes(&truth.fit.options()) {
        true => Part::Batches,
        false => Part::Passes,
    }
}

/// One replicate with its passes on the device.
///
/// # Errors
/// As [`super::replicate::replay`]; [`Error::Device`].
pub(super) fn replicate(plan: &Plan, cell: &Cell, replicate: u64, cuda: &Cuda) -> Result<Row> {
    let row = replay_with(cuda, plan, cell, replicate)?.row;
    match cuda.failure() {
        None => Ok(row),
        Some(error) => out_of_memory_row(plan, cell, replicate, error),
    }
}

/// The rows of some replicates of a cell, in batches as large as memory allows.
///
/// # Errors
/// As [`super::replicate::replay`]; [`Error::Device`].
pub(super) fn batch_rows(
    plan: &Plan,
    cell: &Cell,
    replicates: &[u64],
    cuda: &Cuda,
    pool: &rayon::ThreadPool,
    mut write: impl FnMut(Row) -> Result<()>,
) -> Result<()> {
    let truth = &plan.truths[cell.truth];
    let mut left = replicates;
    let sampling = match truth.model.input.is_lattice() {
        true => Sampling::Counts,
        false => Sampling::Rows,
    };
    let most = most_samples(
        cuda,
        &truth.template,
        sampling,
        cell.n as usize,
        cell.starts.len(),
        &truth.fit.options(),
    );
    let mut size = match most {
        Ok(most) => most.min(MOST_REPLICATES),
        // It fails below, replicate by replicate: rows say what was missing.
        Err(Error::OutOfMemory { .. }) => 1,
        Err(error) => return Err(error),
    };
    while !left.is_empty() {
        let (now, rest) = left.split_at(size.clamp(1, left.len()));
        let clock = Instant::now();
        match pool.install(|| batch(plan, cell, now, cuda)) {
            Ok(rows) => {
                let seconds = clock.elapsed().as_secs_f64() / now.len() as f64;
                for row in rows {
                    write(Row { seconds, ..row })?;
                }
                left = rest;
            }
            // The plan was too bold: memory is in pieces, or others use it.
            Err(Error::OutOfMemory { .. }) if now.len() > 1 => size = now.len() / 2,
            Err(error) => {
                write(out_of_memory_row(plan, cell, now[0], error)?)?;
                left = rest;
            }
        }
    }
    Ok(())
}

/// The row of a replicate that the device has no memory for; any other failure of a
/// device ends the run.
fn out_of_memory_row(plan: &Plan, cell: &Cell, replicate: u64, error: Error) -> Result<Row> {
    let Error::OutOfMemory { needed, free } = error else {
        return Err(error);
    };
    let truth = &plan.truths[cell.truth];
    let outcome = Outcome {
        parameters: truth.template.clone(),
        log_likelihood: f64::NAN,
        stop: Stop::OutOfMemory { needed, free },
        scaled_score: f64::NAN,
        on_bound: Vec::new(),
        effort: Effort::default(),
    };
    let estimated = Estimated {
        rows: cell.n as usize,
        outcomes: MultiStart::new(vec![outcome; cell.starts.len()]),
        log_likelihood_truth: f64::NAN,
        derivatives: Box::new(|at| Ok(unknown_derivatives(at.layout().len()))),
    };
    row_of(plan, cell, replicate, &estimated, None)
}

fn unknown_derivatives(size: usize) -> Derivatives {
    Derivatives {
        log_likelihood: f64::NAN,
        gradient: Array1::from_elem(size, f64::NAN),
        hessian: Array2::from_elem((size, size), f64::NAN),
    }
}

/// The rows of replicates that fit into memory together.
fn batch(plan: &Plan, cell: &Cell, replicates: &[u64], cuda: &Cuda) -> Result<Vec<Row>> {
    let truth = &plan.truths[cell.truth];
    let samples = samples(plan, cell, replicates, cuda)?;
    let outcomes = fits(plan, cell, replicates, cuda, &samples)?;
    let of_truth: Vec<_> = (0..replicates.len())
        .map(|s| (s, &truth.model.parameters))
        .collect();
    let at_truth = cuda.log_likelihoods(&samples, &of_truth)?;
    let estimated: Vec<Estimated> = outcomes
        .into_iter()
        .zip(at_truth)
        .enumerate()
        .map(|(s, (outcomes, log_likelihood_truth))| Estimated {
            rows: samples.rows(),
            outcomes,
            log_likelihood_truth,
            derivatives: {
                let samples = &samples;
                Box::new(move |at| cuda.derivatives_at(samples, s, at))
            },
        })
        .collect();
    let distances = distances(plan, truth, cuda, &estimated)?;
    replicates
        .par_iter()
        .zip(&estimated)
        .zip(distances)
        .map(|((&replicate, estimated), distance)| {
            row_of(plan, cell, replicate, estimated, distance)
        })
        .collect()
}

/// The samples of some replicates, on the device.
fn samples(plan: &Plan, cell: &Cell, replicates: &[u64], cuda: &Cuda) -> Result<Replicates> {
    let truth = &plan.truths[cell.truth];
    let stream = |&replicate: &u64| {
        let streams = Streams {
            plan,
            cell,
            replicate,
        };
        streams.data()
    };
    if !truth.model.input.is_lattice() {
        let streams: Vec<_> = replicates.iter().map(stream).collect();
        return cuda.draw(&truth.model, cell.n as usize, &streams);
    }
    // A lattice has a few hundred counts, drawn one after another.
    let data: Vec<_> = replicates
        .par_iter()
        .map(|replicate| draw_sample(&truth.model, 0, cell.n as usize, &stream(replicate)))
        .collect();
    cuda.upload(&data)
}

/// The fits of a cell's samples.
fn fits(
    plan: &Plan,
    cell: &Cell,
    replicates: &[u64],
    cuda: &Cuda,
    samples: &Replicates,
) -> Result<Vec<MultiStart>> {
    let truth = &plan.truths[cell.truth];
    let streams = |sample: usize| Streams {
        plan,
        cell,
        replicate: replicates[sample],
    };
    let head = |sample: usize, rows: usize| {
        let rows = match truth.model.input.is_lattice() {
            true => cell.n as usize,
            false => rows,
        };
        draw_sample(&truth.model, 0, rows, &streams(sample).data())
    };
    let batch = Batch {
        cuda,
        replicates: samples,
        template: &truth.template,
        truth: Some(&truth.template),
        bounds: &truth.bounds,
        sample_size: cell.n as f64,
        options: &truth.fit.options(),
        head: &head,
    };
    batch.fit(&cell.starts, |sample, k| streams(sample).start(k))
}

/// The distances between the truth's density and each fit's, where the study wants
/// them and there is a fit.
fn distances(
    plan: &Plan,
    truth: &PlannedTruth,
    cuda: &Cuda,
    estimated: &[Estimated],
) -> Result<Vec<Option<DensityDistance>>> {
    let Some(wanted) = wanted_distance(&plan.study) else {
        return Ok(vec![None; estimated.len()]);
    };
    let fits: Vec<_> = estimated
        .iter()
        .map(|e| fitted(truth, &e.outcomes))
        .collect();
    let pairs: Vec<_> = fits
        .iter()
        .flatten()
        .map(|fit| (&truth.model, fit))
        .collect();
    let evaluator = DeviceDivergences(cuda.comparer());
    let found = density_distances(&pairs, wanted, EFFORT, &evaluator)?;
    let mut found = found.into_iter();
    Ok(fits
        .iter()
        .map(|fit| fit.as_ref().and_then(|_| found.next()))
        .collect())
}
