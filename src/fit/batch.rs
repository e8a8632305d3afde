//! The estimator on a GPU, for many samples at once.
//!
//! The same steps as [`super::multistart::fit`], each for all samples and starts
//! together:
//!
//! ```text
//! starts                    on the host, from the leading rows (starts look at few)
//! method, polish: pilot     on the device, of every start on every sample
//! polish: all rows          on the device, of every distinct pilot maximum
//! what is left              on the host: kinks, near-equal experts
//! ```
//!
//! The device knows straight Newton steps ([`crate::backend::cuda`]). A fit that it
//! cannot certify goes on from where the device left it, with all that
//! [`super::newton`] knows, on a copy of the sample that the caller makes on the host.
//! So a fit ends for the same reasons on either device; the numbers agree to the
//! certificate, not to the last bit. Likelihoods that jump ([`super::has_jumps`]) are
//! not for it.

use super::bounds::Bounds;
use super::em::{GainMeasure, GateStep};
use super::multistart::{Method, MultiStart, Options, Polish, distinct, shared_out, twins};
use super::newton::{NewtonOptions, polish};
use super::outcome::{Effort, Outcome, Stop};
use super::start::{Start, StartContext};
use crate::backend::Cpu;
use crate::backend::cuda::{
    Ascended, AscentOptions, BoxBounds, Cuda, ExpectationRule, GainUnit, Halt, NewtonRule,
    PastJumps, Replicates, Sampling,
};
use crate::error::Result;
use crate::model::{Data, Parameters};
use crate::rng::Stream;
use rayon::prelude::*;
use std::time::Instant;

/// Newton steps on the device before the host takes over: several times what a
/// smooth fit needs. What needs more needs what the host knows: curved steps along
/// near-equal experts, scores gathered around a kink.
const MOST_STEPS: usize = 30;

/// Samples to fit, and to what.
pub struct Batch<'a> {
    /// The device.
    pub cuda: &'a Cuda,
    /// The samples on it.
    pub replicates: &'a Replicates,
    /// The structure to fit; its values are not used.
    pub template: &'a Parameters,
    /// The truth, where it is known.
    pub truth: Option<&'a Parameters>,
    /// The parameter set.
    pub bounds: &'a Bounds,
    /// n of each sample, counts included.
    pub sample_size: f64,
    /// The estimator; see [`Batch::takes`].
    pub options: &'a Options,
    /// The leading rows of a sample, on the host: (sample, rows).
    pub head: &'a (dyn Fn(usize, usize) -> Data + Sync),
}

/// Where the time of [`Batch::fit`] goes, in seconds.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phases {
    /// Leading rows and starts, on the host.
    pub starts: f64,
    /// The climbs from the starts, on the device.
    pub pilot: f64,
    /// The climbs on all rows after a pilot, on the device.
    pub polish: f64,
    /// What the device left, on the host.
    pub host: f64,
}

