//! Which fitted expert stands for which true expert.

use crate::model::{Expert, Parameters};

/// Most experts for which the optimal matching is computed.
const MAX_EXPERTS: usize = 16;

/// `fitted` with its experts in the order of `truth`'s: the permutation with
/// the least sum of squared distances between (scale, slope, intercept,
/// log-variance), by dynamic programming over subsets.
///
/// Experts of different kinds never match. `None` if the numbers of experts
/// differ or exceed 16, or if the kinds do not pair up.
pub fn aligned(fitted: &Parameters, truth: &Parameters) -> Option<Parameters> {
    let count = truth.experts.len();
    if fitted.experts.len() != count || count > MAX_EXPERTS {
        return None;
    }
    let cost = |i: usize, j: usize| distance_sq(&fitted.experts[i], &truth.experts[j]);
    // best[set]: least cost of giving the first |set| true experts the fitted
    // experts in `set`, and the last one given.
    let mut best = vec![(f64::INFINITY, usize::MAX); 1 << count];
    best[0] = (0.0, usize::MAX);
    for set in 1..1usize << count {
        let j = set.count_ones() as usize - 1;
        for i in (0..count).filter(|i| set & (1 << i) != 0) {
            let total = best[set & !(1 << i)].0 + cost(i, j);
            if total < best[set].0 {
                best[set] = (total, i);
            }
        }
    }
    let mut order = vec![0; count];
    let mut set = (1 << count) - 1;
    for j in (0..count).rev() {
        let chosen = best[set].1;
        if chosen == usize::MAX {
            return None;
        }
        order[j] = chosen;
        set &= !(1 << chosen);
    }
    Some(fitted.permuted(&order))
}

/// Squared distance of (scale, slope, intercept, log-variance); infinite between
/// experts of different kinds.
pub(super) fn distance_sq(a: &Expert, b: &Expert) -> f64 {
    if !a.is_alike(b) {
        return f64::INFINITY;
    }
    let parts = |e: &Expert| -> Vec<f64> {
        let mut parts = e.slope.clone();
        parts.extend([e.intercept, e.scale.unwrap_or(1.0), e.variance.ln()]);
        parts
    };
    parts(a)
        .iter()
        .zip(parts(b))
        .map(|(a, b)| (a - b) * (a - b))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExpertGate, ExpertKind, Gate, GateKind, Selection, VarianceStructure};
    use proptest::prelude::*;

    fn mixture(slopes: &[f64]) -> Parameters {
        let expert = |slope: &f64| Expert {
            kind: ExpertKind::Linear,
            slope: vec![*slope],
            intercept: 0.0,
            scale: None,
            variance: 1.0,
            gate: ExpertGate::Bias(*slope),
        };
        Parameters {
            gate: Gate {
                kind: GateKind::Constant,
                top_k: None,
                selection: Selection::Score,
            },
            variance_structure: VarianceStructure::PerExpert,
            experts: slopes.iter().map(expert).collect(),
        }
    }

    proptest! {
        #[test]
        fn any_shuffle_is_undone(order in Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle()) {
            let truth = mixture(&[-2.0, -1.0, 0.0, 1.0, 2.0]);
            let aligned = aligned(&truth.permuted(&order), &truth).unwrap();
            prop_assert_eq!(aligned, truth);
        }
    }

    #[test]
    fn experts_of_different_kinds_never_match() {
        let mut truth = mixture(&[0.0, 1.0]);
        truth.experts[1].kind = ExpertKind::Tanh;
        // The linear expert lies nearer to the true tanh expert's numbers.
        let mut fitted = truth.clone();
        fitted.experts[0].slope = vec![1.0];
        fitted.experts[1].slope = vec![0.0];
        assert_eq!(aligned(&fitted, &truth).unwrap(), fitted);
        fitted.experts[1].kind = ExpertKind::Linear;
        assert!(aligned(&fitted, &truth).is_none());
    }

    #[test]
    fn different_numbers_of_experts_have_no_alignment() {
        assert!(aligned(&mixture(&[1.0]), &mixture(&[1.0, 2.0])).is_none());
    }
}
