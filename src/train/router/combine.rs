//! From scores to chosen experts and their weights.
//!
//! W is the set of the K best scores of a token, p = softmax(z) over all experts,
//! s the logistic function. Weights are multiplied by `scale` at the end.

use crate::error::{Error, Result};
use crate::train::moe::Assignment;
use crate::train::ops::real::{Real, dot, sum, vectorised};
use crate::train::ops::rows::{self, rows_per_task};
use crate::train::ops::softmax;
use crate::train::router::selection::Groups;
use crate::train::router::top_k;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The weights of the chosen experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// p_e on W, not renormalised: Switch (K = 1), OLMoE. The only softmax rule whose
    /// weight carries a gradient at K = 1.
    SoftmaxTopK,
    /// p_e / sum over W of p: Mixtral. The same function as [`Combine::TopKSoftmax`].
    SoftmaxTopKRenormalised,
    /// Softmax over the K chosen scores: CompeteSMoE v1, fastmoe.
    TopKSoftmax,
    /// Softmax over the K chosen *probabilities*, which flattens weights: v2's XMoE.
    SoftmaxTopKSoftmax,
    /// s(z_e) / sum over W of s(z): sigma-MoE, DeepSeek-V3.
    SigmoidTopKRenormalised,
    /// z_e / sum over W of z for scores that are not negative: CompeteSMoE v2.
    LinearTopKRenormalised,
    /// U_e = (1 - r) p_e + r (2 / E) s(z_e), r = [`UNIFIED_SIGMOID_SHARE`], not
    /// renormalised: USMoE, with the K largest U of each token. (The paper takes the
    /// largest of a whole sequence, which looks ahead.)
    Unified,
}

/// r of the unified score, between the experts' view (0) and the tokens' (1).
pub const UNIFIED_SIGMOID_SHARE: f64 = 0.5;

/// K, the rule and the multiplier of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    /// Experts per token.
    pub k: usize,
    /// The weights.
    pub combine: Combine,
    /// Multiplies every weight; 1 but for DeepSeek-V3 (2.5).
    pub scale: f64,
}

/// x_i / sum x; 1/K each where the sum is 0 (all responses vanish).
fn normalise<T: Real>(values: &mut [T]) {
    let total = sum(values);
    let count = T::of(values.len() as f64);
    if total > T::ZERO {
        values.iter_mut().for_each(|v| *v = *v / total);
    } else if total == T::ZERO {
        values.fill(T::ONE / count);
    } else {
        // Negative or not-a-number: an upstream fault, which must show.
        values.fill(T::of(f64::NAN));
    }
}

/// Replaces dL/d(x_i / sum x) by dL/dx_i; 0 where the sum is 0.
fn normalise_backward<T: Real>(values: &[T], gradient: &mut [T]) {
    let total = sum(values);
    if total == T::ZERO {
        gradient.fill(T::ZERO);
        return;
    }
    let mean = dot(values, gradient) / total;
    gradient.iter_mut().for_each(|g| *g = (*g - mean) / total);
}

impl Combine {
    /// Writes what experts are ranked by, a bias included.
    ///
    /// Every rule's order is that of the scores. What they are scaled to matters where
    /// biases are added or groups summed: s(z) for the sigmoid rule, U for the unified
    /// one, z for the others; alone, s and U would only add ties where s saturates.
    fn rank<T: Real>(self, scores: &[T], selection: Selection<T>, rank: &mut [T]) {
        rank.copy_from_slice(scores);
        if selection.is_plain() {
            return;
        }
        match self {
            Combine::Unified => unify(scores, rank),
            Combine::SigmoidTopKRenormalised => rank.iter_mut().for_each(|z| *z = z.sigmoid()),
            _ => {}
        }
        for (rank, &b) in rank.iter_mut().zip(selection.bias.unwrap_or_default()) {
            *rank += b;
        }
        selection.groups.restrict(rank);
    }
}

