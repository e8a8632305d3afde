//! The study file: everything that is fixed before running. Format:
//! `docs/studies.md`.

mod estimator;
mod factors;
mod validate;

pub use estimator::{
    Centre, Distillation, DistillationLoss, Family, Fit, FitVariant, GainMeasure, GateStep, Labels,
    Method, PolishKind, Schedule,
};
pub(super) use factors::join;
pub use factors::{Biases, Combination, GateVariant, Grid, LogSpaced, Sizes, StartSet};

use super::claim::Claim;
use super::column::Loss;
use super::data::DataTruth;
use crate::error::{Error, Result, parse_toml, read_text};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest sample of rows.
pub(super) const MOST_ROWS: u64 = 1_000_000_000;
/// Largest sample of counts on a lattice.
const MOST_COUNTED: u64 = 1_000_000_000_000;

/// A Monte-Carlo study, read from one TOML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// One line for headings.
    pub title: String,
    /// What the study is to find out.
    pub aim: String,
    /// Paper and theorem.
    pub reference: String,
    /// What may limit the conclusion; printed with the results.
    #[serde(default)]
    pub limits: String,
    /// The group in an index of studies.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// Root of every random stream.
    pub seed: u64,
    /// How many replicates each cell has.
    pub replicates: Replicates,
    /// The losses in every row.
    pub losses: Vec<Loss>,
    /// Whether rows hold the fitted parameters.
    #[serde(default = "yes")]
    pub record_parameters: bool,
    /// Whether rows hold standard errors from the observed information.
    #[serde(default, skip_serializing_if = "is_default")]
    pub record_standard_errors: bool,
    /// Which fits count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub admit: Admission,
    /// Where the data-generating mixture comes from.
    pub truth: Truth,
    /// The factors; every combination is a cell.
    pub grid: Grid,
    /// The estimator.
    pub fit: Fit,
    /// What is claimed, with its regression window.
    #[serde(default)]
    pub claim: Vec<Claim>,
    /// The file's stem. Not part of the file.
    #[serde(skip)]
    pub name: String,
    /// The file itself. Not part of the file.
    #[serde(skip)]
    pub path: PathBuf,
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Which fits enter means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// Certified maxima.
    #[default]
    Certified,
    /// Any fit with at least the truth's likelihood: all that the proof of a
    /// density rate asks of an estimator (`docs/methods.md`, 9).
    AboveTruth,
    /// Any fit with a finite likelihood: for studies of where an estimator goes
    /// when no certificate exists.
    Any,
}

/// A number of replicates, or the precision that decides it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Replicates {
    /// The same in every cell.
    Fixed(u64),
    /// Enough for a standard error of the first slope claim, judged by the
    /// first `pilot` replicates of each cell.
    Precision(Precision),
}

/// Replicates by precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// Standard error wanted for the slope.
    pub target_slope_se: f64,
    /// Replicates run first, and the least that any cell has.
    pub pilot: u64,
    /// Most replicates of a cell.
    pub at_most: u64,
}

/// Where the truth comes from: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Truth {
    /// A model file, relative to the study's folder.
    File(TruthFile),
    /// Several model files, a factor of the design.
    Files(TruthFiles),
    /// A fit to data.
    Data(Box<DataTruth>),
}

/// A truth from a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthFile {
    /// Path of the model file.
    pub file: PathBuf,
}

/// Truths from model files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthFiles {
    /// In the order of cells.
    pub files: Vec<NamedTruth>,
}

/// A level of the factor `truth`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedTruth {
    /// The level's name in cell names.
    pub name: String,
    /// Path of the model file.
    pub file: PathBuf,
}

/// Reads and checks a study file, its truth included.
///
/// # Errors
/// [`Error::File`] or [`Error::Input`] naming file, line and key.
pub fn read_study(path: &Path) -> Result<Study> {
    let text = read_text(path)?;
    let table: toml::Table = parse_toml(path, &text)?;
    let mut study: Study = match parse_toml(path, &text) {
        Ok(study) => study,
        Err(error) => return Err(explain_truth(path, &text, &table).unwrap_or(error)),
    };
    study.path = path.to_path_buf();
    study.name = stem(path);
    study.validate().map_err(|e| e.located(path, &text))?;
    Ok(study)
}

/// serde reports only "no variant matched" for the kinds of truth; this
/// says which key of which kind is wrong.
fn explain_truth(path: &Path, text: &str, table: &toml::Table) -> Option<Error> {
    let truth = table.get("truth")?.as_table()?.clone();
    let parsed = if truth.contains_key("data") {
        truth.try_into::<DataTruth>().map(|_| ())
    } else if truth.contains_key("files") {
        truth.try_into::<TruthFiles>().map(|_| ())
    } else {
        truth.try_into::<TruthFile>().map(|_| ())
    };
    let message = parsed.err()?.message().replace('\n', " ");
    Some(Error::value("truth", message).located(path, text))
}

impl Study {
    /// The estimators with their levels of the factor `fit`.
    ///
    /// # Errors
    /// As [`FitVariant::apply`].
    pub fn fits(&self) -> Result<Vec<(Option<String>, Fit)>> {
        if self.grid.fit.is_empty() {
            return Ok(vec![(None, self.fit.clone())]);
        }
        let variant = |(k, v): (usize, &FitVariant)| {
            let fit = v.apply(&self.fit);
            let fit = fit.map_err(|e| e.under(&format!("grid.fit[{k}]")))?;
            Ok((Some(v.name.clone()), fit))
        };
        self.grid.fit.iter().enumerate().map(variant).collect()
    }

    /// Loss and window of the first slope claim.
    pub fn first_slope(&self) -> Option<(Loss, [f64; 2])> {
        self.claim.iter().find_map(|c| match c {
            Claim::Slope { loss, window, .. } => Some((*loss, *window)),
            _ => None,
        })
    }

    /// A path of the study file, relative to the study's folder.
    pub fn relative(&self, path: &Path) -> PathBuf {
        beside(&self.path, path)
    }
}

/// A study's name: the stem of its file.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

/// A path that the study file `study` names, relative to its folder.
pub(super) fn beside(study: &Path, path: &Path) -> PathBuf {
    study.parent().unwrap_or(Path::new("")).join(path)
}
