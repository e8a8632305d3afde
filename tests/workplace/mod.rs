//! A temporary folder with a model and a study in it, and the real binary.
#![allow(dead_code)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Design S1 (`sims/truths/s1-competition.toml`).
pub const MODEL: &str = r#"[input]
law = "uniform"
low = [-1.0]
high = [1.0]
[gate]
kind = "competition"
response = "softplus"
weights = "softmax"
top_k = 2
[[expert]]
kind = "linear"
slope = [2.0]
intercept = 1.0
variance = 0.3
bias = 0.3
[[expert]]
kind = "linear"
slope = [-1.5]
intercept = 0.5
variance = 0.4
bias = 0.0
"#;

/// Means of constant sign: a softmax router has the same law.
pub const SIGNS: &str = r#"[input]
law = "uniform"
low = [-1.0]
high = [1.0]
[gate]
kind = "competition"
response = "absolute"
[[expert]]
kind = "linear"
slope = [0.7]
intercept = 2.0
variance = 0.3
bias = 0.3
[[expert]]
kind = "linear"
slope = [-0.9]
intercept = -2.0
variance = 0.4
bias = 0.0
"#;

/// Two truths, two sizes, twelve replicates: a fraction of a second.
pub const STUDY: &str = r#"title = "Two competing experts"
aim = "Whether the commands work."
reference = "none"
seed = 7
replicates = 12
losses = ["hellinger_mean", "hellinger_sq_mean", "tv_mean", "voronoi"]
[truth]
file = "model.toml"
[grid]
n = [50, 100]
[[grid.gate]]
name = "softplus"
response = "softplus"
[[grid.gate]]
name = "absolute"
response = "absolute"
[fit]
method = "em"
max_iterations = 200
gain = 0.5
starts = [{ kind = "perturbed-truth", radius = 0.05 }, { kind = "k-means" }]
[fit.limits]
coefficient = 10.0
bias = 5.0
gate_slope = 10.0
variance = [0.01, 10.0]
[[claim]]
kind = "slope"
theorem = "Theorem 4.1"
loss = "hellinger_mean"
curve = "n^-0.5"
window = [50, 100]
accept = [-90.0, 90.0]
"#;

/// Where a run of `tiny.toml` leaves its rows.
pub const ROWS: &str = "results/tiny/rows.csv";

/// A folder with `model.toml` and `tiny.toml`, removed when dropped.
pub struct Workplace {
    folder: TempDir,
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Workplace {
    pub fn new() -> Self {
        let place = Workplace {
            folder: tempfile::tempdir().unwrap(),
        };
        place.write("model.toml", MODEL);
        place.write("tiny.toml", STUDY);
        place
    }

    /// With the rows of the study already computed.
    pub fn with_rows() -> Self {
        let place = Workplace::new();
        place.succeed("run tiny.toml --jobs 2");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Replaces the first `from` in a file by `to`; gives the old text back.
    pub fn edit(&self, name: &str, from: &str, to: &str) -> String {
        let old = self.read(name);
        assert!(old.contains(from), "{name} has no {from}");
        self.write(name, &old.replacen(from, to, 1));
        old
    }

    /// The command, with arguments separated by spaces, in this folder.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rate_sweep"));
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, line: &str) -> Finished {
        let output = self.command(line).output().unwrap();
        Finished {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must end well; its standard output.
    pub fn succeed(&self, line: &str) -> String {
        let finished = self.run(line);
        assert_eq!(finished.code, Some(0), "{line}: {finished:?}");
        finished.out
    }

    /// Runs a command that must be refused: exit code 2, nothing on standard
    /// output, one line on standard error that holds all of `parts`.
    pub fn refuse(&self, line: &str, parts: &[&str]) {
        let finished = self.run(line);
        let context = format!("{line}, wanted {parts:?}: {finished:?}");
        assert_eq!(finished.code, Some(2), "{context}");
        assert_eq!(finished.out, "", "{context}");
        assert_eq!(finished.err.trim_end().lines().count(), 1, "{context}");
        for part in parts {
            assert!(finished.err.contains(part), "{context}");
        }
    }
}

/// The lines of a row file without the last column, wall time.
pub fn timeless(rows: &str) -> Vec<&str> {
    rows.lines()
        .map(|line| line.rsplit_once(',').expect("several columns").0)
        .collect()
}
