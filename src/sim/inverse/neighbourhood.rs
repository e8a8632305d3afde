//! Mixtures close to a truth, in coordinates that keep their digits.
//!
//! A nearby mixture q has atoms i that each stand for a share a_i of a true atom
//! j(i) and deviate a little from it. Then
//!
//! ```text
//! q / p - 1 = (A - B) / (1 + B)        A = sum_i r_j(i) a_i (e^(g_i + l_i) - 1)
//!                                      B = sum_i w_j(i) a_i (e^g_i - 1)
//! sqrt q - sqrt p = sqrt p u / (1 + sqrt(1 + u))                    u = q / p - 1
//! ```
//!
//! with w and r the true weights and responsibilities, g_i the change of the
//! atom's log-weight and l_i that of its log normal density. Both changes are
//! computed from the deviations, so that rounding is relative to their size: a
//! difference of two log-densities would lose the digits of everything below
//! 1e-16, this one of everything below 1e-16 times the deviation.
//!
//! Regression functions are compared in the same coordinates (`regression.rs`).

use super::distance::Distance;
use super::increment::increment;
use super::regression;
use crate::loss::divergence::{NODES_PER_DEVIATION, RANGE};
use crate::model::{ExpertGate, GateKind, InputLaw, Model, Parameters, Point};
use ndarray::{Array1, Array2};

/// What one column of a deviation is, for every atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Output weight of a hidden unit: a difference.
    Scale,
    /// Slope along an input dimension: a difference.
    Slope(usize),
    /// Intercept: a difference.
    Intercept,
    /// Variance: the logarithm of a ratio.
    LogVariance,
    /// Router slope along an input dimension: a difference.
    GateSlope(usize),
    /// Bias or router intercept beyond the logarithm of the share: a difference.
    LogWeight,
}

/// The columns of a deviation of `parameters` that `distance` can see, in order.
pub fn columns(parameters: &Parameters, distance: Distance) -> Vec<Column> {
    let dimension = parameters.dimension();
    let mut columns: Vec<Column> = (0..dimension).map(Column::Slope).collect();
    columns.push(Column::Intercept);
    if parameters.experts[0].scale.is_some() {
        columns.push(Column::Scale);
    }
    if distance == Distance::Hellinger {
        columns.push(Column::LogVariance);
    }
    if parameters.gate.kind.is_router() {
        columns.extend((0..dimension).map(Column::GateSlope));
    }
    columns.push(Column::LogWeight);
    columns
}

/// How a nearby mixture differs from the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// The share of its true atom that each atom stands for; the shares of one
    /// true atom add up to 1. Shape: atoms.
    pub shares: Vec<f64>,
    /// The rest. Shape: atoms, columns.
    pub changes: Array2<f64>,
}

/// All mixtures whose atoms stand for shares of the atoms of a truth.
#[derive(Clone, Debug)]
pub struct Neighbourhood {
    pub(super) truth: Parameters,
    pub(super) columns: Vec<Column>,
    pub(super) owners: Vec<usize>,
    pub(super) inputs: Vec<Input>,
    distance: Distance,
    /// None for the regression distance.
    nodes: Vec<Node>,
}

/// One point of the input grid with the truth there. Shapes: true atoms.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) x: Vec<f64>,
    pub(super) means: Vec<f64>,
    pub(super) weights: Vec<f64>,
    predictors: Vec<f64>,
}

/// One point of the lattice in (x, y) with the truth there.
#[derive(Clone, Debug)]
struct Node {
    input: usize,
    y: f64,
    /// Shape: true atoms.
    responsibilities: Vec<f64>,
    /// sqrt(p step / (2 inputs)): squares of residuals in these units add up to
    /// E_X h^2.
    root: f64,
}

/// A nearby mixture, seen from the truth.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// sqrt q - sqrt p at each node, or f_G - f_G* at each input: the sum of
    /// squares is the mean square over the input.
    pub residuals: Array1<f64>,
    /// Bound on what rounding adds to its root.
    pub rounding: f64,
}

