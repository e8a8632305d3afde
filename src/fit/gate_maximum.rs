//! The gate's whole M-step: its own parameters at their maximum, not one step
//! towards it.
//!
//! With responsibilities r and kept sets T held where they are, and the experts
//! too, the gate's part of the expected complete-data log-likelihood is
//!
//! ```text
//! Q(gate) = sum_n sum_i r_ni log w_i(x_n; gate)
//! ```
//!
//! a multinomial regression on soft labels. It is climbed by Fisher scoring
//! (Newton where the log-weight is affine: iteratively reweighted least squares),
//! halved where Q would fall, until the gain in sight is rounding.

use super::bounds::Bounds;
use crate::model::{Data, Expert, ExpertGate, Layout, Parameters, Point};
use crate::num::dense::solve_ridged;
use ndarray::{Array1, Array2};

/// Most scoring steps; ten are rare.
const MAX_STEPS: usize = 100;
/// Halvings of a step that lowers Q.
const MAX_HALVINGS: usize = 40;
/// The half squared length of a step, in units of log-likelihood, that is small.
const GAIN: f64 = 1e-10;

/// A maximum of the gate's part, and what it took.
pub(super) struct GateMaximum {
    /// All packed coordinates, those of the gate moved.
    pub packed: Vec<f64>,
    /// Passes over the rows.
    pub passes: usize,
}

/// Maximises Q over the gate's coordinates inside the box, from `packed`, where r
/// and T are taken. `None` if a sum is not finite.
pub(super) fn gate_maximum(
    template: &Parameters,
    layout: &Layout,
    data: &Data,
    bounds: &Bounds,
    packed: &[f64],
) -> Option<GateMaximum> {
    let offsets = (0..template.experts.len()).filter_map(|i| layout.gate_offset(i));
    let Some(first) = offsets.min() else {
        return Some(GateMaximum {
            packed: packed.to_vec(),
            passes: 0,
        });
    };
    let parameters = layout.unpack(template, packed);
    let regression = Regression::new(&parameters, layout, data, first);
    let mut here = packed.to_vec();
    let mut value = regression.sums(&here);
    let mut passes = 2;
    for _ in 0..MAX_STEPS {
        if !value.objective.is_finite() {
            return None;
        }
        let free: Vec<usize> = (0..value.score.len())
            .filter(|&a| !bounds.blocks(&here, first + a, value.score[a]))
            .collect();
        let score: Array1<f64> = free.iter().map(|&a| value.score[a]).collect();
        let information = Array2::from_shape_fn((free.len(), free.len()), |(a, b)| {
            value.information[[free[a], free[b]]]
        });
        // Without information (a weight of 0 or 1 at every row) the gate rests.
        let Some(step) = solve_ridged(&information, &score) else {
            break;
        };
        if 0.5 * step.dot(&score) <= GAIN {
            break;
        }
        let mut fraction = 1.0;
        let mut moved = None;
        for _ in 0..MAX_HALVINGS {
            let mut there = here.clone();
            for (&a, step) in free.iter().zip(&step) {
                there[first + a] += fraction * step;
            }
            bounds.project(&mut there);
            let next = regression.sums(&there);
            passes += 1;
            if next.objective > value.objective {
                moved = Some((there, next));
                break;
            }
            fraction *= 0.5;
        }
        match moved {
            Some((there, next)) => (here, value) = (there, next),
            None => break,
        }
    }
    Some(GateMaximum {
        packed: here,
        passes,
    })
}

/// Soft labels and what the gate's own parameters are added to, row by row.
struct Regression<'a> {
    parameters: &'a Parameters,
    layout: &'a Layout,
    data: &'a Data,
    /// First coordinate of the gate.
    first: usize,
    /// r. Shape: n, experts.
    responsibilities: Array2<f64>,
    /// The log-weight without the gate's own parameters; -inf for a dropped
    /// expert. Shape: n, experts.
    fixed: Array2<f64>,
}

/// Q with its score and Fisher information.
struct Sums {
    objective: f64,
    score: Array1<f64>,
    information: Array2<f64>,
}

