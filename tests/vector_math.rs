//! Elementary functions of eight numbers at a time, on every instruction set,
//! against 60-digit arithmetic (`tests/golden/functions.py`).

use serde_json::Value;
use smoe_lab::num::lanes::{Level, Simd, dispatch_at};
use smoe_lab::num::vector_math::{
    Function, InPlace, cos_turn, exp, exp_in_place, exp_m1, ln, ln_1p_unit, ln_in_place,
};

/// The stated bound.
const BOUND: f64 = 5e-16;

/// A function of the module as a [`Function`].
macro_rules! function {
    ($name:ident, $function:path) => {
        struct $name;
        impl Function for $name {
            #[inline(always)]
            fn at<S: Simd>(&self, simd: S, x: S::V) -> S::V {
                $function(simd, x)
            }
        }
    };
}

function!(Exp, exp);
function!(ExpLessOne, exp_m1);
function!(Ln, ln);
function!(LnOnePlus, ln_1p_unit);
function!(CosTurn, cos_turn);

/// (x, high, low) with f(x) = high + low.
fn table(name: &str) -> Vec<[f64; 3]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/functions.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let number = |v: &Value| v.as_f64().unwrap();
    let rows = all[name].as_array().unwrap().iter();
    rows.map(|row| [number(&row[0]), number(&row[1]), number(&row[2])])
        .collect()
}

/// The largest error over the table, relative or absolute, with its argument.
fn worst<F: Function>(name: &str, level: Level, function: F, relative: bool) -> (f64, f64) {
    let table = table(name);
    assert!(table.len() > 400);
    let mut values: Vec<f64> = table.iter().map(|row| row[0]).collect();
    dispatch_at(level, InPlace(&mut values, function));
    let errors = values.iter().zip(&table).map(|(got, [x, high, low])| {
        let scale = if relative && *high != 0.0 {
            high.abs()
        } else {
            1.0
        };
        ((((got - high) - low) / scale).abs(), *x)
    });
    errors.fold((0.0, 0.0), |worst, e| if e.0 > worst.0 { e } else { worst })
}

#[test]
fn every_function_keeps_its_error_bound_on_every_instruction_set() {
    for level in Level::available() {
        let all = [
            ("exp", worst("exp", level, Exp, true)),
            ("exp_m1", worst("exp_m1", level, ExpLessOne, true)),
            ("ln", worst("ln", level, Ln, true)),
            ("ln_1p_unit", worst("ln_1p_unit", level, LnOnePlus, true)),
            ("cos_turn", worst("cos_turn", level, CosTurn, false)),
        ];
        for (name, (error, x)) in all {
            println!("{level:?} {name}: {error:.2e} at {x:e}");
            assert!(error <= BOUND, "{level:?} {name}({x:e}): {error:e}");
        }
    }
}

/// A dense scan against the standard library, itself within one unit in the last
/// place (2.2e-16): what a table of hundreds could miss.
#[test]
fn a_dense_scan_finds_no_outlier() {
    let count = 400_000;
    let arguments: Vec<f64> = (0..count)
        .map(|k| -707.0 + 1415.0 * f64::from(k) / f64::from(count))
        .collect();
    let mut values = arguments.clone();
    exp_in_place(&mut values);
    for (x, got) in arguments.iter().zip(&values) {
        assert!((got / x.exp() - 1.0).abs() <= BOUND + 2.3e-16, "exp({x})");
    }
    let arguments: Vec<f64> = arguments.iter().map(|x| (x / 8.0).exp()).collect();
    let mut values = arguments.clone();
    ln_in_place(&mut values);
    for (x, got) in arguments.iter().zip(&values).filter(|(x, _)| **x != 1.0) {
        assert!((got / x.ln() - 1.0).abs() <= BOUND + 2.3e-16, "ln({x})");
    }
}

#[test]
fn limits_and_nonsense_come_out_as_documented() {
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    for level in Level::available() {
        let mut values = [
            f64::NEG_INFINITY,
            -709.0,
            710.0,
            f64::INFINITY,
            f64::NAN,
            -1e300,
        ];
        dispatch_at(level, InPlace(&mut values, Exp));
        let expected = [0.0, 0.0, f64::INFINITY, f64::INFINITY, f64::NAN, 0.0];
        assert!(
            values.iter().zip(expected).all(|(a, b)| same(*a, b)),
            "{values:?}"
        );
        let mut values = [0.0, -0.0, -1.0, f64::INFINITY, f64::NAN, 1e-310];
        dispatch_at(level, InPlace(&mut values, Ln));
        let lowest = f64::NEG_INFINITY;
        let expected = [lowest, lowest, f64::NAN, f64::INFINITY, f64::NAN, lowest];
        assert!(
            values.iter().zip(expected).all(|(a, b)| same(*a, b)),
            "{values:?}"
        );
    }
}

#[test]
fn a_slice_of_any_length_is_worked_on_whole() {
    for length in 0..20 {
        let mut values: Vec<f64> = (0..length).map(f64::from).collect();
        exp_in_place(&mut values);
        let expected = (0..length).map(|k| f64::from(k).exp());
        assert!(
            values
                .iter()
                .zip(expected)
                .all(|(a, b)| (a / b - 1.0).abs() < 1e-15)
        );
    }
}
