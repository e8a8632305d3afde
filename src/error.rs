//! Errors: misuse and input/output only. How a fit ended is data, not an error
//! (see [`crate::fit::Stop`]).

use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can do wrong, or a disk can refuse. Each prints as one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The operating system's reason.
        reason: String,
    },
    /// A file's content is not what its format demands.
    #[error("{}{}: {}{message}", path.display(), line_suffix(*line), key_prefix(key))]
    Input {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where known.
        line: Option<usize>,
        /// The key or column at fault; empty where there is none.
        key: String,
        /// What was expected.
        message: String,
    },
    /// A value passed to the library is outside its domain.
    #[error("{key}: {message}")]
    Value {
        /// The argument or field.
        key: String,
        /// What was expected.
        message: String,
    },
    /// A GPU, its driver or its compiler cannot do what was asked.
    #[error("device {device}: {message}")]
    Device {
        /// As the user named it, such as `cuda:0`.
        device: String,
        /// What is missing or went wrong, and what helps.
        message: String,
    },
    /// A device has too little memory.
    #[error("out of device memory: {needed} bytes are needed, {free} are free")]
    OutOfMemory {
        /// Bytes asked for.
        needed: usize,
        /// Bytes that were free.
        free: usize,
    },
    /// Two sizes that must agree do not.
    #[error("{what}: expected dimension {expected}, got {got}")]
    Dimension {
        /// What has the wrong size.
        what: &'static str,
        /// The size it must have.
        expected: usize,
        /// The size it has.
        got: usize,
    },
}

fn line_suffix(line: Option<usize>) -> String {
    line.map_or(String::new(), |line| format!(":{line}"))
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("key `{key}`: ")
    }
}

impl Error {
    /// A [`Error::Value`] from its two parts.
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Value {
            key: key.into(),
            message: message.into(),
        }
    }

    /// A [`Error::Device`] from its two parts.
    pub fn device(device: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Device {
            device: device.into(),
            message: message.into(),
        }
    }

    /// A [`Error::File`] from an operating-system error.
    pub fn file(path: &Path, action: &'static str, source: &std::io::Error) -> Self {
        Error::File {
            path: path.to_path_buf(),
            action,
            reason: source.to_string(),
        }
    }

    /// A [`Error::Input`] without a line.
    pub fn input(path: &Path, key: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Input {
            path: path.to_path_buf(),
            line: None,
            key: key.into(),
            message: message.into(),
        }
    }

    /// A value error with its key inside the table `table`.
    pub fn under(self, table: &str) -> Self {
        match self {
            Error::Value { key, message } => Error::value(format!("{table}.{key}"), message),
            other => other,
        }
    }

    /// Turns a value error into an input error of `path`, and points at the
    /// line of `text` that holds the key.
    ///
    /// A key such as `expert[1].variance` means the second `[[expert]]` table.
    pub fn located(self, path: &Path, text: &str) -> Self {
        let (key, message) = match self {
            Error::Value { key, message } => (key, message),
            Error::Dimension { what, .. } => (what.to_string(), self.to_string()),
            other => return other,
        };
        Error::Input {
            path: path.to_path_buf(),
            line: line_of_key(text, &key),
            key,
            message,
        }
    }
}

/// The line of `text` (counted from 1) where the TOML key is set.
///
/// Falls back to the table's header when the key itself is absent, to the first
/// header of that name when the key is a table, and to the line of the key that
/// holds an inline table.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let parent = || line_of_key(text, key.rsplit_once('.')?.0);
    line_of_own_key(text, key).or_else(parent)
}

fn line_of_own_key(text: &str, key: &str) -> Option<usize> {
    let (table, leaf) = key.rsplit_once('.').unwrap_or(("", key));
    let (name, index) = match table.split_once('[') {
        Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()?),
        None => (table, 0),
    };
    let mut inside = name.is_empty();
    let mut seen = 0;
    let mut header = None;
    let mut as_table = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let title = line.trim_matches(['[', ']']).trim();
            inside = title == name && {
                seen += 1;
                seen == index + 1
            };
            if inside {
                header = Some(number + 1);
            }
            if title == key && as_table.is_none() {
                as_table = Some(number + 1);
            }
        } else if inside && line.split('=').next().map(str::trim) == Some(leaf) {
            return Some(number + 1);
        }
    }
    as_table.or(header)
}

/// Reads a text file, or says which file could not be read and why.
///
/// # Errors
/// [`Error::File`].
pub fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::file(path, "read", &e))
}

/// Replaces a file at once: it is the old or the new one, never half of it.
///
/// # Errors
/// [`Error::File`].
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::write(&temporary, content)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|e| {
            // Best effort: the first failure is the one to report.
            let _ = std::fs::remove_file(&temporary);
            Error::file(path, "write", &e)
        })
}

/// Parses TOML into `T`; an unknown key, a wrong type or bad syntax names file
/// and line.
///
/// # Errors
/// [`Error::Input`].
pub fn parse_toml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| {
        let start = e.span().map(|span| span.start.min(text.len()));
        let line = start.map(|start| text[..start].matches('\n').count() + 1);
        // Most messages quote the key; a wrong type or value does not.
        let message = e.message().replace('\n', " ");
        let key = line.filter(|_| !message.contains("field `"));
        Error::Input {
            path: path.to_path_buf(),
            line,
            key: key.and_then(|l| key_of_line(text, l)).unwrap_or_default(),
            message,
        }
    })
}

/// The key that a line of TOML sets, or the table that it opens.
fn key_of_line(text: &str, line: usize) -> Option<String> {
    let line = text.lines().nth(line - 1)?.trim();
    let key = match line.starts_with('[') {
        true => line.trim_matches(['[', ']']).trim(),
        false => line.split_once('=')?.0.trim(),
    };
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!key.is_empty() && key.chars().all(bare)).then(|| key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_error_finds_the_line_of_its_key_in_the_right_table() {
        let text = "[gate]\ntop_k = 3\n[[expert]]\nvariance = 1.0\n[[expert]]\nvariance = -1.0\n";
        assert_eq!(line_of_key(text, "gate.top_k"), Some(2));
        assert_eq!(line_of_key(text, "expert[1].variance"), Some(6));
        assert_eq!(line_of_key(text, "expert[1].slope"), Some(5));
        assert_eq!(line_of_key(text, "gate"), Some(1));
        assert_eq!(line_of_key(text, "expert[1].variance.low"), Some(6));
        assert_eq!(line_of_key(text, "nowhere.x"), None);
    }

    #[test]
    fn a_parse_error_names_the_line_of_its_key_and_the_key() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct File {
            a: u64,
        }
        let message = |text: &str| {
            let error = parse_toml::<File>(Path::new("f.toml"), text).unwrap_err();
            error.to_string()
        };
        assert!(message("# é\na = 1\nb = 2\n").starts_with("f.toml:3: unknown field `b`"));
        assert!(message("\na = \"x\"\n").starts_with("f.toml:2: key `a`: invalid type"));
    }
}
