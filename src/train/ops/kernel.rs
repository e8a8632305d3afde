//! Products in single precision on processors with AVX-512.
//!
//! A strip is [`STRIP`] columns of the right matrix, copied so that its rows follow each
//! other: it stays in the first cache while tiles of up to [`TILE`] rows of the result
//! pass over it. A tile is held in registers, 28 of the 32; per step of the depth it reads
//! two registers of the strip and one number per row of the left matrix, which is read
//! where it lies, in rows or in columns. Every element of the result is a sum in the order
//! of the depth.

use std::any::TypeId;

/// Columns of a strip: two registers.
pub(super) const STRIP: usize = 2 * LANES;
/// Most rows of a tile.
const TILE: usize = 14;
/// Numbers of a register.
const LANES: usize = 16;

/// The left matrix and the result of a product with a strip.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Element (i, k) lies at `i * strides[0] + k * strides[1]`.
    pub left: *const f32,
    pub strides: [usize; 2],
    /// Element (i, j) lies at `i * stride + j`.
    pub result: *mut f32,
    pub stride: usize,
    pub count: usize,
    pub depth: usize,
    /// Whether the old result stays and is added to.
    pub added: bool,
}

/// True if products of `T` run here.
pub(super) fn serves<T: 'static>() -> bool {
    #[cfg(target_arch = "x86_64")]
    if TypeId::of::<T>() == TypeId::of::<f32>() {
        use crate::train::ops::real::Level;
        return Level::best() == Level::Avx512;
    }
    false
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    use super::Rows;

    pub(in super::super) unsafe fn pack(
        _: usize,
        _: usize,
        _: *const f32,
        _: [usize; 2],
        _: *mut f32,
    ) {
        unreachable!("no processor of this architecture is served");
    }

    pub(in super::super) unsafe fn multiply(_: Rows, _: *const f32, _: usize) {
        unreachable!("no processor of this architecture is served");
    }
}

