//! Matrix products, one or many at a time.
//!
//! C = A B, C += A B or C = A B + b on strided views. A product is cut into tiles of C whose
//! size depends on nothing but the shapes; every tile is one product on one thread
//! (of `kernel` where it serves, of the `gemm` crate elsewhere),
//! so neither the number of threads nor the other products of a group change a bit.

use crate::train::ops::activation::rectified;
use crate::train::ops::kernel::{self, Finish, STRIP, Start};
use crate::train::ops::meter;
use crate::train::ops::real::{Real, vectorised};
pub use crate::train::ops::view::{View, ViewMut};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows and columns of a tile of the result where the kernel serves: the more rows, the
/// less often a strip is copied.
const STRIP_TILE: [usize; 2] = [512, STRIP];
/// The same elsewhere.
const TILE: [usize; 2] = [128, 256];
/// Fewer rows are not worth the copy of a strip; nor are columns of less than half of one.
const FEW: usize = 8;
/// Rows of a strip: it fills the first cache.
const DEPTH: usize = 256;

/// A strip on the stack.
#[repr(align(64))]
struct Strip(MaybeUninit<[f32; DEPTH * STRIP]>);

/// What happens to the old content of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into<'a, T> {
    /// C = A B
    Written,
    /// C += A B
    Added,
    /// C = A B + b in every row.
    Biased(&'a [T]),
}

impl<'a, T> Into<'a, T> {
    /// With the bias, if there is one.
    pub fn with(bias: Option<&'a [T]>) -> Self {
        bias.map_or(Into::Written, Into::Biased)
    }

    /// A bias has a number per column.
    pub(super) fn assert_columns(self, columns: usize) {
        if let Into::Biased(bias) = self {
            assert_eq!(bias.len(), columns, "bias of a product");
        }
    }

    /// What sums of the kernel begin with that belong to the columns from `first` on.
    pub(super) fn start(self, first: usize) -> Start {
        match self {
            Into::Written => Start::Zero,
            Into::Added => Start::Result,
            Into::Biased(bias) => Start::Bias(bias[first..].as_ptr().cast()),
        }
    }
}

/// C = A B or C += A B.
#[derive(Debug)]
pub struct Product<'a, T> {
    /// A. Shape: m, k. Its columns may have an order.
    pub left: View<'a, T>,
    /// B. Shape: k, n.
    pub right: View<'a, T>,
    /// C. Shape: m, n.
    pub result: ViewMut<'a, T>,
    /// Written, added, or with a bias.
    pub into: Into<'a, T>,
}

impl<'a, T: Real> Product<'a, T> {
    /// The product on this thread.
    pub fn run(self) {
        let shape = self.result.shape();
        let tile = self.tiles();
        tile.run([0, 0], shape);
    }

    /// The same, and what becomes of the result.
    pub fn run_to(self, finish: Finish) {
        let Product {
            left,
            right,
            mut result,
            into,
        } = self;
        let product = Product {
            left,
            right,
            result: result.reborrow(),
            into,
        };
        product.run();
        if finish == Finish::Rectified {
            for row in result.rows_mut() {
                vectorised!(|| row.iter_mut().for_each(|c| *c = rectified(*c)));
            }
        }
    }

    fn tiles(self) -> Tiles<'a, T> {
        let [rows, columns] = self.result.shape();
        let [height, depth] = self.left.shape();
        assert_eq!(height, rows, "rows of a product");
        assert_eq!(self.right.shape(), [depth, columns], "columns of a product");
        self.right.assert_unordered();
        self.into.assert_columns(columns);
        Tiles {
            left: self.left.columns_from(0),
            left_strides: self.left.strides(),
            order: self.left.order(),
            right: self.right.columns_from(0),
            right_strides: self.right.strides(),
            result_strides: [self.result.stride(), 1],
            result: self.result.start(),
            shape: [rows, columns],
            depth,
            into: self.into,
        }
    }
}

/// A product whose lifetimes are checked by the caller's frame.
struct Tiles<'a, T> {
    left: *const T,
    left_strides: [usize; 2],
    order: Option<&'a [u32]>,
    right: *const T,
    right_strides: [usize; 2],
    result: *mut T,
    result_strides: [usize; 2],
    shape: [usize; 2],
    depth: usize,
    into: Into<'a, T>,
}

// SAFETY: tiles of a product write disjoint parts of its result.
unsafe impl<T: Sync> Sync for Tiles<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Tiles<'_, T> {}

