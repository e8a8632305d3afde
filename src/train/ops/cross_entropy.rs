//! Cross-entropy of a softmax with its gradient in one pass.
//!
//! loss = scale * sum over counted t of (log sum_v exp(z_tv) - z_t,target);
//! dL/dz_tv = scale * (softmax(z_t)_v - [v = target]), 0 in rows not counted.
//!
//! The caller gives the scale, 1 / (tokens counted in the whole optimiser step), so
//! that a step in several micro-batches is the same step.

use crate::train::ops::real::{Real, vectorised};
use crate::train::ops::softmax;
use rayon::prelude::*;

/// A target that is not counted.
pub const IGNORED: u32 = u32::MAX;

/// The sum of -log p(target) in nats over counted tokens, and their number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// Sum of negative log-likelihoods, without the scale.
    pub nats: f64,
    /// Tokens counted.
    pub tokens: usize,
}

/// Replaces the logits by the gradient of the loss and returns the sum.
///
/// # Shapes
/// logits: tokens, vocabulary. targets: tokens, below the vocabulary or [`IGNORED`].
pub fn forward_backward<T: Real>(
    logits: &mut [T],
    vocabulary: usize,
    targets: &[u32],
    scale: f64,
) -> Total {
    let scale = T::of(scale);
    each_row(logits, vocabulary, targets, |row, target| {
        let Some(target) = target else {
            row.fill(T::ZERO);
            return 0.0;
        };
        let score = row[target].wide();
        let log_sum = vectorised!(|| {
            let log_sum = softmax::forward(row);
            row.iter_mut().for_each(|p| *p *= scale);
            log_sum
        });
        row[target] -= scale;
        log_sum - score
    })
}

/// The sum alone; the logits are overwritten.
///
/// # Shapes
/// As in [`forward_backward`].
pub fn evaluate<T: Real>(logits: &mut [T], vocabulary: usize, targets: &[u32]) -> Total {
    each_row(logits, vocabulary, targets, |row, target| {
        let Some(target) = target else { return 0.0 };
        let score = row[target].wide();
        vectorised!(|| softmax::forward(row)) - score
    })
}

fn each_row<T: Real>(
    logits: &mut [T],
    vocabulary: usize,
    targets: &[u32],
    work: impl Fn(&mut [T], Option<usize>) -> f64 + Sync,
) -> Total {
    assert_eq!(logits.len(), targets.len() * vocabulary, "logits");
    let mut losses = vec![0.0; targets.len()];
    logits
        .par_chunks_mut(vocabulary.max(1))
        .zip(losses.par_iter_mut())
        .zip(targets)
        .for_each(|((row, loss), &target)| {
            *loss = work(row, (target != IGNORED).then_some(target as usize));
        });
    Total {
        nats: losses.iter().sum(),
        tokens: targets.iter().filter(|&&t| t != IGNORED).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, normals};

    const TARGETS: [u32; 4] = [3, 0, IGNORED, 3];

    #[test]
    fn the_gradient_of_the_cross_entropy_matches_finite_differences() {
        let logits = normals(1, 20);
        let mut gradient = logits.clone();
        forward_backward(&mut gradient, 5, &TARGETS, 0.7);
        assert_gradient("logits", &logits, &gradient, |z| {
            0.7 * evaluate(&mut z.to_vec(), 5, &TARGETS).nats
        });
        assert_eq!(gradient[10..15], [0.0; 5], "an ignored row has no gradient");
    }

    #[test]
    fn equal_logits_cost_the_logarithm_of_the_vocabulary() {
        let total = evaluate(&mut [0.0_f64; 20], 5, &TARGETS);
        assert_eq!(total.tokens, 3);
        assert!((total.nats - 3.0 * 5.0_f64.ln()).abs() < 1e-14);
    }

    #[test]
    fn two_micro_batches_add_up_to_one() {
        let logits = normals(2, 20);
        let whole = evaluate(&mut logits.clone(), 5, &TARGETS);
        let first = evaluate(&mut logits[..10].to_vec(), 5, &TARGETS[..2]);
        let second = evaluate(&mut logits[10..].to_vec(), 5, &TARGETS[2..]);
        assert_eq!(whole.tokens, first.tokens + second.tokens);
        assert!((whole.nats - first.nats - second.nats).abs() < 1e-14);
    }
}
