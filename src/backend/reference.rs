//! The reference: plain loops in f64, written to be read. Every other backend is
//! tested against it.

use super::{Backend, Derivatives, EmStatistics, ExpertStatistics};
use crate::model::{Atom, Data, Expert, ExpertGate, Layout, Parameters, Point};
use crate::num::sum::CompensatedSum;
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use std::ops::Range;

/// Rows per block. Blocks are the unit of work and of summation.
const BLOCK: usize = 4096;
/// Below this many blocks one thread works alone: sweeps run many fits at once.
const PARALLEL_BLOCKS: usize = 64;

/// Row by row, with the standard library's functions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

/// What is known of a row.
pub(super) trait Observe: Sync {
    /// Moves to row n, (x, y), and returns its log-likelihood.
    fn observe(
        &self,
        point: &mut Point,
        parameters: &Parameters,
        n: usize,
        x: &[f64],
        y: f64,
    ) -> f64;
}

/// The pair alone.
impl Observe for Reference {
    #[inline]
    fn observe(
        &self,
        point: &mut Point,
        parameters: &Parameters,
        _: usize,
        x: &[f64],
        y: f64,
    ) -> f64 {
        point.observe(parameters, x, y)
    }
}

impl<O: Observe> Backend for O {
    fn log_likelihood(&self, parameters: &Parameters, data: &Data) -> f64 {
        let blocks = in_blocks(data, |rows| {
            let mut point = Point::new(parameters);
            let mut sum = 0.0;
            in_rows(data, rows, |n, x, y, count| {
                sum += count * self.observe(&mut point, parameters, n, x, y);
            });
            sum
        });
        blocks.into_iter().collect::<CompensatedSum>().value()
    }

    fn gradient(&self, parameters: &Parameters, data: &Data) -> (f64, Array1<f64>) {
        let layout = parameters.layout();
        let blocks = in_blocks(data, |rows| {
            let mut point = Point::new(parameters);
            let mut one = vec![0.0; layout.len()];
            let mut sum = Array1::zeros(layout.len());
            let mut log_likelihood = 0.0;
            in_rows(data, rows, |n, x, y, count| {
                log_likelihood += count * self.observe(&mut point, parameters, n, x, y);
                parameters.score_at(&layout, &point, x, &mut one);
                sum.iter_mut().zip(&one).for_each(|(s, v)| *s += count * v);
            });
            (log_likelihood, sum)
        });
        let log_likelihood: CompensatedSum = blocks.iter().map(|b| b.0).collect();
        let mut gradient = Array1::zeros(layout.len());
        blocks.iter().for_each(|b| gradient += &b.1);
        (log_likelihood.value(), gradient)
    }

    fn derivatives(&self, parameters: &Parameters, data: &Data) -> Derivatives {
        let layout = parameters.layout();
        let blocks = in_blocks(data, |rows| {
            let mut pass = SecondOrder::new(parameters, &layout);
            in_rows(data, rows, |n, x, y, count| {
                let log_density = self.observe(&mut pass.point, parameters, n, x, y);
                pass.add(x, count, log_density);
            });
            pass.finish()
        });
        let log_likelihood: CompensatedSum = blocks.iter().map(|b| b.log_likelihood).collect();
        let size = layout.len();
        let mut total = Derivatives {
            log_likelihood: log_likelihood.value(),
            gradient: Array1::zeros(size),
            hessian: Array2::zeros((size, size)),
        };
        for block in &blocks {
            total.gradient += &block.gradient;
            total.hessian += &block.hessian;
        }
        total
    }

    fn score_outer(&self, parameters: &Parameters, data: &Data) -> Array2<f64> {
        let layout = parameters.layout();
        let size = layout.len();
        let blocks = in_blocks(data, |rows| {
            let mut point = Point::new(parameters);
            let mut one = vec![0.0; size];
            let mut sum = Array2::<f64>::zeros((size, size));
            in_rows(data, rows, |n, x, y, count| {
                self.observe(&mut point, parameters, n, x, y);
                parameters.score_at(&layout, &point, x, &mut one);
                for (mut row, a) in sum.rows_mut().into_iter().zip(&one) {
                    row.iter_mut()
                        .zip(&one)
                        .for_each(|(s, b)| *s += count * a * b);
                }
            });
            sum
        });
        let mut total = Array2::zeros((size, size));
        blocks.iter().for_each(|block| total += block);
        total
    }

