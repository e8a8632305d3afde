//! Passes over data: launches of `pass.cu` for mixtures of one structure.

use super::machine::program::{Precision, Program, Source};
use super::machine::{Address, Buffer, Device, Shape};
use super::outputs::{Operation, Plan, masks};
use super::samples::Samples;
use super::structure::{Rows, Structure, table};
use crate::error::{Error, Result};
use crate::model::Parameters;
use bytemuck::{Pod, Zeroable};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The kernels of one pass.
const PASS: Source = Source {
    name: "pass",
    parts: &[
        ("prelude.cuh", include_str!("prelude.cuh")),
        ("mixture.cuh", include_str!("mixture.cuh")),
        ("pass.cu", include_str!("pass.cu")),
    ],
    kernels: &[
        "pass_value",
        "pass_gradient",
        "pass_derivatives",
        "pass_outer",
        "pass_expectation",
        "pass_total",
    ],
};

/// Threads of a block, and most rows of a tile.
const THREADS: usize = 64;
/// Rows of a chunk, at least: the work of one block, and the unit of summation.
const CHUNK_ROWS: usize = 2048;
/// Chunks of a fit, at most.
const MOST_CHUNKS: usize = 2048;
/// Shared memory that a block takes if a good tile fits: several blocks then share
/// a multiprocessor.
const MODERATE_SHARED: usize = 40 << 10;
/// Rows below which a tile is too small to be good.
const GOOD_TILE: usize = 32;

/// How programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compilation {
    /// For one structure: fastest to run.
    Specialised,
    /// For every structure of moderate size: few compilations.
    Generic,
}

/// Constants of programs for these structures, which may be several only where one
/// generic program holds them all.
pub(super) fn constants(
    structure: &Structure,
    compilation: Compilation,
    precision: Precision,
) -> Vec<(&'static str, String)> {
    let generic = match compilation {
        Compilation::Generic => structure.generic_constants(),
        Compilation::Specialised => None,
    };
    let mut constants = generic.unwrap_or_else(|| structure.constants());
    if precision == Precision::Single {
        constants.push(("SMOE_REAL", "float".to_string()));
    }
    constants
}

/// The program for mixtures with the structure of `template`.
pub(super) fn program(
    template: &Parameters,
    compilation: Compilation,
    precision: Precision,
) -> Program {
    let (scaled, gated) = masks(template);
    let mut constants = constants(&Structure::of(template), compilation, precision);
    if constants.iter().any(|(name, _)| *name == "SMOE_EXPERTS") {
        constants.push(("SMOE_SCALED", format!("{scaled}ull")));
        constants.push(("SMOE_GATED", format!("{gated}ull")));
    }
    Program::new(&PASS, &constants)
}

