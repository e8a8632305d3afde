//! Parameters as one vector, for optimisers.

use super::parameters::{Expert, ExpertGate, Parameters, VarianceStructure};
use std::fmt;

/// What one entry of the packed vector is. Indices count experts and input
/// dimensions from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinate {
    /// Output weight of an expert's hidden unit.
    Scale(usize),
    /// Slope of an expert along one input dimension.
    Slope(usize, usize),
    /// Intercept of an expert.
    Intercept(usize),
    /// Natural logarithm of an expert's variance, or of the shared variance
    /// (then of expert 0).
    LogVariance(usize),
    /// Bias of an expert, relative to the last expert's.
    Bias(usize),
    /// Router slope along one input dimension; relative to the last expert's for
    /// the softmax router.
    GateSlope(usize, usize),
    /// Router intercept; relative to the last expert's for the softmax router.
    GateIntercept(usize),
}

impl Coordinate {
    /// True for those of a router.
    pub fn is_of_router(&self) -> bool {
        matches!(
            self,
            Coordinate::GateSlope(..) | Coordinate::GateIntercept(_)
        )
    }

    /// True for those of a router and for biases.
    pub fn is_of_gate(&self) -> bool {
        self.is_of_router() || matches!(self, Coordinate::Bias(_))
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Coordinate::Scale(i) => write!(f, "scale[{i}]"),
            Coordinate::Slope(i, j) => write!(f, "slope[{i}][{j}]"),
            Coordinate::Intercept(i) => write!(f, "intercept[{i}]"),
            Coordinate::LogVariance(i) => write!(f, "log_variance[{i}]"),
            Coordinate::Bias(i) => write!(f, "bias[{i}]"),
            Coordinate::GateSlope(i, j) => write!(f, "gate_slope[{i}][{j}]"),
            Coordinate::GateIntercept(i) => write!(f, "gate_intercept[{i}]"),
        }
    }
}

/// The order of the packed vector of one structure.
///
/// Experts' means first (scale, slope, intercept of expert 0, then of expert 1,
/// ...), then log-variances, then the gate. Of a translation-invariant gate the
/// last expert has no coordinates: its parameters are the origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    coordinates: Vec<Coordinate>,
    mean_offsets: Vec<usize>,
    variance_offsets: Vec<usize>,
    gate_offsets: Vec<Option<usize>>,
}

impl Layout {
    pub(super) fn new(parameters: &Parameters) -> Self {
        let dimension = parameters.dimension();
        let count = parameters.experts.len();
        let mut coordinates = Vec::new();
        let mut mean_offsets = Vec::new();
        for (i, expert) in parameters.experts.iter().enumerate() {
            mean_offsets.push(coordinates.len());
            coordinates.extend(expert.scale.map(|_| Coordinate::Scale(i)));
            coordinates.extend((0..dimension).map(|j| Coordinate::Slope(i, j)));
            coordinates.push(Coordinate::Intercept(i));
        }
        let variances = match parameters.variance_structure {
            VarianceStructure::PerExpert => count,
            VarianceStructure::Shared => 1,
        };
        let first = coordinates.len();
        coordinates.extend((0..variances).map(Coordinate::LogVariance));
        let variance_offsets = (0..count).map(|i| first + i.min(variances - 1)).collect();
        // One expert has weight 1 whatever its gate.
        let with_gate = match (parameters.gate.kind.is_translation_invariant(), count) {
            (_, 1) => 0,
            (true, _) => count - 1,
            (false, _) => count,
        };
        let mut gate_offsets = vec![None; count];
        for (i, expert) in parameters.experts.iter().enumerate().take(with_gate) {
            let offset = coordinates.len();
            match expert.gate {
                ExpertGate::None => continue,
                ExpertGate::Bias(_) => coordinates.push(Coordinate::Bias(i)),
                ExpertGate::Router { .. } => {
                    coordinates.extend((0..dimension).map(|j| Coordinate::GateSlope(i, j)));
                    coordinates.push(Coordinate::GateIntercept(i));
                }
            }
            gate_offsets[i] = Some(offset);
        }
        Layout {
            coordinates,
            mean_offsets,
            variance_offsets,
            gate_offsets,
        }
    }

