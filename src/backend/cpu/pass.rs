//! One pass: every block of rows, tile by tile, summed in a fixed order.

use super::mixture::Mixture;
use super::observe::{Keep, Observe};
use super::operation::Operation;
use super::tile::{Column, OCTETS, ROWS, Tile, ZERO, feature_count};
use crate::model::Data;
use crate::num::lanes::{Kernel, Lanes, Level, Octet, Simd, dispatch_at};
use crate::num::sum::CompensatedSum;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Rows per block. Blocks are the unit of work and of summation.
const BLOCK: usize = 64 * ROWS;
/// Below this many blocks one thread works alone: sweeps run many fits at once.
const PARALLEL_BLOCKS: usize = 64;

/// What a pass leaves behind: the log-likelihood and the operation's sums.
pub(super) struct Total {
    pub log_likelihood: f64,
    pub sums: Vec<f64>,
}

/// Runs `operation` over all rows with the instructions of `level`.
///
/// Lanes are summed within a tile, tiles within a block, blocks in their order:
/// the result depends neither on the number of threads nor on the width of the
/// registers.
pub(super) fn run(
    level: Level,
    mixture: &Mixture,
    data: &Data,
    operation: &impl Operation,
) -> Total {
    let degrees = operation.degrees();
    let d = data.dimension();
    let width: usize = degrees.iter().map(|&g| feature_count(d, g)).sum();
    let pass = Pass {
        level,
        mixture,
        data,
        operation,
        degrees: &degrees,
        width,
    };
    let blocks = data.len().div_ceil(BLOCK).max(1);
    // The log-likelihood of each block stands first.
    let mut of_blocks = vec![0.0; blocks * (1 + width)];
    let work = |(block, sums): (usize, &mut [f64])| {
        let rows = block * BLOCK..((block + 1) * BLOCK).min(data.len());
        WORKSPACE.with_borrow_mut(|workspace| pass.block(rows, workspace, sums));
    };
    if blocks < PARALLEL_BLOCKS {
        of_blocks.chunks_mut(1 + width).enumerate().for_each(work);
    } else {
        let chunks = of_blocks.par_chunks_mut(1 + width).enumerate();
        chunks.for_each(work);
    }
    let log_likelihoods = of_blocks.iter().step_by(1 + width).copied();
    let log_likelihood: CompensatedSum = log_likelihoods.collect();
    let mut sums = vec![0.0; width];
    for block in of_blocks.chunks(1 + width) {
        sums.iter_mut().zip(&block[1..]).for_each(|(s, v)| *s += v);
    }
    Total {
        log_likelihood: log_likelihood.value(),
        sums,
    }
}

/// What all blocks of a pass share.
struct Pass<'a, O> {
    level: Level,
    mixture: &'a Mixture,
    data: &'a Data,
    operation: &'a O,
    degrees: &'a [usize],
    width: usize,
}

/// Memory of one thread, kept from pass to pass.
struct Workspace {
    tile: Tile,
    scratch: Vec<Column>,
    columns: Vec<Column>,
    /// Sums over the rows of a block, lane by lane.
    sums: Vec<Octet>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace {
        tile: Tile::new(),
        scratch: Vec::new(),
        columns: Vec::new(),
        sums: Vec::new(),
    });
}

impl<O: Operation> Pass<'_, O> {
    /// Writes the log-likelihood and the sums of a block of rows.
    fn block(&self, rows: Range<usize>, workspace: &mut Workspace, result: &mut [f64]) {
        let Workspace {
            tile,
            scratch,
            columns,
            sums,
        } = workspace;
        let degree = self.degrees.iter().copied().max().unwrap_or(0);
        // Affine predictors read the inputs whatever the sums need.
        tile.prepare(
            self.data.dimension(),
            self.mixture.experts.len(),
            degree.max(1),
        );
        scratch.resize(self.operation.scratch(), ZERO);
        columns.resize(self.degrees.len(), ZERO);
        sums.clear();
        sums.resize(self.width, Octet::default());
        let mut log_likelihood = Octet::default();
        for first in rows.clone().step_by(ROWS) {
            tile.read(self.data, first, ROWS.min(rows.end - first));
            tile.prefetch(self.data, first + ROWS);
            let observe = Observe {
                mixture: self.mixture,
                tile,
                keep: match self.degrees.is_empty() {
                    true => Keep::LogDensity,
                    false => Keep::Derivatives,
                },
                log_likelihood: &mut log_likelihood,
            };
            dispatch_at(self.level, observe);
            if self.degrees.is_empty() {
                continue;
            }
            let fill = Fill {
                operation: self.operation,
                tile,
                scratch,
                columns,
            };
            dispatch_at(self.level, fill);
            let contract = Contract {
                d: self.data.dimension(),
                degrees: self.degrees,
                tile,
                columns,
                sums,
            };
            dispatch_at(self.level, contract);
        }
        result[0] = log_likelihood.sum();
        for (result, lanes) in result[1..].iter_mut().zip(&*sums) {
            *result = lanes.sum();
        }
    }
}

/// Writes an operation's columns.
struct Fill<'a, O> {
    operation: &'a O,
    tile: &'a Tile,
    scratch: &'a mut [Column],
    columns: &'a mut [Column],
}

impl<O: Operation> Kernel for Fill<'_, O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.operation
            .fill(simd, self.tile, self.scratch, self.columns);
    }
}

/// Adds sum over the tile's rows of each column times each feature up to its
/// degree.
struct Contract<'a> {
    d: usize,
    degrees: &'a [usize],
    tile: &'a mut Tile,
    columns: &'a [Column],
    sums: &'a mut [Octet],
}

impl Kernel for Contract<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let d = self.d;
        if self.tile.features.len() > feature_count(d, 1) {
            self.tile.multiply(simd, d);
        }
        let mut sums = self.sums;
        for (column, &degree) in self.columns.iter().zip(self.degrees) {
            let mut features = &self.tile.features[..feature_count(d, degree)];
            while !features.is_empty() {
                let some = features.len().min(6);
                let (now, later) = features.split_at(some);
                let (into, rest) = sums.split_at_mut(some);
                let tile = &*self.tile;
                match some {
                    1 => add::<S, 1>(simd, tile, column, now, into),
                    2 => add::<S, 2>(simd, tile, column, now, into),
                    3 => add::<S, 3>(simd, tile, column, now, into),
                    4 => add::<S, 4>(simd, tile, column, now, into),
                    5 => add::<S, 5>(simd, tile, column, now, into),
                    _ => add::<S, 6>(simd, tile, column, now, into),
                }
                (features, sums) = (later, rest);
            }
        }
    }
}

/// Adds one column times N features.
#[inline(always)]
fn add<S: Simd, const N: usize>(
    simd: S,
    tile: &Tile,
    column: &Column,
    features: &[Column],
    into: &mut [Octet],
) {
    let features: &[Column; N] = features.try_into().expect("N features");
    let into: &mut [Octet; N] = into.try_into().expect("N sums");
    let mut sums = [simd.splat(0.0); N];
    for k in 0..N {
        sums[k] = simd.load(&into[k]);
    }
    for v in 0..OCTETS {
        let mut value = simd.load(&column[v]);
        if tile.counted {
            value = value * simd.load(&tile.count[v]);
        }
        for k in 0..N {
            sums[k] = value.mul_add(simd.load(&features[k][v]), sums[k]);
        }
    }
    for k in 0..N {
        sums[k].store(&mut into[k]);
    }
}
