//! What regular asymptotic theory predicts exactly: the number of parameters,
//! the Fisher information, and the distance it puts on parameters.
//!
//! For an exactly specified dense mixture with P free parameters
//!
//! ```text
//! n (fit - truth)' I (fit - truth) -> chi^2_P     8 n E_X h^2 -> chi^2_P
//! 2 (loglik(fit) - loglik(truth))  -> chi^2_P
//! ```
//!
//! so each has mean P in the limit (Cramer-Rao, Wilks; `docs/theory.md`).

use crate::fit::Bounds;
use crate::loss::alignment::aligned;
use crate::loss::density::{KroneckerLattice, breaks_along_a_line, input_density};
use crate::loss::divergence::{atoms, range};
use crate::model::{Coordinate, InputLaw, Layout, Model, Parameters, Point};
use crate::num::dense::Factor;
use ndarray::{Array1, Array2};
use std::sync::OnceLock;

/// P and the information at a truth, which is integrated when it is first asked
/// for: over several inputs that takes a second, and most commands never ask.
#[derive(Clone, Debug)]
pub struct Regularity {
    /// Free parameters P.
    pub parameters: usize,
    layout: Layout,
    truth: Model,
    free: Vec<usize>,
    rule: InformationRule,
    information: OnceLock<Array2<f64>>,
    bounds: OnceLock<Vec<f64>>,
}

/// The information of one row at a truth over all packed coordinates.
pub type InformationRule = fn(&Model) -> Array2<f64>;

/// Panels of the composite rule over a one-dimensional input.
const PANELS: usize = 48;
/// Points of the lattice over inputs of higher dimension.
const LATTICE: usize = 4096;

impl Regularity {
    /// P, and the information and bounds of an estimator whose information at a
    /// truth is given by `rule`.
    pub fn new(truth: &Model, bounds: &Bounds, rule: InformationRule) -> Self {
        let layout = truth.parameters.layout();
        let free = (0..layout.len()).filter(|&j| !bounds.is_pinned(j));
        Regularity {
            parameters: bounds.dimension(),
            free: free.collect(),
            layout,
            truth: truth.clone(),
            rule,
            information: OnceLock::new(),
            bounds: OnceLock::new(),
        }
    }

    /// The information of one row over all packed coordinates. Shape: layout.
    pub fn information(&self) -> &Array2<f64> {
        self.information.get_or_init(|| (self.rule)(&self.truth))
    }

    /// Cramer-Rao bounds of n Var, one per packed coordinate; NaN where a
    /// coordinate is fixed or the information is singular. Shape: layout.
    pub fn bounds(&self) -> &[f64] {
        self.bounds
            .get_or_init(|| inverse_diagonal(self.information(), &self.free))
    }

    /// What each packed coordinate is.
    pub fn coordinates(&self) -> &[Coordinate] {
        self.layout.coordinates()
    }

    /// Positions of the coordinates that are not fixed.
    pub fn free(&self) -> &[usize] {
        &self.free
    }

    /// The truth in packed coordinates.
    pub fn packed(&self) -> Vec<f64> {
        self.layout.pack(&self.truth.parameters)
    }

    /// The free coordinates of the experts' means and variances, by position: the
    /// same in every family of gates.
    pub fn expert_coordinates(&self) -> impl Iterator<Item = usize> + '_ {
        let is_of_expert = |j: &usize| {
            matches!(
                self.coordinates()[*j],
                Coordinate::Scale(_)
                    | Coordinate::Slope(..)
                    | Coordinate::Intercept(_)
                    | Coordinate::LogVariance(_)
            )
        };
        self.free.iter().copied().filter(is_of_expert)
    }

    /// n delta' I delta with delta the difference to the truth in packed
    /// coordinates, experts matched to the truth's; its mean over replicates is
    /// tr(I n Cov) with the covariance about the truth.
    ///
    /// NaN if the fit has another number of experts or another kind of gate.
    pub fn information_distance(&self, fitted: &Parameters, n: u64) -> f64 {
        let Some(fitted) = aligned(fitted, &self.truth.parameters) else {
            return f64::NAN;
        };
        if fitted.layout() != self.layout {
            return f64::NAN;
        }
        let truth = self.packed();
        let fitted = self.layout.pack(&fitted);
        let mut delta = Array1::zeros(truth.len());
        for &j in &self.free {
            delta[j] = fitted[j] - truth[j];
        }
        n as f64 * delta.dot(&self.information().dot(&delta))
    }
}

