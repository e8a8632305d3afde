//! Where starts ended.

use super::KINDS;
use crate::fit::{Effort, Outcome, Stop};

/// Log-likelihoods that differ by less are those of one optimum. At the bound of a
/// run-away gate the likelihood is nearly flat and the certificate leaves more.
pub(super) const SAME: f64 = 1e-6;
pub(super) const NEARLY_SAME: f64 = 1e-5;

/// An end of starts and how many led there, by kind.
pub(super) struct End {
    pub outcome: Outcome,
    pub hits: Vec<usize>,
}

/// All ends.
#[derive(Default)]
pub(super) struct Ends {
    pub ends: Vec<End>,
    pub failures: Vec<(Stop, f64)>,
    pub effort: Effort,
}

impl Ends {
    /// Counts where a start of a kind ended.
    pub fn take(&mut self, outcome: Outcome, kind: usize) {
        self.effort += outcome.effort;
        if !outcome.stop.is_converged() {
            self.failures.push((outcome.stop, outcome.log_likelihood));
            return;
        }
        let tolerance = match outcome.on_bound.is_empty() {
            true => SAME,
            false => NEARLY_SAME,
        };
        let value = outcome.log_likelihood;
        let same = |end: &End| (end.outcome.log_likelihood - value).abs() < tolerance;
        let end = match self.ends.iter().position(same) {
            Some(known) => &mut self.ends[known],
            None => {
                let hits = vec![0; KINDS.len() + 1];
                self.ends.push(End { outcome, hits });
                self.ends.last_mut().expect("just pushed")
            }
        };
        end.hits[kind] += 1;
    }
}
