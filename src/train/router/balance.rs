//! Balance losses and the z-loss.
//!
//! n tokens counted, p_te a token's distribution over E experts, P_e = mean over
//! tokens of p_te, f_e the fraction of assignments that went to e, f1_e the fraction
//! of tokens whose first choice is e. f has no gradient.
//!
//! | kind | value | at balance |
//! |---|---|---|
//! | [`Balance::Switch`] | E sum f_e P_e | 1 |
//! | [`Balance::SwitchFirst`] | E sum f1_e P_e | 1 |
//! | [`Balance::PerAssignment`] | E sum f_e (sum over t of p_te) / (n K) | 1 / K |
//! | [`Balance::NegativeEntropy`] | sum P_e log P_e | -log E |
//! | [`Balance::Importance`] | variance / mean^2 over e of sum over t of p_te | 0 |
//!
//! With [`Scope::Sequence`] a loss is computed within each sequence and averaged over
//! the sequences that have a counted token. A coefficient moved from one kind to
//! another is scaled by the last column.

use crate::train::moe::Assignment;
use crate::train::ops::real::{Real, vectorised};
use crate::train::ops::rows;
use crate::train::ops::softmax;
use crate::train::router::distribution::Distribution;
use crate::train::router::{counted_tokens, counts};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which balance loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Switch Transformer, OLMoE; DeepSeek's sequence-wise loss with [`Scope::Sequence`].
    Switch,
    /// Only the first-ranked expert counts: CompeteSMoE v2's vision code.
    SwitchFirst,
    /// CompeteSMoE v1: P divided by assignments in place of tokens.
    PerAssignment,
    /// CompeteSMoE v2's language code, with [`Scope::Sequence`].
    NegativeEntropy,
    /// Squared coefficient of variation of the importance (Shazeer et al. 2017).
    Importance,
}

/// What a loss averages over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All tokens given.
    Batch,
    /// Each run of this many tokens.
    Sequence {
        /// Tokens of a sequence.
        length: usize,
    },
}

/// How many assignments went to each expert; counts of micro-batches and of devices
/// add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// All assignments. Shape: experts.
    pub all: Vec<u64>,
    /// First choices. Shape: experts.
    pub first: Vec<u64>,
}

impl Load {
    /// Counts the pairs of counted tokens within `tokens`.
    pub fn of<T: Real>(
        assignment: &Assignment<T>,
        counted: Option<&[bool]>,
        tokens: std::ops::Range<usize>,
    ) -> Self {
        let experts = assignment.expert_count();
        let (mut all, mut first) = (vec![0; experts], vec![0; experts]);
        for token in tokens.filter(|&t| counts(counted, t)) {
            let pairs = &assignment.experts()[assignment.pairs_of(token)];
            pairs.iter().for_each(|&e| all[e as usize] += 1);
            if let Some(&best) = pairs.first() {
                first[best as usize] += 1;
            }
        }
        Load { all, first }
    }

    /// Adds the counts of more tokens.
    pub fn add(&mut self, other: &Load) {
        let add = |to: &mut Vec<u64>, from: &Vec<u64>| {
            to.resize(to.len().max(from.len()), 0);
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        };
        add(&mut self.all, &other.all);
        add(&mut self.first, &other.first);
    }
}

/// Counts as fractions; all 0 if nothing was counted.
fn fractions(counts: &[u64]) -> Vec<f64> {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.iter().map(|&c| c as f64 / total).collect()
}

/// One loss of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// Which one.
    pub balance: Balance,
    /// What it averages over.
    pub scope: Scope,
    /// How scores become p.
    pub distribution: Distribution,
    /// Multiplies the gradient.
    pub coefficient: f64,
    /// Tokens that enter; all if absent. Shape: tokens.
    pub counted: Option<&'a [bool]>,
    /// f of more than these tokens (all micro-batches, all devices), with
    /// [`Scope::Batch`]; counted here if absent.
    pub load: Option<&'a Load>,
}

