//! Rows: what one replicate leaves behind, one line of CSV each.

use super::column::Loss;
use super::plan::Plan;
use super::shard::{Shard, merged, shard_files};
use super::study::{Admission, Study};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The result of one replicate of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The design hash of the study that made it.
    pub study: String,
    /// The cell's name.
    pub cell: String,
    /// The replicate, from 0.
    pub replicate: u64,
    /// Sample size.
    pub n: u64,
    /// Why the best start's fit stopped.
    pub stop: String,
    /// True if the maximum is certified.
    pub converged: bool,
    /// Where and how large, if the stop has more to say.
    pub detail: String,
    /// Every start with its log-likelihood, stop reason and passes
    /// ([`StartOutcome`]).
    pub starts: String,
    /// Expectation-maximisation, quasi-Newton and Newton iterations.
    pub em: usize,
    /// See `em`.
    pub gradient: usize,
    /// See `em`.
    pub newton: usize,
    /// Passes over the sample, over all starts.
    pub passes: f64,
    /// Scaled score at the fit.
    pub scaled_score: f64,
    /// Coordinates on the boundary of the parameter set.
    pub on_bound: String,
    /// Log-likelihood at the fit.
    pub log_likelihood: f64,
    /// Log-likelihood at the truth.
    pub log_likelihood_truth: f64,
    /// One value per loss of the study; NaN if the fit has none.
    pub losses: Vec<f64>,
    /// n delta' I delta, see [`super::constants::Regularity::information_distance`].
    pub information_distance: f64,
    /// Packed parameters of the fit, experts matched to the truth's.
    pub parameters: Vec<f64>,
    /// Their standard errors from the observed information, NaN on the boundary,
    /// if the study records them.
    pub standard_errors: Option<Vec<f64>>,
    /// Wall time. The only field that differs between runs.
    pub seconds: f64,
}

/// How the fit from one start ended, as it stands in a row:
/// "name log-likelihood stop passes".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartOutcome<'a> {
    /// The start.
    pub name: &'a str,
    /// Where it led.
    pub log_likelihood: f64,
    /// Why it stopped there.
    pub stop: &'a str,
    /// Passes over the stored rows that it took.
    pub passes: f64,
}

impl fmt::Display for StartOutcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let StartOutcome {
            name,
            log_likelihood,
            stop,
            passes,
        } = self;
        write!(f, "{name} {log_likelihood} {stop} {passes:.2}")
    }
}

impl<'a> StartOutcome<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim().rsplitn(4, ' ');
        let passes = parts.next()?.parse().ok()?;
        let stop = parts.next()?;
        let log_likelihood = parts.next()?.parse().ok()?;
        Some(StartOutcome {
            name: parts.next()?,
            log_likelihood,
            stop,
            passes,
        })
    }

    /// True if it ended at a certified maximum.
    pub fn is_certified(&self) -> bool {
        self.stop.starts_with("Converged")
    }
}

