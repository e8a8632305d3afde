//! Distances between conditional densities, averaged over the input.

use super::divergence::{Wanted, divergence};
use super::evaluation::{Divergences, Pair, Request};
use super::job::DistanceJob;
use crate::error::Result;
use crate::model::{InputLaw, Model, Parameters};
use rayon::prelude::*;

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
/// [`crate::error::Error::Dimension`] if the two have different input dimensions.
pub fn density_distance(
    p: &Model,
    q: &Parameters,
    wanted: Wanted,
    effort: Effort,
) -> Result<DensityDistance> {
    let mut job = DistanceJob::new(p, q, wanted, effort)?;
    loop {
        if let Some(distance) = job.result() {
            return Ok(distance);
        }
        let at = |x: &[f64]| divergence(&p.parameters.conditional(x), &q.conditional(x), wanted);
        let values: Vec<_> = job.wanted().map(at).collect();
        job.supply(&values);
    }
}

/// [`density_distance`] of many pairs at once, the same numbers wherever
/// `evaluator` gives the same divergences: each round evaluates what all unfinished
/// pairs want next.
///
/// # Errors
/// As [`density_distance`], and as the evaluator.
pub fn density_distances(
    pairs: &[(&Model, &Parameters)],
    wanted: Wanted,
    effort: Effort,
    evaluator: &dyn Divergences,
) -> Result<Vec<DensityDistance>> {
    let jobs = pairs.par_iter();
    let jobs: Vec<_> = jobs
        .map(|(p, q)| DistanceJob::new(p, q, wanted, effort))
        .collect();
    let mut jobs = jobs.into_iter().collect::<Result<Vec<_>>>()?;
    let pairs: Vec<Pair> = pairs
        .iter()
        .map(|(p, q)| Pair {
            p: &p.parameters,
            q,
        })
        .collect();
    loop {
        let each = jobs.iter().enumerate();
        let requests: Vec<Request> = each
            .flat_map(|(pair, job)| job.wanted().map(move |input| Request { pair, input }))
            .collect();
        if requests.is_empty() {
            let results = jobs.iter().filter_map(DistanceJob::result);
            return Ok(results.collect());
        }
        let values = evaluator.divergences(&pairs, &requests, wanted)?;
        let mut rest = values.as_slice();
        for job in jobs.iter_mut().filter(|job| job.result().is_none()) {
            let (own, others) = rest.split_at(job.wanted().len());
            job.supply(own);
            rest = others;
        }
    }
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

/// Kronecker lattice of the generalised golden ratio: point k has coordinates
/// frac(shift_j + k phi^-j) with phi^(d+1) = phi + 1, under the tent map, which
/// makes the integrand periodic.
#[derive(Clone, Debug)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::evaluation::Processor;
    use crate::model::{
        Expert, ExpertGate, ExpertKind, Gate, GateKind, Response, Selection, VarianceStructure,
        Weights,
    };

    fn mixture(d: usize, count: usize, top_k: Option<usize>, shift: f64) -> Parameters {
        let expert = |i: usize| Expert {
            kind: match i % 2 {
                0 => ExpertKind::Linear,
                _ => ExpertKind::Tanh,
            },
            slope: (0..d).map(|j| 1.0 - i as f64 + 0.5 * j as f64).collect(),
            intercept: 0.4 * i as f64 - 0.3 + shift,
            scale: (i % 2 == 1).then_some(1.5),
            variance: 0.2 + 0.1 * i as f64,
            gate: ExpertGate::None,
        };
        Parameters {
            gate: Gate {
                kind: GateKind::Competition {
                    response: Response::Absolute,
                    weights: Weights::Softmax,
                    kappa: 1.0,
                },
                top_k,
                selection: Selection::Score,
            },
            variance_structure: VarianceStructure::PerExpert,
            experts: (0..count).map(expert).collect(),
        }
    }

    /// Truths and fits of every kind of input and rule.
    fn pairs() -> Vec<(Model, Parameters)> {
        let uniform = |d| InputLaw::Uniform {
            low: vec![-1.0; d],
            high: vec![1.5; d],
        };
        let normal = |d| InputLaw::Normal {
            mean: vec![0.2; d],
            sd: vec![0.8; d],
            truncation: 3.0,
        };
        let grid = InputLaw::Grid {
            points: vec![vec![-0.5], vec![0.1], vec![0.9]],
            lattice: None,
        };
        let laws = [
            uniform(0),
            uniform(1),
            normal(1),
            grid,
            uniform(2),
            normal(3),
        ];
        let mut pairs = Vec::new();
        for (k, input) in laws.into_iter().enumerate() {
            for (count, top_k) in [(2, None), (3, Some(1)), (3, Some(2))] {
                let d = input.dimension();
                let parameters = mixture(d, 3, Some(2).filter(|_| k % 2 == 0), 0.0);
                let truth = Model {
                    input: input.clone(),
                    parameters,
                };
                pairs.push((truth, mixture(d, count, top_k, 0.05)));
            }
        }
        pairs
    }

    #[test]
    fn many_pairs_at_once_have_the_distances_of_each_alone() {
        let pairs = pairs();
        let pairs: Vec<(&Model, &Parameters)> = pairs.iter().map(|(p, q)| (p, q)).collect();
        let effort = Effort {
            relative_error: 1e-3,
            max_points: 1024,
        };
        for wanted in [Wanted::All, Wanted::Smooth] {
            let together = density_distances(&pairs, wanted, effort, &Processor).unwrap();
            assert_eq!(together.len(), pairs.len());
            for ((p, q), found) in pairs.iter().zip(&together) {
                let alone = density_distance(p, q, wanted, effort).unwrap();
                let bits = |d: &DensityDistance| {
                    let means = [
                        d.hellinger,
                        d.hellinger_sq,
                        d.total_variation,
                        d.kullback_leibler,
                    ];
                    means.map(|m| [m.value.to_bits(), m.error.to_bits()])
                };
                assert_eq!(bits(found), bits(&alone));
            }
        }
    }

    #[test]
    fn no_pairs_have_no_distances() {
        let none = density_distances(&[], Wanted::All, Effort::default(), &Processor);
        assert!(none.unwrap().is_empty());
    }
}