/// What besides scores decides who is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a, T> {
    /// Groups of experts.
    pub groups: Groups,
    /// Added to what experts are ranked by, never to weights. Shape: experts.
    pub bias: Option<&'a [T]>,
}

impl<T> Selection<'_, T> {
    /// Scores alone decide.
    pub const PLAIN: Self = Selection {
        groups: Groups::NONE,
        bias: None,
    };

    fn is_plain(&self) -> bool {
        self.bias.is_none() && self.groups.kept == self.groups.count
    }
}

/// Replaces a copy of the scores by U.
fn unify<T: Real>(scores: &[T], row: &mut [T]) {
    softmax::forward(row);
    let (own, other): (T, T) = unified_shares(scores.len());
    for (u, &z) in row.iter_mut().zip(scores) {
        *u = own * *u + other * z.sigmoid();
    }
}

/// 1 - r and 2 r / E.
fn unified_shares<T: Real>(experts: usize) -> (T, T) {
    let r = UNIFIED_SIGMOID_SHARE;
    (T::of(1.0 - r), T::of(2.0 * r / experts as f64))
}

impl TopK {
    /// [`TopK::choose`] by scores alone.
    ///
    /// # Errors
    /// As there.
    pub fn forward<T: Real>(&self, scores: &[T], experts: usize) -> Result<Assignment<T>> {
        self.choose(Selection::PLAIN, scores, experts)
    }

    /// Chooses experts and weighs them; a bias and groups decide about the choice,
    /// the weights are those of the scores.
    ///
    /// # Shapes
    /// scores: tokens, experts.
    ///
    /// # Errors
    /// [`Error::Value`] if k is 0 or above the number of experts, or for groups that
    /// do not fit; [`Error::Dimension`] for a bias that does not.
    pub fn choose<T: Real>(
        &self,
        selection: Selection<T>,
        scores: &[T],
        experts: usize,
    ) -> Result<Assignment<T>> {
        let k = self.k;
        if k == 0 || k > experts {
            let message = format!("must be 1 to {experts}, the number of experts");
            return Err(Error::value("router.top_k", message));
        }
        selection.groups.check(k, experts)?;
        if let Some(bias) = selection.bias
            && bias.len() != experts
        {
            return Err(Error::Dimension {
                what: "bias of a choice",
                expected: experts,
                got: bias.len(),
            });
        }
        let tokens = scores.len() / experts;
        let mut chosen = vec![0; tokens * k];
        let mut weights = vec![T::ZERO; tokens * k];
        let rows = rows_per_task(experts);
        chosen
            .par_chunks_mut(rows * k)
            .zip(weights.par_chunks_mut(rows * k))
            .zip(scores.par_chunks(rows * experts))
            .for_each(|((chosen, weights), scores)| {
                let mut row = vec![T::ZERO; experts];
                let places = chosen.chunks_exact_mut(k).zip(weights.chunks_exact_mut(k));
                for (scores, (chosen, weights)) in scores.chunks_exact(experts).zip(places) {
                    vectorised!(|| {
                        self.combine.rank(scores, selection, &mut row);
                        top_k::select(&row, chosen);
                        self.weigh(scores, chosen, &mut row, weights);
                    });
                }
            });
        Assignment::uniform(k, chosen, weights, experts)
    }

    /// Writes the weights of the chosen; `row` is memory for a token.
    #[inline(always)]
    fn weigh<T: Real>(&self, scores: &[T], chosen: &[u32], row: &mut [T], weights: &mut [T]) {
        row.copy_from_slice(scores);
        match self.combine {
            Combine::SoftmaxTopK | Combine::SoftmaxTopKSoftmax => {
                softmax::forward(row);
            }
            Combine::Unified => unify(scores, row),
            _ => {}
        }
        for (weight, &expert) in weights.iter_mut().zip(chosen) {
            *weight = row[expert as usize];
        }
        match self.combine {
            Combine::SoftmaxTopK | Combine::Unified => {}
            Combine::SoftmaxTopKRenormalised
            | Combine::TopKSoftmax
            | Combine::SoftmaxTopKSoftmax => {
                softmax::forward(weights);
            }
            Combine::SigmoidTopKRenormalised => {
                weights.iter_mut().for_each(|w| *w = w.sigmoid());
                normalise(weights);
            }
            Combine::LinearTopKRenormalised => normalise(weights),
        }
        let scale = T::of(self.scale);
        weights.iter_mut().for_each(|w| *w *= scale);
    }