    /// Number of packed coordinates, P when none is pinned.
    pub fn len(&self) -> usize {
        self.coordinates.len()
    }

    /// True if there is nothing to estimate.
    pub fn is_empty(&self) -> bool {
        self.coordinates.is_empty()
    }

    /// What each entry is.
    pub fn coordinates(&self) -> &[Coordinate] {
        &self.coordinates
    }

    /// First entry of an expert's mean parameters.
    pub fn mean_offset(&self, expert: usize) -> usize {
        self.mean_offsets[expert]
    }

    /// Entry of an expert's log-variance.
    pub fn variance_offset(&self, expert: usize) -> usize {
        self.variance_offsets[expert]
    }

    /// First entry of an expert's gate parameters, if it has any.
    pub fn gate_offset(&self, expert: usize) -> Option<usize> {
        self.gate_offsets[expert]
    }

    /// The packed vector of `parameters`, which have this layout.
    pub fn pack(&self, parameters: &Parameters) -> Vec<f64> {
        let last = parameters.experts.last().expect("at least one expert");
        let invariant = parameters.gate.kind.is_translation_invariant();
        let origin = |value: f64| if invariant { value } else { 0.0 };
        let experts = &parameters.experts;
        let value = |coordinate: &Coordinate| match *coordinate {
            Coordinate::Scale(i) => experts[i].scale.expect("a scale coordinate has a scale"),
            Coordinate::Slope(i, j) => experts[i].slope[j],
            Coordinate::Intercept(i) => experts[i].intercept,
            Coordinate::LogVariance(i) => experts[i].variance.ln(),
            Coordinate::Bias(i) => experts[i].bias() - origin(last.bias()),
            Coordinate::GateSlope(i, j) => router(&experts[i]).0[j] - origin(router(last).0[j]),
            Coordinate::GateIntercept(i) => router(&experts[i]).1 - origin(router(last).1),
        };
        self.coordinates.iter().map(value).collect()
    }

    /// The parameters with the structure of `template` and the values `packed`.
    ///
    /// Gate parameters without a coordinate become 0.
    pub fn unpack(&self, template: &Parameters, packed: &[f64]) -> Parameters {
        let mut parameters = template.clone();
        for (i, expert) in parameters.experts.iter_mut().enumerate() {
            expert.variance = packed[self.variance_offsets[i]].exp();
            if self.gate_offsets[i].is_none() {
                match &mut expert.gate {
                    ExpertGate::None => {}
                    ExpertGate::Bias(bias) => *bias = 0.0,
                    ExpertGate::Router { slope, intercept } => {
                        slope.fill(0.0);
                        *intercept = 0.0;
                    }
                }
            }
        }
        for (coordinate, &value) in self.coordinates.iter().zip(packed) {
            match *coordinate {
                Coordinate::Scale(i) => parameters.experts[i].scale = Some(value),
                Coordinate::Slope(i, j) => parameters.experts[i].slope[j] = value,
                Coordinate::Intercept(i) => parameters.experts[i].intercept = value,
                Coordinate::LogVariance(_) => {}
                Coordinate::Bias(i) => parameters.experts[i].gate = ExpertGate::Bias(value),
                Coordinate::GateSlope(i, j) => {
                    if let ExpertGate::Router { slope, .. } = &mut parameters.experts[i].gate {
                        slope[j] = value;
                    }
                }
                Coordinate::GateIntercept(i) => {
                    if let ExpertGate::Router { intercept, .. } = &mut parameters.experts[i].gate {
                        *intercept = value;
                    }
                }
            }
        }
        parameters
    }
}

fn router(expert: &Expert) -> (&[f64], f64) {
    match &expert.gate {
        ExpertGate::Router { slope, intercept } => (slope, *intercept),
        _ => unreachable!("router coordinates exist for routers only"),
    }
}
