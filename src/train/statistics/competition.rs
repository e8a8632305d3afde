//! What the router has learnt of the competition: W_t the winners, R_t the router's own
//! choice, a_te the responses, pi_t the target, g_t = softmax(z_t).

use crate::error::{Error, Result};
use crate::train::log::number;
use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use crate::train::ops::softmax;
use crate::train::statistics::choice::overlap;
use crate::train::statistics::outputs::length;
use crate::train::statistics::{entropy, load, mean};
use serde::{Deserialize, Serialize};

/// A competition on the same tokens that the router was asked about.
#[derive(Clone, Copy, Debug)]
pub struct Contest<'a, T> {
    /// a. Shape: tokens, experts.
    pub affinities: &'a [T],
    /// W.
    pub winners: &'a Assignment<T>,
    /// pi; softmax of the responses if absent. Shape: tokens, experts.
    pub target: Option<&'a [T]>,
    /// Outputs y of the whole sparse layer under the competition's and under the
    /// router's choice and weights. Shape: tokens, width.
    pub combined: Option<[&'a [T]; 2]>,
}

/// What the router has learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompetitionStatistics {
    /// mean over t of |W and R| / |W|: teacher-router overlap.
    pub overlap: Option<f64>,
    /// mean over t of KL(pi || g) = sum of pi log(pi / g), in nats.
    #[serde(deserialize_with = "number")]
    pub divergence: f64,
    /// mean over t of the entropy of pi, in nats.
    #[serde(deserialize_with = "number")]
    pub target_entropy: f64,
    /// mean over t and e of a.
    #[serde(deserialize_with = "number")]
    pub affinity_mean: f64,
    /// mean over t of the standard deviation of a_t over experts (divisor E).
    #[serde(deserialize_with = "number")]
    pub affinity_spread: f64,
    /// Wins per expert.
    pub wins: Vec<u64>,
    /// Entropy of wins / sum of wins over log E.
    pub win_entropy: f64,
    /// mean |y| of the competition over mean |y| of the router: 1 if steps of both
    /// kinds write outputs of one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_scale_ratio: Option<f64>,
}

impl<T: Real> Contest<'_, T> {
    /// Compares the router's scores and choice with the competition.
    ///
    /// # Shapes
    /// scores: tokens, experts.
    ///
    /// # Errors
    /// [`Error::Dimension`] if sizes differ.
    pub fn against(&self, scores: &[T], routed: &Assignment<T>) -> Result<CompetitionStatistics> {
        let experts = self.winners.expert_count();
        let arrays = [
            ("scores of the router", scores),
            ("target of the competition", self.target.unwrap_or(scores)),
        ];
        for (what, array) in arrays {
            let expected = self.affinities.len();
            if array.len() != expected {
                let got = array.len();
                return Err(Error::Dimension {
                    what,
                    expected,
                    got,
                });
            }
        }
        let target = match self.target {
            Some(target) => target.to_vec(),
            None => {
                let mut target = self.affinities.to_vec();
                target.chunks_exact_mut(experts).for_each(|row| {
                    softmax::forward(row);
                });
                target
            }
        };
        let rows = || target.chunks_exact(experts);
        let divergences = rows()
            .zip(scores.chunks_exact(experts))
            .map(|(pi, z)| divergence(pi, z));
        let entropies = rows().map(|pi| entropy(pi.iter().map(|p| p.wide())));
        let spreads = self.affinities.chunks_exact(experts).map(spread);
        let wins = load::counts(self.winners);
        Ok(CompetitionStatistics {
            overlap: overlap(self.winners, routed),
            divergence: mean(divergences).unwrap_or(0.0),
            target_entropy: mean(entropies).unwrap_or(0.0),
            affinity_mean: mean(self.affinities.iter().map(|a| a.wide())).unwrap_or(0.0),
            affinity_spread: mean(spreads).unwrap_or(0.0),
            win_entropy: load::normalised_entropy(&wins),
            wins,
            output_scale_ratio: self.combined.and_then(|[competed, routed]| {
                scale_ratio(
                    competed,
                    routed,
                    competed.len() / self.winners.tokens().max(1),
                )
            }),
        })
    }
}

/// KL(pi || softmax(z)) = sum of pi (log pi - z) + log sum exp z.
fn divergence<T: Real>(pi: &[T], z: &[T]) -> f64 {
    let mut row: Vec<f64> = z.iter().map(|z| z.wide()).collect();
    let log_sum = softmax::forward(&mut row);
    let terms = pi.iter().zip(z).filter(|(pi, _)| **pi > T::ZERO);
    terms
        .map(|(pi, z)| pi.wide() * (pi.wide().ln() - (z.wide() - log_sum)))
        .sum()
}

