//! Maximum likelihood of many fits at once: the climb's control on the device.
//!
//! Every fit has a trial point and wants sums over the rows there ([`Sums`]); then
//! the kernel `advance` (`ascent.cu`) moves every fit one step, and so on until none
//! wants anything. A step is that of `fit::em`, or of `fit::newton` where the
//! likelihood is smooth and no two experts are nearly equal: the same constants and
//! the same decisions in the same order. Fits that need more (kinks, jumps, curved
//! coordinates) end with [`Halt::NoAscent`] or at a limit, where the processor can
//! go on from.

use super::machine::program::{Program, Source};
use super::machine::{Address, Buffer, Device, Shape};
use super::structure::{Structure, table};
use crate::error::{Error, Result};
use crate::model::{Coordinate, GateKind, Layout, Parameters, VarianceStructure};
use bytemuck::{Pod, Zeroable};

/// What a climb consists of: expectation maximisation, Newton's steps, or first one
/// and then the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AscentOptions {
    /// Expectation maximisation.
    pub expectation: Option<ExpectationRule>,
    /// Newton, from where the other ends unless it failed.
    pub newton: Option<NewtonRule>,
    /// Number of observations n, counts included.
    pub sample_size: f64,
}

/// When expectation maximisation stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpectationRule {
    /// Most iterations.
    pub max_iterations: usize,
    /// Stop when an iteration gains less log-likelihood than this.
    pub gain: f64,
    /// The unit of `gain`.
    pub measure: GainUnit,
}

/// In what unit the gain of an iteration is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GainUnit {
    /// Log-likelihood of the sample.
    #[default]
    Total,
    /// The same over the log-likelihood before, in absolute value.
    Relative,
    /// The same over n.
    Mean,
}

/// When Newton is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewtonRule {
    /// Most iterations.
    pub max_iterations: usize,
    /// Largest scaled score sqrt(s' M^-1 s) at a certified maximum.
    pub scaled_score: f64,
    /// Largest last gain in log-likelihood.
    pub gain: f64,
    /// What becomes of a step that fails although it promised little.
    pub past_jumps: PastJumps,
}

/// Who is to find a way past a jump of the likelihood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PastJumps {
    /// Smaller steps, as for any step that fails.
    #[default]
    Newton,
    /// A search along boundaries, later: a failed step that promised little ends the
    /// climb.
    BoundarySearch,
}

/// Why a climb ended; as the stops of `fit` of the same names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Halt {
    /// A certified maximum.
    Converged,
    /// The score is below tolerance, but the likelihood is not concave.
    Saddle,
    /// No step raises the likelihood, although the score is above tolerance.
    NoAscent,
    /// The last gain of expectation maximisation was below tolerance.
    SmallGain,
    /// The iteration limit was reached.
    MaxIterations,
    /// The linear system of a step has no solution.
    Singular {
        /// Iteration, from 1.
        iteration: usize,
    },
    /// The log-likelihood or a derivative is not finite.
    NonFinite {
        /// Iteration, from 1; 0 is the start itself.
        iteration: usize,
    },
    /// A step of expectation maximisation would lower the log-likelihood beyond
    /// rounding, even halved.
    Decreased {
        /// Iteration, from 1.
        iteration: usize,
        /// Size of the fall.
        size: f64,
    },
}

/// Where one climb ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ascended {
    /// The last accepted point, in packed coordinates. Shape: P.
    pub packed: Vec<f64>,
    /// The log-likelihood there.
    pub log_likelihood: f64,
    /// Why it ended there.
    pub halt: Halt,
    /// sqrt(s' M^-1 s) of the projected score; NaN without a Newton iteration.
    pub scaled_score: f64,
    /// Iterations of expectation maximisation.
    pub em: usize,
    /// Newton iterations.
    pub newton: usize,
    /// Passes over the rows.
    pub passes: usize,
}

/// How a vector is read off the sums of a pass, its *outputs*: entry p is the sum of
/// the outputs `terms[starts[p]..starts[p + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoding {
    /// Sums of one fit.
    pub outputs: usize,
    /// Shape: length of the vector, plus 1.
    pub starts: Vec<u32>,
    pub terms: Vec<u32>,
}