/// Rows per chunk and number of chunks for samples of `rows` rows: a function of
/// that alone, so that sums do not depend on what else is in a launch.
pub(super) fn chunking(rows: usize) -> (usize, usize) {
    let chunk = rows.div_ceil(MOST_CHUNKS).next_multiple_of(THREADS);
    let chunk = chunk.max(CHUNK_ROWS);
    (chunk, rows.div_ceil(chunk).max(1))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PassArguments {
    structure: Structure,
    rows: Rows,
    tables: Address,
    samples: Address,
    active: Address,
    active_count: Address,
    wanted: Address,
    outputs: Address,
    partial: Address,
    scaled: u64,
    gated: u64,
    row_count: u64,
    chunk_rows: u64,
    chunks: u32,
    output_count: u32,
    column_count: u32,
    monomial_count: u32,
    tile_rows: u32,
    wanted_code: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TotalArguments {
    partial: Address,
    active: Address,
    active_count: Address,
    wanted: Address,
    totals: Address,
    chunks: u32,
    output_count: u32,
    wanted_code: u32,
    padding: u32,
}

/// An operation, ready to launch.
#[derive(Debug)]
pub(super) struct Prepared {
    pub plan: Plan,
    outputs: Buffer<u32>,
    tile_rows: usize,
    shared: usize,
}

impl Prepared {
    /// Numbers that one fit's pass over `rows` rows writes.
    pub fn partial_length(&self, rows: usize) -> usize {
        chunking(rows).1 * self.plan.outputs.len()
    }
}

/// The fits that a launch works on.
pub(super) struct Fits<'a> {
    pub samples: &'a Samples,
    /// Leading rows that are used of each sample.
    pub row_count: usize,
    /// f64. Shape: fits, table length.
    pub tables: Address,
    /// The sample of each fit (u32).
    pub sample_of: Address,
    /// Fits to work on, and how many of them: one number (u32).
    pub active: Address,
    pub active_count: Address,
    /// At least that number.
    pub slots: usize,
    /// What each fit wants next (u32), and the code of this operation; all if `None`.
    pub wanted: Option<(Address, u32)>,
}

/// Passes for mixtures of one structure.
pub(super) struct Passes {
    device: Device,
    structure: Structure,
    scaled: u64,
    gated: u64,
    program: Program,
    precision: Precision,
    /// The structure; its numbers are not used.
    template: Parameters,
    prepared: Mutex<HashMap<Operation, Arc<Prepared>>>,
}

impl Passes {
    pub fn new(
        device: &Device,
        template: &Parameters,
        compilation: Compilation,
        precision: Precision,
    ) -> Result<Self> {
        if template.experts.len() > u64::BITS as usize {
            let message = format!(
                "at most {} experts fit on a GPU, got {}",
                u64::BITS,
                template.experts.len()
            );
            return Err(Error::value("experts", message));
        }
        let structure = Structure::of(template);
        let (scaled, gated) = masks(template);
        Ok(Passes {
            device: device.clone(),
            structure,
            scaled,
            gated,
            program: program(template, compilation, precision),
            precision,
            template: template.clone(),
            prepared: Mutex::new(HashMap::new()),
        })
    }

    /// The plan of an operation, its tables on the device, its tile.
    ///
    /// # Errors
    /// [`Error::Device`] if not even one row fits into a block's shared memory.
    pub fn prepare(&self, operation: Operation) -> Result<Arc<Prepared>> {
        let mut known = self.prepared.lock().expect("no panic while held");
        if let Some(prepared) = known.get(&operation) {
            return Ok(prepared.clone());
        }
        let plan = Plan::new(operation, &self.template);
        let (tile_rows, shared) = self.tile(&plan)?;
        let prepared = Arc::new(Prepared {
            outputs: self.device.upload(&plan.outputs)?,
            plan,
            tile_rows,
            shared,
        });
        known.insert(operation, prepared.clone());
        Ok(prepared)
    }

    /// Rows of a tile, and the shared memory that it needs.
    fn tile(&self, plan: &Plan) -> Result<(usize, usize)> {
        let outputs = plan.outputs.len();
        let groups = (THREADS / outputs).max(1);
        let fixed = (self.structure.table_length() + groups * outputs) * size_of::<f64>();
        let real = match self.precision {
            Precision::Single => size_of::<f32>(),
            Precision::Double | Precision::Mixed => size_of::<f64>(),
        };
        let per_row = (plan.columns + plan.monomials) * real;
        let shared = |rows: usize| (fixed + per_row * (rows + 1)).next_multiple_of(8);
        let most = |limit: usize| {
            let room = limit.saturating_sub(fixed + 8);
            (room / per_row).saturating_sub(1).min(THREADS)
        };
        let limit = self.device.machine().shared_memory();
        let moderate = most(MODERATE_SHARED.min(limit));
        let rows = match moderate >= GOOD_TILE {
            true => moderate,
            false => most(limit).min(GOOD_TILE),
        };
        match rows {
            0 => Err(Error::device(
                self.device.machine().name(),
                format!(
                    "{} experts in {} inputs need {} bytes of shared memory per block, there \
                     are {limit}",
                    self.structure.experts,
                    self.structure.dimension,
                    shared(1)
                ),
            )),
            rows => Ok((rows, shared(rows))),
        }
    }

    /// Starts a pass; sums arrive in `totals`. Shape: fits, outputs.
    ///
    /// # Shapes
    /// `partial`: slots, [`Prepared::partial_length`].
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn launch(
        &self,
        prepared: &Prepared,
        fits: &Fits,
        partial: &Buffer<f64>,
        totals: Address,
    ) -> Result<()> {
        let (chunk_rows, chunks) = chunking(fits.row_count);
        let outputs = prepared.plan.outputs.len() as u32;
        assert!(
            partial.len() >= fits.slots * prepared.partial_length(fits.row_count),
            "partial sums have no room"
        );
        let (wanted, wanted_code) = match fits.wanted {
            Some(wanted) => wanted,
            None => (Address(0), 0),
        };
        let pass = PassArguments {
            structure: self.structure,
            rows: fits.samples.rows(),
            tables: fits.tables,
            samples: fits.sample_of,
            active: fits.active,
            active_count: fits.active_count,
            wanted,
            outputs: prepared.outputs.address(),
            partial: partial.address(),
            scaled: self.scaled,
            gated: self.gated,
            row_count: fits.row_count as u64,
            chunk_rows: chunk_rows as u64,
            chunks: chunks as u32,
            output_count: outputs,
            column_count: prepared.plan.columns as u32,
            monomial_count: prepared.plan.monomials as u32,
            tile_rows: prepared.tile_rows as u32,
            wanted_code,
        };
        let shape = Shape {
            blocks: fits.slots * chunks,
            threads: THREADS,
            shared: prepared.shared,
        };
        let kernel = prepared.plan.operation.kernel();
        self.device.launch(&self.program, kernel, shape, &pass)?;
        let total = TotalArguments {
            partial: partial.address(),
            active: fits.active,
            active_count: fits.active_count,
            wanted,
            totals,
            chunks: chunks as u32,
            output_count: outputs,
            wanted_code,
            padding: 0,
        };
        let shape = Shape {
            blocks: fits.slots,
            threads: THREADS,
            shared: 0,
        };
        self.device
            .launch(&self.program, "pass_total", shape, &total)
    }

    /// The decoded sums of one pass for each (sample, parameters), over the leading
    /// `row_count` rows.
    ///
    /// Works in as many parts as memory asks for.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if not even one fits, [`Error::Device`].
    pub fn run(
        &self,
        operation: Operation,
        samples: &Samples,
        row_count: usize,
        of: &[(usize, &Parameters)],
    ) -> Result<Vec<Vec<f64>>> {
        let prepared = self.prepare(operation)?;
        let outputs = prepared.plan.outputs.len();
        let length = self.structure.table_length();
        let partial = prepared.partial_length(row_count);
        let each = (partial + outputs + length + 2) * size_of::<f64>();
        let free = self.device.machine().memory()?.free;
        let part = (free / 2 / each).clamp(1, of.len().max(1));
        let mut decoded = Vec::with_capacity(of.len());
        for of in of.chunks(part) {
            let resident = Resident::new(&self.device, &prepared, row_count, of)?;
            resident.launch(self, &prepared, samples, row_count)?;
            let totals = resident.totals.all()?;
            decoded.extend(totals.chunks(outputs).map(|t| prepared.plan.decode(t)));
        }
        Ok(decoded)
    }

    /// Least wall time in seconds of a pass for all of these, when nothing but the
    /// sums' kernels runs; of so many repetitions.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn seconds(
        &self,
        operation: Operation,
        samples: &Samples,
        row_count: usize,
        of: &[(usize, &Parameters)],
        repetitions: usize,
    ) -> Result<f64> {
        let prepared = self.prepare(operation)?;
        let resident = Resident::new(&self.device, &prepared, row_count, of)?;
        let launch = || {
            resident.launch(self, &prepared, samples, row_count)?;
            self.device.machine().synchronise()
        };
        // Compiles.
        launch()?;
        let mut least = f64::INFINITY;
        for _ in 0..repetitions {
            let clock = Instant::now();
            launch()?;
            least = least.min(clock.elapsed().as_secs_f64());
        }
        Ok(least)
    }
}

