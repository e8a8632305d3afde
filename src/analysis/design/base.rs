//! The columns that terms are made of.

use super::standard::{largest, moments, power_of_two};
use crate::analysis::formula::{Component, Formula, spelled};
use crate::analysis::table::{Cells, Table, number, quoted, shown};
use crate::error::Result;
use std::cmp::Ordering;

/// A column of the training table as terms use it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Base {
    /// A number x.
    Number {
        /// Name of the column.
        name: String,
        /// Mean over the rows used.
        mean: f64,
        /// Their standard deviation, 1 for a constant column.
        deviation: f64,
        /// A power of two of the size of the largest value.
        size: f64,
    },
    /// A factor; the first level is the reference.
    Factor {
        /// Name of the column.
        name: String,
        /// Sorted: numbers by value, then texts.
        levels: Vec<String>,
    },
}

/// The values of a base column in the rows used.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Number(Vec<f64>),
    /// Indices of levels.
    Levels(Vec<usize>),
}

/// A column and whether it stands for its levels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Use {
    pub(super) column: String,
    pub(super) as_factor: bool,
}

impl Base {
    pub(super) fn name(&self) -> &str {
        match self {
            Base::Number { name, .. } | Base::Factor { name, .. } => name,
        }
    }

    /// What the column brings over `rows`, none of them with a missing value.
    pub(super) fn learned(table: &Table, used: &Use, rows: &[usize]) -> Result<Self> {
        let name = used.column.clone();
        if used.as_factor {
            let mut levels = labels(table, &name, rows)?;
            levels.sort_by(|a, b| by_level(a, b));
            levels.dedup();
            return Ok(Base::Factor { name, levels });
        }
        let values = numbers(table, &name, rows)?;
        let (mean, deviation) = moments(&values);
        Ok(Base::Number {
            name,
            mean,
            deviation: if deviation > 0.0 { deviation } else { 1.0 },
            size: power_of_two(largest(&values)),
        })
    }

    /// The values of the column in `rows` of a table, none of them missing.
    ///
    /// # Errors
    /// A cell that is no number, or a level that is not among those learned.
    pub(super) fn values(&self, table: &Table, rows: &[usize]) -> Result<Values> {
        match self {
            Base::Number { name, .. } => Ok(Values::Number(numbers(table, name, rows)?)),
            Base::Factor { name, levels } => {
                let labels = labels(table, name, rows)?;
                let index = |(label, &row): (&String, &usize)| {
                    let found = levels.binary_search_by(|level| by_level(level, label));
                    found.map_err(|_| {
                        let (name, label) = (quoted(name), shown(label));
                        table.error_at(
                            row,
                            format!("column {name}: the fit has not seen the level {label}"),
                        )
                    })
                };
                let levels: Result<Vec<usize>> = labels.iter().zip(rows).map(index).collect();
                Ok(Values::Levels(levels?))
            }
        }
    }
}

/// What a component of a term makes of its column.
///
/// `factor(name)` is a factor, a power needs numbers, and a plain name is a factor if
/// the column is text, unless more than half of its cells are numbers: then it is a
/// column of numbers with mistakes, and an error.
pub(super) fn use_of(table: &Table, component: &Component) -> Result<Use> {
    let column = table.column(component.column())?;
    let as_factor = match (component, &column.cells) {
        (Component::Levels { .. }, _) => true,
        (Component::Power { exponent: 1, .. }, Cells::Text(_)) => !column.cells.is_spoilt_number(),
        (Component::Power { .. }, _) => false,
    };
    if !as_factor {
        table.numbers(&column.name)?;
    }
    Ok(Use {
        column: column.name.clone(),
        as_factor,
    })
}

/// The uses of all columns of a formula, each once, those already in `uses` first.
pub(super) fn add_uses(table: &Table, formula: &Formula, uses: &mut Vec<Use>) -> Result<()> {
    for component in formula.terms.iter().flat_map(|term| &term.components) {
        let new = use_of(table, component)?;
        if !uses.contains(&new) {
            uses.push(new);
        }
    }
    Ok(())
}

/// The rows in which none of the columns is missing, and a sentence on the others.
///
/// # Errors
/// If no row is left.
pub(super) fn complete_rows(
    table: &Table,
    columns: &[&str],
) -> Result<(Vec<usize>, Option<String>)> {
    let mut incomplete = vec![false; table.rows()];
    let mut counts = Vec::new();
    for name in columns {
        let cells = &table.column(name)?.cells;
        let missing = |&row: &usize| cells.is_missing(row);
        let mut count = 0;
        for row in (0..table.rows()).filter(missing) {
            incomplete[row] = true;
            count += 1;
        }
        let count = (count > 0).then(|| format!("{} ({count})", spelled(name)));
        counts.extend(count.filter(|count| !counts.contains(count)));
    }
    let rows: Vec<usize> = (0..table.rows()).filter(|&row| !incomplete[row]).collect();
    let counts = counts.join(", ");
    if rows.is_empty() {
        return Err(table.error(format!("every row has a missing value: {counts}")));
    }
    let (all, lost) = (table.rows(), table.rows() - rows.len());
    let note = format!("{lost} of {all} rows left out: values are missing in {counts}");
    Ok((rows, (lost > 0).then_some(note)))
}

/// The numbers of a column in rows without missing values.
pub(super) fn numbers(table: &Table, name: &str, rows: &[usize]) -> Result<Vec<f64>> {
    let cells = table.numbers(name)?;
    Ok(rows
        .iter()
        .map(|&row| cells[row].unwrap_or(f64::NAN))
        .collect())
}

/// The levels of the cells: texts, and numbers as their shortest text, so that `1` and
/// `1.0` are one level.
fn labels(table: &Table, name: &str, rows: &[usize]) -> Result<Vec<String>> {
    let label = |value: f64| format!("{}", Label(value));
    let labels = match &table.column(name)?.cells {
        Cells::Number(cells) => {
            let label = |&row: &usize| cells[row].map(label).unwrap_or_default();
            rows.iter().map(label).collect()
        }
        Cells::Text(cells) => {
            let cell = |&row: &usize| cells[row].as_deref().unwrap_or_default();
            let label = |cell: &str| number(cell).map_or(cell.to_string(), label);
            rows.iter().map(cell).map(label).collect()
        }
    };
    Ok(labels)
}

/// A number as the name of a level.
struct Label(f64);

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        // No minus zero.
        let value = self.0 + 0.0;
        match value == 0.0 || (1e-5..1e15).contains(&value.abs()) {
            true => write!(f, "{value}"),
            false => write!(f, "{value:e}"),
        }
    }
}

/// Numbers by value, then texts in the order of their characters.
fn by_level(a: &str, b: &str) -> Ordering {
    match (number(a), number(b)) {
        (Some(x), Some(y)) => x.total_cmp(&y),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}
