//! Noisy top-K (Shazeer et al. 2017).
//!
//! z' = z + epsilon * softplus(n), epsilon standard normal, n = x W_noise: the noise
//! itself is learned. dL/dn = dL/dz' epsilon s(n). Evaluation uses z.

use crate::rng::Stream;
use crate::train::ops::real::Real;

/// Standard normals of (token, expert), a function of `stream`.
///
/// # Shapes
/// Result: tokens, experts.
pub fn draw<T: Real>(stream: &Stream, first_token: u64, tokens: usize, experts: usize) -> Vec<T> {
    let normal = |i: usize| {
        let token = first_token + (i / experts) as u64;
        T::of(stream.standard_normal(token, (i % experts) as u64))
    };
    (0..tokens * experts).map(normal).collect()
}

/// Adds the noise to the scores.
///
/// # Shapes
/// Three slices of (tokens, experts).
pub fn forward<T: Real>(normals: &[T], noise: &[T], scores: &mut [T]) {
    for ((z, &epsilon), &n) in scores.iter_mut().zip(normals).zip(noise) {
        *z += epsilon * n.softplus();
    }
}

/// Adds dL/dn; dL/dz is dL/dz'.
///
/// # Shapes
/// Four slices of (tokens, experts).
pub fn backward<T: Real>(normals: &[T], noise: &[T], d_scores: &[T], d_noise: &mut [T]) {
    for (((d, &epsilon), &n), &g) in d_noise.iter_mut().zip(normals).zip(noise).zip(d_scores) {
        *d += g * epsilon * n.sigmoid();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_gradient_of_the_learned_noise_matches_finite_differences() {
        let stream = Stream::named(1, "noise", 0, Purpose::Data);
        let epsilon: Vec<f64> = draw(&stream, 0, 3, 4);
        let (z, n, c) = (normals(1, 12), normals(2, 12), normals(3, 12));
        let mut gradient = vec![0.0; 12];
        backward(&epsilon, &n, &c, &mut gradient);
        assert_gradient("noise", &n, &gradient, |n| {
            let mut z = z.clone();
            forward(&epsilon, n, &mut z);
            inner(&z, &c)
        });
    }

    #[test]
    fn a_token_keeps_its_noise_in_any_batch() {
        let stream = Stream::named(1, "noise", 0, Purpose::Data);
        let all: Vec<f32> = draw(&stream, 0, 6, 4);
        let later: Vec<f32> = draw(&stream, 4, 2, 4);
        assert_eq!(later, all[16..]);
    }
}