/// What a pass for given parameters reads and writes.
struct Resident {
    tables: Buffer<f64>,
    sample_of: Buffer<u32>,
    active: Buffer<u32>,
    active_count: Buffer<u32>,
    partial: Buffer<f64>,
    totals: Buffer<f64>,
}

impl Resident {
    fn new(
        device: &Device,
        prepared: &Prepared,
        row_count: usize,
        of: &[(usize, &Parameters)],
    ) -> Result<Self> {
        let tables: Vec<f64> = of.iter().flat_map(|(_, p)| table(p)).collect();
        let sample_of: Vec<u32> = of.iter().map(|(s, _)| *s as u32).collect();
        let active: Vec<u32> = (0..of.len() as u32).collect();
        Ok(Resident {
            tables: device.upload(&tables)?,
            sample_of: device.upload(&sample_of)?,
            active: device.upload(&active)?,
            active_count: device.upload(&[of.len() as u32])?,
            partial: device.zeros(of.len() * prepared.partial_length(row_count))?,
            totals: device.zeros(of.len() * prepared.plan.outputs.len())?,
        })
    }

    fn launch(
        &self,
        passes: &Passes,
        prepared: &Prepared,
        samples: &Samples,
        row_count: usize,
    ) -> Result<()> {
        let fits = Fits {
            samples,
            row_count,
            tables: self.tables.address(),
            sample_of: self.sample_of.address(),
            active: self.active.address(),
            active_count: self.active_count.address(),
            slots: self.active.len(),
            wanted: None,
        };
        passes.launch(prepared, &fits, &self.partial, self.totals.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_all_rows_and_are_never_too_many() {
        for rows in (0..200).chain((1..30).map(|k| 3usize.pow(k) / 7 + 1)) {
            let (chunk, chunks) = chunking(rows);
            assert!(chunk * chunks >= rows, "{rows}");
            assert!((chunks - 1) * chunk < rows.max(1), "{rows}");
            assert!((1..=MOST_CHUNKS).contains(&chunks), "{rows}");
            assert!(chunk >= CHUNK_ROWS && chunk % THREADS == 0, "{rows}");
        }
    }
}
