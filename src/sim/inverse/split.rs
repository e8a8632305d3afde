//! One true expert split into copies that are held apart in one coordinate.

use super::distance::Distance;
use super::neighbourhood::{Column, Comparison, Deviation, Neighbourhood, Tilt, columns};
use crate::error::{Error, Result};
use crate::model::{
    Expert, ExpertGate, ExpertKind, GateKind, InputLaw, Model, Parameters, Response,
    VarianceStructure, Weights,
};
use crate::num::least_squares::Residuals;
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// The coordinate in which the copies are held apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Slope of the expert along the first input dimension.
    Slope,
    /// Intercept of the expert.
    Intercept,
    /// Output weight of the expert's hidden unit.
    Scale,
    /// Logarithm of the expert's variance.
    Variance,
    /// Router slope along the first input dimension.
    GateSlope,
}

impl Spread {
    /// All of them.
    pub const ALL: [Spread; 5] = [
        Spread::Slope,
        Spread::Intercept,
        Spread::Scale,
        Spread::Variance,
        Spread::GateSlope,
    ];

    /// The name in study files and records.
    pub fn name(self) -> &'static str {
        match self {
            Spread::Slope => "slope",
            Spread::Intercept => "intercept",
            Spread::Scale => "scale",
            Spread::Variance => "variance",
            Spread::GateSlope => "gate_slope",
        }
    }

    /// As readers see it.
    pub fn words(self) -> &'static str {
        match self {
            Spread::Slope => "slope",
            Spread::Intercept => "intercept",
            Spread::Scale => "scale",
            Spread::Variance => "log-variance",
            Spread::GateSlope => "gate slope",
        }
    }

    fn column(self) -> Column {
        match self {
            Spread::Slope => Column::Slope(0),
            Spread::Intercept => Column::Intercept,
            Spread::Scale => Column::Scale,
            Spread::Variance => Column::LogVariance,
            Spread::GateSlope => Column::GateSlope(0),
        }
    }
}

/// The compact set: bounds on absolute deviations from the truth, of every other
/// expert, of the centre of the copies and of the contrasts between them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Slopes, intercepts and scales.
    pub coefficient: f64,
    /// Logarithms of variances.
    pub log_variance: f64,
    /// Router slopes; biases and router intercepts but for those of the copies.
    pub gate: f64,
    /// Contrasts between the logarithms of the copies' shares; 0 keeps the shares
    /// equal.
    pub log_share: f64,
}

impl Bounds {
    /// Checks that all bounds are finite and not negative.
    ///
    /// # Errors
    /// [`Error::Value`] with the key of the study file.
    pub fn validate(&self) -> Result<()> {
        let all = [
            ("coefficient", self.coefficient),
            ("log_variance", self.log_variance),
            ("gate", self.gate),
            ("log_share", self.log_share),
        ];
        for (name, bound) in all {
            if !(bound >= 0.0 && bound.is_finite()) {
                return Err(Error::value(
                    format!("bounds.{name}"),
                    format!("must be finite and not negative, got {bound}"),
                ));
            }
        }
        Ok(())
    }

    fn of(&self, column: Column) -> f64 {
        match column {
            Column::Scale | Column::Slope(_) | Column::Intercept => self.coefficient,
            Column::LogVariance => self.log_variance,
            Column::GateSlope(_) | Column::LogWeight => self.gate,
        }
    }
}

/// What moves when one unknown moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All copies together.
    Centre,
    /// The copies against each other.
    Contrast,
    /// The shares of the copies, by a contrast between their logarithms.
    Shares,
    /// Another expert.
    Other,
}

/// One free coordinate.
#[derive(Clone, Debug)]
struct Unknown {
    column: usize,
    part: Part,
    /// (atom, coefficient)
    pattern: Vec<(usize, f64)>,
    bound: f64,
}

/// The over-specified fits in which `copies` atoms stand for one true expert:
/// everything is free but the spread of the copies in one coordinate.
///
/// Copies come first, then the other true experts in order. With c the centre:
/// two copies lie at c -+ delta; three at c - delta + q, c - 2 q, c + delta + q,
/// q free, so that the outer two are 2 delta apart and the middle one is free.
/// The same contrasts are the unknowns of the other coordinates. A gate's free
/// translation is taken by the centre of the copies.
#[derive(Clone, Debug)]
pub struct Split {
    neighbourhood: Neighbourhood,
    copies: usize,
    unknowns: Vec<Unknown>,
    /// (atom, column, coefficient of delta)
    held: Vec<(usize, usize, f64)>,
}

