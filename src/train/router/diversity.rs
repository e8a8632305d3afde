//! Winners of a token should say different things.
//!
//! c_ij the cosine of the outputs of a token's winners i and j:
//! loss = mean over tokens of (sum over i != j of c_ij) / N, N = K^2 or K (K - 1);
//! dc_ij/do_i = o_j / (|o_i| |o_j|) - c_ij o_i / |o_i|^2.
//! Cosines with a zero vector are 0; tokens with fewer than two outputs add 0.

use crate::train::moe::{Assignment, DROPPED, Dispatch};
use crate::train::ops::real::{Real, dot, vectorised};
use crate::train::ops::rows;
use crate::train::router::{counted_tokens, counts};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What the sum of cosines is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairs {
    /// K^2, the zero diagonal included: CompeteSMoE v2.
    WithDiagonal,
    /// K (K - 1): a true mean, 1 for equal outputs.
    Distinct,
}

/// The value; adds coefficient times the gradient in the experts' outputs.
///
/// # Shapes
/// outputs, d_outputs: slots, width. counted: tokens.
#[allow(clippy::too_many_arguments)]
pub fn add<T: Real>(
    pairs: Pairs,
    assignment: &Assignment<T>,
    dispatch: &Dispatch,
    width: usize,
    outputs: &[T],
    counted: Option<&[bool]>,
    coefficient: f64,
    d_outputs: &mut [T],
) -> f64 {
    let n = counted_tokens(counted, assignment.tokens()).max(1) as f64;
    let output = |slot: usize| &outputs[slot * width..][..width];
    let slots = dispatch.tokens().len();
    let lengths: Vec<T> = (0..slots)
        .into_par_iter()
        .with_min_len(64)
        .map(|slot| vectorised!(|| dot(output(slot), output(slot))).sqrt())
        .collect();
    // A slot is one row of the gradient, so slots are independent; every cosine is
    // computed from both of its sides.
    let values = rows::map_blocks(d_outputs, width, |first, d_outputs| {
        let mut value = 0.0;
        for (i, d_out) in d_outputs.chunks_exact_mut(width).enumerate() {
            let slot = first + i;
            let token = dispatch.tokens()[slot] as usize;
            if !counts(counted, token) {
                continue;
            }
            let winners = || {
                let slots = dispatch.slots()[assignment.pairs_of(token)].iter();
                slots.filter(|&&s| s != DROPPED).map(|&s| s as usize)
            };
            let k = winners().count() as f64;
            let divisor = match pairs {
                Pairs::WithDiagonal => n * k * k,
                Pairs::Distinct => n * k * (k - 1.0),
            };
            let own = output(slot);
            let mut along = T::ZERO;
            for rival in winners().filter(|&rival| rival != slot) {
                let other = output(rival);
                let product = lengths[slot] * lengths[rival];
                // Also false for not-a-number, which the task's loss will show.
                if product > T::ZERO {
                    vectorised!(|| {
                        let cosine = dot(own, other) / product;
                        value += cosine.wide() / divisor;
                        // Twice: (i, j) and (j, i).
                        let factor = T::of(2.0 * coefficient / divisor);
                        let across = factor / product;
                        along += factor * cosine / (lengths[slot] * lengths[slot]);
                        for (d, &b) in d_out.iter_mut().zip(other) {
                            *d += across * b;
                        }
                    });
                }
            }
            vectorised!(|| {
                for (d, &a) in d_out.iter_mut().zip(own) {
                    *d += -along * a;
                }
            });
        }
        value
    });
    values.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::moe::{Capacity, Drop};
    use crate::train::ops::check::{assert_gradient, normals};

    fn assignment() -> Assignment<f64> {
        let experts = vec![0, 1, 2, 2, 1, 0, 3, 0, 2];
        Assignment::uniform(3, experts, vec![1.0; 9], 4).unwrap()
    }

    #[test]
    fn the_gradient_of_the_diversity_loss_matches_finite_differences() {
        let assignment = assignment();
        let limit = Capacity {
            limit: 2,
            drop: Drop::Latest,
        };
        for capacity in [None, Some(limit)] {
            let dispatch = Dispatch::new(&assignment, capacity);
            let outputs = normals(1, dispatch.tokens().len() * 4);
            for pairs in [Pairs::WithDiagonal, Pairs::Distinct] {
                let run = |outputs: &[f64], coefficient: f64, gradient: &mut [f64]| {
                    let counted = Some(&[true, false, true][..]);
                    add(
                        pairs,
                        &assignment,
                        &dispatch,
                        4,
                        outputs,
                        counted,
                        coefficient,
                        gradient,
                    )
                };
                let mut gradient = vec![0.0; outputs.len()];
                run(&outputs, 0.3, &mut gradient);
                assert_gradient("outputs", &outputs, &gradient, |o| {
                    0.3 * run(o, 0.0, &mut vec![0.0; o.len()])
                });
            }
        }
    }

    #[test]
    fn equal_outputs_cost_one_or_with_the_diagonal_one_minus_one_over_k() {
        let assignment = assignment();
        let dispatch = Dispatch::new(&assignment, None);
        let outputs = [0.5_f64, -2.0].repeat(9);
        let value = |pairs| {
            add(
                pairs,
                &assignment,
                &dispatch,
                2,
                &outputs,
                None,
                0.0,
                &mut [0.0; 18],
            )
        };
        assert!((value(Pairs::Distinct) - 1.0).abs() < 1e-14);
        assert!((value(Pairs::WithDiagonal) - 2.0 / 3.0).abs() < 1e-14);
    }

    #[test]
    fn an_output_of_zero_costs_nothing_and_has_a_finite_gradient() {
        let assignment = assignment();
        let dispatch = Dispatch::new(&assignment, None);
        let mut gradient = [0.0; 18];
        let value = add(
            Pairs::Distinct,
            &assignment,
            &dispatch,
            2,
            &[0.0_f64; 18],
            None,
            1.0,
            &mut gradient,
        );
        assert_eq!((value, gradient), (0.0, [0.0; 18]));
    }
}
