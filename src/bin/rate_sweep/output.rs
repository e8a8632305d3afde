//! Standard output is data, standard error is talk.

use indicatif::{ProgressBar, ProgressStyle};
use smoe_lab::sim::Row;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};

/// Writes to standard output; false if its reader went away, which is no error.
pub fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

/// A number with 17 significant digits, as JSON; `null` if it is not finite.
pub fn json_number(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.16e}")
    } else {
        "null".to_string()
    }
}

/// A bar with remaining time on a terminal, one line per finished cell elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    left: HashMap<String, u64>,
    failures: u64,
}

impl Progress {
    /// `left`: rows that each cell still needs.
    pub fn new(left: HashMap<String, u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{elapsed_precise} [{wide_bar}] {percent}% eta {eta} {msg}",
            )
            .expect("a valid template");
            ProgressBar::new(0).with_style(style)
        });
        Progress {
            bar,
            left,
            failures: 0,
        }
    }

    /// Takes note of one row.
    pub fn row(&mut self, done: u64, total: u64, row: &Row) {
        self.failures += u64::from(!row.converged);
        let left = self.left.entry(row.cell.clone()).or_insert(1);
        *left = left.saturating_sub(1);
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(format!("{} failed", self.failures));
            }
            None if *left == 0 => {
                let percent = 100 * done / total.max(1);
                eprintln!(
                    "{percent:3} %  {} done, {} failed so far",
                    row.cell, self.failures
                );
            }
            None => {}
        }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
