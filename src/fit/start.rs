//! Starting values. There is no default: each fit says which it used.

use super::bounds::Bounds;
use super::published::PublishedStart;
use crate::error::{Error, Result};
use crate::model::{Data, Expert, ExpertGate, ExpertKind, GateKind, Parameters};
use crate::num::dense::solve_ridged;
use crate::rng::Stream;
use ndarray::{Array1, Array2};
use rand::RngExt;
use rand::seq::index;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

/// Where an estimator starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// The truth plus independent N(0, radius^2) noise on every free packed
    /// coordinate: estimates the rate of the maximum likelihood estimator's
    /// basin, not of an algorithm that must find it.
    PerturbedTruth {
        /// Standard deviation of the noise; 0 starts at the truth.
        radius: f64,
    },
    /// Lloyd's k-means on the standardised (x, y) with k-means++ seeds (Arthur
    /// and Vassilvitskii 2007), then least squares in each cluster.
    KMeans,
    /// Least squares through d + 2 random rows per expert, d its free slopes; common variance from
    /// the rows' distance to their nearest expert.
    Random,
    /// Every row with an expert at random, then least squares in each part.
    RandomLabels,
    /// The rows cut at random places along a random direction of the inputs, then
    /// least squares in each part: regimes of a covariate.
    Slices,
    /// Where the published simulations start.
    Published(PublishedStart),
}

/// What a start may look at.
#[derive(Clone, Copy)]
pub struct StartContext<'a> {
    /// The structure to fit; its values are not used.
    pub template: &'a Parameters,
    /// The truth, where it is known.
    pub truth: Option<&'a Parameters>,
    /// The sample.
    pub data: &'a Data,
    /// The parameter set.
    pub bounds: &'a Bounds,
}

impl Start {
    /// The name in a row.
    pub fn name(&self) -> String {
        match self {
            Start::PerturbedTruth { radius } => format!("perturbed-truth({radius})"),
            Start::KMeans => "k-means".to_string(),
            Start::Random => "random".to_string(),
            Start::RandomLabels => "random-labels".to_string(),
            Start::Slices => "slices".to_string(),
            Start::Published(start) => start.name(),
        }
    }

    /// True if it is made from the sample.
    pub(super) fn needs_data(&self) -> bool {
        !matches!(self, Start::PerturbedTruth { .. })
    }

    /// The starting point, inside the parameter set.
    ///
    /// # Errors
    /// [`Error::Value`] if the truth is asked for and unknown, or has another
    /// structure than the template, or if a published start lies outside the
    /// parameter set.
    pub fn parameters(&self, context: StartContext, stream: &Stream) -> Result<Parameters> {
        let layout = context.template.layout();
        let mut rng = stream.generator();
        let mut packed = match self {
            Start::PerturbedTruth { radius } => {
                let truth = context
                    .truth
                    .ok_or_else(|| Error::value("start", "perturbed-truth needs a known truth"))?;
                if truth.layout() != layout {
                    return Err(Error::value(
                        "start",
                        "perturbed-truth needs a fit with the truth's own structure",
                    ));
                }
                let mut packed = layout.pack(truth);
                for (j, value) in packed.iter_mut().enumerate() {
                    let noise: f64 = rng.sample(StandardNormal);
                    if !context.bounds.is_pinned(j) {
                        *value += radius * noise;
                    }
                }
                packed
            }
            Start::Published(start) => start.packed(context, &mut rng)?,
            Start::KMeans => {
                let labels = k_means(context.data, context.template.experts.len(), &mut rng);
                layout.pack(&from_partition(context, &labels, &mut rng))
            }
            Start::RandomLabels => {
                let count = context.template.experts.len();
                let rows = context.data.len().min(START_ROWS);
                let labels: Vec<usize> = (0..rows).map(|_| rng.random_range(0..count)).collect();
                layout.pack(&from_partition(context, &labels, &mut rng))
            }
            Start::Slices => {
                let labels = slices(context.data, context.template.experts.len(), &mut rng);
                layout.pack(&from_partition(context, &labels, &mut rng))
            }
            Start::Random => {
                let experts = random_lines(context, &mut rng);
                let lines = Parameters {
                    experts,
                    ..context.template.clone()
                };
                let labels = nearest_expert(&lines, context.data);
                layout.pack(&with_moments(lines, context.data, &labels))
            }
        };
        context.bounds.project(&mut packed);
        Ok(layout.unpack(context.template, &packed))
    }
}

/// The start that a partition of the rows suggests: least squares in each part, inside
/// the parameter set.
///
/// # Shapes
/// `labels`: the expert, from 0, of each of the leading rows.
pub fn partition_start(context: StartContext, labels: &[usize], stream: &Stream) -> Parameters {
    let layout = context.template.layout();
    let parts = from_partition(context, labels, &mut stream.generator());
    let mut packed = layout.pack(&parts);
    context.bounds.project(&mut packed);
    layout.unpack(context.template, &packed)
}

type Rng = rand_philox::Philox;

/// Rows that a start looks at: more would cost time and memory and move it by
/// less than any estimator does in one step.
const START_ROWS: usize = 100_000;