/// Sums over the rows at the trial points.
///
/// Launches are not waited for. They fill the totals of exactly those active fits
/// whose `wanted` is theirs.
pub(super) trait Sums {
    /// `[log-likelihood | per expert: responsibility, squares, score (m), moment (m),
    /// curvature (m, m), gram (m, m) | gate score (G) | gate information (G, G)]`, the
    /// entries of [`crate::backend::EmStatistics`]; see [`expert_offsets`].
    fn expectation(&self) -> &Decoding;

    /// `[log-likelihood | gradient (P) | Hessian (P, P)]`.
    fn derivatives(&self) -> &Decoding;

    /// Fills [`AscentBuffers::expectation_totals`] where [`WANTS_EXPECTATION`].
    ///
    /// # Errors
    /// [`Error::Device`].
    fn launch_expectation(&self, at: &AscentBuffers) -> Result<()>;

    /// Fills [`AscentBuffers::derivative_totals`] where [`WANTS_DERIVATIVES`].
    ///
    /// # Errors
    /// [`Error::Device`].
    fn launch_derivatives(&self, at: &AscentBuffers) -> Result<()>;
}

/// As in `ascent.cu`; 0 is a fit that has ended.
pub(super) const WANTS_EXPECTATION: i32 = 1;
pub(super) const WANTS_DERIVATIVES: i32 = 2;

/// What the passes read and write; fits are counted from 0 in the order of the
/// starts.
#[derive(Debug)]
pub(super) struct AscentBuffers {
    /// Table of every trial point. Shape: fits, table length.
    pub tables: Buffer<f64>,
    /// Every trial point. Shape: fits, P.
    pub trial: Buffer<f64>,
    /// Shape: fits.
    pub wanted: Buffer<i32>,
    /// Shape: fits, outputs of the expectation.
    pub expectation_totals: Buffer<f64>,
    /// Shape: fits, outputs of the derivatives.
    pub derivative_totals: Buffer<f64>,
    /// At most as many fits are active.
    pub slots: usize,
    /// The fits that go on, in order, and their numbers: of all, of those that want
    /// an expectation, derivatives. The second is filled from the first.
    lists: [ActiveList; 2],
}

#[derive(Debug)]
struct ActiveList {
    fits: Buffer<u32>,
    counts: Buffer<u32>,
}

impl AscentBuffers {
    /// The active fits (u32), in ascending order.
    pub fn active(&self) -> Address {
        self.lists[0].fits.address()
    }

    /// Their number (one u32), at most `slots`.
    pub fn active_count(&self) -> Address {
        self.lists[0].counts.address()
    }

    /// The active fits, on the host.
    ///
    /// # Errors
    /// [`Error::Device`].
    #[cfg(test)]
    pub fn active_fits(&self) -> Result<Vec<u32>> {
        let count = self.lists[0].counts.read(0, 1)?[0];
        self.lists[0].fits.read(0, count as usize)
    }
}

/// Where each expert's sums begin in the decoded expectation, and behind the last
/// one the gate's. Shape: experts + 1.
pub(super) fn expert_offsets(template: &Parameters) -> Vec<usize> {
    let mut offsets = vec![1];
    for expert in &template.experts {
        let m = expert.mean_length();
        offsets.push(offsets[offsets.len() - 1] + 2 + 2 * m + 2 * m * m);
    }
    offsets
}

/// Number of gate coordinates G: the last ones of the packed vector.
pub(super) fn gate_coordinates(template: &Parameters, layout: &Layout) -> usize {
    let first = (0..template.experts.len()).find_map(|i| layout.gate_offset(i));
    layout.len() - first.unwrap_or(layout.len())
}

/// Steps between two looks at how many fits go on.
const BURST: usize = 4;
/// Threads that move one fit.
const THREADS: usize = 32;
/// Threads of the one block that lists active fits.
const COMPACTING: usize = 256;
/// Shared memory that every block can have without asking, in bytes.
const SHARED: usize = 48 << 10;

