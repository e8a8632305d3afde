//! What a pass sums, and where each sum belongs.
//!
//! A pass adds up *outputs*: columns (in terms of drivers) times monomials of x
//! (`pass.cu`). A [`Plan`] lists them and says, by a gather table, which of them
//! make each number of the *decoded* vector:
//!
//! ```text
//! decoded[p] = sum over e in starts[p] .. starts[p + 1] of outputs[terms[e]]
//! ```
//!
//! | operation | decoded |
//! |---|---|
//! | value | log-likelihood |
//! | gradient | log-likelihood, gradient (P) |
//! | derivatives | log-likelihood, gradient (P), Hessian (P, P) |
//! | outer | log-likelihood, sum of outer products of scores (P, P) |
//! | expectation | log-likelihood; of each expert responsibility, squares, score (m), moment (m), curvature (m, m), Gram matrix (m, m); gate score (G), gate information (G, G) |

use super::super::{Derivatives, EmStatistics, ExpertStatistics};
use super::ascent::{Decoding, expert_offsets, gate_coordinates};
use crate::model::{ExpertGate, Layout, Parameters};
use ndarray::{Array1, Array2};

/// What a pass adds up; codes as `OPERATION_...` in `pass.cu`.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The log-likelihood.
    Value,
    /// The same with its gradient.
    Gradient,
    /// The same with its Hessian.
    Derivatives,
    /// Outer products of scores.
    Outer,
    /// What an iteration of expectation maximisation needs.
    Expectation,
}

impl Operation {
    /// Its kernel.
    pub fn kernel(self) -> &'static str {
        match self {
            Operation::Value => "pass_value",
            Operation::Gradient => "pass_gradient",
            Operation::Derivatives => "pass_derivatives",
            Operation::Outer => "pass_outer",
            Operation::Expectation => "pass_expectation",
        }
    }
}

/// The sums of one operation on mixtures of one structure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub operation: Operation,
    /// Columns that a row is put into.
    pub columns: usize,
    /// Monomials of x that a row needs: 1, x_1, ..., x_d, then products.
    pub monomials: usize,
    /// Column and monomial of each output: column + 2^16 monomial.
    pub outputs: Vec<u32>,
    /// How the decoded vector is read off the outputs.
    pub decoding: Decoding,
}

/// What the log-density is differentiated in (`pass.cu`), with the packed
/// coordinate of each feature: (1) or (1, x_1, ..., x_d).
struct Driver {
    expert: usize,
    part: Part,
    coordinates: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Predictor,
    Scale,
    Variance,
    Gate,
}

/// The drivers that have coordinates, in the order of the kernel.
fn drivers(parameters: &Parameters, layout: &Layout) -> Vec<Driver> {
    let d = parameters.dimension();
    // Coordinates hold the slope first, features the constant.
    let affine = |offset: usize| -> Vec<usize> {
        std::iter::once(offset + d)
            .chain(offset..offset + d)
            .collect()
    };
    let mut drivers = Vec::new();
    for (i, expert) in parameters.experts.iter().enumerate() {
        let mut add = |part, coordinates| {
            drivers.push(Driver {
                expert: i,
                part,
                coordinates,
            });
        };
        let mean = layout.mean_offset(i);
        let scaled = usize::from(expert.scale.is_some());
        add(Part::Predictor, affine(mean + scaled));
        if scaled == 1 {
            add(Part::Scale, vec![mean]);
        }
        add(Part::Variance, vec![layout.variance_offset(i)]);
        if let Some(offset) = layout.gate_offset(i) {
            match expert.gate {
                ExpertGate::Router { .. } => add(Part::Gate, affine(offset)),
                _ => add(Part::Gate, vec![offset]),
            }
        }
    }
    drivers
}

/// Bit i of the first: expert i has an output weight; of the second: it has gate
/// coordinates.
pub(super) fn masks(parameters: &Parameters) -> (u64, u64) {
    let layout = parameters.layout();
    let mut masks = (0, 0);
    for (i, expert) in parameters.experts.iter().enumerate() {
        masks.0 |= u64::from(expert.scale.is_some()) << i;
        masks.1 |= u64::from(layout.gate_offset(i).is_some()) << i;
    }
    masks
}

/// Collects outputs and the places of the decoded vector that they add to.
struct Builder {
    dimension: usize,
    columns: usize,
    outputs: Vec<u32>,
    /// Outputs of each place.
    places: Vec<Vec<u32>>,
}

