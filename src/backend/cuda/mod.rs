//! Passes over data, and whole batches of fits, on a GPU.
//!
//! ```text
//! device    memory, programs, launches: all that is asked of a machine
//! driver    a GPU, by cudarc and NVRTC      emulated   the processor, by g++
//! program   source text, constants, cache   structure  a mixture as kernels see it
//!
//! sample    draws samples where they are used
//! divergence   compares pairs of mixtures at many inputs
//! ```

mod cache;
mod device;
mod divergence;
mod emulated;
#[cfg(test)]
pub(crate) mod examples;
mod program;
mod sample;
mod structure;

pub use device::Memory;
pub use divergence::{Comparer, SmoothDivergences, Steps};
pub use program::Precision;
