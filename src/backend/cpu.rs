//! The reference: plain loops in f64, written to be read.

use super::{Backend, Derivatives, EmStatistics, ExpertStatistics};
use crate::model::{Data, Expert, ExpertGate, Layout, Parameters, Point};
use crate::num::sum::CompensatedSum;
use ndarray::{Array1, Array2};
use rayon::prelude::*;
use std::ops::Range;

/// Rows per block. Blocks are the unit of work and of summation.
const BLOCK: usize = 4096;
/// Below this many blocks one thread works alone: sweeps run many fits at once.
const PARALLEL_BLOCKS: usize = 64;

/// The processor's own backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn log_likelihood(&self, parameters: &Parameters, data: &Data) -> f64 {
        let blocks = in_blocks(data, |rows| {
            let mut point = Point::new(parameters);
            rows.map(|n| {
                let (x, y) = data.row(n);
                point.observe(parameters, x, y)
            })
            .sum::<f64>()
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
            for n in rows {
                let (x, y) = data.row(n);
                log_likelihood += parameters.score(&layout, &mut point, x, y, &mut one);
                sum.iter_mut().zip(&one).for_each(|(s, v)| *s += v);
            }
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
            for n in rows {
                let (x, y) = data.row(n);
                pass.add(x, y);
            }
            pass.finish()
        });
        let log_likelihood: CompensatedSum = blocks.iter().map(|b| b.log_likelihood).collect();
        let size = layout.len();
        let mut total = Derivatives {
            log_likelihood: log_likelihood.value(),
            gradient: Array1::zeros(size),
            hessian: Array2::zeros((size, size)),
            outer: Array2::zeros((size, size)),
        };
        for block in &blocks {
            total.gradient += &block.gradient;
            total.hessian += &block.hessian;
            total.outer += &block.outer;
        }
        total
    }

    fn em_statistics(&self, parameters: &Parameters, data: &Data) -> EmStatistics {
        let layout = parameters.layout();
        let mut blocks = in_blocks(data, |rows| em_block(parameters, &layout, data, rows));
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

/// One of an expert's drivers (mean, log-variance, gate) at one observation.
#[derive(Clone, Copy, Default)]
struct Driver {
    /// First packed coordinate; `ABSENT` if the driver has none.
    offset: usize,
    /// Number of coordinates it is linear in to first order.
    length: usize,
    /// Derivative of log-weight + log normal density.
    joint: f64,
    /// Derivative of the log-weight.
    weight: f64,
}

const MEAN: usize = 0;
const VARIANCE: usize = 1;
const GATE: usize = 2;
const ABSENT: usize = usize::MAX;

/// Accumulates gradient, Hessian and outer products over rows.
///
/// With R = sum_i r_i a_i' and W = sum_i w_i s_i' (packed vectors; the notation
/// of `model::score`) the score is R - W and the Hessian of one row is
///
/// ```text
/// sum_i [r_i (a_i'' + a_i' a_i'^T) - w_i (s_i'' + s_i' s_i'^T)] - R R^T + W W^T
/// ```
///
/// whose last two terms are the symmetric part of -(R - W)(R + W)^T.
struct SecondOrder<'a> {
    parameters: &'a Parameters,
    layout: &'a Layout,
    point: Point,
    drivers: Vec<[Driver; 3]>,
    /// Gradient of each driver in its coordinates, `stride` apart.
    features: Vec<f64>,
    stride: usize,
    log_likelihood: f64,
    /// R and W of the current row, then R - W and R + W.
    joint: Vec<f64>,
    weight: Vec<f64>,
    gradient: Vec<f64>,
    /// Blocks of one expert: a driver with itself, and each pair of its drivers
    /// once.
    diagonal: Vec<f64>,
    pairs: Vec<f64>,
    /// sum (R - W)(R + W)^T and sum (R - W)(R - W)^T.
    cross: Vec<f64>,
    outer: Vec<f64>,
}

