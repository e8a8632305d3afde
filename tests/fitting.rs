//! Fits of people's data against the best fits that are known.

use serde::Deserialize;
use smoe_lab::analysis::{
    Attainment, Design, Fitted, Formula, GateChoice, Part, Specification, Table, quantities, search,
};
use smoe_lab::backend::Cpu;
use smoe_lab::backend::cuda::{self, DeviceChoice, Opened};
use smoe_lab::model::VarianceStructure;
use std::path::{Path, PathBuf};

/// A model of `tests/data/peers/references.json`.
#[derive(Deserialize)]
struct Reference {
    name: String,
    table: String,
    response: String,
    expert: String,
    gate: String,
    experts: usize,
    equal_variance: bool,
    log_likelihood: f64,
    parameters: usize,
    coefficients: Vec<Vec<f64>>,
    sigma: Vec<f64>,
    supremum: Option<f64>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/peers")
}

fn references() -> Vec<Reference> {
    let text = std::fs::read_to_string(folder().join("references.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

impl Reference {
    fn specification(&self) -> Specification {
        Specification {
            gate: match self.gate.is_empty() {
                true => GateChoice::Constant,
                false => GateChoice::Softmax,
            },
            variance: match self.equal_variance {
                true => VarianceStructure::Shared,
                false => VarianceStructure::PerExpert,
            },
            ..Specification::default()
        }
    }

    fn fit(&self, table: &Path) -> (Design, Fitted) {
        let table = Table::read(table).unwrap();
        let [expert, gate] = [&self.expert, &self.gate].map(|t| Formula::parse(t).unwrap());
        let design = Design::new(&table, &self.response, &expert, &gate).unwrap();
        let fitted = search(&Cpu::new(), &design, &self.specification(), self.experts).unwrap();
        (design, fitted)
    }
}

#[test]
fn default_settings_reach_the_best_known_log_likelihood_of_every_model() {
    for reference in references() {
        let (_, fitted) = reference.fit(&folder().join(&reference.table));
        let best = fitted.best().unwrap();
        let gap = best.log_likelihood - reference.log_likelihood;
        assert!(gap > -1e-6, "{}: {gap:e}", reference.name);
        // Above it only where the reference stands for a supremum.
        let most = if reference.supremum.is_some() {
            1e-5
        } else {
            1e-6
        };
        assert!(gap < most, "{}: {gap:e}", reference.name);
        assert_eq!(
            best.bounds.dimension(),
            reference.parameters,
            "{}",
            reference.name
        );
        assert!(
            best.spurious.is_none() && best.stop.is_converged(),
            "{}",
            reference.name
        );
    }
}

#[test]
fn parameters_in_raw_units_are_those_of_the_reference() {
    for reference in references() {
        let (design, fitted) = reference.fit(&folder().join(&reference.table));
        let best = fitted.best().unwrap();
        let packed = best.parameters.layout().pack(&best.parameters);
        let found = quantities(&design, &best.parameters);
        let of = |expert: usize, part: Part| -> Vec<f64> {
            let own = found
                .iter()
                .filter(|q| q.part == part && q.expert == expert);
            own.map(|q| q.value(&packed)).collect()
        };
        for (coefficients, sigma) in reference.coefficients.iter().zip(&reference.sigma) {
            let distance = |expert: usize| {
                let own = of(expert, Part::Mean);
                let pairs = own.iter().zip(coefficients);
                pairs
                    .map(|(a, b)| (a - b).abs() / (1.0 + b.abs()))
                    .fold(0.0, f64::max)
            };
            let experts = 0..reference.experts;
            let nearest = experts
                .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
                .unwrap();
            assert!(
                distance(nearest) < 1e-5,
                "{}: {coefficients:?}",
                reference.name
            );
            let shared = reference.equal_variance;
            let own = of(if shared { 0 } else { nearest }, Part::Deviation);
            assert!(
                (own[0] / sigma - 1.0).abs() < 1e-5,
                "{}: {own:?} {sigma}",
                reference.name
            );
        }
    }
}

#[test]
fn the_temperature_record_has_a_supremum_that_no_gate_attains() {
    let reference = references()
        .into_iter()
        .find(|r| r.supremum.is_some())
        .unwrap();
    assert_eq!(reference.name, "tempanomalies_moe_K2");
    let (_, fitted) = reference.fit(&folder().join(&reference.table));
    let best = fitted.best().unwrap();
    assert!(
        (best.log_likelihood - 102.943047).abs() < 1e-6,
        "{}",
        best.log_likelihood
    );
    assert!((best.log_likelihood - reference.supremum.unwrap()).abs() < 1e-7);
    assert!(matches!(best.attainment, Attainment::NotAttained(_)));
    // 1880 to 1963 and 1964 to 2015.
    let mut rows = best.effective_rows.clone();
    rows.sort_by(f64::total_cmp);
    assert!((rows[0] - 52.0).abs() < 1e-6 && (rows[1] - 84.0).abs() < 1e-6);
}

#[test]
fn units_and_origin_of_a_column_change_no_log_likelihood() {
    let temporary = tempfile::tempdir().unwrap();
    for reference in references() {
        let source = folder().join(&reference.table);
        let (_, plain) = reference.fit(&source);
        let plain = plain.best().unwrap().log_likelihood;
        let covariates = reference.expert.split(',').filter(|t| !t.contains('^'));
        for column in covariates.chain([reference.response.as_str()]) {
            for factor in [1e-6, 1e6] {
                let moved = temporary.path().join("moved.csv");
                let rows = write_moved(&source, &moved, column, factor);
                let (_, fitted) = reference.fit(&moved);
                let jacobian = match column == reference.response {
                    true => rows as f64 * f64::ln(factor),
                    false => 0.0,
                };
                let found = fitted.best().unwrap().log_likelihood + jacobian;
                let gap = (found - plain).abs();
                assert!(gap < 1e-6, "{} {column} {factor}: {gap:e}", reference.name);
            }
        }
    }
}

/// The device is emulated where there is none.
#[test]
fn a_device_finds_the_same_optimum() {
    let choice = match cuda::devices() {
        Ok(devices) if !devices.is_empty() => DeviceChoice::Cuda(0),
        _ => DeviceChoice::Emulated,
    };
    let Opened::Gpu(device) = cuda::open(choice).unwrap() else {
        panic!("a device was chosen");
    };
    let reference = references()
        .into_iter()
        .find(|r| r.name == "faithful_moe_K2");
    let reference = reference.unwrap();
    let (design, _) = reference.fit(&folder().join(&reference.table));
    let specification = Specification {
        starts: 4,
        ..reference.specification()
    };
    let fitted = search(&device, &design, &specification, 2).unwrap();
    assert!(device.failure().is_none());
    let gap = fitted.best().unwrap().log_likelihood - reference.log_likelihood;
    assert!(gap.abs() < 1e-6, "{gap:e}");
}

/// The table with one column times `factor` and moved by 1e4 of its standard deviation;
/// its number of rows.
fn write_moved(source: &Path, target: &Path, column: &str, factor: f64) -> usize {
    let mut reader = csv::Reader::from_path(source).unwrap();
    let header = reader.headers().unwrap().clone();
    let at = header.iter().position(|name| name == column).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    let value = |row: &csv::StringRecord| factor * row[at].parse::<f64>().unwrap();
    let n = rows.len() as f64;
    let mean = rows.iter().map(value).sum::<f64>() / n;
    let square = rows.iter().map(|r| (value(r) - mean).powi(2)).sum::<f64>();
    let shift = 1e4 * (square / n).sqrt();
    let mut writer = csv::Writer::from_path(target).unwrap();
    writer.write_record(&header).unwrap();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(j, cell)| match j == at {
            true => format!("{:e}", value(row) + shift),
            false => cell.to_string(),
        });
        writer.write_record(cells).unwrap();
    }
    writer.flush().unwrap();
    rows.len()
}