    /// Adds dL/dscores; the choice itself is taken as fixed.
    ///
    /// # Shapes
    /// scores, d_scores: tokens, experts. d_weights: pairs of the assignment.
    pub fn backward<T: Real>(
        &self,
        scores: &[T],
        assignment: &Assignment<T>,
        d_weights: &[T],
        d_scores: &mut [T],
    ) {
        let experts = assignment.expert_count();
        rows::map_blocks(d_scores, experts, |first, d_scores| {
            let mut memory = Memory::new(experts, self.k);
            for (row, d_scores) in d_scores.chunks_exact_mut(experts).enumerate() {
                let token = first + row;
                let pairs = assignment.pairs_of(token);
                let chosen = &assignment.experts()[pairs.clone()];
                let scores = &scores[token * experts..][..experts];
                let d_weights = &d_weights[pairs];
                vectorised!(|| {
                    self.token_backward(scores, chosen, d_weights, &mut memory, d_scores);
                });
            }
        });
    }

    #[inline(always)]
    fn token_backward<T: Real>(
        &self,
        scores: &[T],
        chosen: &[u32],
        d_weights: &[T],
        memory: &mut Memory<T>,
        d_scores: &mut [T],
    ) {
        let Memory {
            row,
            d_row,
            values,
            gradient,
        } = memory;
        row.copy_from_slice(scores);
        let whole_row = matches!(
            self.combine,
            Combine::SoftmaxTopK | Combine::SoftmaxTopKSoftmax | Combine::Unified
        );
        if whole_row {
            softmax::forward(row);
        }
        let scale = T::of(self.scale);
        values.clear();
        values.extend(chosen.iter().map(|&e| row[e as usize]));
        gradient.clear();
        gradient.extend(d_weights.iter().map(|&d| d * scale));
        match self.combine {
            Combine::SoftmaxTopK => {}
            Combine::SoftmaxTopKRenormalised
            | Combine::TopKSoftmax
            | Combine::SoftmaxTopKSoftmax => {
                softmax::forward(values);
                softmax::backward(values, gradient);
            }
            Combine::SigmoidTopKRenormalised => {
                values.iter_mut().for_each(|z| *z = z.sigmoid());
                normalise_backward(values, gradient);
                for (g, &s) in gradient.iter_mut().zip(&*values) {
                    *g *= s * (T::ONE - s);
                }
            }
            Combine::LinearTopKRenormalised => normalise_backward(values, gradient),
            Combine::Unified => {
                let (own, other): (T, T) = unified_shares(scores.len());
                for (g, &expert) in gradient.iter_mut().zip(chosen) {
                    let s = scores[expert as usize].sigmoid();
                    d_scores[expert as usize] += *g * other * s * (T::ONE - s);
                    *g *= own;
                }
            }
        }
        d_row.fill(T::ZERO);
        for (&gradient, &expert) in gradient.iter().zip(chosen) {
            d_row[expert as usize] += gradient;
        }
        if whole_row {
            softmax::backward(row, d_row);
        }
        for (d, &g) in d_scores.iter_mut().zip(&*d_row) {
            *d += g;
        }
    }
}

/// Memory of one task of the backward pass.
struct Memory<T> {
    row: Vec<T>,
    d_row: Vec<T>,
    values: Vec<T>,
    gradient: Vec<T>,
}

