//! Which expert a row belongs to.

use crate::model::{Data, Parameters};
use crate::num::log_space::log_sum_exp;
use ndarray::Array2;

/// r_i(x_n, y_n) = w_i N(y; m_i, v_i) / p(y | x). Shape: n, experts.
pub fn responsibilities(parameters: &Parameters, data: &Data) -> Array2<f64> {
    let experts = parameters.experts.len();
    let mut all = Array2::zeros((data.len(), experts));
    for (n, mut row) in all.rows_mut().into_iter().enumerate() {
        let (x, y) = data.row(n);
        let conditional = parameters.conditional(&x);
        let terms: Vec<f64> = (0..experts).map(|i| conditional.log_term(i, y)).collect();
        let total = log_sum_exp(&terms);
        let each = row.iter_mut().zip(&terms);
        each.for_each(|(r, term)| *r = (term - total).exp());
    }
    all
}

/// sum_n r_i(x_n, y_n): how many rows each expert explains. Shape: experts.
pub fn effective_rows(parameters: &Parameters, data: &Data) -> Vec<f64> {
    responsibilities(parameters, data)
        .sum_axis(ndarray::Axis(0))
        .to_vec()
}
