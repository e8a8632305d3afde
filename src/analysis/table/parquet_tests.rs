use super::{Cells, Table};
use crate::rng::{Purpose, Stream};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{BoolType, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rand::RngExt;
use std::path::Path;
use std::sync::Arc;

/// Four rows: numbers with a null and a NaN, integers, texts with a null, truth values.
fn write(path: &Path, compression: Compression) {
    let schema = "message rows {
        optional double x;
        required int64 count;
        optional binary name (utf8);
        required boolean flag;
    }";
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer = SerializedFileWriter::new(
        std::fs::File::create(path).unwrap(),
        Arc::new(parse_message_type(schema).unwrap()),
        Arc::new(properties),
    )
    .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let present = Some([1i16, 0, 1, 1].as_slice());
    let mut column = group.next_column().unwrap().unwrap();
    let values = [1.5, f64::NAN, -2e300];
    column
        .typed::<DoubleType>()
        .write_batch(&values, present, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<Int64Type>()
        .write_batch(&[1, 2, 3, -4], None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let names = ["a b".into(), "é".into(), "NA".into()];
    column
        .typed::<ByteArrayType>()
        .write_batch(&names, present, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let flags = [true, false, true, true];
    column
        .typed::<BoolType>()
        .write_batch(&flags, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_files_of_every_common_compression_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let path = folder.path().join("t.parquet");
        write(&path, compression);
        let table = Table::read(&path).unwrap();
        let cells: Vec<&Cells> = table.columns().iter().map(|column| &column.cells).collect();
        let text = |cell: &str| Some(cell.to_string());
        let flags = ["true", "false", "true", "true"].map(text).to_vec();
        assert_eq!(
            cells,
            [
                &Cells::Number(vec![Some(1.5), None, None, Some(-2e300)]),
                &Cells::Number(vec![Some(1.0), Some(2.0), Some(3.0), Some(-4.0)]),
                &Cells::Text(vec![text("a b"), None, text("é"), None]),
                &Cells::Text(flags),
            ]
        );
        let error = table.numbers("name").unwrap_err().to_string();
        assert!(error.ends_with("t.parquet: row 1: column `name`: expected a number, got \"a b\""));
    }
}

#[test]
fn what_is_not_parquet_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.PARQUET");
    write(&path, Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    let mut bad: Vec<Vec<u8>> = vec![Vec::new(), b"x,y\n1,2\n".to_vec()];
    bad.extend(
        (0..whole.len())
            .step_by(7)
            .map(|length| whole[..length].to_vec()),
    );
    for bytes in bad {
        std::fs::write(&path, &bytes).unwrap();
        let error = Table::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("t.PARQUET: cannot read this Parquet file: "),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn damaged_parquet_is_a_table_or_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    write(&path, Compression::UNCOMPRESSED);
    let whole = std::fs::read(&path).unwrap();
    let mut errors = 0;
    for round in 0..2000 {
        let stream = Stream::named(1, "damaged", round, Purpose::Data);
        let mut rng = stream.generator();
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Err(error) = Table::read(&path) {
            errors += 1;
            let text = error.to_string();
            assert!(text.contains("t.parquet: "), "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    assert!((500..2000).contains(&errors), "{errors}");
}
