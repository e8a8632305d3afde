//! The right matrix of many products, copied once.
//!
//! C = A B for many A, such as the tokens of several blocks: B lies in strips as
//! `kernel` reads them, or in rows where it does not serve. Bits of a
//! row of C depend on that row of A and on B alone.

pub use crate::train::ops::kernel::Finish;
use crate::train::ops::kernel::{self, STRIP, Start};
use crate::train::ops::matmul::{Into, Product, View, ViewMut};
use crate::train::ops::meter;
use crate::train::ops::real::Real;

/// Numbers that lie together where a line of the cache begins.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line<T>([T; 16]);

/// Rows of a strip that pass at a time: they stay in the second cache.
const DEPTH: usize = 1024;

/// A copy of B; memory is kept from one matrix to the next.
#[derive(Clone, Debug)]
pub struct Packed<T> {
    lines: Vec<Line<T>>,
    /// Rows and columns of B.
    shape: [usize; 2],
}

impl<T> Default for Packed<T> {
    fn default() -> Self {
        Packed {
            lines: Vec::new(),
            shape: [0, 0],
        }
    }
}

impl<T: Real> Packed<T> {
    /// Numbers of the copy.
    fn values(&self) -> &[T] {
        // SAFETY: a line is 16 numbers and nothing else: its alignment divides its size.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), 16 * self.lines.len()) }
    }

    fn values_mut(&mut self) -> &mut [T] {
        let length = 16 * self.lines.len();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), length) }
    }

    /// Replaces the copy by one of `right`.
    pub fn pack(&mut self, right: View<T>) {
        right.assert_unordered();
        let [depth, columns] = right.shape();
        self.shape = [depth, columns];
        let width = match kernel::serves::<T>() {
            true => columns.next_multiple_of(STRIP),
            false => columns,
        };
        let lines = (depth * width).div_ceil(16);
        self.lines.resize(lines, Line([T::ZERO; 16]));
        if kernel::serves::<T>() {
            for first in (0..columns).step_by(STRIP) {
                let count = STRIP.min(columns - first);
                let strip = self.values_mut()[depth * first..].as_mut_ptr().cast();
                let from = right.columns_from(first).cast();
                // SAFETY: the kernel serves; the columns exist, and the strip has room.
                unsafe { kernel::pack(depth, count, from, right.strides(), strip) };
            }
        } else {
            let rows = self.values_mut()[..depth * columns].chunks_exact_mut(columns.max(1));
            for (k, row) in rows.enumerate() {
                for (j, value) in row.iter_mut().enumerate() {
                    *value = right.at(k, j);
                }
            }
        }
    }

    /// C = A B, C += A B or C = A B + b on this thread, and what becomes of it.
    pub fn product(&self, left: View<T>, result: ViewMut<T>, into: Into<T>, finish: Finish) {
        let [depth, columns] = self.shape;
        if !kernel::serves::<T>() || depth == 0 {
            let right = View::rows(&self.values()[..depth * columns], depth, columns);
            let product = Product {
                left,
                right,
                result,
                into,
            };
            return product.run_to(finish);
        }
        left.assert_unordered();
        let ([rows, inner], [height, width]) = (left.shape(), result.shape());
        assert_eq!([inner, height, width], [depth, rows, columns], "a product");
        into.assert_columns(columns);
        if rows == 0 {
            return;
        }
        let (from, stride) = (left.columns_from(0), result.stride());
        let to = result.start();
        meter::product(2 * rows * depth * columns, || {
            for first in (0..columns).step_by(STRIP) {
                let count = STRIP.min(columns - first);
                for k in (0..depth).step_by(DEPTH) {
                    let strip = self.values()[depth * first + k * STRIP..].as_ptr();
                    // SAFETY: the kernel serves; views were checked against their slices.
                    unsafe {
                        let rows = kernel::Rows {
                            left: from.add(k * left.strides()[1]).cast(),
                            strides: left.strides(),
                            order: None,
                            result: to.add(first).cast(),
                            stride,
                            count: rows,
                            depth: DEPTH.min(depth - k),
                            start: match k {
                                0 => into.start(first),
                                _ => Start::Result,
                            },
                            finish: match k + DEPTH < depth {
                                true => Finish::Kept,
                                false => finish,
                            },
                        };
                        kernel::multiply(rows, strip.cast(), count);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{narrow_normals, normals};

    /// Both orientations of B, in double precision by three loops.
    fn check<T: Real>(numbers: fn(u64, usize) -> Vec<T>, tolerance: f64) {
        for (m, k, n) in [
            (1, 1, 1),
            (3, 5, 2),
            (15, 17, 33),
            (29, 130, 96),
            (3, 1100, 40),
            (4, 0, 3),
            (0, 2, 2),
        ] {
            let (a, b) = (numbers(1, m * k), numbers(2, k * n));
            let turned: Vec<T> = (0..k * n).map(|i| b[i % k * n + i / k]).collect();
            let bias = numbers(3, n);
            let mut packed = Packed::default();
            for right in [View::rows(&b, k, n), View::rows(&turned, n, k).transposed()] {
                packed.pack(right);
                let mut c = vec![T::of(f64::NAN); m * n];
                let mut run = |into, finish| {
                    let result = ViewMut::rows(&mut c, m, n);
                    packed.product(View::rows(&a, m, k), result, into, finish);
                    c.clone()
                };
                let results = [
                    run(Into::Written, Finish::Kept),
                    run(Into::Added, Finish::Kept),
                    run(Into::Biased(&bias), Finish::Kept),
                    run(Into::Biased(&bias), Finish::Rectified),
                ];
                for (index, bias) in (0..m * n).map(|index| (index, &bias[index % n])) {
                    let (i, j) = (index / n, index % n);
                    let terms = (0..k).map(|l| a[i * k + l].wide() * b[l * n + j].wide());
                    let (sum, bias) = (terms.sum::<f64>(), bias.wide());
                    let expected = [sum, 2.0 * sum, sum + bias, (sum + bias).max(0.0)];
                    // The second adds the error of the first to its own.
                    for ((c, e), errors) in results.iter().zip(expected).zip([1.0, 2.0, 1.0, 1.0]) {
                        let error = (c[index].wide() - e).abs();
                        assert!(error < errors * tolerance, "{m} {k} {n}: {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_packed_matrix_multiplies_like_three_loops() {
        check(narrow_normals, 1e-4);
        check(normals, 1e-12);
    }
}