pub(super) const SOURCE: Source = Source {
    name: "ascent",
    parts: &[
        ("prelude.cuh", include_str!("prelude.cuh")),
        ("linear_algebra.cuh", include_str!("linear_algebra.cuh")),
        ("ascent.cu", include_str!("ascent.cu")),
    ],
    kernels: &["begin", "advance", "compact"],
};

/// Twin of `Decoding` in `ascent.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct DecodingArguments {
    totals: Address,
    starts: Address,
    terms: Address,
    outputs: u64,
}

/// Twin of `Ascent` in `ascent.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AscentArguments {
    expectation: DecodingArguments,
    derivatives: DecodingArguments,
    active: Address,
    active_count: Address,
    progress: Address,
    wanted: Address,
    packed: Address,
    trial: Address,
    direction: Address,
    scale: Address,
    gradient: Address,
    hessian: Address,
    tables: Address,
    sources: Address,
    constants: Address,
    low: Address,
    high: Address,
    mean_offsets: Address,
    mean_lengths: Address,
    variance_offsets: Address,
    expert_offsets: Address,
    scratch: Address,
    scratch_length: u64,
    sample_size: f64,
    em_gain: f64,
    newton_gain: f64,
    newton_score: f64,
    size: i32,
    experts: i32,
    gates: i32,
    table_length: i32,
    shared_variance: i32,
    means_drive_gate: i32,
    with_em: i32,
    em_iterations: i32,
    em_measure: i32,
    with_newton: i32,
    newton_iterations: i32,
    stops_at_jumps: i32,
}

/// Twin of `Progress` in `ascent.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Progress {
    log_likelihood: f64,
    before: f64,
    scaled_score: f64,
    last_gain: f64,
    radius: f64,
    slope: f64,
    curvature: f64,
    length: f64,
    fall: f64,
    phase: i32,
    part: i32,
    iteration: i32,
    attempts: i32,
    em: i32,
    newton: i32,
    passes: i32,
    halt: i32,
    halt_iteration: i32,
    concave: i32,
    stationary: i32,
    padding: i32,
}

/// Twin of `Compaction` in `ascent.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CompactionArguments {
    active: Address,
    active_count: Address,
    wanted: Address,
    next_active: Address,
    next_counts: Address,
}

impl Progress {
    fn halt(&self) -> Halt {
        let iteration = self.halt_iteration as usize;
        match self.halt {
            1 => Halt::Converged,
            2 => Halt::Saddle,
            3 => Halt::NoAscent,
            4 => Halt::SmallGain,
            5 => Halt::MaxIterations,
            6 => Halt::Singular { iteration },
            7 => Halt::NonFinite { iteration },
            _ => Halt::Decreased {
                iteration,
                size: self.fall,
            },
        }
    }
}

/// Entries of scratch of one block beside one per thread, where P is `size`.
fn scratch_length(size: usize) -> usize {
    2 * size * size + 8 * size + 2
}

/// True if a block's scratch has room in shared memory.
fn scratch_is_shared(device: &Device, size: usize) -> bool {
    let bytes = (THREADS + scratch_length(size)) * size_of::<f64>();
    bytes <= SHARED.min(device.machine().shared_memory())
}

/// Memory that every fit of a call to [`ascend`] takes, in bytes; the numbers are
/// the outputs of its two passes.
pub(super) fn bytes_per_fit(
    device: &Device,
    template: &Parameters,
    options: &AscentOptions,
    [expectation, derivatives]: [usize; 2],
) -> usize {
    let size = template.layout().len();
    let totals = |wanted: bool, outputs: usize| if wanted { outputs } else { 0 };
    let scratch = match scratch_is_shared(device, size) {
        true => 0,
        false => scratch_length(size),
    };
    let numbers = Structure::of(template).table_length()
        + totals(options.expectation.is_some(), expectation)
        + totals(options.newton.is_some(), derivatives)
        + 5 * size
        + size * size
        + scratch;
    // What it wants, and its place in two lists.
    numbers * size_of::<f64>() + size_of::<Progress>() + 3 * size_of::<u32>()
}

