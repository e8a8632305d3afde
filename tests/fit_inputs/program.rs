//! The same odd tables through `smoe_fit` as users run it.

use super::cases::{Case, Expected, cases};
use super::{CASES, SEED, check_line};
use rayon::prelude::*;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far more than any of these fits takes: a fit that hangs is killed and fails the test.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn odd_tables_end_in_one_clear_line_or_in_a_fit() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<(usize, Case)> = cases(SEED, CASES).enumerate().collect();
    let fits: usize = all
        .par_iter()
        .map(|(index, case)| {
            let path = folder.path().join(format!("table {index}.csv"));
            std::fs::write(&path, &case.bytes).unwrap();
            check(*index, case, &path)
        })
        .sum();
    assert!(fits > CASES / 5, "{fits} fits");
}

/// Runs one case; 1 if it was fitted.
fn check(index: usize, case: &Case, path: &Path) -> usize {
    let about = format!("case {index}, {}", case.kind);
    let output = run(index, case, path, &about);
    let errors = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code();
    match code {
        Some(2) => {
            assert!(output.stdout.is_empty(), "{about}");
            let line = errors.strip_suffix('\n').unwrap_or(&errors);
            check_line(&about, line);
            assert!(
                line.starts_with("smoe_fit: ") && line.len() > 15,
                "{about}: {line}"
            );
            assert!(
                !matches!(case.expected, Expected::Design | Expected::Warning)
                    || line.contains("free parameters"),
                "{about}: {line}"
            );
            0
        }
        Some(0 | 1) => {
            assert_ne!(case.expected, Expected::Error, "{about}");
            assert!(errors.is_empty(), "{about}: {errors}");
            let text = String::from_utf8(output.stdout).unwrap();
            let report: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(report["converged"], Value::Bool(code == Some(0)), "{about}");
            assert!(
                code == Some(1) || report["log_likelihood"].is_f64(),
                "{about}"
            );
            if case.expected == Expected::Warning {
                assert!(
                    !report["warnings"].as_array().unwrap().is_empty(),
                    "{about}"
                );
            }
            1
        }
        other => panic!("{about}: {other:?} {errors}"),
    }
}

fn run(index: usize, case: &Case, path: &Path, about: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_smoe_fit"));
    program
        .arg(path)
        .args(["--threads", "1", "--json", "--starts", "12"]);
    program.args(["--experts", ["2", "1..3", "1"][index % 3]]);
    let option = |name: &str, value: &str| format!("--{name}={value}");
    program.arg(option("response", &case.response));
    program.arg(option("expert", &case.expert));
    program.arg(option("gate", &case.gate));
    if matches!(case.gate.trim(), "" | "1") && index.is_multiple_of(2) {
        program.args(["--gate-kind", "competition"]);
    }
    match index % 5 {
        0 => program.args(["--profile"]),
        1 => program.args(["--bootstrap", "4"]),
        2 => program.args(["--equal-variance"]),
        _ => &mut program,
    };
    let piped = program.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // Both pipes are read while it runs: a full one would stop it.
    let mut reader = child.stdout.take().unwrap();
    let stdout = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        bytes
    });
    let began = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        if began.elapsed() > LONGEST {
            child.kill().unwrap();
            panic!("{about}: still running after {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut output = child.wait_with_output().unwrap();
    output.stdout = stdout.join().unwrap();
    output
}
