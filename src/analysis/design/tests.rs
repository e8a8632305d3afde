use super::*;
use crate::analysis::table::{Cells, Column};
use crate::analysis::{GateChoice, Specification};
use crate::backend::Cpu;
use crate::fit::{Options, Start, StartContext, Stop, fit};
use crate::rng::{Purpose, Stream};
use std::path::Path;

pub(super) fn text_column(name: &str, cells: &[&str]) -> Column {
    let cell = |cell: &&str| (!cell.is_empty()).then(|| cell.to_string());
    Column {
        name: name.into(),
        cells: Cells::Text(cells.iter().map(cell).collect()),
    }
}

pub(super) fn number_column(name: &str, cells: &[f64]) -> Column {
    let cell = |&cell: &f64| (!cell.is_nan()).then_some(cell);
    Column {
        name: name.into(),
        cells: Cells::Number(cells.iter().map(cell).collect()),
    }
}

pub(super) fn table(columns: Vec<Column>) -> Table {
    Table::from_columns(Path::new("t.csv"), columns).unwrap()
}

/// Response `y`, numbers `x` and `z`, factor `sex`.
fn example() -> Table {
    table(vec![
        number_column("y", &[1.0, 3.0, 2.0, 5.0, 4.0, 9.0, 2.5, 7.0]),
        number_column("x", &[1.0, 2.0, 4.0, 5.0, 7.0, 6.5, -3.0, 0.5]),
        number_column("z", &[0.3, 0.1, 0.9, 0.8, 0.35, 0.2, 0.6, 0.7]),
        text_column("sex", &["m", "f", "f", "m", "d", "f", "d", "m"]),
    ])
}

pub(super) fn design(table: &Table, expert: &str, gate: &str) -> Result<Design> {
    let formula = |text| Formula::parse(text).unwrap();
    Design::new(table, "y", &formula(expert), &formula(gate))
}

fn error(table: &Table, expert: &str) -> String {
    let text = design(table, expert, "").unwrap_err().to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text
}

fn with(column: Column) -> Table {
    let mut columns = example().columns().to_vec();
    columns.retain(|old| old.name != column.name);
    columns.push(column);
    table(columns)
}

#[test]
fn experts_and_gate_share_a_feature() {
    let design = design(&example(), "x,x^2", "x,z").unwrap();
    assert_eq!(design.data.dimension(), 3);
    assert_eq!(design.expert.features, [0, 1]);
    assert_eq!(design.gate.features, [0, 2]);
    assert_eq!(design.expert.terms, ["(Intercept)", "x", "x^2"]);
    assert_eq!(design.gate.to_raw.dim(), (3, 4));
}

