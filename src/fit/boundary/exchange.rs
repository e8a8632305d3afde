//! What the likelihood gains when rows change their selection.
//!
//! Under a fixed selection T the density is that of the dense mixture of the
//! experts in T, so the passes of the backend serve; their derivatives are spread
//! over the coordinates of the whole mixture.

use crate::backend::{Backend, Derivatives};
use crate::model::{Coordinate, Data, Layout, Parameters};
use ndarray::{Array1, Array2};

/// The dense mixture of some experts of another.
pub(super) struct Submixture {
    parameters: Parameters,
    /// For each of its coordinates, those of the whole with their coefficients.
    spread: Vec<Vec<(usize, f64)>>,
    whole: usize,
}

impl Submixture {
    /// # Shapes
    /// `kept`: N, at least one mark.
    pub(super) fn new(of: &Parameters, layout: &Layout, kept: &[bool]) -> Self {
        let names: Vec<usize> = (0..kept.len()).filter(|&i| kept[i]).collect();
        let mut parameters = of.clone();
        parameters.gate.top_k = None;
        parameters.experts = names.iter().map(|&i| of.experts[i].clone()).collect();
        let last = *names.last().expect("at least one expert is kept");
        let relative = of.gate.kind.is_translation_invariant();
        let place = |wanted: Coordinate| layout.coordinates().iter().position(|c| *c == wanted);
        let difference = |of: fn(usize) -> Coordinate, i: usize| {
            let origin = relative.then(|| place(of(last))).flatten();
            let own = place(of(names[i])).map(|j| (j, 1.0));
            own.into_iter().chain(origin.map(|j| (j, -1.0))).collect()
        };
        let own = |c: Coordinate| vec![(place(c).expect("every expert has it"), 1.0)];
        let spread = parameters
            .layout()
            .coordinates()
            .iter()
            .map(|c| match *c {
                Coordinate::Scale(i) => own(Coordinate::Scale(names[i])),
                Coordinate::Slope(i, j) => own(Coordinate::Slope(names[i], j)),
                Coordinate::Intercept(i) => own(Coordinate::Intercept(names[i])),
                Coordinate::LogVariance(i) => vec![(layout.variance_offset(names[i]), 1.0)],
                Coordinate::Bias(i) => difference(Coordinate::Bias, i),
                Coordinate::GateSlope(i, _) => difference(|i| Coordinate::GateSlope(i, 0), i),
                Coordinate::GateIntercept(i) => difference(Coordinate::GateIntercept, i),
            })
            .collect();
        Submixture {
            parameters,
            spread,
            whole: layout.len(),
        }
    }

    /// Adds `factor` times the derivatives of the log-likelihood of `data`.
    pub(super) fn add(
        &self,
        backend: &dyn Backend,
        data: &Data,
        factor: f64,
        to: &mut Derivatives,
    ) {
        let own = backend.derivatives(&self.parameters, data);
        to.log_likelihood += factor * own.log_likelihood;
        for (a, row) in self.spread.iter().enumerate() {
            for &(j, u) in row {
                to.gradient[j] += factor * u * own.gradient[a];
                for (b, column) in self.spread.iter().enumerate() {
                    for &(k, v) in column {
                        to.hessian[[j, k]] += factor * u * v * own.hessian[[a, b]];
                    }
                }
            }
        }
    }

    /// Derivatives of no rows, in the coordinates of the whole mixture.
    pub(super) fn nothing(&self) -> Derivatives {
        Derivatives {
            log_likelihood: 0.0,
            gradient: Array1::zeros(self.whole),
            hessian: Array2::zeros((self.whole, self.whole)),
        }
    }
}

/// One row as a data set.
pub(super) fn single(data: &Data, row: usize) -> Data {
    let (x, y) = data.row(row);
    let columns = Array2::from_shape_fn((x.len(), 1), |(j, _)| x[j]);
    let one = Data::from_columns(columns, Array1::from_elem(1, y)).expect("a row of sound data");
    match data.counts() {
        None => one,
        Some(_) => one
            .with_counts(Array1::from_elem(1, data.count(row)))
            .expect("a count of sound data"),
    }
}
