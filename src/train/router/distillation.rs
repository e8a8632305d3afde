//! The router learns the competition's verdict.
//!
//! g = softmax(z) of the router; pi the target, a constant: gradients go to the
//! router and nowhere else. W_t the competition's winners, R_t the router's own
//! choice, theta a weight:
//!
//! | loss | value |
//! |---|---|
//! | [`Loss::Full`] | mean over t, e of (g - pi)^2 |
//! | [`Loss::Winners`] | mean over t, e in W of (g - pi)^2 |
//! | [`Loss::Hybrid`] | full + theta winners |
//! | [`Loss::Tribrid`] | full + theta winners + theta mean over e in R of (g - pi)^2 |
//! | [`Loss::Divergence`] | mean over t of sum_e pi log(pi / g) |

use crate::train::moe::Assignment;
use crate::train::ops::real::{Real, vectorised};
use crate::train::ops::rows;
use crate::train::ops::softmax;
use crate::train::router::{counted_tokens, counts};
use serde::{Deserialize, Serialize};

/// What the router should say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Softmax of responses over all experts: v2.
    All,
    /// Softmax over the winners, 0 elsewhere: v1.
    Winners,
}

/// Changes of responses before the target's softmax, which small outputs leave
/// almost uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharpening {
    /// Responses are divided by it; 1 for none.
    pub temperature: f64,
    /// Whether each token's responses first get mean 0 and variance 1 over experts.
    pub spread: Spread,
}

/// What becomes of the spread of a token's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// As it is.
    Raw,
    /// Mean 0, variance 1 (0 where all are equal).
    Standardised,
}

impl Sharpening {
    /// Responses as they are.
    pub const NONE: Sharpening = Sharpening {
        temperature: 1.0,
        spread: Spread::Raw,
    };
}

impl Target {
    /// pi, in the order of experts.
    ///
    /// # Shapes
    /// responses, result: tokens, experts. winners: the competition's assignment.
    pub fn probabilities<T: Real>(
        self,
        responses: &[T],
        winners: &Assignment<T>,
        sharpening: Sharpening,
    ) -> Vec<T> {
        let experts = winners.expert_count();
        let mut target = responses.to_vec();
        let scale = T::of(1.0 / sharpening.temperature);
        rows::for_each(&mut target, experts, |token, row| {
            if sharpening.spread == Spread::Standardised {
                standardise(row);
            }
            row.iter_mut().for_each(|a| *a *= scale);
            if self == Target::Winners {
                let chosen = &winners.experts()[winners.pairs_of(token)];
                for (expert, a) in row.iter_mut().enumerate() {
                    if !chosen.contains(&(expert as u32)) {
                        *a = T::LOWEST;
                    }
                }
            }
            vectorised!(|| softmax::forward(row));
        });
        target
    }

    /// Adds dL/d(responses) to `d_responses`: v1's code, which does not detach the
    /// target. `gradient` is dL/dpi and is used up; winners are taken as fixed.
    ///
    /// # Shapes
    /// responses, target, gradient, d_responses: tokens, experts.
    pub fn backward<T: Real>(
        self,
        responses: &[T],
        target: &[T],
        sharpening: Sharpening,
        experts: usize,
        gradient: &mut [T],
        d_responses: &mut [T],
    ) {
        let scale = T::of(1.0 / sharpening.temperature);
        rows::for_each(gradient, experts, |token, gradient| {
            let at = token * experts..(token + 1) * experts;
            // Losers of v1's target have probability 0, and so no gradient.
            softmax::backward(&target[at.clone()], gradient);
            gradient.iter_mut().for_each(|g| *g *= scale);
            if sharpening.spread == Spread::Standardised {
                standardise_backward(&responses[at], gradient);
            }
        });
        rows::add(d_responses, gradient);
    }
}

/// The mean, and 1 / standard deviation or 0.
fn moments<T: Real>(row: &[T]) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = row.iter().map(|a| a.wide()).sum::<f64>() / n;
    let variance = row.iter().map(|a| (a.wide() - mean).powi(2)).sum::<f64>() / n;
    let scale = match variance > 0.0 {
        true => 1.0 / variance.sqrt(),
        false => 0.0,
    };
    (mean, scale)
}

/// dL/da of s = (a - mean) / sd: (g - mean(g) - s mean(g s)) / sd.
fn standardise_backward<T: Real>(responses: &[T], gradient: &mut [T]) {
    let n = responses.len() as f64;
    let (mean, scale) = moments(responses);
    let standardised = |a: T| (a.wide() - mean) * scale;
    let pairs = || responses.iter().zip(&*gradient);
    let level = pairs().map(|(_, g)| g.wide()).sum::<f64>() / n;
    let along = pairs()
        .map(|(&a, g)| g.wide() * standardised(a))
        .sum::<f64>()
        / n;
    for (&a, g) in responses.iter().zip(gradient) {
        *g = T::of((g.wide() - level - standardised(a) * along) * scale);
    }
}

