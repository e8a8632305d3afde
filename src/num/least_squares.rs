//! Nonlinear least squares over a box, by damped Gauss-Newton steps.

use super::dense::{Factor, solve_ridged};
use ndarray::{Array1, Array2};

/// Residuals whose squares are summed.
pub trait Residuals {
    /// The residuals at `point`. Shape: number of residuals.
    fn values(&self, point: &[f64]) -> Array1<f64>;

    /// Their derivatives. Shape: number of residuals, number of unknowns.
    fn jacobian(&self, point: &[f64]) -> Array2<f64>;
}

/// Where the search ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LeastSquares {
    /// The unknowns.
    pub point: Vec<f64>,
    /// The sum of squares.
    pub sum: f64,
    /// |P r| / |r| with P the projection on the span of the free columns of the
    /// Jacobian: the sine of the angle that is left to close. A Gauss-Newton
    /// step would take the share `promise`^2 from the sum. 0 at a stationary
    /// point, in any coordinates; columns that point out of the box are not free.
    /// Below about 1e-8 the sum no longer tells points apart.
    pub promise: f64,
    /// Steps tried.
    pub iterations: usize,
}

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    /// At a `promise` of at most this.
    pub promise: f64,
    /// After so many steps tried.
    pub iterations: usize,
}

/// Steps that gain less than this share of the sum are counted as stalled.
const STALL: f64 = 1e-12;
/// So many stalled steps in a row end the search.
const STALLED_STEPS: usize = 10;
/// Damping, as a multiple of the squared column lengths: at first, and so large
/// that a step is nothing.
const DAMPING: f64 = 1e-3;
const MAX_DAMPING: f64 = 1e16;

/// Minimises the sum of squares over `low <= point <= high` from `start`, which
/// is projected to the box; equal bounds pin an unknown.
///
/// Levenberg and Marquardt's step solves (J'J + damping diag(J'J)) s = -J'r on
/// the unknowns that the box does not hold and is projected to the box; damping
/// follows the gain ratio (Nielsen 1999). The result is a local minimum.
pub fn minimise(
    residuals: &impl Residuals,
    start: &[f64],
    low: &[f64],
    high: &[f64],
    stopping: Stopping,
) -> LeastSquares {
    let clamp = |point: &mut [f64]| {
        for (k, value) in point.iter_mut().enumerate() {
            *value = value.clamp(low[k], high[k]);
        }
    };
    let mut point = start.to_vec();
    clamp(&mut point);
    let mut values = residuals.values(&point);
    let mut sum = values.dot(&values);
    let mut local = Local::new(residuals, &point, &values, low, high);
    let (mut damping, mut growth) = (DAMPING, 2.0);
    let (mut iterations, mut stalled) = (0, 0);
    while local.promise > stopping.promise
        && iterations < stopping.iterations
        && stalled < STALLED_STEPS
        && damping < MAX_DAMPING
    {
        iterations += 1;
        let Some(step) = local.step(damping) else {
            break;
        };
        let mut trial = point.clone();
        for (k, move_by) in local.free.iter().zip(&step) {
            trial[*k] += move_by;
        }
        clamp(&mut trial);
        let trial_values = residuals.values(&trial);
        let trial_sum = trial_values.dot(&trial_values);
        let gain = sum - trial_sum;
        if gain > 0.0 {
            let ratio = gain / local.promised(&step, damping);
            damping *= (1.0 - (2.0 * ratio - 1.0).powi(3)).max(1.0 / 3.0);
            growth = 2.0;
            stalled = if gain < STALL * sum { stalled + 1 } else { 0 };
            (point, values, sum) = (trial, trial_values, trial_sum);
            local = Local::new(residuals, &point, &values, low, high);
        } else {
            damping *= growth;
            growth *= 2.0;
        }
    }
    LeastSquares {
        point,
        sum,
        promise: local.promise,
        iterations,
    }
}

/// The linearised problem in the unknowns that may move, each in units of its
/// column's length.
struct Local {
    free: Vec<usize>,
    lengths: Array1<f64>,
    normal: Array2<f64>,
    gradient: Array1<f64>,
    promise: f64,
}

