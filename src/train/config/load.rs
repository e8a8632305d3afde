//! A run file with the user's overrides.

use crate::error::{Error, Result, parse_toml, read_text};
use crate::train::config::Run;
use std::path::Path;

/// Reads, overrides and checks a run file. Each override is `table.key=value`, the
/// value in TOML; bare words count as text.
///
/// # Errors
/// [`Error::File`], [`Error::Input`] with line and key.
pub fn read(path: &Path, overrides: &[String]) -> Result<Run> {
    let text = with_overrides(path, &read_text(path)?, overrides)?;
    let run: Run = parse_toml(path, &text)?;
    run.check().map_err(|e| e.located(path, &text))?;
    Ok(run)
}

/// The text of a run file with overrides; without any, the text itself, so that
/// messages name the user's own lines.
///
/// # Errors
/// [`Error::Input`] if the text is not TOML; [`Error::Value`] if an override is not
/// `table.key=value`.
pub fn with_overrides(path: &Path, text: &str, overrides: &[String]) -> Result<String> {
    if overrides.is_empty() {
        return Ok(text.to_string());
    }
    let mut table: toml::Table = parse_toml(path, text)?;
    for setting in overrides {
        let wrong = |message: &str| Error::value(format!("--set {setting}"), message);
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| wrong("must be table.key=value"))?;
        let mut keys: Vec<&str> = key.trim().split('.').collect();
        let last = keys.pop().filter(|last| !last.is_empty());
        let last = last.ok_or_else(|| wrong("must be table.key=value"))?;
        let mut place = &mut table;
        for key in keys {
            let inner = place
                .entry(key)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            place = inner
                .as_table_mut()
                .ok_or_else(|| wrong(&format!("`{key}` is not a table")))?;
        }
        place.insert(last.to_string(), value_of(value.trim()));
    }
    toml::to_string(&table).map_err(|e| Error::input(path, "", e.to_string()))
}

/// A TOML value; what is none counts as text.
fn value_of(text: &str) -> toml::Value {
    let line = format!("value = {text}");
    let parsed: Option<toml::Table> = toml::from_str(&line).ok();
    parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()))
}
