//! The K best experts of a token.

use crate::train::ops::real::Real;

/// The `k` largest scores, best first; among equals the lower index, and
/// not-a-number after every number.
///
/// # Shapes
/// scores: experts. best: k, at most the number of experts.
#[inline]
pub fn select<T: Real>(scores: &[T], best: &mut [u32]) {
    debug_assert!(best.len() <= scores.len());
    let beats = |a: T, b: T| a > b || (b.wide().is_nan() && !a.wide().is_nan());
    let k = best.len();
    let mut filled = 0;
    for (expert, &score) in scores.iter().enumerate() {
        // The place after all that are at least as good.
        let mut place = filled;
        while place > 0 && beats(score, scores[best[place - 1] as usize]) {
            place -= 1;
        }
        if place < k {
            let end = filled.min(k - 1);
            best.copy_within(place..end, place + 1);
            best[place] = expert as u32;
            filled = (filled + 1).min(k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selected(scores: &[f64], k: usize) -> Vec<u32> {
        let mut best = vec![0; k];
        select(scores, &mut best);
        best
    }

    #[test]
    fn ties_go_to_the_lower_expert_and_not_a_number_goes_last() {
        assert_eq!(selected(&[1.0, 2.0, 2.0, 0.0], 3), [1, 2, 0]);
        assert_eq!(selected(&[f64::NAN, f64::NEG_INFINITY, 0.0], 3), [2, 1, 0]);
        assert_eq!(selected(&[0.0; 4], 2), [0, 1]);
        assert_eq!(selected(&[1.0], 0), [0; 0]);
    }

    proptest! {
        #[test]
        fn selection_is_the_head_of_a_stable_sort(
            scores in proptest::collection::vec(-3..3_i32, 1..20), k in 1..20_usize,
        ) {
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            let k = k.min(scores.len());
            let mut order: Vec<u32> = (0..scores.len() as u32).collect();
            order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
            prop_assert_eq!(selected(&scores, k), order[..k].to_vec());
        }
    }
}
