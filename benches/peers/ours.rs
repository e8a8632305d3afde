//! This crate's side of the measurements in `docs/performance.md`; how to run
//! them: `benches/peers/README.md`. Every command prints JSON, one value a line.

#[path = "../../tests/common/mod.rs"]
mod common;
mod estimator;
mod fit;
mod limits;
mod measure;
mod roofline;
mod scaling;
mod streaming;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "peers")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Cargo gives this to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// CPU seconds of fits to a file with columns x1 .. xd, y and z0.
    Fit {
        file: PathBuf,
        /// K
        experts: usize,
        /// Make so many fits and end; without it, every line of standard input
        /// asks for a number of fits.
        #[arg(long)]
        repeats: Option<usize>,
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// The machine's limits and how near to them one gradient pass comes.
    Roofline {
        /// Fewer rounds.
        #[arg(long)]
        quick: bool,
    },
    /// Time of a pass and of a fit as n grows; bits on one and two threads.
    Scaling {
        /// Up to a tenth of the rows, one measurement of each.
        #[arg(long)]
        quick: bool,
    },
    /// Memory of a large fit; run it in a process of its own.
    Streaming {
        /// Tenth of the rows.
        #[arg(long)]
        quick: bool,
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

fn main() {
    let arguments = Arguments::parse();
    match arguments.command {
        None => println!("nothing to do: `cargo bench --bench peers -- --help` lists commands"),
        Some(Command::Fit {
            file,
            experts,
            repeats,
            threads,
        }) => fit::run(&file, experts, repeats, threads),
        Some(Command::Roofline { quick }) => roofline::run(quick),
        Some(Command::Scaling { quick }) => scaling::run(quick),
        Some(Command::Streaming { quick, threads }) => streaming::run(quick, threads),
    }
}
