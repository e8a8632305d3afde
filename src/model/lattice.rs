//! Samples of any size as counts on a lattice.

use super::data::Data;
use super::parameters::Parameters;
use crate::rng::Stream;
use ndarray::Array2;
use rand_distr::{Binomial, Distribution};

/// Half-width of the response lattice beyond the outermost means, in standard
/// deviations: the mass left out is below 1e-18.
const LATTICE_REACH: f64 = 9.0;

/// Draws the counts of `rows` pairs (x, y) with x uniform on `points` and y on a
/// lattice: exactly multinomial, at a cost that does not depend on `rows`.
///
/// With h = `step` times the smallest standard deviation, h p(y | x) over the
/// lattice of step h is a probability function up to exp(-2 (pi sd / h)^2)
/// (Poisson summation): 5e-35 at `step` = 1/2. The Fisher information and the
/// law of the likelihood ratio are those of the density. One binomial per cell,
/// each given those before it. Cells without counts are left out.
pub(super) fn draw_counts(
    parameters: &Parameters,
    points: &[Vec<f64>],
    step: f64,
    rows: u64,
    stream: &Stream,
) -> Data {
    let mut cells: Vec<(usize, f64, f64)> = Vec::new();
    let deviations = parameters.experts.iter().map(|e| e.variance.sqrt());
    let step = step * deviations.fold(f64::INFINITY, f64::min);
    for (point, x) in points.iter().enumerate() {
        let law = parameters.conditional(x);
        let reach = |i: usize| LATTICE_REACH * law.variances[i].sqrt();
        let low = law.active().map(|i| law.means[i] - reach(i));
        let high = law.active().map(|i| law.means[i] + reach(i));
        let first = (low.fold(f64::INFINITY, f64::min) / step).floor() as i64;
        let last = (high.fold(f64::NEG_INFINITY, f64::max) / step).ceil() as i64;
        let first_of_point = cells.len();
        let nodes = (first..=last).map(|k| k as f64 * step);
        cells.extend(nodes.map(|y| (point, y, law.log_density(y).exp())));
        let of_point = &mut cells[first_of_point..];
        let total: f64 = of_point.iter().map(|cell| cell.2).sum();
        let share = 1.0 / (points.len() as f64 * total);
        of_point.iter_mut().for_each(|cell| cell.2 *= share);
    }
    let mut rng = stream.generator();
    let mut left = rows;
    // Mass of this cell and those after it, summed from the far end so that the
    // last shares are exact.
    let mut after = 0.0;
    let tail: Vec<f64> = cells
        .iter()
        .rev()
        .map(|cell| {
            after += cell.2;
            after
        })
        .collect();
    let mut seen: Vec<(usize, f64, f64)> = Vec::new();
    for ((point, y, mass), tail) in cells.into_iter().zip(tail.into_iter().rev()) {
        if left == 0 {
            break;
        }
        let share = (mass / tail).clamp(0.0, 1.0);
        let count = Binomial::new(left, share)
            .expect("a share lies between 0 and 1")
            .sample(&mut rng);
        left -= count;
        if count > 0 {
            seen.push((point, y, count as f64));
        }
    }
    let dimension = points[0].len();
    let columns = Array2::from_shape_fn((dimension, seen.len()), |(j, i)| points[seen[i].0][j]);
    let responses = seen.iter().map(|cell| cell.1).collect();
    let counts = seen.iter().map(|cell| cell.2).collect();
    Data::from_parts(columns, responses, Some(counts))
}
