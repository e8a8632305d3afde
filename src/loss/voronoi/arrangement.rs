//! The softmax router's loss as a function of the translation while the cells
//! stay as they are.

use super::convex::{Oracle, minimise};
use super::difference::{distance_sq, norm_sq};
use super::mass::{Cell, Gauge, infimum_over_factor};
use crate::num::top_k::select_top_k;

/// `normal . t <= bound`: fitted atom `atom` is no nearer to true atom `rival`
/// than to its own.
pub(super) struct Constraint {
    pub atom: usize,
    pub rival: usize,
    pub normal: Vec<f64>,
    pub bound: f64,
}

impl Constraint {
    fn excess(&self, translation: &[f64]) -> f64 {
        dot(&self.normal, translation) - self.bound
    }

    pub fn is_tight(&self, translation: &[f64]) -> bool {
        let scale = self.bound.abs() + norm_sq(&self.normal).sqrt();
        self.excess(translation).abs() <= 1e-6 * scale
    }
}

/// One fitted atom's part of a cell's spread,
/// mass ((|t - centre|^2 + offset_sq)^(power / 2) + constant).
pub(super) struct Term<'a> {
    pub cell: usize,
    pub mass: f64,
    pub centre: &'a [f64],
    pub offset_sq: f64,
    pub power: i32,
    pub constant: f64,
}

impl Term<'_> {
    /// |t - centre|^2 + offset_sq, under a root.
    fn norm(&self, translation: &[f64]) -> f64 {
        (distance_sq(translation, self.centre) + self.offset_sq).sqrt()
    }

    fn value(&self, translation: &[f64]) -> f64 {
        self.mass * (self.norm(translation).powi(self.power) + self.constant)
    }

    fn add_gradient(&self, translation: &[f64], gradient: &mut [f64]) {
        let norm = self.norm(translation);
        if norm == 0.0 {
            // At its kink the term has 0 among its subgradients.
            return;
        }
        let slope = self.mass * f64::from(self.power) * norm.powi(self.power - 2);
        for (c, entry) in gradient.iter_mut().enumerate() {
            *entry += slope * (translation[c] - self.centre[c]);
        }
    }
}

/// The loss as a function of t0 and t while the cells stay as they are; e^t0 is
/// called the factor.
pub(super) struct Arrangement<'a> {
    /// Masses only; the spread depends on t.
    pub cells: Vec<Cell>,
    /// One per fitted atom; their masses sum to one.
    pub terms: Vec<Term<'a>>,
    pub kept: usize,
}

impl Arrangement<'_> {
    fn cells_at(&self, translation: &[f64]) -> Vec<Cell> {
        let mut cells = self.cells.clone();
        for term in &self.terms {
            cells[term.cell].spread += term.value(translation);
        }
        cells
    }

    /// The infimum over the factor at the translation t.
    pub fn loss_at(&self, translation: &[f64]) -> f64 {
        infimum_over_factor(&self.cells_at(translation), self.kept, Gauge::Free)
    }

    /// The infimum over the factor, and over t under the constraints; where it
    /// is attained, and its value. `None`, or some value from `cutoff` upwards,
    /// if it is not below `cutoff`, which must be finite.
    pub fn minimum(&self, constraints: &[Constraint], cutoff: f64) -> Option<(Vec<f64>, f64)> {
        // Spreads only add to it.
        let mass_part = infimum_over_factor(&self.cells, self.kept, Gauge::Free);
        if mass_part >= cutoff {
            return None;
        }
        let translation = if self.kept < self.cells.len() {
            self.minimise_sparse(constraints, cutoff)
        } else {
            self.minimise_spread(constraints, cutoff - mass_part)
        }?;
        let loss = self.loss_at(&translation);
        Some((translation, loss))
    }

    /// The mean of the terms' centres by mass, where every search starts.
    ///
    /// As |u|^power >= |u| - 1, the sum of all spreads is at least
    /// |t - mean| - 1; as masses sum to one, the mass part of the dense loss is
    /// at least |factor - 1|.
    fn mean_centre(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.terms[0].centre.len()];
        for term in &self.terms {
            for (entry, centre) in mean.iter_mut().zip(term.centre) {
                *entry += term.mass * centre;
            }
        }
        mean
    }

    /// Minimises the sum of all spreads. Where it is below `cutoff`,
    /// |t - mean| < cutoff + 1.
    fn minimise_spread(&self, constraints: &[Constraint], cutoff: f64) -> Option<Vec<f64>> {
        let oracle = |t: &[f64], cut: &mut [f64]| {
            if let Some(violated) = constraints.iter().find(|c| c.excess(t) > 0.0) {
                cut.copy_from_slice(&violated.normal);
                return Oracle::Infeasible;
            }
            for term in &self.terms {
                term.add_gradient(t, cut);
            }
            Oracle::Feasible(self.terms.iter().map(|term| term.value(t)).sum())
        };
        let found = minimise(self.mean_centre(), cutoff + 1.0, cutoff, oracle);
        found.map(|(translation, _)| translation)
    }

    /// Minimises the sum of the K = `kept` largest of k terms over (factor, t)
    /// together, in which it is convex. It is at least K / k of the sum of all
    /// terms: where it is below `cutoff`, |factor - 1| + |t - mean| is below
    /// cutoff k / K + 1.
    fn minimise_sparse(&self, constraints: &[Constraint], cutoff: f64) -> Option<Vec<f64>> {
        let oracle = |x: &[f64], cut: &mut [f64]| {
            let (factor, t) = (x[0], &x[1..]);
            if let Some(violated) = constraints.iter().find(|c| c.excess(t) > 0.0) {
                cut[1..].copy_from_slice(&violated.normal);
                return Oracle::Infeasible;
            }
            let cells = self.cells_at(t);
            let heights: Vec<f64> = cells.iter().map(|c| c.term(factor)).collect();
            let mut largest = vec![false; cells.len()];
            select_top_k(&heights, self.kept, &mut largest);

            let mut value = 0.0;
            for (j, cell) in cells.iter().enumerate().filter(|(j, _)| largest[*j]) {
                value += heights[j];
                let sign = (factor * cell.true_mass - cell.fitted_mass).signum();
                cut[0] += sign * cell.true_mass;
            }
            for term in self.terms.iter().filter(|term| largest[term.cell]) {
                term.add_gradient(t, &mut cut[1..]);
            }
            Oracle::Feasible(value)
        };
        let mut start = self.mean_centre();
        start.insert(0, 1.0);
        let radius = cutoff * self.cells.len() as f64 / self.kept as f64 + 1.0;
        let found = minimise(start, radius, cutoff, oracle);
        found.map(|(x, _)| x[1..].to_vec())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    std::iter::zip(a, b).map(|(a, b)| a * b).sum()
}
