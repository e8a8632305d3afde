//! Winners of a token should say different things.
//!
//! c_ij the cosine of the outputs of a token's winners i and j:
//! loss = mean over tokens of (sum over i != j of c_ij) / N, N = K^2 or K (K - 1);
//! dc_ij/do_i = o_j / (|o_i| |o_j|) - c_ij o_i / |o_i|^2.
//! Cosines with a zero vector are 0; tokens with fewer than two outputs add 0.

use crate::train::moe::{Assignment, DROPPED, Dispatch};
use crate::train::ops::real::{Real, dot};
use crate::train::router::{counted_tokens, counts};
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
    let mut value = 0.0;
    for token in (0..assignment.tokens()).filter(|&t| counts(counted, t)) {
        let slots: Vec<usize> = dispatch.slots()[assignment.pairs_of(token)]
            .iter()
            .filter(|&&slot| slot != DROPPED)
            .map(|&slot| slot as usize * width)
            .collect();
        let k = slots.len() as f64;
        let divisor = match pairs {
            Pairs::WithDiagonal => n * k * k,
            Pairs::Distinct => n * k * (k - 1.0),
        };
        for (i, &a) in slots.iter().enumerate() {
            for &b in &slots[i + 1..] {
                let (out_a, out_b) = (&outputs[a..a + width], &outputs[b..b + width]);
                let (square_a, square_b) = (dot(out_a, out_a), dot(out_b, out_b));
                let product = square_a.sqrt() * square_b.sqrt();
                // Also false for not-a-number, which the task's loss will show.
                if product > T::ZERO {
                    let cosine = dot(out_a, out_b) / product;
                    // Both (i, j) and (j, i).
                    value += 2.0 * cosine.wide() / divisor;
                    let factor = T::of(2.0 * coefficient / divisor);
                    let cross = factor / product;
                    let (own_a, own_b) = (factor * cosine / square_a, factor * cosine / square_b);
                    for c in 0..width {
                        d_outputs[a + c] += cross * out_b[c] - own_a * out_a[c];
                        d_outputs[b + c] += cross * out_a[c] - own_b * out_b[c];
                    }
                }
            }
        }
    }
    value
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
