//! Products in single precision on processors with AVX-512.
//!
//! A strip is [`STRIP`] columns of the right matrix, copied so that its rows follow each
//! other: it stays in the first cache while tiles of up to [`TILE`] rows of the result
//! pass over it. A tile is held in registers, 28 of the 32; per step of the depth it reads
//! two registers of the strip and one number per row of the left matrix, which is read
//! where it lies, in rows, in columns or in chosen columns. Every element of the result is a
//! sum in the order of the depth; a bias or the old result is added last.

use std::any::TypeId;

/// Columns of a strip: two registers.
pub(super) const STRIP: usize = 2 * LANES;
/// Most rows of a tile.
const TILE: usize = 14;
/// Numbers of a register.
const LANES: usize = 16;
/// Steps of the depth by which a matrix is asked for ahead. Where every step is another line
/// of the cache, no processor guesses the way across pages.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 24;

/// The left matrix and the result of a product with a strip.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// Element (i, k) lies at `i * strides[0] + k * strides[1]`, or with `order[k]` for k.
    pub left: *const f32,
    pub strides: [usize; 2],
    /// Where the steps of the depth lie, if not one after another; `strides[0]` is then 1.
    pub order: Option<*const u32>,
    /// Element (i, j) lies at `i * stride + j`.
    pub result: *mut f32,
    pub stride: usize,
    pub count: usize,
    pub depth: usize,
    pub start: Start,
    pub finish: Finish,
}

/// What sums begin with.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Zero,
    /// The old result.
    Result,
    /// One number per column of the strip.
    Bias(*const f32),
}

/// What becomes of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is written as it is.
    Kept,
    /// max(sum, 0)
    Rectified,
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
    use super::{AHEAD, Finish, LANES, Rows, STRIP, Start, TILE};
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
                        let ahead = row.wrapping_add(AHEAD * strides[0]);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
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
    /// the result; nobody else uses these; the strip has `rows.depth` rows, the order as
    /// many numbers, the bias `columns`.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn multiply(rows: Rows, strip: *const f32, columns: usize) {
        debug_assert!(rows.order.is_none() || rows.strides[0] == 1);
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

    /// Steps of the depth that follow each other.
    fn one_by_one(rows: Rows) -> impl FnMut() -> [*const f32; 2] {
        let (mut left, ahead) = (rows.left, AHEAD * rows.strides[1]);
        move || {
            let step = left;
            left = left.wrapping_add(rows.strides[1]);
            [step, step.wrapping_add(ahead)]
        }
    }

    /// Steps of the depth that lie at `order`.
    ///
    /// # Safety
    /// `order` has `rows.depth` numbers, and is asked no more often.
    unsafe fn in_order(rows: Rows, order: *const u32) -> impl FnMut() -> [*const f32; 2] {
        let (mut next, end) = (order, order.wrapping_add(rows.depth));
        move || {
            // SAFETY: as the caller promises.
            let place = |at: *const u32| unsafe { *at as usize * rows.strides[1] };
            let ahead = next.wrapping_add(AHEAD);
            let ahead = if ahead < end { ahead } else { next };
            let step = [next, ahead].map(|at| rows.left.wrapping_add(place(at)));
            next = next.wrapping_add(1);
            step
        }
    }

    /// A tile of 1 to [`TILE`] rows.
    #[target_feature(enable = "avx512f")]
    unsafe fn run(rows: Rows, strip: *const f32, columns: usize) {
        macro_rules! of_height {
            ($($height:literal)*) => {
                match rows.count {
                    // SAFETY: as the caller promises.
                    $($height => unsafe {
                        match rows.order {
                            None => {
                                let step = one_by_one(rows);
                                tile::<$height>(rows, strip, columns, rows.strides[0], step)
                            }
                            Some(order) => {
                                let step = in_order(rows, order);
                                tile::<$height>(rows, strip, columns, 1, step)
                            }
                        }
                    },)*
                    _ => unreachable!("tiles have 1 to {TILE} rows"),
                }
            };
        }
        of_height!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }

    /// `stride`: between rows of the left matrix; a constant is faster. `step()`: where the
    /// next step of the depth lies in it, and one to ask for ahead.
    ///
    /// Sums stay in registers only as long as nothing takes their address and every loop over
    /// them is unrolled: one loop computes them, one uses them up.
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const HEIGHT: usize>(
        rows: Rows,
        strip: *const f32,
        columns: usize,
        stride: usize,
        mut step: impl FnMut() -> [*const f32; 2],
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
            let mut right = strip;
            let last = (HEIGHT - 1) * stride;
            for _ in 0..rows.depth {
                let [left, ahead] = step();
                for row in [0, last] {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(row).cast());
                }
                let low = _mm512_loadu_ps(right);
                let high = _mm512_loadu_ps(right.add(LANES));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_ps(*left.add(i * stride));
                    sums[0] = _mm512_fmadd_ps(factor, low, sums[0]);
                    sums[1] = _mm512_fmadd_ps(factor, high, sums[1]);
                }
                right = right.wrapping_add(STRIP);
            }
            let masks = masks(columns);
            let (from, from_stride) = match rows.start {
                Start::Bias(bias) => (bias, 0),
                _ => (rows.result.cast_const(), rows.stride),
            };
            for (i, sums) in sums.into_iter().enumerate() {
                for ((half, mask), mut sum) in masks.into_iter().enumerate().zip(sums) {
                    if !matches!(rows.start, Start::Zero) {
                        let from = from.wrapping_add(i * from_stride + half * LANES);
                        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, from), sum);
                    }
                    if rows.finish == Finish::Rectified {
                        // The second where one is not a number.
                        sum = _mm512_max_ps(_mm512_setzero_ps(), sum);
                    }
                    let result = rows.result.wrapping_add(i * rows.stride + half * LANES);
                    match columns == STRIP {
                        true => _mm512_storeu_ps(result, sum),
                        false => _mm512_mask_storeu_ps(result, mask, sum),
                    }
                }
            }
        }
    }
}
