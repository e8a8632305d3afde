//! The server of PyTorch's steps, `peers.py`.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/train/peers.py");

/// A running server.
pub struct Peers {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
    chosen: BTreeMap<String, String>,
}

impl Peers {
    /// With these steps, all warmed up.
    pub fn start(python: &str, names: &[String]) -> Result<Self, String> {
        let mut process = Command::new(python)
            .arg(SCRIPT)
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{python}: {e}"))?;
        let input = process.stdin.take().expect("asked for");
        let output = BufReader::new(process.stdout.take().expect("asked for"));
        let mut peers = Peers {
            process,
            input,
            output,
            version: String::new(),
            chosen: BTreeMap::new(),
        };
        let about = peers.answer()?;
        peers.version = about["torch"].as_str().unwrap_or_default().into();
        let chosen = about["peers"].as_object().cloned().unwrap_or_default();
        let name = |value: &Value| value.as_str().unwrap_or_default().to_string();
        peers.chosen = chosen
            .iter()
            .map(|(asked, got)| (asked.clone(), name(got)))
            .collect();
        Ok(peers)
    }

    /// PyTorch's.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What was chosen for a name.
    pub fn chosen<'a>(&'a self, name: &'a str) -> &'a str {
        self.chosen.get(name).map_or(name, String::as_str)
    }

    /// Seconds of each of some steps.
    pub fn step(&mut self, name: &str, steps: usize) -> Vec<f64> {
        let answer = self.ask(&format!("step {name} {steps}"));
        let answer = answer.unwrap_or_else(|reason| panic!("{name}: {reason}"));
        let seconds = answer["seconds"].as_array().cloned().unwrap_or_default();
        seconds.iter().filter_map(Value::as_f64).collect()
    }

    fn ask(&mut self, request: &str) -> Result<Value, String> {
        writeln!(self.input, "{request}").map_err(|e| e.to_string())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .map_err(|e| e.to_string())?;
        match line.is_empty() {
            true => Err("it ended; see above".into()),
            false => serde_json::from_str(&line).map_err(|e| e.to_string()),
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // Ours alone, and asked for nothing any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Peak memory of a process that only does these steps.
pub fn memory(python: &str, name: &str, steps: usize) -> Option<u64> {
    let mut peers = Peers::start(python, &[name.to_string()]).ok()?;
    peers.step(name, steps);
    peers.ask("memory").ok()?["peak_bytes"].as_u64()
}
