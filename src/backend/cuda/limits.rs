//! What a device can do at most, measured: what passes are compared with.

use super::Cuda;
use super::machine::program::{IN_DOUBLE, Program, Source};
use super::machine::{Address, Buffer, Device, Shape};
use crate::error::Result;
use bytemuck::{Pod, Zeroable};
use std::time::Instant;

/// One program for all devices.
pub(super) const LIMITS: Source = Source {
    name: "limits",
    parts: &[
        IN_DOUBLE,
        ("prelude.cuh", include_str!("prelude.cuh")),
        ("limits.cu", include_str!("limits.cu")),
    ],
    kernels: &[
        "triad",
        "multiply_add_double",
        "multiply_add_single",
        "exponentials",
    ],
};

/// As in `limits.cu`.
const CHAINS: usize = 8;
/// Launches of which the fastest counts.
const REPETITIONS: usize = 5;

/// Rates of a device, per second.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of memory read and written.
    pub bytes: f64,
    /// Fused multiply-adds in f64.
    pub multiply_adds: f64,
    /// The same in f32.
    pub single_multiply_adds: f64,
    /// Exponentials in f64.
    pub exponentials: f64,
}

/// Twin of `LimitArguments` in `limits.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LimitArguments {
    values: Address,
    count: u64,
    steps: u64,
    factor: f64,
}

impl Cuda {
    /// What the device can do, each rate from launches of `blocks` blocks that take
    /// `seconds` or longer, the bandwidth from arrays of `bytes` bytes in all.
    ///
    /// # Errors
    /// [`crate::error::Error::OutOfMemory`], [`crate::error::Error::Device`].
    #[doc(hidden)]
    pub fn limits(&self, blocks: usize, bytes: usize, seconds: f64) -> Result<Limits> {
        let measurement = Measurement {
            device: &self.device,
            program: Program::new(&LIMITS, &[]),
            shape: Shape {
                blocks,
                threads: 256,
                shared: 0,
            },
        };
        let threads = measurement.shape.blocks * measurement.shape.threads;
        let results = self.device.zeros::<f64>(threads)?;
        let rate = |kernel| measurement.rate(kernel, &results, seconds);
        Ok(Limits {
            bytes: measurement.bandwidth(bytes)?,
            multiply_adds: rate("multiply_add_double")?,
            single_multiply_adds: rate("multiply_add_single")?,
            exponentials: rate("exponentials")?,
        })
    }

    /// Product, capability, memory and driver.
    #[doc(hidden)]
    pub fn details(&self) -> String {
        self.device.machine().details()
    }
}

struct Measurement<'a> {
    device: &'a Device,
    program: Program,
    shape: Shape,
}

impl Measurement<'_> {
    fn seconds(&self, kernel: &'static str, arguments: &LimitArguments) -> Result<f64> {
        let clock = Instant::now();
        self.device
            .launch(&self.program, kernel, self.shape, arguments)?;
        self.device.machine().synchronise()?;
        Ok(clock.elapsed().as_secs_f64())
    }

    /// The least time of several launches; one before them compiles.
    fn least(&self, kernel: &'static str, arguments: &LimitArguments) -> Result<f64> {
        let mut least = f64::INFINITY;
        self.seconds(kernel, arguments)?;
        for _ in 0..REPETITIONS {
            least = least.min(self.seconds(kernel, arguments)?);
        }
        Ok(least)
    }

    fn bandwidth(&self, bytes: usize) -> Result<f64> {
        let count = bytes / (3 * size_of::<f64>());
        let values = self.device.zeros::<f64>(3 * count)?;
        let arguments = LimitArguments {
            values: values.address(),
            count: count as u64,
            steps: 1,
            factor: 0.5,
        };
        let moved = (3 * count * size_of::<f64>()) as f64;
        Ok(moved / self.least("triad", &arguments)?)
    }

    /// Operations per second: as many steps as take long enough.
    fn rate(&self, kernel: &'static str, results: &Buffer<f64>, seconds: f64) -> Result<f64> {
        let arguments = |steps| LimitArguments {
            values: results.address(),
            count: results.len() as u64,
            steps,
            factor: 0.5,
        };
        let mut steps = 16;
        self.seconds(kernel, &arguments(steps))?;
        while self.seconds(kernel, &arguments(steps))? < seconds {
            steps *= 2;
        }
        let operations = (results.len() * CHAINS) as f64 * steps as f64;
        Ok(operations / self.least(kernel, &arguments(steps))?)
    }
}