impl Batch<'_> {
    /// True if the device can run an estimator, of likelihoods without jumps: EM with
    /// one gate step per iteration, then the polish.
    pub fn takes(options: &Options) -> bool {
        let by_em = options.method == Method::Em;
        by_em
            && options.gate_step == GateStep::OneStep
            && matches!(options.polish, Polish::Newton(_))
    }

    /// Fits every sample, of more rows than parameters, from every start; `stream(s, k)`
    /// is that of start k on sample s. Outcomes in the order of samples.
    ///
    /// # Errors
    /// As [`Start::parameters`]; [`crate::error::Error::OutOfMemory`],
    /// [`crate::error::Error::Device`].
    ///
    /// # Panics
    /// Unless [`Batch::takes`] the options.
    pub fn fit(
        &self,
        starts: &[Start],
        stream: impl Fn(usize, usize) -> Stream + Sync,
    ) -> Result<Vec<MultiStart>> {
        Ok(self.fit_timed(starts, stream)?.0)
    }

    /// [`Batch::fit`], and where its time went.
    ///
    /// # Errors
    /// As [`Batch::fit`].
    ///
    /// # Panics
    /// As [`Batch::fit`].
    #[doc(hidden)]
    pub fn fit_timed(
        &self,
        starts: &[Start],
        stream: impl Fn(usize, usize) -> Stream + Sync,
    ) -> Result<(Vec<MultiStart>, Phases)> {
        let mut phases = Phases::default();
        let Polish::Newton(newton) = self.options.polish else {
            panic!("the device runs estimators with a polish only");
        };
        let rows = self.replicates.rows();
        let pilot = self.options.pilot_rows.filter(|&pilot| pilot < rows);
        let pilot = pilot.filter(|_| !self.replicates.is_counted());
        let first_rows = pilot.unwrap_or(rows);
        let clock = Instant::now();
        let from = self.starting_points(starts, &stream, first_rows)?;
        phases.starts = clock.elapsed().as_secs_f64();
        let first = self.climb(from, first_rows, newton, WithMethod::Yes, &mut phases)?;
        let outcomes = match pilot {
            None => first,
            Some(_) => self.polish_distinct(first, starts.len(), newton, &mut phases)?,
        };
        let mut outcomes = outcomes.into_iter();
        let fits = (0..self.replicates.count())
            .map(|_| MultiStart::new(outcomes.by_ref().take(starts.len()).collect()))
            .collect();
        Ok((fits, phases))
    }

    /// Every start on every sample.
    fn starting_points(
        &self,
        starts: &[Start],
        stream: &(impl Fn(usize, usize) -> Stream + Sync),
        rows: usize,
    ) -> Result<Vec<(usize, Parameters)>> {
        let rows = match starts.iter().any(Start::needs_data) {
            true => rows,
            false => 1,
        };
        let of_sample = |sample: usize| -> Result<Vec<(usize, Parameters)>> {
            let data = (self.head)(sample, rows);
            let context = StartContext {
                template: self.template,
                truth: self.truth,
                data: &data,
                bounds: self.bounds,
            };
            let one = |(k, start): (usize, &Start)| {
                Ok((sample, start.parameters(context, &stream(sample, k))?))
            };
            starts.iter().enumerate().map(one).collect()
        };
        let all: Result<Vec<Vec<_>>> = (0..self.replicates.count())
            .into_par_iter()
            .map(of_sample)
            .collect();
        Ok(all?.into_iter().flatten().collect())
    }

    /// Climbs on the leading `rows` rows; what the device cannot finish, the host
    /// does.
    fn climb(
        &self,
        from: Vec<(usize, Parameters)>,
        rows: usize,
        newton: NewtonOptions,
        method: WithMethod,
        phases: &mut Phases,
    ) -> Result<Vec<Outcome>> {
        let layout = self.template.layout();
        let sample_size = match self.replicates.is_counted() {
            true => self.sample_size,
            false => rows as f64,
        };
        let options = ascent_options(self.options, method, sample_size);
        let starts: Vec<(usize, Vec<f64>)> = from
            .iter()
            .map(|(sample, parameters)| (*sample, layout.pack(parameters)))
            .collect();
        let clock = Instant::now();
        let ends = self.cuda.ascend(
            self.replicates,
            rows,
            self.template,
            BoxBounds {
                low: &self.bounds.low,
                high: &self.bounds.high,
            },
            &starts,
            &options,
        )?;
        match method {
            WithMethod::Yes => phases.pilot += clock.elapsed().as_secs_f64(),
            WithMethod::No => phases.polish += clock.elapsed().as_secs_f64(),
        }
        let clock = Instant::now();
        let fits = from.into_iter().zip(ends).collect::<Vec<_>>();
        let fits = fits
            .into_par_iter()
            .map(|((sample, _), end)| self.finished(sample, rows, newton, self.outcome(end, rows)))
            .collect();
        phases.host += clock.elapsed().as_secs_f64();
        Ok(fits)
    }

    fn outcome(&self, end: Ascended, rows: usize) -> Outcome {
        let layout = self.template.layout();
        Outcome {
            parameters: layout.unpack(self.template, &end.packed),
            log_likelihood: end.log_likelihood,
            stop: end.halt.into(),
            scaled_score: end.scaled_score,
            on_bound: self.bounds.at_bound(&layout, &end.packed),
            effort: Effort {
                em: end.em,
                gradient: 0,
                newton: end.newton,
                rows: end.passes * rows,
            },
        }
    }

    /// The outcome itself if it is certified or hopeless; else where the host's polish
    /// leads from there.
    fn finished(&self, sample: usize, rows: usize, newton: NewtonOptions, end: Outcome) -> Outcome {
        let hopeless = matches!(end.stop, Stop::NonFinite { .. } | Stop::Singular { .. });
        if hopeless || end.stop.is_converged() {
            return end;
        }
        let data = (self.head)(sample, rows);
        let mut outcome = polish(&Cpu::new(), &data, &end.parameters, self.bounds, newton);
        outcome.effort += end.effort;
        outcome
    }

    /// Polishes pilot outcomes on all rows, each distinct maximum of a sample once.
    fn polish_distinct(
        &self,
        pilots: Vec<Outcome>,
        starts: usize,
        newton: NewtonOptions,
        phases: &mut Phases,
    ) -> Result<Vec<Outcome>> {
        let samples: Vec<_> = pilots
            .chunks(starts.max(1))
            .map(|pilots| (pilots, twins(pilots)))
            .collect();
        let from = samples.iter().enumerate().flat_map(|(s, (pilots, twins))| {
            distinct(pilots, twins).map(move |pilot| (s, pilot.parameters.clone()))
        });
        let rows = self.replicates.rows();
        let ends = self.climb(from.collect(), rows, newton, WithMethod::No, phases)?;
        let mut ends = ends.into_iter();
        let of_sample = samples.iter().flat_map(|(pilots, twins)| {
            let count = twins.iter().filter(|twin| twin.is_none()).count();
            shared_out(pilots.to_vec(), twins, ends.by_ref().take(count).collect())
        });
        Ok(of_sample.collect())
    }
}