    fn em_statistics(&self, parameters: &Parameters, data: &Data) -> EmStatistics {
        let layout = parameters.layout();
        let mut blocks = in_blocks(data, |rows| em_block(self, parameters, &layout, data, rows));
        let log_likelihood: CompensatedSum = blocks.iter().map(|b| b.log_likelihood).collect();
        let rest = blocks.split_off(1);
        let mut total = blocks.remove(0);
        for block in rest {
            for (sum, part) in total.experts.iter_mut().zip(block.experts) {
                sum.responsibility += part.responsibility;
                sum.squares += part.squares;
                sum.score += &part.score;
                sum.curvature += &part.curvature;
                sum.gram += &part.gram;
                sum.moment += &part.moment;
            }
            total.gate_score += &block.gate_score;
            total.gate_information += &block.gate_information;
        }
        total.log_likelihood = log_likelihood.value();
        total
    }
}

/// Calls `row` with (n, x, y, count) of each row.
fn in_rows(data: &Data, rows: Range<usize>, mut row: impl FnMut(usize, &[f64], f64, f64)) {
    let mut x = vec![0.0; data.dimension()];
    for n in rows {
        let y = data.read_row(n, &mut x);
        row(n, &x, y, data.count(n));
    }
}

/// The results of `work` on each block of rows, in order; at least one block.
fn in_blocks<T: Send>(data: &Data, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let count = data.len().div_ceil(BLOCK).max(1);
    let rows = |block: usize| block * BLOCK..((block + 1) * BLOCK).min(data.len());
    if count < PARALLEL_BLOCKS {
        (0..count).map(|b| work(rows(b))).collect()
    } else {
        (0..count).into_par_iter().map(|b| work(rows(b))).collect()
    }
}

/// Accumulates gradient and Hessian over rows.
///
/// With R = sum_i r_i a_i' and W = sum_i w_i s_i' (packed vectors; the notation
/// of `model::score`) the score is R - W and the Hessian of one row is
///
/// ```text
/// sum_i [r_i (a_i'' + a_i' a_i'^T) - w_i (s_i'' + s_i' s_i'^T)] - R R^T + W W^T
/// ```
///
/// The sum is one block per expert; the last two terms are the symmetric part of
/// -(R - W)(R + W)^T.
struct SecondOrder<'a> {
    parameters: &'a Parameters,
    point: Point,
    blocks: Vec<ExpertBlock>,
    log_likelihood: f64,
    /// R and W of the current row, then R - W and R + W.
    joint: Vec<f64>,
    weight: Vec<f64>,
    gradient: Vec<f64>,
    /// sum (R - W)(R + W)^T
    cross: Vec<f64>,
}

/// The Hessian's block of one expert, in the order mean, log-variance, gate.
struct ExpertBlock {
    /// Packed coordinate of each entry; the gate has none for the last expert.
    offsets: Vec<usize>,
    /// Entries of the mean; the next is the log-variance, the rest the gate.
    mean: usize,
    /// Gradients of the entries' drivers in the current row.
    features: Vec<f64>,
    /// a_i' and s_i' of the current row.
    joint: Vec<f64>,
    weight: Vec<f64>,
    /// Lower triangle of the block.
    sums: Vec<f64>,
}

impl ExpertBlock {
    fn new(parameters: &Parameters, layout: &Layout, i: usize) -> Self {
        let expert = &parameters.experts[i];
        let mean = expert.mean_length();
        let start = layout.mean_offset(i);
        let mut offsets: Vec<usize> = (start..start + mean).collect();
        offsets.push(layout.variance_offset(i));
        if let Some(start) = layout.gate_offset(i) {
            offsets.extend(start..start + gate_length(expert));
        }
        let size = offsets.len();
        ExpertBlock {
            offsets,
            mean,
            features: vec![1.0; size],
            joint: vec![0.0; size],
            weight: vec![0.0; size],
            sums: vec![0.0; size * size],
        }
    }

