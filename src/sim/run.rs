//! Runs what is missing.

use super::column::Loss;
use super::constants::inverse_diagonal;
use super::estimate::{Estimated, estimate, is_success};
use super::plan::{Cell, Plan, PlannedTruth};
use super::row::{Row, RowFile, StartOutcome};
use super::shard::Shard;
use super::study::Study;
use crate::backend::{Backend, Cpu, Labelled};
use crate::error::{Error, Result};
use crate::fit::{Bounds, MultiStart};
use crate::loss::alignment::aligned;
use crate::loss::coordinate::cell_error;
use crate::loss::density::{DensityDistance, Effort, density_distance};
use crate::loss::divergence::Wanted;
use crate::loss::selection::selection_error;
use crate::loss::voronoi::voronoi_loss;
use crate::model::Parameters;
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::mpsc;
use std::time::Instant;

/// Quasi-Monte-Carlo over inputs of several dimensions stops at a relative error
/// far below the spread of a loss over replicates.
const EFFORT: Effort = Effort {
    relative_error: 1e-3,
    max_points: 1 << 10,
};

/// What to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Threads; `None` takes all cores.
    pub jobs: Option<usize>,
    /// Runs only cells whose name contains this.
    pub only: Option<String>,
    /// Runs two replicates of each cell, to see that a study works.
    pub smoke: bool,
    /// Runs only the replicates of this part.
    pub shard: Option<Shard>,
}

impl Request {
    /// The cells to run.
    ///
    /// # Errors
    /// [`Error::Value`] if `only` matches no cell.
    pub fn cells<'a>(&self, plan: &'a Plan) -> Result<Vec<&'a Cell>> {
        let part = self.only.as_deref().unwrap_or("");
        let chosen: Vec<&Cell> = plan
            .cells
            .iter()
            .filter(|c| c.name.contains(part))
            .collect();
        if chosen.is_empty() {
            let known: Vec<&str> = plan.cells.iter().map(|c| c.name.as_str()).collect();
            let message = format!(
                "no cell's name contains it; the cells are {}",
                known.join(" ")
            );
            return Err(Error::value("--only", message));
        }
        Ok(chosen)
    }
}

impl Request {
    /// Replicates that every cell gets at once.
    pub fn first_replicates(&self, plan: &Plan) -> u64 {
        match self.smoke {
            true => plan.first_replicates().min(2),
            false => plan.first_replicates(),
        }
    }
}

/// A replicate to run.
struct Task<'a> {
    cell: &'a Cell,
    replicate: u64,
}

/// Runs every replicate that `file` does not hold yet, of all or of the requested
/// shard, calling `progress` after
/// each row with (rows of data done, rows of data in all, the row).
///
/// # Errors
/// [`Error::File`] if a row cannot be written; [`Error::Value`] if `only`
/// matches no cell or the thread pool cannot be built.
pub fn run(
    plan: &Plan,
    file: &mut RowFile,
    request: &Request,
    mut progress: impl FnMut(u64, u64, &Row),
) -> Result<()> {
    let cells = request.cells(plan)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(request.jobs.unwrap_or(0))
        .build()
        .map_err(|e| Error::value("--jobs", e.to_string()))?;
    let first = request.first_replicates(plan);
    let mut up_to = |replicates: u64, file: &mut RowFile| {
        let mut tasks = missing(&file.rows, &cells, replicates);
        if let Some(shard) = request.shard {
            tasks.retain(|t| shard.holds(plan, t.cell, t.replicate));
        }
        run_tasks(plan, file, &pool, &tasks, &mut progress)
    };
    up_to(first, file)?;
    if !request.smoke && request.only.is_none() && has_pilot(plan, &file.rows) {
        let all = target_replicates(plan, &file.rows);
        up_to(all, file)?;
    }
    file.sort(plan)
}

/// Whether every cell has the rows that decide how many it is to have. Of a
/// study in shards they may still be missing.
pub fn has_pilot(plan: &Plan, rows: &[Row]) -> bool {
    let cells: Vec<&Cell> = plan.cells.iter().collect();
    missing(rows, &cells, plan.first_replicates()).is_empty()
}

/// Replicates each cell is to have, from the rows of the pilot.
pub fn target_replicates(plan: &Plan, rows: &[Row]) -> u64 {
    let first = plan.first_replicates();
    let mut by_cell: HashMap<&str, Vec<&Row>> = HashMap::new();
    let counts = |row: &&Row| row.replicate < first && row.counts(&plan.study);
    for row in rows.iter().filter(counts) {
        by_cell.entry(&row.cell).or_default().push(row);
    }
    plan.replicates(|cell: &Cell, loss: Loss| {
        let rows = by_cell.get(cell.name.as_str());
        let mut pilot: Vec<(u64, f64)> = rows
            .into_iter()
            .flatten()
            .map(|row| (row.replicate, row.loss(&plan.study, loss)))
            .collect();
        // Rows come in any order; sums must not.
        pilot.sort_by_key(|(replicate, _)| *replicate);
        pilot.into_iter().map(|(_, loss)| loss).collect()
    })
}

