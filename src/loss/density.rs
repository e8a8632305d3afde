//! Distances between conditional densities, averaged over the input.

use super::divergence::{Divergence, Wanted, divergence};
use crate::error::{Error, Result};
use crate::model::{InputLaw, Model, Parameters};
use crate::num::quadrature::integrate;
use crate::num::sum::mean_and_deviation;
use crate::rng::{Purpose, Stream};

/// Relative error aimed at by quadrature over a one-dimensional input.
const TOLERANCE: f64 = 1e-10;
/// Random shifts of the quasi-Monte-Carlo rule.
const SHIFTS: usize = 16;
/// Student's t with 15 degrees of freedom at two-sided level 1e-3.
const STUDENT: f64 = 4.073;

/// A mean over the input and a bound on the numerical error of that mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// E_X of the distance.
    pub value: f64,
    /// Absolute error: the quadrature's estimate, or, for quasi-Monte-Carlo, the
    /// half-width of a 99.9 % interval over independent random shifts.
    pub error: f64,
}

/// Distances between p(y|x) and q(y|x), averaged over X.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DensityDistance {
    /// E_X h, the loss of Theorem 4.1 of arXiv 2402.02526 as reconstructed.
    pub hellinger: Mean,
    /// E_X h^2; n times this tends to chi^2_P / 8 for the exactly specified MLE.
    pub hellinger_sq: Mean,
    /// E_X V, the loss of Proposition 3.1 of arXiv 2505.13380 as reconstructed.
    pub total_variation: Mean,
    /// E_X KL(p || q)
    pub kullback_leibler: Mean,
}

/// How hard to try when the input has more than one dimension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Relative error bound aimed at.
    pub relative_error: f64,
    /// Most points per random shift.
    pub max_points: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Effort {
            relative_error: 1e-4,
            max_points: 1 << 13,
        }
    }
}

/// Distances from `p` to `q`, averaged over the input law of `p`.
///
/// * grid or d = 0: the exact finite mean;
/// * d = 1: adaptive Gauss-Kronrod quadrature between the kinks and jumps of
///   both densities, relative error 1e-9 or better while h > 1e-6;
/// * d > 1: a Kronecker lattice under the tent map with random shifts, doubled
///   until its error bound is `effort.relative_error` of each mean.
///
/// # Errors
/// [`Error::Dimension`] if the two have different input dimensions.
pub fn density_distance(
    p: &Model,
    q: &Parameters,
    wanted: Wanted,
    effort: Effort,
) -> Result<DensityDistance> {
    if q.dimension() != p.input.dimension() {
        return Err(Error::Dimension {
            what: "input of the second model",
            expected: p.input.dimension(),
            got: q.dimension(),
        });
    }
    let at = |x: &[f64]| {
        let d = divergence(&p.parameters.conditional(x), &q.conditional(x), wanted);
        as_integrands(&d)
    };
    let means = match &p.input {
        InputLaw::Grid { points, .. } => exact_mean(points.iter().map(|x| at(x))),
        law if law.dimension() == 0 => exact_mean(std::iter::once(at(&[]))),
        law if law.dimension() == 1 => along_a_line(law, &p.parameters, q, at),
        law => quasi_monte_carlo(law, at, effort),
    };
    let [hellinger, hellinger_sq, total_variation, kullback_leibler] = means;
    let total_variation = match wanted {
        Wanted::All => total_variation,
        Wanted::Smooth => Mean {
            value: f64::NAN,
            error: f64::NAN,
        },
    };
    Ok(DensityDistance {
        hellinger,
        hellinger_sq,
        total_variation,
        kullback_leibler,
    })
}

/// h, h^2, V, KL; total variation that was not asked for counts as 0.
fn as_integrands(d: &Divergence) -> [f64; 4] {
    let variation = if d.total_variation.is_nan() {
        0.0
    } else {
        d.total_variation
    };
    [
        d.hellinger_sq.sqrt(),
        d.hellinger_sq,
        variation,
        d.kullback_leibler,
    ]
}

fn exact_mean(values: impl Iterator<Item = [f64; 4]>) -> [Mean; 4] {
    let values: Vec<[f64; 4]> = values.collect();
    std::array::from_fn(|m| {
        let column: Vec<f64> = values.iter().map(|v| v[m]).collect();
        let value = mean_and_deviation(&column).0;
        Mean {
            value,
            error: f64::EPSILON * value.abs(),
        }
    })
}

/// One-dimensional continuous input.
fn along_a_line(
    law: &InputLaw,
    p: &Parameters,
    q: &Parameters,
    at: impl Fn(&[f64]) -> [f64; 4],
) -> [Mean; 4] {
    let breaks = breaks_along_a_line(law, &[p, q]);
    let weight = input_density(law);
    let integral = integrate(
        |x| at(&[x]).map(|value| value * weight(x)),
        &breaks,
        TOLERANCE,
        400,
    );
    std::array::from_fn(|m| Mean {
        value: integral.value[m],
        error: integral.error[m],
    })
}

/// Ends of the support of a one-dimensional continuous law and, between them,
/// every kink and jump of the given conditional densities as functions of x.
pub fn breaks_along_a_line(law: &InputLaw, mixtures: &[&Parameters]) -> Vec<f64> {
    let (low, high) = support(law);
    let mut breaks = vec![low, high];
    for parameters in mixtures {
        breaks.extend(kinks(parameters));
        breaks.extend(selection_changes(parameters, low, high));
    }
    breaks.retain(|x| (low..=high).contains(x));
    breaks.sort_by(f64::total_cmp);
    breaks.dedup();
    breaks
}

