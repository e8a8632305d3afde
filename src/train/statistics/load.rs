//! How evenly experts are used.

use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use crate::train::statistics::entropy;

/// n_e, pairs of expert e; pairs that a capacity drops are counted.
pub fn counts<T: Real>(assignment: &Assignment<T>) -> Vec<u64> {
    let mut counts = vec![0; assignment.expert_count()];
    for &expert in assignment.experts() {
        counts[expert as usize] += 1;
    }
    counts
}

/// MaxVio = max n / mean n - 1 (Wang et al. 2024, auxiliary-loss-free balancing).
///
/// 0 when balanced, E / K - 1 when K experts serve every token; 0 without pairs.
pub fn maximum_violation(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    match counts.iter().max() {
        Some(&most) if total > 0 => most as f64 * counts.len() as f64 / total as f64 - 1.0,
        _ => 0.0,
    }
}

/// Entropy of n / sum n over log E: 1 when balanced, 0 when one expert has all.
///
/// 1 for a single expert; 0 without pairs.
pub fn normalised_entropy(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    match (total, counts.len()) {
        (0, _) => 0.0,
        (_, 1) => 1.0,
        (total, experts) => {
            let shares = counts.iter().map(|&n| n as f64 / total as f64);
            entropy(shares) / (experts as f64).ln()
        }
    }
}

/// Experts without any pair.
pub fn dead(counts: &[u64]) -> usize {
    counts.iter().filter(|&&n| n == 0).count()
}

/// Tokens by their number of experts: element n counts the tokens with n experts.
pub fn experts_per_token<T: Real>(assignment: &Assignment<T>) -> Vec<u64> {
    let mut histogram = Vec::new();
    for token in 0..assignment.tokens() {
        let n = assignment.pairs_of(token).len();
        if histogram.len() <= n {
            histogram.resize(n + 1, 0);
        }
        histogram[n] += 1;
    }
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::statistics::sample::chosen;

    #[test]
    fn a_balanced_load_has_no_violation_and_full_entropy() {
        let counts = counts(&chosen(&[&[0, 1], &[2, 3], &[1, 0], &[3, 2]], 4));
        assert_eq!(counts, [2, 2, 2, 2]);
        assert_eq!(maximum_violation(&counts), 0.0);
        assert!((normalised_entropy(&counts) - 1.0).abs() < 1e-15);
        assert_eq!(dead(&counts), 0);
    }

    #[test]
    fn a_collapsed_load_has_the_largest_violation_and_no_entropy() {
        let counts = counts(&chosen(&[&[1], &[1], &[1]], 4));
        assert_eq!(counts, [0, 3, 0, 0]);
        assert_eq!(maximum_violation(&counts), 3.0);
        assert_eq!(normalised_entropy(&counts), 0.0);
        assert_eq!(dead(&counts), 3);
    }

    #[test]
    fn a_load_known_by_hand() {
        // Shares 1/2, 1/4, 1/4: entropy 1.5 log 2.
        let counts = [4, 2, 2];
        let expected = 1.5 * 2.0_f64.ln() / 3.0_f64.ln();
        assert!((normalised_entropy(&counts) - expected).abs() < 1e-15);
        assert!((maximum_violation(&counts) - 0.5).abs() < 1e-15);
    }

    #[test]
    fn nothing_to_count_gives_no_not_a_number() {
        let none = counts(&chosen(&[&[], &[]], 3));
        assert_eq!(
            (maximum_violation(&none), normalised_entropy(&none)),
            (0.0, 0.0)
        );
        assert_eq!(normalised_entropy(&[5]), 1.0);
        assert_eq!(maximum_violation(&[]), 0.0);
    }

    #[test]
    fn tokens_are_counted_by_their_number_of_experts_also_those_with_none() {
        let assignment = chosen(&[&[], &[0], &[1, 0, 2], &[2]], 3);
        assert_eq!(experts_per_token(&assignment), [1, 2, 0, 1]);
        assert!(experts_per_token(&chosen(&[], 3)).is_empty());
    }
}