/// The first `replicates` of each cell, but for those that have a row.
fn missing<'a>(rows: &[Row], cells: &[&'a Cell], replicates: u64) -> Vec<Task<'a>> {
    let name = |row: &Row| (row.cell.clone(), row.replicate);
    let done: HashSet<(String, u64)> = rows.iter().map(name).collect();
    // Replicates in the outer loop: a run that is cut short has all cells.
    // Large samples first within each, so that threads end together.
    let mut order: Vec<&Cell> = cells.to_vec();
    order.sort_by_key(|c| std::cmp::Reverse(c.n));
    (0..replicates)
        .flat_map(|replicate| order.iter().map(move |&cell| Task { cell, replicate }))
        .filter(|t| !done.contains(&(t.cell.name.clone(), t.replicate)))
        .collect()
}

fn run_tasks(
    plan: &Plan,
    file: &mut RowFile,
    pool: &rayon::ThreadPool,
    tasks: &[Task],
    progress: &mut impl FnMut(u64, u64, &Row),
) -> Result<()> {
    // Samples on a lattice are all the same work.
    let on_lattice = plan.truths.iter().all(|t| t.model.input.is_lattice());
    let work = |n: u64| if on_lattice { 1 } else { n };
    let total: u64 = tasks.iter().map(|t| work(t.cell.n)).sum();
    let mut finished = 0;
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pool.install(|| {
                // A failed send means that the writer gave up: stop early.
                let _ = tasks.par_iter().try_for_each_with(sender, |sender, task| {
                    sender
                        .send(replicate(plan, task.cell, task.replicate))
                        .map_err(|_| ())
                });
            });
        });
        for row in receiver {
            let row = row?;
            finished += work(row.n);
            progress(finished, total, &row);
            file.append(row)?;
        }
        Ok(())
    })
}

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
/// [`Error::Value`] if a start does not fit the study; how a fit ends is in the
/// row, never an error.
pub fn replay(plan: &Plan, cell: &Cell, replicate: u64) -> Result<Replay> {
    let clock = Instant::now();
    let study = &plan.study;
    let truth = &plan.truths[cell.truth];
    let stream = |name: &str, purpose: Purpose| Stream::named(study.seed, name, replicate, purpose);
    let data = stream(&cell.data_name, Purpose::Data);
    let start = |k: usize| stream(&cell.name, Purpose::Start(k as u32));
    let estimated = estimate(truth, cell, &data, start)?;
    let row = row_of(plan, cell, replicate, &estimated, clock)?;
    Ok(Replay {
        row,
        outcomes: estimated.outcomes,
    })
}

fn row_of(
    plan: &Plan,
    cell: &Cell,
    replicate: u64,
    estimated: &Estimated,
    clock: Instant,
) -> Result<Row> {
    let Estimated { data, outcomes, .. } = estimated;
    let study = &plan.study;
    let truth = &plan.truths[cell.truth];
    let best = outcomes.best();
    let starts: Vec<String> = cell
        .starts
        .iter()
        .zip(&outcomes.outcomes)
        .map(|(start, o)| {
            let passes = o.effort.rows as f64 / data.len() as f64;
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
    let usable = best.log_likelihood.is_finite();
    let fitted = if usable {
        aligned(&best.parameters, &truth.own.parameters).unwrap_or_else(|| best.parameters.clone())
    } else {
        best.parameters.clone()
    };
    let losses = if usable {
        losses(study, truth, &fitted)?
    } else {
        vec![f64::NAN; study.losses.len()]
    };
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
        passes: work as f64 / data.len() as f64,
        scaled_score: best.scaled_score,
        on_bound: on_bound.join(" "),
        log_likelihood: best.log_likelihood,
        log_likelihood_truth: estimated.log_likelihood_truth,
        losses,
        information_distance: truth.regularity.information_distance(&fitted, cell.n),
        parameters,
        standard_errors,
        seconds: clock.elapsed().as_secs_f64(),
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
    let data = &estimated.data;
    let derivatives = match &estimated.labels {
        Some(labels) => {
            Labelled::new(data, labels, fitted.experts.len())?.derivatives(fitted, data)
        }
        None => Cpu::new().derivatives(fitted, data),
    };
    let information = -derivatives.hessian;
    let free = |j: &usize| !bounds.is_pinned(*j) && !bounds.is_at_bound(&packed, *j);
    let free: Vec<usize> = (0..packed.len()).filter(free).collect();
    let variances = inverse_diagonal(&information, &free);
    Ok(variances.into_iter().map(f64::sqrt).collect())
}

/// The study's losses of one fit.
fn losses(study: &Study, truth: &PlannedTruth, fitted: &Parameters) -> Result<Vec<f64>> {
    let wanted = match study.losses.contains(&Loss::TvMean) {
        true => Wanted::All,
        false => Wanted::Smooth,
    };
    let distance: Option<DensityDistance> = study
        .losses
        .iter()
        .any(|loss| loss.is_of_density())
        .then(|| density_distance(&truth.model, fitted, wanted, EFFORT))
        .transpose()?;
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
