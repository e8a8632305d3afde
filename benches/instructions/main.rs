//! Instructions per row of the passes over data, against recorded bounds:
//! `cargo bench --bench instructions`, with `-- --record` to record new bounds.
//!
//! Counted by valgrind's callgrind as the difference between a process with
//! two passes and one with one pass, so that start and end drop out. The count
//! does not depend on the load of the machine, nor, as valgrind presents the
//! same processor with AVX2 everywhere, much on the machine.

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{dense, mixture};
use serde_json::{Map, Value, json};
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::model::{
    ExpertKind, GateKind, InputLaw, Model, Response, VarianceStructure, Weights, draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const EXPERTS: usize = 3;
const INPUTS: usize = 2;
/// Two blocks of the backend: enough to divide out what happens once a pass.
const ROWS: usize = 8192;
const GATES: [&str; 2] = ["softmax", "softplus"];
const OPERATIONS: [&str; 4] = ["log_likelihood", "gradient", "derivatives", "em_statistics"];
/// Share by which a count may exceed its bound: other compilers, other C libraries.
const TOLERANCE: f64 = 0.05;
/// Share below its bound from which a count asks for a new bound.
const SLACK: f64 = 0.10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["passes", gate, operation, count] => {
            passes(gate, operation, count.parse().expect("a number of passes"));
            ExitCode::SUCCESS
        }
        words => check(words.contains(&"--record")),
    }
}

/// The work that is counted.
fn passes(gate: &str, operation: &str, count: usize) {
    let kind = match gate {
        "softmax" => GateKind::Softmax,
        _ => GateKind::Competition {
            response: Response::Softplus,
            weights: Weights::Softmax,
            kappa: 1.0,
        },
    };
    let noise = [0.7, -0.4, 1.1, -0.9, 0.3, -1.2, 0.5, 0.8, -0.6];
    let structure = VarianceStructure::PerExpert;
    let model = Model {
        input: InputLaw::Uniform {
            low: vec![-1.0; INPUTS],
            high: vec![1.0; INPUTS],
        },
        parameters: mixture(
            dense(kind),
            ExpertKind::Linear,
            EXPERTS,
            INPUTS,
            structure,
            &noise,
        ),
    };
    let parameters = &model.parameters;
    let stream = Stream::named(1, "instructions", 0, Purpose::Data);
    let data = draw_sample(&model, 0, ROWS, &stream);
    for _ in 0..count {
        match operation {
            "log_likelihood" => drop(black_box(Cpu::new().log_likelihood(parameters, &data))),
            "gradient" => drop(black_box(Cpu::new().gradient(parameters, &data))),
            "derivatives" => drop(black_box(Cpu::new().derivatives(parameters, &data))),
            _ => drop(black_box(Cpu::new().em_statistics(parameters, &data))),
        }
    }
}

/// Compares all counts with the bounds, or records them.
fn check(record: bool) -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: skipped, valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/bounds.json");
    let bounds: Value = std::fs::read_to_string(&file)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let mut counts = Map::new();
    let mut holds = true;
    for gate in GATES {
        for operation in OPERATIONS {
            let name = format!("{operation}, {gate}, K={EXPERTS}, d={INPUTS}");
            let one = instructions(gate, operation, 1);
            let two = instructions(gate, operation, 2);
            let count = (two - one) / ROWS as f64;
            let bound = bounds[&name].as_f64();
            counts.insert(name.clone(), json!((10.0 * count).round() / 10.0));
            if record {
                println!("{name}: {count:.1} instructions per row");
                continue;
            }
            let verdict = match bound {
                None => "FAILED: no bound, record it".to_string(),
                Some(bound) => {
                    let change = count / bound - 1.0;
                    let percent = format!("{:+.1} % of {bound}", 100.0 * change);
                    match change {
                        _ if change > TOLERANCE => format!("FAILED: {percent}"),
                        _ if change < -SLACK => format!("{percent}, record the new bound"),
                        _ => percent,
                    }
                }
            };
            holds &= !verdict.starts_with("FAILED");
            println!("{name}: {count:.1} instructions per row, {verdict}");
        }
    }
    if record {
        let text = serde_json::to_string_pretty(&counts).expect("numbers only");
        std::fs::write(&file, text + "\n").expect("a writable folder");
    }
    if !holds {
        println!("instructions: a pass executes more instructions than its bound allows");
        return ExitCode::from(1);
    }
    ExitCode::SUCCESS
}

/// Instructions of a process with so many passes.
fn instructions(gate: &str, operation: &str, passes: usize) -> f64 {
    let program = std::env::current_exe().expect("a running program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["passes", gate, operation, &passes.to_string()])
        .env("OPENBLAS_NUM_THREADS", "1")
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .expect("valgrind starts");
    let report = String::from_utf8_lossy(&output.stderr);
    let collected = report
        .lines()
        .find_map(|line| line.split("Collected :").nth(1));
    collected
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("callgrind counted nothing:\n{report}"))
}
