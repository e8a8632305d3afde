//! Divergences between pairs of mixtures at many inputs.

use super::machine::program::{IN_DOUBLE, Program, Source};
use super::machine::{Address, Device, Shape};
use super::structure::{GENERIC_DIMENSION, GENERIC_EXPERTS, Structure, table};
use crate::error::Result;
use crate::model::Parameters;
use bytemuck::{Pod, Zeroable};

/// The kernels `write_terms` and `sum_over_steps`, for all structures up to a size.
pub(super) const DIVERGENCE: Source = Source {
    name: "divergence",
    parts: &[
        IN_DOUBLE,
        ("prelude.cuh", include_str!("prelude.cuh")),
        ("mixture.cuh", include_str!("mixture.cuh")),
        ("divergence.cu", include_str!("divergence.cu")),
    ],
    kernels: &["write_terms", "sum_over_steps"],
};

/// Threads of a block that sums over steps: part of the order of summation.
const THREADS: usize = 64;
/// Threads of a block that writes terms.
const TERM_THREADS: usize = 128;
/// Most blocks of a launch.
const MOST_BLOCKS: usize = 1 << 15;
/// Most memory for the terms of one launch, in bytes.
const TERM_BYTES: usize = 64 << 20;
/// Numbers in front of a mixture's terms, and in each: as in `divergence.cu`.
const HEADER: usize = 4;
const TERM: usize = 3;

/// The trapezoidal rule over y: see `loss::divergence`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// Half-width of the range of integration in standard deviations.
    pub range: f64,
    /// Nodes per smallest standard deviation.
    pub nodes_per_deviation: f64,
    /// Where more nodes would be needed nothing is computed.
    pub most_nodes: f64,
}

/// Divergences between p(. | x) and q(. | x) that need no root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothDivergences {
    /// h^2
    pub hellinger_sq: f64,
    /// KL(p || q)
    pub kullback_leibler: f64,
}

/// Compares mixtures on a device.
#[derive(Clone, Debug)]
pub struct Comparer {
    device: Device,
}

/// Twin of `Pair` in `divergence.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Pair {
    p: Structure,
    q: Structure,
    table_p: u64,
    table_q: u64,
}

/// Twin of `WriteTerms` in `divergence.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct WriteTerms {
    pairs: Address,
    tables: Address,
    pair_of: Address,
    inputs: Address,
    terms: Address,
    requests: u64,
    range: f64,
    input_stride: i32,
    stride: i32,
}

/// Twin of `SumOverSteps` in `divergence.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct SumOverSteps {
    terms: Address,
    results: Address,
    requests: u64,
    nodes_per_deviation: f64,
    most_nodes: f64,
    stride: i32,
    padding: i32,
}

impl Comparer {
    pub(super) fn new(device: &Device) -> Self {
        Comparer {
            device: device.clone(),
        }
    }

    /// Divergences from the first to the second mixture of a pair at an input, one
    /// per request (index of the pair, input of shape d), in their order; `None` where
    /// the rule needs too many nodes or gives no number.
    ///
    /// A result depends on its own pair and input only. Structures may differ, also
    /// within a pair.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`], [`crate::error::Error::OutOfMemory`].
    pub fn divergences(
        &self,
        pairs: &[(&Parameters, &Parameters)],
        requests: &[(usize, &[f64])],
        steps: Steps,
    ) -> Result<Vec<Option<SmoothDivergences>>> {
        let mut tables = Vec::new();
        let mut place = |parameters: &Parameters| {
            let begin = tables.len() as u64;
            tables.extend(table(parameters));
            (Structure::of(parameters), begin)
        };
        let pairs: Vec<Pair> = pairs
            .iter()
            .map(|(p, q)| {
                let ((p, table_p), (q, table_q)) = (place(p), place(q));
                Pair {
                    p,
                    q,
                    table_p,
                    table_q,
                }
            })
            .collect();
        let largest = |size: fn(&Structure) -> i32| {
            let sizes = pairs.iter().flat_map(|pair| [size(&pair.p), size(&pair.q)]);
            sizes.max().unwrap_or(0) as usize
        };
        let experts = largest(|structure| structure.experts);
        let input_stride = largest(|structure| structure.dimension);
        let program = Program::new(&DIVERGENCE, &constants(experts, input_stride));
        let stride = HEADER + TERM * experts;
        let most = (TERM_BYTES / (2 * stride * size_of::<f64>())).clamp(1, requests.len().max(1));
        let (pairs, tables) = (self.device.upload(&pairs)?, self.device.upload(&tables)?);
        let terms = self.device.zeros::<f64>(2 * stride * most)?;
        let results = self.device.zeros::<f64>(2 * most)?;
        let mut found = Vec::with_capacity(requests.len());
        for requests in requests.chunks(most) {
            let pair_of: Vec<u32> = requests.iter().map(|(pair, _)| *pair as u32).collect();
            let mut inputs = vec![0.0; requests.len() * input_stride];
            for (k, (_, x)) in requests.iter().enumerate() {
                inputs[k * input_stride..][..x.len()].copy_from_slice(x);
            }
            let pair_of = self.device.upload(&pair_of)?;
            let inputs = self.device.upload(&inputs)?;
            let write = WriteTerms {
                pairs: pairs.address(),
                tables: tables.address(),
                pair_of: pair_of.address(),
                inputs: inputs.address(),
                terms: terms.address(),
                requests: requests.len() as u64,
                range: steps.range,
                input_stride: input_stride as i32,
                stride: stride as i32,
            };
            let shape = Shape {
                blocks: (2 * requests.len()).div_ceil(TERM_THREADS),
                threads: TERM_THREADS,
                shared: 0,
            };
            self.device.launch(&program, "write_terms", shape, &write)?;
            let sum = SumOverSteps {
                terms: terms.address(),
                results: results.address(),
                requests: requests.len() as u64,
                nodes_per_deviation: steps.nodes_per_deviation,
                most_nodes: steps.most_nodes,
                stride: stride as i32,
                padding: 0,
            };
            let shape = Shape {
                blocks: requests.len().min(MOST_BLOCKS),
                threads: THREADS,
                shared: 2 * (stride + THREADS) * size_of::<f64>(),
            };
            self.device
                .launch(&program, "sum_over_steps", shape, &sum)?;
            let values = results.read(0, 2 * requests.len())?;
            found.extend(values.chunks(2).map(|value| {
                (!value[0].is_nan() && !value[1].is_nan()).then_some(SmoothDivergences {
                    hellinger_sq: value[0],
                    kullback_leibler: value[1],
                })
            }));
        }
        Ok(found)
    }
}

/// Constants of the program for all structures of moderate size, or up to the given one.
pub(super) fn constants(experts: usize, dimension: usize) -> [(&'static str, String); 2] {
    let experts = experts
        .next_multiple_of(GENERIC_EXPERTS)
        .max(GENERIC_EXPERTS);
    let dimension = dimension
        .next_multiple_of(GENERIC_DIMENSION)
        .max(GENERIC_DIMENSION);
    [
        ("SMOE_MOST_EXPERTS", experts.to_string()),
        ("SMOE_MOST_DIMENSION", dimension.to_string()),
    ]
}

#[cfg(test)]
#[path = "divergence_tests.rs"]
mod tests;