impl<'a> Regression<'a> {
    fn new(parameters: &'a Parameters, layout: &'a Layout, data: &'a Data, first: usize) -> Self {
        let count = parameters.experts.len();
        let mut responsibilities = Array2::zeros((data.len(), count));
        let mut fixed = Array2::zeros((data.len(), count));
        let mut point = Point::new(parameters);
        let mut x = vec![0.0; data.dimension()];
        for n in 0..data.len() {
            let y = data.read_row(n, &mut x);
            point.observe(parameters, &x, y);
            for (i, (atom, expert)) in point.atoms.iter().zip(&parameters.experts).enumerate() {
                responsibilities[[n, i]] = atom.responsibility;
                fixed[[n, i]] = match (atom.weight > 0.0, &expert.gate) {
                    (false, _) => f64::NEG_INFINITY,
                    (true, ExpertGate::Router { .. }) => 0.0,
                    (true, _) => atom.log_weight.value - expert.bias(),
                };
            }
        }
        Regression {
            parameters,
            layout,
            data,
            first,
            responsibilities,
            fixed,
        }
    }

    fn sums(&self, packed: &[f64]) -> Sums {
        let dimension = self.data.dimension();
        let count = self.parameters.experts.len();
        let moved = self.layout.unpack(self.parameters, packed);
        let size = self.layout.len() - self.first;
        let mut sums = Sums {
            objective: 0.0,
            score: Array1::zeros(size),
            information: Array2::zeros((size, size)),
        };
        let rows: Vec<Option<usize>> = (0..count)
            .map(|i| self.layout.gate_offset(i).map(|offset| offset - self.first))
            .collect();
        // A bias has the constant as its only feature, the last one.
        let mut features = vec![1.0; dimension + 1];
        let (mut logs, mut slopes) = (vec![0.0; count], vec![0.0; count]);
        for n in 0..self.data.len() {
            self.data.read_row(n, &mut features[..dimension]);
            let weight_of_row = self.data.count(n);
            for (i, expert) in moved.experts.iter().enumerate() {
                let (own, slope) = self.own(expert, &features[..dimension]);
                logs[i] = self.fixed[[n, i]] + own;
                slopes[i] = slope;
            }
            let top = logs.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
            let total: f64 = logs.iter().map(|v| (v - top).exp()).sum();
            let log_total = top + total.ln();
            let labels = self.responsibilities.row(n);
            for i in 0..count {
                if labels[i] > 0.0 {
                    sums.objective += weight_of_row * labels[i] * (logs[i] - log_total);
                }
                logs[i] = (logs[i] - log_total).exp();
            }
            for i in 0..count {
                let Some(row) = rows[i] else { continue };
                let own = &features[dimension + 1 - gate_length(&moved.experts[i])..];
                let score = weight_of_row * (labels[i] - logs[i]) * slopes[i];
                for (a, fa) in own.iter().enumerate() {
                    sums.score[row + a] += score * fa;
                }
                for j in 0..=i {
                    let Some(column) = rows[j] else { continue };
                    let identity = if i == j { logs[i] } else { 0.0 };
                    let factor =
                        weight_of_row * slopes[i] * slopes[j] * (identity - logs[i] * logs[j]);
                    for (a, fa) in own.iter().enumerate() {
                        for (b, fb) in own.iter().enumerate() {
                            sums.information[[row + a, column + b]] += factor * fa * fb;
                            if i != j {
                                sums.information[[column + b, row + a]] += factor * fa * fb;
                            }
                        }
                    }
                }
            }
        }
        sums
    }

    /// What the gate's own parameters add to a log-weight, and its slope in them.
    fn own(&self, expert: &Expert, x: &[f64]) -> (f64, f64) {
        match &expert.gate {
            ExpertGate::Router { slope, intercept } => {
                let driver = slope.iter().zip(x).map(|(b, x)| b * x).sum::<f64>() + intercept;
                let log_weight = self.parameters.gate.kind.log_weight(driver);
                (log_weight.value, log_weight.first)
            }
            _ => (expert.bias(), 1.0),
        }
    }
}

fn gate_length(expert: &Expert) -> usize {
    match &expert.gate {
        ExpertGate::Router { slope, .. } => slope.len() + 1,
        _ => 1,
    }
}
