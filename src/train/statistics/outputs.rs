//! How large and how alike experts are.

use crate::error::{Error, Result};
use crate::train::moe::{Assignment, DROPPED, Dispatch};
use crate::train::ops::real::Real;
use crate::train::statistics::mean;

/// Outputs of experts, as the sparse layer keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a, T> {
    /// E_e(x_t) of every slot. Shape: slots, width.
    pub values: &'a [T],
    /// Which slot is whose.
    pub dispatch: &'a Dispatch,
    /// Width of an output.
    pub width: usize,
}

impl<'a, T: Real> Outputs<'a, T> {
    /// Fails unless there is one output per slot.
    ///
    /// # Errors
    /// [`Error::Dimension`].
    pub fn check(&self) -> Result<()> {
        let expected = self.dispatch.tokens().len() * self.width;
        match self.values.len() == expected {
            true => Ok(()),
            false => Err(Error::Dimension {
                what: "outputs of experts",
                expected,
                got: self.values.len(),
            }),
        }
    }

    fn of_slot(&self, slot: usize) -> &'a [T] {
        &self.values[slot * self.width..][..self.width]
    }

    /// Mean Euclidean norm of every expert's outputs; `None` for experts without any.
    pub fn norms(&self) -> Vec<Option<f64>> {
        let of_expert = |expert| {
            let slots = self.dispatch.segment(expert);
            mean(slots.map(|slot| length(self.of_slot(slot))))
        };
        (0..self.dispatch.expert_count()).map(of_expert).collect()
    }

    /// mean over tokens with two experts or more of the mean cosine of the pairs of
    /// their outputs: 1 for outputs along one line, 0 for orthogonal ones. Dropped
    /// pairs have no output.
    pub fn cosine(&self, assignment: &Assignment<T>) -> Option<f64> {
        let of_token = |token| {
            let slots: Vec<&[T]> = assignment
                .pairs_of(token)
                .map(|pair| self.dispatch.slots()[pair])
                .filter(|&slot| slot != DROPPED)
                .map(|slot| self.of_slot(slot as usize))
                .collect();
            let pairs = (0..slots.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
            mean(pairs.map(|(i, j)| cosine(slots[i], slots[j])))
        };
        mean((0..assignment.tokens()).filter_map(of_token))
    }
}

/// Matrices of all experts, each expert after expert.
#[derive(Clone, Copy, Debug)]
pub struct ExpertWeights<'a, T> {
    /// Matrices; each has a multiple of `experts` elements.
    pub parts: &'a [&'a [T]],
    /// Experts.
    pub experts: usize,
}

impl<T: Real> ExpertWeights<'_, T> {
    /// Element i E + j: cosine of all weights of experts i and j, taken as vectors: 1
    /// for copies, near 0 for independent ones.
    ///
    /// # Errors
    /// [`Error::Dimension`] if a matrix cannot be divided among experts.
    pub fn cosines(&self) -> Result<Vec<f64>> {
        let experts = self.experts;
        let mut products = vec![0.0; experts * experts];
        for part in self.parts {
            if !part.len().is_multiple_of(experts) {
                return Err(Error::Dimension {
                    what: "weights of experts",
                    expected: part.len().next_multiple_of(experts),
                    got: part.len(),
                });
            }
            let one = part.len() / experts;
            for i in 0..experts {
                for j in 0..=i {
                    let (a, b) = (&part[i * one..][..one], &part[j * one..][..one]);
                    products[i * experts + j] += dot(a, b);
                }
            }
        }
        let lengths: Vec<f64> = (0..experts).map(|i| products[i * (experts + 1)]).collect();
        let mut cosines = vec![0.0; experts * experts];
        for i in 0..experts {
            for j in 0..=i {
                let value = ratio(products[i * experts + j], lengths[i] * lengths[j]);
                cosines[i * experts + j] = value;
                cosines[j * experts + i] = value;
            }
        }
        Ok(cosines)
    }
}

fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.wide() * b.wide()).sum()
}

pub(super) fn length<T: Real>(a: &[T]) -> f64 {
    dot(a, a).sqrt()
}

/// product / sqrt(squares); 0 for vectors of length 0.
fn ratio(product: f64, squares: f64) -> f64 {
    match squares > 0.0 {
        true => product / squares.sqrt(),
        false => 0.0,
    }
}

/// a . b / (|a| |b|); 0 for vectors of length 0.
fn cosine<T: Real>(a: &[T], b: &[T]) -> f64 {
    ratio(dot(a, b), dot(a, a) * dot(b, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::moe::{Capacity, Drop};
    use crate::train::statistics::sample::chosen;

    #[test]
    fn norms_belong_to_experts_and_cosines_to_tokens() {
        // Slots: expert 0 of tokens 0 and 1, expert 1 of tokens 0 and 1.
        let assignment = chosen(&[&[1, 0], &[0, 1]], 3);
        let dispatch = Dispatch::new(&assignment, None);
        let outputs = Outputs {
            values: &[3.0, 4.0, 0.0, 1.0, 4.0, -3.0, 0.0, 2.0],
            dispatch: &dispatch,
            width: 2,
        };
        outputs.check().unwrap();
        assert_eq!(outputs.norms(), [Some(3.0), Some(3.5), None]);
        // Token 0: orthogonal. Token 1: parallel.
        assert_eq!(outputs.cosine(&assignment), Some(0.5));
        let short = Outputs {
            width: 3,
            ..outputs
        };
        assert!(short.check().unwrap_err().to_string().contains("outputs"));
    }

    #[test]
    fn dropped_pairs_have_no_output_to_compare() {
        let assignment = chosen(&[&[0, 1], &[0, 1]], 2);
        let capacity = Capacity {
            limit: 1,
            drop: Drop::Latest,
        };
        let dispatch = Dispatch::new(&assignment, Some(capacity));
        let outputs = Outputs {
            values: &[1.0, 0.0, -1.0, 0.0],
            dispatch: &dispatch,
            width: 2,
        };
        assert_eq!(outputs.cosine(&assignment), Some(-1.0));
        let single = chosen(&[&[0], &[1]], 2);
        let dispatch = Dispatch::new(&single, None);
        let outputs = Outputs {
            dispatch: &dispatch,
            ..outputs
        };
        assert_eq!(outputs.cosine(&single), None);
    }

    #[test]
    fn copies_of_experts_have_cosine_one_over_all_matrices_together() {
        let (up, down) = ([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 0.0]);
        let weights = ExpertWeights {
            parts: &[&up, &down],
            experts: 3,
        };
        // Experts (1, 0 | 2), (1, 0 | 2), (0, 1 | 0).
        let cosines = weights.cosines().unwrap();
        let expected = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-15;
        assert!(cosines.iter().zip(&expected).all(close), "{cosines:?}");
        let bad = ExpertWeights {
            parts: &[&up],
            experts: 4,
        };
        assert!(bad.cosines().is_err());
    }
}
