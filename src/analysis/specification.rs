//! What is fitted, and how hard it is looked for.

use super::Design;
use crate::fit::Bounds;
use crate::model::{
    Coordinate, Expert, ExpertGate, ExpertKind, Gate, GateKind, Parameters, Response, Selection,
    VarianceStructure, Weights,
};

/// The gate, as users name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateChoice {
    /// Softmax of affine scores of the gate's terms.
    #[default]
    Softmax,
    /// Weights that do not depend on the input: a mixture of regressions.
    Constant,
    /// Softmax of the experts' own responses, with biases. The response acts on the
    /// mean in standard deviations of y from the mean of y.
    Competition(Response),
    /// Normalised sigmoids of affine scores.
    Sigmoid,
}

/// Which optima are set apart as spurious: the likelihood of a mixture with free
/// variances is unbounded, so its largest values mean nothing without such a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpuriousRule {
    /// Least share of the rows: an expert with less than max(share n, p + 1) effective
    /// rows, p its terms, is spurious.
    pub share: f64,
    /// Least standard deviation of an expert, in standard deviations of y.
    pub deviation: f64,
}

impl Default for SpuriousRule {
    fn default() -> Self {
        SpuriousRule {
            share: 0.05,
            deviation: 0.01,
        }
    }
}

/// A family of models, one per number of experts, and how it is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Specification {
    /// The gate.
    pub gate: GateChoice,
    /// How many experts are kept at each input; `None` keeps all.
    pub top_k: Option<usize>,
    /// Whether the experts share a variance.
    pub variance: VarianceStructure,
    /// Starts of each fit.
    pub starts: usize,
    /// Seed of the starts.
    pub seed: u64,
    /// Which optima are set apart.
    pub spurious: SpuriousRule,
}

impl Default for Specification {
    fn default() -> Self {
        Specification {
            gate: GateChoice::default(),
            top_k: None,
            variance: VarianceStructure::default(),
            starts: 100,
            seed: 1,
            spurious: SpuriousRule::default(),
        }
    }
}

/// Bound on standardised coefficients of experts.
const COEFFICIENT: f64 = 1e4;
/// First bound on standardised gate slopes; a fit that ends on it is followed
/// outwards.
pub(super) const GATE: f64 = 50.0;
/// Bound on biases: an expert of this weight is extinct.
const BIAS: f64 = 30.0;
/// Least and largest standard deviation, in standard deviations of y.
const DEVIATION: [f64; 2] = [1e-3, 10.0];

impl Specification {
    /// The structure of the model with `experts` experts; its values mean nothing.
    pub fn template(&self, design: &Design, experts: usize) -> Parameters {
        let dimension = design.data.dimension();
        let own = match self.gate {
            GateChoice::Softmax | GateChoice::Sigmoid => ExpertGate::Router {
                slope: vec![0.0; dimension],
                intercept: 0.0,
            },
            GateChoice::Constant | GateChoice::Competition(_) => ExpertGate::Bias(0.0),
        };
        let kind = match self.gate {
            GateChoice::Softmax => GateKind::Softmax,
            GateChoice::Sigmoid => GateKind::Sigmoid,
            GateChoice::Constant => GateKind::Constant,
            GateChoice::Competition(response) => GateKind::Competition {
                response,
                weights: Weights::Softmax,
                kappa: 1.0,
            },
        };
        Parameters {
            gate: Gate {
                kind,
                top_k: self.top_k.filter(|&kept| kept < experts),
                selection: Selection::Score,
            },
            variance_structure: self.variance,
            experts: (0..experts)
                .map(|_| Expert {
                    kind: ExpertKind::Linear,
                    slope: vec![0.0; dimension],
                    intercept: 0.0,
                    scale: None,
                    variance: 1.0,
                    gate: own.clone(),
                })
                .collect(),
        }
    }

    /// The parameter set in standardised units, its gate `reach` times as far as at
    /// first. Slopes of features that a side does not use are held at 0.
    pub fn bounds(&self, design: &Design, template: &Parameters, reach: f64) -> Bounds {
        let used = |side: &super::Side, j: usize, size: f64| match side.features.contains(&j) {
            true => size,
            false => 0.0,
        };
        // A gate's intercept follows its slopes to wherever the rows are.
        let farthest = design
            .data
            .inputs()
            .iter()
            .fold(1.0, |a: f64, v| a.max(v.abs()));
        let features = design.gate.features.len() as f64;
        let size = |coordinate: &Coordinate| match *coordinate {
            Coordinate::Slope(_, j) => used(&design.expert, j, COEFFICIENT),
            Coordinate::Scale(_) | Coordinate::Intercept(_) => COEFFICIENT,
            Coordinate::GateSlope(_, j) => used(&design.gate, j, reach * GATE),
            Coordinate::GateIntercept(_) => reach * GATE * (1.0 + features * farthest),
            Coordinate::Bias(_) => BIAS,
            Coordinate::LogVariance(_) => f64::NAN,
        };
        let (low, high) = template
            .layout()
            .coordinates()
            .iter()
            .map(|coordinate| match coordinate {
                Coordinate::LogVariance(_) => (2.0 * DEVIATION[0].ln(), 2.0 * DEVIATION[1].ln()),
                other => (-size(other), size(other)),
            })
            .unzip();
        Bounds { low, high }
    }
}