impl Loss<'_> {
    /// The value; adds coefficient times the gradient.
    ///
    /// The scores of a competition's balance are affinities: the distribution is
    /// applied here.
    ///
    /// # Shapes
    /// scores, d_scores: tokens, experts.
    pub fn add<T: Real>(
        &self,
        scores: &[T],
        assignment: &Assignment<T>,
        d_scores: &mut [T],
    ) -> f64 {
        let (tokens, experts) = (assignment.tokens(), assignment.expert_count());
        let length = match self.scope {
            Scope::Batch => tokens.max(1),
            Scope::Sequence { length } => length.max(1),
        };
        let group = |start: usize| start..(start + length).min(tokens);
        let counted = |start| group(start).filter(|&t| counts(self.counted, t)).count();
        let counted: Vec<usize> = (0..tokens).step_by(length).map(counted).collect();
        let groups = counted.iter().filter(|count| **count > 0).count();
        let share = 1.0 / groups.max(1) as f64;
        let values: Vec<f64> = d_scores
            .par_chunks_mut(length * experts)
            .zip(&counted)
            .enumerate()
            .filter(|(_, (_, count))| **count > 0)
            .map(|(i, (d_scores, &count))| {
                let tokens = group(i * length);
                self.add_group(scores, assignment, tokens, count, share, d_scores)
            })
            .collect();
        share * values.iter().sum::<f64>()
    }

    /// The value of tokens `group`; `d_scores` are theirs alone.
    fn add_group<T: Real>(
        &self,
        scores: &[T],
        assignment: &Assignment<T>,
        group: std::ops::Range<usize>,
        count: usize,
        share: f64,
        d_scores: &mut [T],
    ) -> f64 {
        let experts = assignment.expert_count();
        let scores = &scores[group.start * experts..group.end * experts];
        let block = rows::rows_per_task(experts);
        let parts: Vec<Vec<f64>> = scores
            .par_chunks(block * experts)
            .enumerate()
            .map(|(i, scores)| self.totals(scores, experts, group.start + i * block))
            .collect();
        let mut totals = vec![0.0; experts];
        for part in &parts {
            totals.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        let own;
        let load = match (self.load, self.scope) {
            (Some(load), Scope::Batch) => load,
            _ => {
                own = Load::of(assignment, self.counted, group.clone());
                &own
            }
        };
        let (value, slopes) = self.of_totals(&totals, load, count);
        // The slope in p_te is the slope in the total of e.
        let factor = share * self.coefficient;
        let slopes: Vec<T> = slopes.iter().map(|slope| T::of(slope * factor)).collect();
        rows::map_blocks(d_scores, experts, |first, d_scores| {
            let mut row = vec![T::ZERO; experts];
            let mut gradient = vec![T::ZERO; experts];
            for (i, d_scores) in d_scores.chunks_exact_mut(experts).enumerate() {
                let scores = &scores[(first + i) * experts..][..experts];
                if !counts(self.counted, group.start + first + i) {
                    continue;
                }
                vectorised!(|| {
                    row.copy_from_slice(scores);
                    self.distribution.forward(&mut row);
                    gradient.copy_from_slice(&slopes);
                    self.distribution.backward(scores, &row, &mut gradient);
                    for (d, &g) in d_scores.iter_mut().zip(&gradient) {
                        *d += g;
                    }
                });
            }
        });
        value
    }

    /// sum over counted t of p_te, of tokens from `first` on.
    fn totals<T: Real>(&self, scores: &[T], experts: usize, first: usize) -> Vec<f64> {
        let mut row = vec![T::ZERO; experts];
        let mut totals = vec![0.0; experts];
        for (i, scores) in scores.chunks_exact(experts).enumerate() {
            if !counts(self.counted, first + i) {
                continue;
            }
            vectorised!(|| {
                row.copy_from_slice(scores);
                self.distribution.forward(&mut row);
                for (total, p) in totals.iter_mut().zip(&row) {
                    *total += p.wide();
                }
            });
        }
        totals
    }

    /// The value and its derivatives in S_e = sum over t of p_te.
    fn of_totals(&self, totals: &[f64], load: &Load, count: usize) -> (f64, Vec<f64>) {
        let (experts, n) = (totals.len() as f64, count as f64);
        let linear = |slopes: Vec<f64>| {
            let value = slopes.iter().zip(totals).map(|(a, s)| a * s).sum();
            (value, slopes)
        };
        let weighted = |counts: &[u64], divisor: f64| {
            let f = fractions(counts);
            linear(f.iter().map(|f| experts * f / divisor).collect())
        };
        match self.balance {
            Balance::Switch => weighted(&load.all, n),
            Balance::SwitchFirst => weighted(&load.first, n),
            Balance::PerAssignment => {
                let pairs = load.all.iter().sum::<u64>() as f64;
                let first = load.first.iter().sum::<u64>().max(1) as f64;
                weighted(&load.all, (n * pairs / first).max(1.0))
            }
            Balance::NegativeEntropy => {
                let logs: Vec<f64> = totals
                    .iter()
                    .map(|s| (s / n).max(f64::MIN_POSITIVE).ln())
                    .collect();
                let value = logs.iter().zip(totals).map(|(l, s)| s / n * l).sum();
                (value, logs.iter().map(|l| (l + 1.0) / n).collect())
            }
            Balance::Importance => {
                let total: f64 = totals.iter().sum();
                let squares: f64 = totals.iter().map(|s| s * s).sum();
                let value = experts * squares / (total * total) - 1.0;
                let slope = |s: &f64| 2.0 * experts * (s - squares / total) / (total * total);
                (value, totals.iter().map(slope).collect())
            }
        }
    }
}