/// Ends of the support of a one-dimensional continuous law.
pub(super) fn support(law: &InputLaw) -> (f64, f64) {
    match law {
        InputLaw::Uniform { low, high } => (low[0], high[0]),
        InputLaw::Normal {
            mean,
            sd,
            truncation,
        } => (mean[0] - truncation * sd[0], mean[0] + truncation * sd[0]),
        InputLaw::Grid { .. } => unreachable!("a grid is summed, not integrated"),
    }
}

/// Density of a one-dimensional continuous law on its support.
pub fn input_density(law: &InputLaw) -> impl Fn(f64) -> f64 {
    let (low, high) = support(law);
    let (centre, scale, total) = match law {
        InputLaw::Normal {
            mean,
            sd,
            truncation,
        } => {
            let inside = libm::erf(truncation * std::f64::consts::FRAC_1_SQRT_2);
            (
                mean[0],
                sd[0],
                inside * std::f64::consts::TAU.sqrt() * sd[0],
            )
        }
        _ => (0.0, f64::INFINITY, high - low),
    };
    move |x| {
        let z = (x - centre) / scale;
        (-0.5 * z * z).exp() / total
    }
}

/// Zeros of the experts' predictors, where |t| and ReLU have their kinks.
fn kinks(parameters: &Parameters) -> impl Iterator<Item = f64> + '_ {
    parameters
        .experts
        .iter()
        .map(|e| -e.intercept / e.slope[0])
        .filter(|x| x.is_finite())
}

/// Inputs at which the set of kept experts changes: a scan, then bisection.
fn selection_changes(parameters: &Parameters, low: f64, high: f64) -> Vec<f64> {
    if !parameters.is_sparse() {
        return Vec::new();
    }
    const SCAN: usize = 2048;
    let selection = |x: f64| {
        let means: Vec<f64> = parameters.experts.iter().map(|e| e.mean(&[x])).collect();
        parameters.selection(&[x], &means)
    };
    let node = |k: usize| low + (high - low) * k as f64 / SCAN as f64;
    let mut changes = Vec::new();
    for k in 0..SCAN {
        let (mut left, right_end) = (node(k), node(k + 1));
        // Several changes may lie between two nodes: find them from the left.
        while selection(left) != selection(right_end) {
            let (mut a, mut b) = (left, right_end);
            let at_left = selection(a);
            loop {
                let middle = 0.5 * (a + b);
                if middle <= a || middle >= b {
                    break;
                }
                if selection(middle) == at_left {
                    a = middle;
                } else {
                    b = middle;
                }
            }
            changes.push(b);
            left = b;
        }
    }
    changes
}

/// Randomly shifted Kronecker lattice, doubled until precise enough.
fn quasi_monte_carlo(law: &InputLaw, at: impl Fn(&[f64]) -> [f64; 4], effort: Effort) -> [Mean; 4] {
    let dimension = law.dimension();
    let lattice = KroneckerLattice::new(dimension);
    let stream = Stream::named(0, "density_distance", 0, Purpose::Quadrature);
    let shifts: Vec<Vec<f64>> = (0..SHIFTS)
        .map(|s| {
            (0..dimension)
                .map(|j| stream.uniform_pair(s as u64, j as u64)[0])
                .collect()
        })
        .collect();
    let mut sums = [[0.0; 4]; SHIFTS];
    let mut x = vec![0.0; dimension];
    let mut u = vec![0.0; dimension];
    let mut done = 0;
    let mut target = 64;
    loop {
        for (s, sum) in sums.iter_mut().enumerate() {
            for k in done..target {
                lattice.point(k, &shifts[s], &mut u);
                law.at_uniforms(&u, &mut x);
                let values = at(&x);
                (0..4).for_each(|m| sum[m] += values[m]);
            }
        }
        done = target;
        let means: [Mean; 4] = std::array::from_fn(|m| {
            let column: Vec<f64> = sums.iter().map(|s| s[m] / done as f64).collect();
            let (value, deviation) = mean_and_deviation(&column);
            Mean {
                value,
                error: STUDENT * deviation / (SHIFTS as f64).sqrt(),
            }
        });
        let precise = means
            .iter()
            .all(|m| m.error <= effort.relative_error * m.value.abs());
        if precise || done >= effort.max_points {
            return means;
        }
        target = 2 * done;
    }
}

/// Kronecker lattice of the generalised golden ratio: point k has coordinates
/// frac(shift_j + k phi^-j) with phi^(d+1) = phi + 1, under the tent map, which
/// makes the integrand periodic.
pub struct KroneckerLattice {
    steps: Vec<f64>,
}

impl KroneckerLattice {
    /// The lattice in `dimension` coordinates.
    pub fn new(dimension: usize) -> Self {
        let mut ratio = 2.0f64;
        for _ in 0..200 {
            ratio = (1.0 + ratio).powf(1.0 / (dimension as f64 + 1.0));
        }
        KroneckerLattice {
            steps: (1..=dimension).map(|j| ratio.powi(-(j as i32))).collect(),
        }
    }

    /// Writes point k, shifted by `shift`, to `u`. Shapes: `shift`, `u`: d.
    pub fn point(&self, k: usize, shift: &[f64], u: &mut [f64]) {
        for ((u, step), shift) in u.iter_mut().zip(&self.steps).zip(shift) {
            let fraction = (shift + k as f64 * step).fract();
            *u = 1.0 - (2.0 * fraction - 1.0).abs();
        }
    }
}
