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
    /// Softmax of softmax(z), which hides a collapse: the published code of
    /// CompeteSMoE v2 does so to responses by mistake.
    SoftmaxTwice,
}

impl Distribution {
    /// Replaces one token's scores by probabilities.
    #[inline(always)]
    pub fn forward<T: Real>(self, row: &mut [T]) {
        match self {
            Distribution::Softmax => {
                softmax::forward(row);
            }
            Distribution::SoftmaxTwice => {
                softmax::forward(row);
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
    #[inline(always)]
    pub fn backward<T: Real>(self, scores: &[T], probabilities: &[T], gradient: &mut [T]) {
        match self {
            Distribution::Softmax => softmax::backward(probabilities, gradient),
            Distribution::SoftmaxTwice => {
                softmax::backward(probabilities, gradient);
                let mut once = scores.to_vec();
                softmax::forward(&mut once);
                softmax::backward(&once, gradient);
            }
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
    fn all_distributions_sum_to_one_and_their_gradients_match_finite_differences() {
        let (z, c) = (normals(1, 5), normals(2, 5));
        for distribution in [
            Distribution::Softmax,
            Distribution::Sigmoid,
            Distribution::SoftmaxTwice,
        ] {
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

    #[test]
    fn a_second_softmax_hides_a_collapse() {
        let mut p = [9.0_f64, 0.0, 0.0];
        Distribution::SoftmaxTwice.forward(&mut p);
        // Softmax of nearly (1, 0, 0).
        let e = 1.0_f64.exp();
        assert!((p[0] - e / (e + 2.0)).abs() < 1e-3);
    }
}