/// Climbs from every start; fits of a batch do not influence each other.
///
/// `template` gives the structure, `low` and `high` bound every packed coordinate.
///
/// # Shapes
/// `low`, `high`, each start: P. The outcomes have the order of the starts.
///
/// # Errors
/// [`Error::Dimension`] or [`Error::Value`] of the arguments; [`Error::Device`],
/// [`Error::OutOfMemory`].
pub(super) fn ascend(
    device: &Device,
    template: &Parameters,
    low: &[f64],
    high: &[f64],
    starts: &[Vec<f64>],
    options: &AscentOptions,
    sums: &dyn Sums,
) -> Result<Vec<Ascended>> {
    let layout = template.layout();
    check(&layout, low, high, starts, options)?;
    if starts.is_empty() {
        return Ok(Vec::new());
    }
    let mut climb = Climb::new(
        device,
        template,
        &layout,
        [low, high],
        starts,
        options,
        sums,
    )?;
    climb.launch("begin")?;
    let mut expecting = match options.expectation {
        Some(_) => starts.len(),
        None => 0,
    };
    while climb.buffers.slots > 0 {
        for _ in 0..BURST {
            if expecting > 0 {
                sums.launch_expectation(&climb.buffers)?;
            }
            if options.newton.is_some() {
                sums.launch_derivatives(&climb.buffers)?;
            }
            climb.launch("advance")?;
        }
        expecting = climb.compact()?;
    }
    climb.outcomes()
}

fn check(
    layout: &Layout,
    low: &[f64],
    high: &[f64],
    starts: &[Vec<f64>],
    options: &AscentOptions,
) -> Result<()> {
    let length = |what, got| match got == layout.len() {
        true => Ok(()),
        false => Err(Error::Dimension {
            what,
            expected: layout.len(),
            got,
        }),
    };
    length("lower bounds", low.len())?;
    length("upper bounds", high.len())?;
    for start in starts {
        length("a start", start.len())?;
    }
    let sound = |(low, high): (&f64, &f64)| low.is_finite() && high.is_finite() && low <= high;
    if !low.iter().zip(high).all(sound) {
        return Err(Error::value("bounds", "must be finite, low <= high"));
    }
    if options.expectation.is_none() && options.newton.is_none() {
        return Err(Error::value("options", "ask for no climb at all"));
    }
    if u32::try_from(starts.len()).is_err() {
        return Err(Error::value("starts", "are too many for one call"));
    }
    Ok(())
}

/// A call's arrays on the device.
struct Climb<'a> {
    device: &'a Device,
    program: Program,
    arguments: AscentArguments,
    buffers: AscentBuffers,
    progress: Buffer<Progress>,
    packed: Buffer<f64>,
    /// Arrays that only the kernels know.
    _numbers: Vec<Buffer<f64>>,
    _signed: Vec<Buffer<i32>>,
    _unsigned: Vec<Buffer<u32>>,
    shared: usize,
}