/// Standard deviation with divisor E.
fn spread<T: Real>(row: &[T]) -> f64 {
    let n = row.len() as f64;
    let mean = row.iter().map(|a| a.wide()).sum::<f64>() / n;
    let squares = row.iter().map(|a| (a.wide() - mean).powi(2));
    (squares.sum::<f64>() / n).sqrt()
}

/// mean |a| / mean |b| over rows; `None` if the latter is 0.
fn scale_ratio<T: Real>(a: &[T], b: &[T], width: usize) -> Option<f64> {
    let size = |rows: &[T]| mean(rows.chunks_exact(width.max(1)).map(length));
    let (a, b) = (size(a)?, size(b)?);
    (b > 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::normals;
    use crate::train::router::distillation::{Choices, Loss, Sharpening, Target};
    use crate::train::statistics::sample::route;

    fn contest<'a>(a: &'a [f64], winners: &'a Assignment<f64>) -> Contest<'a, f64> {
        Contest {
            affinities: a,
            winners,
            target: None,
            combined: None,
        }
    }

    #[test]
    fn a_router_that_says_what_the_competition_says_has_learnt_all() {
        let a = normals(1, 40);
        let winners = route(&a, 5, 2);
        let learnt = contest(&a, &winners).against(&a, &winners).unwrap();
        assert_eq!(learnt.overlap, Some(1.0));
        assert!(learnt.divergence.abs() < 1e-15);
        assert_eq!(learnt.wins.iter().sum::<u64>(), 16);
    }

    #[test]
    fn equal_responses_give_a_uniform_target_without_spread() {
        let winners = route(&[0.7; 8], 4, 1);
        let scores = [2.0_f64.ln(), 0.0, 0.0, 0.0].repeat(2);
        let learnt = contest(&[0.7; 8], &winners)
            .against(&scores, &winners)
            .unwrap();
        assert!((learnt.target_entropy - 4.0_f64.ln()).abs() < 1e-12);
        assert!(learnt.affinity_spread < 1e-12);
        assert!((learnt.affinity_mean - 0.7).abs() < 1e-12);
        // Ties go to the first expert: all wins are its.
        assert_eq!((learnt.wins, learnt.win_entropy), (vec![2, 0, 0, 0], 0.0));
        // KL(uniform || (2, 1, 1, 1) / 5) = log 5 - log 4 - log(2) / 4
        let expected = (5.0_f64 / 4.0).ln() - 2.0_f64.ln() / 4.0;
        assert!((learnt.divergence - expected).abs() < 1e-12);
    }

    #[test]
    fn the_divergence_is_that_of_the_distillation_loss() {
        let (a, scores) = (normals(2, 40), normals(3, 40));
        let (winners, routed) = (route(&a, 5, 2), route(&scores, 5, 2));
        for target in [Target::All, Target::Winners] {
            let pi = target.probabilities(&a, &winners, Sharpening::NONE);
            let with_target = Contest {
                target: Some(&pi),
                ..contest(&a, &winners)
            };
            let learnt = with_target.against(&scores, &routed).unwrap();
            let choices = Choices {
                winners: &winners,
                routed: &routed,
            };
            let expected = Loss::Divergence.add(&scores, &pi, choices, None, 0.0, &mut [0.0; 40]);
            assert!((learnt.divergence - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn spread_and_scale_are_known_by_hand() {
        let winners = route(&[1.0, 3.0, 2.0, 2.0], 2, 1);
        let (competed, routed) = ([3.0, 4.0, 0.0, 1.0], [0.0, 1.0, 2.0, 0.0]);
        let both = Contest {
            combined: Some([&competed, &routed]),
            ..contest(&[1.0, 3.0, 2.0, 2.0], &winners)
        };
        let learnt = both.against(&[0.0; 4], &winners).unwrap();
        assert_eq!(learnt.affinity_spread, 0.5);
        assert_eq!(learnt.output_scale_ratio, Some(2.0));
        assert_eq!(learnt.win_entropy, 1.0);
        let none = Contest {
            combined: Some([&competed, &[0.0; 4]]),
            ..both
        };
        let learnt = none.against(&[0.0; 4], &winners).unwrap();
        assert_eq!(learnt.output_scale_ratio, None);
    }

    #[test]
    fn sizes_that_differ_are_refused() {
        let winners = route(&[1.0, 3.0, 2.0, 2.0], 2, 1);
        let wrong = contest(&[1.0, 3.0, 2.0, 2.0], &winners).against(&[0.0; 2], &winners);
        assert!(wrong.unwrap_err().to_string().contains("scores"));
    }
}
