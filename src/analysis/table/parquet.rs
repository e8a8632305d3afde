//! Parquet.

use super::{Cells, Column, Table, is_missing, quoted, tidy};
use crate::error::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// See [`Table::read`].
pub(super) fn read(path: &Path) -> Result<Table> {
    let file = File::open(path).map_err(|e| Error::file(path, "read", &e))?;
    let wrong = |error: parquet::errors::ParquetError| {
        let message = tidy(&error.to_string());
        Error::input(path, "", format!("not a Parquet file: {message}"))
    };
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let schema = reader.metadata().file_metadata().schema();
    let mut warnings = Vec::new();
    let (flat, nested): (Vec<Arc<Type>>, Vec<Arc<Type>>) = schema
        .get_fields()
        .iter()
        .cloned()
        .partition(|field| field.is_primitive());
    for field in nested {
        let name = quoted(&tidy(field.name()));
        warnings.push(format!("column {name} is left out: its values are nested"));
    }
    let projection = Type::group_type_builder(schema.name())
        .with_fields(flat.clone())
        .build()
        .map_err(wrong)?;
    let mut builders: Vec<Builder> = flat.iter().map(|_| Builder::default()).collect();
    for row in reader.get_row_iter(Some(projection)).map_err(wrong)? {
        for (builder, (_, field)) in builders
            .iter_mut()
            .zip(row.map_err(wrong)?.get_column_iter())
        {
            builder.push(cell(field));
        }
    }
    if builders
        .first()
        .is_none_or(|builder| builder.numbers.is_empty())
    {
        return Err(Error::input(path, "", "there are no rows"));
    }
    let columns = flat.iter().zip(builders).map(|(field, builder)| Column {
        name: tidy(field.name()),
        cells: builder.cells(),
    });
    Ok(Table {
        warnings,
        ..Table::from_columns(path, columns.collect())?
    })
}

enum Cell {
    Missing,
    Number(f64),
    Text(String),
}

fn cell(field: &Field) -> Cell {
    match field {
        Field::Null => Cell::Missing,
        Field::Byte(v) => Cell::Number(f64::from(*v)),
        Field::Short(v) => Cell::Number(f64::from(*v)),
        Field::Int(v) => Cell::Number(f64::from(*v)),
        Field::Long(v) => Cell::Number(*v as f64),
        Field::UByte(v) => Cell::Number(f64::from(*v)),
        Field::UShort(v) => Cell::Number(f64::from(*v)),
        Field::UInt(v) => Cell::Number(f64::from(*v)),
        Field::ULong(v) => Cell::Number(*v as f64),
        Field::Float(v) => Cell::Number(f64::from(*v)),
        Field::Double(v) => Cell::Number(*v),
        Field::Str(text) => text_cell(text),
        Field::Bytes(bytes) => text_cell(&String::from_utf8_lossy(bytes.data())),
        // Decimals are numbers in text; dates and truth values are text.
        other => text_cell(&other.to_string()),
    }
}

fn text_cell(text: &str) -> Cell {
    let text = tidy(text);
    match is_missing(&text) {
        true => Cell::Missing,
        false => Cell::Text(text),
    }
}

/// A column as it is read; a column is of one kind.
#[derive(Default)]
struct Builder {
    numbers: Vec<Option<f64>>,
    texts: Vec<Option<String>>,
    is_text: bool,
}

impl Builder {
    fn push(&mut self, cell: Cell) {
        let (number, text) = match cell {
            Cell::Missing => (None, None),
            Cell::Number(number) => (Some(number), None),
            Cell::Text(text) => (None, Some(text)),
        };
        self.is_text |= text.is_some();
        self.numbers.push(number);
        self.texts.push(text);
    }

    fn cells(self) -> Cells {
        match self.is_text {
            true => Cells::Text(self.texts),
            false => Cells::Number(self.numbers),
        }
    }
}