impl<'a> Climb<'a> {
    fn new(
        device: &'a Device,
        template: &Parameters,
        layout: &Layout,
        bounds: [&[f64]; 2],
        starts: &[Vec<f64>],
        options: &AscentOptions,
        sums: &dyn Sums,
    ) -> Result<Self> {
        let (fits, size) = (starts.len(), layout.len());
        let structure = Structure::of(template);
        let em = options.expectation;
        let newton = options.newton;
        let rows =
            |wanted: bool, width: usize| device.zeros::<f64>(fits * usize::from(wanted) * width);
        let all: Vec<u32> = (0..fits as u32).collect();
        let list = |fits: &[u32]| -> Result<ActiveList> {
            Ok(ActiveList {
                fits: device.upload(fits)?,
                counts: device.upload(&[fits.len() as u32, 0, 0])?,
            })
        };
        let buffers = AscentBuffers {
            tables: rows(true, structure.table_length())?,
            trial: rows(true, size)?,
            wanted: device.zeros(fits)?,
            expectation_totals: rows(em.is_some(), sums.expectation().outputs)?,
            derivative_totals: rows(newton.is_some(), sums.derivatives().outputs)?,
            slots: fits,
            lists: [list(&all)?, list(&all)?],
        };
        let progress = device.zeros(fits)?;
        let packed = device.upload(&starts.concat())?;

        let mut numbers = Vec::new();
        let mut number = |buffer: Buffer<f64>| {
            let address = buffer.address();
            numbers.push(buffer);
            address
        };
        let (sources, constants) = unpacking(template, layout);
        let in_shared = scratch_is_shared(device, size);
        let direction = number(rows(true, size)?);
        let scale = number(rows(true, size)?);
        let gradient = number(rows(newton.is_some(), size)?);
        let hessian = number(rows(newton.is_some(), size * size)?);
        let scratch = number(rows(!in_shared, scratch_length(size))?);
        let constants = number(device.upload(&constants)?);
        let low = number(device.upload(bounds[0])?);
        let high = number(device.upload(bounds[1])?);

        let mut signed = Vec::new();
        let mut integers = |values: Vec<usize>| -> Result<Address> {
            let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
            let buffer = device.upload(&values)?;
            let address = buffer.address();
            signed.push(buffer);
            Ok(address)
        };
        let experts = 0..template.experts.len();
        let mean_offsets = integers(experts.clone().map(|i| layout.mean_offset(i)).collect())?;
        let lengths = template.experts.iter().map(|e| e.mean_length());
        let mean_lengths = integers(lengths.collect())?;
        let variances = experts.map(|i| layout.variance_offset(i));
        let variance_offsets = integers(variances.collect())?;
        let expert_offsets = integers(expert_offsets(template))?;
        let source_buffer = device.upload(&sources)?;
        let sources = source_buffer.address();
        signed.push(source_buffer);

        let mut unsigned = Vec::new();
        let mut decoding = |decoding: &Decoding, totals: &Buffer<f64>| -> Result<_> {
            let (starts, terms) = (
                device.upload(&decoding.starts)?,
                device.upload(&decoding.terms)?,
            );
            let arguments = DecodingArguments {
                totals: totals.address(),
                starts: starts.address(),
                terms: terms.address(),
                outputs: decoding.outputs as u64,
            };
            unsigned.extend([starts, terms]);
            Ok(arguments)
        };
        let limit = |iterations: usize| i32::try_from(iterations).unwrap_or(i32::MAX);
        let arguments = AscentArguments {
            expectation: decoding(sums.expectation(), &buffers.expectation_totals)?,
            derivatives: decoding(sums.derivatives(), &buffers.derivative_totals)?,
            active: buffers.active(),
            active_count: buffers.active_count(),
            progress: progress.address(),
            wanted: buffers.wanted.address(),
            packed: packed.address(),
            trial: buffers.trial.address(),
            direction,
            scale,
            gradient,
            hessian,
            tables: buffers.tables.address(),
            sources,
            constants,
            low,
            high,
            mean_offsets,
            mean_lengths,
            variance_offsets,
            expert_offsets,
            scratch,
            scratch_length: match in_shared {
                true => 0,
                false => scratch_length(size) as u64,
            },
            sample_size: options.sample_size,
            em_gain: em.map_or(0.0, |rule| rule.gain),
            newton_gain: newton.map_or(0.0, |rule| rule.gain),
            newton_score: newton.map_or(0.0, |rule| rule.scaled_score),
            size: size as i32,
            experts: structure.experts,
            gates: gate_coordinates(template, layout) as i32,
            table_length: structure.table_length() as i32,
            shared_variance: i32::from(template.variance_structure == VarianceStructure::Shared),
            means_drive_gate: i32::from(matches!(template.gate.kind, GateKind::Competition { .. })),
            with_em: i32::from(em.is_some()),
            em_iterations: em.map_or(0, |rule| limit(rule.max_iterations)),
            em_measure: em.map_or(0, |rule| match rule.measure {
                GainUnit::Total => 0,
                GainUnit::Relative => 1,
                GainUnit::Mean => 2,
            }),
            with_newton: i32::from(newton.is_some()),
            newton_iterations: newton.map_or(0, |rule| limit(rule.max_iterations)),
            stops_at_jumps: newton.map_or(0, |rule| {
                i32::from(rule.past_jumps == PastJumps::BoundarySearch)
            }),
        };
        let entries = match in_shared {
            true => THREADS + scratch_length(size),
            false => THREADS,
        };
        Ok(Climb {
            device,
            program: Program::new(&SOURCE, &[]),
            arguments,
            buffers,
            progress,
            packed,
            _numbers: numbers,
            _signed: signed,
            _unsigned: unsigned,
            shared: entries * size_of::<f64>(),
        })
    }