impl<T: Real> Tiles<'_, T> {
    /// The part of the result that starts at `from`.
    fn run(&self, from: [usize; 2], [rows, columns]: [usize; 2]) {
        if rows == 0 || columns == 0 {
            return;
        }
        // SAFETY: the views were checked against their slices, which outlive the
        // call, and no two tiles overlap.
        unsafe {
            let result = self
                .result
                .add(from[0] * self.result_strides[0] + from[1] * self.result_strides[1]);
            meter::product(2 * rows * columns * self.depth, || {
                let worth = rows >= FEW && 2 * columns >= STRIP && self.depth > 0;
                if kernel::serves::<T>() && worth {
                    return self.by_strips(from, [rows, columns]);
                }
                for i in 0..rows {
                    let row = result.add(i * self.result_strides[0]);
                    let row = std::slice::from_raw_parts_mut(row, columns);
                    match self.into {
                        Into::Biased(bias) => row.copy_from_slice(&bias[from[1]..][..columns]),
                        Into::Written if self.depth == 0 => row.fill(T::ZERO),
                        _ => break,
                    }
                }
                if self.depth == 0 {
                    return;
                }
                let [row, step] = self.left_strides;
                let left = self.left.add(from[0] * row);
                let gathered = self
                    .order
                    .map(|order| gather(left, [row, step], rows, order));
                let (left, [row, step]) = match &gathered {
                    Some(values) => (values.as_ptr(), [1, rows]),
                    None => (left, [row, step]),
                };
                gemm::gemm(
                    rows,
                    columns,
                    self.depth,
                    result,
                    self.result_strides[1] as isize,
                    self.result_strides[0] as isize,
                    self.into != Into::Written,
                    left,
                    step as isize,
                    row as isize,
                    self.right.add(from[1] * self.right_strides[1]),
                    self.right_strides[1] as isize,
                    self.right_strides[0] as isize,
                    T::ONE,
                    T::ONE,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            });
        }
    }

    /// The same, where the kernel serves.
    unsafe fn by_strips(&self, from: [usize; 2], [rows, columns]: [usize; 2]) {
        let mut strip = Strip(MaybeUninit::uninit());
        let strip = strip.0.as_mut_ptr().cast::<f32>();
        let (left, right) = (self.left.cast::<f32>(), self.right.cast::<f32>());
        let result = self.result.cast::<f32>();
        let [left_row, left_depth] = self.left_strides;
        let [right_depth, right_column] = self.right_strides;
        for k in (0..self.depth).step_by(DEPTH) {
            let depth = DEPTH.min(self.depth - k);
            for column in (from[1]..from[1] + columns).step_by(STRIP) {
                let width = STRIP.min(from[1] + columns - column);
                // SAFETY: as in `run`, for a part of its tile.
                unsafe {
                    let right = right.add(k * right_depth + column * right_column);
                    kernel::pack(depth, width, right, self.right_strides, strip);
                    let step = match self.order {
                        Some(_) => 0,
                        None => k * left_depth,
                    };
                    let rows = kernel::Rows {
                        left: left.add(from[0] * left_row + step),
                        strides: self.left_strides,
                        order: self.order.map(|order| order[k..].as_ptr()),
                        result: result.add(from[0] * self.result_strides[0] + column),
                        stride: self.result_strides[0],
                        count: rows,
                        depth,
                        start: match k {
                            0 => self.into.start(column),
                            _ => Start::Result,
                        },
                        finish: Finish::Kept,
                    };
                    kernel::multiply(rows, strip, width);
                }
            }
        }
    }
}

/// Copies `rows` rows of a left matrix, step after step of the depth.
///
/// # Safety
/// The elements exist.
unsafe fn gather<T: Copy>(
    left: *const T,
    [row, step]: [usize; 2],
    rows: usize,
    order: &[u32],
) -> Vec<T> {
    let steps = order.iter().map(|&k| left.wrapping_add(k as usize * step));
    // SAFETY: as the caller promises.
    steps
        .flat_map(|at| (0..rows).map(move |i| unsafe { *at.add(i * row) }))
        .collect()
}

/// All products, their tiles shared among threads.
pub fn products<T: Real>(products: Vec<Product<T>>) {
    let all: Vec<Tiles<'_, T>> = products.into_iter().map(Product::tiles).collect();
    let tile = match kernel::serves::<T>() {
        true => STRIP_TILE,
        false => TILE,
    };
    let mut tasks = Vec::new();
    for tiles in &all {
        for row in (0..tiles.shape[0]).step_by(tile[0]) {
            for column in (0..tiles.shape[1]).step_by(tile[1]) {
                let rows = tile[0].min(tiles.shape[0] - row);
                let columns = tile[1].min(tiles.shape[1] - column);
                tasks.push((tiles, [row, column], [rows, columns]));
            }
        }
    }
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(tiles, from, shape)| tiles.run(from, shape));
}

