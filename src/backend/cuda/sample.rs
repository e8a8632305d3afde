//! Samples drawn where they are used.

use super::machine::program::{IN_DOUBLE, Program, Source};
use super::machine::{Address, Buffer, Device, Shape};
use super::structure::{Structure, table};
use crate::error::{Error, Result};
use crate::model::{InputLaw, Model};
use crate::rng::Stream;
use bytemuck::{Pod, Zeroable};
use statrs::distribution::{ContinuousCDF, Normal};

/// The kernel `draw_samples`. It computes in f64 whatever the rows' precision.
pub(super) const SAMPLE: Source = Source {
    name: "sample",
    parts: &[
        IN_DOUBLE,
        ("prelude.cuh", include_str!("prelude.cuh")),
        ("mixture.cuh", include_str!("mixture.cuh")),
        ("philox.cuh", include_str!("philox.cuh")),
        ("quantile.cuh", include_str!("quantile.cuh")),
        ("sample.cu", include_str!("sample.cu")),
    ],
    kernels: &["draw_samples"],
};

const THREADS: usize = 128;
/// Enough to fill any device; each thread then draws many rows.
const MOST_BLOCKS: usize = 1 << 14;

/// Twin of `Draw` in `sample.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Draw {
    table: Address,
    law: Address,
    keys: Address,
    values: Address,
    rows: u64,
    samples: u64,
    points: u64,
    structure: Structure,
    kind: i32,
    padding: i32,
}

/// Draws `n` independent pairs (x, y) of the model for each stream: rows 0, 1, ... of
/// [`crate::model::draw_sample`], in the layout of [`super::structure::Rows`] without
/// counts and with capacity `n`.
///
/// Uniforms, and inputs of a uniform law or a grid, have the processor's bits; other
/// inputs differ by rounding (relative 1e-13), and so do responses. Shape of the
/// result: streams, d + 1, n.
///
/// `constants` are those of the model's structure, for it alone or for all.
///
/// # Errors
/// [`Error::Value`] for a lattice, whose few counts the processor draws; errors of
/// the device.
pub(super) fn draw(
    device: &Device,
    model: &Model,
    n: usize,
    streams: &[Stream],
    constants: &[(&str, String)],
) -> Result<Buffer<f64>> {
    let program = Program::new(&SAMPLE, constants);
    draw_with_blocks(device, model, n, streams, &program, MOST_BLOCKS)
}

fn draw_with_blocks(
    device: &Device,
    model: &Model,
    n: usize,
    streams: &[Stream],
    program: &Program,
    most_blocks: usize,
) -> Result<Buffer<f64>> {
    let (kind, law, points) = numbers(&model.input)?;
    let parameters = &model.parameters;
    let values = device.zeros(streams.len() * (parameters.dimension() + 1) * n)?;
    let keys: Vec<u32> = streams.iter().flat_map(Stream::key).collect();
    let (table, law, keys) = (
        device.upload(&table(parameters))?,
        device.upload(&law)?,
        device.upload(&keys)?,
    );
    let shape = Shape {
        blocks: (n * streams.len()).div_ceil(THREADS).min(most_blocks),
        threads: THREADS,
        shared: 0,
    };
    let draw = Draw {
        table: table.address(),
        law: law.address(),
        keys: keys.address(),
        values: values.address(),
        rows: n as u64,
        samples: streams.len() as u64,
        points: points as u64,
        structure: Structure::of(parameters),
        kind,
        padding: 0,
    };
    device.launch(program, "draw_samples", shape, &draw)?;
    // The arrays it reads must live until it has run.
    device.machine().synchronise()?;
    Ok(values)
}

/// Code, numbers and number of points of a law: see `sample.cu`.
fn numbers(law: &InputLaw) -> Result<(i32, Vec<f64>, usize)> {
    match law {
        InputLaw::Uniform { low, high } => {
            let width = low.iter().zip(high).map(|(low, high)| high - low);
            Ok((0, low.iter().copied().chain(width).collect(), 0))
        }
        InputLaw::Normal {
            mean,
            sd,
            truncation,
        } => {
            let below = Normal::standard().cdf(-truncation);
            let rest = [*truncation, below, 1.0 - 2.0 * below];
            Ok((1, [mean, sd, &rest[..]].concat(), 0))
        }
        InputLaw::Grid {
            lattice: Some(_), ..
        } => Err(Error::value(
            "input.lattice",
            "a sample of counts is not drawn on a device",
        )),
        InputLaw::Grid { points, .. } => Ok((2, points.concat(), points.len())),
    }
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
