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
    for expert in 0..scores.len() {
        insert(scores, expert, best);
    }
}

/// Where experts move when one enters the best: from its place, those up to the end move on
/// by one and the last is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    place: usize,
    end: usize,
}

impl Entry {
    /// Does the same to what belongs to the best; what belonged to the last, or was free,
    /// comes to the new one's place, which is returned.
    #[inline]
    pub fn rotate<V>(self, values: &mut [V]) -> &mut V {
        values[self.place..=self.end].rotate_right(1);
        &mut values[self.place]
    }
}

/// One step of [`select`]: all experts before this one are taken account of.
///
/// # Shapes
/// As there; scores of later experts mean nothing.
#[inline]
pub fn insert<T: Real>(scores: &[T], expert: usize, best: &mut [u32]) -> Option<Entry> {
    let beats = |a: T, b: T| a > b || (b.wide().is_nan() && !a.wide().is_nan());
    let filled = expert.min(best.len());
    // The place after all that are at least as good.
    let mut place = filled;
    while place > 0 && beats(scores[expert], scores[best[place - 1] as usize]) {
        place -= 1;
    }
    if place == best.len() {
        return None;
    }
    let end = filled.min(best.len() - 1);
    best.copy_within(place..end, place + 1);
    best[place] = expert as u32;
    Some(Entry { place, end })
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
        fn what_belongs_to_the_best_moves_with_them(
            scores in proptest::collection::vec(-3..3_i32, 1..20), k in 0..20_usize,
        ) {
            let scores: Vec<f64> = scores.into_iter().map(f64::from).collect();
            let k = k.min(scores.len());
            let (mut best, mut places) = (vec![0; k], (0..k).collect::<Vec<_>>());
            let mut owners = vec![None; k];
            for expert in 0..scores.len() {
                if let Some(entry) = insert(&scores, expert, &mut best) {
                    owners[*entry.rotate(&mut places)] = Some(expert as u32);
                }
            }
            let owners: Vec<_> = places.into_iter().filter_map(|place| owners[place]).collect();
            prop_assert_eq!(&owners, &best);
            prop_assert_eq!(best, selected(&scores, k));
        }

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
