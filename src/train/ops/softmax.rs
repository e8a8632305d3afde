//! Softmax of one row.
//!
//! p_i = exp(z_i - m) / sum_j exp(z_j - m), m the largest;
//! dL/dz_i = p_i (dL/dp_i - sum_j p_j dL/dp_j).

use crate::train::ops::real::{Real, dot, maximum, sum, vectorised};

/// Replaces scores by probabilities and returns log sum_j exp(z_j).
#[inline(always)]
pub fn forward<T: Real>(row: &mut [T]) -> f64 {
    let largest = maximum(row);
    raise(row, largest);
    largest.wide() + normalise(row).wide().ln()
}

/// [`forward`] of every row, with log sum_j exp(z_j) of each. Every step is one of all rows:
/// row after row would wait for its own sums.
///
/// # Shapes
/// rows: log_sums, columns.
pub fn forward_rows<T: Real>(rows: &mut [T], columns: usize, log_sums: &mut [T]) {
    vectorised!(
        || for (row, largest) in rows.chunks_exact(columns).zip(&mut *log_sums) {
            *largest = maximum(row);
        }
    );
    vectorised!(
        || for (row, largest) in rows.chunks_exact_mut(columns).zip(&*log_sums) {
            raise(row, *largest);
        }
    );
    vectorised!(
        || for (row, log_sum) in rows.chunks_exact_mut(columns).zip(log_sums) {
            *log_sum = T::of(log_sum.wide() + normalise(row).wide().ln());
        }
    );
}

/// Replaces z by exp(z - largest).
#[inline(always)]
fn raise<T: Real>(row: &mut [T], largest: T) {
    for value in row {
        *value = (*value - largest).exp();
    }
}

/// Divides by the sum and returns it.
#[inline(always)]
fn normalise<T: Real>(row: &mut [T]) -> T {
    let total = sum(row);
    let scale = T::ONE / total;
    for value in row {
        *value *= scale;
    }
    total
}

/// Replaces dL/dp by dL/dz.
#[inline(always)]
pub fn backward<T: Real>(probabilities: &[T], gradient: &mut [T]) {
    let mean = dot(probabilities, gradient);
    for (gradient, &p) in gradient.iter_mut().zip(probabilities) {
        *gradient = p * (*gradient - mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_gradient_of_the_softmax_matches_finite_differences() {
        let (z, c) = (normals(1, 7), normals(2, 7));
        let value = |z: &[f64]| {
            let mut p = z.to_vec();
            forward(&mut p);
            inner(&p, &c)
        };
        let mut p = z.clone();
        forward(&mut p);
        let mut gradient = c.clone();
        backward(&p, &mut gradient);
        assert_gradient("softmax", &z, &gradient, value);
    }

    #[test]
    fn scores_of_a_thousand_neither_overflow_nor_vanish() {
        let mut row = [1000.0_f32, 1000.0, -1000.0];
        let log_sum = forward(&mut row);
        assert_eq!(row, [0.5, 0.5, 0.0]);
        assert!((log_sum - 1000.0 - 2.0_f64.ln()).abs() < 1e-4);
    }
}
