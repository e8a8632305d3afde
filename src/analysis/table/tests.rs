use super::*;

/// Reads `bytes` as a file named `t.csv`.
fn read(bytes: impl AsRef<[u8]>) -> Result<Table> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    std::fs::write(&path, bytes).unwrap();
    Table::read(&path)
}

/// The error without the folder of the file.
fn message(error: &Error) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text[text.find("t.csv").expect("names the file")..].to_string()
}

fn error(bytes: impl AsRef<[u8]>) -> String {
    message(&read(bytes).unwrap_err())
}

fn number_column(table: &Table, name: &str) -> Vec<Option<f64>> {
    table.numbers(name).unwrap().to_vec()
}

#[test]
fn numbers_texts_and_missing_values_are_told_apart() {
    let table = read("x,y,sex\n1,2.5e3,m\n-.5,NA,\n+3,.,f\nnan,NULL,NA\n").unwrap();
    assert_eq!(
        number_column(&table, "x"),
        [Some(1.0), Some(-0.5), Some(3.0), None]
    );
    assert_eq!(number_column(&table, "y"), [Some(2500.0), None, None, None]);
    let text = |cell: &str| Some(cell.to_string());
    assert_eq!(
        table.column("sex").unwrap().cells,
        Cells::Text(vec![text("m"), None, text("f"), None])
    );
    assert_eq!(table.rows(), 4);
}

#[test]
fn all_ways_to_write_one_table_give_the_same_columns() {
    let plain = read("a,b c\n1,x y\n2,z\n").unwrap();
    let ways: [&[u8]; 8] = [
        b"\xEF\xBB\xBFa,b c\n1,x y\n2,z\n",
        b"a,b c\r\n1,x y\r\n2,z\r\n",
        b"a,b c\r1,x y\r2,z",
        b"a;b c\n1;x y\n2;z",
        b"a\tb c\n1\tx y\n2\tz\n\n\n",
        b"\"a\",\"b c\"\n\"1\",\"x y\"\n2,\"z\"\n",
        b"\n a , b c \n\n 1, x y \n   \n2 ,z\n \n",
        b"a,\"b\nc\"\n1,\"x\r\ny\"\n2,z\n",
    ];
    for way in ways {
        let table = read(way).unwrap();
        assert_eq!(
            table.columns(),
            plain.columns(),
            "{}",
            String::from_utf8_lossy(way)
        );
    }
}

#[test]
fn lines_are_those_of_an_editor_whatever_the_line_ends() {
    for (text, line) in [
        ("x,s\n1,a\n2,b\nq,c\n", 4),
        ("x,s\r\n1,a\r\n2,b\r\nq,c\r\n", 4),
        ("x,s\r1,a\r2,b\rq,c\r", 4),
        ("\n\nx,s\n\n1,a\n\n\nq,b\n2,c", 8),
        ("x,s\n1,\"a\nb\nc\"\nq,d\n2,d\n", 5),
    ] {
        let table = read(text).unwrap();
        let error = message(&table.numbers("x").unwrap_err());
        assert_eq!(
            error,
            format!("t.csv:{line}: column `x`: expected a number, got \"q\""),
            "{text:?}"
        );
    }
}

#[test]
fn an_infinite_number_is_an_error_where_it_is_used() {
    let table = read("x,y\n1,1\n-inf,2\n1e999,3\n").unwrap();
    assert_eq!(
        message(&table.numbers("x").unwrap_err()),
        "t.csv:3: column `x`: expected a finite number, got -inf"
    );
    assert!(table.numbers("y").is_ok());
}

#[test]
fn a_decimal_comma_is_named() {
    let table = read("x;y\n1,5;1\n2,5;2\n").unwrap();
    assert_eq!(
        message(&table.numbers("x").unwrap_err()),
        "t.csv:2: column `x`: expected a number, got \"1,5\" (the decimal point must be a point)"
    );
}

#[test]
fn what_is_not_a_table_is_one_clear_line() {
    assert_eq!(
        error(""),
        "t.csv: the file is empty: expected a line of column names"
    );
    assert_eq!(
        error("\u{feff}\n \n"),
        "t.csv: the file is empty: expected a line of column names"
    );
    assert_eq!(
        error("x,y\n"),
        "t.csv: there are no rows below the column names"
    );
    assert_eq!(
        error("x,y\n1,2\n3\n"),
        "t.csv:3: expected 2 cells, as in the header, got 1"
    );
    assert_eq!(
        error("x,y\n1,2,3\n"),
        "t.csv:2: expected 2 cells, as in the header, got 3"
    );
    assert_eq!(
        error("x,y,x\n1,2,3\n"),
        "t.csv:1: columns 1 and 3 are both named `x`"
    );
    assert_eq!(error("x,,y\n1,2,3\n"), "t.csv:1: column 2 has no name");
    assert_eq!(
        error(b"x,y\n1,2\n3,\xE9\n"),
        "t.csv:3: expected UTF-8 text, got the byte 0xE9"
    );
    assert_eq!(
        error("x,y\n1,a\n2,\"b\n3,c\n4,d\n"),
        "t.csv:3: a quote that opens here is never closed"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    let missing = Table::read(&path).unwrap_err();
    assert!(message(&missing).starts_with("t.csv: cannot read: No such file"));
    std::fs::create_dir(&path).unwrap();
    let folder = Table::read(&path).unwrap_err();
    assert!(message(&folder).starts_with("t.csv: cannot read: Is a directory"));
}

#[test]
fn row_names_are_left_out_with_a_note() {
    let table = read("\"\",\"x\"\n\"1\",5\n\"2\",6\n").unwrap();
    assert_eq!(table.columns().len(), 1);
    assert_eq!(number_column(&table, "x"), [Some(5.0), Some(6.0)]);
    assert_eq!(table.warnings.len(), 1);
}

#[test]
fn a_missing_column_is_answered_with_those_there_are() {
    let table = read("a,b c\n1,2\n").unwrap();
    assert_eq!(
        message(&table.column("A").unwrap_err()),
        "t.csv: no column `A`; the columns are `a`, `b c`"
    );
}
