//! Masses of atoms, and the infimum over the true ones' common factor.

use crate::model::Expert;
use crate::num::log_space::log_sum_exp;

/// Whether masses are known up to a common factor only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Gauge {
    /// The factor is 1.
    Fixed,
    /// The loss is the infimum over the factor e^t0 of the true masses.
    Free,
}

/// The fitted and the true masses. Under a free gauge each sum to one; under a
/// fixed one both are divided by the sum of the true ones.
pub(super) fn masses(
    fitted: &[Expert],
    truth: &[Expert],
    log_mass: impl Fn(&Expert) -> f64,
    gauge: Gauge,
) -> (Vec<f64>, Vec<f64>) {
    let logs = |experts: &[Expert]| experts.iter().map(&log_mass).collect::<Vec<f64>>();
    let (fitted, truth) = (logs(fitted), logs(truth));
    let true_total = log_sum_exp(&truth);
    let fitted_total = match gauge {
        Gauge::Fixed => true_total,
        Gauge::Free => log_sum_exp(&fitted),
    };
    let scaled = |logs: &[f64], total: f64| logs.iter().map(|l| (l - total).exp()).collect();
    (scaled(&fitted, fitted_total), scaled(&truth, true_total))
}

/// The cell of one true atom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    /// omega*_j
    pub true_mass: f64,
    /// S_j
    pub fitted_mass: f64,
    /// C_j
    pub spread: f64,
}

impl Cell {
    pub fn empty(true_mass: f64) -> Self {
        Cell {
            true_mass,
            fitted_mass: 0.0,
            spread: 0.0,
        }
    }

    /// Adds a fitted atom at `distance` from the true one.
    pub fn add(&mut self, mass: f64, distance: f64) {
        self.fitted_mass += mass;
        self.spread += mass * distance;
    }

    /// |S_j - factor omega*_j| + C_j
    pub fn term(&self, factor: f64) -> f64 {
        (self.fitted_mass - factor * self.true_mass).abs() + self.spread
    }

    /// The two affine functions of the factor, (slope, intercept), whose maximum
    /// is [`Cell::term`].
    fn lines(&self) -> [(f64, f64); 2] {
        [
            (self.true_mass, self.spread - self.fitted_mass),
            (-self.true_mass, self.spread + self.fitted_mass),
        ]
    }
}

/// The sum of the `kept` largest terms; reorders them.
pub(super) fn largest_sum(terms: &mut [f64], kept: usize) -> f64 {
    if kept < terms.len() {
        terms.sort_by(|a, b| b.total_cmp(a));
    }
    terms.iter().take(kept).sum()
}

/// The infimum over the true masses' factor of the sum of the `kept` largest
/// terms.
///
/// The sum is convex and piecewise affine in the factor, so that its minimum
/// lies at 0 or where an affine piece ends: at the kink of one cell's term, and,
/// if some cells are dropped, where the terms of two cells cross.
pub(super) fn infimum_over_factor(cells: &[Cell], kept: usize, gauge: Gauge) -> f64 {
    let mut terms = vec![0.0; cells.len()];
    let mut value = |factor: f64| {
        for (term, cell) in terms.iter_mut().zip(cells) {
            *term = cell.term(factor);
        }
        largest_sum(&mut terms, kept)
    };
    if gauge == Gauge::Fixed {
        return value(1.0);
    }
    let mut best = value(0.0);
    let mut consider = |factor: f64| {
        if factor.is_finite() && factor > 0.0 {
            best = best.min(value(factor));
        }
    };
    for cell in cells {
        consider(cell.fitted_mass / cell.true_mass);
    }
    if kept < cells.len() {
        for (j, cell) in cells.iter().enumerate() {
            for other in &cells[..j] {
                for (slope, intercept) in cell.lines() {
                    for (other_slope, other_intercept) in other.lines() {
                        consider((other_intercept - intercept) / (slope - other_slope));
                    }
                }
            }
        }
    }
    best
}