impl Neighbourhood {
    /// Mixtures of atoms that stand for the true atoms `owners`. The truth is
    /// dense and has an input law on a grid; all experts have scales or none has.
    pub fn new(truth: &Model, owners: Vec<usize>, distance: Distance) -> Self {
        let InputLaw::Grid { points, .. } = &truth.input else {
            unreachable!("checked with the study: the input law is a grid")
        };
        let parameters = &truth.parameters;
        let deviations: Vec<f64> = parameters
            .experts
            .iter()
            .map(|e| e.variance.sqrt())
            .collect();
        let narrowest = deviations.iter().copied().fold(f64::INFINITY, f64::min);
        let step = narrowest / NODES_PER_DEVIATION;
        let unit = (0.5 * step / points.len() as f64).sqrt();
        let mut inputs = Vec::new();
        let mut nodes = Vec::new();
        let mut point = Point::new(parameters);
        for x in points {
            let law = parameters.conditional(x);
            let end = |sign: f64| {
                let ends = law.means.iter().zip(&deviations);
                ends.map(|(m, s)| sign * m + RANGE * s)
                    .fold(f64::NEG_INFINITY, f64::max)
            };
            let (low, high) = (-end(-1.0), end(1.0));
            let lattice = (low / step).floor() as i64..=(high / step).ceil() as i64;
            let with_nodes = distance == Distance::Hellinger;
            for k in lattice.filter(|_| with_nodes) {
                let y = k as f64 * step;
                let log_density = point.observe(parameters, x, y);
                nodes.push(Node {
                    input: inputs.len(),
                    y,
                    responsibilities: point.atoms.iter().map(|a| a.responsibility).collect(),
                    root: unit * (0.5 * log_density).exp(),
                });
            }
            inputs.push(Input {
                x: x.clone(),
                weights: law.log_weights.iter().map(|w| w.exp()).collect(),
                means: law.means,
                predictors: parameters.experts.iter().map(|e| e.predictor(x)).collect(),
            });
        }
        Neighbourhood {
            columns: columns(parameters, distance),
            truth: parameters.clone(),
            owners,
            inputs,
            distance,
            nodes,
        }
    }

    /// Number of atoms of the nearby mixtures.
    pub fn atoms(&self) -> usize {
        self.owners.len()
    }

    /// The columns of a deviation.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The nearby mixture itself.
    pub fn parameters(&self, deviation: &Deviation) -> Parameters {
        let experts = (0..self.atoms()).map(|i| {
            let mut expert = self.truth.experts[self.owners[i]].clone();
            for (column, change) in self.columns.iter().zip(deviation.changes.row(i)) {
                match (column, &mut expert.gate) {
                    (Column::Slope(j), _) => expert.slope[*j] += change,
                    (Column::Scale, _) => expert.scale = expert.scale.map(|s| s + change),
                    (Column::Intercept, _) => expert.intercept += change,
                    (Column::LogVariance, _) => expert.variance *= change.exp(),
                    (Column::GateSlope(j), ExpertGate::Router { slope, .. }) => slope[*j] += change,
                    (Column::LogWeight, ExpertGate::Router { intercept, .. }) => {
                        *intercept += deviation.shares[i].ln() + change;
                    }
                    (Column::LogWeight, ExpertGate::Bias(bias)) => {
                        *bias += deviation.shares[i].ln() + change;
                    }
                    _ => unreachable!("checked with the study: experts have biases or routers"),
                }
            }
            expert
        });
        Parameters {
            experts: experts.collect(),
            ..self.truth.clone()
        }
    }

    /// The nearby mixture compared with the truth.
    pub fn compare(&self, deviation: &Deviation) -> Comparison {
        match self.distance {
            Distance::Hellinger => self.densities(deviation).0,
            Distance::Regression => regression::compare(self, deviation),
        }
    }

    /// Derivatives of the residuals. Shape: residuals, atoms * columns, the columns
    /// of atom 0 first.
    pub fn jacobian(&self, deviation: &Deviation) -> Array2<f64> {
        match self.distance {
            Distance::Hellinger => self.density_jacobian(deviation),
            Distance::Regression => regression::jacobian(self, deviation),
        }
    }

