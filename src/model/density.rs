//! The conditional density at one input: the text to read first.

use super::gate::{GateKind, Selection};
use super::parameters::{ExpertGate, Parameters, dot};
use crate::num::log_space::{LOG_TWO_PI, log_sum_exp};
use crate::num::top_k::select_top_k;

/// The Gaussian mixture p(. | x) at one input x.
///
/// Experts that the gate drops have log-weight -inf.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditional {
    /// log w_i(x). Shape: number of experts.
    pub log_weights: Vec<f64>,
    /// m_i(x). Shape: number of experts.
    pub means: Vec<f64>,
    /// v_i. Shape: number of experts.
    pub variances: Vec<f64>,
}

impl Conditional {
    /// log p(y | x) = log sum_i w_i N(y; m_i, v_i).
    pub fn log_density(&self, y: f64) -> f64 {
        // The sum runs twice over the terms rather than storing them: mixtures
        // are small and this is called for every quadrature node.
        let mut max = f64::NEG_INFINITY;
        for i in 0..self.means.len() {
            max = max.max(self.log_term(i, y));
        }
        if max == f64::NEG_INFINITY {
            return max;
        }
        let sum: f64 = (0..self.means.len())
            .map(|i| (self.log_term(i, y) - max).exp())
            .sum();
        max + sum.ln()
    }

    /// log (w_i N(y; m_i, v_i)).
    #[inline]
    pub fn log_term(&self, i: usize, y: f64) -> f64 {
        let residual = y - self.means[i];
        self.log_weights[i]
            - 0.5 * (LOG_TWO_PI + self.variances[i].ln() + residual * residual / self.variances[i])
    }

    /// E(y | x) = sum_i w_i m_i
    pub fn mean(&self) -> f64 {
        let terms = self.active();
        terms
            .map(|i| self.log_weights[i].exp() * self.means[i])
            .sum()
    }

    /// Indices of the experts with positive weight.
    pub fn active(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.means.len()).filter(|&i| self.log_weights[i] > f64::NEG_INFINITY)
    }
}

impl Parameters {
    /// The conditional law at x.
    ///
    /// Where every kept expert has response 0 under normalised weights, the kept
    /// experts share the weight in proportion to exp(bias).
    ///
    /// # Shapes
    /// `x`: d.
    pub fn conditional(&self, x: &[f64]) -> Conditional {
        let mut law = Conditional {
            log_weights: Vec::new(),
            means: Vec::new(),
            variances: Vec::new(),
        };
        self.conditional_into(x, &mut law);
        law
    }

    /// [`Parameters::conditional`], written over `law`.
    pub fn conditional_into(&self, x: &[f64], law: &mut Conditional) {
        law.means.clear();
        law.means.extend(self.experts.iter().map(|e| e.mean(x)));
        law.variances.clear();
        law.variances
            .extend(self.experts.iter().map(|e| e.variance));
        let log_weights = &mut law.log_weights;
        log_weights.clear();
        log_weights.extend(self.experts.iter().zip(&law.means).map(|(expert, &mean)| {
            self.gate.kind.log_weight(driver(expert, mean, x)).value + expert.bias()
        }));
        let selected = self.is_sparse().then(|| self.selection(x, &law.means));
        let kept = |i: usize| selected.as_ref().is_none_or(|s| s[i]);
        for (i, value) in log_weights.iter_mut().enumerate() {
            if !kept(i) {
                *value = f64::NEG_INFINITY;
            }
        }
        let mut total = log_sum_exp(log_weights);
        if total == f64::NEG_INFINITY {
            for (i, value) in log_weights.iter_mut().enumerate() {
                if kept(i) {
                    *value = self.experts[i].bias();
                }
            }
            total = log_sum_exp(log_weights);
        }
        log_weights.iter_mut().for_each(|v| *v -= total);
    }

    /// The set T(x) of kept experts.
    ///
    /// # Shapes
    /// `x`: d; `means`: the experts' means at x.
    pub fn selection(&self, x: &[f64], means: &[f64]) -> Vec<bool> {
        let scores: Vec<f64> = self
            .experts
            .iter()
            .zip(means)
            .map(|(expert, &mean)| match (&expert.gate, self.gate.kind) {
                (ExpertGate::Router { slope, intercept }, _) => {
                    dot(slope, x)
                        + match self.gate.selection {
                            Selection::Score => *intercept,
                            Selection::Slope => 0.0,
                        }
                }
                (_, GateKind::Constant) => expert.bias(),
                (_, kind) => kind.log_weight(mean).selection,
            })
            .collect();
        let mut selected = vec![false; scores.len()];
        select_top_k(&scores, self.active_experts(), &mut selected);
        selected
    }

    /// log p(y | x).
    ///
    /// # Shapes
    /// `x`: d.
    pub fn log_density(&self, x: &[f64], y: f64) -> f64 {
        self.conditional(x).log_density(y)
    }
}

fn driver(expert: &super::Expert, mean: f64, x: &[f64]) -> f64 {
    match &expert.gate {
        ExpertGate::Router { slope, intercept } => dot(slope, x) + intercept,
        _ => mean,
    }
}
