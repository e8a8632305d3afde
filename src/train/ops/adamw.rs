//! AdamW (Loshchilov, Hutter 2019) and clipping by the global norm.
//!
//! m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
//! w = w - rate (decay w + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)).

use crate::train::ops::real::{Real, vectorised};
use rayon::prelude::*;

/// The constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f64,
    /// b1, b2: memory of the mean and of the mean square.
    pub memory: [f64; 2],
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Decoupled weight decay; 0 for norms, biases and routers by custom.
    pub decay: f64,
}

/// Numbers that one task updates or adds up.
const CHUNK: usize = 8192;

impl AdamW {
    /// Step `step` (from 1): updates parameters, mean and mean square. Every
    /// gradient is multiplied by `scale` first, see [`clip_scale`], and is zero afterwards:
    /// the next step adds to it.
    ///
    /// # Shapes
    /// Four slices of one length.
    pub fn update<T: Real>(
        &self,
        step: u64,
        scale: f64,
        parameters: &mut [T],
        gradient: &mut [T],
        mean: &mut [T],
        square: &mut [T],
    ) {
        assert!(step > 0, "steps count from 1");
        let n = parameters.len();
        let lengths = [gradient.len(), mean.len(), square.len()];
        assert_eq!(lengths, [n; 3], "the optimiser's state fits its parameters");
        let [b1, b2] = self.memory;
        let steps = step.min(i32::MAX as u64) as i32;
        let corrected = self.rate / (1.0 - b1.powi(steps));
        let root = T::of(1.0 / (1.0 - b2.powi(steps)).sqrt());
        let (corrected, keep) = (T::of(corrected), T::of(1.0 - self.rate * self.decay));
        let (epsilon, scale) = (T::of(self.epsilon), T::of(scale));
        let (b1, rest1) = (T::of(b1), T::of(1.0 - b1));
        let (b2, rest2) = (T::of(b2), T::of(1.0 - b2));
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks_mut(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((w, g), (m, v))| {
                vectorised!(|| {
                    for (((w, used), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                        let g = *used * scale;
                        *used = T::ZERO;
                        *m = b1 * *m + rest1 * g;
                        *v = b2 * *v + rest2 * (g * g);
                        *w = *w * keep - corrected * *m / (v.sqrt() * root + epsilon);
                    }
                });
            });
    }
}

/// sum_i g_i^2 in f64.
pub fn square_norm<T: Real>(gradient: &[T]) -> f64 {
    let parts: Vec<f64> = gradient
        .par_chunks(CHUNK)
        .map(|chunk| {
            vectorised!(|| {
                let mut lanes = [0.0; 8];
                let (whole, rest) = chunk.as_chunks::<8>();
                for values in whole {
                    for i in 0..8 {
                        lanes[i] += values[i].wide() * values[i].wide();
                    }
                }
                let rest: f64 = rest.iter().map(|x| x.wide() * x.wide()).sum();
                lanes.iter().sum::<f64>() + rest
            })
        })
        .collect();
    parts.iter().sum()
}

/// What gradients of this norm are multiplied by: min(1, limit / norm).
///
/// A norm that is not a number gives not a number: the step is lost and must show.
pub fn clip_scale(norm: f64, limit: f64) -> f64 {
    if norm <= limit { 1.0 } else { limit / norm }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: AdamW = AdamW {
        rate: 0.1,
        memory: [0.9, 0.99],
        epsilon: 1e-8,
        decay: 0.01,
    };

    #[test]
    fn two_steps_follow_the_formula() {
        let (mut w, mut m, mut v) = ([2.0], [0.0], [0.0]);
        let (mut w_slow, mut m_slow, mut v_slow) = (2.0_f64, 0.0, 0.0);
        for (t, g) in [(1, 0.5), (2, -1.5)] {
            let mut gradient = [g];
            RULE.update(t, 1.0, &mut w, &mut gradient, &mut m, &mut v);
            assert_eq!(gradient, [0.0]);
            m_slow = 0.9 * m_slow + 0.1 * g;
            v_slow = 0.99 * v_slow + 0.01 * g * g;
            let m_hat = m_slow / (1.0 - 0.9_f64.powi(t as i32));
            let v_hat = v_slow / (1.0 - 0.99_f64.powi(t as i32));
            w_slow -= 0.1 * (0.01 * w_slow + m_hat / (v_hat.sqrt() + 1e-8));
            assert!((w[0] - w_slow).abs() < 1e-14, "step {t}");
        }
    }

    #[test]
    fn the_first_step_has_the_size_of_the_rate_whatever_the_gradient() {
        for g in [1e-3, 1.0, 1e3] {
            let mut w = [0.0_f64];
            RULE.update(1, 1.0, &mut w, &mut [g], &mut [0.0], &mut [0.0]);
            assert!((w[0] + 0.1).abs() < 1e-5);
        }
    }

    #[test]
    fn a_clipped_gradient_has_the_norm_of_the_limit() {
        let gradient = [3.0_f32, 4.0];
        let norm = square_norm(&gradient).sqrt();
        assert_eq!(norm, 5.0);
        assert_eq!(clip_scale(norm, 1.0) * norm, 1.0);
        assert_eq!(clip_scale(norm, 5.0), 1.0);
        assert!(clip_scale(f64::NAN, 1.0).is_nan());
    }
}
