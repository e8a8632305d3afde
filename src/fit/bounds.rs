//! The compact parameter set: a box in packed coordinates.

use crate::error::{Error, Result};
use crate::model::{Coordinate, Layout};
use serde::{Deserialize, Serialize};

/// What a box lies around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Centre {
    /// Zero; variances lie between the two given.
    #[default]
    Origin,
    /// The truth: limits are distances from its coordinates, and variances lie
    /// between the two given factors times its own.
    Truth,
}

fn is_origin(centre: &Centre) -> bool {
    *centre == Centre::Origin
}

/// The box as a study states it. Part of the estimator, so sizes have no default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bound on the absolute value of slopes, intercepts and output weights.
    pub coefficient: f64,
    /// Bound on the absolute value of biases and router intercepts.
    pub bias: f64,
    /// Bound on the absolute value of router slopes.
    pub gate_slope: f64,
    /// Smallest and largest variance; equal values fix it.
    pub variance: [f64; 2],
    /// Slopes that are held at zero: (expert, input dimension), from 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zero_slopes: Vec<[usize; 2]>,
    /// Router slopes that are held at zero, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zero_gate_slopes: Vec<[usize; 2]>,
    /// What the box lies around.
    #[serde(default, skip_serializing_if = "is_origin")]
    pub centre: Centre,
}

/// Lower and upper bounds of every packed coordinate; equal bounds pin it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Shape: P.
    pub low: Vec<f64>,
    /// Shape: P.
    pub high: Vec<f64>,
}

impl Limits {
    /// Checks signs and order; `table` is where the limits stand in the file.
    ///
    /// # Errors
    /// [`Error::Value`] with the key of the study file.
    pub fn validate(&self, table: &str) -> Result<()> {
        let sizes = [
            ("coefficient", self.coefficient),
            ("bias", self.bias),
            ("gate_slope", self.gate_slope),
        ];
        for (name, size) in sizes {
            if !(size >= 0.0 && size.is_finite()) {
                return Err(Error::value(
                    format!("{table}.{name}"),
                    format!("must be finite and not negative, got {size}"),
                ));
            }
        }
        if self.centre == Centre::Truth && !(self.variance[0] <= 1.0 && self.variance[1] >= 1.0) {
            return Err(Error::value(
                format!("{table}.variance"),
                "must be factors on both sides of 1, as the centre is the truth",
            ));
        }
        let [low, high] = self.variance;
        if !(low > 0.0 && low <= high && high.is_finite()) {
            return Err(Error::value(
                format!("{table}.variance"),
                format!("must be 0 < low <= high, got [{low}, {high}]"),
            ));
        }
        Ok(())
    }

    /// Checks that every slope held at zero exists in `layout`.
    ///
    /// # Errors
    /// [`Error::Value`] with the key of the study file.
    pub fn check_pairs(&self, layout: &Layout, table: &str) -> Result<()> {
        let has = |c: Coordinate| layout.coordinates().contains(&c);
        let slopes = self.zero_slopes.iter().map(|p| ("zero_slopes", p));
        let gates = self
            .zero_gate_slopes
            .iter()
            .map(|p| ("zero_gate_slopes", p));
        for (name, &[i, j]) in slopes.chain(gates) {
            let known = match name {
                "zero_slopes" => has(Coordinate::Slope(i, j)),
                _ => has(Coordinate::GateSlope(i, j)),
            };
            if !known {
                return Err(Error::value(
                    format!("{table}.{name}"),
                    format!("[{i}, {j}] names no slope (expert, input dimension, from 0)"),
                ));
            }
        }
        Ok(())
    }

    /// The bounds of each coordinate of `layout`, around `truth` if that is the
    /// centre.
    ///
    /// # Shapes
    /// `truth`: the layout's length.
    pub fn bounds_around(&self, layout: &Layout, truth: &[f64]) -> Bounds {
        let mut bounds = self.bounds(layout);
        if self.centre == Centre::Truth {
            for (j, value) in truth.iter().enumerate() {
                bounds.low[j] += value;
                bounds.high[j] += value;
            }
        }
        bounds
    }

    /// The bounds of each coordinate of `layout`, around the origin.
    pub fn bounds(&self, layout: &Layout) -> Bounds {
        let symmetric = |size: f64| (-size, size);
        let unless = |held: &[[usize; 2]], i: usize, j: usize, size: f64| {
            symmetric(if held.contains(&[i, j]) { 0.0 } else { size })
        };
        let (low, high) = layout
            .coordinates()
            .iter()
            .map(|c| match *c {
                Coordinate::Slope(i, j) => unless(&self.zero_slopes, i, j, self.coefficient),
                Coordinate::Scale(_) | Coordinate::Intercept(_) => symmetric(self.coefficient),
                Coordinate::LogVariance(_) => (self.variance[0].ln(), self.variance[1].ln()),
                Coordinate::Bias(_) | Coordinate::GateIntercept(_) => symmetric(self.bias),
                Coordinate::GateSlope(i, j) => {
                    unless(&self.zero_gate_slopes, i, j, self.gate_slope)
                }
            })
            .unzip();
        Bounds { low, high }
    }
}

impl Bounds {
    /// Moves `packed` to the nearest point of the box.
    pub fn project(&self, packed: &mut [f64]) {
        for (j, value) in packed.iter_mut().enumerate() {
            *value = value.clamp(self.low[j], self.high[j]);
        }
    }

    /// True if coordinate j has no freedom.
    pub fn is_pinned(&self, j: usize) -> bool {
        self.low[j] == self.high[j]
    }

    /// Number of coordinates that are free to move: the dimension P of the model.
    pub fn dimension(&self) -> usize {
        (0..self.low.len()).filter(|&j| !self.is_pinned(j)).count()
    }

    /// True if coordinate j, not pinned, sits on a bound.
    pub fn is_at_bound(&self, packed: &[f64], j: usize) -> bool {
        !self.is_pinned(j) && (packed[j] <= self.low[j] || packed[j] >= self.high[j])
    }

    /// True if a step along `direction` would leave the box at coordinate j, or
    /// the coordinate is pinned.
    pub fn blocks(&self, packed: &[f64], j: usize, direction: f64) -> bool {
        self.is_pinned(j)
            || (packed[j] <= self.low[j] && direction < 0.0)
            || (packed[j] >= self.high[j] && direction > 0.0)
    }

    /// The coordinates of `layout` that sit on a bound at `packed`.
    pub fn at_bound(&self, layout: &Layout, packed: &[f64]) -> Vec<Coordinate> {
        (0..packed.len())
            .filter(|&j| self.is_at_bound(packed, j))
            .map(|j| layout.coordinates()[j])
            .collect()
    }
}
