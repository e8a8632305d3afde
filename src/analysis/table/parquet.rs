//! Parquet.

use super::{Cells, Column, Table, is_missing, quoted, shortened, tidy};
use crate::error::{Error, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Once};

/// See [`Table::read`].
pub(super) fn read(path: &Path) -> Result<Table> {
    let file = File::open(path).map_err(|e| Error::file(path, "read", &e))?;
    let wrong = |message: &str| {
        let message = shortened(message);
        Error::input(
            path,
            "",
            format!("cannot read this Parquet file: {message}"),
        )
    };
    // The reader panics on some damaged files.
    let content = quietly(|| content(file)).map_err(|panic| wrong(&panic))?;
    let (columns, nested) = content.map_err(|error| wrong(&error.to_string()))?;
    if columns.first().is_none_or(|column| column.cells.is_empty()) {
        return Err(Error::input(path, "", "there are no rows"));
    }
    let left_out = |name: &String| {
        let name = quoted(name);
        format!("column {name} is left out: its values are nested")
    };
    Ok(Table {
        warnings: nested.iter().map(left_out).collect(),
        ..Table::from_columns(path, columns)?
    })
}

/// The flat columns and the names of the nested ones.
fn content(file: File) -> parquet::errors::Result<(Vec<Column>, Vec<String>)> {
    let reader = SerializedFileReader::new(file)?;
    let schema = reader.metadata().file_metadata().schema();
    let fields = schema.get_fields().iter().cloned();
    let (flat, nested): (Vec<Arc<Type>>, Vec<Arc<Type>>) =
        fields.partition(|field| field.is_primitive());
    let projection = Type::group_type_builder(schema.name())
        .with_fields(flat.clone())
        .build()?;
    let mut builders: Vec<Builder> = flat.iter().map(|_| Builder::default()).collect();
    for row in reader.get_row_iter(Some(projection))? {
        let row = row?;
        for (builder, (_, field)) in builders.iter_mut().zip(row.get_column_iter()) {
            builder.push(cell(field));
        }
    }
    let name = |field: &Arc<Type>| tidy(field.name());
    let columns = flat.iter().zip(builders).map(|(field, builder)| Column {
        name: name(field),
        cells: builder.cells(),
    });
    Ok((columns.collect(), nested.iter().map(name).collect()))
}

thread_local! {
    static IS_QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The result of `work`, or the message of its panic, which is not printed.
fn quietly<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                others(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(false);
    result.map_err(|payload| {
        let literal = payload.downcast_ref::<&str>().map(|text| text.to_string());
        let text = literal.or_else(|| payload.downcast_ref::<String>().cloned());
        text.unwrap_or_else(|| "it is damaged".into())
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
