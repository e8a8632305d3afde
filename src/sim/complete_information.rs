//! The information of a sample whose labels are known.

use super::constants::over_inputs;
use crate::model::{ExpertGate, Model, Point};
use ndarray::Array2;

/// I_c, the Fisher information of (y, z) given x at the truth, in packed
/// coordinates. Shape: layout.
///
/// ```text
/// I_c = E sum_i w_i [ u_i u_i' / v_i + e_i e_i' / 2 ] + E J'(diag w - w w') J
/// ```
///
/// with u_i the gradient of mean i, e_i the log-variance's unit vector (one for
/// all experts if it is shared) and J the derivatives of the log-weights: of the
/// means under competition, of the biases, of the router. The observed
/// information is I_c less what the labels would add, so I_c - I_obs is positive
/// semidefinite. A top-K selection is held fixed; what its moving border tells is
/// not in it.
pub fn complete_information(model: &Model) -> Array2<f64> {
    let parameters = &model.parameters;
    let layout = parameters.layout();
    let size = layout.len();
    let mut information = Array2::zeros((size, size));
    let mut point = Point::new(parameters);
    over_inputs(model, |x, mass| {
        point.observe(parameters, x, 0.0);
        // sum_i w_i J_i
        let mut average = vec![0.0; size];
        for (i, (atom, expert)) in point.atoms.iter().zip(&parameters.experts).enumerate() {
            if atom.weight == 0.0 {
                continue;
            }
            let mut mean = vec![0.0; size];
            let start = layout.mean_offset(i);
            let block = start..start + expert.mean_length();
            atom.mean_features(expert, x, &mut mean[block]);
            let mut log_weight = vec![0.0; size];
            if !matches!(expert.gate, ExpertGate::Router { .. }) {
                for (j, u) in log_weight.iter_mut().zip(&mean) {
                    *j = atom.log_weight.first * u;
                }
            }
            if let Some(offset) = layout.gate_offset(i) {
                let slope = atom.gate_slope(expert);
                let inputs = match expert.gate {
                    ExpertGate::Router { .. } => x,
                    _ => &[],
                };
                for (j, x) in inputs.iter().enumerate() {
                    log_weight[offset + j] = slope * x;
                }
                log_weight[offset + inputs.len()] = slope;
            }
            let weight = mass * atom.weight;
            add_outer(&mut information, weight / expert.variance, &mean);
            add_outer(&mut information, weight, &log_weight);
            let variance = layout.variance_offset(i);
            information[[variance, variance]] += 0.5 * weight;
            for (sum, j) in average.iter_mut().zip(&log_weight) {
                *sum += atom.weight * j;
            }
        }
        add_outer(&mut information, -mass, &average);
    });
    information
}

/// Adds factor v v'.
fn add_outer(matrix: &mut Array2<f64>, factor: f64, v: &[f64]) {
    for (mut row, a) in matrix.rows_mut().into_iter().zip(v) {
        if *a != 0.0 {
            row.iter_mut()
                .zip(v)
                .for_each(|(entry, b)| *entry += factor * a * b);
        }
    }
}
