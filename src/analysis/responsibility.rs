//! Which expert made which row.

use crate::model::{Conditional, Data, Parameters};
use crate::num::log_space::log_sum_exp;
use crate::num::sum::CompensatedSum;
use ndarray::{Array1, Array2};

/// Writes the responsibilities of one row to `shares`:
/// r_i = w_i(x) N(y; m_i(x), v_i) / p(y | x).
///
/// Where every term underflows even as a logarithm (y infinitely far away), the
/// weights themselves.
///
/// # Shapes
/// `shares`: experts.
pub fn responsibilities_at(law: &Conditional, y: f64, shares: &mut [f64]) {
    for (i, share) in shares.iter_mut().enumerate() {
        *share = law.log_term(i, y);
    }
    let mut total = log_sum_exp(shares);
    if total == f64::NEG_INFINITY {
        shares.copy_from_slice(&law.log_weights);
        total = log_sum_exp(shares);
    }
    shares.iter_mut().for_each(|r| *r = (*r - total).exp());
}

/// The responsibilities of every row. Shape: n, experts; rows sum to 1.
pub fn responsibilities(parameters: &Parameters, data: &Data) -> Array2<f64> {
    let mut all = Array2::zeros((data.len(), parameters.experts.len()));
    let mut x = vec![0.0; data.dimension()];
    let mut law = parameters.conditional(&x);
    for (i, mut row) in all.rows_mut().into_iter().enumerate() {
        let y = data.read_row(i, &mut x);
        parameters.conditional_into(&x, &mut law);
        responsibilities_at(&law, y, row.as_slice_mut().expect("row-major"));
    }
    all
}

/// n^-1 sum over rows of the weights w_i(x). Shape: experts.
pub fn mean_weights(parameters: &Parameters, data: &Data) -> Vec<f64> {
    let mut sums = vec![CompensatedSum::default(); parameters.experts.len()];
    let mut x = vec![0.0; data.dimension()];
    let mut law = parameters.conditional(&x);
    for i in 0..data.len() {
        data.read_row(i, &mut x);
        parameters.conditional_into(&x, &mut law);
        for (sum, log_weight) in sums.iter_mut().zip(&law.log_weights) {
            sum.add(data.count(i) * log_weight.exp());
        }
    }
    let n = data.sample_size();
    sums.iter().map(|sum| sum.value() / n).collect()
}

/// sum over rows of responsibilities: how many rows each expert has. Shape: experts.
///
/// # Shapes
/// `responsibilities`: n, experts, of `data`.
pub fn effective_rows(responsibilities: &Array2<f64>, data: &Data) -> Vec<f64> {
    let counts: Array1<f64> = (0..data.len()).map(|i| data.count(i)).collect();
    let column = |of: ndarray::ArrayView1<f64>| {
        let terms = of.iter().zip(&counts).map(|(r, c)| r * c);
        terms.collect::<CompensatedSum>().value()
    };
    responsibilities.columns().into_iter().map(column).collect()
}

/// -sum over rows and experts of r log r >= 0: 0 if every row has one expert.
///
/// # Shapes
/// `responsibilities`: n, experts, of `data`.
pub fn entropy(responsibilities: &Array2<f64>, data: &Data) -> f64 {
    let rows = responsibilities.rows().into_iter().enumerate();
    let terms = rows.map(|(i, row)| {
        let sum: f64 = row.iter().filter(|r| **r > 0.0).map(|r| r * r.ln()).sum();
        -data.count(i) * sum
    });
    terms.collect::<CompensatedSum>().value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::example::{line, softmax};
    use crate::backend::{Backend, Cpu};
    use ndarray::arr2;

    fn two() -> Parameters {
        softmax(vec![
            line(2.0, 1.0, 0.3, [1.5, 0.2]),
            line(-1.0, -0.5, 0.4, [0.0, 0.0]),
        ])
    }

    fn data() -> Data {
        let inputs = arr2(&[[-1.0], [0.0], [0.7], [2.0]]);
        Data::new(inputs, ndarray::arr1(&[-3.0, 0.4, 1.0, 5.5])).unwrap()
    }

    #[test]
    fn responsibilities_follow_their_definition_and_sum_to_one() {
        let (parameters, data) = (two(), data());
        let all = responsibilities(&parameters, &data);
        for i in 0..data.len() {
            let (x, y) = data.row(i);
            let law = parameters.conditional(&x);
            for k in 0..2 {
                let direct = (law.log_term(k, y) - law.log_density(y)).exp();
                assert!((all[[i, k]] - direct).abs() < 1e-14);
            }
            assert!((all.row(i).sum() - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn effective_rows_are_those_of_expectation_maximisation() {
        let parameters = two();
        let data = data()
            .with_counts(ndarray::arr1(&[1.0, 3.0, 2.0, 5.0]))
            .unwrap();
        let rows = effective_rows(&responsibilities(&parameters, &data), &data);
        let statistics = Cpu::new().em_statistics(&parameters, &data);
        for (own, other) in rows.iter().zip(&statistics.experts) {
            assert!((own - other.responsibility).abs() < 1e-12 * other.responsibility);
        }
        assert!((rows.iter().sum::<f64>() - 11.0).abs() < 1e-12);
    }

    #[test]
    fn mean_weights_average_the_gate() {
        let data = data();
        let weights = mean_weights(&two(), &data);
        let logistic = |x: f64| 1.0 / (1.0 + (-1.5 * x - 0.2f64).exp());
        let exact = [-1.0, 0.0, 0.7, 2.0].map(logistic).iter().sum::<f64>() / 4.0;
        assert!((weights[0] - exact).abs() < 1e-15 && (weights[1] - 1.0 + exact).abs() < 1e-15);
    }

    #[test]
    fn a_response_infinitely_far_away_belongs_to_nobody() {
        let law = two().conditional(&[0.0]);
        let mut shares = [0.0; 2];
        responsibilities_at(&law, 1e200, &mut shares);
        assert!((shares[0] - law.log_weights[0].exp()).abs() < 1e-15);
    }

    #[test]
    fn the_entropy_is_zero_for_sure_rows_and_log_k_for_even_ones() {
        let data = data();
        let sure = arr2(&[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]);
        assert_eq!(entropy(&sure, &data), 0.0);
        let even = Array2::from_elem((4, 2), 0.5);
        assert!((entropy(&even, &data) - 4.0 * 2f64.ln()).abs() < 1e-15);
    }
}