/// mean over counted tokens of (log sum_e exp z_te)^2 (Zoph et al. 2022); adds
/// coefficient times its gradient, 2 log-sum-exp softmax(z) / n.
///
/// # Shapes
/// scores, d_scores: tokens, experts.
pub fn add_z_loss<T: Real>(
    scores: &[T],
    experts: usize,
    counted: Option<&[bool]>,
    coefficient: f64,
    d_scores: &mut [T],
) -> f64 {
    let n = counted_tokens(counted, scores.len() / experts).max(1) as f64;
    let values = rows::map_blocks(d_scores, experts, |first, d_scores| {
        let mut row = vec![T::ZERO; experts];
        let mut value = 0.0;
        for (i, d_scores) in d_scores.chunks_exact_mut(experts).enumerate() {
            let token = first + i;
            if !counts(counted, token) {
                continue;
            }
            vectorised!(|| {
                row.copy_from_slice(&scores[token * experts..][..experts]);
                let log_sum = softmax::forward(&mut row);
                value += log_sum * log_sum / n;
                let factor = T::of(coefficient * 2.0 * log_sum / n);
                for (d, &p) in d_scores.iter_mut().zip(&row) {
                    *d += factor * p;
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
    use crate::train::ops::check::{assert_gradient, distance, normals};
    use crate::train::router::combine::{Combine, TopK};

    const EXPERTS: usize = 4;
    const TOKENS: usize = 8;
    const ALL: [Balance; 5] = [
        Balance::Switch,
        Balance::SwitchFirst,
        Balance::PerAssignment,
        Balance::NegativeEntropy,
        Balance::Importance,
    ];

    fn loss(balance: Balance) -> Loss<'static> {
        Loss {
            balance,
            scope: Scope::Batch,
            distribution: Distribution::Softmax,
            coefficient: 0.3,
            counted: None,
            load: None,
        }
    }

    fn route(scores: &[f64]) -> Assignment<f64> {
        let rule = TopK {
            k: 2,
            combine: Combine::TopKSoftmax,
            scale: 1.0,
        };
        rule.forward(scores, EXPERTS).unwrap()
    }

    fn value(loss: &Loss, scores: &[f64], assignment: &Assignment<f64>) -> f64 {
        loss.add(scores, assignment, &mut vec![0.0; scores.len()])
    }

    #[test]
    fn the_gradients_of_all_balance_losses_match_finite_differences() {
        let scores = normals(1, TOKENS * EXPERTS);
        let assignment = route(&scores);
        let counted = [true, true, false, true, false, false, true, true];
        for balance in ALL {
            for scope in [Scope::Batch, Scope::Sequence { length: 3 }] {
                for distribution in [
                    Distribution::Softmax,
                    Distribution::Sigmoid,
                    Distribution::SoftmaxTwice,
                ] {
                    for counted in [None, Some(&counted[..])] {
                        let loss = Loss {
                            scope,
                            distribution,
                            counted,
                            ..loss(balance)
                        };
                        let mut gradient = vec![0.0; scores.len()];
                        loss.add(&scores, &assignment, &mut gradient);
                        let name = format!("{balance:?} {scope:?} {distribution:?}");
                        assert_gradient(&name, &scores, &gradient, |z| {
                            0.3 * value(&loss, z, &assignment)
                        });
                    }
                }
            }
        }
    }

    /// Token t goes to experts t and t + 1, with equal scores for all.
    fn balanced() -> (Vec<f64>, Assignment<f64>) {
        let experts = (0..TOKENS as u32).flat_map(|t| [t % 4, (t + 1) % 4]);
        let weights = vec![0.5; 2 * TOKENS];
        let chosen = Assignment::uniform(2, experts.collect(), weights, EXPERTS).unwrap();
        (vec![0.0; TOKENS * EXPERTS], chosen)
    }

    #[test]
    fn every_balance_loss_has_its_value_at_perfect_balance() {
        let (scores, chosen) = balanced();
        for (balance, expected) in [
            (Balance::Switch, 1.0),
            (Balance::SwitchFirst, 1.0),
            (Balance::PerAssignment, 0.5),
            (Balance::NegativeEntropy, -(4.0_f64.ln())),
            (Balance::Importance, 0.0),
        ] {
            for scope in [Scope::Batch, Scope::Sequence { length: 4 }] {
                let loss = Loss {
                    scope,
                    ..loss(balance)
                };
                let got = value(&loss, &scores, &chosen);
                assert!((got - expected).abs() < 1e-14, "{balance:?}: {got}");
            }
        }
    }

    #[test]
    fn the_balance_of_a_competition_takes_the_softmax_of_its_affinities_once() {
        // The official code took it twice, which hides a collapse.
        let affinities = [4.0_f64, 0.0, 0.0, 0.0];
        let chosen = route(&affinities);
        let winner = 4.0_f64.exp() / (4.0_f64.exp() + 3.0);
        let loser = (1.0 - winner) / 3.0;
        let expected = winner * winner.ln() + 3.0 * loser * loser.ln();
        let got = value(&loss(Balance::NegativeEntropy), &affinities, &chosen);
        assert!((got - expected).abs() < 1e-14);
    }

    #[test]
    fn a_collapsed_router_costs_more_than_a_balanced_one() {
        let (scores, chosen) = balanced();
        let collapsed: Vec<f64> = (0..TOKENS * EXPERTS)
            .map(|i| if i % EXPERTS < 2 { 5.0 } else { 0.0 })
            .collect();
        for balance in ALL {
            let bad = value(&loss(balance), &collapsed, &route(&collapsed));
            assert!(
                bad > value(&loss(balance), &scores, &chosen) + 0.3,
                "{balance:?}"
            );
        }
    }

    #[test]
    fn padding_changes_neither_values_nor_gradients_of_the_other_tokens() {
        let scores = normals(1, TOKENS * EXPERTS);
        let (half, half_tokens) = (&scores[..4 * EXPERTS], 4);
        let counted: Vec<bool> = (0..TOKENS).map(|t| t < half_tokens).collect();
        for balance in ALL {
            let masked = Loss {
                counted: Some(&counted),
                ..loss(balance)
            };
            let (mut with, mut without) = (vec![0.0; scores.len()], vec![0.0; half.len()]);
            let a = masked.add(&scores, &route(&scores), &mut with);
            let b = loss(balance).add(half, &route(half), &mut without);
            assert!((a - b).abs() < 1e-14);
            assert!(distance(&with[..half.len()], &without) < 1e-15);
            assert!(with[half.len()..].iter().all(|g| *g == 0.0));
        }
    }

    #[test]
    fn with_the_load_of_the_whole_step_micro_batches_add_up_to_one_batch() {
        let scores = normals(2, TOKENS * EXPERTS);
        let chosen = route(&scores);
        let whole = Load::of(&chosen, None, 0..TOKENS);
        let mut sum = Load::default();
        let halves = scores.chunks(4 * EXPERTS);
        for half in halves.clone() {
            sum.add(&Load::of(&route(half), None, 0..4));
        }
        assert_eq!(sum, whole);
        let mut expected = vec![0.0; scores.len()];
        let expected_value = loss(Balance::Switch).add(&scores, &chosen, &mut expected);
        let (mut got, mut got_value) = (Vec::new(), 0.0);
        for half in halves {
            let part = Loss {
                coefficient: 0.3 / 2.0,
                load: Some(&whole),
                ..loss(Balance::Switch)
            };
            let mut gradient = vec![0.0; half.len()];
            got_value += part.add(half, &route(half), &mut gradient) / 2.0;
            got.extend(gradient);
        }
        assert!((got_value - expected_value).abs() < 1e-14);
        assert!(distance(&got, &expected) < 1e-15);
    }

    #[test]
    fn the_gradient_of_the_z_loss_matches_finite_differences() {
        let scores = normals(3, 12);
        let counted = [true, false, true];
        let mut gradient = vec![0.0; 12];
        add_z_loss(&scores, 4, Some(&counted), 0.3, &mut gradient);
        assert_gradient("scores", &scores, &gradient, |z| {
            0.3 * add_z_loss(z, 4, Some(&counted), 0.0, &mut [0.0; 12])
        });
        let zero = add_z_loss(&[0.0_f64; 8], 4, None, 0.0, &mut [0.0; 8]);
        assert!((zero - 4.0_f64.ln().powi(2)).abs() < 1e-14);
    }
}
