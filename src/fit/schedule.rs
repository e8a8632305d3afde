//! When experts compete: the probability lambda of a competition step.

use serde::{Deserialize, Serialize};

/// lambda as a function of the share s of the training that is done, in [0, 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// lambda = probability. 0 never competes; 1 always does (most scripts of arXiv
    /// 2402.02526).
    Constant {
        /// Between 0 and 1.
        probability: f64,
    },
    /// lambda = first (1 - s).
    Linear {
        /// At the start.
        first: f64,
    },
    /// lambda = 2 / (2 + (t + 1)^(1/2)) in period t = 0, 1, ..: early-heavy, the
    /// `function` schedule in the code of arXiv 2402.02526, there with 60 or 80
    /// periods and one coin a period; here each step has a coin.
    InverseRoot {
        /// Periods of the whole training.
        periods: usize,
    },
    /// lambda = 0 in the first share of the training, then a constant: one layer's
    /// schedule in the code of arXiv 2505.13380 (0.05 or 0.07 after 0.05 or 0).
    WarmUp {
        /// After the warm-up.
        probability: f64,
        /// Share of the training without competition.
        share: f64,
    },
}

impl Schedule {
    /// lambda at the share `done` of the training.
    pub fn probability(self, done: f64) -> f64 {
        match self {
            Schedule::Constant { probability } => probability,
            Schedule::Linear { first } => first * (1.0 - done),
            Schedule::InverseRoot { periods } => {
                let period = (done * periods as f64).floor();
                2.0 / (2.0 + (period + 1.0).sqrt())
            }
            Schedule::WarmUp { share, .. } if done < share => 0.0,
            Schedule::WarmUp { probability, .. } => probability,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_early_heavy_schedule_has_its_known_means() {
        for (periods, wanted) in [(60, 0.30), (80, 0.27)] {
            let schedule = Schedule::InverseRoot { periods };
            let sum: f64 = (0..periods)
                .map(|t| schedule.probability((t as f64 + 0.5) / periods as f64))
                .sum();
            assert!((sum / periods as f64 - wanted).abs() < 0.006);
        }
    }

    #[test]
    fn schedules_begin_and_end_where_they_say() {
        let linear = Schedule::Linear { first: 0.8 };
        assert_eq!(
            [0.0, 0.5, 1.0].map(|s| linear.probability(s)),
            [0.8, 0.4, 0.0]
        );
        let late = Schedule::WarmUp {
            probability: 0.07,
            share: 0.05,
        };
        assert_eq!([0.0, 0.05].map(|s| late.probability(s)), [0.0, 0.07]);
    }
}
