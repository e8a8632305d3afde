//! Standard output is data, standard error is talk.

use indicatif::{ProgressBar, ProgressStyle};
use smoe_lab::error::{Error, Result};
use smoe_lab::train::log::{Evaluation, Step};
use smoe_lab::train::run::session::Watch;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;

/// Writes to standard output; that its reader went away is no error.
pub fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// `print` of what need not be UTF-8.
pub fn print_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Sets the number of threads.
///
/// # Errors
/// [`Error::Value`] if threads cannot be started.
pub fn threads(count: Option<NonZeroUsize>) -> Result<()> {
    let Some(count) = count else {
        return Ok(());
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(count.get())
        .build_global()
        .map_err(|e| Error::value("--threads", e.to_string()))
}

/// A bar on a terminal.
pub fn bar(template: &str) -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(template).expect("a valid template");
        ProgressBar::new(0).with_style(style)
    })
}

/// A bar on a terminal; elsewhere a line per evaluation.
pub struct Progress {
    bar: Option<ProgressBar>,
    validation: Option<f64>,
}

impl Progress {
    /// Of a run that has done `done` of `steps` steps.
    pub fn new(done: u64, steps: u64) -> Self {
        let bar = bar("{elapsed_precise} [{wide_bar}] {pos}/{len} eta {eta} {msg}");
        if let Some(bar) = &bar {
            bar.set_length(steps);
            bar.set_position(done);
            bar.reset_eta();
        }
        Progress {
            bar,
            validation: None,
        }
    }

    /// Leaves the terminal as it is.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

impl Watch for Progress {
    fn step(&mut self, row: &Step) {
        if let Some(bar) = &self.bar {
            bar.set_position(row.step);
            let validation = self
                .validation
                .map_or(String::new(), |v| format!(" val {v:.4}"));
            bar.set_message(format!(
                "loss {:.4}{validation} {:.0} tokens/s",
                row.loss, row.tokens_per_second
            ));
        }
    }

    fn evaluation(&mut self, row: &Evaluation) {
        self.validation = Some(row.loss);
        let line = format!(
            "step {}: validation {:.4} nats per token, {:.4} bits per byte, {:.0} s of training",
            row.step, row.loss, row.bits_per_byte, row.seconds
        );
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
}