impl Row {
    /// How each start's fit ended.
    pub fn start_outcomes(&self) -> impl Iterator<Item = StartOutcome<'_>> {
        self.starts.split("; ").filter_map(StartOutcome::parse)
    }

    /// The value of a loss; NaN if the study does not have it.
    pub fn loss(&self, study: &Study, loss: Loss) -> f64 {
        let position = study.losses.iter().position(|l| *l == loss);
        position.map_or(f64::NAN, |k| self.losses[k])
    }

    /// True if the fit enters means.
    pub fn counts(&self, study: &Study) -> bool {
        match study.admit {
            Admission::Certified => self.converged,
            Admission::AboveTruth => self.converged || self.likelihood_ratio() >= 0.0,
            Admission::Any => self.log_likelihood.is_finite(),
        }
    }

    /// The likelihood-ratio statistic 2 (loglik(fit) - loglik(truth)).
    pub fn likelihood_ratio(&self) -> f64 {
        2.0 * (self.log_likelihood - self.log_likelihood_truth)
    }

    /// The columns of a study's rows.
    pub fn header(study: &Study) -> Vec<String> {
        let before = [
            "study",
            "cell",
            "replicate",
            "n",
            "stop",
            "converged",
            "detail",
            "starts",
            "em",
            "gradient",
            "newton",
            "passes",
            "scaled_score",
            "on_bound",
            "log_likelihood",
            "log_likelihood_truth",
        ];
        let after = ["information_distance", "parameters"];
        let errors = study.record_standard_errors.then_some("standard_errors");
        let text = String::from;
        before
            .into_iter()
            .map(text)
            .chain(study.losses.iter().map(Loss::to_string))
            .chain(after.into_iter().chain(errors).map(text))
            .chain([text("seconds")])
            .collect()
    }

    /// The row's fields, in the order of [`Row::header`]; numbers in the
    /// shortest form that reads back to the same value.
    pub fn fields(&self) -> Vec<String> {
        let mut fields = vec![
            self.study.clone(),
            self.cell.clone(),
            self.replicate.to_string(),
            self.n.to_string(),
            self.stop.clone(),
            self.converged.to_string(),
            self.detail.clone(),
            self.starts.clone(),
            self.em.to_string(),
            self.gradient.to_string(),
            self.newton.to_string(),
            format!("{:.2}", self.passes),
            self.scaled_score.to_string(),
            self.on_bound.clone(),
            self.log_likelihood.to_string(),
            self.log_likelihood_truth.to_string(),
        ];
        fields.extend(self.losses.iter().map(f64::to_string));
        fields.push(self.information_distance.to_string());
        let numbers = |values: &[f64]| {
            let texts: Vec<String> = values.iter().map(f64::to_string).collect();
            texts.join(" ")
        };
        fields.push(numbers(&self.parameters));
        fields.extend(self.standard_errors.as_deref().map(numbers));
        fields.push(format!("{:.6}", self.seconds));
        fields
    }

    /// Reads a record back; `None` if a field does not parse.
    fn from_record(record: &csv::StringRecord, study: &Study) -> Option<Self> {
        let text = |k: usize| record.get(k).map(String::from);
        fn number<T: std::str::FromStr>(record: &csv::StringRecord, k: usize) -> Option<T> {
            record.get(k)?.parse().ok()
        }
        fn numbers(record: &csv::StringRecord, k: usize) -> Option<Vec<f64>> {
            let values = record.get(k)?.split_whitespace();
            values.map(|v| v.parse().ok()).collect()
        }
        let last = 16 + study.losses.len();
        let errors = usize::from(study.record_standard_errors);
        if record.len() != last + 3 + errors {
            return None;
        }
        Some(Row {
            study: text(0)?,
            cell: text(1)?,
            replicate: number(record, 2)?,
            n: number(record, 3)?,
            stop: text(4)?,
            converged: number(record, 5)?,
            detail: text(6)?,
            starts: text(7)?,
            em: number(record, 8)?,
            gradient: number(record, 9)?,
            newton: number(record, 10)?,
            passes: number(record, 11)?,
            scaled_score: number(record, 12)?,
            on_bound: text(13)?,
            log_likelihood: number(record, 14)?,
            log_likelihood_truth: number(record, 15)?,
            losses: (16..last)
                .map(|k| number(record, k))
                .collect::<Option<_>>()?,
            information_distance: number(record, last)?,
            parameters: numbers(record, last + 1)?,
            standard_errors: match study.record_standard_errors {
                true => Some(numbers(record, last + 2)?),
                false => None,
            },
            seconds: number(record, last + 2 + errors)?,
        })
    }
}

impl Row {
    /// Whether two rows agree in all fields but the time.
    pub fn equals_but_for_time(&self, other: &Row) -> bool {
        // As text: NaN equals NaN, and digits that no file holds do not count.
        let timeless = |row: &Row| {
            let mut fields = row.fields();
            fields.pop();
            fields
        };
        timeless(self) == timeless(other)
    }

    /// Whether two rows of one replicate, computed on different devices, found the same
    /// maximum: certificates leave a gain of 1e-6 each open, sums differ by rounding.
    pub fn found_the_maximum_of(&self, other: &Row) -> bool {
        let rounding = 1e-12 * other.log_likelihood.abs();
        let close = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance;
        (&self.cell, self.replicate) == (&other.cell, other.replicate)
            && self.converged == other.converged
            && close(
                self.log_likelihood_truth,
                other.log_likelihood_truth,
                rounding,
            )
            && close(self.log_likelihood, other.log_likelihood, 2e-6 + rounding)
    }

    /// Whether the cell's name says the same sample size as the row.
    fn is_consistent(&self) -> bool {
        self.cell.ends_with(&format!("n={}", self.n))
    }
}

fn encode(fields: &[String]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields).expect("writing to memory");
    writer.into_inner().expect("writing to memory")
}

