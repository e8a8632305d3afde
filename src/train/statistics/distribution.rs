//! How sure routers are: p_t = softmax(z_t), and the weights of the chosen.

use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use crate::train::ops::softmax;
use crate::train::statistics::{entropy, mean};

/// A router's distribution, averaged over tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Sureness {
    /// mean over t of the entropy of p_t, in nats: log E for a router that does not
    /// care, 0 for a certain one.
    pub entropy: f64,
    /// mean over t of the largest p minus the second largest; p itself for one expert.
    pub margin: f64,
    /// Element r: mean over t of the p of rank r, the largest first.
    pub sorted: Vec<f64>,
}

/// Measures scores; all 0 without tokens.
///
/// # Shapes
/// scores: tokens, experts.
pub fn sureness<T: Real>(scores: &[T], experts: usize) -> Sureness {
    let mut sum = Sureness {
        entropy: 0.0,
        margin: 0.0,
        sorted: vec![0.0; experts],
    };
    let mut row = vec![0.0; experts];
    for scores in scores.chunks_exact(experts) {
        for (p, z) in row.iter_mut().zip(scores) {
            *p = z.wide();
        }
        softmax::forward(&mut row);
        sum.entropy += entropy(row.iter().copied());
        row.sort_unstable_by(|a, b| b.total_cmp(a));
        sum.margin += row[0] - row.get(1).copied().unwrap_or(0.0);
        for (sum, p) in sum.sorted.iter_mut().zip(&row) {
            *sum += p;
        }
    }
    let tokens = (scores.len() / experts).max(1) as f64;
    sum.entropy /= tokens;
    sum.margin /= tokens;
    sum.sorted.iter_mut().for_each(|p| *p /= tokens);
    sum
}

/// mean over tokens with experts of the entropy of w_t / sum w_t, in nats: log K for
/// equal weights, 0 where one expert has all weight.
pub fn weight_entropy<T: Real>(assignment: &Assignment<T>) -> Option<f64> {
    let of_token = |token| {
        let weights = &assignment.weights()[assignment.pairs_of(token)];
        let total: f64 = weights.iter().map(|w| w.wide()).sum();
        (total > 0.0).then(|| entropy(weights.iter().map(|w| w.wide() / total)))
    };
    mean((0..assignment.tokens()).filter_map(of_token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::statistics::sample::{chosen, route};

    #[test]
    fn a_router_without_preference_has_the_entropy_of_equal_shares_and_no_margin() {
        let sure = sureness(&[0.7_f32; 12], 4);
        assert!((sure.entropy - 4.0_f64.ln()).abs() < 1e-12);
        assert!(sure.margin.abs() < 1e-12);
        assert!(sure.sorted.iter().all(|p| (p - 0.25).abs() < 1e-12));
        let weights = weight_entropy(&route(&[0.7; 12], 4, 2)).unwrap();
        assert!((weights - 2.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_certain_router_has_no_entropy_and_full_margin() {
        let sure = sureness(&[0.0, 900.0, 900.0, 0.0], 2);
        assert_eq!(sure.entropy, 0.0);
        assert_eq!(sure.margin, 1.0);
        assert_eq!(sure.sorted, [1.0, 0.0]);
        let scores = [0.0, 900.0, 900.0, 0.0];
        assert_eq!(weight_entropy(&route(&scores, 2, 2)), Some(0.0));
    }

    #[test]
    fn probabilities_are_sorted_within_each_token_before_they_are_averaged() {
        // p = (1/2, 1/4, 1/4) and (1/8, 1/8, 3/4).
        let scores = [2.0_f64.ln(), 0.0, 0.0, 0.0, 0.0, 6.0_f64.ln()];
        let sure = sureness(&scores, 3);
        let expected = [0.625, 0.1875, 0.1875];
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(sure.sorted.iter().zip(&expected).all(close), "{sure:?}");
        assert!((sure.margin - 0.5 * (0.25 + 0.625)).abs() < 1e-12);
    }

    #[test]
    fn tokens_without_experts_have_no_weights_to_measure() {
        let mixed = weight_entropy(&chosen(&[&[], &[0, 1]], 2)).unwrap();
        assert!((mixed - 2.0_f64.ln()).abs() < 1e-15);
        assert_eq!(weight_entropy(&chosen(&[&[]], 2)), None);
        assert_eq!(sureness::<f64>(&[], 3).sorted, [0.0; 3]);
    }
}