    /// The densities compared, and sqrt q in the units of the residuals.
    fn densities(&self, deviation: &Deviation) -> (Comparison, Array1<f64>) {
        let count = self.nodes.len();
        let mut residuals = Array1::zeros(count);
        let mut roots = Array1::zeros(count);
        let mut rounding = 0.0;
        let mut changes: Vec<Change> = Vec::new();
        let (mut excess, mut excess_size) = (0.0, 0.0);
        let mut here = usize::MAX;
        for (k, node) in self.nodes.iter().enumerate() {
            let input = &self.inputs[node.input];
            if here != node.input {
                here = node.input;
                changes = (0..self.atoms())
                    .map(|i| self.change(i, deviation, input))
                    .collect();
                (excess, excess_size) = (0.0, 0.0);
                for (i, change) in changes.iter().enumerate() {
                    let mass = input.weights[self.owners[i]] * deviation.shares[i];
                    excess += mass * change.log_weight.exp_m1();
                    excess_size += mass * change.log_weight_size;
                }
            }
            let (mut surplus, mut size) = (-excess, excess_size);
            for (i, change) in changes.iter().enumerate() {
                let j = self.owners[i];
                let z = node.y - input.means[j];
                let (normal, normal_size) = change.log_normal(z, self.truth.experts[j].variance);
                let share = node.responsibilities[j] * deviation.shares[i];
                let growth = (change.log_weight + normal).exp_m1();
                surplus += share * growth;
                size += share * (1.0 + growth) * (change.log_weight_size + normal_size);
            }
            // A density is not negative; rounding may say so where it is nothing.
            let ratio = (surplus / (1.0 + excess)).max(-1.0);
            let root = (1.0 + ratio).sqrt();
            residuals[k] = node.root * ratio / (1.0 + root);
            roots[k] = node.root * root;
            let noise = node.root * size;
            rounding += noise * noise;
        }
        let comparison = Comparison {
            residuals,
            // Four roundings per term, and the half of a square root.
            rounding: 2.0 * f64::EPSILON * rounding.sqrt(),
        };
        (comparison, roots)
    }

    /// sqrt q times half the score.
    fn density_jacobian(&self, deviation: &Deviation) -> Array2<f64> {
        let roots = self.densities(deviation).1;
        let parameters = self.parameters(deviation);
        let mut point = Point::new(&parameters);
        let width = self.columns.len();
        let mut jacobian = Array2::zeros((self.nodes.len(), self.atoms() * width));
        for (k, node) in self.nodes.iter().enumerate() {
            let x = &self.inputs[node.input].x;
            point.observe(&parameters, x, node.y);
            let half_root = 0.5 * roots[k];
            for (i, (atom, expert)) in point.atoms.iter().zip(&parameters.experts).enumerate() {
                let mean = half_root * atom.mean_score(expert);
                let gate = half_root * atom.gate_score(expert);
                let hidden = mean * expert.scale.unwrap_or(1.0) * atom.activation.first;
                for (c, column) in self.columns.iter().enumerate() {
                    jacobian[[k, i * width + c]] = match column {
                        Column::Scale => mean * atom.activation.value,
                        Column::Slope(j) => hidden * x[*j],
                        Column::Intercept => hidden,
                        Column::LogVariance => half_root * atom.log_variance_score(expert),
                        Column::GateSlope(j) => gate * x[*j],
                        Column::LogWeight => gate,
                    };
                }
            }
        }
        jacobian
    }

