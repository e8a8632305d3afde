//! Tables of people's data: named columns of numbers or text, cells may be missing.

mod csv;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A table as read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    path: PathBuf,
    columns: Vec<Column>,
    rows: usize,
    /// The line of every row, where the format has lines.
    lines: Option<Vec<usize>>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name, without surrounding blanks.
    pub name: String,
    /// One cell per row.
    pub cells: Cells,
}

/// The cells of a column; `None` is a missing value.
///
/// A column is text if any cell that is not missing is not a number. Infinite
/// numbers are numbers here, and errors where they are used.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Shape: rows.
    Number(Vec<Option<f64>>),
    /// Shape: rows.
    Text(Vec<Option<String>>),
}

impl Cells {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Cells::Number(cells) => cells.len(),
            Cells::Text(cells) => cells.len(),
        }
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the value of a row is missing.
    pub fn is_missing(&self, row: usize) -> bool {
        match self {
            Cells::Number(cells) => cells[row].is_none(),
            Cells::Text(cells) => cells[row].is_none(),
        }
    }

    /// True for text of which more than half of the cells that are not missing are
    /// numbers: a column of numbers with typing errors rather than a factor.
    pub fn is_spoilt_number(&self) -> bool {
        let Cells::Text(cells) = self else {
            return false;
        };
        let given = cells.iter().flatten();
        let numbers = given.clone().filter(|cell| number(cell).is_some());
        2 * numbers.count() > given.count()
    }
}

impl Table {
    /// Reads a table: Parquet if the file's name ends in `.parquet`, else CSV.
    ///
    /// CSV: UTF-8, with or without byte order mark; the first line holds the column
    /// names; cells are separated by commas, semicolons or tabs, whichever the first
    /// line has most of; quotes as in RFC 4180; any line ends; blank lines are skipped.
    /// Missing values are empty cells, `NA`, `NaN`, `null` (in any case) and `.`. A
    /// first column without a name holds row names and is left out.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read; [`Error::Input`] with the line if
    /// it is not such a table.
    pub fn read(path: &Path) -> Result<Self> {
        csv::read(path)
    }

    /// A table that is not from a file; `path` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Input`] for empty or repeated names or columns of unequal lengths.
    pub fn from_columns(path: &Path, columns: Vec<Column>) -> Result<Self> {
        let wrong = |message: String| Err(Error::input(path, "", message));
        let mut seen = HashSet::new();
        for (i, column) in columns.iter().enumerate() {
            if column.name.is_empty() {
                return wrong(format!("column {} has no name", i + 1));
            }
            if !seen.insert(column.name.as_str()) {
                return wrong(format!("two columns are named {}", quoted(&column.name)));
            }
            let (rows, first) = (column.cells.len(), columns[0].cells.len());
            if rows != first {
                let name = quoted(&column.name);
                return wrong(format!("column {name} has {rows} rows, expected {first}"));
            }
        }
        Ok(Table {
            path: path.to_path_buf(),
            rows: columns.first().map_or(0, |column| column.cells.len()),
            columns,
            lines: None,
            warnings: Vec::new(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All columns, in the file's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column of this name.
    ///
    /// # Errors
    /// [`Error::Input`] that lists the columns there are.
    pub fn column(&self, name: &str) -> Result<&Column> {
        const SHOWN: usize = 12;
        self.find(name).ok_or_else(|| {
            let mut names: Vec<String> = self.columns.iter().map(|c| quoted(&c.name)).collect();
            let more = names.len().saturating_sub(SHOWN);
            names.truncate(SHOWN);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let (name, names) = (quoted(name), names.join(", "));
            self.error(format!("no column {name}; the columns are {names}{more}"))
        })
    }

    /// The column of this name as finite numbers. Shape: rows.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column, or with the line of the first
    /// cell that is neither missing nor a finite number.
    pub fn numbers(&self, name: &str) -> Result<&[Option<f64>]> {
        let expected = |row: usize, what: &str, got: String| {
            let column = quoted(name);
            self.error_at(row, format!("column {column}: expected {what}, got {got}"))
        };
        match &self.column(name)?.cells {
            Cells::Number(cells) => {
                let infinite = |cell: &Option<f64>| cell.is_some_and(|v| !v.is_finite());
                match cells.iter().position(infinite) {
                    None => Ok(cells),
                    Some(row) => {
                        let got = cells[row].expect("infinite, so not missing");
                        Err(expected(row, "a finite number", got.to_string()))
                    }
                }
            }
            Cells::Text(cells) => {
                let stray =
                    |cell: &Option<String>| cell.as_ref().is_some_and(|c| number(c).is_none());
                let row = cells.iter().position(stray).unwrap_or(0);
                let cell = cells[row].as_deref().unwrap_or_default();
                let comma = number(&cell.replacen(',', ".", 1)).is_some();
                let hint = match comma {
                    true => " (the decimal point must be a point)",
                    false => "",
                };
                let got = format!("{}{hint}", shown(cell));
                Err(expected(row, "a number", got))
            }
        }
    }

    /// An error of the whole table.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::input(&self.path, "", message)
    }

    /// An error of one row, from 0.
    pub(super) fn error_at(&self, row: usize, message: impl Into<String>) -> Error {
        match &self.lines {
            Some(lines) => at_line(&self.path, lines[row], message),
            None => self.error(format!("row {}: {}", row + 1, message.into())),
        }
    }
}

/// An error at a line of a file.
fn at_line(path: &Path, line: usize, message: impl Into<String>) -> Error {
    Error::Input {
        path: path.to_path_buf(),
        line: Some(line),
        key: String::new(),
        message: message.into(),
    }
}

/// A name as errors and warnings show it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{name}`")
}

/// A cell as errors show it: one line, not too long.
pub(super) fn shown(cell: &str) -> String {
    const LENGTH: usize = 40;
    match cell.char_indices().nth(LENGTH) {
        None => format!("{cell:?}"),
        Some((end, _)) => format!("{:?}...", &cell[..end]),
    }
}

/// The content of a cell or name: no blanks around it, and blanks for line ends and
/// other control characters inside.
fn tidy(cell: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    cell.chars().map(blank).collect::<String>().trim().into()
}

fn is_missing(cell: &str) -> bool {
    let markers = ["", ".", "na", "nan", "null"];
    markers.iter().any(|m| cell.eq_ignore_ascii_case(m))
}

/// A cell that is not missing as a number, infinite ones included.
pub(super) fn number(cell: &str) -> Option<f64> {
    cell.parse().ok().filter(|v: &f64| !v.is_nan())
}