    /// Starts a kernel with one block per active fit.
    fn launch(&self, kernel: &'static str) -> Result<()> {
        let shape = Shape {
            blocks: self.buffers.slots,
            threads: THREADS,
            shared: self.shared,
        };
        self.device
            .launch(&self.program, kernel, shape, &self.arguments)
    }

    /// Lists the fits that go on; returns how many want an expectation.
    fn compact(&mut self) -> Result<usize> {
        let [now, next] = &self.buffers.lists;
        let arguments = CompactionArguments {
            active: now.fits.address(),
            active_count: now.counts.address(),
            wanted: self.buffers.wanted.address(),
            next_active: next.fits.address(),
            next_counts: next.counts.address(),
        };
        let shape = Shape {
            blocks: 1,
            threads: COMPACTING,
            shared: 2 * COMPACTING * size_of::<f64>(),
        };
        self.device
            .launch(&self.program, "compact", shape, &arguments)?;
        self.buffers.lists.swap(0, 1);
        self.arguments.active = self.buffers.active();
        self.arguments.active_count = self.buffers.active_count();
        let counts = self.buffers.lists[0].counts.read(0, 3)?;
        self.buffers.slots = counts[0] as usize;
        Ok(counts[1] as usize)
    }

    fn outcomes(&self) -> Result<Vec<Ascended>> {
        let packed = self.packed.all()?;
        let size = self.arguments.size as usize;
        let progress = self.progress.all()?;
        let points = packed.chunks_exact(size);
        Ok(points
            .zip(&progress)
            .map(|(point, progress)| Ascended {
                packed: point.to_vec(),
                log_likelihood: progress.log_likelihood,
                halt: progress.halt(),
                scaled_score: progress.scaled_score,
                em: progress.em as usize,
                newton: progress.newton as usize,
                passes: progress.passes as usize,
            })
            .collect())
    }
}

/// What the entries of a table are: coordinate `source`, from P on the exponential of
/// coordinate `source - P`, and where that is negative the constant.
///
/// # Shapes
/// Both: table length.
fn unpacking(template: &Parameters, layout: &Layout) -> (Vec<i32>, Vec<f64>) {
    let structure = Structure::of(template);
    let (d, stride) = (template.dimension(), structure.stride());
    let mut sources = vec![-1; structure.table_length()];
    let mut constants = table(template);
    for i in 0..template.experts.len() {
        let own = i * stride;
        let variance = layout.variance_offset(i);
        sources[own + d + 2] = (layout.len() + variance) as i32;
        sources[own + d + 3] = variance as i32;
        if layout.gate_offset(i).is_none() {
            constants[own + d + 4..=own + 2 * d + 4].fill(0.0);
        }
    }
    for (j, coordinate) in layout.coordinates().iter().enumerate() {
        let entry = match *coordinate {
            Coordinate::Slope(i, k) => i * stride + k,
            Coordinate::Intercept(i) => i * stride + d,
            Coordinate::Scale(i) => i * stride + d + 1,
            Coordinate::LogVariance(_) => continue,
            Coordinate::GateSlope(i, k) => i * stride + d + 4 + k,
            Coordinate::Bias(i) | Coordinate::GateIntercept(i) => i * stride + 2 * d + 4,
        };
        sources[entry] = j as i32;
    }
    (sources, constants)
}

#[cfg(test)]
#[path = "ascent_tests.rs"]
mod tests;