    #[inline]
    fn add(&mut self, expert: &Expert, atom: &Atom, x: &[f64], count: f64) {
        let (r, w) = (count * atom.responsibility, count * atom.weight);
        let precision = 1.0 / expert.variance;
        let scaled = atom.residual * precision;
        let square = atom.residual * scaled;
        let gate = &atom.log_weight;
        let routed = matches!(expert.gate, ExpertGate::Router { .. });
        // Derivatives of the log-weight in the mean and in the gate's own driver.
        let (by_mean, by_own) = if routed {
            ((0.0, 0.0), (gate.first, gate.second))
        } else {
            ((gate.first, gate.second), (1.0, 0.0))
        };

        let size = self.offsets.len();
        let mean = self.mean;
        atom.mean_features(expert, x, &mut self.features[..mean]);
        if routed && size > mean + 1 {
            self.features[mean + 1..size - 1].copy_from_slice(x);
        }
        for a in 0..mean {
            self.joint[a] = (by_mean.0 + scaled) * self.features[a];
            self.weight[a] = by_mean.0 * self.features[a];
        }
        self.joint[mean] = 0.5 * (square - 1.0);
        for a in mean + 1..size {
            self.weight[a] = by_own.0 * self.features[a];
            self.joint[a] = self.weight[a];
        }

        for a in 0..size {
            let (joint, weight) = (r * self.joint[a], w * self.weight[a]);
            let row = &mut self.sums[a * size..a * size + a + 1];
            for (b, sum) in row.iter_mut().enumerate() {
                *sum += joint * self.joint[b] - weight * self.weight[b];
            }
        }
        // Second derivatives of log-weight and log normal density.
        let of_mean = (r - w) * by_mean.1 - r * precision;
        for a in 0..mean {
            let value = of_mean * self.features[a];
            for b in 0..=a {
                self.sums[a * size + b] += value * self.features[b];
            }
            self.sums[mean * size + a] -= r * scaled * self.features[a];
        }
        self.sums[mean * size + mean] -= 0.5 * r * square;
        if by_own.1 != 0.0 {
            let of_gate = (r - w) * by_own.1;
            for a in mean + 1..size {
                for b in mean + 1..=a {
                    self.sums[a * size + b] += of_gate * self.features[a] * self.features[b];
                }
            }
        }
        self.add_curved_mean(expert, atom, x, count);
    }

    /// The part from the curvature of a nonlinear mean.
    #[inline]
    fn add_curved_mean(&mut self, expert: &Expert, atom: &Atom, x: &[f64], count: f64) {
        let activation = atom.activation;
        if activation.second == 0.0 && expert.scale.is_none() {
            return;
        }
        let size = self.offsets.len();
        let score = count * atom.mean_score(expert);
        let hidden = usize::from(expert.scale.is_some());
        let with_one = |j: usize| if j < x.len() { x[j] } else { 1.0 };
        let curvature = score * expert.scale.unwrap_or(1.0) * activation.second;
        for a in 0..=x.len() {
            let row = (hidden + a) * size;
            for b in 0..=a {
                self.sums[row + hidden + b] += curvature * with_one(a) * with_one(b);
            }
            if expert.scale.is_some() {
                self.sums[row] += score * activation.first * with_one(a);
            }
        }
    }
}

impl<'a> SecondOrder<'a> {
    fn new(parameters: &'a Parameters, layout: &'a Layout) -> Self {
        let size = layout.len();
        let count = parameters.experts.len();
        SecondOrder {
            parameters,
            point: Point::new(parameters),
            blocks: (0..count)
                .map(|i| ExpertBlock::new(parameters, layout, i))
                .collect(),
            log_likelihood: 0.0,
            joint: vec![0.0; size],
            weight: vec![0.0; size],
            gradient: vec![0.0; size],
            cross: vec![0.0; size * size],
        }
    }

    /// Adds the row that `point` stands at.
    #[inline]
    fn add(&mut self, x: &[f64], count: f64, log_density: f64) {
        self.log_likelihood += count * log_density;
        self.joint.fill(0.0);
        self.weight.fill(0.0);
        let experts = self.parameters.experts.iter().zip(&self.point.atoms);
        for (block, (expert, atom)) in self.blocks.iter_mut().zip(experts) {
            let (r, w) = (atom.responsibility, atom.weight);
            if r == 0.0 && w == 0.0 {
                continue;
            }
            block.add(expert, atom, x, count);
            for (k, &offset) in block.offsets.iter().enumerate() {
                self.joint[offset] += r * block.joint[k];
                self.weight[offset] += w * block.weight[k];
            }
        }
        for (joint, weight) in self.joint.iter_mut().zip(&mut self.weight) {
            (*joint, *weight) = (*joint - *weight, *joint + *weight);
        }
        let size = self.joint.len();
        for (a, &score) in self.joint.iter().enumerate() {
            let score = count * score;
            self.gradient[a] += score;
            let cross = &mut self.cross[a * size..(a + 1) * size];
            cross
                .iter_mut()
                .zip(&self.weight)
                .for_each(|(c, q)| *c += score * q);
        }
    }

