//! Which experts may be chosen: groups and biases (DeepSeek-V3).
//!
//! Experts form `count` groups of equal size, in order. A token chooses only from
//! the `kept` groups with the largest sums of their two best scores; among equals the
//! lower group is kept. A bias per expert is added to what ranks experts and enters
//! no weight; after a step it moves towards balance:
//! b_e += rate sign(mean load - load_e).

use crate::error::{Error, Result};
use crate::train::ops::real::Real;
use crate::train::router::balance::Load;
use crate::train::router::top_k;

/// Groups of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Groups that experts form.
    pub count: usize,
    /// Groups that a token may choose from.
    pub kept: usize,
}

impl Groups {
    /// All experts are open to all tokens.
    pub const NONE: Groups = Groups { count: 1, kept: 1 };

    /// Checks that groups are of equal size and leave a token `k` experts.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(self, k: usize, experts: usize) -> Result<()> {
        if self.count == 0 || !experts.is_multiple_of(self.count) {
            let message = format!("must divide the {experts} experts");
            return Err(Error::value("router.selection.groups", message));
        }
        let open = self.kept * (experts / self.count);
        if self.kept == 0 || self.kept > self.count || open < k {
            let message = format!("must be 1 to {} and leave a token {k} experts", self.count);
            return Err(Error::value("router.selection.kept_groups", message));
        }
        Ok(())
    }

    /// Sets the scores of experts outside the kept groups to minus infinity.
    ///
    /// # Shapes
    /// scores: experts.
    pub fn restrict<T: Real>(self, scores: &mut [T]) {
        if self.kept == self.count {
            return;
        }
        let size = scores.len() / self.count;
        let mut best_two = [0; 2];
        let best_two = &mut best_two[..size.min(2)];
        let sums: Vec<T> = scores
            .chunks_exact(size)
            .map(|group| {
                top_k::select(group, best_two);
                let scores = best_two.iter().map(|&e| group[e as usize]);
                scores.fold(T::ZERO, |sum, score| sum + score)
            })
            .collect();
        let mut kept = vec![0; self.kept];
        top_k::select(&sums, &mut kept);
        for (group, scores) in scores.chunks_exact_mut(size).enumerate() {
            if !kept.contains(&(group as u32)) {
                scores.fill(T::LOWEST);
            }
        }
    }
}

/// b_e += rate sign(mean load - load_e), exact in the counts.
///
/// # Shapes
/// bias: experts, as the load.
pub fn move_bias<T: Real>(load: &Load, rate: f64, bias: &mut [T]) {
    let total: u64 = load.all.iter().sum();
    let experts = bias.len() as u64;
    for (bias, &load) in bias.iter_mut().zip(&load.all) {
        *bias += T::of(match (load * experts).cmp(&total) {
            std::cmp::Ordering::Less => rate,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => -rate,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restricted(count: usize, kept: usize, scores: &[f64]) -> Vec<bool> {
        let mut scores = scores.to_vec();
        Groups { count, kept }.restrict(&mut scores);
        scores.iter().map(|s| s.is_finite()).collect()
    }

    #[test]
    fn the_groups_with_the_best_two_experts_stay_open_and_the_lower_of_equals() {
        // A third good expert of a group does not count.
        let scores = [3.0, 3.0, 3.0, 4.0, 2.5, 0.0, 6.0, 0.0, 0.0];
        let open = |kept| restricted(3, kept, &scores);
        let (yes, no) = ([true; 3], [false; 3]);
        assert_eq!(open(1), [no, yes, no].concat());
        assert_eq!(open(2), [yes, yes, no].concat(), "equal sums");
        assert_eq!(open(3), [yes; 3].concat());
        assert_eq!(
            restricted(4, 1, &[1.0, 3.0, 2.0, 3.0]),
            [false, true, false, false]
        );
    }

    #[test]
    fn groups_that_do_not_divide_the_experts_or_leave_too_few_are_refused() {
        assert!(Groups { count: 3, kept: 2 }.check(4, 6).is_ok());
        for groups in [
            Groups { count: 4, kept: 1 },
            Groups { count: 0, kept: 0 },
            Groups { count: 3, kept: 0 },
            Groups { count: 3, kept: 4 },
            Groups { count: 3, kept: 1 },
        ] {
            let message = groups.check(4, 6).unwrap_err().to_string();
            assert!(message.starts_with("router.selection."), "{message}");
        }
    }

    #[test]
    fn busy_experts_lose_bias_idle_ones_gain_it_and_average_ones_keep_it() {
        let load = Load {
            all: vec![9, 0, 3, 0],
            first: vec![0; 4],
        };
        let mut bias = [0.5_f64; 4];
        move_bias(&load, 0.125, &mut bias);
        assert_eq!(bias, [0.375, 0.625, 0.5, 0.625]);
    }
}