impl<'a> SecondOrder<'a> {
    fn new(parameters: &'a Parameters, layout: &'a Layout) -> Self {
        let count = parameters.experts.len();
        let stride = parameters.dimension() + 2;
        let size = layout.len();
        let mut drivers = vec![[Driver::default(); 3]; count];
        for (i, expert) in parameters.experts.iter().enumerate() {
            drivers[i][MEAN].offset = layout.mean_offset(i);
            drivers[i][MEAN].length = mean_length(expert);
            drivers[i][VARIANCE].offset = layout.variance_offset(i);
            drivers[i][VARIANCE].length = 1;
            drivers[i][GATE].offset = layout.gate_offset(i).unwrap_or(ABSENT);
            drivers[i][GATE].length = gate_length(expert);
        }
        SecondOrder {
            parameters,
            layout,
            point: Point::new(parameters),
            drivers,
            features: vec![0.0; 3 * count * stride],
            stride,
            log_likelihood: 0.0,
            joint: vec![0.0; size],
            weight: vec![0.0; size],
            gradient: vec![0.0; size],
            diagonal: vec![0.0; size * size],
            pairs: vec![0.0; size * size],
            cross: vec![0.0; size * size],
            outer: vec![0.0; size * size],
        }
    }

    #[inline]
    fn add(&mut self, x: &[f64], y: f64) {
        self.log_likelihood += self.point.observe(self.parameters, x, y);
        self.joint.fill(0.0);
        self.weight.fill(0.0);
        for i in 0..self.drivers.len() {
            let atom = &self.point.atoms[i];
            if atom.weight > 0.0 || atom.responsibility > 0.0 {
                self.add_expert(i, x);
                self.add_curved_mean(i, x);
            }
        }
        for (joint, weight) in self.joint.iter_mut().zip(&mut self.weight) {
            (*joint, *weight) = (*joint - *weight, *joint + *weight);
        }
        let size = self.joint.len();
        for (a, &score) in self.joint.iter().enumerate() {
            self.gradient[a] += score;
            let cross = &mut self.cross[a * size..(a + 1) * size];
            cross
                .iter_mut()
                .zip(&self.weight)
                .for_each(|(c, q)| *c += score * q);
            let outer = &mut self.outer[a * size..(a + 1) * size];
            outer
                .iter_mut()
                .zip(&self.joint)
                .for_each(|(o, s)| *o += score * s);
        }
    }

    /// Expert i's entries of R and W, and the Hessian's block of its own.
    #[inline]
    fn add_expert(&mut self, i: usize, x: &[f64]) {
        let expert = &self.parameters.experts[i];
        let atom = &self.point.atoms[i];
        let (r, w) = (atom.responsibility, atom.weight);
        let precision = 1.0 / expert.variance;
        let scaled = atom.residual * precision;
        let square = atom.residual * scaled;
        let gate = &atom.log_weight;
        let routed = matches!(expert.gate, ExpertGate::Router { .. });
        let none = (0.0, 0.0);
        let curve = (gate.first, gate.second);
        let (by_mean, by_own) = if routed {
            (none, curve)
        } else {
            (curve, (1.0, 0.0))
        };

        let drivers = &mut self.drivers[i];
        (drivers[MEAN].weight, drivers[MEAN].joint) = (by_mean.0, by_mean.0 + scaled);
        drivers[VARIANCE].joint = 0.5 * (square - 1.0);
        (drivers[GATE].weight, drivers[GATE].joint) = (by_own.0, by_own.0);
        let drivers = self.drivers[i];
        let second = [
            (r - w) * by_mean.1 - r * precision,
            -0.5 * r * square,
            (r - w) * by_own.1,
        ];

        let base = 3 * i * self.stride;
        atom.mean_features(
            expert,
            x,
            &mut self.features[base..base + drivers[MEAN].length],
        );
        self.features[base + self.stride] = 1.0;
        let own = &mut self.features[base + 2 * self.stride..base + 3 * self.stride];
        if routed {
            own[..x.len()].copy_from_slice(x);
            own[x.len()] = 1.0;
        } else {
            own[0] = 1.0;
        }

        let size = self.joint.len();
        for k in 0..3 {
            let p = drivers[k];
            if p.offset == ABSENT {
                continue;
            }
            let rows = &self.features[base + k * self.stride..][..p.length];
            for (a, feature) in rows.iter().enumerate() {
                self.joint[p.offset + a] += r * p.joint * feature;
                self.weight[p.offset + a] += w * p.weight * feature;
            }
            for (l, q) in drivers[..=k].iter().enumerate() {
                let mut value = r * p.joint * q.joint - w * p.weight * q.weight;
                if k == l {
                    value += second[k];
                } else if (k, l) == (VARIANCE, MEAN) {
                    value -= r * scaled;
                }
                let target = if k == l {
                    &mut self.diagonal
                } else {
                    &mut self.pairs
                };
                let columns = &self.features[base + l * self.stride..][..q.length];
                for (a, fa) in rows.iter().enumerate() {
                    let row = &mut target[(p.offset + a) * size + q.offset..][..q.length];
                    let scaled = value * fa;
                    row.iter_mut()
                        .zip(columns)
                        .for_each(|(t, fb)| *t += scaled * fb);
                }
            }
        }
    }

