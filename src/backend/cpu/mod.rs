//! The processor's own backend: vectorised passes over tiles of rows.
//!
//! A pass reads each row once. A tile of 64 rows is laid out by column
//! ([`tile`]), its rows go through the mixture eight at a time ([`observe`]), and
//! what a derivative needs ([`operation`]) is summed against the monomials of x
//! ([`pass`]). What the
//! tiles do not know (nonlinear experts) goes to the [`Reference`], to which every
//! result here is tested equal.

mod mixture;
mod observe;
mod operation;
mod pass;
mod tile;

use super::{Backend, Derivatives, EmStatistics, ExpertStatistics, Reference};
use crate::model::{Data, Layout, Parameters};
use crate::num::lanes::Level;
use mixture::{Driver, Mixture, Part, drivers};
use ndarray::{Array1, Array2};
use operation::{Expectation, Gradient, LogLikelihood, ScoreOuter, SecondOrder, pairs};
use tile::product;

/// The processor's own backend.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    level: Level,
}

impl Cpu {
    /// With the best instructions that the processor has.
    pub fn new() -> Self {
        Cpu {
            level: Level::detected(),
        }
    }

    /// With the instructions of `level`, which must be available: for tests.
    pub fn at_level(level: Level) -> Self {
        assert!(Level::available().contains(&level), "{level:?} is missing");
        Cpu { level }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Cpu::new()
    }
}

impl Backend for Cpu {
    fn log_likelihood(&self, parameters: &Parameters, data: &Data) -> f64 {
        let Some(mixture) = Mixture::new(parameters) else {
            return Reference.log_likelihood(parameters, data);
        };
        pass::run(self.level, &mixture, data, &LogLikelihood).log_likelihood
    }

    fn gradient(&self, parameters: &Parameters, data: &Data) -> (f64, Array1<f64>) {
        let Some(mixture) = Mixture::new(parameters) else {
            return Reference.gradient(parameters, data);
        };
        let layout = parameters.layout();
        let drivers = drivers(parameters, &layout);
        let operation = Gradient {
            mixture: &mixture,
            drivers: &drivers,
        };
        let total = pass::run(self.level, &mixture, data, &operation);
        let gradient = gradient_of(&layout, &drivers, &mut total.sums.iter());
        (total.log_likelihood, gradient)
    }

    fn derivatives(&self, parameters: &Parameters, data: &Data) -> Derivatives {
        let Some(mixture) = Mixture::new(parameters) else {
            return Reference.derivatives(parameters, data);
        };
        let layout = parameters.layout();
        let drivers = drivers(parameters, &layout);
        let dimension = data.dimension();
        let operation = SecondOrder {
            mixture: &mixture,
            drivers: &drivers,
        };
        let total = pass::run(self.level, &mixture, data, &operation);
        let mut sums = total.sums.iter();
        Derivatives {
            log_likelihood: total.log_likelihood,
            gradient: gradient_of(&layout, &drivers, &mut sums),
            hessian: matrix_of(layout.len(), &drivers, dimension, sums.as_slice(), |c| c),
        }
    }

    fn score_outer(&self, parameters: &Parameters, data: &Data) -> Array2<f64> {
        let Some(mixture) = Mixture::new(parameters) else {
            return Reference.score_outer(parameters, data);
        };
        let layout = parameters.layout();
        let drivers = drivers(parameters, &layout);
        let dimension = data.dimension();
        let operation = ScoreOuter {
            mixture: &mixture,
            drivers: &drivers,
        };
        let total = pass::run(self.level, &mixture, data, &operation);
        matrix_of(layout.len(), &drivers, dimension, &total.sums, |c| c)
    }

    fn em_statistics(&self, parameters: &Parameters, data: &Data) -> EmStatistics {
        let Some(mixture) = Mixture::new(parameters) else {
            return Reference.em_statistics(parameters, data);
        };
        let layout = parameters.layout();
        let mut gates = drivers(parameters, &layout);
        gates.retain(|u| u.part == Part::Gate);
        let dimension = data.dimension();
        let operation = Expectation {
            mixture: &mixture,
            gates: &gates,
        };
        let total = pass::run(self.level, &mixture, data, &operation);
        let mut sums = total.sums.iter();
        let experts = (0..mixture.experts.len())
            .map(|_| expert_statistics(dimension, &mut sums))
            .collect();
        let first = gates.iter().flat_map(|u| &u.coordinates).min();
        let first = first.copied().unwrap_or(layout.len());
        let size = layout.len() - first;
        let mut gate_score = Array1::zeros(size);
        for u in &gates {
            for (&coordinate, sum) in u.coordinates.iter().zip(&mut sums) {
                gate_score[coordinate - first] += sum;
            }
        }
        let information = matrix_of(size, &gates, dimension, sums.as_slice(), |c| c - first);
        EmStatistics {
            log_likelihood: total.log_likelihood,
            experts,
            gate_score,
            gate_information: information,
        }
    }
}

/// The packed gradient from the drivers' sums.
fn gradient_of<'a>(
    layout: &Layout,
    drivers: &[Driver],
    sums: &mut impl Iterator<Item = &'a f64>,
) -> Array1<f64> {
    let mut gradient = Array1::zeros(layout.len());
    for u in drivers {
        for &coordinate in &u.coordinates {
            gradient[coordinate] += sums.next().expect("one sum per feature");
        }
    }
    gradient
}

/// The packed symmetric matrix from the sums of pairs of drivers.
fn matrix_of(
    size: usize,
    drivers: &[Driver],
    dimension: usize,
    sums: &[f64],
    place: impl Fn(usize) -> usize,
) -> Array2<f64> {
    let mut matrix = Array2::zeros((size, size));
    let mut first = 0;
    for (u, w) in pairs(drivers) {
        for (a, &row) in u.coordinates.iter().enumerate() {
            for (b, &column) in w.coordinates.iter().enumerate() {
                let sum = sums[first + product(dimension, a, b)];
                matrix[[place(row), place(column)]] += sum;
                if !std::ptr::eq(u, w) {
                    matrix[[place(column), place(row)]] += sum;
                }
            }
        }
        first += tile::feature_count(dimension, u.degree() + w.degree());
    }
    matrix
}

/// One expert's share of the statistics, in the order of [`Expectation`];
/// features hold the constant first, a mean's parameters hold it last.
fn expert_statistics(d: usize, sums: &mut std::slice::Iter<f64>) -> ExpertStatistics {
    let mut take = |count: usize| {
        let (taken, rest) = sums.as_slice().split_at(count);
        *sums = rest.iter();
        taken.to_vec()
    };
    let feature = |a: usize| if a < d { a + 1 } else { 0 };
    let vector = |sums: Vec<f64>| (0..=d).map(|a| sums[feature(a)]).collect();
    let matrix = |sums: Vec<f64>| {
        Array2::from_shape_fn((d + 1, d + 1), |(a, b)| {
            sums[product(d, feature(a), feature(b))]
        })
    };
    let quadratic = tile::feature_count(d, 2);
    let squares = take(1)[0];
    let score = vector(take(d + 1));
    let moment = vector(take(d + 1));
    let curvature = matrix(take(quadratic));
    let gram = matrix(take(quadratic));
    ExpertStatistics {
        // The constant against itself.
        responsibility: gram[[d, d]],
        squares,
        score,
        moment,
        curvature,
        gram,
    }
}