impl Builder {
    fn new(dimension: usize, length: usize) -> Self {
        Builder {
            dimension,
            columns: 0,
            outputs: Vec::new(),
            places: vec![Vec::new(); length],
        }
    }

    /// The next column, against its first `monomials` monomials; the number of the
    /// first output.
    fn column(&mut self, monomials: usize) -> u32 {
        let first = self.outputs.len() as u32;
        let column = self.columns as u32;
        self.outputs
            .extend((0..monomials as u32).map(|m| column | (m << 16)));
        self.columns += 1;
        first
    }

    /// One number.
    fn scalar(&mut self, place: usize) {
        let output = self.column(1);
        self.places[place].push(output);
    }

    /// A column times the features of a driver, whose coordinates lie at `place`.
    fn vector(&mut self, coordinates: &[usize], place: impl Fn(usize) -> usize) {
        let first = self.column(coordinates.len());
        for (a, &coordinate) in coordinates.iter().enumerate() {
            self.places[place(coordinate)].push(first + a as u32);
        }
    }

    /// A column times the products of the features of two drivers, and the same
    /// transposed if they are two.
    fn matrix(
        &mut self,
        u: &[usize],
        w: &[usize],
        same: bool,
        place: impl Fn(usize, usize) -> usize,
    ) {
        let degree = usize::from(u.len() > 1) + usize::from(w.len() > 1);
        let first = self.column(monomial_count(self.dimension, degree));
        for (a, &row) in u.iter().enumerate() {
            for (b, &column) in w.iter().enumerate() {
                let output = first + product(self.dimension, a, b) as u32;
                self.places[place(row, column)].push(output);
                if !same {
                    self.places[place(column, row)].push(output);
                }
            }
        }
    }

    fn finish(self, operation: Operation) -> Plan {
        let mut starts = vec![0];
        let mut terms = Vec::new();
        for own in self.places {
            terms.extend(own);
            starts.push(terms.len() as u32);
        }
        let monomials = self.outputs.iter().map(|o| (o >> 16) as usize + 1).max();
        Plan {
            operation,
            columns: self.columns,
            monomials: monomials.unwrap_or(1),
            decoding: Decoding {
                outputs: self.outputs.len(),
                starts,
                terms,
            },
            outputs: self.outputs,
        }
    }
}

/// Monomials of x up to degree 0, 1 or 2.
fn monomial_count(d: usize, degree: usize) -> usize {
    match degree {
        0 => 1,
        1 => d + 1,
        _ => (d + 1) * (d + 2) / 2,
    }
}

/// Where x_a x_b stands among the monomials, with x_0 = 1.
fn product(d: usize, a: usize, b: usize) -> usize {
    let (a, b) = (a.min(b), a.max(b));
    a * (d + 1) - a * a.saturating_sub(1) / 2 + (b - a)
}

/// Length of the decoded vector of an expectation.
fn expectation_length(parameters: &Parameters) -> usize {
    let gates = gate_coordinates(parameters, &parameters.layout());
    expert_offsets(parameters)[parameters.experts.len()] + gates + gates * gates
}

impl Plan {
    /// The sums of `operation` on mixtures with the structure of `parameters`.
    pub fn new(operation: Operation, parameters: &Parameters) -> Self {
        let layout = parameters.layout();
        let (d, size) = (parameters.dimension(), layout.len());
        let drivers = drivers(parameters, &layout);
        let mut builder = match operation {
            Operation::Value => Builder::new(d, 1),
            Operation::Gradient => Builder::new(d, 1 + size),
            Operation::Derivatives => Builder::new(d, 1 + size + size * size),
            Operation::Outer => Builder::new(d, 1 + size * size),
            Operation::Expectation => Builder::new(d, expectation_length(parameters)),
        };
        builder.scalar(0);
        match operation {
            Operation::Value => {}
            Operation::Expectation => expectation(&mut builder, parameters, &drivers),
            _ => {
                let mut first = 1;
                if operation != Operation::Outer {
                    for u in &drivers {
                        builder.vector(&u.coordinates, |c| 1 + c);
                    }
                    first += size;
                }
                if operation != Operation::Gradient {
                    for (k, u) in drivers.iter().enumerate() {
                        for w in &drivers[k..] {
                            let same = std::ptr::eq(u, w);
                            builder.matrix(&u.coordinates, &w.coordinates, same, |a, b| {
                                first + a * size + b
                            });
                        }
                    }
                }
            }
        }
        builder.finish(operation)
    }