/// Contrasts between the copies; the first is the one that is held.
fn contrasts(copies: usize) -> Vec<Vec<f64>> {
    match copies {
        2 => vec![vec![-1.0, 1.0]],
        _ => vec![vec![-1.0, 0.0, 1.0], vec![1.0, -2.0, 1.0]],
    }
}

impl Split {
    /// Splits `expert` of the truth into 2 or 3 copies of equal shares.
    ///
    /// # Errors
    /// [`Error::Value`] if the truth is outside what is computed here: dense,
    /// experts with variances of their own that all have scales or have none,
    /// biases or a softmax router, an input law on a grid without kinks.
    pub fn new(
        truth: &Model,
        expert: usize,
        copies: usize,
        spread: Spread,
        bounds: &Bounds,
        distance: Distance,
    ) -> Result<Self> {
        check_truth(truth)?;
        let parameters = &truth.parameters;
        let count = parameters.experts.len();
        if expert >= count {
            let message = format!("must be below the number of experts ({count}), got {expert}");
            return Err(Error::value("expert", message));
        }
        if !(2..=3).contains(&copies) {
            return Err(Error::value(
                "copies",
                format!("must be 2 or 3, got {copies}"),
            ));
        }
        let columns = columns(parameters, distance);
        let Some(held_column) = columns.iter().position(|c| *c == spread.column()) else {
            let message = format!(
                "the {} distance to this truth sees no {} to hold the copies apart in",
                distance.name(),
                spread.name()
            );
            return Err(Error::value("coordinate", message));
        };
        let others = (0..count).filter(|j| *j != expert);
        let owners: Vec<usize> = std::iter::repeat_n(expert, copies).chain(others).collect();
        let mut unknowns = Vec::new();
        let mut held = Vec::new();
        for (c, &column) in columns.iter().enumerate() {
            let mut add = |part: Part, pattern: Vec<(usize, f64)>, bound: f64| {
                unknowns.push(Unknown {
                    column: c,
                    part,
                    pattern,
                    bound,
                });
            };
            let of_gate = matches!(column, Column::GateSlope(_) | Column::LogWeight);
            if !of_gate {
                let all = (0..copies).map(|i| (i, 1.0)).collect();
                add(Part::Centre, all, bounds.of(column));
            }
            for (k, contrast) in contrasts(copies).iter().enumerate() {
                let pattern: Vec<(usize, f64)> = contrast.iter().copied().enumerate().collect();
                if k == 0 && c == held_column {
                    held = pattern.into_iter().map(|(i, v)| (i, c, v)).collect();
                } else if column == Column::LogWeight {
                    add(Part::Shares, pattern, bounds.log_share);
                } else {
                    add(Part::Contrast, pattern, bounds.of(column));
                }
            }
            for i in copies..owners.len() {
                add(Part::Other, vec![(i, 1.0)], bounds.of(column));
            }
        }
        Ok(Split {
            neighbourhood: Neighbourhood::new(truth, owners, distance),
            copies,
            unknowns,
            held,
        })
    }

    /// Number of unknowns.
    pub fn len(&self) -> usize {
        self.unknowns.len()
    }

    /// True if nothing is free.
    pub fn is_empty(&self) -> bool {
        self.unknowns.is_empty()
    }

    /// What moves with an unknown.
    pub fn part(&self, unknown: usize) -> Part {
        self.unknowns[unknown].part
    }

    /// Bound on the absolute value of each unknown.
    pub fn bounds(&self) -> Vec<f64> {
        self.unknowns.iter().map(|u| u.bound).collect()
    }

    /// How the mixture at `point` and spread `delta` differs from the truth.
    fn deviation(&self, point: &[f64], delta: f64) -> Deviation {
        let (atoms, width) = (
            self.neighbourhood.atoms(),
            self.neighbourhood.columns().len(),
        );
        let mut changes = Array2::zeros((atoms, width));
        let mut shares = vec![1.0; atoms];
        for &(atom, column, coefficient) in &self.held {
            changes[[atom, column]] += coefficient * delta;
        }
        for (unknown, value) in self.unknowns.iter().zip(point) {
            for (atom, coefficient) in &unknown.pattern {
                match unknown.part {
                    Part::Shares => shares[*atom] *= (coefficient * value).exp(),
                    _ => changes[[*atom, unknown.column]] += coefficient * value,
                }
            }
        }
        let copies = &mut shares[..self.copies];
        let total: f64 = copies.iter().sum();
        copies.iter_mut().for_each(|share| *share /= total);
        Deviation { shares, changes }
    }

