//! What is done with many samples at once.

use super::ascent::{
    self, Ascended, AscentBuffers, AscentOptions, Decoding, NewtonRule, Sums, WANTS_DERIVATIVES,
    WANTS_EXPECTATION,
};
use super::machine::Buffer;
use super::outputs::{self, Operation};
use super::passes::{Fits, Passes, Prepared, constants};
use super::sample;
use super::samples::Samples;
use super::structure::Structure;
use super::{Cuda, Derivatives, Precision};
use crate::error::{Error, Result};
use crate::model::{Data, Model, Parameters};
use crate::rng::Stream;
use std::sync::Arc;

/// Samples of one size on a device, one for each replicate.
#[derive(Debug)]
pub struct Replicates {
    samples: Samples,
}

impl Replicates {
    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.samples.count
    }

    /// Stored rows of each.
    pub fn rows(&self) -> usize {
        self.samples.capacity
    }

    /// A copy of one sample on the host; counts are left out.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`].
    #[doc(hidden)]
    pub fn sample(&self, sample: usize) -> Result<Data> {
        self.samples.download(sample)
    }

    /// True if rows have counts.
    pub fn is_counted(&self) -> bool {
        self.samples.counted
    }
}

/// The compact parameter set: lower and upper bounds of packed coordinates.
#[derive(Clone, Copy, Debug)]
pub struct BoxBounds<'a> {
    /// Shape: P.
    pub low: &'a [f64],
    /// Shape: P.
    pub high: &'a [f64],
}

/// Share of free memory that a plan may use: the rest is for what it does not know.
const SHARE: f64 = 0.8;
/// Where a climb in f32 hands over to one in f64: below these, rounding would speak.
const ROUGH_SCORE: f64 = 0.3;
const ROUGH_GAIN: f64 = 0.1;
/// Rows with counts that a lattice is taken to have, at most.
const LATTICE_ROWS: usize = 4096;

impl Cuda {
    /// Copies of samples of the processor's; a smaller one is filled up with rows of count 0.
    ///
    /// # Errors
    /// [`crate::error::Error::Dimension`] if they differ in dimension or in having counts;
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    pub fn upload(&self, data: &[Data]) -> Result<Replicates> {
        let data: Vec<&Data> = data.iter().collect();
        Ok(Replicates {
            samples: Samples::upload(&self.device, &data)?,
        })
    }

    /// The samples of [`crate::model::draw_sample`], one for each stream, drawn on the device.
    ///
    /// # Errors
    /// [`crate::error::Error::Value`] for a lattice;
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    pub fn draw(&self, model: &Model, rows: usize, streams: &[Stream]) -> Result<Replicates> {
        let structure = Structure::of(&model.parameters);
        // Samples are f64 whatever is computed of them.
        let constants = constants(&structure, self.compilation, Precision::Double);
        let values = sample::draw(&self.device, model, rows, streams, &constants)?;
        let dimension = model.input.dimension();
        Ok(Replicates {
            samples: Samples::drawn(values, streams.len(), rows, dimension),
        })
    }

    /// The log-likelihood of parameters of one structure, each on the sample given.
    ///
    /// # Errors
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    pub fn log_likelihoods(
        &self,
        replicates: &Replicates,
        of: &[(usize, &Parameters)],
    ) -> Result<Vec<f64>> {
        let Some((_, first)) = of.first() else {
            return Ok(Vec::new());
        };
        let passes = self.passes(first)?;
        let samples = &replicates.samples;
        let sums = passes.run(Operation::Value, samples, replicates.rows(), of)?;
        Ok(sums.into_iter().map(|sum| sum[0]).collect())
    }

    /// The log-likelihood of one sample with its derivatives.
    ///
    /// # Errors
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    pub fn derivatives_at(
        &self,
        replicates: &Replicates,
        sample: usize,
        parameters: &Parameters,
    ) -> Result<Derivatives> {
        let passes = self.passes(parameters)?;
        let (samples, rows) = (&replicates.samples, replicates.rows());
        let of = [(sample, parameters)];
        let sums = passes.run(Operation::Derivatives, samples, rows, &of)?;
        Ok(outputs::derivatives(&sums[0], parameters.layout().len()))
    }

