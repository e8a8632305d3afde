//! From scores to a distribution over experts.

use crate::train::ops::real::{Real, dot, sum};
use crate::train::ops::softmax;
use serde::{Deserialize, Serialize};

/// How scores become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// exp(z_e) / sum
    Softmax,
    /// s(z_e) / sum, s the logistic function (DeepSeek-V3).
    Sigmoid,
}

impl Distribution {
    /// Replaces one token's scores by probabilities.
    pub fn forward<T: Real>(self, row: &mut [T]) {
        match self {
            Distribution::Softmax => {
                softmax::forward(row);
            }
            Distribution::Sigmoid => {
                row.iter_mut().for_each(|z| *z = z.sigmoid());
                let total = sum(row);
                row.iter_mut().for_each(|s| *s = *s / total);
            }
        }
    }

    /// Replaces dL/dp by dL/dz.
    pub fn backward<T: Real>(self, scores: &[T], probabilities: &[T], gradient: &mut [T]) {
        match self {
            Distribution::Softmax => softmax::backward(probabilities, gradient),
            Distribution::Sigmoid => {
                // dp_i/dz_j = p_j (1 - s_j) ([i = j] - p_i)
                let mean = dot(probabilities, gradient);
                for ((g, &p), &z) in gradient.iter_mut().zip(probabilities).zip(scores) {
                    *g = p * (T::ONE - z.sigmoid()) * (*g - mean);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn both_distributions_sum_to_one_and_their_gradients_match_finite_differences() {
        let (z, c) = (normals(1, 5), normals(2, 5));
        for distribution in [Distribution::Softmax, Distribution::Sigmoid] {
            let mut p = z.clone();
            distribution.forward(&mut p);
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-14);
            let mut gradient = c.clone();
            distribution.backward(&z, &p, &mut gradient);
            assert_gradient("scores", &z, &gradient, |z| {
                let mut p = z.to_vec();
                distribution.forward(&mut p);
                inner(&p, &c)
            });
        }
    }
}
