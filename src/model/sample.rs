//! Data, and how a mixture draws them.

use super::file::Model;
use super::input_law::InputLaw;
use super::parameters::Parameters;
use crate::error::{Error, Result};
use crate::rng::Stream;
use ndarray::{Array1, Array2, ArrayView2};
use rand_distr::{Binomial, Distribution};

/// A data set: inputs and responses, and how often each row was seen.
///
/// Inputs are stored column by column, so that a pass reads every column as one
/// contiguous array.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Shape: d, n.
    columns: Array2<f64>,
    responses: Array1<f64>,
    counts: Option<Array1<f64>>,
}

impl Data {
    /// # Shapes
    /// `inputs`: n, d; `responses`: n.
    ///
    /// # Errors
    /// [`Error::Dimension`] if the row numbers differ; [`Error::Value`] if a
    /// value is not finite.
    pub fn new(inputs: Array2<f64>, responses: Array1<f64>) -> Result<Self> {
        let columns = inputs.reversed_axes().as_standard_layout().into_owned();
        Data::from_columns(columns, responses)
    }

    /// As [`Data::new`], without a copy.
    ///
    /// # Shapes
    /// `columns`: d, n, in row-major order; `responses`: n.
    ///
    /// # Errors
    /// As [`Data::new`].
    pub fn from_columns(columns: Array2<f64>, responses: Array1<f64>) -> Result<Self> {
        if columns.ncols() != responses.len() {
            return Err(Error::Dimension {
                what: "rows of the inputs",
                expected: responses.len(),
                got: columns.ncols(),
            });
        }
        if columns.iter().chain(&responses).any(|v| !v.is_finite()) {
            return Err(Error::value("data", "all values must be finite"));
        }
        let columns = match columns.is_standard_layout() {
            true => columns,
            false => columns.as_standard_layout().into_owned(),
        };
        Ok(Data {
            columns,
            responses,
            counts: None,
        })
    }

    /// The same rows, row i seen `counts[i]` times.
    ///
    /// # Shapes
    /// `counts`: n.
    ///
    /// # Errors
    /// [`Error::Dimension`] if there is not one count per row; [`Error::Value`]
    /// if a count is negative or not finite.
    pub fn with_counts(self, counts: Array1<f64>) -> Result<Self> {
        if counts.len() != self.len() {
            return Err(Error::Dimension {
                what: "counts",
                expected: self.len(),
                got: counts.len(),
            });
        }
        if counts.iter().any(|c| !(*c >= 0.0 && c.is_finite())) {
            return Err(Error::value("data", "counts must be finite, not negative"));
        }
        Ok(Data {
            counts: Some(counts),
            ..self
        })
    }

    /// Number of stored rows: the work of one pass.
    pub fn len(&self) -> usize {
        self.responses.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    /// The sample size n: the number of rows, each as often as it was seen.
    pub fn sample_size(&self) -> f64 {
        match &self.counts {
            None => self.len() as f64,
            Some(counts) => counts.sum(),
        }
    }

    /// Input dimension d.
    pub fn dimension(&self) -> usize {
        self.columns.nrows()
    }

    /// All inputs. Shape: n, d.
    pub fn inputs(&self) -> ArrayView2<'_, f64> {
        self.columns.t()
    }

    /// Input j of all rows. Shape: n.
    #[inline]
    pub fn column(&self, j: usize) -> &[f64] {
        let n = self.len();
        let flat = self.columns.as_slice().expect("contiguous by construction");
        &flat[j * n..(j + 1) * n]
    }

    /// All responses. Shape: n.
    pub fn responses(&self) -> &[f64] {
        self.responses
            .as_slice()
            .expect("contiguous by construction")
    }

    /// How often each row was seen; `None` if once each. Shape: n.
    pub fn counts(&self) -> Option<&[f64]> {
        let counts = self.counts.as_ref()?;
        Some(counts.as_slice().expect("contiguous by construction"))
    }

    /// How often row i was seen.
    #[inline]
    pub fn count(&self, i: usize) -> f64 {
        self.counts.as_ref().map_or(1.0, |counts| counts[i])
    }

    /// Row i as (x, y).
    pub fn row(&self, i: usize) -> (Vec<f64>, f64) {
        let mut x = vec![0.0; self.dimension()];
        let y = self.read_row(i, &mut x);
        (x, y)
    }

    /// Writes the input of row i to `x` and returns its response.
    ///
    /// # Shapes
    /// `x`: d.
    #[inline]
    pub fn read_row(&self, i: usize, x: &mut [f64]) -> f64 {
        for (x, column) in x.iter_mut().zip(self.columns.rows()) {
            *x = column[i];
        }
        self.responses[i]
    }

    /// The first `rows` rows.
    pub fn head(&self, rows: usize) -> Data {
        let rows = rows.min(self.len());
        let first = ndarray::s![..rows];
        Data {
            columns: self
                .columns
                .slice(ndarray::s![.., ..rows])
                .as_standard_layout()
                .into_owned(),
            responses: self.responses.slice(first).to_owned(),
            counts: self.counts.as_ref().map(|c| c.slice(first).to_owned()),
        }
    }
}