impl Local {
    fn new(
        residuals: &impl Residuals,
        point: &[f64],
        values: &Array1<f64>,
        low: &[f64],
        high: &[f64],
    ) -> Self {
        let jacobian = residuals.jacobian(point);
        let slope = jacobian.t().dot(values);
        let free: Vec<usize> = (0..point.len())
            .filter(|&k| {
                let pinned = low[k] == high[k];
                let leaves = (point[k] <= low[k] && slope[k] > 0.0)
                    || (point[k] >= high[k] && slope[k] < 0.0);
                let column = jacobian.column(k);
                !pinned && !leaves && column.dot(&column) > 0.0
            })
            .collect();
        let mut columns = jacobian.select(ndarray::Axis(1), &free);
        let lengths: Array1<f64> = columns
            .columns()
            .into_iter()
            .map(|c| c.dot(&c).sqrt())
            .collect();
        columns /= &lengths;
        let gradient = columns.t().dot(values);
        let normal = columns.t().dot(&columns);
        let size = values.dot(values).sqrt();
        let promise = match solve_ridged(&normal, &gradient) {
            _ if size == 0.0 => 0.0,
            Some(solution) => solution.dot(&gradient).max(0.0).sqrt() / size,
            None => f64::INFINITY,
        };
        Local {
            free,
            lengths,
            normal,
            gradient,
            promise,
        }
    }

    /// The damped step of the free unknowns.
    fn step(&self, damping: f64) -> Option<Vec<f64>> {
        let mut damped = self.normal.clone();
        damped.diag_mut().map_inplace(|v| *v += damping);
        let step = Factor::new(&damped)?.solve(&self.gradient);
        Some((-step / &self.lengths).to_vec())
    }

    /// What the linearised problem says that the step takes from the sum.
    fn promised(&self, step: &[f64], damping: f64) -> f64 {
        let scaled: Array1<f64> = step.iter().zip(&self.lengths).map(|(s, l)| s * l).collect();
        damping * scaled.dot(&scaled) - scaled.dot(&self.gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    const STOPPING: Stopping = Stopping {
        promise: 1e-7,
        iterations: 500,
    };

    /// Rosenbrock's valley: (10 (y - x^2), 1 - x).
    struct Valley;

    impl Residuals for Valley {
        fn values(&self, point: &[f64]) -> Array1<f64> {
            array![10.0 * (point[1] - point[0] * point[0]), 1.0 - point[0]]
        }

        fn jacobian(&self, point: &[f64]) -> Array2<f64> {
            array![[-20.0 * point[0], 10.0], [-1.0, 0.0]]
        }
    }

    /// (x, 1 + x^2 / 4): a minimum with residuals left.
    struct Parabola;

    impl Residuals for Parabola {
        fn values(&self, point: &[f64]) -> Array1<f64> {
            array![point[0], 1.0 + 0.25 * point[0] * point[0]]
        }

        fn jacobian(&self, point: &[f64]) -> Array2<f64> {
            array![[1.0], [0.5 * point[0]]]
        }
    }

    #[test]
    fn a_curved_valley_is_followed_to_its_end() {
        let free = [f64::INFINITY; 2];
        let found = minimise(&Valley, &[-1.2, 1.0], &free.map(|v| -v), &free, STOPPING);
        assert!(found.sum < 1e-20, "{found:?}");
        assert!((found.point[0] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_minimum_with_residuals_is_certified_by_a_small_promise() {
        let found = minimise(&Parabola, &[3.0], &[-10.0], &[10.0], STOPPING);
        assert!(
            found.promise <= 1e-7 && found.point[0].abs() < 1e-6,
            "{found:?}"
        );
        assert!((found.sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_bound_holds_the_unknown_and_takes_it_out_of_the_promise() {
        let found = minimise(&Valley, &[-1.2, 1.0], &[-2.0, -2.0], &[0.5, 2.0], STOPPING);
        assert_eq!(found.point[0], 0.5);
        assert!((found.point[1] - 0.25).abs() < 1e-6 && found.promise <= 1e-7);
        let pinned = minimise(&Valley, &[-1.2, 1.0], &[0.0, -2.0], &[0.0, 2.0], STOPPING);
        assert_eq!(pinned.point[0], 0.0);
        assert!(pinned.point[1].abs() < 1e-6);
    }
}
