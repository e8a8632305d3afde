//! Errors of single parameters, cell by cell: what a Voronoi loss adds up.
//!
//! Every fitted expert belongs to the cell A_j of a true expert j: to its match
//! (`alignment`) where both mixtures have as many experts, to the nearest one
//! otherwise. With w_i the share of fitted expert i in the mass of its cell,
//!
//! ```text
//! error_j(theta) = ( sum over i in A_j of w_i |theta_i - theta*_j|^2 )^(1/2)
//! ```
//!
//! which is |theta_j - theta*_j| in a cell of one. Where several experts share a
//! cell, the error of an average would hide that they are apart, and a median
//! over replicates that some fits do not split at all (`docs/theory.md`, 5).

use super::alignment::{aligned, distance_sq};
use crate::model::{Expert, ExpertGate, Parameters};
use crate::num::log_space::log_sum_exp;

/// A parameter that every expert has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Slope, Euclidean norm over inputs.
    Slope,
    /// Intercept.
    Intercept,
    /// Output weight of a hidden unit.
    Scale,
    /// Natural logarithm of the variance.
    LogVariance,
    /// Router slope, relative to the mean router slope in the cell of the last
    /// true expert.
    GateSlope,
    /// Logarithm of the mass of the whole cell, relative to the cell of the last
    /// true expert: a bias, or a router's intercept.
    LogMass,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 6] = [
        Quantity::Slope,
        Quantity::Intercept,
        Quantity::Scale,
        Quantity::LogVariance,
        Quantity::GateSlope,
        Quantity::LogMass,
    ];

    /// The word in files.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Slope => "slope",
            Quantity::Intercept => "intercept",
            Quantity::Scale => "scale",
            Quantity::LogVariance => "log_variance",
            Quantity::GateSlope => "gate_slope",
            Quantity::LogMass => "log_mass",
        }
    }
}

/// The error of one quantity in the cell of true expert `expert`; NaN if the
/// cell is empty or the experts lack the quantity.
pub fn cell_error(
    quantity: Quantity,
    expert: usize,
    fitted: &Parameters,
    truth: &Parameters,
) -> f64 {
    let fitted = aligned(fitted, truth).unwrap_or_else(|| fitted.clone());
    let cells = cells(&fitted, truth);
    let log_mass = |j: usize| {
        let inside = members(&fitted, &cells, j);
        log_sum_exp(&inside.map(|e| e.log_mass()).collect::<Vec<_>>())
    };
    let last = truth.experts.len() - 1;
    let true_expert = &truth.experts[expert];
    if let Quantity::LogMass = quantity {
        let fitted_ratio = log_mass(expert) - log_mass(last);
        let true_ratio = true_expert.log_mass() - truth.experts[last].log_mass();
        let error = (fitted_ratio - true_ratio).abs();
        return if error.is_finite() { error } else { f64::NAN };
    }
    let total = log_mass(expert);
    let origin = gate_origin(&fitted, &cells, last);
    let true_origin = gate_slope(&truth.experts[last]).unwrap_or_default();
    let mut sum = 0.0;
    let mut count = 0;
    for e in members(&fitted, &cells, expert) {
        let share = (e.log_mass() - total).exp();
        let difference_sq = match quantity {
            Quantity::Slope => squared_distance(&e.slope, &true_expert.slope),
            Quantity::Intercept => (e.intercept - true_expert.intercept).powi(2),
            Quantity::Scale => match (e.scale, true_expert.scale) {
                (Some(a), Some(b)) => (a - b).powi(2),
                _ => f64::NAN,
            },
            Quantity::LogVariance => (e.variance / true_expert.variance).ln().powi(2),
            Quantity::GateSlope => match (gate_slope(e), gate_slope(true_expert)) {
                (Some(a), Some(b)) => {
                    let relative = |slope: &[f64], origin: &[f64]| -> Vec<f64> {
                        slope.iter().zip(origin).map(|(a, b)| a - b).collect()
                    };
                    squared_distance(&relative(&a, &origin), &relative(&b, &true_origin))
                }
                _ => f64::NAN,
            },
            Quantity::LogMass => unreachable!("a property of the cell"),
        };
        sum += share * difference_sq;
        count += 1;
    }
    if count == 0 { f64::NAN } else { sum.sqrt() }
}

/// The true expert of each fitted one. Shape: k_fit.
fn cells(fitted: &Parameters, truth: &Parameters) -> Vec<usize> {
    if fitted.experts.len() == truth.experts.len() {
        return (0..truth.experts.len()).collect();
    }
    let nearest = |e: &Expert| {
        let distances = truth.experts.iter().map(|t| distance_sq(e, t));
        let best = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(0, |(j, _)| j)
    };
    fitted.experts.iter().map(nearest).collect()
}

