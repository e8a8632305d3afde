//! Passes over data, and whole batches of fits, on a GPU.
//!
//! ```text
//! machine      what runs kernels: a GPU, or the processor in its place
//! structure    a mixture as kernels see it     outputs      what a pass sums
//! samples      data on a device                sample       draws them there
//! passes       launches of pass.cu             ascent       launches of ascent.cu
//! replicates   what is done with many samples  divergence   compares pairs of mixtures
//! limits       what a device can do at most    listing      all programs, for a bench
//! ```
//!
//! The kernels (`*.cu`, headers `*.cuh`) are CUDA C of our own, compiled when the
//! program runs. `docs/gpu.md` says what runs where, to which accuracy, and what has
//! been run on real hardware.

mod ascent;
mod divergence;
#[cfg(test)]
pub(crate) mod examples;
mod limits;
mod listing;
mod machine;
mod outputs;
mod passes;
mod replicates;
mod sample;
mod samples;
mod structure;

pub use ascent::{Ascended, AscentOptions, ExpectationRule, GainUnit, Halt, NewtonRule, PastJumps};
pub use divergence::{Comparer, SmoothDivergences, Steps};
#[doc(hidden)]
pub use limits::Limits;
#[doc(hidden)]
pub use listing::{ListedProgram, programs};
pub use machine::Memory;
pub use machine::choice::{DeviceChoice, DeviceDescription};
pub use machine::emulated::Order;
pub use machine::program::Precision;
#[doc(hidden)]
pub use outputs::Operation;
pub use passes::Compilation;
pub use replicates::{BoxBounds, Replicates, Sampling};

use super::{Backend, Derivatives, EmStatistics};
use crate::error::{Error, Result};
use crate::model::{Data, Identity, Parameters};
use machine::Device;
use machine::emulated::Emulated;
use ndarray::{Array1, Array2};
use outputs::masks;
use passes::Passes;
use samples::Samples;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use structure::Structure;

/// All GPUs of this computer, also those that are too old to be used.
///
/// # Errors
/// [`Error::Device`] if there is no driver, one that is too old, or if this library was
/// built without the feature `cuda`.
#[cfg(feature = "cuda")]
pub fn devices() -> Result<Vec<DeviceDescription>> {
    machine::driver::Driver::probe()
}

/// All GPUs of this computer, also those that are too old to be used.
///
/// # Errors
/// [`Error::Device`]: this library was built without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
pub fn devices() -> Result<Vec<DeviceDescription>> {
    Err(Error::device("cuda", "built without the feature `cuda`"))
}

/// What a choice of device leads to.
#[derive(Debug)]
pub enum Opened {
    /// The processor, and why no GPU is used if one was wanted.
    Processor(Option<Error>),
    /// A GPU, or the emulated one.
    Gpu(Cuda),
}

/// Opens the device that was chosen.
///
/// # Errors
/// [`Error::Device`] if a GPU was asked for and cannot be used.
pub fn open(choice: DeviceChoice) -> Result<Opened> {
    match choice {
        DeviceChoice::Cpu => Ok(Opened::Processor(None)),
        DeviceChoice::Cuda(ordinal) => Cuda::open(ordinal).map(Opened::Gpu),
        DeviceChoice::Emulated => Cuda::emulated(Emulation::default()).map(Opened::Gpu),
        DeviceChoice::Auto => Ok(match Cuda::open(0) {
            Ok(cuda) => Opened::Gpu(cuda),
            Err(error) => Opened::Processor(Some(error)),
        }),
    }
}

/// A GPU, or what stands in for one.
///
/// As a [`Backend`] it keeps copies of the data sets that it met last, so that a fit
/// sends its data once. A contract without errors has no place for a device that
/// fails: sums are then NaN, which ends a fit, and [`Cuda::failure`] has the reason.
pub struct Cuda {
    device: Device,
    compilation: Compilation,
    precision: Precision,
    passes: Mutex<Vec<(Kind, Arc<Passes>)>>,
    copies: Mutex<Vec<(Identity, Arc<Samples>)>>,
    failures: Mutex<HashMap<ThreadId, Error>>,
}

/// What stands in for a GPU where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulation {
    /// Bytes of memory.
    pub memory: usize,
    /// In which order threads take turns.
    pub order: Order,
    /// How programs are compiled.
    pub compilation: Compilation,
    /// Numbers of row-wise work.
    pub precision: Precision,
}

/// 2 GiB, one program for all structures, f64.
impl Default for Emulation {
    fn default() -> Self {
        Emulation {
            memory: 2 << 30,
            order: Order::Forward,
            compilation: Compilation::Generic,
            precision: Precision::Double,
        }
    }
}

/// All that passes depend on, but for numbers.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    precision: Precision,
    structure: Structure,
    masks: (u64, u64),
    coordinates: usize,
}

/// Data sets whose copies are kept: a fit has two, and every thread has one fit.
const COPIES: usize = 64;

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Cuda")
            .field("device", &self.device)
            .field("precision", &self.precision)
            .finish_non_exhaustive()
    }
}

impl Cuda {
    fn new(device: Device, compilation: Compilation, precision: Precision) -> Self {
        Cuda {
            device,
            compilation,
            precision,
            passes: Mutex::new(Vec::new()),
            copies: Mutex::new(Vec::new()),
            failures: Mutex::default(),
        }
    }

