//! Softmax of one row.
//!
//! p_i = exp(z_i - m) / sum_j exp(z_j - m), m the largest;
//! dL/dz_i = p_i (dL/dp_i - sum_j p_j dL/dp_j).

use crate::train::ops::real::{Real, dot, maximum, sum};

/// Replaces scores by probabilities and returns log sum_j exp(z_j).
#[inline(always)]
pub fn forward<T: Real>(row: &mut [T]) -> f64 {
    let largest = maximum(row);
    for value in row.iter_mut() {
        *value = (*value - largest).exp();
    }
    let total = sum(row);
    let scale = T::ONE / total;
    for value in row.iter_mut() {
        *value *= scale;
    }
    largest.wide() + total.wide().ln()
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
