//! TensorBoard's event file: the log's scalars once more.
//!
//! The file is a sequence of records (TensorFlow's TFRecord),
//!
//! ```text
//! length: u64 | masked crc of length: u32 | data | masked crc of data: u32
//! ```
//!
//! all little-endian, with crc the CRC-32C and masked(c) = rotate_right(c, 15) +
//! 0xa282ead8. `data` is a protocol buffer `Event`: field 1 the time, 2 the step, 3 the
//! file's version (first record only), 5 a `Summary`, whose fields 1 are values with
//! field 1 the name and field 2 a single-precision number. Source: tensorflow's
//! `core/lib/io/record_writer` and `core/util/event.proto`.

use crate::error::{Error, Result, replace};
use crate::train::log::Row;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Viewers look for `tfevents` in the name.
const NAME: &str = "events.out.tfevents.0.run";

/// The open event file of a run.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
    started: f64,
}

impl Events {
    /// The event file of the rows so far, in `folder`, open for more. It is written
    /// anew, so that a resumed run shows no step twice. `started`: seconds since 1970
    /// at which the run's training time began; times are `started` + training time.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn create(folder: &Path, rows: &[Row], started: f64) -> Result<Events> {
        let path = folder.join(NAME);
        let mut version = Vec::new();
        put_fixed(&mut version, 1, started);
        put_bytes(&mut version, 3, b"brain.Event:2");
        let mut content = record(&version);
        for row in rows {
            content.extend(records(row, started));
        }
        replace(&path, &content)?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|e| Error::file(&path, "open", &e))?;
        Ok(Events {
            path,
            file,
            started,
        })
    }

    /// Adds a row's scalars, at once.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn append(&mut self, row: &Row) -> Result<()> {
        self.file
            .write_all(&records(row, self.started))
            .map_err(|e| Error::file(&self.path, "write", &e))
    }
}

/// The records of a row; none if it has no scalars.
fn records(row: &Row, started: f64) -> Vec<u8> {
    let (step, seconds, scalars) = match row {
        Row::Step(row) => {
            let mut scalars = vec![
                ("training/loss".to_string(), row.loss),
                ("training/gradient_norm".to_string(), row.gradient_norm),
                ("training/rate".to_string(), row.rate),
                (
                    "training/tokens_per_second".to_string(),
                    row.tokens_per_second,
                ),
                ("training/competing".to_string(), row.competing as f64),
            ];
            let named = |name: &str| format!("auxiliary/{}", name.replace(' ', "_"));
            scalars.extend(
                row.auxiliaries()
                    .map(|(name, loss)| (named(name), loss.value)),
            );
            (row.step, row.seconds, scalars)
        }
        Row::Evaluation(row) => {
            let named = |what: &str| format!("validation/{what}/top_{}", row.top_k);
            let scalars = vec![
                (named("loss"), row.loss),
                (named("bits_per_byte"), row.bits_per_byte),
                (named("perplexity"), row.perplexity),
            ];
            (row.step, row.seconds, scalars)
        }
        Row::Statistics(_) | Row::Text(_) => return Vec::new(),
    };
    let mut summary = Vec::new();
    for (name, value) in scalars {
        let mut scalar = Vec::new();
        put_bytes(&mut scalar, 1, name.as_bytes());
        scalar.push(2 << 3 | 5);
        scalar.extend((value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &scalar);
    }
    let mut event = Vec::new();
    put_fixed(&mut event, 1, started + seconds);
    event.push(2 << 3);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    record(&event)
}

fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| {
        let crc = crc32c::crc32c(bytes).rotate_right(15);
        crc.wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_bytes(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | 2);
    put_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn put_fixed(to: &mut Vec<u8>, field: u8, value: f64) {
    to.push(field << 3 | 1);
    to.extend(value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::log::{Evaluation, Step, Text};

    fn step(step: u64) -> Row {
        Row::Step(Step {
            step,
            seconds: step as f64,
            loss: 1.0 / step as f64,
            ..Step::default()
        })
    }

    #[test]
    fn the_masked_checksum_of_tensorflows_own_first_record() {
        // The header that every event file of TensorFlow begins with: length 24.
        let record = record(&[0; 24]);
        assert_eq!(record[..12], [24, 0, 0, 0, 0, 0, 0, 0, 163, 127, 75, 34]);
        assert_eq!(record.len(), 8 + 4 + 24 + 4);
    }

    #[test]
    fn a_scalar_event_has_the_bytes_of_its_protocol_buffer() {
        let row = Row::Evaluation(Evaluation {
            step: 300,
            loss: 1.0,
            bits_per_byte: 1.0,
            perplexity: 1.0,
            top_k: 2,
            ..Evaluation::default()
        });
        let bytes = records(&row, 1.0);
        let event = &bytes[12..];
        let time = [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        assert_eq!(event[..9], time);
        assert_eq!(event[9..12], [16, 0b1010_1100, 0b10], "step 300");
        let value = b"\x0a\x1c\x0a\x15validation/loss/top_2\x15\0\0\x80\x3f";
        assert_eq!(event[14..14 + value.len()], value[..]);
    }

    #[test]
    fn a_resumed_run_has_the_file_of_one_that_never_stopped() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = || std::fs::read(folder.path().join(NAME)).unwrap();
        let mut whole = Events::create(folder.path(), &[], 5.0).unwrap();
        (1..=4).for_each(|k| whole.append(&step(k)).unwrap());
        let expected = file();
        let mut resumed = Events::create(folder.path(), &[step(1), step(2)], 5.0).unwrap();
        (3..=4).for_each(|k| resumed.append(&step(k)).unwrap());
        assert_eq!(file(), expected);
        resumed.append(&Row::Text(Text::default())).unwrap();
        assert_eq!(file(), expected, "a text has no scalars");
    }
}
