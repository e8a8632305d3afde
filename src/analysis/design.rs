//! What a model sees of a table: standardised features, and the way back to raw units.

use crate::model::Data;
use ndarray::Array2;

/// Standardised data of one response, one set of expert terms and one of gate terms.
///
/// A feature is a column of mean 0 and standard deviation 1; experts and gate use some
/// of the features each, the others' slopes are held at 0.
#[derive(Clone, Debug)]
pub struct Design {
    /// The features and the standardised response, rows with missing values left out.
    pub data: Data,
    /// The response y = mean + deviation * standardised.
    pub response: Scaled,
    /// The experts' terms.
    pub expert: Side,
    /// The gate's terms.
    pub gate: Side,
    /// The row of the table, from 0, of every row of `data`.
    pub rows: Vec<usize>,
    /// What the user should know: rows left out, terms dropped.
    pub warnings: Vec<String>,
}

/// A column and its scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// Name of the column.
    pub name: String,
    /// Its mean over the rows used.
    pub mean: f64,
    /// Its standard deviation over them (divisor n).
    pub deviation: f64,
}

/// The terms of an affine predictor.
///
/// predictor = intercept + slope . features = sum over terms of raw_t * term_t, with
/// raw = `to_raw` (intercept, slope).
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Names of the raw terms; the first is `(Intercept)`.
    pub terms: Vec<String>,
    /// The features it uses, in order.
    pub features: Vec<usize>,
    /// Shape: terms, 1 + features of the design.
    pub to_raw: Array2<f64>,
}