pub(super) use x86::{multiply, pack};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Rows, STRIP, TILE};
    use std::arch::x86_64::*;

    /// Copies `columns` columns, at most [`STRIP`], of a matrix whose element (k, j) lies
    /// at `k * strides[0] + j * strides[1]`; the rest of the strip is zeros.
    ///
    /// # Safety
    /// The processor has AVX-512F; the elements exist; there is room for depth * STRIP
    /// numbers.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn pack(
        depth: usize,
        columns: usize,
        from: *const f32,
        strides: [usize; 2],
        to: *mut f32,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut k = 0;
            if strides[1] == 1 {
                let masks = masks(columns);
                while k < depth {
                    for (half, mask) in masks.into_iter().enumerate() {
                        let row = from.wrapping_add(k * strides[0] + half * LANES);
                        let values = _mm512_maskz_loadu_ps(mask, row);
                        _mm512_storeu_ps(to.add(k * STRIP + half * LANES), values);
                    }
                    k += 1;
                }
            } else if strides[0] == 1 && columns == STRIP {
                while k + LANES <= depth {
                    for half in [0, LANES] {
                        let from = from.add(k + half * strides[1]);
                        transpose(from, strides[1], to.add(k * STRIP + half));
                    }
                    k += LANES;
                }
            }
            for k in k..depth {
                for j in 0..STRIP {
                    let value = match j < columns {
                        true => *from.add(k * strides[0] + j * strides[1]),
                        false => 0.0,
                    };
                    *to.add(k * STRIP + j) = value;
                }
            }
        }
    }

    /// The lanes of both registers of a strip that hold columns.
    fn masks(columns: usize) -> [__mmask16; 2] {
        let all = ((1_u64 << columns) - 1) as u32;
        [all as u16, (all >> LANES) as u16]
    }

    /// 16 rows of 16 numbers, `stride` apart, become the columns of a strip's half.
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut rows = [_mm512_setzero_ps(); LANES];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.add(i * stride));
            }
            // Within blocks of 4 by 4, then blocks among each other.
            let mut pairs = rows;
            for i in (0..LANES).step_by(2) {
                pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
                pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
            }
            let wide = |x| _mm512_castps_pd(x);
            let narrow = |x| _mm512_castpd_ps(x);
            for i in (0..LANES).step_by(4) {
                for j in 0..2 {
                    let (a, b) = (wide(pairs[i + j]), wide(pairs[i + j + 2]));
                    rows[i + 2 * j] = narrow(_mm512_unpacklo_pd(a, b));
                    rows[i + 2 * j + 1] = narrow(_mm512_unpackhi_pd(a, b));
                }
            }
            for j in 0..4 {
                let even_low = _mm512_shuffle_f32x4::<0x88>(rows[j], rows[4 + j]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(rows[j], rows[4 + j]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(rows[8 + j], rows[12 + j]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(rows[8 + j], rows[12 + j]);
                for (place, row) in [
                    (j, _mm512_shuffle_f32x4::<0x88>(even_low, even_high)),
                    (4 + j, _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high)),
                    (8 + j, _mm512_shuffle_f32x4::<0xdd>(even_low, even_high)),
                    (12 + j, _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high)),
                ] {
                    _mm512_storeu_ps(to.add(place * STRIP), row);
                }
            }
        }
    }

    /// The columns of the result that belong to a packed strip, of which `columns` are the
    /// matrix's.
    ///
    /// # Safety
    /// The processor has AVX-512F; all elements of `rows` exist, `columns` of each row of
    /// the result; nobody else uses these; the strip has `rows.depth` rows.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn multiply(rows: Rows, strip: *const f32, columns: usize) {
        // Tiles of nearly equal height: no last one of few rows, which would wait for its
        // own sums.
        let tiles = rows.count.div_ceil(TILE);
        let mut first = 0;
        for tile in 0..tiles {
            let count = rows.count / tiles + usize::from(tile < rows.count % tiles);
            // SAFETY: these rows are part of the caller's.
            unsafe {
                let part = Rows {
                    left: rows.left.add(first * rows.strides[0]),
                    result: rows.result.add(first * rows.stride),
                    count,
                    ..rows
                };
                run(part, strip, columns);
            }
            first += count;
        }
    }

    /// A tile of 1 to [`TILE`] rows.
    #[target_feature(enable = "avx512f")]
    unsafe fn run(rows: Rows, strip: *const f32, columns: usize) {
        macro_rules! of_height {
            ($($height:literal)*) => {
                match rows.count {
                    // SAFETY: as the caller promises.
                    $($height => unsafe { tile::<$height>(rows, strip, columns) },)*
                    _ => unreachable!("tiles have 1 to {TILE} rows"),
                }
            };
        }
        of_height!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const HEIGHT: usize>(rows: Rows, strip: *const f32, columns: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
            let (mut left, mut right) = (rows.left, strip);
            for _ in 0..rows.depth {
                let low = _mm512_loadu_ps(right);
                let high = _mm512_loadu_ps(right.add(LANES));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_ps(*left.add(i * rows.strides[0]));
                    sums[0] = _mm512_fmadd_ps(factor, low, sums[0]);
                    sums[1] = _mm512_fmadd_ps(factor, high, sums[1]);
                }
                left = left.wrapping_add(rows.strides[1]);
                right = right.wrapping_add(STRIP);
            }
            let masks = masks(columns);
            for (i, sums) in sums.into_iter().enumerate() {
                for ((half, mask), sum) in masks.into_iter().enumerate().zip(sums) {
                    let result = rows.result.wrapping_add(i * rows.stride + half * LANES);
                    let sum = match rows.added {
                        true => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, result), sum),
                        false => sum,
                    };
                    match columns == STRIP {
                        true => _mm512_storeu_ps(result, sum),
                        false => _mm512_mask_storeu_ps(result, mask, sum),
                    }
                }
            }
        }
    }
}
