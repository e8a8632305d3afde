//! Regression functions of nearby mixtures.
//!
//! With a_i the share of atom i in its true atom j(i), w the true weights, g_i the
//! change of its log-weight and d_i that of its mean,
//!
//! ```text
//! f_G - f_G* = 1 / (1 + B) sum_i w_j(i) a_i ((e^g_i - 1) (m_j(i) + d_i - f_G*) + d_i)
//! B          = sum_i w_j(i) a_i (e^g_i - 1)
//! ```
//!
//! Every term is of the size of the deviations: no difference of means is taken.

use super::neighbourhood::{Column, Comparison, Deviation, Neighbourhood};
use ndarray::{Array1, Array2};

/// f_G - f_G* at each input, in units whose squares add up to its mean square.
pub(super) fn compare(near: &Neighbourhood, deviation: &Deviation) -> Comparison {
    let unit = (near.inputs.len() as f64).sqrt().recip();
    let mut residuals = Array1::zeros(near.inputs.len());
    let mut rounding = 0.0;
    for (residual, input) in residuals.iter_mut().zip(&near.inputs) {
        let terms = input.weights.iter().zip(&input.means);
        let regression: f64 = terms.map(|(w, m)| w * m).sum();
        let (mut excess, mut surplus, mut size) = (0.0, 0.0, 0.0);
        for i in 0..near.atoms() {
            let j = near.owners[i];
            let change = near.change(i, deviation, input);
            let mass = input.weights[j] * deviation.shares[i];
            let growth = change.log_weight.exp_m1();
            let apart = input.means[j] + change.mean - regression;
            excess += mass * growth;
            surplus += mass * (growth * apart + change.mean);
            let weight_size = (1.0 + growth) * change.log_weight_size * apart.abs();
            size += mass * (weight_size + change.mean_size);
        }
        *residual = unit * surplus / (1.0 + excess);
        let noise = unit * size / (1.0 + excess);
        rounding += noise * noise;
    }
    Comparison {
        residuals,
        // Four roundings per term.
        rounding: 4.0 * f64::EPSILON * rounding.sqrt(),
    }
}

/// d f_G / d m_i = w_i (1 + s_i' (m_i - f_G)), the second term where the gate is
/// driven by the mean; d f_G / d score_i = w_i (m_i - f_G).
pub(super) fn jacobian(near: &Neighbourhood, deviation: &Deviation) -> Array2<f64> {
    let parameters = near.parameters(deviation);
    let unit = (near.inputs.len() as f64).sqrt().recip();
    let width = near.columns.len();
    let kind = parameters.gate.kind;
    let mut jacobian = Array2::zeros((near.inputs.len(), near.atoms() * width));
    for (k, input) in near.inputs.iter().enumerate() {
        let x = &input.x;
        let law = parameters.conditional(x);
        let weights: Vec<f64> = law.log_weights.iter().map(|w| w.exp()).collect();
        let regression: f64 = weights.iter().zip(&law.means).map(|(w, m)| w * m).sum();
        for (i, expert) in parameters.experts.iter().enumerate() {
            let gate = unit * weights[i] * (law.means[i] - regression);
            let driven = match kind.is_router() {
                true => 0.0,
                false => gate * kind.log_weight(law.means[i]).first,
            };
            let mean = unit * weights[i] + driven;
            let activation = expert.kind.activation(expert.predictor(x));
            let hidden = mean * expert.scale.unwrap_or(1.0) * activation.first;
            for (c, column) in near.columns.iter().enumerate() {
                jacobian[[k, i * width + c]] = match column {
                    Column::Scale => mean * activation.value,
                    Column::Slope(j) => hidden * x[*j],
                    Column::Intercept => hidden,
                    Column::LogVariance => 0.0,
                    Column::GateSlope(j) => gate * x[*j],
                    Column::LogWeight => gate,
                };
            }
        }
    }
    jacobian
}