/// Hard labels of the leading rows by k-means; standardised coordinates.
fn k_means(data: &Data, clusters: usize, rng: &mut Rng) -> Vec<usize> {
    const ITERATIONS: usize = 50;
    let n = data.len().min(START_ROWS);
    let width = data.dimension() + 1;
    let mut points = Array2::zeros((n, width));
    for (i, mut point) in points.rows_mut().into_iter().enumerate() {
        let point = point.as_slice_mut().expect("row-major by construction");
        point[width - 1] = data.read_row(i, &mut point[..width - 1]);
    }
    let counts: Array1<f64> = (0..n).map(|i| data.count(i)).collect();
    for mut column in points.columns_mut() {
        let mean = column.dot(&counts) / counts.sum();
        column.map_inplace(|v| *v -= mean);
        let squares: f64 = column.iter().zip(&counts).map(|(v, c)| c * v * v).sum();
        let deviation = (squares / counts.sum()).sqrt();
        if deviation > 0.0 {
            column.map_inplace(|v| *v /= deviation);
        }
    }
    let distance_sq = |i: usize, centre: &Array1<f64>| -> f64 {
        points
            .row(i)
            .iter()
            .zip(centre)
            .map(|(a, b)| (a - b) * (a - b))
            .sum()
    };
    // A row with probability in proportion to its weight.
    let choose = |weight: &dyn Fn(usize) -> f64, rng: &mut Rng| {
        let total: f64 = (0..n).map(weight).sum();
        let mut left = rng.random::<f64>() * total;
        let chosen = (0..n).position(|i| {
            left -= weight(i);
            left < 0.0
        });
        chosen.unwrap_or(n - 1)
    };
    let first = match data.counts() {
        None => rng.random_range(0..n),
        Some(_) => choose(&|i| counts[i], rng),
    };
    let mut centres = vec![points.row(first).to_owned()];
    let mut nearest: Vec<f64> = (0..n).map(|i| distance_sq(i, &centres[0])).collect();
    while centres.len() < clusters {
        let chosen = choose(&|i| counts[i] * nearest[i], rng);
        let centre = points.row(chosen).to_owned();
        for (i, d) in nearest.iter_mut().enumerate() {
            *d = d.min(distance_sq(i, &centre));
        }
        centres.push(centre);
    }
    let mut labels = vec![usize::MAX; n];
    for _ in 0..ITERATIONS {
        let mut changed = false;
        for (i, label) in labels.iter_mut().enumerate() {
            let best = (0..clusters)
                .min_by(|&a, &b| {
                    distance_sq(i, &centres[a]).total_cmp(&distance_sq(i, &centres[b]))
                })
                .expect("at least one cluster");
            changed |= *label != best;
            *label = best;
        }
        if !changed {
            break;
        }
        for (k, centre) in centres.iter_mut().enumerate() {
            let mut sum = Array1::zeros(width);
            let mut mass = 0.0;
            for i in (0..n).filter(|&i| labels[i] == k) {
                sum.scaled_add(counts[i], &points.row(i));
                mass += counts[i];
            }
            // An empty cluster keeps its centre.
            if mass > 0.0 {
                *centre = sum / mass;
            }
        }
    }
    labels
}

/// Hard labels of the leading rows by their place along a random direction of the
/// standardised inputs (of y, if there are none), cut at random ranks.
fn slices(data: &Data, count: usize, rng: &mut Rng) -> Vec<usize> {
    let n = data.len().min(START_ROWS);
    let mut place = vec![0.0; n];
    for j in 0..data.dimension() {
        let column = ndarray::ArrayView1::from(&data.column(j)[..n]);
        let (mean, deviation) = (column.mean().unwrap_or(0.0), column.std(0.0));
        let along: f64 = rng.sample(StandardNormal);
        if deviation > 0.0 {
            let steps = place.iter_mut().zip(&column);
            steps.for_each(|(p, x)| *p += along * (x - mean) / deviation);
        }
    }
    if data.dimension() == 0 {
        place.copy_from_slice(&data.responses()[..n]);
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| place[a].total_cmp(&place[b]));
    let mut cuts: Vec<usize> = (1..count).map(|_| rng.random_range(0..=n)).collect();
    cuts.sort_unstable();
    let mut labels = vec![0; n];
    for (rank, &row) in order.iter().enumerate() {
        labels[row] = cuts.partition_point(|&cut| cut <= rank);
    }
    labels
}

/// Least squares in each part of a partition.
fn from_partition(context: StartContext, labels: &[usize], rng: &mut Rng) -> Parameters {
    let experts = (0..context.template.experts.len())
        .map(|k| {
            let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == k).collect();
            expert_through(context, k, &rows, rng)
        })
        .collect();
    let parameters = Parameters {
        experts,
        ..context.template.clone()
    };
    with_moments(parameters, context.data, labels)
}

fn random_lines(context: StartContext, rng: &mut Rng) -> Vec<Expert> {
    let n = context.data.len().min(START_ROWS);
    (0..context.template.experts.len())
        .map(|k| {
            let needed = (free_slopes(context, k).len() + 2).min(n);
            let rows = index::sample(rng, n, needed).into_vec();
            expert_through(context, k, &rows, rng)
        })
        .collect()
}