    fn finish(self) -> Derivatives {
        let size = self.joint.len();
        let cross =
            Array2::from_shape_vec((size, size), self.cross).expect("allocated as size by size");
        let mut hessian = -0.5 * (&cross + &cross.t());
        for block in &self.blocks {
            let width = block.offsets.len();
            for (a, &row) in block.offsets.iter().enumerate() {
                for (b, &column) in block.offsets[..=a].iter().enumerate() {
                    let value = block.sums[a * width + b];
                    hessian[[row, column]] += value;
                    if a != b {
                        hessian[[column, row]] += value;
                    }
                }
            }
        }
        Derivatives {
            log_likelihood: self.log_likelihood,
            gradient: Array1::from(self.gradient),
            hessian,
        }
    }
}

fn gate_length(expert: &Expert) -> usize {
    match expert.gate {
        ExpertGate::Router { .. } => expert.slope.len() + 1,
        _ => 1,
    }
}

fn em_block(
    known: &impl Observe,
    parameters: &Parameters,
    layout: &Layout,
    data: &Data,
    rows: Range<usize>,
) -> EmStatistics {
    let experts = &parameters.experts;
    let dimension = parameters.dimension();
    let first_gate = (0..experts.len()).find_map(|i| layout.gate_offset(i));
    let first_gate = first_gate.unwrap_or(layout.len());
    let gates = layout.len() - first_gate;
    let zero = |m: usize| ExpertStatistics {
        responsibility: 0.0,
        squares: 0.0,
        score: Array1::zeros(m),
        curvature: Array2::zeros((m, m)),
        gram: Array2::zeros((m, m)),
        moment: Array1::zeros(m),
    };
    let mut sums = EmStatistics {
        log_likelihood: 0.0,
        experts: experts.iter().map(|e| zero(e.mean_length())).collect(),
        gate_score: Array1::zeros(gates),
        gate_information: Array2::zeros((gates, gates)),
    };
    let mut point = Point::new(parameters);
    let mut features = vec![0.0; dimension + 2];
    let mut gate_features = vec![1.0; dimension + 1];
    in_rows(data, rows, |n, x, y, count| {
        sums.log_likelihood += count * known.observe(&mut point, parameters, n, x, y);
        gate_features[..dimension].copy_from_slice(x);
        for (i, (atom, expert)) in point.atoms.iter().zip(experts).enumerate() {
            if atom.weight == 0.0 && atom.responsibility == 0.0 {
                continue;
            }
            let sum = &mut sums.experts[i];
            let m = expert.mean_length();
            atom.mean_features(expert, x, &mut features[..m]);
            let r = count * atom.responsibility;
            let bound = parameters
                .gate
                .kind
                .curvature_bound(&atom.log_weight, atom.weight);
            let curvature = count * bound + r / expert.variance;
            let score = count * atom.mean_score(expert);
            sum.responsibility += r;
            sum.squares += r * atom.residual * atom.residual;
            for a in 0..m {
                sum.score[a] += score * features[a];
                sum.moment[a] += r * atom.residual * features[a];
                for b in 0..m {
                    let product = features[a] * features[b];
                    sum.curvature[[a, b]] += curvature * product;
                    sum.gram[[a, b]] += r * product;
                }
            }
            let Some(row) = layout.gate_offset(i).map(|o| o - first_gate) else {
                continue;
            };
            // A bias has the constant as its only feature, the last one.
            let own = &gate_features[dimension + 1 - gate_length(expert)..];
            let gate_score = count * atom.gate_score(expert);
            let slope = count * atom.gate_slope(expert);
            for (a, fa) in own.iter().enumerate() {
                sums.gate_score[row + a] += gate_score * fa;
            }
            for (j, (other, peer)) in point.atoms.iter().zip(experts).enumerate() {
                let Some(column) = layout.gate_offset(j).map(|o| o - first_gate) else {
                    continue;
                };
                let identity = if i == j { atom.weight } else { 0.0 };
                let factor =
                    slope * other.gate_slope(peer) * (identity - atom.weight * other.weight);
                for (a, fa) in own.iter().enumerate() {
                    for (b, fb) in own.iter().enumerate() {
                        sums.gate_information[[row + a, column + b]] += factor * fa * fb;
                    }
                }
            }
        }
    });
    sums
}