    /// The mixture at `point` and spread `delta`: copies first.
    pub fn parameters(&self, point: &[f64], delta: f64) -> Parameters {
        self.neighbourhood.parameters(&self.deviation(point, delta))
    }

    /// Its distance from the truth.
    pub fn compare(&self, point: &[f64], delta: f64) -> Comparison {
        self.neighbourhood.compare(&self.deviation(point, delta))
    }

    /// Its mass error, see [`Neighbourhood::mass_error`].
    pub fn mass_error(&self, point: &[f64], delta: f64, tilt: Tilt) -> f64 {
        self.neighbourhood
            .mass_error(&self.deviation(point, delta), tilt)
    }

    /// The least-squares problem at spread `delta`: squares add up to the mean
    /// square over the input.
    pub fn at(&self, delta: f64) -> AtSpread<'_> {
        AtSpread { split: self, delta }
    }
}

/// A [`Split`] at one spread, as residuals of its unknowns.
#[derive(Clone, Copy, Debug)]
pub struct AtSpread<'a> {
    split: &'a Split,
    delta: f64,
}

impl Residuals for AtSpread<'_> {
    fn values(&self, point: &[f64]) -> Array1<f64> {
        self.split.compare(point, self.delta).residuals
    }

    fn jacobian(&self, point: &[f64]) -> Array2<f64> {
        let split = self.split;
        let deviation = split.deviation(point, self.delta);
        let atoms = split.neighbourhood.jacobian(&deviation);
        let width = split.neighbourhood.columns().len();
        let mut jacobian = Array2::zeros((atoms.nrows(), split.len()));
        for (k, unknown) in split.unknowns.iter().enumerate() {
            let mut column = jacobian.column_mut(k);
            // Shares add up to 1: what one copy gains the others lose.
            let mean: f64 = match unknown.part {
                Part::Shares => {
                    let terms = unknown.pattern.iter();
                    terms.map(|(i, c)| c * deviation.shares[*i]).sum()
                }
                _ => 0.0,
            };
            for (atom, coefficient) in &unknown.pattern {
                let derivative = atoms.column(atom * width + unknown.column);
                column.scaled_add(coefficient - mean, &derivative);
            }
        }
        jacobian
    }
}

fn check_truth(truth: &Model) -> Result<()> {
    let refuse = |message: &str| Err(Error::value("truth", message));
    let parameters = &truth.parameters;
    let InputLaw::Grid { points, .. } = &truth.input else {
        return refuse("inverse bounds need an input law on a grid");
    };
    if parameters.is_sparse() {
        return refuse("inverse bounds need a dense gate");
    }
    if parameters.variance_structure == VarianceStructure::Shared {
        return refuse("inverse bounds need a variance per expert");
    }
    let with_scale = |e: &Expert| e.scale.is_some();
    let first = with_scale(&parameters.experts[0]);
    if parameters.experts.iter().any(|e| with_scale(e) != first) {
        return refuse("inverse bounds need scales for all experts or for none");
    }
    if parameters.gate.kind == GateKind::Sigmoid {
        return refuse("copies cannot share a sigmoid weight: no larger model contains the truth");
    }
    if parameters
        .experts
        .iter()
        .any(|e| e.gate == ExpertGate::None)
    {
        return refuse(
            "copies share a weight through biases: without them no larger model contains the truth",
        );
    }
    let singular_at_zero = matches!(
        parameters.gate.kind,
        GateKind::Competition {
            response: Response::Absolute,
            ..
        } | GateKind::Competition {
            response: Response::Square,
            weights: Weights::Normalised,
            ..
        }
    );
    let vanishes = |x: &Vec<f64>| parameters.experts.iter().any(|e| e.mean(x) == 0.0);
    if singular_at_zero && points.iter().any(vanishes) {
        return refuse("a mean is zero at a point of the grid, where this gate is not smooth");
    }
    let at_kink = |e: &Expert, x: &Vec<f64>| e.kind == ExpertKind::Relu && e.predictor(x) == 0.0;
    let bent = |x: &Vec<f64>| parameters.experts.iter().any(|e| at_kink(e, x));
    if points.iter().any(bent) {
        return refuse("a ReLU expert has its kink at a point of the grid");
    }
    Ok(())
}
