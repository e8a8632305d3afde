//! Where and when rows were computed.

use crate::error::{Error, Result, parse_toml, read_text};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file's name in a report's folder.
pub(super) const FILE: &str = "environment.toml";

/// The circumstances of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Version of this crate.
    pub version: String,
    /// The compiler, if `RUSTC_VERSION` was set when this crate was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rustc: Option<String>,
    /// Operating system and architecture.
    pub os: String,
    /// The processor's name, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Cores available.
    pub cores: usize,
    /// Threads used.
    pub threads: usize,
    /// The device that ran the fits, if it was not the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// When the run started: date and time, UTC.
    pub started: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The design hash of the study.
    pub study: String,
}

impl Environment {
    /// The environment of a run of the study with design hash `study` that
    /// used `threads` threads, began at `started` and ends now.
    pub fn capture(study: &str, threads: usize, started: SystemTime) -> Self {
        let elapsed = started.elapsed().unwrap_or_default().as_secs_f64();
        Environment {
            version: env!("CARGO_PKG_VERSION").to_string(),
            rustc: option_env!("RUSTC_VERSION").map(String::from),
            os: operating_system(),
            cpu: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads,
            device: None,
            started: utc(started),
            seconds: (elapsed * 10.0).round() / 10.0,
            study: study.to_string(),
        }
    }

    /// The same with fits on `device`.
    pub fn on_device(self, device: String) -> Self {
        Environment {
            device: Some(device),
            ..self
        }
    }

    /// The environment stored in `folder` if it belongs to this study, so that
    /// a report rebuilt elsewhere still says where its rows come from;
    /// otherwise as [`Environment::capture`].
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Input`] if the stored file cannot be read.
    pub fn read_or_capture(
        folder: &Path,
        study: &str,
        threads: usize,
        started: SystemTime,
    ) -> Result<Self> {
        let stored = Environment::read(folder, study)?;
        Ok(stored.unwrap_or_else(|| Environment::capture(study, threads, started)))
    }

    /// The environment stored in `folder`, if there is one of this study.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Input`] if the stored file cannot be read.
    pub fn read(folder: &Path, study: &str) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let stored: Environment = parse_toml(&path, &read_text(&path)?)?;
        Ok((stored.study == study).then_some(stored))
    }

    /// The text of `environment.toml`.
    ///
    /// # Errors
    /// [`Error::Value`] if a field has no form in TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::value("environment", e.to_string()))
    }
}

fn operating_system() -> String {
    let kind = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    match field(&release, "PRETTY_NAME", '=') {
        Some(name) => format!("{kind}, {}", name.trim_matches('"')),
        None => kind,
    }
}

/// The processor's name, where the system tells.
pub fn processor() -> Option<String> {
    let description = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&description, "model name", ':').map(String::from)
}

/// The most memory that this process has had resident, in bytes; only Linux tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = field(&status, "VmHWM", ':')?.split_whitespace().next()?;
    Some(1024 * kibibytes.parse::<u64>().ok()?)
}

/// The value of the first line `name<separator>value`.
fn field<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// Date and time as "2026-01-31 12:34:56 UTC".
fn utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (year, month, day) = civil_date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian
/// calendar: eras of 400 years, years that begin in March (Hinnant,
/// "chrono-compatible low-level date algorithms").
fn civil_date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (year + 400 * era + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right_across_leap_years_and_centuries() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(at(1_735_689_600), "2025-01-01 00:00:00 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn a_stored_environment_is_kept_for_the_same_study_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = Environment::capture("aaa", 2, UNIX_EPOCH);
        std::fs::write(folder.path().join(FILE), first.to_toml().unwrap()).unwrap();
        let now = SystemTime::now();
        let again = |study| Environment::read_or_capture(folder.path(), study, 7, now).unwrap();
        assert_eq!(again("aaa"), first);
        assert_eq!(again("bbb").threads, 7);
    }
}
