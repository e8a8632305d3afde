//! Noisy top-K (Shazeer et al. 2017).
//!
//! z' = z + epsilon * softplus(n), epsilon standard normal, n = x W_noise: the noise
//! itself is learned. dL/dn = dL/dz' epsilon s(n). Evaluation uses z.

use crate::rng::Stream;
use crate::train::ops::real::Real;
use crate::train::ops::rows;

/// epsilon of (token, expert), a function of `stream`.
#[inline]
fn normal<T: Real>(stream: &Stream, token: u64, expert: usize) -> T {
    T::of(stream.standard_normal(token, expert as u64))
}

/// Adds the noise to the scores.
///
/// # Shapes
/// noise, scores: tokens, experts; the first row is token `first_token` of the stream.
pub fn forward<T: Real>(
    stream: &Stream,
    first_token: u64,
    experts: usize,
    noise: &[T],
    scores: &mut [T],
) {
    rows::for_each(scores, experts, |row, scores| {
        let noise = &noise[row * experts..][..experts];
        for (expert, (z, &n)) in scores.iter_mut().zip(noise).enumerate() {
            *z += normal::<T>(stream, first_token + row as u64, expert) * n.softplus();
        }
    });
}

/// Writes dL/dn; dL/dz is dL/dz'.
///
/// # Shapes
/// noise, d_scores, d_noise: tokens, experts.
pub fn backward<T: Real>(
    stream: &Stream,
    first_token: u64,
    experts: usize,
    noise: &[T],
    d_scores: &[T],
    d_noise: &mut [T],
) {
    rows::for_each(d_noise, experts, |row, d_noise| {
        let at = row * experts..(row + 1) * experts;
        let terms = noise[at.clone()].iter().zip(&d_scores[at]);
        for (expert, (d, (&n, &g))) in d_noise.iter_mut().zip(terms).enumerate() {
            *d = g * normal::<T>(stream, first_token + row as u64, expert) * n.sigmoid();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_gradient_of_the_learned_noise_matches_finite_differences() {
        let stream = Stream::named(1, "noise", 0, Purpose::Noise);
        let (z, n, c) = (normals(1, 12), normals(2, 12), normals(3, 12));
        let mut gradient = vec![f64::NAN; 12];
        backward(&stream, 5, 4, &n, &c, &mut gradient);
        assert_gradient("noise", &n, &gradient, |n| {
            let mut z = z.clone();
            forward(&stream, 5, 4, n, &mut z);
            inner(&z, &c)
        });
    }

    #[test]
    fn a_token_keeps_its_noise_in_any_batch() {
        let stream = Stream::named(1, "noise", 0, Purpose::Noise);
        let noise = vec![0.3_f32; 24];
        let (mut all, mut later) = (vec![0.0; 24], vec![0.0; 8]);
        forward(&stream, 0, 4, &noise, &mut all);
        forward(&stream, 4, 4, &noise[16..], &mut later);
        assert_eq!(later, all[16..]);
    }

    #[test]
    fn the_noise_has_the_standard_deviation_that_was_learned() {
        let stream = Stream::named(1, "noise", 0, Purpose::Noise);
        // softplus(n) = 2
        let n = (2.0_f64.exp() - 1.0).ln();
        let mut z = vec![0.0; 20_000];
        forward(&stream, 0, 4, &vec![n; z.len()], &mut z);
        let square = inner(&z, &z) / 20_000.0;
        // Variance 4, relative standard error sqrt(2 / 20000) = 0.01.
        assert!((square / 4.0 - 1.0).abs() < 0.05, "{square}");
    }
}
