//! Machine code of the GPU kernels, against recorded bounds:
//! `cargo bench --profile dev --bench kernels`, with `-- --record` to record new bounds.
//!
//! NVRTC compiles every kernel file as the engine does, for several structures and
//! GPUs; `ptxas -v` then says how many registers a kernel takes and how much it spills
//! to memory. That needs no GPU: `benches/kernels/toolchain.sh` installs both.

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{dense, mixture};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde_json::{Map, Value, json};
use smoe_lab::backend::cuda::{Compilation, ListedProgram, Precision, programs};
use smoe_lab::model::{
    ExpertKind, Gate, GateKind, Parameters, Response, Selection, VarianceStructure, Weights,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Compute capabilities: A100, H100, the consumer GPUs of 2025.
const CAPABILITIES: [u32; 3] = [80, 90, 120];
/// Registers by which a kernel may exceed its bound.
const TOLERANCE: u64 = 4;
/// Set in the process that finds the tool chain's libraries.
const INSIDE: &str = "SMOE_LAB_KERNEL_BENCH";

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        return with_toolchain();
    }
    let record = std::env::args().any(|argument| argument == "--record");
    match check(record) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("kernels: FAILED");
            ExitCode::from(1)
        }
        Err(message) => {
            println!("kernels: FAILED: {message}");
            println!("kernels: benches/kernels/toolchain.sh installs NVRTC and ptxas");
            ExitCode::from(1)
        }
    }
}

/// Where the wheels of `toolchain.sh` are.
fn wheels() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cuda-toolchain/lib");
    let pythons = std::fs::read_dir(lib).ok()?.flatten();
    pythons
        .map(|python| python.path().join("site-packages/nvidia/cu13"))
        .find(|folder| folder.join("bin/ptxas").is_file())
}

/// Runs this program again, with the tool chain before everything else: the loader
/// reads where to look for libraries only when a program starts.
fn with_toolchain() -> ExitCode {
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    if let Some(wheels) = wheels() {
        let before = |name: &str, folder: PathBuf| {
            let others = std::env::var_os(name).unwrap_or_default();
            let folders = std::iter::once(folder).chain(std::env::split_paths(&others));
            std::env::join_paths(folders).expect("no separators in folders")
        };
        command.env(
            "LD_LIBRARY_PATH",
            before("LD_LIBRARY_PATH", wheels.join("lib")),
        );
        command.env("PATH", before("PATH", wheels.join("bin")));
    }
    let status = command.status().expect("this program starts again");
    ExitCode::from(status.code().map_or(1, |code| code as u8))
}

/// A mixture and how programs are compiled for it.
struct Case {
    name: &'static str,
    parameters: Parameters,
    compilation: Compilation,
}

fn cases() -> Vec<Case> {
    let competition = |response| GateKind::Competition {
        response,
        weights: Weights::Softmax,
        kappa: 1.0,
    };
    let two_of = |kind| Gate {
        kind,
        top_k: Some(2),
        selection: Selection::Score,
    };
    let noise = [0.7, -0.4, 1.1, -0.9, 0.3, -1.2, 0.5, 0.8, -0.6];
    let case = |name, gate, experts, inputs, compilation| Case {
        name,
        parameters: mixture(
            gate,
            ExpertKind::Linear,
            experts,
            inputs,
            VarianceStructure::PerExpert,
            &noise,
        ),
        compilation,
    };
    let softplus = dense(competition(Response::Softplus));
    let absolute = two_of(competition(Response::Absolute));
    let own = Compilation::Specialised;
    vec![
        case("K=2 d=1 softplus", softplus, 2, 1, own),
        case("K=3 d=2 softmax", dense(GateKind::Softmax), 3, 2, own),
        case("K=4 d=4 top-2 absolute", absolute, 4, 4, own),
        case("K=8 d=8 sigmoid", dense(GateKind::Sigmoid), 8, 8, own),
        case("generic", softplus, 2, 1, Compilation::Generic),
    ]
}

