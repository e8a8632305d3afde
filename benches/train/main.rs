//! Training steps of one sparse layer and of one whole block beside PyTorch's, in turn,
//! on two threads each.
//!
//! ```text
//! cargo bench --bench train -- [--python PATH] [--rounds N]
//! ```
//!
//! Peers are those of `peers.py`: the published style, and the fastest of what PyTorch
//! offers. Ratios are of medians of turns that follow each other; peak memory is that of
//! a process that does nothing else. Without PyTorch ours is measured alone. Writes
//! docs/performance-train.json and its section of docs/performance.md.

mod memory;
mod ours;
mod peers;
mod report;

use ours::{Decision, Ours, Part};
use peers::Peers;
use report::{Cell, Figures, Peer};
use smoe_lab::error::Result;
use smoe_lab::report::peak_memory;
use smoe_lab::train::device::profiled::peak_of_products;
use std::time::Instant;

/// Threads of both sides.
const THREADS: usize = 2;
/// Steps of a turn, after one that is not counted.
const TURN: usize = 5;
/// Steps of a process whose memory is measured.
const MEMORY_STEPS: usize = 10;
const STYLES: [&str; 2] = ["official", "good"];

struct Options {
    python: String,
    rounds: usize,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let place = arguments.iter().position(|a| a == name)?;
        arguments.get(place + 1).cloned()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS);
    pool.build_global().expect("the first pool");
    if let Some(name) = after("--memory") {
        return memory_of_ours(&name);
    }
    let options = Options {
        python: after("--python").unwrap_or_else(|| "python3".into()),
        rounds: after("--rounds").and_then(|n| n.parse().ok()).unwrap_or(15),
    };
    report::write(&measure(&options)?);
    Ok(())
}

/// All four steps.
fn cells() -> impl Iterator<Item = (Part, Decision)> {
    let decisions = [Decision::Routed, Decision::Competition];
    let with = move |part| decisions.map(move |decision| (part, decision));
    [Part::Layer, Part::Block].into_iter().flat_map(with)
}

fn name(part: Part, decision: Decision) -> String {
    format!("{}-{}", part.name(), decision.name())
}

fn measure(options: &Options) -> Result<Figures> {
    let names = cells().flat_map(|(part, decision)| {
        STYLES.map(|style| format!("{style}-{}", name(part, decision)))
    });
    let mut peers = match Peers::start(&options.python, &names.collect::<Vec<_>>()) {
        Ok(peers) => Some(peers),
        Err(reason) => {
            eprintln!("PyTorch is not measured: {reason}");
            None
        }
    };
    let mut measured = Vec::new();
    for (part, decision) in cells() {
        eprintln!("{}", name(part, decision));
        measured.push(cell(part, decision, options, peers.as_mut())?);
    }
    Ok(Figures {
        threads: THREADS,
        rounds: options.rounds,
        torch: peers.as_ref().map(|peers| peers.version().to_string()),
        peak_operations_per_second: peak_of_products(),
        cells: measured,
    })
}

fn cell(
    part: Part,
    decision: Decision,
    options: &Options,
    mut peers: Option<&mut Peers>,
) -> Result<Cell> {
    let mut ours = Ours::new(part, decision)?;
    turn(&mut ours, 3)?;
    let name = name(part, decision);
    let (mut own, mut ratios) = (Vec::new(), [Vec::new(), Vec::new()]);
    let (mut seconds, mut operations) = (0.0, 0.0);
    for round in 0..options.rounds {
        let mut times = [0.0; 3];
        // Who begins changes from round to round.
        for place in 0..3 {
            match (place + round) % 3 {
                0 => {
                    ours.device().restart();
                    let turn = turn(&mut ours, TURN + 1)?;
                    let profile = ours.device().profile(TURN + 1, THREADS);
                    seconds += profile.seconds;
                    operations += profile.products.operations;
                    times[0] = median(turn[1..].to_vec());
                }
                peer => {
                    if let Some(peers) = peers.as_deref_mut() {
                        let name = format!("{}-{name}", STYLES[peer - 1]);
                        times[peer] = median(peers.step(&name, TURN + 1)[1..].to_vec());
                    }
                }
            }
        }
        own.push(times[0]);
        for (ratios, time) in ratios.iter_mut().zip(&times[1..]) {
            ratios.push(time / times[0]);
        }
    }
    let peer = |index: usize, ratios: Vec<f64>, peers: &Peers| {
        let asked = format!("{}-{name}", STYLES[index]);
        let chosen = peers.chosen(&asked).to_string();
        Peer {
            style: STYLES[index],
            peak_bytes: peers::memory(&options.python, &chosen, MEMORY_STEPS),
            chosen,
            median_ratio: median(ratios.clone()),
            least_ratio: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            largest_ratio: ratios.iter().copied().fold(0.0, f64::max),
        }
    };
    let [official, good] = ratios;
    let peers = peers.map(|p| vec![peer(0, official, p), peer(1, good, p)]);
    Ok(Cell {
        part: part.name(),
        step: decision.name(),
        median_seconds: median(own),
        operations_per_second: operations / seconds,
        peak_bytes: memory::of_this_program(&name),
        peers: peers.unwrap_or_default(),
    })
}

/// The seconds of each of some steps of ours, taken by a thread of the pool as in
/// `smoe_train`.
fn turn(ours: &mut Ours, steps: usize) -> Result<Vec<f64>> {
    let mut timed = || {
        let start = Instant::now();
        ours.step()?;
        Ok(start.elapsed().as_secs_f64())
    };
    rayon::scope(|_| (0..steps).map(|_| timed()).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The whole of a process that only does these steps; prints its peak.
fn memory_of_ours(wanted: &str) -> Result<()> {
    for (part, decision) in cells().filter(|&(p, d)| name(p, d) == wanted) {
        turn(&mut Ours::new(part, decision)?, MEMORY_STEPS)?;
    }
    if let Some(peak) = peak_memory() {
        println!("{peak}");
    }
    Ok(())
}