fn members<'a>(
    fitted: &'a Parameters,
    cells: &'a [usize],
    cell: usize,
) -> impl Iterator<Item = &'a Expert> {
    let pairs = fitted.experts.iter().zip(cells);
    pairs.filter(move |(_, j)| **j == cell).map(|(e, _)| e)
}

/// The mean router slope in a cell, weighted by mass; empty without routers.
fn gate_origin(fitted: &Parameters, cells: &[usize], cell: usize) -> Vec<f64> {
    let masses: Vec<f64> = members(fitted, cells, cell).map(Expert::log_mass).collect();
    let total = log_sum_exp(&masses);
    let mut origin = Vec::new();
    for (e, mass) in members(fitted, cells, cell).zip(&masses) {
        let slope = gate_slope(e).unwrap_or_default();
        origin.resize(slope.len(), 0.0);
        for (o, s) in origin.iter_mut().zip(&slope) {
            *o += (mass - total).exp() * s;
        }
    }
    origin
}

fn gate_slope(expert: &Expert) -> Option<Vec<f64>> {
    match &expert.gate {
        ExpertGate::Router { slope, .. } => Some(slope.clone()),
        _ => None,
    }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExpertKind, Gate, GateKind, Selection, VarianceStructure};

    fn expert(slope: f64, intercept: f64, variance: f64, gate: (f64, f64)) -> Expert {
        Expert {
            kind: ExpertKind::Linear,
            slope: vec![slope],
            intercept,
            scale: None,
            variance,
            gate: ExpertGate::Router {
                slope: vec![gate.0],
                intercept: gate.1,
            },
        }
    }

    fn router(experts: Vec<Expert>) -> Parameters {
        Parameters {
            gate: Gate {
                kind: GateKind::Softmax,
                top_k: None,
                selection: Selection::Score,
            },
            variance_structure: VarianceStructure::PerExpert,
            experts,
        }
    }

    #[test]
    fn a_cell_of_one_has_the_plain_error_whatever_the_order() {
        let truth = router(vec![
            expert(1.0, 0.0, 0.5, (0.8, 0.2)),
            expert(-1.0, 2.0, 0.3, (0.0, 0.0)),
        ]);
        // Translated gate, exchanged experts.
        let fitted = router(vec![
            expert(-1.0, 2.5, 0.3, (3.0, 1.0)),
            expert(1.25, 0.0, 1.0, (4.0, 1.5)),
        ]);
        let error = |quantity, j| cell_error(quantity, j, &fitted, &truth);
        assert!((error(Quantity::Slope, 0) - 0.25).abs() < 1e-15);
        assert!((error(Quantity::Intercept, 1) - 0.5).abs() < 1e-15);
        assert!((error(Quantity::LogVariance, 0) - 2f64.ln()).abs() < 1e-15);
        assert!((error(Quantity::GateSlope, 0) - 0.2).abs() < 1e-14);
        assert!((error(Quantity::LogMass, 0) - 0.3).abs() < 1e-14);
        assert!(error(Quantity::Scale, 0).is_nan());
    }

    #[test]
    fn copies_that_are_apart_are_wrong_though_their_mean_is_right() {
        let truth = router(vec![
            expert(1.0, 0.0, 0.5, (0.8, 0.2)),
            expert(-1.0, 5.0, 0.3, (0.0, 0.0)),
        ]);
        let third = 0.2 + (1.0f64 / 3.0).ln();
        let rest = 0.2 + (2.0f64 / 3.0).ln();
        let fitted = router(vec![
            expert(1.0, 0.2, 0.5, (0.8, third)),
            expert(1.0, -0.1, 0.5, (0.8, rest)),
            expert(-1.0, 5.0, 0.3, (0.0, 0.0)),
        ]);
        let expected = (0.04f64 / 3.0 + 0.01 * 2.0 / 3.0).sqrt();
        let found = cell_error(Quantity::Intercept, 0, &fitted, &truth);
        assert!((found - expected).abs() < 1e-14);
        assert!(cell_error(Quantity::LogMass, 0, &fitted, &truth) < 1e-14);
        assert!(cell_error(Quantity::GateSlope, 0, &fitted, &truth) < 1e-14);
    }

    #[test]
    fn an_empty_cell_has_no_error() {
        let truth = router(vec![
            expert(1.0, 0.0, 0.5, (0.8, 0.2)),
            expert(-1.0, 5.0, 0.3, (0.0, 0.0)),
        ]);
        let fitted = router(vec![expert(1.0, 0.0, 0.5, (0.8, 0.2)); 3]);
        assert!(cell_error(Quantity::Slope, 1, &fitted, &truth).is_nan());
    }
}