fn standardise<T: Real>(row: &mut [T]) {
    let (mean, scale) = moments(row);
    row.iter_mut()
        .for_each(|a| *a = T::of((a.wide() - mean) * scale));
}

/// How the router is compared with the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// All experts.
    Full,
    /// Winners only.
    Winners,
    /// All experts, winners again with weight theta: v2.
    Hybrid {
        /// Weight of the winners' term.
        theta: f64,
    },
    /// As hybrid, and the router's own choice with weight theta.
    Tribrid {
        /// Weight of both extra terms.
        theta: f64,
    },
    /// Kullback-Leibler divergence.
    Divergence,
}

/// Who was chosen by whom.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a, T> {
    /// By the competition.
    pub winners: &'a Assignment<T>,
    /// By the router.
    pub routed: &'a Assignment<T>,
}

/// A loss with what it divides by.
struct Terms<'a, T> {
    choices: Choices<'a, T>,
    counted: Option<&'a [bool]>,
    /// 1 / counted tokens.
    per_token: f64,
    /// Factors of (g - pi)^2: of all experts, of winners, of the router's choice.
    squares: [f64; 3],
}

impl<'a, T: Real> Terms<'a, T> {
    fn new(loss: Loss, choices: Choices<'a, T>, counted: Option<&'a [bool]>) -> Self {
        let [all, won, routed] = match loss {
            Loss::Full => [1.0, 0.0, 0.0],
            Loss::Winners => [0.0, 1.0, 0.0],
            Loss::Hybrid { theta } => [1.0, theta, 0.0],
            Loss::Tribrid { theta } => [1.0, theta, theta],
            Loss::Divergence => [0.0; 3],
        };
        let pairs = |assignment: &Assignment<T>| {
            let tokens = (0..assignment.tokens()).filter(|&t| counts(counted, t));
            let pairs: usize = tokens.map(|t| assignment.pairs_of(t).len()).sum();
            pairs.max(1) as f64
        };
        let tokens = counted_tokens(counted, choices.winners.tokens()).max(1) as f64;
        let experts = choices.winners.expert_count() as f64;
        let squares = [
            all / (tokens * experts),
            won / pairs(choices.winners),
            routed / pairs(choices.routed),
        ];
        Terms {
            choices,
            counted,
            per_token: 1.0 / tokens,
            squares,
        }
    }

    /// The factor of every expert's (g - pi)^2.
    fn weigh(&self, token: usize, weights: &mut [f64]) {
        let [all, won, routed] = self.squares;
        weights.fill(all);
        let Choices {
            winners,
            routed: own,
        } = self.choices;
        for (assignment, factor) in [(winners, won), (own, routed)] {
            for &expert in &assignment.experts()[assignment.pairs_of(token)] {
                weights[expert as usize] += factor;
            }
        }
    }
}

impl Loss {
    /// The value; adds coefficient times the gradient in the router's scores.
    ///
    /// # Shapes
    /// scores, target, d_scores: tokens, experts. counted: tokens.
    pub fn add<T: Real>(
        self,
        scores: &[T],
        target: &[T],
        choices: Choices<T>,
        counted: Option<&[bool]>,
        coefficient: f64,
        d_scores: &mut [T],
    ) -> f64 {
        let experts = choices.winners.expert_count();
        let terms = Terms::new(self, choices, counted);
        let values = rows::map_blocks(d_scores, experts, |first, d_scores| {
            let mut value = 0.0;
            let mut row = vec![T::ZERO; experts];
            let mut gradient = vec![T::ZERO; experts];
            let mut weights = vec![0.0; experts];
            for (i, d_scores) in d_scores.chunks_exact_mut(experts).enumerate() {
                let token = first + i;
                if !counts(terms.counted, token) {
                    continue;
                }
                let at = token * experts..(token + 1) * experts;
                let (scores, target) = (&scores[at.clone()], &target[at]);
                row.copy_from_slice(scores);
                let log_sum = vectorised!(|| softmax::forward(&mut row));
                if self == Loss::Divergence {
                    for (i, &pi) in target.iter().enumerate() {
                        if pi > T::ZERO {
                            let log_g = scores[i].wide() - log_sum;
                            value += pi.wide() * (pi.wide().ln() - log_g) * terms.per_token;
                        }
                        gradient[i] = (row[i] - pi) * T::of(coefficient * terms.per_token);
                    }
                } else {
                    terms.weigh(token, &mut weights);
                    for (i, &pi) in target.iter().enumerate() {
                        let gap = row[i] - pi;
                        value += weights[i] * gap.wide() * gap.wide();
                        gradient[i] = gap * T::of(2.0 * coefficient * weights[i]);
                    }
                    softmax::backward(&row, &mut gradient);
                }
                d_scores
                    .iter_mut()
                    .zip(&gradient)
                    .for_each(|(d, &g)| *d += g);
            }
            value
        });
        values.iter().sum()
    }

