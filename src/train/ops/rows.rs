//! Work shared among threads by rows or columns, in an order that the shapes fix.

use crate::train::ops::real::{Real, vectorised};
use rayon::prelude::*;

/// Numbers that one task should handle: less costs more than it gains.
const NUMBERS: usize = 16_384;

/// Rows that one task handles at most: short ones, such as a token's scores, take more work
/// than their numbers tell.
const ROWS: usize = 256;

/// Rows of one task.
pub fn rows_per_task(columns: usize) -> usize {
    (NUMBERS / columns.max(1)).clamp(1, ROWS)
}

/// Runs `work(row, values)` on every row of a matrix with `columns` columns.
pub fn for_each<T: Send>(
    matrix: &mut [T],
    columns: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    map_blocks(matrix, columns, |first, block| {
        for (i, row) in block.chunks_exact_mut(columns).enumerate() {
            work(first + i, row);
        }
    });
}

/// Runs `work(row, values, others)` on the rows of two matrices, each given with its columns.
pub fn for_each_pair<T: Send, U: Send>(
    (matrix, columns): (&mut [T], usize),
    (other, other_columns): (&mut [U], usize),
    work: impl Fn(usize, &mut [T], &mut [U]) + Send + Sync,
) {
    let rows = rows_per_task(columns);
    let others = other.par_chunks_mut((rows * other_columns).max(1));
    matrix
        .par_chunks_mut((rows * columns).max(1))
        .zip(others)
        .enumerate()
        .for_each(|(task, (block, others))| {
            let pairs = block.chunks_exact_mut(columns);
            let pairs = pairs.zip(others.chunks_exact_mut(other_columns));
            for (i, (row, other)) in pairs.enumerate() {
                work(task * rows + i, row, other);
            }
        });
}

/// Runs `work(first row, values)` on blocks of rows whose size the number of columns
/// fixes; results in the order of rows.
pub fn map_blocks<T: Send, R: Send>(
    matrix: &mut [T],
    columns: usize,
    work: impl Fn(usize, &mut [T]) -> R + Send + Sync,
) -> Vec<R> {
    let rows = rows_per_task(columns);
    matrix
        .par_chunks_mut((rows * columns).max(1))
        .enumerate()
        .map(|(task, block)| work(task * rows, block))
        .collect()
}

/// `target[i] = value`
pub fn fill<T: Real>(target: &mut [T], value: T) {
    target
        .par_chunks_mut(NUMBERS)
        .for_each(|target| target.fill(value));
}

/// `target[i] = source[i]`
pub fn copy<T: Real>(target: &mut [T], source: &[T]) {
    debug_assert_eq!(target.len(), source.len());
    target
        .par_chunks_mut(NUMBERS)
        .zip(source.par_chunks(NUMBERS))
        .for_each(|(target, source)| target.copy_from_slice(source));
}

/// `target[i] += source[i]`
pub fn add<T: Real>(target: &mut [T], source: &[T]) {
    debug_assert_eq!(target.len(), source.len());
    target
        .par_chunks_mut(NUMBERS)
        .zip(source.par_chunks(NUMBERS))
        .for_each(|(target, source)| {
            for (target, &source) in target.iter_mut().zip(source) {
                *target += source;
            }
        });
}

/// Columns that one task sums.
const STRIP: usize = 64;

/// `totals[c] += sum_r term(r, c)`: rows in order, columns shared among threads.
///
/// `term(row, first, values)` adds a row's terms of the columns from `first` on to
/// `values`.
pub fn add_column_sums<T: Real>(
    totals: &mut [T],
    rows: usize,
    term: impl Fn(usize, usize, &mut [T]) + Send + Sync,
) {
    totals
        .par_chunks_mut(STRIP)
        .enumerate()
        .for_each(|(strip, totals)| {
            let mut sums = [T::ZERO; STRIP];
            let sums = &mut sums[..totals.len()];
            vectorised!(|| {
                for row in 0..rows {
                    term(row, strip * STRIP, sums);
                }
            });
            for (total, &sum) in totals.iter_mut().zip(&*sums) {
                *total += sum;
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once_under_its_own_number() {
        for columns in [1, 3, 100_000] {
            let mut matrix = vec![0; 7 * columns];
            for_each(&mut matrix, columns, |row, values| {
                values.iter_mut().for_each(|v| *v += row);
            });
            let expected: Vec<usize> = (0..7 * columns).map(|i| i / columns).collect();
            assert_eq!(matrix, expected);
        }
    }

    #[test]
    fn blocks_come_back_in_the_order_of_rows() {
        let mut matrix = vec![1; 50_000 * 3];
        let blocks = map_blocks(&mut matrix, 3, |first, block| (first, block.len()));
        let mut next = 0;
        for (first, length) in blocks {
            assert_eq!(first, next);
            next += length / 3;
        }
        assert_eq!(next, 50_000);
        assert!(map_blocks(&mut [0; 0], 0, |_, _| ()).is_empty());
    }

    #[test]
    fn column_sums_cover_columns_beyond_one_strip() {
        let mut totals = vec![1.0_f64; 150];
        add_column_sums(&mut totals, 3, |row, first, sums| {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum += (row * 1000 + first + c) as f64;
            }
        });
        let expected: Vec<f64> = (0..150).map(|c| (3 * c + 3001) as f64).collect();
        assert_eq!(totals, expected);
    }
}