    /// Length of the decoded vector.
    pub fn length(&self) -> usize {
        self.decoding.starts.len() - 1
    }

    /// The decoded vector.
    pub fn decode(&self, outputs: &[f64]) -> Vec<f64> {
        let sum = |range: &[u32]| {
            let terms = &self.decoding.terms[range[0] as usize..range[1] as usize];
            terms.iter().map(|&t| outputs[t as usize]).sum()
        };
        self.decoding.starts.windows(2).map(sum).collect()
    }
}

/// Columns in the order of `put_expectation`.
fn expectation(builder: &mut Builder, parameters: &Parameters, drivers: &[Driver]) {
    let offsets = expert_offsets(parameters);
    for (i, expert) in parameters.experts.iter().enumerate() {
        let m = expert.mean_length();
        let own = |u: &&Driver| u.expert == i && matches!(u.part, Part::Predictor | Part::Scale);
        let first = drivers
            .iter()
            .filter(own)
            .flat_map(|u| &u.coordinates)
            .min();
        let first = *first.expect("every expert has a mean");
        let means: Vec<Vec<usize>> = drivers
            .iter()
            .filter(own)
            .map(|u| u.coordinates.iter().map(|c| c - first).collect())
            .collect();
        let at = offsets[i];
        builder.scalar(at);
        builder.scalar(at + 1);
        for vector in 0..2 {
            for u in &means {
                builder.vector(u, |c| at + 2 + vector * m + c);
            }
        }
        for matrix in 0..2 {
            let at = at + 2 + 2 * m + matrix * m * m;
            for (k, u) in means.iter().enumerate() {
                for w in &means[k..] {
                    builder.matrix(u, w, std::ptr::eq(u, w), |a, b| at + a * m + b);
                }
            }
        }
    }
    let gates: Vec<&Driver> = drivers.iter().filter(|u| u.part == Part::Gate).collect();
    let size: usize = gates.iter().map(|u| u.coordinates.len()).sum();
    let first = gates.iter().flat_map(|u| &u.coordinates).min().copied();
    let first = first.unwrap_or(0);
    let at = offsets[parameters.experts.len()];
    for u in &gates {
        builder.vector(&u.coordinates, |c| at + c - first);
    }
    for (k, u) in gates.iter().enumerate() {
        for w in &gates[k..] {
            let same = std::ptr::eq(*u, *w);
            builder.matrix(&u.coordinates, &w.coordinates, same, |a, b| {
                at + size + (a - first) * size + (b - first)
            });
        }
    }
}

/// A decoded vector of [`Operation::Derivatives`].
pub(super) fn derivatives(decoded: &[f64], size: usize) -> Derivatives {
    Derivatives {
        log_likelihood: decoded[0],
        gradient: Array1::from(decoded[1..1 + size].to_vec()),
        hessian: matrix(&decoded[1 + size..], size),
    }
}

/// A decoded vector of [`Operation::Outer`].
pub(super) fn outer(decoded: &[f64], size: usize) -> Array2<f64> {
    matrix(&decoded[1..], size)
}

fn matrix(entries: &[f64], size: usize) -> Array2<f64> {
    let entries = entries[..size * size].to_vec();
    Array2::from_shape_vec((size, size), entries).expect("size by size")
}

/// A decoded vector of [`Operation::Expectation`].
pub(super) fn statistics(decoded: &[f64], parameters: &Parameters) -> EmStatistics {
    let offsets = expert_offsets(parameters);
    let expert = |i: usize| {
        let m = parameters.experts[i].mean_length();
        let own = &decoded[offsets[i]..offsets[i + 1]];
        let (vectors, matrices) = own[2..].split_at(2 * m);
        ExpertStatistics {
            responsibility: own[0],
            squares: own[1],
            score: Array1::from(vectors[..m].to_vec()),
            moment: Array1::from(vectors[m..].to_vec()),
            curvature: matrix(matrices, m),
            gram: matrix(&matrices[m * m..], m),
        }
    };
    let count = parameters.experts.len();
    let gate = &decoded[offsets[count]..];
    let gates = gate_coordinates(parameters, &parameters.layout());
    EmStatistics {
        log_likelihood: decoded[0],
        experts: (0..count).map(expert).collect(),
        gate_score: Array1::from(gate[..gates].to_vec()),
        gate_information: matrix(&gate[gates..], gates),
    }
}
