//! The law of the input X.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// The law of the input, with independent coordinates unless on a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "lowercase", deny_unknown_fields)]
pub enum InputLaw {
    /// Uniform on the box between `low` and `high`.
    Uniform {
        /// Shape: d.
        low: Vec<f64>,
        /// Shape: d.
        high: Vec<f64>,
    },
    /// Normal, truncated to |x_j - mean_j| <= truncation * sd_j.
    Normal {
        /// Shape: d.
        mean: Vec<f64>,
        /// Standard deviations before truncation. Shape: d.
        sd: Vec<f64>,
        /// Truncation point in standard deviations.
        truncation: f64,
    },
    /// Uniform on the listed points.
    Grid {
        /// Shape: number of points, d.
        points: Vec<Vec<f64>>,
        /// If given, the response lives on a lattice with this step, in units of
        /// the smallest standard deviation, and a sample is the counts of its
        /// cells: any sample size at the cost of a few hundred rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lattice: Option<f64>,
    },
}

impl InputLaw {
    /// Input dimension d.
    pub fn dimension(&self) -> usize {
        match self {
            InputLaw::Uniform { low, .. } => low.len(),
            InputLaw::Normal { mean, .. } => mean.len(),
            InputLaw::Grid { points, .. } => points.first().map_or(0, Vec::len),
        }
    }

    /// True if a sample is the counts of the cells of a lattice.
    pub fn is_lattice(&self) -> bool {
        matches!(
            self,
            InputLaw::Grid {
                lattice: Some(_),
                ..
            }
        )
    }

    /// Checks sizes and domains.
    ///
    /// # Errors
    /// [`Error::Value`] with the key of the model file.
    pub fn validate(&self) -> Result<()> {
        let equal_lengths = |key: &str, a: &[f64], b: &[f64]| {
            if a.len() == b.len() && a.iter().chain(b).all(|v| v.is_finite()) {
                return Ok(());
            }
            Err(Error::value(
                key,
                "must be finite and as long as its partner (low and high, mean and sd)",
            ))
        };
        match self {
            InputLaw::Uniform { low, high } => {
                equal_lengths("input.high", low, high)?;
                if low.iter().zip(high).any(|(l, h)| l >= h) {
                    return Err(Error::value("input.high", "must exceed input.low"));
                }
            }
            InputLaw::Normal {
                mean,
                sd,
                truncation,
            } => {
                equal_lengths("input.sd", mean, sd)?;
                if sd.iter().any(|&s| s <= 0.0) {
                    return Err(Error::value("input.sd", "must be positive"));
                }
                if !(*truncation > 0.0 && truncation.is_finite()) {
                    return Err(Error::value(
                        "input.truncation",
                        "must be positive and finite",
                    ));
                }
            }
            InputLaw::Grid { points, lattice } => {
                if lattice.is_some_and(|step| !(step > 0.0 && step <= 1.0)) {
                    return Err(Error::value(
                        "input.lattice",
                        "must be positive and at most 1 (smallest standard deviation)",
                    ));
                }
                if points.is_empty() {
                    return Err(Error::value("input.points", "at least one point is needed"));
                }
                let dimension = points[0].len();
                if points.iter().any(|p| p.len() != dimension) {
                    return Err(Error::value(
                        "input.points",
                        "all points need the same length",
                    ));
                }
                if points.iter().flatten().any(|v| !v.is_finite()) {
                    return Err(Error::value("input.points", "must be finite"));
                }
            }
        }
        Ok(())
    }

    /// The input at the uniforms `u` in (0, 1)^d, written to `x`: the inverse
    /// distribution function coordinate by coordinate, so that the unit cube
    /// carries every continuous law. A grid uses `u[0]` alone, which is the
    /// first even when d is 0.
    ///
    /// # Shapes
    /// `u`: max(d, 1); `x`: d.
    pub fn at_uniforms(&self, u: &[f64], x: &mut [f64]) {
        match self {
            InputLaw::Uniform { low, high } => {
                for (j, x) in x.iter_mut().enumerate() {
                    *x = low[j] + (high[j] - low[j]) * u[j];
                }
            }
            InputLaw::Normal {
                mean,
                sd,
                truncation,
            } => {
                let law = Normal::standard();
                let below = law.cdf(-truncation);
                for (j, x) in x.iter_mut().enumerate() {
                    let z = law.inverse_cdf(below + (1.0 - 2.0 * below) * u[j]);
                    *x = mean[j] + sd[j] * z.clamp(-truncation, *truncation);
                }
            }
            InputLaw::Grid { points, .. } => {
                let index = (u[0] * points.len() as f64) as usize;
                x.copy_from_slice(&points[index.min(points.len() - 1)]);
            }
        }
    }
}
