//! One pass over data: the contract between estimators and hardware.
//!
//! An estimator sees data only through these operations. Every sum runs over
//! fixed blocks of rows in a fixed order, so a result does not depend on the
//! number of threads.

mod cpu;
pub mod cuda;
mod labelled;
mod reference;

pub use cpu::Cpu;
pub use labelled::Labelled;
pub use reference::Reference;

use crate::model::{Data, Parameters};
use ndarray::{Array1, Array2};

/// Batched operations on (parameters, data).
pub trait Backend: Sync {
    /// sum_n count_n log p(y_n | x_n)
    fn log_likelihood(&self, parameters: &Parameters, data: &Data) -> f64;

    /// The log-likelihood and its gradient in packed coordinates.
    fn gradient(&self, parameters: &Parameters, data: &Data) -> (f64, Array1<f64>);

    /// The log-likelihood with first and second derivatives.
    fn derivatives(&self, parameters: &Parameters, data: &Data) -> Derivatives;

    /// sum_n score_n score_n^T, positive semidefinite everywhere. Shape: P, P.
    fn score_outer(&self, parameters: &Parameters, data: &Data) -> Array2<f64>;

    /// What one step of expectation maximisation needs.
    fn em_statistics(&self, parameters: &Parameters, data: &Data) -> EmStatistics;
}

/// The log-likelihood and its derivatives in packed coordinates, sums over rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Derivatives {
    /// sum_n log p(y_n | x_n)
    pub log_likelihood: f64,
    /// Its gradient, the score. Shape: P.
    pub gradient: Array1<f64>,
    /// Its Hessian. Shape: P, P.
    pub hessian: Array2<f64>,
}

/// Sums over rows for one expectation-maximisation step (`docs/methods.md`).
///
/// r is a responsibility, w a weight, z a residual, u the gradient of the
/// expert's mean in its own parameters, v its variance.
#[derive(Clone, Debug, PartialEq)]
pub struct EmStatistics {
    /// sum_n log p(y_n | x_n)
    pub log_likelihood: f64,
    /// One entry per expert.
    pub experts: Vec<ExpertStatistics>,
    /// Score of the gate coordinates. Shape: number of gate coordinates G.
    pub gate_score: Array1<f64>,
    /// Their Fisher information given x. Shape: G, G.
    pub gate_information: Array2<f64>,
}

/// The sums that belong to one expert; m parameters of its mean.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertStatistics {
    /// sum r
    pub responsibility: f64,
    /// sum r z^2
    pub squares: f64,
    /// Score of the mean's parameters, gate part included. Shape: m.
    pub score: Array1<f64>,
    /// sum (L + r / v) u u^T with L the gate's curvature bound. Shape: m, m.
    pub curvature: Array2<f64>,
    /// sum r u u^T. Shape: m, m.
    pub gram: Array2<f64>,
    /// sum r z u. Shape: m.
    pub moment: Array1<f64>,
}
