//! Selection of the K largest, with a stated tie rule.

/// Marks the `k` largest of `scores` in `selected`; ties go to the lower index.
///
/// NaN counts as smaller than every number.
///
/// # Shapes
/// `scores` and `selected` have the same length; `k` at most that length.
#[inline]
pub fn select_top_k(scores: &[f64], k: usize, selected: &mut [bool]) {
    debug_assert_eq!(scores.len(), selected.len());
    if k >= scores.len() {
        selected.fill(true);
        return;
    }
    selected.fill(false);
    for _ in 0..k {
        let mut best = usize::MAX;
        for (i, &score) in scores.iter().enumerate() {
            let better = best == usize::MAX
                || score > scores[best]
                || (scores[best].is_nan() && !score.is_nan());
            if !selected[i] && better {
                best = i;
            }
        }
        selected[best] = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(scores: &[f64], k: usize) -> Vec<bool> {
        let mut selected = vec![false; scores.len()];
        select_top_k(scores, k, &mut selected);
        selected
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(chosen(&[1.0, 1.0, 1.0], 2), [true, true, false]);
        assert_eq!(chosen(&[0.0, 2.0, 1.0, 2.0], 2), [false, true, false, true]);
        assert_eq!(chosen(&[0.0, 2.0, 2.0], 1), [false, true, false]);
    }

    #[test]
    fn nan_loses_to_every_number() {
        assert_eq!(chosen(&[f64::NAN, -1e300, 0.0], 2), [false, true, true]);
        assert_eq!(chosen(&[f64::NEG_INFINITY, f64::NAN], 1), [true, false]);
    }
}
