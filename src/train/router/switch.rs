//! Switch routing (Fedus, Zoph, Shazeer 2022): one expert per token, its softmax
//! probability as weight, multiplicative jitter of the router's input in training,
//! and a capacity.

use crate::rng::Stream;
use crate::train::ops::real::Real;
use crate::train::ops::rows;
use crate::train::router::combine::{Combine, TopK};

/// K = 1 with the weight p_e. Softmax over the one chosen score would be 1 and
/// leave the router without a gradient.
pub const RULE: TopK = TopK {
    k: 1,
    combine: Combine::SoftmaxTopK,
    scale: 1.0,
};

/// Multiplies every element of the router's input, or of its gradient, by its own
/// uniform number on (1 - amplitude, 1 + amplitude).
///
/// The factor of (token, channel) is a function of `stream`, so the backward pass
/// draws the same ones. Evaluation does not call this.
///
/// # Shapes
/// x: tokens, width; its first row is token `first_token` of the stream.
pub fn jitter<T: Real>(
    stream: &Stream,
    amplitude: f64,
    first_token: u64,
    width: usize,
    x: &mut [T],
) {
    rows::for_each(x, width, |row, x| {
        for (pair, x) in x.chunks_mut(2).enumerate() {
            let uniforms = stream.uniform_pair(first_token + row as u64, pair as u64);
            for (x, u) in x.iter_mut().zip(uniforms) {
                *x *= T::of(1.0 + amplitude * (2.0 * u - 1.0));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_weight_of_the_one_expert_is_its_probability() {
        let chosen = RULE.forward(&[0.0_f64, 2.0_f64.ln(), 0.0], 3).unwrap();
        assert_eq!(chosen.experts(), [1]);
        assert!((chosen.weights()[0] - 0.5).abs() < 1e-15);
    }

    #[test]
    fn jitter_of_the_gradient_is_the_gradient_of_jitter() {
        let stream = Stream::named(3, "jitter", 0, Purpose::Data);
        let (x, c) = (normals(1, 15), normals(2, 15));
        let mut gradient = c.clone();
        jitter(&stream, 0.1, 7, 5, &mut gradient);
        assert_gradient("x", &x, &gradient, |x| {
            let mut x = x.to_vec();
            jitter(&stream, 0.1, 7, 5, &mut x);
            inner(&x, &c)
        });
    }

    #[test]
    fn jitter_stays_within_its_amplitude_and_does_not_depend_on_the_batch() {
        let stream = Stream::named(3, "jitter", 0, Purpose::Data);
        let mut all = vec![1.0_f64; 60];
        jitter(&stream, 0.1, 0, 3, &mut all);
        assert!(all.iter().all(|x| (0.9..1.1).contains(x)));
        let spread = all.iter().fold(0.0_f64, |s, x| s.max((x - 1.0).abs()));
        assert!(spread > 0.08);
        let mut half = vec![1.0_f64; 30];
        jitter(&stream, 0.1, 10, 3, &mut half);
        assert_eq!(half, all[30..]);
    }
}