/// The device's part of an estimator.
fn ascent_options(options: &Options, method: WithMethod, sample_size: f64) -> AscentOptions {
    let newton = match options.polish {
        Polish::Newton(newton) => newton,
        Polish::None => NewtonOptions::default(),
    };
    AscentOptions {
        expectation: (method == WithMethod::Yes).then_some(ExpectationRule {
            max_iterations: options.max_iterations,
            gain: options.gain,
            measure: match options.gain_measure {
                GainMeasure::Total => GainUnit::Total,
                GainMeasure::Relative => GainUnit::Relative,
                GainMeasure::Mean => GainUnit::Mean,
            },
        }),
        newton: Some(NewtonRule {
            max_iterations: newton.max_iterations.min(MOST_STEPS),
            scaled_score: newton.scaled_score,
            gain: newton.gain,
            past_jumps: PastJumps::Newton,
        }),
        sample_size,
    }
}

/// How many samples of a cell fit into a device's memory with all their fits.
///
/// # Errors
/// As [`Cuda::most_replicates`].
pub fn most_samples(
    cuda: &Cuda,
    template: &Parameters,
    sampling: Sampling,
    rows: usize,
    starts: usize,
    options: &Options,
) -> Result<usize> {
    let options = ascent_options(options, WithMethod::Yes, rows as f64);
    cuda.most_replicates(template, sampling, rows, starts, &options)
}

/// Whether EM goes before the polish.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WithMethod {
    Yes,
    No,
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Converged => Stop::Converged,
            Halt::Saddle => Stop::Saddle,
            Halt::NoAscent => Stop::NoAscent,
            Halt::SmallGain => Stop::SmallGain,
            Halt::MaxIterations => Stop::MaxIterations,
            Halt::Singular { iteration } => Stop::Singular { iteration },
            Halt::NonFinite { iteration } => Stop::NonFinite { iteration },
            Halt::Decreased { iteration, size } => Stop::Decreased { iteration, size },
        }
    }
}
