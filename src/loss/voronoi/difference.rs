//! Differences between fitted and true atoms, and the cells they define.

use crate::model::{Expert, ExpertGate};

/// Fitted minus true parameters of one pair of atoms.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    /// Empty without a router. Shape: d.
    pub gate_slope: Vec<f64>,
    pub gate_intercept: f64,
    /// Squared norm of the difference in (scale, slope); infinite between
    /// experts of different kinds, which therefore never share a cell.
    pub slope_sq: f64,
    pub intercept: f64,
    pub variance: f64,
}

impl Difference {
    fn between(fitted: &Expert, truth: &Expert) -> Self {
        let (gate_slope, gate_intercept) = match (&fitted.gate, &truth.gate) {
            (
                ExpertGate::Router { slope, intercept },
                ExpertGate::Router {
                    slope: true_slope,
                    intercept: true_intercept,
                },
            ) => (subtract(slope, true_slope), intercept - true_intercept),
            _ => (Vec::new(), 0.0),
        };
        let scale = fitted.scale.unwrap_or(1.0) - truth.scale.unwrap_or(1.0);
        Difference {
            gate_slope,
            gate_intercept,
            slope_sq: if fitted.kind == truth.kind {
                scale * scale + norm_sq(&subtract(&fitted.slope, &truth.slope))
            } else {
                f64::INFINITY
            },
            intercept: fitted.intercept - truth.intercept,
            variance: fitted.variance - truth.variance,
        }
    }

    /// Squared norm of the difference in (scale, slope, intercept, variance).
    pub fn expert_sq(&self) -> f64 {
        self.slope_sq + self.intercept * self.intercept + self.variance * self.variance
    }

    /// Squared norm of the difference in all parameters of a router's expert.
    pub fn all_sq(&self) -> f64 {
        norm_sq(&self.gate_slope) + self.gate_intercept * self.gate_intercept + self.expert_sq()
    }
}

/// Entry `[i][j]`: fitted atom i minus true atom j.
pub(super) fn differences(fitted: &[Expert], truth: &[Expert]) -> Vec<Vec<Difference>> {
    let row = |f| truth.iter().map(|t| Difference::between(f, t)).collect();
    fitted.iter().map(row).collect()
}

/// The true atom nearest to each fitted one; ties go to the lower index.
pub(super) fn nearest(
    differences: &[Vec<Difference>],
    distance: impl Fn(&Difference) -> f64,
) -> Vec<usize> {
    let nearest_in_row = |row: &Vec<Difference>| {
        let mut best = (f64::INFINITY, 0);
        for (j, difference) in row.iter().enumerate() {
            let candidate = distance(difference);
            if candidate < best.0 {
                best = (candidate, j);
            }
        }
        best.1
    };
    differences.iter().map(nearest_in_row).collect()
}

pub(super) fn subtract(a: &[f64], b: &[f64]) -> Vec<f64> {
    std::iter::zip(a, b).map(|(a, b)| a - b).collect()
}

pub(super) fn norm_sq(a: &[f64]) -> f64 {
    a.iter().map(|v| v * v).sum()
}

/// |a - b|^2
pub(super) fn distance_sq(a: &[f64], b: &[f64]) -> f64 {
    std::iter::zip(a, b).map(|(a, b)| (a - b) * (a - b)).sum()
}
