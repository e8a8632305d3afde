//! One counting sort: pairs by expert, in contiguous segments.

use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use serde::{Deserialize, Serialize};

/// The slot of a pair that exceeds its expert's capacity.
pub const DROPPED: u32 = u32::MAX;

/// Which pairs of a full expert go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drop {
    /// The last in token order (GShard, Switch).
    Latest,
    /// Those of the smallest weights; among equals the later.
    Lightest,
}

/// Most tokens of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Slots of an expert.
    pub limit: usize,
    /// Which pairs go.
    pub drop: Drop,
}

impl Capacity {
    /// limit = ceil(factor * pairs / experts).
    pub fn of_factor(factor: f64, pairs: usize, experts: usize, drop: Drop) -> Self {
        Capacity {
            limit: (factor * pairs as f64 / experts as f64).ceil() as usize,
            drop,
        }
    }
}

/// Pairs sorted by expert, within an expert in token order.
///
/// A dropped pair has no slot: it adds nothing to its token's output, its weight
/// has gradient 0, and the weights of the other pairs stay as they are (a token
/// that loses all its experts keeps only what the residual path carries).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    segments: Vec<u32>,
    tokens: Vec<u32>,
    pairs: Vec<u32>,
    slots: Vec<u32>,
}

impl Dispatch {
    /// Sorts; without a capacity nothing is dropped.
    pub fn new<T: Real>(assignment: &Assignment<T>, capacity: Option<Capacity>) -> Self {
        let experts = assignment.experts();
        let kept = capacity.map(|capacity| keep(assignment, capacity));
        let stays = |pair: usize| kept.as_ref().is_none_or(|kept| kept[pair]);
        let mut segments = vec![0; assignment.expert_count() + 1];
        for (pair, &expert) in experts.iter().enumerate() {
            segments[expert as usize + 1] += u32::from(stays(pair));
        }
        for e in 1..segments.len() {
            segments[e] += segments[e - 1];
        }
        let mut next = segments.clone();
        let count = segments[segments.len() - 1] as usize;
        let mut dispatch = Dispatch {
            segments,
            tokens: vec![0; count],
            pairs: vec![0; count],
            slots: vec![DROPPED; experts.len()],
        };
        for token in 0..assignment.tokens() {
            for pair in assignment.pairs_of(token).filter(|&pair| stays(pair)) {
                let slot = &mut next[experts[pair] as usize];
                dispatch.tokens[*slot as usize] = token as u32;
                dispatch.pairs[*slot as usize] = pair as u32;
                dispatch.slots[pair] = *slot;
                *slot += 1;
            }
        }
        dispatch
    }

    /// Slots of an expert.
    pub fn segment(&self, expert: usize) -> std::ops::Range<usize> {
        self.segments[expert] as usize..self.segments[expert + 1] as usize
    }

    /// Experts.
    pub fn expert_count(&self) -> usize {
        self.segments.len() - 1
    }

    /// The token of every slot.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The pair of every slot.
    pub fn pairs(&self) -> &[u32] {
        &self.pairs
    }

    /// The slot of every pair, or [`DROPPED`].
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Pairs without a slot.
    pub fn dropped(&self) -> usize {
        self.slots.len() - self.pairs.len()
    }
}

/// Which pairs fit.
fn keep<T: Real>(assignment: &Assignment<T>, capacity: Capacity) -> Vec<bool> {
    let experts = assignment.experts();
    let weights = assignment.weights();
    let mut order: Vec<usize> = (0..experts.len()).collect();
    if capacity.drop == Drop::Lightest {
        // Stable: equal weights keep token order.
        order.sort_by(|&a, &b| weights[b].wide().total_cmp(&weights[a].wide()));
    }
    let mut room = vec![capacity.limit; assignment.expert_count()];
    let mut kept = vec![false; experts.len()];
    for pair in order {
        let room = &mut room[experts[pair] as usize];
        kept[pair] = *room > 0;
        *room = room.saturating_sub(1);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXPERTS: usize = 5;

    /// Tokens with 0 to 4 experts each.
    fn assignments() -> impl Strategy<Value = Assignment<f64>> {
        let token = proptest::collection::vec((0..EXPERTS as u32, 0.0..1.0_f64), 0..5);
        proptest::collection::vec(token, 0..40).prop_map(|tokens| {
            let mut offsets = vec![0];
            for token in &tokens {
                offsets.push(offsets[offsets.len() - 1] + token.len() as u32);
            }
            let (experts, weights) = tokens.into_iter().flatten().unzip();
            Assignment::new(offsets, experts, weights, EXPERTS).unwrap()
        })
    }

    proptest! {
        #[test]
        fn every_pair_has_one_slot_in_its_experts_segment_in_token_order(a in assignments()) {
            let d = Dispatch::new(&a, None);
            prop_assert_eq!(d.dropped(), 0);
            let mut seen = vec![false; a.experts().len()];
            for expert in 0..EXPERTS {
                for slot in d.segment(expert) {
                    let pair = d.pairs()[slot] as usize;
                    prop_assert!(!std::mem::replace(&mut seen[pair], true));
                    prop_assert_eq!(a.experts()[pair] as usize, expert);
                    prop_assert_eq!(d.slots()[pair] as usize, slot);
                    prop_assert!(a.pairs_of(d.tokens()[slot] as usize).contains(&pair));
                }
                prop_assert!(d.pairs()[d.segment(expert)].is_sorted());
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }

        #[test]
        fn no_expert_exceeds_its_capacity_and_none_drops_without_need(
            a in assignments(), limit in 0..6_usize, lightest: bool,
        ) {
            let drop = if lightest { Drop::Lightest } else { Drop::Latest };
            let d = Dispatch::new(&a, Some(Capacity { limit, drop }));
            for expert in 0..EXPERTS {
                let pairs = || (0..a.experts().len()).filter(|&p| a.experts()[p] as usize == expert);
                let (lost, kept): (Vec<usize>, Vec<usize>) = pairs().partition(|&p| d.slots()[p] == DROPPED);
                prop_assert_eq!(kept.len(), d.segment(expert).len());
                prop_assert_eq!(kept.len(), pairs().count().min(limit));
                for (&lost, &kept) in lost.iter().flat_map(|l| kept.iter().map(move |k| (l, k))) {
                    let weight = |pair: usize| a.weights()[pair];
                    match drop {
                        Drop::Latest => prop_assert!(kept < lost),
                        Drop::Lightest => prop_assert!(weight(kept) >= weight(lost)),
                    }
                }
            }
            prop_assert_eq!(d.dropped() + d.pairs().len(), a.experts().len());
        }
    }

    #[test]
    fn the_capacity_of_a_factor_is_rounded_up() {
        assert_eq!(Capacity::of_factor(1.25, 16, 8, Drop::Latest).limit, 3);
        assert_eq!(Capacity::of_factor(1.0, 16, 8, Drop::Latest).limit, 2);
    }
}
