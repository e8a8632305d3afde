//! `[optimiser]`: AdamW, clipping and the learning rate.

use crate::error::{Error, Result};
use crate::train::config::within;
use serde::{Deserialize, Serialize};

/// `[optimiser]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimiser {
    /// Largest learning rate.
    pub rate: f64,
    /// Steps of the linear rise from 0.
    pub warm_up: u64,
    /// The way down.
    pub decay_to: Decline,
    /// Share of `rate` at the last step.
    pub final_share: f64,
    /// b1 and b2 of AdamW.
    pub memory: [f64; 2],
    /// Added to the root of the mean square.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices; gains, biases and routers have none.
    pub weight_decay: f64,
    /// Largest norm of the gradient of all parameters; `inf` for no clipping.
    pub clip: f64,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decline {
    /// It does not.
    Constant,
    /// Along a straight line.
    Linear,
    /// Along half a cosine.
    Cosine,
}

impl Default for Optimiser {
    fn default() -> Self {
        Optimiser {
            rate: 1e-3,
            warm_up: 100,
            decay_to: Decline::Cosine,
            final_share: 0.1,
            memory: [0.9, 0.99],
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}

impl Optimiser {
    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self, steps: u64) -> Result<()> {
        within("optimiser.rate", self.rate, 0.0, 10.0)?;
        within("optimiser.final_share", self.final_share, 0.0, 1.0)?;
        for b in self.memory {
            within("optimiser.memory", b, 0.0, 1.0 - 1e-9)?;
        }
        within("optimiser.epsilon", self.epsilon, f64::MIN_POSITIVE, 1.0)?;
        within("optimiser.weight_decay", self.weight_decay, 0.0, 100.0)?;
        within(
            "optimiser.clip",
            self.clip,
            f64::MIN_POSITIVE,
            f64::INFINITY,
        )?;
        if self.warm_up > steps {
            let message = format!("must be at most the {steps} steps of the run");
            return Err(Error::value("optimiser.warm_up", message));
        }
        Ok(())
    }

    /// The learning rate of step `step` (from 0) of `steps`: (step + 1) / warm_up of
    /// the largest during the warm-up, then down to `final_share` at the last step.
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        if step < self.warm_up {
            return self.rate * (step + 1) as f64 / self.warm_up as f64;
        }
        let rest = steps.saturating_sub(1).saturating_sub(self.warm_up).max(1);
        let s = ((step - self.warm_up) as f64 / rest as f64).min(1.0);
        let down = match self.decay_to {
            Decline::Constant => 0.0,
            Decline::Linear => s,
            Decline::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * s).cos()),
        };
        self.rate * (1.0 - (1.0 - self.final_share) * down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_to_its_largest_and_ends_at_its_share() {
        let optimiser = Optimiser {
            rate: 2.0,
            warm_up: 10,
            ..Optimiser::default()
        };
        assert_eq!(optimiser.rate_at(0, 100), 0.2);
        assert_eq!(optimiser.rate_at(9, 100), 2.0);
        assert_eq!(optimiser.rate_at(10, 100), 2.0);
        assert!((optimiser.rate_at(99, 100) - 0.2).abs() < 1e-15);
        let falling: Vec<f64> = (10..100).map(|s| optimiser.rate_at(s, 100)).collect();
        assert!(falling.windows(2).all(|w| w[1] < w[0]));
        let constant = Optimiser {
            decay_to: Decline::Constant,
            ..optimiser
        };
        assert_eq!(constant.rate_at(99, 100), 2.0);
    }
}