impl<T: Real> Memory<T> {
    fn new(experts: usize, k: usize) -> Self {
        Memory {
            row: vec![T::ZERO; experts],
            d_row: vec![T::ZERO; experts],
            values: Vec::with_capacity(k),
            gradient: Vec::with_capacity(k),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, distance, inner, normals};

    const ALL: [Combine; 7] = [
        Combine::SoftmaxTopK,
        Combine::SoftmaxTopKRenormalised,
        Combine::TopKSoftmax,
        Combine::SoftmaxTopKSoftmax,
        Combine::SigmoidTopKRenormalised,
        Combine::LinearTopKRenormalised,
        Combine::Unified,
    ];
    const EXPERTS: usize = 6;

    fn rule(combine: Combine, k: usize) -> TopK {
        TopK {
            k,
            combine,
            scale: 1.0,
        }
    }

    /// Four tokens; positive, so that every rule applies.
    fn scores() -> Vec<f64> {
        normals(1, 4 * EXPERTS)
            .iter()
            .map(|z| z.abs() + 0.1)
            .collect()
    }

    fn weights(combine: Combine, k: usize, scores: &[f64]) -> Vec<f64> {
        let assignment = rule(combine, k).forward(scores, EXPERTS).unwrap();
        assignment.weights().to_vec()
    }

    #[test]
    fn gradients_of_all_rules_match_finite_differences_through_the_top_k() {
        for combine in ALL {
            for k in [1, 2, EXPERTS] {
                let rule = TopK {
                    scale: 2.5,
                    ..rule(combine, k)
                };
                let (z, c) = (scores(), normals(2, 4 * k));
                let assignment = rule.forward(&z, EXPERTS).unwrap();
                let mut gradient = vec![0.0; z.len()];
                rule.backward(&z, &assignment, &c, &mut gradient);
                assert_gradient(&format!("{combine:?} {k}"), &z, &gradient, |z| {
                    inner(rule.forward(z, EXPERTS).unwrap().weights(), &c)
                });
            }
        }
    }

    #[test]
    fn every_rule_follows_its_formula_written_out() {
        let z = [0.3_f64, 1.2, 0.7];
        let e: Vec<f64> = z.iter().map(|z| z.exp()).collect();
        let total: f64 = e.iter().sum();
        let p: Vec<f64> = e.iter().map(|e| e / total).collect();
        let s: Vec<f64> = z.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
        let share = |a: f64, b: f64| vec![a / (a + b), b / (a + b)];
        for (combine, expected) in [
            (Combine::SoftmaxTopK, vec![p[1], p[2]]),
            (Combine::SoftmaxTopKRenormalised, share(p[1], p[2])),
            (Combine::TopKSoftmax, share(e[1], e[2])),
            (Combine::SoftmaxTopKSoftmax, share(p[1].exp(), p[2].exp())),
            (Combine::SigmoidTopKRenormalised, share(s[1], s[2])),
            (Combine::LinearTopKRenormalised, share(z[1], z[2])),
            (
                Combine::Unified,
                vec![0.5 * p[1] + s[1] / 3.0, 0.5 * p[2] + s[2] / 3.0],
            ),
        ] {
            let assignment = rule(combine, 2).forward(&z, 3).unwrap();
            assert_eq!(assignment.experts(), [1, 2]);
            assert!(
                distance(assignment.weights(), &expected) < 1e-14,
                "{combine:?}"
            );
        }
    }

    #[test]
    fn with_one_expert_a_renormalised_weight_is_one_and_teaches_the_router_nothing() {
        let z = scores();
        let renormalised = |c: &Combine| !matches!(c, Combine::SoftmaxTopK | Combine::Unified);
        for combine in ALL.into_iter().filter(renormalised) {
            assert!(weights(combine, 1, &z).iter().all(|w| *w == 1.0));
            let rule = rule(combine, 1);
            let mut gradient = vec![0.0; z.len()];
            rule.backward(
                &z,
                &rule.forward(&z, EXPERTS).unwrap(),
                &[1.0; 4],
                &mut gradient,
            );
            assert!(gradient.iter().all(|g| g.abs() < 1e-15), "{combine:?}");
        }
        let rule = rule(Combine::SoftmaxTopK, 1);
        let mut gradient = vec![0.0; z.len()];
        rule.backward(
            &z,
            &rule.forward(&z, EXPERTS).unwrap(),
            &[1.0; 4],
            &mut gradient,
        );
        assert!(gradient.iter().all(|g| g.abs() > 1e-3));
    }

    #[test]
    fn the_second_softmax_flattens_the_weights() {
        let z = [8.0, 0.0, -8.0];
        let heaviest = |combine| rule(combine, 2).forward(&z, 3).unwrap().weights()[0];
        assert!(heaviest(Combine::TopKSoftmax) > 0.999);
        assert!(heaviest(Combine::SoftmaxTopKSoftmax) < 0.74);
    }

    #[test]
    fn with_all_experts_the_softmax_rules_are_the_dense_mixture() {
        let z = scores();
        let dense = weights(Combine::SoftmaxTopK, EXPERTS, &z);
        for combine in [Combine::SoftmaxTopKRenormalised, Combine::TopKSoftmax] {
            assert!(distance(&weights(combine, EXPERTS, &z), &dense) < 1e-15);
        }
        for token in dense.chunks(EXPERTS) {
            assert!((token.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn responses_that_all_vanish_share_the_weight_equally() {
        let rule = rule(Combine::LinearTopKRenormalised, 2);
        let assignment = rule.forward(&[0.0; 4], 4).unwrap();
        assert_eq!(assignment.weights(), [0.5, 0.5]);
        let mut gradient = [0.0; 4];
        rule.backward(&[0.0; 4], &assignment, &[1.0, -1.0], &mut gradient);
        assert_eq!(gradient, [0.0; 4]);
    }

    #[test]
    fn more_experts_per_token_than_there_are_is_refused() {
        for k in [0, 4] {
            let refused = rule(Combine::TopKSoftmax, k).forward(&[0.0_f32; 3], 3);
            let message = refused.unwrap_err().to_string();
            assert_eq!(
                message,
                "router.top_k: must be 1 to 3, the number of experts"
            );
        }
    }

    #[test]
    fn a_bias_enters_the_choice_and_no_weight() {
        // s(z) = 0.75, 0.5, 0.25; with the bias 0.75, 0.5, 0.65.
        let z = [3.0_f64.ln(), 0.0, -(3.0_f64.ln())];
        let selection = Selection {
            groups: Groups::NONE,
            bias: Some(&[0.0, 0.0, 0.4]),
        };
        let rule = rule(Combine::SigmoidTopKRenormalised, 2);
        let chosen = rule.choose(selection, &z, 3).unwrap();
        assert_eq!(chosen.experts(), [0, 2]);
        assert!(distance(chosen.weights(), &[0.75, 0.25]) < 1e-15);
        let short = Selection {
            bias: Some(&[0.0; 2][..]),
            ..selection
        };
        assert!(rule.choose(short, &z, 3).is_err());
    }

    #[test]
    fn experts_outside_the_kept_groups_are_not_chosen_however_good() {
        // Sums of the two best of three groups of two: 1.5, 1.6, 1.4 (of s(z)).
        let s: [f64; 6] = [0.95, 0.55, 0.8, 0.8, 0.7, 0.7];
        let z = s.map(|s| (s / (1.0 - s)).ln());
        let rule = rule(Combine::SigmoidTopKRenormalised, 2);
        let choose = |kept| {
            let groups = Groups { count: 3, kept };
            let selection = Selection { groups, bias: None };
            let chosen = rule.choose(selection, &z, 6).unwrap();
            chosen.experts().to_vec()
        };
        assert_eq!(choose(1), [2, 3]);
        assert_eq!(choose(2), [0, 2]);
        assert_eq!(choose(3), [0, 2]);
    }
}
