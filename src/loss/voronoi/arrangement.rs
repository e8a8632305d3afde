//! The softmax router's loss as a function of the translation while the cells
//! stay as they are.

use super::convex::{Oracle, minimise};
use super::difference::{distance_sq, norm_sq};
use super::mass::{Cell, Gauge, infimum_over_mass};
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
    /// The value without its mass, and the factor of t - centre in its gradient.
    fn at(&self, translation: &[f64]) -> (f64, f64) {
        let norm = (distance_sq(translation, self.centre) + self.offset_sq).sqrt();
        // At its kink the term has 0 among its subgradients.
        let slope = if norm > 0.0 {
            f64::from(self.power) * norm.powi(self.power - 2)
        } else {
            0.0
        };
        (norm.powi(self.power) + self.constant, slope)
    }
}

/// The loss as a function of w and t while the cells stay as they are.
pub(super) struct Arrangement<'a> {
    /// Masses only; the spread depends on t.
    pub cells: Vec<Cell>,
    pub terms: Vec<Term<'a>>,
    pub kept: usize,
}

impl Arrangement<'_> {
    fn cells_at(&self, translation: &[f64]) -> Vec<Cell> {
        let mut cells = self.cells.clone();
        for term in &self.terms {
            cells[term.cell].spread += term.mass * term.at(translation).0;
        }
        cells
    }

    /// The infimum over w at the translation t.
    pub fn loss_at(&self, translation: &[f64]) -> f64 {
        infimum_over_mass(&self.cells_at(translation), self.kept, Gauge::Free)
    }

    /// The infimum over w, and over t under the constraints; where it is
    /// attained, and its value. `None` if it is not below the loss at w = 0;
    /// some larger value if it is not below `cutoff`.
    ///
    /// Let T be the `kept` true atoms of largest mass, S and C the sums of S_j
    /// and C_j over T. The loss is at least its value at w = 0 less w (S - C),
    /// so that only translations with C < S matter. As |u| <= 1 + |u|^power,
    /// they lie within 2 of the mean of the centres that belong to T.
    pub fn minimum(&self, constraints: &[Constraint], cutoff: f64) -> Option<(Vec<f64>, f64)> {
        let true_masses: Vec<f64> = self.cells.iter().map(|c| c.true_mass).collect();
        let mut heaviest = vec![false; self.cells.len()];
        select_top_k(&true_masses, self.kept, &mut heaviest);
        let terms = || self.terms.iter().filter(|term| heaviest[term.cell]);
        let mass: f64 = terms().map(|term| term.mass).sum();
        if mass == 0.0 {
            return None;
        }
        let mean = |c: usize| terms().map(|t| t.mass * t.centre[c]).sum::<f64>() / mass;
        let middle: Vec<f64> = (0..self.terms[0].centre.len()).map(mean).collect();

        let translation = if self.kept < self.cells.len() {
            self.minimise_sparse(&middle, 2.0, constraints, cutoff)
        } else {
            self.minimise_dense(&middle, 2.0, constraints)
        }?;
        let loss = self.loss_at(&translation);
        Some((translation, loss))
    }

    /// Minimises the sum of all spreads.
    fn minimise_dense(
        &self,
        middle: &[f64],
        radius: f64,
        constraints: &[Constraint],
    ) -> Option<Vec<f64>> {
        let oracle = |t: &[f64], cut: &mut [f64]| {
            if let Some(violated) = constraints.iter().find(|c| c.excess(t) > 0.0) {
                cut.copy_from_slice(&violated.normal);
                return Oracle::Infeasible;
            }
            let mut value = 0.0;
            for term in &self.terms {
                let (height, slope) = term.at(t);
                value += term.mass * height;
                for (entry, (t, centre)) in cut.iter_mut().zip(t.iter().zip(term.centre)) {
                    *entry += term.mass * slope * (t - centre);
                }
            }
            Oracle::Feasible(value)
        };
        minimise(middle.to_vec(), radius, f64::INFINITY, oracle).map(|(translation, _)| translation)
    }

    /// Minimises the sum of the `kept` largest terms over w and t together, in
    /// the coordinates (w / W, w (t - middle) / (W radius)) in which it is
    /// convex. No minimiser lies beyond W: past the last kink all terms grow,
    /// and where w S_j > 2 for any j the loss exceeds 1, its value at w = 0.
    fn minimise_sparse(
        &self,
        middle: &[f64],
        radius: f64,
        constraints: &[Constraint],
        cutoff: f64,
    ) -> Option<Vec<f64>> {
        let occupied = || self.cells.iter().filter(|c| c.fitted_mass > 0.0);
        let last_kink = occupied().map(|c| c.true_mass / c.fitted_mass);
        let w_max = occupied()
            .map(|c| 2.0 / c.fitted_mass)
            .fold(last_kink.fold(0.0, f64::max), f64::min);
        let translation = |x: &[f64]| -> Vec<f64> {
            let shift = x[1..].iter().map(|v| radius * v / x[0]);
            shift.zip(middle).map(|(shift, m)| m + shift).collect()
        };
        let oracle = |x: &[f64], cut: &mut [f64]| {
            if x[0] <= 0.0 {
                cut[0] = -1.0;
                return Oracle::Infeasible;
            }
            let t = translation(x);
            if let Some(violated) = constraints.iter().find(|c| c.excess(&t) > 0.0) {
                // normal . t <= bound, multiplied by w.
                cut[0] = dot(&violated.normal, middle) - violated.bound;
                for (entry, normal) in cut[1..].iter_mut().zip(&violated.normal) {
                    *entry = radius * normal;
                }
                return Oracle::Infeasible;
            }
            let w = w_max * x[0];
            let cells = self.cells_at(&t);
            let heights: Vec<f64> = cells.iter().map(|c| c.term(w)).collect();
            let mut largest = vec![false; cells.len()];
            select_top_k(&heights, self.kept, &mut largest);

            let mut value = 0.0;
            for (j, cell) in cells.iter().enumerate().filter(|(j, _)| largest[*j]) {
                value += heights[j];
                let sign = (w * cell.fitted_mass - cell.true_mass).signum();
                cut[0] += w_max * (sign * cell.fitted_mass + cell.spread);
            }
            // The perspective w C(t) has gradient grad C in w (t - middle) and
            // C - (t - middle) . grad C in w.
            for term in self.terms.iter().filter(|term| largest[term.cell]) {
                let slope = term.mass * term.at(&t).1;
                for c in 0..t.len() {
                    let partial = slope * (t[c] - term.centre[c]);
                    cut[0] -= w_max * partial * (t[c] - middle[c]);
                    cut[c + 1] += w_max * radius * partial;
                }
            }
            Oracle::Feasible(value)
        };
        // The ball around (1/2, 0) that holds 0 <= w <= W, |t - middle| <= radius.
        let mut start = vec![0.0; middle.len() + 1];
        start[0] = 0.5;
        minimise(start, 1.25f64.sqrt(), cutoff, oracle).map(|(x, _)| translation(&x))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    std::iter::zip(a, b).map(|(a, b)| a * b).sum()
}