/// One product, its tiles shared among threads.
pub fn product<T: Real>(left: View<T>, right: View<T>, result: ViewMut<T>, into: Into<T>) {
    products(vec![Product {
        left,
        right,
        result,
        into,
    }]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{narrow_normals, normals, threads};

    fn slow(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for l in 0..k {
                for j in 0..n {
                    c[i * n + j] += a[i * k + l] * b[l * n + j];
                }
            }
        }
        c
    }

    #[test]
    fn products_of_every_orientation_equal_three_loops() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (130, 7, 300), (65, 40, 1), (4, 0, 3)] {
            let (a, b) = (normals(1, m * k), normals(2, k * n));
            let expected = slow(&a, &b, m, k, n);
            let transpose = |x: &[f64], rows: usize, columns: usize| -> Vec<f64> {
                (0..rows * columns)
                    .map(|i| x[(i % rows) * columns + i / rows])
                    .collect()
            };
            let (a_t, b_t) = (transpose(&a, m, k), transpose(&b, k, n));
            for orientation in 0..4 {
                let left = match orientation % 2 {
                    0 => View::rows(&a, m, k),
                    _ => View::rows(&a_t, k, m).transposed(),
                };
                let right = match orientation / 2 {
                    0 => View::rows(&b, k, n),
                    _ => View::rows(&b_t, n, k).transposed(),
                };
                let mut c = vec![f64::NAN; m * n];
                product(left, right, ViewMut::rows(&mut c, m, n), Into::Written);
                product(left, right, ViewMut::rows(&mut c, m, n), Into::Added);
                for (c, e) in c.iter().zip(&expected) {
                    assert!((c - 2.0 * e).abs() < 1e-12 * (1.0 + e.abs()));
                }
            }
        }
    }

    #[test]
    fn single_precision_products_of_every_orientation_equal_double_precision_ones() {
        // Also sizes of the kernel: strips and tiles cut short, depths of several strips.
        for (m, k, n) in [
            (8, 3, 16),
            (29, 40, 33),
            (130, 600, 300),
            (40, 16, 32),
            (7, 9, 64),
        ] {
            let (a, b) = (narrow_normals(1, m * k), narrow_normals(2, k * n));
            let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
            let expected = slow(&wide(&a), &wide(&b), m, k, n);
            let turned = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                let at = |i: usize| x[(i % rows) * columns + i / rows];
                (0..rows * columns).map(at).collect()
            };
            let (a_t, b_t) = (turned(&a, m, k), turned(&b, k, n));
            for left in [View::rows(&a, m, k), View::rows(&a_t, k, m).transposed()] {
                for right in [View::rows(&b, k, n), View::rows(&b_t, n, k).transposed()] {
                    let mut c = vec![f32::NAN; m * n];
                    product(left, right, ViewMut::rows(&mut c, m, n), Into::Written);
                    product(left, right, ViewMut::rows(&mut c, m, n), Into::Added);
                    for (c, e) in c.iter().zip(&expected) {
                        assert!((f64::from(*c) - 2.0 * e).abs() < 1e-4, "{m} {k} {n}");
                    }
                }
            }
        }
    }

    /// Rows 3, 1, 5, 7, ... of a matrix, one of them twice, against a copy.
    fn check_chosen_rows<T: Real>(numbers: fn(u64, usize) -> Vec<T>) {
        for (m, k, n) in [(1, 3, 1), (40, 300, 70), (13, 5, 40), (3, 0, 2)] {
            let (from, b) = (numbers(1, (2 * k + 4) * m), numbers(2, k * n));
            let mut order: Vec<u32> = (0..k as u32).map(|i| 2 * i + 1).collect();
            if k > 1 {
                (order[0], order[1]) = (3, 3);
            }
            let rows = order.iter().map(|&i| &from[i as usize * m..][..m]);
            let copy: Vec<T> = rows.flatten().copied().collect();
            let chosen = View::transposed_rows(&from, m, &order);
            let copied = View::rows(&copy, k, m).transposed();
            let bias = numbers(3, n);
            for into in [Into::Written, Into::Added, Into::Biased(&bias)] {
                let run = |left| {
                    let mut c = numbers(4, m * n);
                    let result = ViewMut::rows(&mut c, m, n);
                    product(left, View::rows(&b, k, n), result, into);
                    c
                };
                assert_eq!(run(chosen), run(copied), "{m} {k} {n} {into:?}");
            }
        }
    }

    #[test]
    fn a_product_takes_chosen_rows_where_they_lie() {
        check_chosen_rows(normals);
        check_chosen_rows(narrow_normals);
    }

    #[test]
    fn a_biased_product_begins_with_the_bias() {
        for n in [1, 20, 40] {
            let (a, b, bias) = (normals(1, 9 * 4), normals(2, 4 * n), normals(3, n));
            let run = |into, mut c: Vec<f64>| {
                let (left, right) = (View::rows(&a, 9, 4), View::rows(&b, 4, n));
                product(left, right, ViewMut::rows(&mut c, 9, n), into);
                c
            };
            let filled = bias.repeat(9);
            let biased = run(Into::Biased(&bias), vec![f64::NAN; 9 * n]);
            assert_eq!(biased, run(Into::Added, filled));
        }
    }

    #[test]
    fn products_do_not_depend_on_the_number_of_threads() {
        let (m, k, n) = (300, 257, 520);
        let narrow = |x: Vec<f64>| -> Vec<f32> { x.into_iter().map(|x| x as f32).collect() };
        let (a, b) = (narrow(normals(3, m * k)), narrow(normals(4, k * n)));
        let run = || {
            let mut c = vec![0.0_f32; m * n];
            let result = ViewMut::rows(&mut c, m, n);
            product(
                View::rows(&a, m, k),
                View::rows(&b, k, n),
                result,
                Into::Written,
            );
            c
        };
        assert_eq!(threads(1, run), threads(5, run));
    }
}
