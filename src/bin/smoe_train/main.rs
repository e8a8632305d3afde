//! `smoe_train`: trains sparse-mixture transformers. Exit code 0: done, or stopped on
//! request; 1: the run diverged; 2: bad input.

mod arguments;
mod describe;
mod model;
mod output;
mod text;
mod training;

use arguments::{Arguments, Command};
use clap::Parser;
use smoe_lab::error::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
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
    output::threads(arguments.threads)?;
    match arguments.command {
        Command::Run(run) => training::run(&run),
        Command::Data(data) => text::prepare(&data),
        Command::Evaluate(evaluate) => model::evaluate(&evaluate),
        Command::Page { run } => model::page(&run),
        Command::Compare { runs, out } => model::compare(&runs, &out),
    }
}
