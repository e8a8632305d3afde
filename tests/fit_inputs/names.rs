//! Odd names, formulas and factors.

use super::cases::Change::Table;
use super::cases::Expected::{Design, Error, Warning};
use super::cases::Kind;
use super::draft::pick;

pub const KINDS: &[Kind] = &[
    (
        "a wrong name of the response",
        Error,
        Table(|draft, _| draft.response = "Y".into()),
    ),
    (
        "a wrong name of a term",
        Error,
        Table(|draft, _| draft.gate = "x,nope".into()),
    ),
    (
        "a formula of another language",
        Error,
        Table(|draft, rng| {
            let formulas = ["x + z", "y ~ x", "x*z", "x-1", "poly", "x z", "."];
            draft.expert = pick(rng, &formulas).into();
        }),
    ),
    (
        "a formula that cannot be read",
        Error,
        Table(|draft, rng| {
            let formulas = [
                "x,,z",
                "x,",
                "x^0",
                "x^10",
                "x^",
                "x^2^2",
                "x^-1",
                "x^1.5",
                ":x",
                "x::z",
                "factor(x",
                "factor()",
                "I(x^2)",
                "`x",
                "``",
                "x^99999999999",
                "(x)",
                "x^5:x^5",
                "factor(factor(x))",
                "\n",
                "x,\u{0},\u{7}",
            ];
            draft.expert = pick(rng, &formulas).into();
            if draft.expert == "\n" {
                draft.expert = "^\n".into();
            }
        }),
    ),
    (
        "the response as a term",
        Error,
        Table(|draft, _| draft.expert = "x,y^2".into()),
    ),
    (
        "a level per row",
        Error,
        Table(|draft, _| {
            draft.map("g", |i, _| format!("id{i}"));
            draft.expert = "x,g".into();
        }),
    ),
    (
        "too many levels",
        Error,
        Table(|draft, _| {
            let rows = draft.rows.clone();
            (0..20).for_each(|_| draft.rows.extend(rows.clone()));
            draft.map("g", |i, _| format!("id{}", i % 230));
            draft.expert = "x,g".into();
        }),
    ),
    (
        "one level",
        Warning,
        Table(|draft, _| {
            draft.map("g", |_, _| "only".into());
            draft.expert = "x,g".into();
        }),
    ),
    (
        "levels of one row each among others",
        Design,
        Table(|draft, _| {
            draft.map("g", |i, _| {
                if i < 3 {
                    format!("rare{i}")
                } else {
                    "usual".into()
                }
            });
            draft.expert = "g".into();
        }),
    ),
    (
        "odd names",
        Design,
        Table(|draft, _| {
            let odd = ["5-Year Mean (°C)", "a:b^2", "größe = 1", "factor(g)"];
            draft.header = odd.map(String::from).to_vec();
            draft.response = odd[0].into();
            draft.expert = format!("`{}`,`{}`^2,`{}`", odd[1], odd[1], odd[3]);
            draft.gate = format!("`{}`", odd[2]);
        }),
    ),
    (
        "line ends in names",
        Design,
        Table(|draft, _| {
            draft.all_quoted = true;
            draft.rename("z", "z\n\u{1b}[31m");
            draft.expert = "x,z  [31m".into();
            draft.gate = "x".into();
        }),
    ),
    (
        "a thousand columns",
        Design,
        Table(|draft, _| {
            for k in 0..1000 {
                draft.add(&format!("extra {k}"), "x", |cell| cell.into());
            }
        }),
    ),
];
