//! Timed fits to a file, in the protocol of `peers.py`.

use crate::estimator::{estimate, partition_start};
use crate::measure::{on_threads, timed};
use ndarray::{Array1, Array2};
use serde_json::{Value, json};
use smoe_lab::model::{Data, Parameters};
use std::io::stdin;
use std::path::Path;

pub fn run(file: &Path, experts: usize, repeats: Option<usize>, threads: usize) {
    let (data, partition) = read(file);
    let start = partition_start(&data, &partition, experts);
    on_threads(threads, || match repeats {
        Some(repeats) => println!("{}", fits(&data, &start, repeats)),
        None => serve(&data, &start),
    });
}

/// Answers every line of standard input, a number of fits, with one line.
fn serve(data: &Data, start: &Parameters) {
    println!(
        "{}",
        json!({"versions": {"smoe-lab": env!("CARGO_PKG_VERSION")}})
    );
    for line in stdin().lines() {
        let line = line.expect("standard input is text");
        let repeats = line.trim().parse().expect("a number of fits");
        println!("{}", fits(data, start, repeats));
    }
}

fn fits(data: &Data, start: &Parameters, repeats: usize) -> Value {
    let timed: Vec<_> = (0..repeats.max(1))
        .map(|_| timed(|| estimate(data, start)))
        .collect();
    let outcome = &timed[0].2;
    let effort = outcome.effort;
    json!({
        "cpu_seconds": timed.iter().map(|t| t.0).collect::<Vec<_>>(),
        "wall_seconds": timed.iter().map(|t| t.1).collect::<Vec<_>>(),
        "log_likelihood": outcome.log_likelihood,
        "iterations": effort.em + effort.gradient + effort.newton,
        "passes": effort.rows as f64 / data.len() as f64,
        "stop": outcome.stop.name(),
        "parameters": outcome.parameters.layout().pack(&outcome.parameters),
    })
}

/// Data and starting partition, from the columns x1 .. xd, y and z0.
fn read(file: &Path) -> (Data, Vec<usize>) {
    let mut reader = csv::Reader::from_path(file).expect("a readable file");
    let names = reader.headers().expect("a header").clone();
    let column = |name: &str| {
        let found = names.iter().position(|other| other == name);
        found.unwrap_or_else(|| panic!("no column {name}"))
    };
    let inputs: Vec<usize> = (0..names.len())
        .filter(|&j| names[j].starts_with('x'))
        .collect();
    let (response, part) = (column("y"), column("z0"));
    let (mut flat, mut responses, mut partition) = (Vec::new(), Vec::new(), Vec::new());
    for row in reader.deserialize() {
        let row: Vec<f64> = row.expect("a row of numbers");
        flat.extend(inputs.iter().map(|&j| row[j]));
        responses.push(row[response]);
        partition.push(row[part] as usize);
    }
    let shape = (responses.len(), inputs.len());
    let flat = Array2::from_shape_vec(shape, flat).expect("every row has all inputs");
    let data = Data::new(flat, Array1::from(responses)).expect("finite values");
    (data, partition)
}
