//! A tile: the rows that are worked on together, small enough for the first
//! cache, and what the mixture is at each of them.

use crate::model::Data;
use crate::num::lanes::{Lanes, Octet, Simd, WIDTH};

/// Octets of a tile.
pub(super) const OCTETS: usize = 8;
/// Rows of a tile.
pub(super) const ROWS: usize = OCTETS * WIDTH;

/// One number for each row of a tile.
pub(super) type Column = [Octet; OCTETS];

pub(super) const ZERO: Column = [Octet([0.0; WIDTH]); OCTETS];

/// One expert at each row, as [`crate::model::Atom`].
#[derive(Clone)]
pub(super) struct Atoms {
    pub residual: Column,
    /// What drives the log-weight, then the log-weight itself.
    pub log_weight: Column,
    /// Derivatives of the log-weight in its driver; kept for bent gates only.
    pub first: Column,
    pub second: Column,
    /// The score by which a sparse gate selects.
    pub selection: Column,
    pub weight: Column,
    pub responsibility: Column,
}

/// The rows being worked on.
pub(super) struct Tile {
    /// 1, then the inputs, then their products x_i x_j (i <= j) if asked for.
    pub features: Vec<Column>,
    pub response: Column,
    /// How often each row counts; 0 for the padding of the last tile.
    pub count: Column,
    /// Whether any count differs from 1.
    pub counted: bool,
    pub atoms: Vec<Atoms>,
}

/// How many features there are up to degree 0, 1 or 2 in d inputs.
pub(super) fn feature_count(d: usize, degree: usize) -> usize {
    match degree {
        0 => 1,
        1 => d + 1,
        _ => (d + 1) * (d + 2) / 2,
    }
}

/// Where x_a x_b stands among the features, with x_0 = 1.
pub(super) fn product(d: usize, a: usize, b: usize) -> usize {
    triangle_index(d + 1, a.min(b), a.max(b))
}

/// Where entry (a, b), a <= b, stands in the upper triangle of a matrix with
/// `size` rows, written row by row.
#[inline(always)]
pub(super) fn triangle_index(size: usize, a: usize, b: usize) -> usize {
    a * size - a * a.saturating_sub(1) / 2 + (b - a)
}

impl Tile {
    /// An empty tile; see [`Tile::prepare`].
    pub fn new() -> Self {
        Tile {
            features: Vec::new(),
            response: ZERO,
            count: ZERO,
            counted: false,
            atoms: Vec::new(),
        }
    }

    /// Makes room for a mixture of `experts` in `d` inputs, with features up to
    /// `degree`.
    pub fn prepare(&mut self, d: usize, experts: usize, degree: usize) {
        let none = Atoms {
            residual: ZERO,
            log_weight: ZERO,
            first: ZERO,
            second: ZERO,
            selection: ZERO,
            weight: ZERO,
            responsibility: ZERO,
        };
        self.atoms.resize(experts, none);
        self.features.resize(feature_count(d, degree), ZERO);
        self.features[0] = [Octet([1.0; WIDTH]); OCTETS];
    }

    /// Reads `rows` rows (at most [`ROWS`]) from `first` on. Padding repeats the
    /// last row and counts nothing.
    pub fn read(&mut self, data: &Data, first: usize, rows: usize) {
        let d = data.dimension();
        let range = first..first + rows;
        for j in 0..d {
            let values = &data.column(j)[range.clone()];
            copy(values, values[rows - 1], &mut self.features[1 + j]);
        }
        let values = &data.responses()[range.clone()];
        copy(values, values[rows - 1], &mut self.response);
        self.counted = data.counts().is_some() || rows < ROWS;
        match data.counts() {
            Some(counts) => copy(&counts[range], 0.0, &mut self.count),
            None if self.counted => copy(&[1.0; ROWS][..rows], 0.0, &mut self.count),
            None => {}
        }
    }

    /// Asks for the rows of the tile that begins at `first`, to arrive while the
    /// tile before it is worked on.
    pub fn prefetch(&self, data: &Data, first: usize) {
        #[cfg(target_arch = "x86_64")]
        if first + ROWS <= data.len() {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let columns = (0..data.dimension()).map(|j| data.column(j));
            for column in columns.chain([data.responses()]) {
                for octet in column[first..first + ROWS].chunks(WIDTH) {
                    // SAFETY: a hint about an address inside the column.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(octet.as_ptr().cast()) };
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (data, first);
    }

    /// Works out the products of the inputs.
    #[inline(always)]
    pub fn multiply<S: Simd>(&mut self, simd: S, d: usize) {
        let mut next = d + 1;
        for a in 1..=d {
            for b in a..=d {
                for v in 0..OCTETS {
                    let left = simd.load(&self.features[a][v]);
                    let right = simd.load(&self.features[b][v]);
                    (left * right).store(&mut self.features[next][v]);
                }
                next += 1;
            }
        }
    }
}

fn copy(from: &[f64], padding: f64, to: &mut Column) {
    let whole = from.chunks_exact(WIDTH);
    let rest = whole.remainder();
    let used = from.len() / WIDTH;
    for (octet, values) in to.iter_mut().zip(whole) {
        octet.0.copy_from_slice(values);
    }
    for (k, octet) in to[used..].iter_mut().enumerate() {
        octet.0 = [padding; WIDTH];
        if k == 0 {
            octet.0[..rest.len()].copy_from_slice(rest);
        }
    }
}