/// Expert k fitted to some rows by least squares.
///
/// A hidden unit gets random input weights of order one over the spread of the
/// inputs, and, if it has an output weight, that by least squares.
fn expert_through(context: StartContext, k: usize, rows: &[usize], rng: &mut Rng) -> Expert {
    let mut expert = context.template.experts[k].clone();
    let data = context.data;
    let dimension = data.dimension();
    if expert.kind == ExpertKind::Linear {
        let used = free_slopes(context, k);
        let mut x = vec![0.0; dimension];
        let solution = least_squares(data, rows, used.len() + 1, |i, out| {
            let y = data.read_row(i, &mut x);
            out.iter_mut().zip(&used).for_each(|(out, &j)| *out = x[j]);
            out[used.len()] = 1.0;
            y
        });
        match solution {
            Some(solution) => {
                expert.slope.fill(0.0);
                used.iter()
                    .zip(&solution)
                    .for_each(|(&j, s)| expert.slope[j] = *s);
                expert.intercept = solution[used.len()];
            }
            None => {
                expert.slope.fill(0.0);
                expert.intercept = rows.first().map_or(0.0, |&i| data.row(i).1);
            }
        }
    } else {
        let spread = data.inputs().std_axis(ndarray::Axis(0), 0.0);
        for (slope, spread) in expert.slope.iter_mut().zip(&spread) {
            let noise: f64 = rng.sample(StandardNormal);
            *slope = noise / if *spread > 0.0 { *spread } else { 1.0 };
        }
        expert.intercept = rng.sample(StandardNormal);
        if expert.scale.is_some() {
            let mut x = vec![0.0; dimension];
            let solution = least_squares(data, rows, 1, |i, out| {
                let y = data.read_row(i, &mut x);
                out[0] = expert.kind.activation(expert.predictor(&x)).value;
                y
            });
            expert.scale = Some(solution.map_or(1.0, |s| s[0]));
        }
    }
    expert
}

/// The input dimensions along which expert k may have a slope.
fn free_slopes(context: StartContext, k: usize) -> Vec<usize> {
    let first = context.template.layout().mean_offset(k);
    let first = first + usize::from(context.template.experts[k].scale.is_some());
    let free = |j: &usize| !context.bounds.is_pinned(first + j);
    (0..context.data.dimension()).filter(free).collect()
}

/// Coefficients of y on features; `row` writes the features and returns y.
fn least_squares(
    data: &Data,
    rows: &[usize],
    width: usize,
    mut row: impl FnMut(usize, &mut [f64]) -> f64,
) -> Option<Array1<f64>> {
    let mut gram = Array2::zeros((width, width));
    let mut moment = Array1::zeros(width);
    let mut features = vec![0.0; width];
    for &i in rows {
        let y = row(i, &mut features);
        let count = data.count(i);
        for a in 0..width {
            moment[a] += count * features[a] * y;
            for b in 0..width {
                gram[[a, b]] += count * features[a] * features[b];
            }
        }
    }
    solve_ridged(&gram, &moment)
}

fn nearest_expert(parameters: &Parameters, data: &Data) -> Vec<usize> {
    let mut x = vec![0.0; data.dimension()];
    (0..data.len().min(START_ROWS))
        .map(|i| {
            let y = data.read_row(i, &mut x);
            let distance = |k: usize| (y - parameters.experts[k].mean(&x)).abs();
            (0..parameters.experts.len())
                .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
                .expect("at least one expert")
        })
        .collect()
}

/// Variances and gate intercepts from hard labels: a pooled residual variance,
/// and the logarithm of each part's share. Gate slopes start at 0.
fn with_moments(mut parameters: Parameters, data: &Data, labels: &[usize]) -> Parameters {
    let n: f64 = (0..labels.len()).map(|i| data.count(i)).sum();
    let mut x = vec![0.0; data.dimension()];
    let squares: f64 = (0..labels.len())
        .map(|i| {
            let y = data.read_row(i, &mut x);
            let residual = y - parameters.experts[labels[i]].mean(&x);
            data.count(i) * residual * residual
        })
        .sum();
    let variance = (squares / n).max(f64::MIN_POSITIVE);
    let kind = parameters.gate.kind;
    for (k, expert) in parameters.experts.iter_mut().enumerate() {
        expert.variance = variance;
        let part = (0..labels.len()).filter(|&i| labels[i] == k);
        let members: f64 = part.map(|i| data.count(i)).sum();
        let log_share = ((members + 1.0) / (n + 1.0)).ln();
        match &mut expert.gate {
            ExpertGate::None => {}
            // Responses already favour the winners: no bias to start with.
            ExpertGate::Bias(bias) => {
                *bias = if kind == GateKind::Constant {
                    log_share
                } else {
                    0.0
                };
            }
            ExpertGate::Router { slope, intercept } => {
                slope.fill(0.0);
                *intercept = log_share;
            }
        }
    }
    parameters
}
