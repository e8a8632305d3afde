//! What was measured, on the terminal and in docs.

use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Everything.
#[derive(Serialize)]
pub struct Figures {
    pub threads: usize,
    pub rounds: usize,
    pub torch: Option<String>,
    pub peak_operations_per_second: f64,
    pub cells: Vec<Cell>,
}

/// One step of ours, and the same of peers.
#[derive(Serialize)]
pub struct Cell {
    pub part: &'static str,
    pub step: &'static str,
    pub median_seconds: f64,
    /// Of products, over whole steps.
    pub operations_per_second: f64,
    pub peak_bytes: Option<u64>,
    pub peers: Vec<Peer>,
}

/// Their time over ours.
#[derive(Serialize)]
pub struct Peer {
    pub style: &'static str,
    pub chosen: String,
    pub median_ratio: f64,
    pub least_ratio: f64,
    pub largest_ratio: f64,
    pub peak_bytes: Option<u64>,
}

const BEGIN: &str = "<!-- train: written by benches/train -->";
const END: &str = "<!-- train: end -->";

const INTRODUCTION: &str = "## Training steps

`cargo bench --bench train -- --python PATH`; the numbers are in
[performance-train.json](performance-train.json). 8 sequences of 128 tokens, width 128, top-2 of 8
ReLU experts 128 -> 512 -> 128, f32. The layer: router, choice, experts, auxiliary losses, and all gradients.
The block: norm, causal attention of 4 heads, norm and the layer, gradients, AdamW. A competition step is
CompeteSMoE v2's: all experts respond, winners and router learn. Peers are PyTorch as published
(a loop over experts) and the fastest of six ways to write it well (`benches/train/layers.py`). Ratios are
the peer's time over ours, turn by turn: median, and in brackets the least and the largest. Peak memory
is that of a process that does nothing else, the interpreter and PyTorch's libraries included. Peak: matrix
products of 512 by 512 by 512 on all threads, measured in the same run.
";

/// Prints and writes.
pub fn write(figures: &Figures) {
    let section = section(figures);
    println!("{section}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let json = serde_json::to_string_pretty(figures).expect("numbers and names");
    let write = |name: &str, text: String| {
        let path = docs.join(name);
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    };
    write("performance-train.json", json + "\n");
    let old = std::fs::read_to_string(docs.join("performance.md")).unwrap_or_default();
    write("performance.md", replaced(&old, &section));
}

/// The document with the new section in the place of the old one, or at its end.
fn replaced(old: &str, section: &str) -> String {
    let marked = format!("{BEGIN}\n{section}{END}\n");
    match (old.find(BEGIN), old.find(END)) {
        (Some(from), Some(to)) if from < to => {
            let rest = old[to + END.len()..].trim_start_matches('\n');
            format!("{}{marked}{rest}", &old[..from])
        }
        _ => format!("{}\n\n{marked}", old.trim_end()),
    }
}

fn section(figures: &Figures) -> String {
    let mut text = format!("{INTRODUCTION}\n");
    let torch = match &figures.torch {
        Some(version) => format!("PyTorch {version}"),
        None => "PyTorch was not there: ours alone".into(),
    };
    let peak = figures.peak_operations_per_second;
    let (threads, rounds) = (figures.threads, figures.rounds);
    let _ = writeln!(
        text,
        "{threads} threads each, {rounds} rounds, {torch}, peak {:.0} GFLOP/s.\n",
        peak * 1e-9
    );
    text += "| step | ours | share of peak | memory | published / ours | memory | good / ours | memory | which |\n";
    text += &format!("|{}\n", " ---: |".repeat(9));
    for cell in &figures.cells {
        let ratio = |style: &str| {
            let Some(peer) = cell.peers.iter().find(|peer| peer.style == style) else {
                return ["-", "-", "-"].map(String::from);
            };
            let (least, largest) = (peer.least_ratio, peer.largest_ratio);
            let style = peer.chosen.split('-').next().unwrap_or_default();
            [
                format!("{:.2} ({least:.2}-{largest:.2})", peer.median_ratio),
                mebibytes(peer.peak_bytes),
                style.to_string(),
            ]
        };
        let ([official, official_memory, _], [good, good_memory, which]) =
            (ratio("official"), ratio("good"));
        let _ = writeln!(
            text,
            "| {}, {} | {:.1} ms | {:.0} % | {} | {official} | {official_memory} | {good} | {good_memory} | {which} |",
            cell.part,
            cell.step,
            1e3 * cell.median_seconds,
            100.0 * cell.operations_per_second / peak,
            mebibytes(cell.peak_bytes),
        );
    }
    text
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".into(), |bytes| {
        format!("{:.0} MiB", bytes as f64 / 1_048_576.0)
    })
}
