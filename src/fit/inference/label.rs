//! Whether a refit kept the labels of the fit that it started from.

use crate::model::{Data, Parameters};

/// Most experts for which all orders are compared.
const MOST: usize = 12;

/// True if no other order of `refit`'s experts lies nearer to those of `fitted`.
///
/// The distance of an expert from one of the fit is the mean of ((m - m') / sigma')^2 over
/// the rows, each by the weight that the fit's expert has there, plus
/// (log v - log v')^2; an order's is the sum. Beyond 12 experts only exchanges of two are
/// tried.
pub(super) fn keeps_labels(fitted: &Parameters, refit: &Parameters, data: &Data) -> bool {
    let count = fitted.experts.len();
    let distances = distances(fitted, refit, data);
    let own: f64 = (0..count).map(|i| distances[i][i]).sum();
    let best = match count <= MOST {
        true => least_assignment(&distances),
        false => (0..count)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| {
                own + distances[i][j] + distances[j][i] - distances[i][i] - distances[j][j]
            })
            .fold(own, f64::min),
    };
    own <= best * (1.0 + 1e-12)
}

/// Entry (i, j): from the refit's expert i to the fit's expert j.
fn distances(fitted: &Parameters, refit: &Parameters, data: &Data) -> Vec<Vec<f64>> {
    let count = fitted.experts.len();
    let mut sums = vec![vec![0.0; count]; count];
    let mut masses = vec![0.0; count];
    let mut x = vec![0.0; data.dimension()];
    let mut law = fitted.conditional(&x);
    for row in 0..data.len() {
        data.read_row(row, &mut x);
        fitted.conditional_into(&x, &mut law);
        for j in 0..count {
            let weight = data.count(row) * law.log_weights[j].exp();
            masses[j] += weight;
            for (i, expert) in refit.experts.iter().enumerate() {
                let apart = expert.mean(&x) - law.means[j];
                sums[i][j] += weight * apart * apart / law.variances[j];
            }
        }
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            let ratio = (refit.experts[i].variance / fitted.experts[j].variance).ln();
            *sum = *sum / masses[j].max(f64::MIN_POSITIVE) + ratio * ratio;
        }
    }
    sums
}

/// The least sum over all orders, by the subsets already taken (Held and Karp 1962).
fn least_assignment(distances: &[Vec<f64>]) -> f64 {
    let count = distances.len();
    let mut least = vec![f64::INFINITY; 1 << count];
    least[0] = 0.0;
    for taken in 0..least.len() - 1 {
        let next = &distances[taken.count_ones() as usize];
        for (j, distance) in next.iter().enumerate() {
            if taken & (1 << j) == 0 {
                let with = taken | (1 << j);
                least[with] = least[with].min(least[taken] + distance);
            }
        }
    }
    least[least.len() - 1]
}
