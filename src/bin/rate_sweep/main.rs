//! `rate_sweep`: runs, reports and checks Monte-Carlo studies of convergence
//! rates. Exit code 0: claims hold; 1: a claim fails or a report is stale; 2:
//! bad input.

mod arguments;
mod inverse;
mod judged;
mod models;
mod output;
mod shard;
mod studies;

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
            eprintln!("rate_sweep: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; false if a claim failed.
fn dispatch(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        None => studies::headline(arguments.on),
        Some(Command::Plan { study }) => studies::plan(&study),
        Some(Command::Run(run)) => studies::run(&run),
        Some(Command::Replay { study, name, out }) => studies::replay(&study, &name, &out),
        Some(Command::Report {
            study,
            out,
            accuracy,
        }) => studies::report(&study, &out, accuracy),
        Some(Command::Inverse {
            study,
            jobs,
            smoke,
            out,
        }) => inverse::run(
            &study,
            jobs.map(usize::from),
            &out,
            inverse::Size::of(smoke),
        ),
        Some(Command::Check { studies }) => judged::check(&studies),
        Some(Command::Index { studies }) => judged::index(&studies),
        Some(Command::Distance {
            first,
            second,
            json,
        }) => models::distance(&first, &second, json),
        Some(Command::Density {
            model,
            points,
            json,
        }) => models::density(&model, &points, json),
        Some(Command::Sample { model, rows, seed }) => models::sample(&model, rows, seed),
    }
}