    /// Least wall time in seconds of a pass for each (sample, parameters) over the
    /// leading `rows` rows, everything being on the device; of so many repetitions.
    ///
    /// # Errors
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    #[doc(hidden)]
    pub fn time_pass(
        &self,
        operation: Operation,
        replicates: &Replicates,
        rows: usize,
        of: &[(usize, &Parameters)],
        repetitions: usize,
    ) -> Result<f64> {
        let Some((_, first)) = of.first() else {
            return Err(Error::value("fits", "at least one is needed"));
        };
        let passes = self.passes(first)?;
        passes.seconds(operation, &replicates.samples, rows, of, repetitions)
    }

    /// Climbs from each start (sample, packed coordinates) on the leading `rows` rows
    /// of its sample; in as many parts as memory asks for.
    ///
    /// # Errors
    /// [`crate::error::Error::Dimension`] or [`crate::error::Error::Value`] of the
    /// arguments; [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    pub fn ascend(
        &self,
        replicates: &Replicates,
        rows: usize,
        template: &Parameters,
        bounds: BoxBounds,
        starts: &[(usize, Vec<f64>)],
        options: &AscentOptions,
    ) -> Result<Vec<Ascended>> {
        let climb = |precision, starts: &[(usize, Vec<f64>)], options: &AscentOptions| {
            let climb = Climb {
                passes: self.passes_in(template, precision)?,
                replicates,
                rows,
                template,
                bounds,
                options,
            };
            self.climb(&climb, starts)
        };
        let (Precision::Mixed, Some(newton)) = (self.precision, options.newton) else {
            return climb(self.precision, starts, options);
        };
        let rough = AscentOptions {
            newton: Some(NewtonRule {
                scaled_score: newton.scaled_score.max(ROUGH_SCORE),
                gain: newton.gain.max(ROUGH_GAIN),
                ..newton
            }),
            ..*options
        };
        let near = climb(Precision::Single, starts, &rough)?;
        // Wherever a rough climb ended, for whatever reason, the exact one goes on.
        let from: Vec<(usize, Vec<f64>)> = std::iter::zip(starts, &near)
            .map(
                |((sample, start), near)| match near.log_likelihood.is_finite() {
                    true => (*sample, near.packed.clone()),
                    false => (*sample, start.clone()),
                },
            )
            .collect();
        let exact = AscentOptions {
            expectation: None,
            ..*options
        };
        let ends = climb(Precision::Double, &from, &exact)?;
        Ok(std::iter::zip(near, ends)
            .map(|(near, end)| Ascended {
                em: near.em + end.em,
                newton: near.newton + end.newton,
                passes: near.passes + end.passes,
                ..end
            })
            .collect())
    }

    fn climb(&self, climb: &Climb, starts: &[(usize, Vec<f64>)]) -> Result<Vec<Ascended>> {
        let Climb { passes, rows, .. } = climb;
        let each = self.bytes_per_fit(passes, climb.template, *rows, climb.options)?;
        let part = self.room(each)?.max(1);
        let mut ends = Vec::with_capacity(starts.len());
        for starts in starts.chunks(part) {
            let sample_of: Vec<u32> = starts.iter().map(|(s, _)| *s as u32).collect();
            let prepared = PassSums::prepare(passes.clone(), *rows)?;
            let sums = ClimbSums {
                sample_of: self.device.upload(&sample_of)?,
                partial: self
                    .device
                    .zeros(starts.len() * prepared.partial_length())?,
                samples: &climb.replicates.samples,
                prepared: &prepared,
            };
            let packed: Vec<Vec<f64>> = starts.iter().map(|(_, p)| p.clone()).collect();
            ends.extend(ascent::ascend(
                &self.device,
                climb.template,
                climb.bounds.low,
                climb.bounds.high,
                &packed,
                climb.options,
                &sums,
            )?);
        }
        Ok(ends)
    }
}

/// What all fits of a climb share.
struct Climb<'a> {
    passes: Arc<Passes>,
    replicates: &'a Replicates,
    rows: usize,
    template: &'a Parameters,
    bounds: BoxBounds<'a>,
    options: &'a AscentOptions,
}

