//! Passes over data, and whole batches of fits, on a GPU.
//!
//! ```text
//! device    memory, programs, launches: all that is asked of a machine
//! driver    a GPU, by cudarc and NVRTC      emulated   the processor, by g++
//! program   source text, constants, cache   structure  a mixture as kernels see it
//! ascent    the control of many climbs of a likelihood
//! ```

mod ascent;
mod cache;
mod device;
mod emulated;
mod program;
mod structure;

pub use ascent::{Ascended, AscentOptions, ExpectationRule, GainUnit, Halt, NewtonRule, PastJumps};
pub use device::Memory;
pub use program::Precision;
