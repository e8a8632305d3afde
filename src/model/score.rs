//! Derivatives of the log-density at one observation.
//!
//! Each expert has up to three *drivers*: its mean m, its log-variance t and its
//! gate driver g (the bias, or the router's affine score). With
//! a_i = s_i + log N(y; m_i, v_i),
//!
//! ```text
//! log p = logsumexp_i a_i - logsumexp_i s_i       (i over the kept experts)
//! d log p  / d u_i      = r_i a_i' - w_i s_i'
//! d2 log p / d u_i d u_j = [i = j] (r_i (a_i'' + a_i' a_i'^T) - w_i (s_i'' + s_i' s_i'^T))
//!                        - r_i r_j a_i' a_j'^T + w_i w_j s_i' s_j'^T
//! ```
//!
//! where r_i is the responsibility and w_i the weight of expert i, and a prime
//! is a derivative in the drivers. The set of kept experts is held fixed: the
//! selection is piecewise constant in the parameters.

use super::gate::{GateKind, Selection};
use super::parameters::{Expert, ExpertGate, Parameters, dot};
use crate::num::log_space::LOG_TWO_PI;
use crate::num::top_k::select_top_k;

/// One expert at one observation.
#[derive(Clone, Copy, Debug)]
pub struct Atom {
    /// Weight w_i; 0 for a dropped expert.
    pub weight: f64,
    /// Responsibility r_i; 0 for a dropped expert.
    pub responsibility: f64,
    /// y - m_i
    pub residual: f64,
    /// m_i
    pub mean: f64,
    /// Activation, its derivatives, at the expert's predictor.
    pub activation: super::MeanDerivatives,
    /// The log-weight and its derivatives in its driver.
    pub log_weight: super::LogWeight,
    log_joint: f64,
    selection: f64,
}

/// Everything that derivatives at one observation are made of; reused from one
/// observation to the next so that a pass allocates nothing.
#[derive(Clone, Debug)]
pub struct Point {
    /// One entry per expert.
    pub atoms: Vec<Atom>,
    log_variances: Vec<f64>,
    scores: Vec<f64>,
    selected: Vec<bool>,
}

impl Point {
    /// A workspace for mixtures with the structure of `parameters`; it must be
    /// made anew when variances change.
    pub fn new(parameters: &Parameters) -> Self {
        let count = parameters.experts.len();
        let zero = Atom {
            weight: 0.0,
            responsibility: 0.0,
            residual: 0.0,
            mean: 0.0,
            activation: super::ExpertKind::Linear.activation(0.0),
            log_weight: GateKind::Constant.log_weight(0.0),
            log_joint: 0.0,
            selection: 0.0,
        };
        Point {
            atoms: vec![zero; count],
            log_variances: parameters.experts.iter().map(|e| e.variance.ln()).collect(),
            scores: vec![0.0; count],
            selected: vec![true; count],
        }
    }

    /// Moves to observation (x, y) and returns log p(y | x).
    #[inline]
    pub fn observe(&mut self, parameters: &Parameters, x: &[f64], y: f64) -> f64 {
        let gate = &parameters.gate;
        for (atom, expert) in self.atoms.iter_mut().zip(&parameters.experts) {
            atom.activation = expert.kind.activation(expert.predictor(x));
            atom.mean = expert.scale.unwrap_or(1.0) * atom.activation.value;
            atom.residual = y - atom.mean;
            let bias = match &expert.gate {
                ExpertGate::Router { slope, intercept } => {
                    let linear = dot(slope, x);
                    atom.log_weight = gate.kind.log_weight(linear + intercept);
                    atom.selection = match gate.selection {
                        Selection::Score => linear + intercept,
                        Selection::Slope => linear,
                    };
                    0.0
                }
                ExpertGate::Bias(bias) => {
                    atom.log_weight = gate.kind.log_weight(atom.mean);
                    atom.selection = match gate.kind {
                        GateKind::Constant => *bias,
                        _ => atom.log_weight.selection,
                    };
                    *bias
                }
                ExpertGate::None => {
                    atom.log_weight = gate.kind.log_weight(atom.mean);
                    atom.selection = atom.log_weight.selection;
                    0.0
                }
            };
            atom.log_weight.value += bias;
        }
        if parameters.is_sparse() {
            self.select(parameters);
        }
        self.normalise(parameters)
    }

    /// Moves to observation (x, y) of known label z and returns the complete-data
    /// log-density log w_z(x) + log N(y; m_z, v_z), -inf for a dropped expert.
    ///
    /// The label takes the place of the responsibilities (1 for z, 0 elsewhere);
    /// with that every formula of this file is the complete data's.
    #[inline]
    pub fn observe_labelled(
        &mut self,
        parameters: &Parameters,
        x: &[f64],
        y: f64,
        label: usize,
    ) -> f64 {
        self.observe(parameters, x, y);
        for (i, atom) in self.atoms.iter_mut().enumerate() {
            atom.responsibility = f64::from(u8::from(i == label));
        }
        self.atoms[label].log_joint
    }

    fn select(&mut self, parameters: &Parameters) {
        for (score, atom) in self.scores.iter_mut().zip(&self.atoms) {
            *score = atom.selection;
        }
        select_top_k(
            &self.scores,
            parameters.active_experts(),
            &mut self.selected,
        );
        for (atom, selected) in self.atoms.iter_mut().zip(&self.selected) {
            if !selected {
                atom.log_weight.value = f64::NEG_INFINITY;
            }
        }
    }