/// The rows of a study on disk: appended and flushed one by one, locked against
/// a second writer.
#[derive(Debug)]
pub struct RowFile {
    path: PathBuf,
    file: File,
    _lock: File,
    /// Replicates whose rows stand in other files only.
    elsewhere: HashSet<(String, u64)>,
    /// The rows already there, those of the other files among them.
    pub rows: Vec<Row>,
}

impl RowFile {
    /// Opens or creates `folder/rows.csv` for appending. A torn last line, as a
    /// killed run leaves it, is dropped.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Input`] if a row belongs to another study,
    /// stands twice or does not parse, or if the rows are packed. Nothing is
    /// changed on disk then.
    pub fn open(folder: &Path, plan: &Plan) -> Result<Self> {
        RowFile::open_part(folder, plan, None)
    }

    /// Opens or creates the file of one shard, [`Shard::file_name`], or of none,
    /// `rows.csv`. The rows of all other files are read, too.
    ///
    /// # Errors
    /// As [`RowFile::open`], and as [`merged`].
    pub fn open_part(folder: &Path, plan: &Plan, shard: Option<Shard>) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
        let path = folder.join(shard.map_or("rows.csv".to_string(), Shard::file_name));
        let failed = |action: &'static str| {
            let path = path.clone();
            move |e: std::io::Error| Error::file(&path, action, &e)
        };
        let packed = folder.join("rows.csv.gz");
        if packed.exists() && !folder.join("rows.csv").exists() {
            let message = "recorded rows are packed: unpack them (gunzip) to add to them";
            return Err(Error::input(&packed, "", message));
        }
        let lock = lock(&path)?;
        let mut file = open_to_append(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let whole = whole_lines(&path, &bytes, plan)?;
        let own = parse(&path, whole, plan)?;
        let names = |row: &Row| (row.cell.clone(), row.replicate);
        let here: HashSet<(String, u64)> = own.iter().map(names).collect();
        let mut files = vec![(path.clone(), own)];
        let others = row_files(folder)?.into_iter().filter(|p| *p != path);
        files.extend(read_files(others, plan)?);
        let rows = merged(files)?;
        let elsewhere = rows.iter().map(names).filter(|name| !here.contains(name));
        if whole.len() < bytes.len() {
            file.set_len(whole.len() as u64)
                .map_err(failed("truncate"))?;
        }
        if whole.is_empty() {
            file.write_all(&encode(&Row::header(&plan.study)))
                .map_err(failed("write"))?;
        }
        Ok(RowFile {
            path,
            file,
            _lock: lock,
            elsewhere: elsewhere.collect(),
            rows,
        })
    }

    /// Appends one row in a single write.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn append(&mut self, row: Row) -> Result<()> {
        self.file
            .write_all(&encode(&row.fields()))
            .and_then(|()| self.file.flush())
            .map_err(|e| Error::file(&self.path, "write", &e))?;
        self.rows.push(row);
        Ok(())
    }

    /// Puts the rows in plan order, so that the file does not depend on the
    /// order in which threads finished. The old file is replaced at once.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sort(&mut self, plan: &Plan) -> Result<()> {
        let key = plan_order(plan);
        let is_own = |row: &&Row| {
            self.elsewhere.is_empty()
                || !self.elsewhere.contains(&(row.cell.clone(), row.replicate))
        };
        let is_sorted = self.rows.iter().filter(is_own).is_sorted_by_key(&key);
        self.rows.sort_by_key(&key);
        if is_sorted {
            return Ok(());
        }
        let mut bytes = encode(&Row::header(&plan.study));
        for row in self.rows.iter().filter(is_own) {
            bytes.extend(encode(&row.fields()));
        }
        let temporary = self.path.with_extension("csv.new");
        std::fs::write(&temporary, bytes).map_err(|e| Error::file(&temporary, "write", &e))?;
        std::fs::rename(&temporary, &self.path)
            .map_err(|e| Error::file(&self.path, "replace", &e))?;
        // The old file is gone: append to the new one from here on.
        self.file = open_to_append(&self.path)?;
        Ok(())
    }
}

fn open_to_append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|e| Error::file(path, "open", &e))
}

/// The place of a row in its file: cells as in the plan, then replicates.
fn plan_order(plan: &Plan) -> impl Fn(&Row) -> (usize, u64) {
    let cells = plan.cells.iter().enumerate();
    let position: HashMap<&str, usize> = cells.map(|(k, c)| (c.name.as_str(), k)).collect();
    move |row| {
        let cell = position.get(row.cell.as_str()).copied();
        (cell.unwrap_or(usize::MAX), row.replicate)
    }
}