    /// The part of the Hessian from the curvature of a nonlinear mean.
    #[inline]
    fn add_curved_mean(&mut self, i: usize, x: &[f64]) {
        let expert = &self.parameters.experts[i];
        let activation = self.point.atoms[i].activation;
        if activation.second == 0.0 && expert.scale.is_none() {
            return;
        }
        let score = self.point.atoms[i].mean_score(expert);
        let size = self.joint.len();
        let start = self.layout.mean_offset(i);
        let hidden = start + usize::from(expert.scale.is_some());
        let with_one = |j: usize| if j < x.len() { x[j] } else { 1.0 };
        let curvature = score * expert.scale.unwrap_or(1.0) * activation.second;
        for a in 0..=x.len() {
            for b in 0..=x.len() {
                self.diagonal[(hidden + a) * size + hidden + b] +=
                    curvature * with_one(a) * with_one(b);
            }
            if expert.scale.is_some() {
                let mixed = score * activation.first * with_one(a);
                self.pairs[start * size + hidden + a] += mixed;
            }
        }
    }

    fn finish(self) -> Derivatives {
        let size = self.joint.len();
        let square = |values: Vec<f64>| {
            Array2::from_shape_vec((size, size), values).expect("allocated as size by size")
        };
        let pairs = square(self.pairs);
        let cross = square(self.cross);
        let symmetric = &pairs + &pairs.t() - 0.5 * (&cross + &cross.t());
        Derivatives {
            log_likelihood: self.log_likelihood,
            gradient: Array1::from(self.gradient),
            hessian: square(self.diagonal) + symmetric,
            outer: square(self.outer),
        }
    }
}

fn mean_length(expert: &Expert) -> usize {
    expert.slope.len() + 1 + usize::from(expert.scale.is_some())
}

fn gate_length(expert: &Expert) -> usize {
    match expert.gate {
        ExpertGate::Router { .. } => expert.slope.len() + 1,
        _ => 1,
    }
}

fn em_block(
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
        experts: experts.iter().map(|e| zero(mean_length(e))).collect(),
        gate_score: Array1::zeros(gates),
        gate_information: Array2::zeros((gates, gates)),
    };
    let mut point = Point::new(parameters);
    let mut features = vec![0.0; dimension + 2];
    let mut gate_features = vec![1.0; dimension + 1];
    for n in rows {
        let (x, y) = data.row(n);
        sums.log_likelihood += point.observe(parameters, x, y);
        gate_features[..dimension].copy_from_slice(x);
        for (i, (atom, expert)) in point.atoms.iter().zip(experts).enumerate() {
            if atom.weight == 0.0 && atom.responsibility == 0.0 {
                continue;
            }
            let sum = &mut sums.experts[i];
            let m = mean_length(expert);
            atom.mean_features(expert, x, &mut features[..m]);
            let r = atom.responsibility;
            let bound = parameters
                .gate
                .kind
                .curvature_bound(&atom.log_weight, atom.weight);
            let curvature = bound + r / expert.variance;
            let score = atom.mean_score(expert);
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
            let gate_score = atom.gate_score(expert);
            let slope = gate_slope(expert, atom.log_weight.first);
            for (a, fa) in own.iter().enumerate() {
                sums.gate_score[row + a] += gate_score * fa;
            }
            for (j, (other, peer)) in point.atoms.iter().zip(experts).enumerate() {
                let Some(column) = layout.gate_offset(j).map(|o| o - first_gate) else {
                    continue;
                };
                let identity = if i == j { atom.weight } else { 0.0 };
                let factor = slope
                    * gate_slope(peer, other.log_weight.first)
                    * (identity - atom.weight * other.weight);
                for (a, fa) in own.iter().enumerate() {
                    for (b, fb) in own.iter().enumerate() {
                        sums.gate_information[[row + a, column + b]] += factor * fa * fb;
                    }
                }
            }
        }
    }
    sums
}

/// Derivative of an expert's log-weight in its own gate driver.
fn gate_slope(expert: &Expert, first: f64) -> f64 {
    match expert.gate {
        ExpertGate::Router { .. } => first,
        _ => 1.0,
    }
}