    /// Coefficient times the gradient in the target, which the papers do not use
    /// ([`Target::backward`] takes it on to the responses).
    ///
    /// # Shapes
    /// scores, target, result: tokens, experts.
    pub fn target_gradient<T: Real>(
        self,
        scores: &[T],
        target: &[T],
        choices: Choices<T>,
        counted: Option<&[bool]>,
        coefficient: f64,
    ) -> Vec<T> {
        let experts = choices.winners.expert_count();
        let terms = Terms::new(self, choices, counted);
        let mut result = scores.to_vec();
        rows::for_each(&mut result, experts, |token, row| {
            if !counts(terms.counted, token) {
                row.fill(T::ZERO);
                return;
            }
            let at = token * experts..(token + 1) * experts;
            let (scores, target) = (&scores[at.clone()], &target[at]);
            let log_sum = softmax::forward(row);
            if self == Loss::Divergence {
                for ((row, &z), &pi) in row.iter_mut().zip(scores).zip(target) {
                    // log(pi / g) + 1; a target of 0 is 0 whatever the responses.
                    let slope = pi.wide().ln() - (z.wide() - log_sum) + 1.0;
                    let present = if pi > T::ZERO { slope } else { 0.0 };
                    *row = T::of(coefficient * terms.per_token * present);
                }
            } else {
                let mut weights = vec![0.0; experts];
                terms.weigh(token, &mut weights);
                for ((g, &pi), weight) in row.iter_mut().zip(target).zip(weights) {
                    *g = (pi - *g) * T::of(2.0 * coefficient * weight);
                }
            }
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, distance, normals};
    use crate::train::router::combine::{Combine, TopK};

    const EXPERTS: usize = 5;
    const ALL: [Loss; 5] = [
        Loss::Full,
        Loss::Winners,
        Loss::Hybrid { theta: 0.2 },
        Loss::Tribrid { theta: 0.2 },
        Loss::Divergence,
    ];

    fn route(scores: &[f64]) -> Assignment<f64> {
        let rule = TopK {
            k: 2,
            combine: Combine::TopKSoftmax,
            scale: 1.0,
        };
        rule.forward(scores, EXPERTS).unwrap()
    }

    fn value(
        loss: Loss,
        scores: &[f64],
        target: &[f64],
        winners: &Assignment<f64>,
        routed: &Assignment<f64>,
    ) -> f64 {
        let choices = Choices { winners, routed };
        let mut unused = vec![0.0; scores.len()];
        loss.add(scores, target, choices, None, 0.0, &mut unused)
    }

    #[test]
    fn the_gradients_of_all_distillation_losses_match_finite_differences() {
        let (scores, responses) = (normals(1, 20), normals(2, 20));
        let (winners, routed) = (route(&responses), route(&scores));
        let counted = [true, false, true, true];
        for target in [Target::All, Target::Winners] {
            let target = target.probabilities(&responses, &winners, Sharpening::NONE);
            for loss in ALL {
                let run = |z: &[f64], coefficient: f64, gradient: &mut [f64]| {
                    let choices = Choices {
                        winners: &winners,
                        routed: &routed,
                    };
                    loss.add(z, &target, choices, Some(&counted), coefficient, gradient)
                };
                let mut gradient = vec![0.0; 20];
                run(&scores, 0.7, &mut gradient);
                let name = format!("{loss:?}");
                assert_gradient(&name, &scores, &gradient, |z| {
                    0.7 * run(z, 0.0, &mut [0.0; 20])
                });
            }
        }
    }

    #[test]
    fn a_router_that_agrees_with_the_competition_has_no_loss_whatever_the_order_of_experts() {
        // v1's official code compared sorted scores with unsorted targets.
        for responses in [normals(3, 20), normals(4, 20)] {
            let winners = route(&responses);
            let target = Target::All.probabilities(&responses, &winners, Sharpening::NONE);
            for loss in ALL {
                let value = value(loss, &responses, &target, &winners, &winners);
                assert!(value.abs() < 1e-15, "{loss:?}: {value}");
            }
        }
    }

    #[test]
    fn the_first_version_gives_losers_a_target_of_zero_and_winners_a_sum_of_one() {
        let responses = normals(5, 20);
        let winners = route(&responses);
        let target = Target::Winners.probabilities(&responses, &winners, Sharpening::NONE);
        for (token, row) in target.chunks(EXPERTS).enumerate() {
            let chosen = &winners.experts()[winners.pairs_of(token)];
            let sum: f64 = chosen.iter().map(|&e| row[e as usize]).sum();
            assert!((sum - 1.0).abs() < 1e-15);
            assert_eq!(row.iter().filter(|p| **p > 0.0).count(), 2);
        }
    }

    #[test]
    fn every_loss_follows_its_formula_written_out() {
        let (scores, responses) = (normals(1, 20), normals(2, 20));
        let (winners, routed) = (route(&responses), route(&scores));
        assert_ne!(winners.experts(), routed.experts());
        let softmax = |z: &[f64]| -> Vec<f64> {
            let total: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(|z| z.exp() / total).collect()
        };
        let rows = |z: &[f64]| -> Vec<f64> { z.chunks(EXPERTS).flat_map(softmax).collect() };
        let (g, pi) = (rows(&scores), rows(&responses));
        let target = Target::All.probabilities(&responses, &winners, Sharpening::NONE);
        let squares: Vec<f64> = g.iter().zip(&pi).map(|(g, pi)| (g - pi).powi(2)).collect();
        let over = |chosen: &Assignment<f64>| {
            let pairs = (0..4).flat_map(|t| chosen.pairs_of(t).map(move |p| (t, p)));
            let terms = pairs.map(|(t, p)| squares[t * EXPERTS + chosen.experts()[p] as usize]);
            terms.sum::<f64>() / 8.0
        };
        let full = squares.iter().sum::<f64>() / 20.0;
        let divergence: f64 = g.iter().zip(&pi).map(|(g, pi)| pi * (pi / g).ln()).sum();
        for (loss, expected) in [
            (Loss::Full, full),
            (Loss::Winners, over(&winners)),
            (Loss::Hybrid { theta: 0.2 }, full + 0.2 * over(&winners)),
            (
                Loss::Tribrid { theta: 0.2 },
                full + 0.2 * over(&winners) + 0.2 * over(&routed),
            ),
            (Loss::Divergence, divergence / 4.0),
        ] {
            let got = value(loss, &scores, &target, &winners, &routed);
            assert!((got - expected).abs() < 1e-14, "{loss:?}: {got} {expected}");
        }
    }

    #[test]
    fn standardised_responses_do_not_depend_on_the_scale_of_outputs() {
        let responses = normals(6, 20);
        let winners = route(&responses);
        let sharpening = Sharpening {
            temperature: 0.5,
            spread: Spread::Standardised,
        };
        let target = |scale: f64| {
            let scaled: Vec<f64> = responses.iter().map(|a| 3.0 + scale * a).collect();
            Target::All.probabilities(&scaled, &winners, sharpening)
        };
        assert!(distance(&target(1e-3), &target(10.0)) < 1e-10);
        let flat = Target::All.probabilities(&[0.7; 20], &winners, sharpening);
        assert!(flat.iter().all(|p| (p - 0.2).abs() < 1e-15));
    }

    #[test]
    fn the_gradient_through_a_target_that_is_not_detached_matches_finite_differences() {
        let (scores, responses) = (normals(1, 20), normals(2, 20));
        let (winners, routed) = (route(&responses), route(&scores));
        let choices = Choices {
            winners: &winners,
            routed: &routed,
        };
        let counted = [true, false, true, true];
        for target in [Target::All, Target::Winners] {
            for spread in [Spread::Raw, Spread::Standardised] {
                let sharpening = Sharpening {
                    temperature: 0.5,
                    spread,
                };
                for loss in ALL {
                    let pi = |a: &[f64]| target.probabilities(a, &winners, sharpening);
                    let now = pi(&responses);
                    let counted = Some(&counted[..]);
                    let mut d_pi = loss.target_gradient(&scores, &now, choices, counted, 0.7);
                    let mut gradient = vec![0.0; 20];
                    target.backward(
                        &responses,
                        &now,
                        sharpening,
                        EXPERTS,
                        &mut d_pi,
                        &mut gradient,
                    );
                    assert!(gradient.iter().any(|g| g.abs() > 1e-4));
                    let name = format!("{target:?} {spread:?} {loss:?}");
                    assert_gradient(&name, &responses, &gradient, |a| {
                        let mut unused = [0.0; 20];
                        0.7 * loss.add(&scores, &pi(a), choices, counted, 0.0, &mut unused)
                    });
                }
            }
        }
    }
}
