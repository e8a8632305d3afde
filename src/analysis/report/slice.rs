//! A way through the covariates, to draw a fit along.

use crate::analysis::{Cells, Column, Component, Design, Formula, Table};
use ndarray::Array2;
use std::cmp::Ordering;

/// A way through the covariates along one of them, the others held: numbers at their
/// means, factors at their most frequent level.
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
    /// Along the first numeric covariate of the formulas; `None` if there is none with
    /// two values, or if the features there have no place among the numbers.
    pub fn new(table: &Table, design: &Design, expert: &Formula, gate: &Formula) -> Option<Slice> {
        let terms = expert.terms.iter().chain(&gate.terms);
        let components: Vec<&Component> = terms.flat_map(|term| &term.components).collect();
        let mut names: Vec<&str> = Vec::new();
        for component in &components {
            if !names.contains(&component.column()) {
                names.push(component.column());
            }
        }
        let is_factor = |name: &str| {
            let is_it =
                |c: &&Component| matches!(c, Component::Levels { column } if column == name);
            components.iter().any(is_it)
        };
        let numbers = |name: &str| -> Option<Vec<f64>> {
            let cells = table.numbers(name).ok()?;
            design.rows.iter().map(|&row| cells[row]).collect()
        };
        let (covariate, observed) = names
            .iter()
            .filter(|name| !is_factor(name))
            .find_map(|&name| Some((name, numbers(name)?)))
            .filter(|(_, values)| values.iter().any(|v| *v != values[0]))?;
        let values = grid(&observed);
        let columns: Option<Vec<Column>> = names
            .iter()
            .map(|&name| {
                let cells = match name == covariate {
                    true => Cells::Number(values.iter().map(|v| Some(*v)).collect()),
                    false => held(
                        table.find(name)?,
                        is_factor(name),
                        &design.rows,
                        values.len(),
                    ),
                };
                let name = name.to_string();
                Some(Column { name, cells })
            })
            .collect();
        let path = table.path();
        let inputs = |columns| {
            design
                .features_of(&Table::from_columns(path, columns).ok()?)
                .ok()
        };
        Some(Slice {
            covariate: covariate.to_string(),
            held: names
                .iter()
                .filter(|n| **n != covariate)
                .map(|n| n.to_string())
                .collect(),
            observed,
            inputs: inputs(columns?)?.inputs,
            values,
        })
    }
}

/// `count` cells of the middle of a column over `rows`.
fn held(column: &Column, is_factor: bool, rows: &[usize], count: usize) -> Cells {
    match &column.cells {
        Cells::Number(cells) if is_factor => {
            let given = rows.iter().filter_map(|&row| cells[row]);
            Cells::Number(vec![most_frequent(given, f64::total_cmp); count])
        }
        Cells::Number(cells) => {
            let given: Vec<f64> = rows.iter().filter_map(|&row| cells[row]).collect();
            let mean = given.iter().sum::<f64>() / given.len().max(1) as f64;
            Cells::Number(vec![Some(mean); count])
        }
        Cells::Text(cells) => {
            let given = rows.iter().filter_map(|&row| cells[row].clone());
            Cells::Text(vec![most_frequent(given, String::cmp); count])
        }
    }
}

/// The first in order among the most frequent values.
fn most_frequent<T: Clone>(
    given: impl Iterator<Item = T>,
    order: fn(&T, &T) -> Ordering,
) -> Option<T> {
    let mut given: Vec<T> = given.collect();
    given.sort_by(order);
    let levels = given.chunk_by(|a, b| order(a, b).is_eq());
    let most = levels.rev().max_by_key(|level| level.len());
    most.map(|level| level[0].clone())
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
