//! For random tables: the way back to raw units is exact, units and origins do not
//! matter.

use super::tests::{design, number_column, table, text_column};
use crate::analysis::table::{Cells, Table};
use proptest::prelude::*;

/// The value of a raw term by its name, in row i.
fn raw_value(table: &Table, term: &str, i: usize) -> f64 {
    let component = |name: &str| {
        if name == "(Intercept)" {
            return 1.0;
        }
        if let Some((column, level)) = name.split_once('=') {
            let Cells::Text(cells) = &table.column(column).unwrap().cells else {
                panic!("{column} is not a factor");
            };
            return f64::from(u8::from(cells[i].as_deref() == Some(level)));
        }
        let (column, exponent) = name.split_once('^').unwrap_or((name, "1"));
        table.numbers(column).unwrap()[i]
            .unwrap()
            .powi(exponent.parse().unwrap())
    };
    term.split(':').map(component).product()
}

/// y, x, z and the level.
type Row = (f64, f64, f64, usize);

/// Rows, and shifts and scales of x and z.
fn random_table() -> impl Strategy<Value = (Vec<Row>, [f64; 4])> {
    let row = (-2.0..2.0, -2.0..2.0, -2.0..2.0, 0usize..3);
    let affine = [-20.0..20.0, -20.0..20.0, 0.01..100.0, 0.01..100.0];
    (proptest::collection::vec(row, 30..60), affine)
}

const LEVELS: [&str; 3] = ["a", "b", "c"];

fn built(rows: &[Row], x: impl Fn(f64) -> f64, z: impl Fn(f64) -> f64) -> Table {
    let column = |value: &dyn Fn(&Row) -> f64| rows.iter().map(value).collect::<Vec<f64>>();
    let levels: Vec<&str> = rows.iter().map(|row| LEVELS[row.3]).collect();
    table(vec![
        number_column("y", &column(&|row| row.0)),
        number_column("x", &column(&|row| x(row.1))),
        number_column("z", &column(&|row| z(row.2))),
        text_column("g", &levels),
    ])
}

/// Terms of all kinds, hierarchical or not.
const FORMULAS: [&str; 8] = [
    "x",
    "x,x^2,x^3",
    "x^2,z",
    "x,z,x:z,x^2",
    "x^2:z",
    "g,x,x:g",
    "x,z,g,x:z,x:g,z:g,x:z:g",
    "x^2,x,x^2:z,x:z,z,z^3,x:g",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn raw_coefficients_give_the_predictor_of_the_features(
        (rows, [mx, mz, sx, sz]) in random_table(),
        formula in proptest::sample::select(&FORMULAS[..]),
        slopes in proptest::collection::vec(-1.0f64..1.0, 20),
        twin in any::<bool>(),
    ) {
        let mut table = built(&rows, |x| sx * (x + mx), |z| sz * (z + mz));
        let mut formula = formula.to_string();
        if twin {
            // A dropped column whose square stays: it must be written in the others.
            let x = table.numbers("x").unwrap().to_vec();
            let w = x.iter().map(|x| 2.0 - 0.5 * x.unwrap()).collect::<Vec<f64>>();
            let mut columns = table.columns().to_vec();
            columns.push(number_column("w", &w));
            table = super::tests::table(columns);
            formula = format!("x,w,w^2,w:z,z,{formula}");
        }
        let design = design(&table, &formula, "").unwrap();
        let side = &design.expert;
        prop_assert_eq!(side.terms.len(), 1 + side.features.len());
        let raw: Vec<f64> = (0..side.terms.len())
            .map(|t| {
                let features = side.features.iter().zip(&slopes);
                let slopes = features.map(|(&j, slope)| side.to_raw[[t, 1 + j]] * slope);
                0.3 * side.to_raw[[t, 0]] + slopes.sum::<f64>()
            })
            .collect();
        for i in 0..rows.len() {
            let (x, _) = design.data.row(i);
            let standardised: f64 =
                0.3 + side.features.iter().zip(&slopes).map(|(&j, s)| s * x[j]).sum::<f64>();
            let parts: Vec<f64> = side
                .terms
                .iter()
                .zip(&raw)
                .map(|(term, raw)| raw * raw_value(&table, term, i))
                .collect();
            let size: f64 = parts.iter().map(|p| p.abs()).sum::<f64>() + 1.0;
            let error = (parts.iter().sum::<f64>() - standardised).abs();
            // Dropped columns are written in the others by least squares.
            let tolerance = if twin { 1e-9 } else { 1e-12 };
            prop_assert!(error < tolerance * size, "{} of {}", error, size);
        }
    }

    #[test]
    fn features_do_not_depend_on_units_or_origin(
        (rows, _) in random_table(),
        scale in proptest::sample::select(vec![1e-6, 1e6, -1.0, -1e-6]),
        shift in proptest::sample::select(vec![0.0, 1e4, -1e4]),
        formula in proptest::sample::select(vec![
            "x",
            "x,x^2,x^3",
            "x,z,x:z,x^2",
            "g,x,x:g",
            "x,x^2,x^3,x^4,x^5,x^6,x^7,x^8,x^9",
        ]),
    ) {
        let plain = design(&built(&rows, |x| x, |z| z), formula, "x").unwrap();
        let moved = design(&built(&rows, |x| scale * (x + shift), |z| z), formula, "x").unwrap();
        prop_assert_eq!(&plain.expert.terms, &moved.expert.terms);
        prop_assert_eq!(&plain.expert.features, &moved.expert.features);
        prop_assert_eq!(&plain.gate.features, &moved.gate.features);
        for j in 0..plain.data.dimension() {
            let pairs = || plain.data.column(j).iter().zip(moved.data.column(j));
            let sign = pairs().map(|(a, b)| a * b).sum::<f64>().signum();
            let farthest = pairs().map(|(a, b)| (a - sign * b).abs()).fold(0.0, f64::max);
            // 1e4 * epsilon, amplified by the ninth power.
            prop_assert!(farthest < 1e-9, "feature {} by {}", j, farthest);
        }
    }
}