/// The diagonal of the inverse of a positive definite matrix restricted to the
/// indices `free`; NaN for all other indices, and everywhere if the restricted
/// matrix is not numerically positive definite.
pub(super) fn inverse_diagonal(matrix: &Array2<f64>, free: &[usize]) -> Vec<f64> {
    let mut diagonal = vec![f64::NAN; matrix.nrows()];
    let restricted = Array2::from_shape_fn((free.len(), free.len()), |(a, b)| {
        matrix[[free[a], free[b]]]
    });
    if let Some(factor) = Factor::new(&restricted) {
        for (k, &j) in free.iter().enumerate() {
            let mut unit = Array1::zeros(free.len());
            unit[k] = 1.0;
            diagonal[j] = factor.solve(&unit)[k];
        }
    }
    diagonal
}

/// E_X int p(y|x) score score' dy in packed coordinates.
///
/// The rule over x is that of `over_inputs`.
pub fn fisher_information(model: &Model) -> Array2<f64> {
    let parameters = &model.parameters;
    let layout = parameters.layout();
    let size = layout.len();
    // Row by row in one block, so that the sums over b below are vectorised.
    let mut sums = vec![0.0; size * size];
    let mut point = Point::new(parameters);
    let mut score = vec![0.0; size];
    let mut add = |x: &[f64], weight: f64| {
        let atoms: Vec<(f64, f64)> = atoms(&parameters.conditional(x)).collect();
        let (low, high, count) = range(&atoms);
        let count = count as usize;
        let step = (high - low) / count as f64;
        for k in 0..=count {
            let y = low + step * k as f64;
            let log_density = parameters.score(&layout, &mut point, x, y, &mut score);
            let mass = weight * step * log_density.exp();
            for (a, row) in sums.chunks_exact_mut(size).enumerate() {
                let factor = mass * score[a];
                for (sum, b) in row[..=a].iter_mut().zip(&score) {
                    *sum += factor * b;
                }
            }
        }
    };
    over_inputs(model, &mut add);
    Array2::from_shape_fn((size, size), |(a, b)| sums[a.max(b) * size + a.min(b)])
}

/// Calls `visit(x, weight)` at the nodes of a rule for E_X, which takes in the
/// kinks of the model along a line.
///
/// d = 1: composite Gauss-Legendre between kinks; grid: exact; d > 1: a
/// Kronecker lattice of 4096 points.
pub(super) fn over_inputs(model: &Model, mut visit: impl FnMut(&[f64], f64)) {
    match &model.input {
        InputLaw::Grid { points, .. } => {
            for x in points {
                visit(x, 1.0 / points.len() as f64);
            }
        }
        law if law.dimension() == 0 => visit(&[], 1.0),
        law if law.dimension() == 1 => {
            let density = input_density(law);
            let breaks = breaks_along_a_line(law, &[&model.parameters]);
            let width = breaks[breaks.len() - 1] - breaks[0];
            for pair in breaks.windows(2) {
                let share = (pair[1] - pair[0]) / width;
                let panels = (share * PANELS as f64).ceil().max(1.0) as usize;
                gauss_legendre(pair[0], pair[1], panels, |x, w| visit(&[x], w * density(x)));
            }
        }
        law => {
            let dimension = law.dimension();
            let lattice = KroneckerLattice::new(dimension);
            let (mut u, mut x) = (vec![0.0; dimension], vec![0.0; dimension]);
            let shift = vec![0.5; dimension];
            for k in 0..LATTICE {
                lattice.point(k, &shift, &mut u);
                law.at_uniforms(&u, &mut x);
                visit(&x, 1.0 / LATTICE as f64);
            }
        }
    }
}

/// Calls `visit(x, weight)` at the nodes of the composite 5-point rule.
fn gauss_legendre(low: f64, high: f64, panels: usize, mut visit: impl FnMut(f64, f64)) {
    const RULE: [(f64, f64); 5] = [
        (-0.906_179_845_938_664, 0.236_926_885_056_189_08),
        (-0.538_469_310_105_683, 0.478_628_670_499_366_47),
        (0.0, 0.568_888_888_888_888_9),
        (0.538_469_310_105_683, 0.478_628_670_499_366_47),
        (0.906_179_845_938_664, 0.236_926_885_056_189_08),
    ];
    let half = 0.5 * (high - low) / panels as f64;
    for panel in 0..panels {
        let centre = low + half * (2 * panel + 1) as f64;
        for (node, weight) in RULE {
            visit(centre + half * node, half * weight);
        }
    }
}
