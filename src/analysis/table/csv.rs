//! Comma-separated values.

use super::{Cells, Column, Table, at_line, is_missing, number, tidy};
use crate::error::{Error, Result};
use csv::{ReaderBuilder, StringRecord};
use std::path::Path;

/// See [`Table::read`].
pub(super) fn read(path: &Path) -> Result<Table> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?;
    let text = decoded(path, bytes)?;
    let file = File {
        path,
        text: &text,
        delimiter: delimiter(&text),
    };
    file.table()
}

/// UTF-8 without byte order mark, lines ended by `\n`.
fn decoded(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = 1 + bytes[..good].iter().filter(|&&b| b == b'\n').count();
        let byte = bytes[good];
        at_line(
            path,
            line,
            format!("expected UTF-8 text, got the byte 0x{byte:02X}"),
        )
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// The separator that the first line has most of, outside quotes.
fn delimiter(text: &str) -> u8 {
    let header = text
        .trim_start_matches('\n')
        .lines()
        .next()
        .unwrap_or_default();
    let count = |separator: u8| {
        let mut outside = true;
        let bytes = header.bytes().filter(|&b| {
            outside ^= b == b'"';
            outside && b == separator
        });
        bytes.count()
    };
    // The last of the largest is taken: the comma in doubt.
    let all = [b'\t', b';', b','];
    all.into_iter().max_by_key(|&s| count(s)).unwrap_or(b',')
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    delimiter: u8,
}

impl File<'_> {
    fn table(&self) -> Result<Table> {
        self.check_quotes()?;
        let mut names: Option<Vec<String>> = None;
        let mut lines = Vec::new();
        let mut columns: Vec<Vec<Option<f64>>> = Vec::new();
        let mut is_text = Vec::new();
        self.each_record(|line, record| {
            let Some(names) = &names else {
                let header: Vec<String> = record.iter().map(tidy).collect();
                self.check_header(line, &header)?;
                columns = vec![Vec::new(); header.len()];
                is_text = vec![false; header.len()];
                names = Some(header);
                return Ok(());
            };
            let (cells, expected) = (record.len(), names.len());
            if cells != expected {
                return Err(self.error_at(
                    line,
                    format!("expected {expected} cells, as in the header, got {cells}"),
                ));
            }
            lines.push(line);
            for ((column, is_text), cell) in columns.iter_mut().zip(&mut is_text).zip(record) {
                let cell = cell.trim();
                let value = number(cell);
                *is_text |= value.is_none() && !is_missing(cell);
                column.push(value);
            }
            Ok(())
        })?;
        let Some(names) = names else {
            return Err(self.error("the file is empty: expected a line of column names"));
        };
        if lines.is_empty() {
            return Err(self.error("there are no rows below the column names"));
        }
        let cells = self.cells(columns, &is_text)?;
        let columns = names.into_iter().zip(cells);
        let mut columns: Vec<Column> = columns
            .map(|(name, cells)| Column { name, cells })
            .collect();
        let mut warnings = Vec::new();
        if columns[0].name.is_empty() {
            columns.remove(0);
            warnings.push("the first column has no name: taken for row names".into());
        }
        Ok(Table {
            lines: Some(lines),
            warnings,
            ..Table::from_columns(self.path, columns)?
        })
    }

    /// The texts of columns of text are read in a second pass: tables are mostly
    /// numbers.
    fn cells(&self, numbers: Vec<Vec<Option<f64>>>, is_text: &[bool]) -> Result<Vec<Cells>> {
        let mut texts: Vec<Vec<Option<String>>> = vec![Vec::new(); is_text.len()];
        if is_text.contains(&true) {
            let mut is_header = true;
            self.each_record(|_, record| {
                for ((column, &is_text), cell) in texts.iter_mut().zip(is_text).zip(record) {
                    if is_text && !is_header {
                        column.push(Some(tidy(cell)).filter(|cell| !is_missing(cell)));
                    }
                }
                is_header = false;
                Ok(())
            })?;
        }
        let columns = numbers.into_iter().zip(texts).zip(is_text);
        let cells = columns.map(|((numbers, texts), &is_text)| match is_text {
            true => Cells::Text(texts),
            false => Cells::Number(numbers),
        });
        Ok(cells.collect())
    }

    /// Calls `visit` with the line and the cells of every record that is not blank.
    fn each_record(&self, mut visit: impl FnMut(usize, &StringRecord) -> Result<()>) -> Result<()> {
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .from_reader(self.text.as_bytes());
        let bytes = self.text.as_bytes();
        let (mut at, mut line) = (0, 1);
        let mut record = StringRecord::new();
        loop {
            let start = reader.position().byte() as usize;
            match reader.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(self.error(error.to_string())),
            }
            // The reader skips empty lines before a record.
            let skipped = bytes[start..].iter().take_while(|&&b| b == b'\n').count();
            let first = start + skipped;
            line += bytes[at..first].iter().filter(|&&b| b == b'\n').count();
            at = first;
            let blank = record.len() == 1 && record[0].trim().is_empty();
            if !blank {
                visit(line, &record)?;
            }
        }
    }

    fn check_header(&self, line: usize, names: &[String]) -> Result<()> {
        for (i, name) in names.iter().enumerate() {
            let message = if name.is_empty() && (i > 0 || names.len() == 1) {
                format!("column {} has no name", i + 1)
            } else if let Some(first) = names[..i].iter().position(|other| other == name) {
                format!(
                    "columns {} and {} are both named `{name}`",
                    first + 1,
                    i + 1
                )
            } else {
                continue;
            };
            return Err(self.error_at(line, message));
        }
        Ok(())
    }

    /// The reader takes an open quote for one that ends with the file, and so would
    /// swallow rows.
    fn check_quotes(&self) -> Result<()> {
        enum State {
            CellStart,
            Plain,
            Quoted(usize),
            QuoteInQuoted(usize),
        }
        let mut state = State::CellStart;
        let mut line = 1;
        for byte in self.text.bytes() {
            let ends = byte == b'\n' || byte == self.delimiter;
            state = match (state, byte) {
                (State::CellStart, b'"') => State::Quoted(line),
                (State::Quoted(opened), b'"') => State::QuoteInQuoted(opened),
                (State::Quoted(opened), _) | (State::QuoteInQuoted(opened), b'"') => {
                    State::Quoted(opened)
                }
                _ if ends => State::CellStart,
                _ => State::Plain,
            };
            line += usize::from(byte == b'\n');
        }
        match state {
            State::Quoted(opened) => {
                Err(self.error_at(opened, "a quote that opens here is never closed"))
            }
            _ => Ok(()),
        }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::input(self.path, "", message)
    }

    fn error_at(&self, line: usize, message: impl Into<String>) -> Error {
        at_line(self.path, line, message)
    }
}
