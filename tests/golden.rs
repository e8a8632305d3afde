//! Values from an independent oracle, `tests/golden/make.py`.

use serde_json::Value;
use smoe_lab::backend::cuda::{Cuda, Emulation};
use smoe_lab::loss::density::{Effort, density_distance, density_distances};
use smoe_lab::loss::divergence::Wanted;
use smoe_lab::model::{Model, Point, read_model};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::constants::fisher_information;
use smoe_lab::sim::device::DeviceDivergences;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(section: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("golden.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[section].as_array().unwrap().clone()
}

fn model(value: &Value) -> Model {
    read_model(&folder().join(value.as_str().unwrap())).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_f64().unwrap()).collect()
}

/// The oracle's `condition` is the change of the log-density when every number
/// in its computation moves by one relative unit: rounding explains a small
/// multiple of 2^-53 times that, and 1e-12 covers every ordinary point.
#[test]
fn log_densities_agree_with_the_oracle_to_1e_12() {
    let mut points = 0;
    for case in golden("density") {
        let parameters = model(&case["model"]).parameters;
        for point in case["points"].as_array().unwrap() {
            let x = numbers(&point["x"]);
            let y = point["y"].as_f64().unwrap();
            let expected = point["log_density"].as_f64().unwrap();
            let condition = point["condition"].as_f64().unwrap();
            let tolerance = (1e-12 * (1.0 + expected.abs())).max(8.0 * f64::EPSILON * condition);
            let layout = parameters.layout();
            let mut score = vec![0.0; layout.len()];
            let mut workspace = Point::new(&parameters);
            let by_score = parameters.score(&layout, &mut workspace, &x, y, &mut score);
            for value in [parameters.log_density(&x, y), by_score] {
                assert!(
                    (value - expected).abs() <= tolerance,
                    "{} x={x:?} y={y}: {value} instead of {expected}",
                    case["model"]
                );
            }
            points += 1;
        }
    }
    assert!(points >= 600, "{points} points");
}

#[test]
fn scores_agree_with_the_oracle_to_1e_10() {
    for case in golden("score") {
        let parameters = model(&case["model"]).parameters;
        let layout = parameters.layout();
        for point in case["points"].as_array().unwrap() {
            let x = numbers(&point["x"]);
            let y = point["y"].as_f64().unwrap();
            let mut score = vec![0.0; layout.len()];
            parameters.score(&layout, &mut Point::new(&parameters), &x, y, &mut score);
            let expected = point["gradient"].as_object().unwrap();
            assert_eq!(expected.len(), layout.len());
            let size = score.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for (coordinate, value) in layout.coordinates().iter().zip(&score) {
                let expected = expected[&coordinate.to_string()].as_f64().unwrap();
                assert!(
                    (value - expected).abs() <= 1e-10 * size,
                    "{} {coordinate}: {value} instead of {expected}",
                    case["model"]
                );
            }
        }
    }
}

#[test]
fn distances_agree_with_the_oracle_to_1e_9() {
    for case in golden("distance") {
        let (p, q) = (model(&case["first"]), model(&case["second"]));
        let d = density_distance(&p, &q.parameters, Wanted::All, Effort::default()).unwrap();
        let in_a_plane = p.input.dimension() > 1;
        let pairs = [
            ("hellinger_mean", d.hellinger),
            ("hellinger_sq_mean", d.hellinger_sq),
            ("tv_mean", d.total_variation),
            ("kl_mean", d.kullback_leibler),
        ];
        for (name, found) in pairs {
            let expected = case[name].as_f64().unwrap();
            let error = (found.value - expected).abs();
            // Quasi-Monte-Carlo promises its own reported bound instead.
            let allowed = if in_a_plane {
                found.error
            } else {
                1e-9 * expected
            };
            assert!(
                error <= allowed,
                "{} {name}: {} instead of {expected}, relative error {:.1e}, reported {:.1e}",
                case["first"],
                found.value,
                error / expected,
                found.error / expected
            );
        }
    }
}

#[test]
fn distances_from_the_device_agree_with_the_oracle_to_1e_9() {
    let device = Cuda::emulated(Emulation::default()).unwrap();
    let cases = golden("distance");
    let models: Vec<(Model, Model)> = cases
        .iter()
        .map(|case| (model(&case["first"]), model(&case["second"])))
        .collect();
    let pairs: Vec<_> = models.iter().map(|(p, q)| (p, &q.parameters)).collect();
    let evaluator = DeviceDivergences(device.comparer());
    let found = density_distances(&pairs, Wanted::Smooth, Effort::default(), &evaluator);
    for ((case, d), (p, _)) in cases.iter().zip(found.unwrap()).zip(&models) {
        for (name, found) in [
            ("hellinger_mean", d.hellinger),
            ("hellinger_sq_mean", d.hellinger_sq),
            ("kl_mean", d.kullback_leibler),
        ] {
            let expected = case[name].as_f64().unwrap();
            let allowed = match p.input.dimension() {
                0 | 1 => 1e-9 * expected,
                _ => found.error,
            };
            let error = (found.value - expected).abs();
            assert!(
                error <= allowed,
                "{} {name}: {}",
                case["first"],
                found.value
            );
        }
    }
}

#[test]
fn random_streams_agree_with_the_oracle() {
    for case in golden("philox") {
        let number = |key: &str| case[key].as_u64().unwrap();
        let purpose = match case["purpose"].as_str().unwrap() {
            "Data" => Purpose::Data,
            "Bootstrap" => Purpose::Bootstrap,
            "Quadrature" => Purpose::Quadrature,
            start => {
                let index = start.trim_start_matches("Start(").trim_end_matches(')');
                Purpose::Start(index.parse().unwrap())
            }
        };
        let cell = case["cell"].as_str().unwrap();
        let stream = Stream::named(number("seed"), cell, number("replicate"), purpose);
        let pair = stream.uniform_pair(number("sample"), number("draw"));
        assert_eq!(pair.to_vec(), numbers(&case["uniforms"]), "{case}");
        let normal = stream.standard_normal(number("sample"), number("draw"));
        let expected = case["normal"].as_f64().unwrap();
        assert!(
            (normal - expected).abs() < 1e-14 * (1.0 + expected.abs()),
            "{case}"
        );
    }
}

#[test]
fn fisher_information_agrees_with_the_oracle_to_1e_9() {
    for case in golden("fisher") {
        let model = model(&case["model"]);
        let names: Vec<String> = model
            .parameters
            .layout()
            .coordinates()
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected_names: Vec<&str> = case["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap())
            .collect();
        assert_eq!(names, expected_names);
        let information = fisher_information(&model);
        for (a, row) in case["matrix"].as_array().unwrap().iter().enumerate() {
            for (b, expected) in numbers(row).into_iter().enumerate() {
                let found = information[[a, b]];
                assert!(
                    (found - expected).abs() <= 1e-9 * (1.0 + expected.abs()),
                    "{} [{a}, {b}]: {found} instead of {expected}",
                    case["model"]
                );
            }
        }
    }
}
