//! Odd values.

use super::cases::Change::Table;
use super::cases::Expected::{Design, Either, Error, Warning};
use super::cases::Kind;
use super::draft::pick;
use rand::RngExt;

pub const KINDS: &[Kind] = &[
    ("sound", Design, Table(|_, _| {})),
    (
        "missing values in every way",
        Either,
        Table(|draft, rng| {
            let markers = ["", "NA", "nan", "NaN", "null", ".", " "];
            for column in ["y", "x", "z", "g"] {
                draft.map(column, |_, cell| match rng.random_bool(0.1) {
                    true => pick(rng, &markers).into(),
                    false => cell.into(),
                });
            }
        }),
    ),
    (
        "a column without values",
        Error,
        Table(|draft, _| {
            draft.map("x", |_, _| "NA".into());
            draft.expert = "x".into();
        }),
    ),
    (
        "text among numbers",
        Error,
        Table(|draft, rng| draft.strike(rng, "x", "abc")),
    ),
    (
        "text in the response",
        Error,
        Table(|draft, rng| draft.strike(rng, "y", "n/a")),
    ),
    (
        "a constant column",
        Warning,
        Table(|draft, _| draft.map_number("x", |_| 0.1)),
    ),
    (
        "a column constant but for rounding",
        Warning,
        Table(|draft, rng| {
            draft.map("x", |_, _| match rng.random_bool(0.5) {
                true => "0.3".into(),
                false => "0.30000000000000004".into(),
            });
        }),
    ),
    (
        "a constant response",
        Error,
        Table(|draft, _| draft.map("y", |_, _| "7".into())),
    ),
    (
        "collinear columns",
        Warning,
        Table(|draft, _| {
            let twice = |cell: &str| {
                cell.parse()
                    .map_or("NA".into(), |x: f64| format!("{}", 2.0 * x))
            };
            draft.add("x2", "x", twice);
            draft.expert = "x,x2".into();
        }),
    ),
    (
        "a column twice",
        Warning,
        Table(|draft, _| {
            draft.add("copy", "x", |cell| cell.into());
            draft.gate = "x,copy".into();
        }),
    ),
    (
        "fewer rows than terms",
        Error,
        Table(|draft, rng| {
            draft.rows.truncate(rng.random_range(2..5));
            draft.expert = "x,x^2,x^3,z,z^2".into();
        }),
    ),
    (
        "duplicate rows",
        Design,
        Table(|draft, _| draft.rows.extend(draft.rows.clone())),
    ),
    (
        "one row many times",
        Error,
        Table(|draft, _| {
            let first = draft.rows.first().cloned().unwrap_or_default();
            draft.rows.iter_mut().for_each(|row| *row = first.clone());
        }),
    ),
    (
        "an infinity",
        Error,
        Table(|draft, rng| {
            let infinite = ["inf", "-Inf", "Infinity", "1e999"];
            let infinite = pick(rng, &infinite);
            draft.strike(rng, "x", infinite);
            draft.expert = "x".into();
        }),
    ),
    (
        "huge numbers",
        Design,
        Table(|draft, _| {
            draft.map_number("x", |x| x * 1e299);
            draft.expert = "x".into();
        }),
    ),
    (
        "numbers from one end of the range to the other",
        Error,
        Table(|draft, _| {
            draft.map_number("x", |x| x.signum() * f64::MAX * 0.999);
            draft
                .rows
                .push(["1", "1.7e308", "0.5", "a"].map(String::from).to_vec());
            draft
                .rows
                .push(["2", "-1.7e308", "0.5", "b"].map(String::from).to_vec());
            draft.expert = "x".into();
        }),
    ),
    (
        "tiny numbers",
        Design,
        Table(|draft, _| {
            draft.map_number("x", |x| x * 1e-299);
            draft.expert = "x".into();
        }),
    ),
    (
        "huge and tiny numbers in one column",
        Design,
        Table(|draft, _| {
            let size = |x: f64| if x > 0.0 { 1e299 } else { 1e-299 };
            draft.map_number("x", |x| x * size(x));
            draft
                .rows
                .push(["1", "1e300", "0.5", "a"].map(String::from).to_vec());
            draft.expert = "x".into();
            draft.gate = "1".into();
        }),
    ),
    (
        "subnormal numbers",
        Either,
        Table(|draft, _| draft.map_number("x", |x| x * 5e-322)),
    ),
    (
        "a huge response",
        Design,
        Table(|draft, _| {
            draft.map_number("y", |y| y * 1e299);
            draft.expert = "x".into();
        }),
    ),
    (
        "a coefficient beyond the range",
        Error,
        Table(|draft, _| {
            draft.map_number("y", |y| y * 1e200);
            draft.map_number("x", |x| x * 1e-200);
        }),
    ),
    (
        "a power beyond the range",
        Error,
        Table(|draft, _| {
            draft.map_number("x", |x| x * 1e200);
            draft.expert = "x,x^2".into();
        }),
    ),
    (
        "whole numbers beyond 64 bits",
        Design,
        Table(|draft, _| {
            draft.map("x", |i, _| format!("{}99999999999999999999999", i + 1));
        }),
    ),
    (
        "a far shifted column",
        Design,
        Table(|draft, _| {
            draft.map("x", |i, cell| {
                format!("{}", 1.6e9 + (i * i) as f64 + cell.len() as f64)
            })
        }),
    ),
    ("one row", Error, Table(|draft, _| draft.rows.truncate(1))),
];