#[test]
fn features_have_mean_zero_and_deviation_one() {
    let design = design(&example(), "x,x^2,x:z,z,sex", "z^2").unwrap();
    let n = design.data.len() as f64;
    for j in 0..design.data.dimension() {
        let column = design.data.column(j);
        assert!(column.iter().sum::<f64>().abs() < 1e-12 * n);
        assert!((column.iter().map(|v| v * v).sum::<f64>() / n - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_text_column_is_a_factor_of_treatment_contrasts() {
    let design = design(&example(), "x,sex", "").unwrap();
    assert_eq!(design.expert.terms, ["(Intercept)", "x", "sex=f", "sex=m"]);
    assert_eq!(design.gate.terms, ["(Intercept)"]);
}

#[test]
fn numbers_as_factor_are_sorted_by_value_and_named_in_short() {
    let groups = [10.0, 2.0, 2.0, -1.5, 10.0, 2.0, 1e300, 2.0];
    let design = design(&with(number_column("g", &groups)), "factor(g)", "").unwrap();
    assert_eq!(design.expert.terms[1..], ["g=2", "g=10", "g=1e300"]);
}

#[test]
fn texts_with_fewer_numbers_than_words_are_levels() {
    let cells = ["b", "1.0", "a", "1", "b", "a", "a", "2"];
    let design = design(&with(text_column("g", &cells)), "g", "").unwrap();
    assert_eq!(design.expert.terms[1..], ["g=2", "g=a", "g=b"]);
}

#[test]
fn two_factors_in_a_product_span_every_cell_of_their_table() {
    let place = text_column("p", &["u", "v", "u", "v", "u", "u", "v", "u"]);
    let mut columns = with(place).columns().to_vec();
    for column in &mut columns {
        // Twice the rows: six cells, all seen.
        column.cells = match &column.cells {
            Cells::Number(cells) => Cells::Number([&cells[..], cells].concat()),
            Cells::Text(cells) => {
                let mut again = cells.clone();
                again.rotate_right(usize::from(column.name == "p"));
                Cells::Text([&cells[..], &again].concat())
            }
        };
    }
    let table = table(columns);
    let terms = design(&table, "sex:p", "").unwrap().expert.terms;
    let all = ["sex=f", "sex=m", "p=v", "sex=f:p=v", "sex=m:p=v"];
    let sorted =
        |terms: &[&str]| std::collections::BTreeSet::from_iter(terms.iter().map(|t| t.to_string()));
    assert_eq!(
        terms
            .iter()
            .skip(1)
            .cloned()
            .collect::<std::collections::BTreeSet<_>>(),
        sorted(&all)
    );
}

#[test]
fn an_interaction_of_a_factor_brings_the_terms_it_needs() {
    let design = design(&example(), "x:sex", "").unwrap();
    let terms = ["(Intercept)", "x", "sex=f", "sex=m", "x:sex=f", "x:sex=m"];
    assert_eq!(design.expert.terms, [&terms[..2], &terms[4..]].concat());
    assert_eq!(
        design.warnings,
        ["expert terms: x is added: x:sex needs it"]
    );
}

#[test]
fn rows_with_a_missing_value_in_a_used_column_are_left_out_and_counted() {
    let nan = f64::NAN;
    let x = number_column("x", &[1.0, nan, 4.0, 5.0, nan, 6.5, 2.0, 1.0]);
    let mut columns = with(x).columns().to_vec();
    columns.retain(|c| c.name != "sex");
    columns.push(text_column("sex", &["m", "", "f", "m", "f", "", "m", "f"]));
    let table = table(columns);
    let both = design(&table, "x,sex", "").unwrap();
    assert_eq!(both.rows, [0, 2, 3, 6, 7]);
    assert_eq!(
        both.warnings,
        ["3 of 8 rows left out: values are missing in x (2), sex (2)"]
    );
    assert_eq!(design(&table, "z", "").unwrap().rows.len(), 8);
}

#[test]
fn constant_and_dependent_terms_are_dropped_with_a_warning() {
    let x: Vec<f64> = match &example().column("x").unwrap().cells {
        Cells::Number(x) => x.iter().map(|x| 3.0 - 2.0 * x.unwrap()).collect(),
        Cells::Text(_) => unreachable!(),
    };
    let mut columns = with(number_column("c", &[0.1; 8])).columns().to_vec();
    columns.push(number_column("w", &x));
    let design = design(&table(columns), "x,c,w,w^2,z", "").unwrap();
    assert_eq!(design.expert.terms, ["(Intercept)", "x", "z", "w^2"]);
    assert_eq!(
        design.warnings,
        [
            "expert terms: c is dropped: it is constant",
            "expert terms: w is dropped: it is a linear combination of the terms before it",
        ]
    );
}

#[test]
fn powers_of_a_balanced_pair_of_values_are_constant_whatever_the_rounding() {
    let pair = [0.1, 0.3, 0.3, 0.1, 0.1, 0.3, 0.1, 0.3];
    let design = design(&with(number_column("x", &pair)), "x,x^2,x^3,x^4", "").unwrap();
    assert_eq!(design.expert.terms, ["(Intercept)", "x"]);
    assert_eq!(
        design.warnings,
        [
            "expert terms: x^2 is dropped: it is constant",
            "expert terms: x^3 is dropped: it is a linear combination of the terms before it",
            "expert terms: x^4 is dropped: it is constant",
        ]
    );
}

#[test]
fn a_factor_of_one_level_is_dropped_with_a_warning() {
    let table = with(text_column("sex", &["m"; 8]));
    let design = design(&table, "x,sex", "").unwrap();
    assert_eq!(design.expert.terms, ["(Intercept)", "x"]);
    assert_eq!(
        design.warnings,
        ["expert terms: sex is dropped: a factor has one level only"]
    );
}

#[test]
fn every_mistake_is_one_clear_line() {
    let spoilt = ["1", "2", "3", "abc", "5", "6", "7", "8"];
    let table = with(text_column("s", &spoilt));
    let example = example();
    for (table, terms, expected) in [
        (
            &table,
            "s",
            "t.csv: row 4: column `s`: expected a number, got \"abc\"",
        ),
        (
            &table,
            "s^2",
            "t.csv: row 4: column `s`: expected a number, got \"abc\"",
        ),
        (
            &example,
            "sex^2",
            "t.csv: row 1: column `sex`: expected a number, got \"m\"",
        ),
        (
            &example,
            "x + z",
            "t.csv: no column `x + z`; the columns are `y`, `x`, `z`, `sex` (terms are \
             separated by commas)",
        ),
        (
            &example,
            "x,y",
            "t.csv: `y` is the response: it cannot be a term",
        ),
        (
            &example,
            "factor(x)",
            "t.csv: the factor `x` has a level of its own in each of the 8 rows",
        ),
        (
            &example,
            "x,x^2,x^3,z,z^2,z^3,x:z",
            "t.csv: expert terms: expected fewer than the 8 rows, got 8 with the intercept and \
             the levels of factors",
        ),
    ] {
        assert_eq!(error(table, terms), expected);
    }
    let y = |cells: &[f64]| with(number_column("y", cells));
    assert_eq!(
        error(&y(&[0.1; 8]), "x"),
        "t.csv: the response `y` is constant: all 8 values are 0.1"
    );
    assert_eq!(
        error(&y(&[f64::NAN; 8]), "x"),
        "t.csv: every row has a missing value: y (8)"
    );
    let infinite = [1.0, 2.0, f64::INFINITY, 4.0, 5.0, 6.0, 7.0, 8.0];
    assert_eq!(
        error(&y(&infinite), "x"),
        "t.csv: row 3: column `y`: expected a finite number, got inf"
    );
    let text = with(text_column("y", &["a", "b", "c", "d", "e", "f", "g", "h"]));
    assert_eq!(
        error(&text, "x"),
        "t.csv: row 1: column `y`: expected a number, got \"a\""
    );
    let huge = [1e300, 2e300, 0.0, -1e300, 5e299, 1e298, 3.0, 1e300];
    assert_eq!(
        error(&with(number_column("x", &huge)), "x,x^2"),
        "t.csv: the coefficient of x^2 in raw units is beyond floating-point numbers: rescale \
         its columns or the response"
    );
}

#[test]
fn huge_and_tiny_columns_give_the_same_features() {
    let cells = [1.0, 2.0, 4.0, 5.0, 7.0, 6.5, -3.0, 0.5];
    let plain = design(&with(number_column("x", &cells)), "x", "x").unwrap();
    for size in [2f64.powi(900), 2f64.powi(-900)] {
        let scaled = cells.map(|x| x * size);
        let scaled = design(&with(number_column("x", &scaled)), "x", "x").unwrap();
        assert_eq!(scaled.data, plain.data);
        assert_eq!(
            scaled.expert.to_raw[[1, 1]] * size,
            plain.expert.to_raw[[1, 1]]
        );
    }
}

#[test]
fn new_rows_are_standardised_as_the_rows_of_the_fit() {
    let table = example();
    let design = design(&table, "x,x^2,sex,x:sex", "z^2").unwrap();
    let new = design.features_of(&table).unwrap();
    assert_eq!(new.inputs, design.data.inputs());
    let responses = design.standardised_response_of(&table, &new).unwrap();
    let responses: Vec<f64> = responses.unwrap().into_iter().flatten().collect();
    assert_eq!(responses, design.data.responses());
}

#[test]
fn new_rows_need_no_response_and_say_what_they_lack() {
    let design = design(&example(), "x,sex", "").unwrap();
    let x = || number_column("x", &[1.0, f64::NAN, 2.0]);
    let sex = |last| text_column("sex", &["m", "f", last]);
    let new = table(vec![x(), sex("d")]);
    let rows = design.features_of(&new).unwrap();
    assert_eq!(rows.rows, [0, 2]);
    assert_eq!(
        rows.warnings,
        ["1 of 3 rows left out: values are missing in x (1)"]
    );
    assert_eq!(design.standardised_response_of(&new, &rows).unwrap(), None);
    let message = |table: &Table| design.features_of(table).unwrap_err().to_string();
    assert_eq!(
        message(&table(vec![x()])),
        "t.csv: no column `sex`; the columns are `x`"
    );
    assert_eq!(
        message(&table(vec![x(), sex("u")])),
        "t.csv: row 3: column `sex`: the fit has not seen the level \"u\"; its levels are `d`, \
         `f`, `m`"
    );
    let far = number_column("x", &[1.0, f64::MAX, 2.0]);
    let squared = self::design(&example(), "x,x^2", "").unwrap();
    assert_eq!(
        squared
            .features_of(&table(vec![far]))
            .unwrap_err()
            .to_string(),
        "t.csv: row 2: x^2 is too far from the values of the fit"
    );
}

#[test]
fn without_any_term_the_mixture_is_of_constants() {
    // Two normals of 300 rows each at -3 and 3: the maximum is near the truth.
    let n = 600;
    let wave = |i: usize| (0.37 * i as f64).sin() + (0.83 * i as f64).cos();
    let y: Vec<f64> = (0..n)
        .map(|i| wave(i) + if i % 2 == 0 { 3.0 } else { -3.0 })
        .collect();
    let design = design(&table(vec![number_column("y", &y)]), "1", "").unwrap();
    assert_eq!(design.data.dimension(), 0);
    for gate in [
        GateChoice::Softmax,
        GateChoice::Constant,
        GateChoice::Sigmoid,
    ] {
        let specification = Specification {
            gate,
            ..Specification::default()
        };
        let template = specification.template(&design, 2);
        let bounds = specification.bounds(&design, &template, 1.0);
        let context = StartContext {
            template: &template,
            truth: None,
            data: &design.data,
            bounds: &bounds,
        };
        let starts = [Start::KMeans, Start::Random];
        let stream = |start: usize| Stream::named(1, "", 0, Purpose::Start(start as u32));
        let found = fit(&Cpu::new(), context, &starts, stream, &Options::default()).unwrap();
        let best = found.best();
        assert_eq!(best.stop, Stop::Converged, "{gate:?}");
        let mut means: Vec<f64> = best
            .parameters
            .experts
            .iter()
            .map(|e| design.response.mean + design.response.deviation * e.intercept)
            .collect();
        means.sort_by(f64::total_cmp);
        assert!(
            (means[0] + 3.0).abs() < 0.2 && (means[1] - 3.0).abs() < 0.2,
            "{means:?}"
        );
    }
}
