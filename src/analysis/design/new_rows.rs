//! The features of rows that were not fitted.

use super::Design;
use super::base::{self, Values};
use crate::analysis::table::{Table, shortened};
use crate::error::Result;
use ndarray::Array2;

/// New rows as a model sees them.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRows {
    /// Standardised as the rows of the fit were. Shape: n, d.
    pub inputs: Array2<f64>,
    /// The row of the table, from 0, of every row of `inputs`.
    pub rows: Vec<usize>,
    /// What the user should know: rows left out.
    pub warnings: Vec<String>,
}

impl Design {
    /// The features of the rows of `table` in which no column of the model is missing.
    /// The response need not be there.
    ///
    /// # Errors
    /// [`crate::error::Error::Input`] with the line, where there is one: columns that
    /// are missing or not finite numbers, levels that the fit has not seen, values so
    /// far from those of the fit that a feature overflows.
    pub fn features_of(&self, table: &Table) -> Result<NewRows> {
        // Columns of terms that were dropped are not needed.
        let is_used = |base: usize| self.features.iter().any(|f| f.monomial.has(base));
        let used: Vec<bool> = (0..self.bases.len()).map(is_used).collect();
        let bases = || self.bases.iter().zip(&used);
        let mut columns = Vec::new();
        for (base, _) in bases().filter(|(_, used)| **used) {
            table.column(base.name())?;
            columns.push(base.name());
        }
        let (rows, note) = base::complete_rows(table, &columns)?;
        let values = bases().map(|(base, used)| match used {
            true => base.values(table, &rows),
            false => Ok(Values::Levels(vec![0; rows.len()])),
        });
        let values: Vec<Values> = values.collect::<Result<_>>()?;
        let mut inputs = Array2::zeros((rows.len(), self.features.len()));
        for (j, feature) in self.features.iter().enumerate() {
            for (i, value) in feature.values(&self.bases, &values).into_iter().enumerate() {
                if !value.is_finite() {
                    let name = shortened(&feature.monomial.name(&self.bases));
                    let message = format!("{name} is too far from the values of the fit");
                    return Err(table.error_at(rows[i], message));
                }
                inputs[[i, j]] = value;
            }
        }
        Ok(NewRows {
            inputs,
            rows,
            warnings: table.warnings.iter().cloned().chain(note).collect(),
        })
    }

    /// The standardised responses of new rows, `None` where they are missing; `None`
    /// if the table has no such column. Shape: n.
    ///
    /// # Errors
    /// [`crate::error::Error::Input`] with the line of a cell that is not a finite
    /// number.
    pub fn standardised_response_of(
        &self,
        table: &Table,
        new: &NewRows,
    ) -> Result<Option<Vec<Option<f64>>>> {
        let name = &self.response.name;
        if table.find(name).is_none() {
            return Ok(None);
        }
        let cells = table.numbers(name)?;
        let standardised = |&row: &usize| Some(self.response.standardised(cells[row]?));
        Ok(Some(new.rows.iter().map(standardised).collect()))
    }
}