/// Keeps a second writer of `rows` out for as long as it lives. The lock is on a
/// file of its own, since the rows' file is replaced when they are sorted:
/// `.lock` for `rows.csv`, `.rows.2-of-4.lock` for a shard.
fn lock(rows: &Path) -> Result<File> {
    let name = match rows.file_stem().and_then(|name| name.to_str()) {
        Some("rows") | None => ".lock".to_string(),
        Some(shard) => format!(".{shard}.lock"),
    };
    let lock = open_to_append(&rows.with_file_name(name))?;
    if lock.try_lock().is_err() {
        return Err(Error::input(rows, "", "another run is writing these rows"));
    }
    Ok(lock)
}

/// Reads rows for a report, in plan order: those of `rows.csv`, or of
/// `rows.csv.gz` as recorded in the repository, and those of all shards.
///
/// # Errors
/// [`Error::File`] if there is none or one cannot be read; [`Error::Input`] as
/// [`RowFile::open_part`].
pub fn read_rows(folder: &Path, plan: &Plan) -> Result<Vec<Row>> {
    let mut files = row_files(folder)?;
    if files.is_empty() {
        // To say that it is not there.
        files.push(folder.join("rows.csv"));
    }
    let mut rows = merged(read_files(files.into_iter(), plan)?)?;
    rows.sort_by_key(plan_order(plan));
    Ok(rows)
}

/// Every file of rows in `folder`.
fn row_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let plain = folder.join("rows.csv");
    let packed = folder.join("rows.csv.gz");
    let mut files = Vec::new();
    if plain.exists() {
        files.push(plain);
    } else if packed.exists() {
        files.push(packed);
    }
    if folder.exists() {
        files.extend(shard_files(folder)?);
    }
    Ok(files)
}

fn read_files(
    paths: impl Iterator<Item = PathBuf>,
    plan: &Plan,
) -> Result<Vec<(PathBuf, Vec<Row>)>> {
    paths
        .map(|path| {
            let rows = read_file(&path, plan)?;
            Ok((path, rows))
        })
        .collect()
}

fn read_file(path: &Path, plan: &Plan) -> Result<Vec<Row>> {
    let failed = |e: std::io::Error| Error::file(path, "read", &e);
    if path.extension().is_some_and(|e| e == "gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).map_err(failed)?)
            .read_to_string(&mut text)
            .map_err(failed)?;
        return parse(path, &text, plan);
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    parse(path, whole_lines(path, &bytes, plan)?, plan)
}

/// The text up to the last line end. What follows is a torn line, which may end
/// inside a letter; before the first line end it must be the start of a header.
fn whole_lines<'a>(path: &Path, bytes: &'a [u8], plan: &Plan) -> Result<&'a str> {
    let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |k| k + 1);
    if end == 0 && !encode(&Row::header(&plan.study)).starts_with(bytes) {
        return Err(Error::input(path, "", "is not a file of rows"));
    }
    std::str::from_utf8(&bytes[..end])
        .map_err(|_| Error::input(path, "", "the text is not valid UTF-8"))
}

fn parse(path: &Path, text: &str, plan: &Plan) -> Result<Vec<Row>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let at = |line: Option<usize>, key: &str, message: String| Error::Input {
        path: path.to_path_buf(),
        line,
        key: key.to_string(),
        message,
    };
    let other_study = |line, found: &str| {
        at(
            line,
            "study",
            format!(
                "rows of another study or of an older version of this one ({found}, now {}); \
                 choose another folder with --out or move the rows away",
                plan.hash
            ),
        )
    };
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    let header = reader
        .headers()
        .map_err(|e| at(Some(1), "", e.to_string()))?;
    if header.iter().ne(Row::header(&plan.study)) {
        return Err(other_study(Some(1), "other columns"));
    }
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    for record in reader.records() {
        let record = record.map_err(|e| at(None, "", e.to_string()))?;
        let line = record.position().map(|p| p.line() as usize);
        let row = Row::from_record(&record, &plan.study)
            .filter(Row::is_consistent)
            .ok_or_else(|| at(line, "", "not a row of this format".to_string()))?;
        if row.study != plan.hash {
            return Err(other_study(line, &row.study));
        }
        if !seen.insert((row.cell.clone(), row.replicate)) {
            let name = format!("{}/{}", row.cell, row.replicate);
            return Err(at(line, "replicate", format!("{name} stands twice")));
        }
        rows.push(row);
    }
    Ok(rows)
}
