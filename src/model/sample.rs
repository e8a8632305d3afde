//! Data, and how a mixture draws them.

use super::file::Model;
use crate::error::{Error, Result};
use crate::rng::Stream;
use ndarray::{Array1, Array2};

/// A data set: inputs and responses, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    inputs: Array2<f64>,
    responses: Array1<f64>,
}

impl Data {
    /// # Shapes
    /// `inputs`: n, d, in row-major order; `responses`: n.
    ///
    /// # Errors
    /// [`Error::Dimension`] if the row numbers differ; [`Error::Value`] if a
    /// value is not finite.
    pub fn new(inputs: Array2<f64>, responses: Array1<f64>) -> Result<Self> {
        if inputs.nrows() != responses.len() {
            return Err(Error::Dimension {
                what: "rows of the inputs",
                expected: responses.len(),
                got: inputs.nrows(),
            });
        }
        if inputs.iter().chain(&responses).any(|v| !v.is_finite()) {
            return Err(Error::value("data", "all values must be finite"));
        }
        Ok(Data {
            inputs: inputs.as_standard_layout().into_owned(),
            responses,
        })
    }

    /// Number of rows n.
    pub fn len(&self) -> usize {
        self.responses.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    /// Input dimension d.
    pub fn dimension(&self) -> usize {
        self.inputs.ncols()
    }

    /// All inputs. Shape: n, d.
    pub fn inputs(&self) -> &Array2<f64> {
        &self.inputs
    }

    /// All responses. Shape: n.
    pub fn responses(&self) -> &Array1<f64> {
        &self.responses
    }

    /// Row i as (x, y).
    #[inline]
    pub fn row(&self, i: usize) -> (&[f64], f64) {
        let d = self.inputs.ncols();
        let flat = self.inputs.as_slice().expect("row-major by construction");
        (&flat[i * d..(i + 1) * d], self.responses[i])
    }

    /// The first `rows` rows.
    pub fn head(&self, rows: usize) -> Data {
        let rows = rows.min(self.len());
        Data {
            inputs: self.inputs.slice(ndarray::s![..rows, ..]).to_owned(),
            responses: self.responses.slice(ndarray::s![..rows]).to_owned(),
        }
    }
}

/// Draws `rows` independent pairs (x, y) from the model: samples `first`,
/// `first + 1`, ... of the stream.
///
/// Sample i is a function of (stream, i) alone. It reads, at address i: draw 0
/// the label and the first input coordinate, draw 1 the response's normal, draws
/// 2, 3, ... the other coordinates two by two.
pub fn draw_sample(model: &Model, first: usize, rows: usize, stream: &Stream) -> Data {
    let dimension = model.input.dimension();
    let mut inputs = Array2::zeros((rows, dimension));
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
        let mut row = inputs.row_mut(i);
        let x = row.as_slice_mut().expect("row-major by construction");
        model.input.at_uniforms(&uniforms, x);
        model.parameters.conditional_into(x, &mut law);
        let expert = choose(&law.log_weights, label);
        let noise = stream.standard_normal(address, 1);
        responses[i] = law.means[expert] + law.variances[expert].sqrt() * noise;
    }
    Data { inputs, responses }
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