/// Draws `rows` independent pairs (x, y) from the model: samples `first`,
/// `first + 1`, ... of the stream.
///
/// Sample i is a function of (stream, i) alone. It reads, at address i: draw 0
/// the label and the first input coordinate, draw 1 the response's normal, draws
/// 2, 3, ... the other coordinates two by two. A lattice instead draws the counts
/// of its cells (`first` has no meaning there).
pub fn draw_sample(model: &Model, first: usize, rows: usize, stream: &Stream) -> Data {
    let dimension = model.input.dimension();
    if let InputLaw::Grid {
        points,
        lattice: Some(step),
    } = &model.input
    {
        return draw_lattice_counts(&model.parameters, points, *step, rows as u64, stream);
    }
    let mut columns = Array2::zeros((dimension, rows));
    let mut x = vec![0.0; dimension];
    let mut responses = Array1::zeros(rows);
    let mut uniforms = vec![0.0; dimension.max(1)];
    let mut law = model.parameters.conditional(&vec![0.0; dimension]);
    for i in 0..rows {
        let address = (first + i) as u64;
        let [label, uniform] = stream.uniform_pair(address, 0);
        uniforms[0] = uniform;
        for (draw, pair) in uniforms[1..].chunks_mut(2).enumerate() {
            let values = stream.uniform_pair(address, 2 + draw as u64);
            pair.copy_from_slice(&values[..pair.len()]);
        }
        model.input.at_uniforms(&uniforms, &mut x);
        for (j, x) in x.iter().enumerate() {
            columns[[j, i]] = *x;
        }
        model.parameters.conditional_into(&x, &mut law);
        let expert = choose(&law.log_weights, label);
        let noise = stream.standard_normal(address, 1);
        responses[i] = law.means[expert] + law.variances[expert].sqrt() * noise;
    }
    Data {
        columns,
        responses,
        counts: None,
    }
}

/// Half-width of the response lattice beyond the outermost means, in standard
/// deviations: the mass left out is below 1e-18.
const LATTICE_REACH: f64 = 9.0;

/// Draws the counts of `rows` pairs (x, y) with x uniform on `points` and y on a
/// lattice: exactly multinomial, at a cost that does not depend on `rows`.
///
/// With h = `step` times the smallest standard deviation, h p(y | x) over the
/// lattice of step h is a probability function up to exp(-2 (pi sd / h)^2)
/// (Poisson summation): 5e-35 at `step` = 1/2. The Fisher information and the
/// law of the likelihood ratio are those of the density. One binomial per cell,
/// each given those before it. Cells without counts are left out.
fn draw_lattice_counts(
    parameters: &Parameters,
    points: &[Vec<f64>],
    step: f64,
    rows: u64,
    stream: &Stream,
) -> Data {
    let mut cells: Vec<(usize, f64, f64)> = Vec::new();
    let deviations = parameters.experts.iter().map(|e| e.variance.sqrt());
    let step = step * deviations.fold(f64::INFINITY, f64::min);
    for (point, x) in points.iter().enumerate() {
        let law = parameters.conditional(x);
        let reach = |i: usize| LATTICE_REACH * law.variances[i].sqrt();
        let low = law.active().map(|i| law.means[i] - reach(i));
        let high = law.active().map(|i| law.means[i] + reach(i));
        let first = (low.fold(f64::INFINITY, f64::min) / step).floor() as i64;
        let last = (high.fold(f64::NEG_INFINITY, f64::max) / step).ceil() as i64;
        let first_of_point = cells.len();
        let nodes = (first..=last).map(|k| k as f64 * step);
        cells.extend(nodes.map(|y| (point, y, law.log_density(y).exp())));
        let of_point = &mut cells[first_of_point..];
        let total: f64 = of_point.iter().map(|cell| cell.2).sum();
        let share = 1.0 / (points.len() as f64 * total);
        of_point.iter_mut().for_each(|cell| cell.2 *= share);
    }
    let mut rng = stream.generator();
    let mut left = rows;
    // Mass of this cell and those after it, summed from the far end so that the
    // last shares are exact.
    let mut after = 0.0;
    let tail: Vec<f64> = cells
        .iter()
        .rev()
        .map(|cell| {
            after += cell.2;
            after
        })
        .collect();
    let mut seen: Vec<(usize, f64, f64)> = Vec::new();
    for ((point, y, mass), tail) in cells.into_iter().zip(tail.into_iter().rev()) {
        if left == 0 {
            break;
        }
        let share = (mass / tail).clamp(0.0, 1.0);
        let count = Binomial::new(left, share)
            .expect("a share lies between 0 and 1")
            .sample(&mut rng);
        left -= count;
        if count > 0 {
            seen.push((point, y, count as f64));
        }
    }
    let dimension = points[0].len();
    let columns = Array2::from_shape_fn((dimension, seen.len()), |(j, i)| points[seen[i].0][j]);
    Data {
        columns,
        responses: seen.iter().map(|cell| cell.1).collect(),
        counts: Some(seen.iter().map(|cell| cell.2).collect()),
    }
}

/// The first index at which the cumulated weights exceed `uniform`.
fn choose(log_weights: &[f64], uniform: f64) -> usize {
    let mut cumulated = 0.0;
    let mut chosen = 0;
    for (i, weight) in log_weights.iter().enumerate() {
        if *weight == f64::NEG_INFINITY {
            continue;
        }
        chosen = i;
        cumulated += weight.exp();
        if uniform < cumulated {
            break;
        }
    }
    chosen
}
