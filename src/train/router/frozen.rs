//! SMoE-Dropout (Chen et al. 2023): a random router that is never trained, with a
//! number of experts per token that grows during training.
//!
//! The scores are x W with W drawn once; the weights are
//! [`crate::train::router::combine::Combine::TopKSoftmax`], no balance loss. W gets
//! no gradient, x does.

use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::train::ops::real::Real;
use serde::{Deserialize, Serialize};

/// W with independent entries uniform on +-1/sqrt(width), a function of `stream`.
///
/// # Shapes
/// Result: width, experts.
pub fn weights<T: Real>(stream: &Stream, width: usize, experts: usize) -> Vec<T> {
    let bound = 1.0 / (width as f64).sqrt();
    let entry = |i: usize| {
        let [u, _] = stream.uniform_pair(i as u64, 0);
        T::of(bound * (2.0 * u - 1.0))
    };
    (0..width * experts).map(entry).collect()
}

/// The shape of K between its first and its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// first + (last - first) s
    Linear,
    /// first + (last - first) (1 - cos(pi s)) / 2
    Cosine,
    /// first (last / first)^s
    Exponential,
}

/// Experts per token as a function of the step; decreasing if last < first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveExperts {
    first: usize,
    last: usize,
    curve: Curve,
}

impl ActiveExperts {
    /// From `first` at the first step to `last` at the last one.
    ///
    /// # Errors
    /// [`Error::Value`] unless both lie within 1 and the number of experts.
    pub fn new(first: usize, last: usize, curve: Curve, experts: usize) -> Result<Self> {
        for (key, k) in [("first", first), ("last", last)] {
            if k == 0 || k > experts {
                let message = format!("must be 1 to {experts}, the number of experts");
                return Err(Error::value(format!("router.k_schedule.{key}"), message));
            }
        }
        Ok(ActiveExperts { first, last, curve })
    }

    /// K at `step` (from 0) of `steps`, to the nearest whole number; s = step / (steps - 1).
    pub fn at(&self, step: u64, steps: u64) -> usize {
        let s = step as f64 / (steps.max(2) - 1) as f64;
        let s = s.min(1.0);
        let (first, last) = (self.first as f64, self.last as f64);
        let k = match self.curve {
            Curve::Linear => first + (last - first) * s,
            Curve::Cosine => {
                first + (last - first) * 0.5 * (1.0 - (std::f64::consts::PI * s).cos())
            }
            Curve::Exponential => first * (last / first).powf(s),
        };
        k.round() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn the_number_of_experts_starts_and_ends_where_asked_and_never_turns_back() {
        for curve in [Curve::Linear, Curve::Cosine, Curve::Exponential] {
            for (first, last) in [(8, 16), (16, 2), (3, 3)] {
                let active = ActiveExperts::new(first, last, curve, 16).unwrap();
                let ks: Vec<usize> = (0..100).map(|step| active.at(step, 100)).collect();
                assert_eq!((ks[0], ks[99]), (first, last));
                assert!(ks.is_sorted() || ks.iter().rev().is_sorted());
                assert_eq!(active.at(1000, 100), last, "beyond the horizon");
            }
        }
        let linear = ActiveExperts::new(8, 16, Curve::Linear, 16).unwrap();
        assert_eq!(linear.at(50, 101), 12);
    }

    #[test]
    fn a_schedule_beyond_the_number_of_experts_is_refused() {
        let refused = ActiveExperts::new(8, 17, Curve::Linear, 16).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("router.k_schedule.last: must be 1 to 16")
        );
    }

    #[test]
    fn the_random_router_has_the_variance_of_its_bound() {
        let stream = Stream::named(1, "router", 0, Purpose::Start(0));
        let w: Vec<f64> = weights(&stream, 100, 50);
        assert!(w.iter().all(|w| w.abs() < 0.1));
        let variance = w.iter().map(|w| w * w).sum::<f64>() / 5000.0;
        // Variance 0.01 / 3, relative standard error sqrt(0.8 / 5000) = 0.0126.
        assert!((variance * 300.0 - 1.0).abs() < 0.06);
    }
}
