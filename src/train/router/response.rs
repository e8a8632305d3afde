//! How strongly an expert responds to a token, judged by its output o of width D.

use crate::train::ops::real::{Real, dot, sum_of, vectorised};
use serde::{Deserialize, Serialize};

/// a = response(o).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// |o|: CompeteSMoE v1. Grows like sqrt(D), so that softmax saturates.
    Norm,
    /// |o| / sqrt(D)
    NormPerRootWidth,
    /// mean of log(1 + exp(o)): CompeteSMoE v2.
    SoftplusMean,
    /// mean of max(o, 0)
    ReluMean,
    /// mean of s(o), s the logistic function
    SigmoidMean,
    /// mean of o s(o)
    SiluMean,
}

impl Response {
    /// a of one output.
    pub fn forward<T: Real>(self, out: &[T]) -> T {
        vectorised!(|| self.of_row(out))
    }

    /// `affinities[i]` of row i of outputs.
    ///
    /// # Shapes
    /// out: rows, width. affinities: rows.
    pub fn forward_rows<'a, T: Real>(
        self,
        out: &[T],
        width: usize,
        affinities: impl Iterator<Item = &'a mut T>,
    ) {
        vectorised!(|| for (a, out) in affinities.zip(out.chunks_exact(width)) {
            *a = self.of_row(out);
        });
    }

    #[inline(always)]
    fn of_row<T: Real>(self, out: &[T]) -> T {
        let width = T::of(out.len() as f64);
        match self {
            Response::Norm => dot(out, out).sqrt(),
            Response::NormPerRootWidth => (dot(out, out) / width).sqrt(),
            Response::SoftplusMean => sum_of(out, T::softplus) / width,
            Response::ReluMean => sum_of(out, |o| o.larger(T::ZERO)) / width,
            Response::SigmoidMean => sum_of(out, T::sigmoid) / width,
            Response::SiluMean => sum_of(out, |o| o * o.sigmoid()) / width,
        }
    }

    /// Adds d_response da/do to `d_out`. A norm of 0 has gradient 0.
    pub fn backward<T: Real>(self, out: &[T], d_response: T, d_out: &mut [T]) {
        let width = T::of(out.len() as f64);
        let mean = d_response / width;
        let pairs = d_out.iter_mut().zip(out);
        vectorised!(|| match self {
            Response::Norm | Response::NormPerRootWidth => {
                let norm = self.forward(out);
                // d|o| = o / |o|; with a = |o| / sqrt(D), da = o / (a D).
                let along = match self {
                    Response::Norm => d_response / norm,
                    _ => mean / norm,
                };
                if norm > T::ZERO {
                    pairs.for_each(|(d, &o)| *d += along * o);
                }
            }
            Response::SoftplusMean => pairs.for_each(|(d, &o)| *d += mean * o.sigmoid()),
            Response::ReluMean => pairs.for_each(|(d, &o)| {
                *d += if o > T::ZERO { mean } else { T::ZERO };
            }),
            Response::SigmoidMean => pairs.for_each(|(d, &o)| {
                let s = o.sigmoid();
                *d += mean * s * (T::ONE - s);
            }),
            Response::SiluMean => pairs.for_each(|(d, &o)| {
                let s = o.sigmoid();
                *d += mean * s * (T::ONE + o * (T::ONE - s));
            }),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, normals};
    use crate::train::ops::softmax;

    const ALL: [Response; 6] = [
        Response::Norm,
        Response::NormPerRootWidth,
        Response::SoftplusMean,
        Response::ReluMean,
        Response::SigmoidMean,
        Response::SiluMean,
    ];

    #[test]
    fn the_gradients_of_all_responses_match_finite_differences() {
        let out = normals(1, 21);
        for response in ALL {
            let mut gradient = vec![0.0; 21];
            response.backward(&out, 1.7, &mut gradient);
            let name = format!("{response:?}");
            assert_gradient(&name, &out, &gradient, |o| 1.7 * response.forward(o));
        }
    }

    #[test]
    fn known_responses() {
        let out = [3.0_f64, -4.0];
        assert_eq!(Response::Norm.forward(&out), 5.0);
        assert!((Response::NormPerRootWidth.forward(&out) - 5.0 / 2.0_f64.sqrt()).abs() < 1e-15);
        assert_eq!(Response::ReluMean.forward(&out), 1.5);
        let softplus = (1.0 + 3.0_f64.exp()).ln() + (1.0 + (-4.0_f64).exp()).ln();
        assert!((Response::SoftplusMean.forward(&out) - softplus / 2.0).abs() < 1e-15);
        assert_eq!(Response::SigmoidMean.forward(&[0.0_f64; 4]), 0.5);
    }

    #[test]
    fn an_output_of_zero_has_no_gradient_that_is_not_a_number() {
        for response in ALL {
            let mut gradient = [0.0_f64; 3];
            response.backward(&[0.0; 3], 1.0, &mut gradient);
            assert!(gradient.iter().all(|g| g.is_finite()), "{response:?}");
        }
    }

    #[test]
    fn v2_targets_of_small_outputs_are_almost_uniform_and_v1_norms_are_not() {
        // 16 experts of width 352 with output scales spread by 10 %.
        let row = |response: Response, scale: f64| {
            let out = |e: u64| -> Vec<f64> {
                let own = scale * (1.0 + 0.1 * normals(99, 16)[e as usize]);
                normals(e, 352).iter().map(|o| own * o).collect()
            };
            let mut row: Vec<f64> = (0..16).map(|e| response.forward(&out(e))).collect();
            softmax::forward(&mut row);
            let largest = row.iter().fold(0.0_f64, |m, &p| m.max(16.0 * p));
            largest - 1.0
        };
        assert!(row(Response::SoftplusMean, 0.1) < 0.01);
        assert!(row(Response::SoftplusMean, 1.0) < 0.2);
        assert!(row(Response::Norm, 1.0) > 1.0);
    }
}