    /// The GPU with this ordinal, as CUDA counts them from 0.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no driver, GPU or feature `cuda`, or one that is
    /// too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Ok(Cuda::new(
            Device::new(machine::driver::Driver::open(ordinal)?),
            Compilation::Specialised,
            Precision::Double,
        ));
        #[cfg(not(feature = "cuda"))]
        return Err(Error::device(
            format!("cuda:{ordinal}"),
            "built without the feature `cuda`",
        ));
    }

    /// The processor in the place of a GPU, for tests: the same kernels, compiled by
    /// g++.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no C++ compiler.
    pub fn emulated(emulation: Emulation) -> Result<Self> {
        let machine = Emulated::with_order(emulation.memory, emulation.order)?;
        Ok(Cuda::new(
            Device::new(machine),
            emulation.compilation,
            emulation.precision,
        ))
    }

    /// The same device with another precision of row-wise work.
    pub fn with_precision(self, precision: Precision) -> Self {
        Cuda::new(self.device, self.compilation, precision)
    }

    /// The same device with programs compiled in another way.
    pub fn with_compilation(self, compilation: Compilation) -> Self {
        Cuda::new(self.device, compilation, self.precision)
    }

    /// As the user names it, and what it is.
    pub fn description(&self) -> String {
        let machine = self.device.machine();
        format!("{} ({})", machine.name(), machine.description())
    }

    /// Compares pairs of mixtures on this device.
    pub fn comparer(&self) -> Comparer {
        Comparer::new(&self.device)
    }

    /// Why sums that this thread asked for became NaN, if the device failed since it
    /// last asked.
    pub fn failure(&self) -> Option<Error> {
        let mut failures = self.failures.lock().expect("no panic while held");
        failures.remove(&std::thread::current().id())
    }

    /// The passes for mixtures with the structure of `template`, outside climbs.
    fn passes(&self, template: &Parameters) -> Result<Arc<Passes>> {
        self.passes_in(template, self.precision)
    }

    fn passes_in(&self, template: &Parameters, precision: Precision) -> Result<Arc<Passes>> {
        let precision = match precision {
            Precision::Mixed => Precision::Double,
            pure => pure,
        };
        let kind = Kind {
            precision,
            structure: Structure::of(template),
            masks: masks(template),
            // Tells a shared variance from one per expert.
            coordinates: template.layout().len(),
        };
        let mut known = self.passes.lock().expect("no panic while held");
        if let Some((_, passes)) = known.iter().find(|(k, _)| *k == kind) {
            return Ok(passes.clone());
        }
        let passes = Passes::new(&self.device, template, self.compilation, precision)?;
        let passes = Arc::new(passes);
        known.push((kind, passes.clone()));
        Ok(passes)
    }

    /// The copy of a data set, made if there is none.
    fn copy(&self, data: &Data) -> Result<Arc<Samples>> {
        let identity = data.identity();
        let mut copies = self.copies.lock().expect("no panic while held");
        if let Some(at) = copies.iter().position(|(known, _)| known.is(identity)) {
            let found = copies.remove(at);
            copies.push(found);
            return Ok(copies[copies.len() - 1].1.clone());
        }
        if copies.len() >= COPIES {
            copies.remove(0);
        }
        let samples = match Samples::upload(&self.device, &[data]) {
            Err(Error::OutOfMemory { .. }) => {
                copies.clear();
                Samples::upload(&self.device, &[data])?
            }
            other => other?,
        };
        let samples = Arc::new(samples);
        copies.push((identity, samples.clone()));
        Ok(samples)
    }

    /// The decoded sums of one pass, NaN if the device fails.
    fn sums(&self, operation: Operation, parameters: &Parameters, data: &Data) -> Vec<f64> {
        let run = || {
            let passes = self.passes(parameters)?;
            let samples = self.copy(data)?;
            let sums = passes.run(operation, &samples, data.len(), &[(0, parameters)])?;
            Ok(sums.into_iter().next().expect("one fit, one result"))
        };
        run().unwrap_or_else(|error| {
            let mut failures = self.failures.lock().expect("no panic while held");
            failures.insert(std::thread::current().id(), error);
            let plan = outputs::Plan::new(operation, parameters);
            vec![f64::NAN; plan.length()]
        })
    }
}

impl Backend for Cuda {
    fn log_likelihood(&self, parameters: &Parameters, data: &Data) -> f64 {
        self.sums(Operation::Value, parameters, data)[0]
    }

    fn gradient(&self, parameters: &Parameters, data: &Data) -> (f64, Array1<f64>) {
        let sums = self.sums(Operation::Gradient, parameters, data);
        (sums[0], Array1::from(sums[1..].to_vec()))
    }

    fn derivatives(&self, parameters: &Parameters, data: &Data) -> Derivatives {
        let sums = self.sums(Operation::Derivatives, parameters, data);
        outputs::derivatives(&sums, parameters.layout().len())
    }

    fn score_outer(&self, parameters: &Parameters, data: &Data) -> Array2<f64> {
        let sums = self.sums(Operation::Outer, parameters, data);
        outputs::outer(&sums, parameters.layout().len())
    }

    fn em_statistics(&self, parameters: &Parameters, data: &Data) -> EmStatistics {
        let sums = self.sums(Operation::Expectation, parameters, data);
        outputs::statistics(&sums, parameters)
    }
}
