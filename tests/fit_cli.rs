//! `smoe_fit` as users run it: what it leaves in a folder, and its exit codes.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn fit(arguments: &[&str]) -> Output {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/data/faithful.csv");
    let mut program = Command::new(env!("CARGO_BIN_EXE_smoe_fit"));
    program.arg(table).args(["--starts", "8"]).args(arguments);
    program.output().unwrap()
}

const MODEL: [&str; 6] = [
    "--response",
    "waiting",
    "--expert",
    "eruptions",
    "--gate",
    "eruptions",
];

fn with(more: &[&str]) -> Output {
    fit(&[&MODEL, more].concat())
}

#[test]
fn a_folder_gets_page_figures_residuals_and_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.csv");
    std::fs::write(&new, "eruptions,waiting\n1.5,50\n3.3,70\n4.7,90\n").unwrap();
    let out = folder.path().join("out");
    let (new, out_name) = (new.to_str().unwrap(), out.to_str().unwrap());
    let found = with(&["--experts", "2", "--predict", new, "--out", out_name]);
    assert_eq!(found.status.code(), Some(0));
    for name in [
        "index.html",
        "fit.json",
        "table.txt",
        "figures/fit.svg",
        "figures/fit.png",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let residuals = std::fs::read_to_string(out.join("residuals.csv")).unwrap();
    assert_eq!(residuals.lines().count(), 1 + 272);
    let mut reader = csv::Reader::from_path(out.join("predictions.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|h| h == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        let value = |name: &str| row[at(name)].parse::<f64>().unwrap();
        assert!(value("q0.025") < value("q0.5") && value("q0.5") < value("q0.975"));
        assert!((value("weight_1") + value("weight_2") - 1.0).abs() < 1e-12);
        let shares = value("responsibility_1") + value("responsibility_2");
        assert!((shares - 1.0).abs() < 1e-12);
        assert!(value("log_density") < 0.0);
    }
    // A short eruption belongs to the expert of short ones.
    let first: f64 = rows[0][at("weight_1")].parse().unwrap();
    assert!(first > 0.99);
}

#[test]
fn the_same_seed_prints_the_same_object_on_any_number_of_threads() {
    let printed = |threads: &str| {
        let found = with(&[
            "--experts",
            "1..3",
            "--json",
            "--threads",
            threads,
            "--bootstrap",
            "5",
        ]);
        let mut report: Value = serde_json::from_slice(&found.stdout).unwrap();
        // The clock, and the words that differ.
        for key in ["seconds", "command"] {
            report.as_object_mut().unwrap().remove(key).unwrap();
        }
        report
    };
    assert_eq!(printed("1"), printed("2"));
}

#[test]
fn wrong_options_end_in_one_line_and_exit_code_2() {
    let wrong: [(&[&str], &str); 6] = [
        (&["--experts", "0"], "expected a number such as 3"),
        (&["--experts", "2", "--level", "1.5"], "--level"),
        (&["--experts", "2", "--quantiles", "0,0.5"], "--quantiles"),
        (&["--experts", "2", "--top-k", "3"], "--top-k"),
        (
            &["--experts", "2", "--gate-kind", "constant"],
            "a constant gate has no terms",
        ),
        (&["--experts", "2", "--least-share", "2"], "--least-share"),
    ];
    for (options, expected) in wrong {
        let found = with(options);
        assert_eq!(found.status.code(), Some(2), "{options:?}");
        assert!(found.stdout.is_empty());
        let errors = String::from_utf8(found.stderr).unwrap();
        assert!(errors.contains(expected), "{errors}");
    }
}