impl Cuda {
    /// How many replicates of a cell fit into memory together, each with a sample of
    /// `rows` rows and as many fits as it has starts; at least 1.
    ///
    /// # Errors
    /// [`crate::error::Error::OutOfMemory`] if not even one does;
    /// [`crate::error::Error::Device`].
    pub fn most_replicates(
        &self,
        template: &Parameters,
        sampling: Sampling,
        rows: usize,
        starts: usize,
        options: &AscentOptions,
    ) -> Result<usize> {
        let (rows, counted) = match sampling {
            Sampling::Rows => (rows, false),
            Sampling::Counts => (LATTICE_ROWS, true),
        };
        let passes = self.passes(template)?;
        let fit = self.bytes_per_fit(&passes, template, rows, options)?;
        let sample = Samples::bytes(1, rows, template.dimension(), counted);
        let together = self.room(sample + starts * fit)?;
        if together > 0 {
            return Ok(together);
        }
        // Fits of one sample can go one after another.
        match self.room(sample + fit)? {
            0 => Err(Error::OutOfMemory {
                needed: sample + fit,
                free: self.free()?,
            }),
            _ => Ok(1),
        }
    }

    /// How many things of so many bytes there is room for.
    fn room(&self, bytes: usize) -> Result<usize> {
        Ok(self.free()? / bytes.max(1))
    }

    /// Bytes that a plan may use.
    fn free(&self) -> Result<usize> {
        let free = self.device.machine().memory()?.free;
        Ok((free as f64 * SHARE) as usize)
    }

    /// Bytes that one fit takes beside its sample.
    fn bytes_per_fit(
        &self,
        passes: &Arc<Passes>,
        template: &Parameters,
        rows: usize,
        options: &AscentOptions,
    ) -> Result<usize> {
        let sums = PassSums::prepare(passes.clone(), rows)?;
        let partial = sums.partial_length() * size_of::<f64>() + size_of::<u32>();
        let outputs = [&sums.expectation, &sums.derivatives].map(|p| p.plan.decoding.outputs);
        let state = ascent::bytes_per_fit(&self.device, template, options, outputs);
        Ok(partial + state)
    }
}

/// What a sample consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Rows, each seen once.
    Rows,
    /// Some hundred cells of a lattice, with counts.
    Counts,
}

/// Both passes of a climb, prepared.
struct PassSums {
    passes: Arc<Passes>,
    rows: usize,
    expectation: Arc<Prepared>,
    derivatives: Arc<Prepared>,
}

impl PassSums {
    fn prepare(passes: Arc<Passes>, rows: usize) -> Result<Self> {
        Ok(PassSums {
            expectation: passes.prepare(Operation::Expectation)?,
            derivatives: passes.prepare(Operation::Derivatives)?,
            passes,
            rows,
        })
    }

    /// Numbers that one fit's passes write before they are added up.
    fn partial_length(&self) -> usize {
        let both = [&self.expectation, &self.derivatives];
        let lengths = both.map(|prepared| prepared.partial_length(self.rows));
        lengths[0].max(lengths[1])
    }
}

/// The passes of one climb.
struct ClimbSums<'a> {
    prepared: &'a PassSums,
    samples: &'a Samples,
    /// The sample of each fit.
    sample_of: Buffer<u32>,
    partial: Buffer<f64>,
}

impl ClimbSums<'_> {
    fn launch(
        &self,
        prepared: &Prepared,
        wanted: i32,
        at: &AscentBuffers,
        totals: &Buffer<f64>,
    ) -> Result<()> {
        let fits = Fits {
            samples: self.samples,
            row_count: self.prepared.rows,
            tables: at.tables.address(),
            sample_of: self.sample_of.address(),
            active: at.active(),
            active_count: at.active_count(),
            slots: at.slots,
            wanted: Some((at.wanted.address(), wanted as u32)),
        };
        let passes = &self.prepared.passes;
        passes.launch(prepared, &fits, &self.partial, totals.address())
    }
}

impl Sums for ClimbSums<'_> {
    fn expectation(&self) -> &Decoding {
        &self.prepared.expectation.plan.decoding
    }

    fn derivatives(&self) -> &Decoding {
        &self.prepared.derivatives.plan.decoding
    }

    fn launch_expectation(&self, at: &AscentBuffers) -> Result<()> {
        let prepared = &self.prepared.expectation;
        self.launch(prepared, WANTS_EXPECTATION, at, &at.expectation_totals)
    }

    fn launch_derivatives(&self, at: &AscentBuffers) -> Result<()> {
        let prepared = &self.prepared.derivatives;
        self.launch(prepared, WANTS_DERIVATIVES, at, &at.derivative_totals)
    }
}
