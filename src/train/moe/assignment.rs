//! Which experts a token is sent to, and with what weights.

use crate::error::{Error, Result};
use crate::train::ops::real::Real;

/// Pairs (token, expert) with weights, in token order and, within a token, in the
/// router's order (best first). Tokens may have different numbers of experts, also
/// none.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment<T> {
    offsets: Vec<u32>,
    experts: Vec<u32>,
    weights: Vec<T>,
    expert_count: usize,
}

impl<T: Real> Assignment<T> {
    /// Pairs of token t are `offsets[t]..offsets[t + 1]`.
    ///
    /// # Shapes
    /// offsets: tokens + 1. experts, weights: pairs.
    ///
    /// # Errors
    /// [`Error::Value`] if offsets do not ascend from 0 to the number of pairs, or
    /// an expert does not exist; [`Error::Dimension`] if lengths differ.
    pub fn new(
        offsets: Vec<u32>,
        experts: Vec<u32>,
        weights: Vec<T>,
        expert_count: usize,
    ) -> Result<Self> {
        if weights.len() != experts.len() {
            return Err(Error::Dimension {
                what: "weights of an assignment",
                expected: experts.len(),
                got: weights.len(),
            });
        }
        let ends = (offsets.first(), offsets.last());
        if ends != (Some(&0), Some(&(experts.len() as u32))) || !offsets.is_sorted() {
            let message = "must ascend from 0 to the number of pairs";
            return Err(Error::value("assignment.offsets", message));
        }
        if experts.iter().any(|&e| e as usize >= expert_count) {
            let message = format!("must be below {expert_count}");
            return Err(Error::value("assignment.experts", message));
        }
        Ok(Assignment {
            offsets,
            experts,
            weights,
            expert_count,
        })
    }

    /// Every token has `k` experts. `experts` and `weights`: tokens, k.
    ///
    /// # Errors
    /// As [`Assignment::new`].
    pub fn uniform(
        k: usize,
        experts: Vec<u32>,
        weights: Vec<T>,
        expert_count: usize,
    ) -> Result<Self> {
        let tokens = experts.len() / k.max(1);
        let offsets = (0..=tokens).map(|t| (t * k) as u32).collect();
        Assignment::new(offsets, experts, weights, expert_count)
    }

    /// Every token goes to all experts with weight 1, in the order of experts: a dense
    /// feed-forward layer is one expert for everyone, shared experts are several.
    ///
    /// # Errors
    /// [`Error::Value`] if there are more pairs than ids.
    pub fn everyone(tokens: usize, experts: usize) -> Result<Self> {
        if u32::try_from(tokens * experts).is_err() {
            let message = format!("{tokens} tokens for {experts} experts are too many pairs");
            return Err(Error::value("assignment.experts", message));
        }
        let all = (0..tokens).flat_map(|_| 0..experts as u32).collect();
        let ones = vec![T::ONE; tokens * experts];
        Assignment::uniform(experts, all, ones, experts)
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Experts that exist.
    pub fn expert_count(&self) -> usize {
        self.expert_count
    }

    /// Pairs of a token.
    pub fn pairs_of(&self, token: usize) -> std::ops::Range<usize> {
        self.offsets[token] as usize..self.offsets[token + 1] as usize
    }

    /// The expert of every pair.
    pub fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// The weight of every pair.
    pub fn weights(&self) -> &[T] {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_that_names_no_expert_is_refused() {
        let bad = Assignment::uniform(2, vec![0, 3], vec![0.5_f32, 0.5], 3);
        assert_eq!(
            bad.unwrap_err().to_string(),
            "assignment.experts: must be below 3"
        );
        let bad = Assignment::new(vec![0, 2, 1], vec![0], vec![1.0_f32], 3);
        assert!(bad.unwrap_err().to_string().contains("offsets"));
        let bad = Assignment::uniform(1, vec![0, 1], vec![1.0_f32], 3);
        assert!(bad.unwrap_err().to_string().contains("weights"));
    }
}