/// What a kernel takes of a GPU; memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    /// Per thread.
    registers: u64,
    /// Stores and loads of spilled registers, per thread.
    spills: u64,
    /// Local memory per thread, spills included.
    stack: u64,
    /// Static shared memory per block.
    shared: u64,
}

impl Usage {
    fn to_json(self) -> Value {
        json!({
            "registers": self.registers,
            "spills": self.spills,
            "stack": self.stack,
            "shared": self.shared,
        })
    }
}

/// Compiles everything, prints what it takes, and compares with the bounds or records
/// them. False if a kernel takes more than its bound.
fn check(record: bool) -> Result<bool, String> {
    let version = ptxas_version()?;
    println!("{version}");
    let jobs = jobs();
    let measured: Result<Vec<_>, String> = jobs
        .par_iter()
        .map(|job| Ok((job, job.usage(&version)?)))
        .collect();
    let mut rows: BTreeMap<String, BTreeMap<u32, Usage>> = BTreeMap::new();
    for (job, usage) in measured? {
        for kernel in job.program.kernels() {
            let name = format!("{kernel}, {}", job.name);
            let usage = usage
                .get(*kernel)
                .ok_or_else(|| format!("{name}: ptxas says nothing of this kernel"))?;
            rows.entry(name).or_default().insert(job.capability, *usage);
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/kernels/bounds.json");
    if record {
        std::fs::write(&file, recorded(&version, &rows))
            .map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let bounds: Value =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    if bounds["ptxas"] != version.as_str() {
        println!("note: bounds were recorded with {}", bounds["ptxas"]);
    }
    Ok(compare(&rows, &bounds["kernels"]))
}

/// The file of bounds, a kernel per line.
fn recorded(version: &str, rows: &BTreeMap<String, BTreeMap<u32, Usage>>) -> String {
    let line = |(name, by_capability): (&String, &BTreeMap<u32, Usage>)| {
        let by_capability = by_capability
            .iter()
            .map(|(capability, usage)| (format!("sm_{capability}"), usage.to_json()));
        let value = Value::Object(by_capability.collect());
        format!("    {}: {value}", json!(name))
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    let version = json!(version);
    let lines = lines.join(",\n");
    format!("{{\n  \"ptxas\": {version},\n  \"kernels\": {{\n{lines}\n  }}\n}}\n")
}

/// Prints all rows with a verdict each; true if all bounds hold.
fn compare(rows: &BTreeMap<String, BTreeMap<u32, Usage>>, bounds: &Value) -> bool {
    let mut holds = true;
    println!("registers, bytes spilled / bytes of stack, by compute capability");
    let width = rows.keys().map(String::len).max().unwrap_or(0);
    for (name, by_capability) in rows {
        let mut line = format!("{name:width$}");
        let mut faults = Vec::new();
        for (capability, usage) in by_capability {
            line += &format!(
                "  sm_{capability}: {:3} {:5} /{:6}",
                usage.registers, usage.spills, usage.stack
            );
            faults.extend(fault(usage, &bounds[name][format!("sm_{capability}")]));
        }
        holds &= faults.is_empty();
        if !faults.is_empty() {
            line += &format!("  FAILED: {}", faults.join(", "));
        }
        println!("{line}");
    }
    for name in bounds.as_object().into_iter().flat_map(Map::keys) {
        if !rows.contains_key(name) {
            println!("{name}: FAILED: a bound without a kernel, record anew");
            holds = false;
        }
    }
    holds
}

/// How a kernel breaks its bound, if it does.
fn fault(usage: &Usage, bound: &Value) -> Option<String> {
    let (Some(registers), Some(spills)) = (bound["registers"].as_u64(), bound["spills"].as_u64())
    else {
        return Some("no bound, record it".to_string());
    };
    if usage.registers > registers + TOLERANCE {
        let given = usage.registers;
        return Some(format!(
            "{given} registers, bound {registers} + {TOLERANCE}"
        ));
    }
    (usage.spills > spills).then(|| format!("{} bytes spilled, bound {spills}", usage.spills))
}

/// A program for one GPU.
struct Job {
    name: String,
    program: ListedProgram,
    capability: u32,
}

/// All programs that differ, each under the name of the case that it is for.
fn jobs() -> Vec<Job> {
    let cases = cases();
    let mut listed: Vec<(Vec<String>, ListedProgram)> = Vec::new();
    for case in &cases {
        for (precision, suffix) in [(Precision::Double, "f64"), (Precision::Single, "f32")] {
            for program in programs(&case.parameters, case.compilation, precision) {
                let name = format!("{} {suffix}", case.name);
                let known = listed
                    .iter_mut()
                    .find(|(_, other)| other.source() == program.source());
                match known {
                    Some((names, _)) => names.push(name),
                    None => listed.push((vec![name], program)),
                }
            }
        }
    }
    let mut jobs = Vec::new();
    for (names, program) in listed {
        let for_all = names.len() == 2 * cases.len();
        let name = if for_all { "any mixture" } else { &names[0] };
        for capability in CAPABILITIES {
            jobs.push(Job {
                name: name.to_string(),
                program: program.clone(),
                capability,
            });
        }
    }
    jobs
}

impl Job {
    /// What each kernel takes.
    fn usage(&self, version: &str) -> Result<BTreeMap<String, Usage>, String> {
        // Reports are kept: most programs are the same the next time.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels");
        let key = self
            .program
            .key(&format!("{version} sm_{}", self.capability));
        let file = folder.join(format!("{key}.txt"));
        if let Ok(report) = std::fs::read_to_string(&file) {
            return Ok(parse(&report));
        }
        let name = format!("{} for {}", self.program.name(), self.name);
        let report = self.report().map_err(|e| format!("{name}: {e}"))?;
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        std::fs::write(&file, &report).map_err(|e| e.to_string())?;
        Ok(parse(&report))
    }

    /// What `ptxas -v` says.
    fn report(&self) -> Result<String, String> {
        let ptx = self
            .program
            .ptx(self.capability)
            .map_err(|e| e.to_string())?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let file = folder.path().join("program.ptx");
        std::fs::write(&file, ptx).map_err(|e| e.to_string())?;
        let output = Command::new("ptxas")
            .arg("-v")
            .arg(format!("-arch=sm_{}", self.capability))
            .arg("-o")
            .arg(folder.path().join("program.cubin"))
            .arg(&file)
            .output()
            .map_err(|e| format!("ptxas does not start: {e}"))?;
        // The report is written where errors are.
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(report),
            false => Err(format!("ptxas: {report}")),
        }
    }
}

fn ptxas_version() -> Result<String, String> {
    let output = Command::new("ptxas").arg("--version").output();
    let output = output.map_err(|_| "ptxas is not found".to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("release"));
    let line = line.ok_or("ptxas does not say its version")?;
    Ok(line.trim().to_string())
}

/// The kernels of a report of `ptxas -v`.
///
/// Properties of a function follow its name, registers of a kernel follow those.
fn parse(report: &str) -> BTreeMap<String, Usage> {
    let mut kernels: BTreeMap<String, Usage> = BTreeMap::new();
    let mut compiling = String::new();
    let mut described = String::new();
    for line in report.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            compiling = rest.split('\'').next().unwrap_or_default().to_string();
        } else if let Some(rest) = line.split("Function properties for ").nth(1) {
            described = rest.trim().to_string();
        } else if line.contains("bytes stack frame") {
            let usage = kernels.entry(described.clone()).or_default();
            usage.stack = before(line, " bytes stack frame");
            usage.spills = before(line, " bytes spill stores") + before(line, " bytes spill loads");
        } else if line.contains("Used ") && line.contains(" registers") {
            let usage = kernels.entry(compiling.clone()).or_default();
            usage.registers = before(line, " registers");
            usage.shared = before(line, " bytes smem");
        }
    }
    kernels
}

/// The number that stands before a text; 0 where the text is not.
fn before(line: &str, text: &str) -> u64 {
    let head = line.find(text).map_or("", |at| &line[..at]);
    let digits = head.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