    /// How atom i changes at one input.
    pub(super) fn change(&self, i: usize, deviation: &Deviation, input: &Input) -> Change {
        let j = self.owners[i];
        let expert = &self.truth.experts[j];
        let (mut step, mut step_size, mut scale) = (0.0, 0.0, 0.0);
        let (mut score, mut log_variance, mut log_weight) = (0.0, 0.0, 0.0);
        for (column, change) in self.columns.iter().zip(deviation.changes.row(i)) {
            match column {
                Column::Slope(l) => {
                    step += change * input.x[*l];
                    step_size += (change * input.x[*l]).abs();
                }
                Column::Intercept => {
                    step += change;
                    step_size += change.abs();
                }
                Column::Scale => scale = *change,
                Column::LogVariance => log_variance = *change,
                Column::GateSlope(l) => score += change * input.x[*l],
                Column::LogWeight => log_weight = *change,
            }
        }
        let before = expert.kind.activation(input.predictors[j]);
        let rise = increment(expert.kind, input.predictors[j], step);
        let rise_size = rise.abs().max(before.first.abs() * step_size);
        let hidden = expert.scale.unwrap_or(1.0) + scale;
        let scaled = scale * before.value;
        let mean = hidden * rise + scaled;
        let mean_size = hidden.abs() * rise_size + scaled.abs();
        let kind = self.truth.gate.kind;
        // The increment of a softmax router's score does not depend on the score.
        let (moved, moved_size) = match kind.is_router() {
            true => (score, score.abs()),
            false => (mean, mean_size),
        };
        let driven = kind.increment(input.means[j], moved);
        let steepness = kind.log_weight(input.means[j]).first.abs();
        Change {
            mean,
            mean_size,
            log_variance,
            log_weight: driven + log_weight,
            log_weight_size: driven.abs().max(steepness * moved_size) + log_weight.abs(),
        }
    }

    /// Mass error of the nearby mixture: sum over true atoms of |S_j - omega*_j|,
    /// S_j the mass of the atoms that stand for j and both sides of total 1, as
    /// the mass part of the Voronoi losses; `tilt` as in their tilted form.
    pub fn mass_error(&self, deviation: &Deviation, tilt: Tilt) -> f64 {
        let factor = match (tilt, self.truth.gate.kind) {
            (Tilt::None, _) => 0.0,
            (Tilt::Variance, GateKind::Competition { kappa, .. }) => 0.5 * kappa * kappa,
            (Tilt::Variance, _) => 0.5,
        };
        let change = |i: usize, wanted: Column| {
            let position = self.columns.iter().position(|c| *c == wanted);
            position.map_or(0.0, |c| deviation.changes[[i, c]])
        };
        let log_masses: Vec<f64> = self
            .truth
            .experts
            .iter()
            .map(|e| e.log_mass() + factor * e.variance)
            .collect();
        let top = log_masses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = log_masses.iter().map(|m| (m - top).exp()).sum();
        let masses: Vec<f64> = log_masses.iter().map(|m| (m - top).exp() / total).collect();
        let mut growth = vec![0.0; masses.len()];
        for i in 0..self.atoms() {
            let j = self.owners[i];
            let variance = self.truth.experts[j].variance;
            let wider = variance * change(i, Column::LogVariance).exp_m1();
            growth[j] +=
                deviation.shares[i] * (change(i, Column::LogWeight) + factor * wider).exp_m1();
        }
        let mean: f64 = masses.iter().zip(&growth).map(|(m, g)| m * g).sum();
        let errors = masses
            .iter()
            .zip(&growth)
            .map(|(m, g)| m * (g - mean).abs());
        errors.sum::<f64>() / (1.0 + mean)
    }
}

/// Which masses: e^bias, or e^(bias + kappa^2 variance / 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tilt {
    /// As they are.
    None,
    /// By the variance; kappa counts as 1 where the gate has none.
    Variance,
}

/// How one atom changes at one input.
pub(super) struct Change {
    pub(super) mean: f64,
    /// Sum of the absolute terms of `mean`.
    pub(super) mean_size: f64,
    log_variance: f64,
    pub(super) log_weight: f64,
    /// Sum of the absolute terms of `log_weight`.
    pub(super) log_weight_size: f64,
}

impl Change {
    /// log N(y; m + dm, v e^u) - log N(y; m, v) at z = y - m, and the sum of its
    /// absolute terms.
    fn log_normal(&self, z: f64, variance: f64) -> (f64, f64) {
        let precision = 0.5 / variance;
        let wider = -precision * z * z * (-self.log_variance).exp_m1();
        let narrow = precision * (-self.log_variance).exp();
        let moved = narrow * 2.0 * z * self.mean;
        let moved_size = narrow * 2.0 * z.abs() * self.mean_size;
        let apart = -narrow * self.mean * self.mean;
        let scale = -0.5 * self.log_variance;
        (
            wider + moved + apart + scale,
            wider.abs() + moved_size + apart.abs() + scale.abs(),
        )
    }
}