    /// Weights, responsibilities and the log-density from the log-weights.
    #[inline]
    fn normalise(&mut self, parameters: &Parameters) -> f64 {
        let mut top = self.largest_log_weight();
        if top == f64::NEG_INFINITY {
            // Every kept response is 0: the kept experts weigh exp(bias).
            for (i, atom) in self.atoms.iter_mut().enumerate() {
                if self.selected[i] {
                    atom.log_weight.value = parameters.experts[i].bias();
                }
            }
            top = self.largest_log_weight();
        }
        let mut total = 0.0;
        for atom in &mut self.atoms {
            atom.weight = exp_below(atom.log_weight.value - top);
            total += atom.weight;
        }
        let log_total = top + total.ln();
        let mut best = f64::NEG_INFINITY;
        for (i, atom) in self.atoms.iter_mut().enumerate() {
            atom.weight /= total;
            let variance = parameters.experts[i].variance;
            atom.log_joint = atom.log_weight.value
                - log_total
                - 0.5
                    * (LOG_TWO_PI
                        + self.log_variances[i]
                        + atom.residual * atom.residual / variance);
            best = best.max(atom.log_joint);
        }
        let mut evidence = 0.0;
        for atom in &mut self.atoms {
            atom.responsibility = exp_below(atom.log_joint - best);
            evidence += atom.responsibility;
        }
        for atom in &mut self.atoms {
            atom.responsibility /= evidence;
        }
        best + evidence.ln()
    }

    #[inline]
    fn largest_log_weight(&self) -> f64 {
        self.atoms
            .iter()
            .fold(f64::NEG_INFINITY, |m, a| m.max(a.log_weight.value))
    }
}

/// exp(t) for t <= 0; the largest term of a sum, t = 0, costs nothing.
#[inline]
fn exp_below(t: f64) -> f64 {
    if t == 0.0 { 1.0 } else { t.exp() }
}

impl Atom {
    /// d log p / d mean: responsibility * residual / variance, plus
    /// (responsibility - weight) * s' where the gate is driven by the mean.
    #[inline]
    pub fn mean_score(&self, expert: &Expert) -> f64 {
        let gate = match expert.gate {
            ExpertGate::Router { .. } => 0.0,
            _ => self.surplus() * self.log_weight.first,
        };
        self.responsibility * self.residual / expert.variance + gate
    }

    /// d log p / d log-variance.
    #[inline]
    pub fn log_variance_score(&self, expert: &Expert) -> f64 {
        0.5 * self.responsibility * (self.residual * self.residual / expert.variance - 1.0)
    }

    /// d log p / d bias, or / d router score.
    #[inline]
    pub fn gate_score(&self, expert: &Expert) -> f64 {
        self.surplus() * self.gate_slope(expert)
    }

    /// d log-weight / d bias, or / d router score.
    #[inline]
    pub fn gate_slope(&self, expert: &Expert) -> f64 {
        match expert.gate {
            ExpertGate::Router { .. } => self.log_weight.first,
            _ => 1.0,
        }
    }

    /// responsibility - weight
    #[inline]
    pub fn surplus(&self) -> f64 {
        self.responsibility - self.weight
    }

    /// Writes d mean / d (scale, slope, intercept) of this expert to `out`.
    ///
    /// # Shapes
    /// `out`: d + 1, or d + 2 with an output weight.
    #[inline]
    pub fn mean_features(&self, expert: &Expert, x: &[f64], out: &mut [f64]) {
        let (scale, hidden) = match expert.scale {
            Some(scale) => {
                out[0] = self.activation.value;
                (scale, &mut out[1..])
            }
            None => (1.0, out),
        };
        let slope = scale * self.activation.first;
        for (out, x) in hidden.iter_mut().zip(x) {
            *out = slope * x;
        }
        hidden[x.len()] = slope;
    }
}

impl Parameters {
    /// The score of one observation: log p(y | x) and its gradient in the packed
    /// coordinates of `layout`, written to `gradient`.
    ///
    /// # Shapes
    /// `x`: d; `gradient`: the layout's length.
    pub fn score(
        &self,
        layout: &super::Layout,
        point: &mut Point,
        x: &[f64],
        y: f64,
        gradient: &mut [f64],
    ) -> f64 {
        let log_density = point.observe(self, x, y);
        self.score_at(layout, point, x, gradient);
        log_density
    }

    /// The gradient at the observation that `point` stands at.
    ///
    /// # Shapes
    /// `x`: d; `gradient`: the layout's length.
    pub fn score_at(&self, layout: &super::Layout, point: &Point, x: &[f64], gradient: &mut [f64]) {
        gradient.fill(0.0);
        let dimension = x.len();
        for (i, (atom, expert)) in point.atoms.iter().zip(&self.experts).enumerate() {
            let start = layout.mean_offset(i);
            let block = &mut gradient[start..start + expert.mean_length()];
            atom.mean_features(expert, x, block);
            let mean_score = atom.mean_score(expert);
            block.iter_mut().for_each(|v| *v *= mean_score);
            gradient[layout.variance_offset(i)] += atom.log_variance_score(expert);
            if let Some(offset) = layout.gate_offset(i) {
                let score = atom.gate_score(expert);
                let intercept = match expert.gate {
                    ExpertGate::Router { .. } => {
                        for (j, x) in x.iter().enumerate() {
                            gradient[offset + j] = score * x;
                        }
                        offset + dimension
                    }
                    _ => offset,
                };
                gradient[intercept] = score;
            }
        }
    }
}
