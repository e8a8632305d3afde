//! `log.jsonl`.

use crate::error::{Error, Result, replace};
use crate::train::log::Row;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The open log of a run.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// An empty log; one that is there is replaced.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(path: &Path) -> Result<Log> {
        replace(path, b"")?;
        Log::open(path)
    }

    /// The log of a run that goes on after `step`: rows beyond it, and a torn last
    /// line, are cut off, so that the resumed run repeats none. Rows of `step` itself
    /// stay: a checkpoint is to be written after the rows of its step.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Input`] as [`read`].
    pub fn resume(path: &Path, step: u64) -> Result<Log> {
        let bytes = std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?;
        let mut kept = Vec::with_capacity(bytes.len());
        for (line, row) in rows(path, &bytes)? {
            if row.step() <= step {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        if kept != bytes {
            replace(path, &kept)?;
        }
        Log::open(path)
    }

    fn open(path: &Path) -> Result<Log> {
        let file = OpenOptions::new().append(true).open(path);
        Ok(Log {
            path: path.to_path_buf(),
            file: file.map_err(|e| Error::file(path, "open", &e))?,
        })
    }

    /// Adds a row, at once.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn append(&mut self, row: &Row) -> Result<()> {
        let line = serde_json::to_string(row).map_err(|e| Error::File {
            path: self.path.clone(),
            action: "write",
            reason: e.to_string(),
        })?;
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|e| Error::file(&self.path, "write", &e))
    }

    /// Waits until all rows are on the disk: before a checkpoint counts on them.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| Error::file(&self.path, "write", &e))
    }
}

/// All rows. A last line that was torn by a crash is left out.
///
/// # Errors
/// [`Error::File`]; [`Error::Input`] with the number of a line that is no row.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?;
    let rows = rows(path, &bytes)?;
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Lines and their rows.
fn rows<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a [u8], Row)>> {
    // What stands after the last line break is empty, or an unfinished line.
    let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
    let mut rows = Vec::with_capacity(lines.len());
    for (number, &line) in lines.iter().enumerate() {
        let is_last = number + 1 == lines.len();
        match serde_json::from_slice(line) {
            Ok(row) => rows.push((line, row)),
            Err(_) if is_last || line.is_empty() => {}
            Err(e) => {
                return Err(Error::Input {
                    path: path.to_path_buf(),
                    line: Some(number + 1),
                    key: String::new(),
                    message: format!("not a row of a log: {e}"),
                });
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::log::{Auxiliary, Evaluation, Step, Text};
    use tempfile::TempDir;

    fn step(step: u64) -> Row {
        Row::Step(Step {
            step,
            tokens: 4096 * step,
            seconds: 0.125 * step as f64,
            loss: 5.0 / step as f64,
            balance: Some(Auxiliary {
                value: 1.0 + 1.0 / step as f64,
                coefficient: 0.01,
            }),
            gradient_norm: 0.1 + 0.2,
            rate: 3e-4,
            tokens_per_second: 1e5,
            competing: 1,
            load: vec![vec![3, 5], vec![4, 4]],
            ..Step::default()
        })
    }

    fn all() -> Vec<Row> {
        let evaluation = Row::Evaluation(Evaluation {
            step: 2,
            flops: 1.5e18,
            loss: 1.1,
            top_k: 2,
            ..Evaluation::default()
        });
        let text = Row::Text(Text {
            step: 3,
            text: "ROMEO:\n\"ü\"".to_string(),
        });
        vec![step(1), step(2), evaluation, step(3), text]
    }

    fn written(folder: &TempDir, rows: &[Row]) -> PathBuf {
        let path = folder.path().join("log.jsonl");
        let mut log = Log::create(&path).unwrap();
        rows.iter().for_each(|row| log.append(row).unwrap());
        log.sync().unwrap();
        path
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let folder = TempDir::new().unwrap();
        let path = written(&folder, &all());
        assert_eq!(read(&path).unwrap(), all());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), all().len());
        assert!(text.starts_with(r#"{"kind":"step","step":1,"tokens":4096,"#));
    }

    #[test]
    fn a_line_torn_anywhere_is_left_out_and_the_others_are_kept() {
        let folder = TempDir::new().unwrap();
        let path = written(&folder, &all());
        let whole = std::fs::read(&path).unwrap();
        let last = whole.len() - serde_json::to_vec(&all()[4]).unwrap().len() - 1;
        for end in last..whole.len() - 1 {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(read(&path).unwrap(), all()[..4], "torn at {end}");
        }
        // Only the line break is missing: nothing of the row is lost.
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(&path).unwrap(), all());
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named() {
        let folder = TempDir::new().unwrap();
        let path = written(&folder, &all());
        let text = std::fs::read_to_string(&path).unwrap();
        for broken in [
            text.replacen("\"tokens\":8192", "\"tokens\":", 1),
            text.replacen("\"tokens\":8192", "\"tokns\":8192", 1),
        ] {
            std::fs::write(&path, broken).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains("log.jsonl:2: not a row"), "{message}");
        }
    }

    #[test]
    fn a_resumed_log_equals_one_that_was_never_stopped() {
        let folder = TempDir::new().unwrap();
        let path = written(&folder, &all());
        // The crash tore a line beyond the checkpoint at step 2.
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let mut log = Log::resume(&path, 2).unwrap();
        assert_eq!(read(&path).unwrap(), all()[..3]);
        all()[3..].iter().for_each(|row| log.append(row).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_run_that_diverged_leaves_a_log_that_can_be_read() {
        let folder = TempDir::new().unwrap();
        let diverged = Row::Step(Step {
            loss: f64::NAN,
            gradient_norm: f64::INFINITY,
            ..Step::default()
        });
        let path = written(&folder, &[diverged]);
        match &read(&path).unwrap()[..] {
            [Row::Step(row)] => assert!(row.loss.is_nan() && row.gradient_norm.is_nan()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_of_two_runs_differ_by_the_clock_alone() {
        let mut slower = step(1);
        if let Row::Step(row) = &mut slower {
            (row.seconds, row.tokens_per_second) = (9.0, 3.0);
        }
        assert_ne!(slower, step(1));
        assert_eq!(slower.without_clock(), step(1).without_clock());
        assert_ne!(step(1).without_clock(), step(2).without_clock());
    }
}
