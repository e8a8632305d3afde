//! `smoe_fit`: mixtures of experts for people with data. Exit code 0: fitted; 1: no start
//! ended at a certified optimum; 2: bad input.

mod arguments;
mod request;

use arguments::Arguments;
use clap::Parser;
use indicatif::ProgressBar;
use smoe_lab::analysis::report::{self, Analysis};
use smoe_lab::analysis::{Table, analyse, predictions, write_predictions};
use smoe_lab::backend::cuda::{self, Opened};
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::error::{Error, Result};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("smoe_fit: {error}");
            ExitCode::from(2)
        }
    }
}

/// Fits and reports; false if there is no fit.
fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(threads) = arguments.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        let built = pool.build_global();
        built.map_err(|e| Error::value("--threads", e.to_string()))?;
    }
    let request = request::of(arguments)?;
    let table = Table::read(&arguments.table)?;
    // Read before anything is fitted: a wrong name is told at once.
    let new = arguments.predict.as_deref().map(Table::read).transpose()?;
    let bar = ProgressBar::new_spinner();
    if std::io::stderr().is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(100));
    } else {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let step = |what: &str| bar.set_message(what.to_string());
    let analysis = match cuda::open(arguments.device)? {
        Opened::Gpu(cuda) => {
            let analysis = analyse(&cuda, &table, &request, &step);
            match cuda.failure() {
                Some(error) => return Err(error),
                None => analysis?,
            }
        }
        Opened::Processor(reason) => {
            if let Some(reason) = reason {
                eprintln!("smoe_fit: fits run on the processor; {reason}");
            }
            analyse(&Cpu::new() as &dyn Backend, &table, &request, &step)?
        }
    };
    bar.finish_and_clear();
    if let Some(folder) = &arguments.out {
        write(folder, &analysis, new.as_ref(), &arguments.quantiles)?;
    }
    let text = match arguments.json {
        true => report::json(&analysis),
        false => report::terminal(&analysis),
    };
    let mut out = std::io::stdout().lock();
    // That the reader went away is no error.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(analysis.model().best().is_some())
}

/// The folder of a report, with residuals and predictions.
fn write(folder: &Path, analysis: &Analysis, new: Option<&Table>, levels: &[f64]) -> Result<()> {
    let mut tables = Vec::new();
    if let Some(residuals) = &analysis.residuals {
        let means = analysis.means();
        let mut text = "row,mean,residual\n".to_string();
        let rows = analysis.design.rows.iter().zip(means);
        for ((row, mean), residual) in rows.zip(&residuals.values) {
            text += &format!("{},{mean:?},{residual:?}\n", row + 1);
        }
        tables.push(("residuals.csv", text));
    }
    if let Some(new) = new {
        let path = folder.join("predictions.csv");
        let (rows, predicted, warnings) = predictions(analysis, new, levels)?;
        for warning in warnings {
            eprintln!("smoe_fit: {}: {warning}", new.path().display());
        }
        let rows: Vec<usize> = rows.into_iter().map(|row| row + 1).collect();
        let mut text = Vec::new();
        write_predictions(&mut text, &path, &rows, levels, &predicted)?;
        let text = String::from_utf8(text).expect("numbers are UTF-8");
        tables.push(("predictions.csv", text));
    }
    let tables: Vec<(&str, &str)> = tables.iter().map(|(name, t)| (*name, t.as_str())).collect();
    report::write(folder, analysis, &tables)
}
