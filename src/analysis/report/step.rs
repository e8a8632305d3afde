//! Where a gate jumps along one covariate.

use super::slice::Slice;
use crate::analysis::{Design, Optimum};

/// Two neighbouring observed values between which the weight passes from one expert to
/// another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) below: f64,
    pub(super) above: f64,
}

/// An expert with at least this weight has it all.
const WHOLE: f64 = 0.95;

/// The steps of a gate; none if something else is held, as they then depend on it.
pub(super) fn steps(design: &Design, slice: &Slice, optimum: &Optimum) -> Vec<Step> {
    if !slice.held.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<(f64, usize)> = slice.observed.iter().copied().zip(0..).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.dedup_by_key(|row| row.0);
    let holder = |&(_, row): &(f64, usize)| {
        let (x, _) = design.data.row(row);
        let weights = optimum.parameters.conditional(&x).log_weights;
        weights.iter().position(|w| w.exp() >= WHOLE)
    };
    let holders: Vec<Option<usize>> = rows.iter().map(holder).collect();
    let pairs = rows.windows(2).zip(holders.windows(2));
    pairs
        .filter(|(_, pair)| pair[0].is_some() && pair[1].is_some() && pair[0] != pair[1])
        .map(|(rows, _)| Step {
            below: rows[0].0,
            above: rows[1].0,
        })
        .collect()
}
