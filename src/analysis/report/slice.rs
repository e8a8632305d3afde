//! A way through the covariates, to draw a fit along.

use crate::analysis::{Cells, Column, Design, Table};
use ndarray::Array2;

/// A way through the covariates along one of them, the others held: numbers at their
/// means, factors at their reference level.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The covariate's name.
    pub covariate: String,
    /// The other covariates.
    pub held: Vec<String>,
    /// The covariate at every row of the design. Shape: n.
    pub observed: Vec<f64>,
    /// Ascending raw values of the covariate. Shape: m.
    pub values: Vec<f64>,
    /// The features of the design there. Shape: m, d.
    pub inputs: Array2<f64>,
}

impl Slice {
    /// Along the first numeric column that the design's terms use; `None` if there is
    /// none, or if no such way exists (a column that is both a number and a factor).
    pub fn new(table: &Table, design: &Design) -> Option<Slice> {
        let used = design.columns();
        let covariate = used.iter().find(|name| !design.is_factor(name))?;
        let cells = table.numbers(covariate).ok()?;
        let observed: Option<Vec<f64>> = design.rows.iter().map(|&row| cells[row]).collect();
        let observed = observed?;
        let values = grid(&observed);
        let columns = used.iter().map(|name| Column {
            name: name.clone(),
            cells: match name == covariate {
                true => Cells::Number(values.iter().copied().map(Some).collect()),
                false => design.typical(name, values.len()),
            },
        });
        let along = Table::from_columns(table.path(), columns.collect()).ok()?;
        let held = used.iter().filter(|name| *name != covariate);
        Some(Slice {
            covariate: covariate.clone(),
            held: held.cloned().collect(),
            observed,
            inputs: design.features_of(&along).ok()?.inputs,
            values,
        })
    }
}

/// Values to draw curves on: equally spaced over the observed range, and in every gap
/// between neighbours if these are few, so that a step between two rows is seen.
fn grid(observed: &[f64]) -> Vec<f64> {
    const POINTS: usize = 300;
    let mut sorted: Vec<f64> = observed.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let step = (high - low) / POINTS as f64;
    let mut values: Vec<f64> = (0..POINTS).map(|k| low + step * k as f64).collect();
    values.push(high);
    if sorted.len() <= POINTS {
        let within = |pair: &[f64]| [0.4, 0.5, 0.6].map(|s| pair[0] + s * (pair[1] - pair[0]));
        values.extend(sorted.windows(2).flat_map(within));
    }
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}
