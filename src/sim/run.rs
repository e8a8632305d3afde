//! Runs what is missing.

use super::batch::{Engine, Part, batch_rows, part};
use super::column::Loss;
use super::plan::{Cell, Plan};
pub use super::replicate::{Replay, replay, replicate};
use super::row::{Row, RowFile};
use super::shard::Shard;
use crate::backend::cuda::Cuda;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::mpsc;

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
    progress: impl FnMut(u64, u64, &Row),
) -> Result<()> {
    run_on(&Engine::Processor, plan, file, request, progress)
}

/// [`run`] on a device.
///
/// # Errors
/// As [`run`]; [`Error::Device`] if the device fails. Rows written before that stay.
pub fn run_on(
    engine: &Engine,
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
        let mut writer = Writer::new(plan, file, &tasks, &mut progress);
        match engine {
            Engine::Processor => on_processor(plan, None, &pool, &tasks, &mut writer),
            Engine::Gpu(cuda) => on_gpu(plan, cuda, &pool, tasks, &mut writer),
        }
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

/// Appends rows and tells how far the run is.
struct Writer<'a, P> {
    file: &'a mut RowFile,
    progress: &'a mut P,
    /// Samples on a lattice are all the same work.
    on_lattice: bool,
    finished: u64,
    total: u64,
}

impl<'a, P: FnMut(u64, u64, &Row)> Writer<'a, P> {
    fn new(plan: &Plan, file: &'a mut RowFile, tasks: &[Task], progress: &'a mut P) -> Self {
        let mut writer = Writer {
            file,
            progress,
            on_lattice: plan.truths.iter().all(|t| t.model.input.is_lattice()),
            finished: 0,
            total: 0,
        };
        writer.total = tasks.iter().map(|t| writer.work(t.cell.n)).sum();
        writer
    }

    fn work(&self, n: u64) -> u64 {
        if self.on_lattice { 1 } else { n }
    }

    fn append(&mut self, row: Row) -> Result<()> {
        self.finished += self.work(row.n);
        (self.progress)(self.finished, self.total, &row);
        self.file.append(row)
    }
}

/// A replicate per task; passes on `cuda`, if given.
fn on_processor<P: FnMut(u64, u64, &Row)>(
    plan: &Plan,
    cuda: Option<&Cuda>,
    pool: &rayon::ThreadPool,
    tasks: &[Task],
    writer: &mut Writer<P>,
) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pool.install(|| {
                // A failed send means that the writer gave up: stop early.
                let _ = tasks.par_iter().try_for_each_with(sender, |sender, task| {
                    let row = match cuda {
                        None => replicate(plan, task.cell, task.replicate),
                        Some(cuda) => {
                            super::batch::replicate(plan, task.cell, task.replicate, cuda)
                        }
                    };
                    sender.send(row).map_err(|_| ())
                });
            });
        });
        for row in receiver {
            writer.append(row?)?;
        }
        Ok(())
    })
}

/// Cells that the device fits as a whole go there in batches; of others it runs the
/// passes, or nothing.
fn on_gpu<P: FnMut(u64, u64, &Row)>(
    plan: &Plan,
    cuda: &Cuda,
    pool: &rayon::ThreadPool,
    mut tasks: Vec<Task>,
    writer: &mut Writer<P>,
) -> Result<()> {
    let mut tasks_of = |wanted: Part| -> Vec<Task> {
        tasks
            .extract_if(.., |task| part(plan, task.cell) == wanted)
            .collect()
    };
    let [batched, passes, others] = [Part::Batches, Part::Passes, Part::Nothing].map(&mut tasks_of);
    let mut cells: Vec<(&Cell, Vec<u64>)> = Vec::new();
    for task in &batched {
        match cells
            .iter_mut()
            .find(|(cell, _)| cell.name == task.cell.name)
        {
            Some((_, replicates)) => replicates.push(task.replicate),
            None => cells.push((task.cell, vec![task.replicate])),
        }
    }
    for (cell, replicates) in cells {
        batch_rows(plan, cell, &replicates, cuda, pool, |row| {
            writer.append(row)
        })?;
    }
    on_processor(plan, Some(cuda), pool, &passes, writer)?;
    on_processor(plan, None, pool, &others, writer)
}
