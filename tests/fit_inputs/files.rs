//! Odd ways to write a table.

use super::cases::Change::{Bytes, Table};
use super::cases::Expected::{Design, Either, Error};
use super::cases::Kind;
use rand::RngExt;

pub const KINDS: &[Kind] = &[
    (
        "two columns of one name",
        Error,
        Table(|draft, _| draft.add("x", "z", |cell| cell.into())),
    ),
    (
        "a column without name",
        Error,
        Table(|draft, _| draft.add("", "z", |cell| cell.into())),
    ),
    ("an empty file", Error, Bytes(|bytes, _| bytes.clear())),
    (
        "blanks only",
        Error,
        Bytes(|bytes, _| *bytes = b"\xEF\xBB\xBF \n\r\n\t\n".to_vec()),
    ),
    ("a header only", Error, Table(|draft, _| draft.rows.clear())),
    (
        "Windows line ends",
        Design,
        Table(|draft, _| draft.line_end = "\r\n"),
    ),
    (
        "old line ends",
        Design,
        Table(|draft, _| draft.line_end = "\r"),
    ),
    (
        "quotes everywhere",
        Design,
        Table(|draft, _| draft.all_quoted = true),
    ),
    (
        "an open quote",
        Error,
        Table(|draft, rng| draft.strike(rng, "z", "\"0.5")),
    ),
    (
        "quotes and line ends inside cells",
        Design,
        Table(|draft, _| {
            draft.all_quoted = true;
            draft.map("g", |_, cell| format!("{cell},\n\"{cell}\"\t;"));
        }),
    ),
    (
        "a short row",
        Error,
        Table(|draft, rng| {
            let row = rng.random_range(0..draft.rows.len().max(1));
            draft.rows.get_mut(row).map(Vec::pop);
        }),
    ),
    (
        "a long row",
        Error,
        Table(|draft, _| {
            draft
                .rows
                .last_mut()
                .map(|row| row.push("1".into()))
                .unwrap_or_default()
        }),
    ),
    (
        "a byte order mark",
        Design,
        Table(|draft, _| draft.byte_order_mark = true),
    ),
    (
        "another separator",
        Design,
        Table(|draft, rng| draft.delimiter = if rng.random_bool(0.5) { ';' } else { '\t' }),
    ),
    (
        "decimal commas",
        Error,
        Table(|draft, _| {
            draft.delimiter = ';';
            for column in ["y", "x", "z"] {
                draft.map(column, |_, cell| cell.replace('.', ","));
            }
        }),
    ),
    (
        "blank lines",
        Design,
        Table(|draft, _| draft.line_end = "\n\n"),
    ),
    (
        "a huge cell",
        Design,
        Table(|draft, rng| draft.strike(rng, "g", &"long ".repeat(20_000))),
    ),
    (
        "no header",
        Error,
        Table(|draft, _| draft.header = draft.rows.first().cloned().unwrap_or_default()),
    ),
    (
        "bytes that are not UTF-8",
        Error,
        Bytes(|bytes, rng| {
            let at = rng.random_range(0..=bytes.len());
            bytes.insert(at, 0xE9);
        }),
    ),
    (
        "zero bytes",
        Either,
        Bytes(|bytes, rng| {
            let at = rng.random_range(0..=bytes.len());
            bytes.insert(at, 0);
        }),
    ),
    (
        "changed bytes",
        Either,
        Bytes(|bytes, rng| {
            let specials = *b",;\t\"\n\r.-e`^:x9 \0";
            for byte in bytes {
                if rng.random_bool(0.02) {
                    *byte = specials[rng.random_range(0..specials.len())];
                }
            }
        }),
    ),
    (
        "a file cut short",
        Either,
        Bytes(|bytes, rng| bytes.truncate(rng.random_range(0..=bytes.len()))),
    ),
    (
        "random bytes",
        Either,
        Bytes(|bytes, rng| bytes.iter_mut().for_each(|byte| *byte = rng.random())),
    ),
    (
        "random printable bytes",
        Either,
        Bytes(|bytes, rng| {
            bytes
                .iter_mut()
                .for_each(|byte| *byte = rng.random_range(9..127));
        }),
    ),
];
