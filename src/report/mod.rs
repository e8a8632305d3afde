//! Rows to what people look at: text, CSV, figures and one page. Pure functions
//! of plan, rows and summary; nothing here fits or draws random numbers.
//!
//! | file | content |
//! |---|---|
//! | `summary.csv` | one line per series, n and measure |
//! | `claims.csv` | one line per claim and series |
//! | `rates.svg`, `rates.png` | mean losses against n with the claimed curves |
//! | `constants.svg`, `constants.png` | ratios to their limits against n |
//! | `environment.toml` | where and when the rows were computed |
//! | `index.html` | all of it on one page |

mod csv;
mod environment;
mod figures;
mod format;
mod index;
mod inverse;
mod page;
mod starts;
mod table;
#[cfg(test)]
mod tests;
mod wording;

pub use csv::{claims_csv, summary_csv};
pub use environment::{Environment, peak_memory, processor};
pub use index::{IndexEntry, has_index, index_is_stale, write_index};
pub use inverse::{inverse_claims_csv, inverse_is_stale, inverse_table, write_inverse};
pub use inverse::{top_k_is_stale, top_k_table, write_top_k};
pub use table::{claims_table, text_table};

use crate::error::{Error, Result, replace};
use crate::plot::Chart;
use crate::sim::{Plan, Row, Summary};
use std::path::Path;

/// Writes the whole report into `folder`, the page last. Each file is replaced
/// at once: a failure leaves whole files, old or new.
///
/// # Errors
/// [`Error::File`].
pub fn write(
    folder: &Path,
    plan: &Plan,
    rows: &[Row],
    summary: &Summary,
    environment: &Environment,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
    let rates = figures::rate_charts(plan, summary);
    let constants = figures::constant_charts(plan, summary);
    let page = page::page(plan, rows, summary, environment, &rates, &constants);
    replace(&folder.join("summary.csv"), summary_csv(plan, summary))?;
    replace(&folder.join("claims.csv"), claims_csv(plan, summary))?;
    replace(&folder.join(environment::FILE), &environment.to_toml()?)?;
    write_figure(folder, "rates", rates)?;
    write_figure(folder, "constants", constants)?;
    replace(&folder.join("index.html"), &page)
}

/// Why the stored `summary.csv` or `claims.csv` is not what the rows give now;
/// `None` if both are.
pub fn is_stale(folder: &Path, plan: &Plan, summary: &Summary) -> Option<String> {
    let files = [
        ("summary.csv", summary_csv(plan, summary)),
        ("claims.csv", claims_csv(plan, summary)),
    ];
    files
        .into_iter()
        .find_map(|(name, now)| stale_file(folder, name, &now))
}

/// Why one stored file is not the text it should be; `None` if it is.
fn stale_file(folder: &Path, name: &str, now: &str) -> Option<String> {
    match std::fs::read_to_string(folder.join(name)) {
        Err(e) => Some(format!("{name} cannot be read: {e}")),
        Ok(stored) => difference(&stored, now).map(|d| format!("{name}, {d}")),
    }
}

/// The first line in which two texts differ.
fn difference(stored: &str, now: &str) -> Option<String> {
    if stored == now {
        return None;
    }
    let (mut old, mut new) = (stored.lines(), now.lines());
    for line in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let text = |line: Option<&str>| line.unwrap_or("nothing").to_string();
                return Some(format!(
                    "line {line}: stored `{}`, the rows give `{}`",
                    text(a),
                    text(b)
                ));
            }
        }
    }
    Some("the line ends differ".to_string())
}

fn write_figure(folder: &Path, name: &str, charts: Vec<Chart>) -> Result<()> {
    if charts.is_empty() {
        return Ok(());
    }
    let figure = figures::joined(charts);
    figure.write_svg(&folder.join(format!("{name}.svg")))?;
    figure.write_png(&folder.join(format!("{name}.png")))
}
