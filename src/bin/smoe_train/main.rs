//! `smoe_train`: trains sparse-mixture transformers. Exit code 0: done, or stopped on
//! request; 1: the run diverged; 2: bad input.

mod arguments;
mod describe;
mod model;
mod output;
mod profile;
mod text;
mod training;
mod write;

use arguments::{Arguments, Command};
use clap::Parser;
use smoe_lab::error::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = output::threads(arguments.threads).and_then(|()| {
        // On a thread of the pool: one outside would sleep and wake at every operation.
        rayon::scope(|_| dispatch(arguments))
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("smoe_train: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; false if a run diverged.
fn dispatch(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        Command::Run(run) => training::run(&run),
        Command::Data(data) => text::prepare(&data),
        Command::Evaluate(evaluate) => model::evaluate(&evaluate),
        Command::Export(export) => write::export(&export),
        Command::Generate(generate) => write::continuation(&generate),
        Command::Page { run } => model::page(&run),
        Command::Compare { runs, out } => model::compare(&runs, &out),
    }
}
