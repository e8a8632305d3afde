//! The study file: everything that is fixed before running. Format:
//! `docs/studies.md`.

use super::claim::{Claim, Constant};
use super::column::Loss;
use super::data::DataTruth;
use crate::error::{Error, Result, parse_toml, read_text};
pub use crate::fit::{Centre, GainMeasure, GateStep, Method};
use crate::fit::{
    DistillationLoss, DistillationOptions, Limits, NewtonOptions, Options, Polish, Schedule, Start,
};
use crate::model::{ExpertGate, GateKind, Model, Response, Weights};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
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
    /// density rate asks of an estimator (`docs/theory.md`, 3).
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

/// The factors of the design.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Sample sizes.
    pub n: Sizes,
    /// Variants of the truth's competition gate; absent: the gate as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gate: Vec<GateVariant>,
    /// Variants of the estimator, on the same data; absent: `fit` as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fit: Vec<FitVariant>,
    /// Sets of starting points; absent: `fit.starts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start: Vec<StartSet>,
}

/// Sample sizes: a list, or points equally spaced in log n.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sizes {
    /// As given.
    List(Vec<u64>),
    /// Rounded to whole numbers.
    LogSpaced(LogSpaced),
}

/// Equally spaced in the logarithm, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpaced {
    /// The first.
    pub from: f64,
    /// The last.
    pub to: f64,
    /// How many.
    pub points: usize,
}

impl LogSpaced {
    /// The numbers, from the first to the last.
    pub fn values(&self) -> Vec<f64> {
        let ratio = (self.to / self.from).ln() / (self.points.max(2) - 1) as f64;
        (0..self.points)
            .map(|k| self.from * (ratio * k as f64).exp())
            .collect()
    }
}

impl Sizes {
    /// The sizes in the order given.
    pub fn values(&self) -> Vec<u64> {
        match self {
            Sizes::List(list) => list.clone(),
            Sizes::LogSpaced(spaced) => {
                let values = spaced.values().into_iter();
                values.map(|n| n.round() as u64).collect()
            }
        }
    }
}

/// A named variant of a competition gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateVariant {
    /// The level's name in cell names.
    pub name: String,
    /// Replaces the truth's response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// Replaces the truth's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Replaces the truth's `top_k`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Replaces the truth's biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub biases: Option<Biases>,
}

/// What a gate variant does with the biases of a competition truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Biases {
    /// Removes them, from the truth and from the model that is fitted.
    None,
}

/// A named variant of the estimator: any keys of `fit`, which replace its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitVariant {
    /// The level's name in cell names.
    pub name: String,
    /// Keys of [`Fit`].
    #[serde(flatten)]
    pub replaced: toml::Table,
}

/// The family of mixtures that is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// The truth's own.
    #[default]
    Own,
    /// Softmax routers, for a truth that is one of them
    /// ([`crate::model::Parameters::as_router`]).
    Router,
}

/// What follows the method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolishKind {
    /// Newton to a certified maximum.
    #[default]
    Newton,
    /// Nothing: the estimate is where the method's own rule stops it, and such a
    /// stop is a success.
    None,
}

/// Router distillation: one pass over the rows, from the first start
/// ([`crate::fit::distil`]); its estimate is the router-gated mixture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// When experts compete.
    pub schedule: Schedule,
    /// What the router learns from.
    pub loss: DistillationLoss,
}

/// Whether the estimator sees which expert made each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// As in life.
    #[default]
    Hidden,
    /// The oracle of `docs/theory.md`, 3.
    Known,
}

/// A named set of starting points; the best outcome is the estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSet {
    /// The level's name in cell names.
    pub name: String,
    /// The starts.
    pub starts: Vec<Start>,
}

/// The estimator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// What is fitted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub family: Family,
    /// The method before the polish.
    pub method: Method,
    /// Its iteration limit.
    pub max_iterations: usize,
    /// It stops when an iteration gains less log-likelihood.
    pub gain: f64,
    /// The unit of `gain`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gain_measure: GainMeasure,
    /// How far the gate goes in one iteration of expectation maximisation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gate_step: GateStep,
    /// What follows the method.
    #[serde(default, skip_serializing_if = "is_default")]
    pub polish: PolishKind,
    /// Most iterations of the polish; absent: [`NewtonOptions::default`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polish_iterations: Option<usize>,
    /// What the estimator is told of the experts that made the rows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// Trains a router in one stochastic pass instead of maximising a likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// See [`Options::pilot_rows`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot_rows: Option<usize>,
    /// How many experts are fitted for each expert of the truth; absent: one. The
    /// truth of the fit is then [`crate::model::Parameters::split`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<usize>,
    /// How many experts the fitted gate keeps; absent: as many as the truth's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Starting points, where the grid has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Start>,
    /// The compact parameter set.
    pub limits: Limits,
}

impl FitVariant {
    /// `base` with the keys of this variant.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown key or a wrong value.
    pub fn apply(&self, base: &Fit) -> Result<Fit> {
        let with = |replaced: toml::Table| {
            let mut table = toml::Table::try_from(base).expect("read from TOML");
            table.extend(replaced);
            table.try_into::<Fit>()
        };
        with(self.replaced.clone()).map_err(|e| {
            // The message quotes no key for a wrong value: look for the one that
            // is wrong by itself.
            let is_wrong = |(key, value): &(&String, &toml::Value)| {
                let alone = [((*key).clone(), (*value).clone())];
                with(alone.into_iter().collect()).is_err()
            };
            let wrong = self.replaced.iter().find(is_wrong);
            let key = wrong.map_or("name", |(key, _)| key.as_str());
            Error::value(key, e.message().trim().replace('\n', " "))
        })
    }
}

impl Fit {
    /// The estimator's options; the certificate's tolerances are not a choice.
    pub fn options(&self) -> Options {
        Options {
            method: self.method,
            max_iterations: self.max_iterations,
            gain: self.gain,
            gain_measure: self.gain_measure,
            gate_step: self.gate_step,
            pilot_rows: self.pilot_rows,
            polish: match self.polish {
                PolishKind::Newton => Polish::Newton(self.newton()),
                PolishKind::None => Polish::None,
            },
        }
    }

    /// The estimator's options where it distils a router.
    pub fn distillation_options(&self) -> Option<DistillationOptions> {
        let distillation = self.distillation?;
        Some(DistillationOptions::new(
            distillation.schedule,
            distillation.loss,
        ))
    }

    /// The polish, where there is one.
    pub fn newton(&self) -> NewtonOptions {
        let standard = NewtonOptions::default();
        NewtonOptions {
            max_iterations: self.polish_iterations.unwrap_or(standard.max_iterations),
            ..standard
        }
    }
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
    fn validate(&self) -> Result<()> {
        let unique = |key: &str, names: Vec<&str>| {
            let distinct: HashSet<_> = names.iter().collect();
            let plain = names.iter().all(|n| {
                !n.is_empty() && !n.contains([',', '/', '=', '"', '\n']) && n.trim() == *n
            });
            if distinct.len() == names.len() && plain {
                return Ok(());
            }
            Err(Error::value(
                key,
                "names must be distinct, not empty, and free of , / = and quotes",
            ))
        };
        unique(
            "grid.gate",
            self.grid.gate.iter().map(|g| g.name.as_str()).collect(),
        )?;
        unique(
            "grid.start",
            self.grid.start.iter().map(|s| s.name.as_str()).collect(),
        )?;
        unique(
            "grid.fit",
            self.grid.fit.iter().map(|f| f.name.as_str()).collect(),
        )?;
        if let Truth::Files(truth) = &self.truth {
            unique(
                "truth.files",
                truth.files.iter().map(|f| f.name.as_str()).collect(),
            )?;
            if truth.files.is_empty() {
                return Err(Error::value("truth.files", "needs at least one file"));
            }
        }
        let fits = self.fits()?;
        let losses: HashSet<_> = self.losses.iter().collect();
        if losses.len() != self.losses.len() {
            return Err(Error::value("losses", "must be distinct"));
        }
        if let Sizes::LogSpaced(spaced) = &self.grid.n
            && !(2..=1000).contains(&spaced.points)
        {
            return Err(Error::value("grid.n", "points must be between 2 and 1000"));
        }
        let sizes = self.grid.n.values();
        let distinct: HashSet<_> = sizes.iter().collect();
        if sizes.is_empty() || distinct.len() != sizes.len() || sizes.contains(&0) {
            return Err(Error::value(
                "grid.n",
                "must be distinct positive sizes, at least one",
            ));
        }
        if sizes.iter().any(|&n| n > MOST_COUNTED) {
            return Err(Error::value("grid.n", "must be at most 10^12"));
        }
        match &self.replicates {
            Replicates::Fixed(0) => {
                return Err(Error::value("replicates", "must be at least 1"));
            }
            Replicates::Fixed(_) => {}
            Replicates::Precision(p) => {
                if !(p.target_slope_se > 0.0 && p.pilot >= 10 && p.at_most >= p.pilot) {
                    return Err(Error::value(
                        "replicates",
                        "needs target_slope_se > 0, pilot >= 10 and at_most >= pilot",
                    ));
                }
                if self.first_slope().is_none() {
                    return Err(Error::value("replicates", "a target needs a slope claim"));
                }
            }
        }
        let without_starts = match self.grid.start.is_empty() {
            true => fits.iter().any(|(_, fit)| fit.starts.is_empty()),
            false => self.grid.start.iter().any(|s| s.starts.is_empty()),
        };
        if without_starts {
            return Err(Error::value(
                "fit.starts",
                "at least one start is needed: there is no default",
            ));
        }
        let with_starts = fits.iter().any(|(_, fit)| !fit.starts.is_empty());
        if !self.grid.start.is_empty() && with_starts {
            return Err(Error::value(
                "fit.starts",
                "is given twice: here and in [[grid.start]]",
            ));
        }
        for (k, (_, fit)) in fits.iter().enumerate() {
            if !(fit.gain >= 0.0 && fit.gain.is_finite()) {
                let error = Error::value("fit.gain", "must be finite and not negative");
                return Err(self.blame(k, error));
            }
            let limits = fit.limits.validate("fit.limits");
            limits.map_err(|e| self.blame(k, e))?;
            let plain = |loss: &Loss| loss.is_of_density();
            if fit.distillation.is_some() && !self.losses.iter().all(plain) {
                let message = "a distilled router has another gate than the truth: its losses are \
                               those of densities";
                return Err(Error::value("losses", message));
            }
        }
        self.validate_claims(&fits)
    }

    /// An error about a key of `[fit]`, with the key of the variant that replaced it.
    pub(super) fn blame(&self, fit: usize, error: Error) -> Error {
        let Error::Value { key, message } = error else {
            return error;
        };
        let replaced = key.strip_prefix("fit.").filter(|path| {
            let name = path.split('.').next().unwrap_or_default();
            let variant = self.grid.fit.get(fit);
            variant.is_some_and(|v| v.replaced.contains_key(name))
        });
        let key = match replaced {
            Some(path) => format!("grid.fit[{fit}].{path}"),
            None => key,
        };
        Error::Value { key, message }
    }

    /// What a claim needs of the rows and of the estimators that it is about.
    fn validate_needs(&self, claim: &Claim, fits: &[(Option<String>, Fit)]) -> Result<()> {
        if claim.needs_parameters() && !self.record_parameters {
            return Err(Error::value("kind", "needs record_parameters = true"));
        }
        if matches!(claim, Claim::Intervals { .. }) && !self.record_standard_errors {
            return Err(Error::value("kind", "needs record_standard_errors = true"));
        }
        let combinations = self.combinations();
        let concerned = combinations.iter().filter(|c| claim.concerns(&c.series));
        let mut judged: Vec<&Fit> = concerned.map(|c| &fits[c.fit].1).collect();
        if let Claim::Efficiency { reference, .. } = claim {
            let is_reference =
                |(name, _): &&(Option<String>, Fit)| name.as_ref() == Some(reference);
            judged.extend(fits.iter().filter(is_reference).map(|(_, fit)| fit));
        }
        let is_exact = |fit: &&Fit| fit.copies.iter().all(|&c| c == 1);
        if claim.needs_exact_fit() && !judged.iter().all(is_exact) {
            let message = "needs fits with the truth's own number of experts, not copies: sharp \
                           constants exist for them alone";
            return Err(Error::value("kind", message));
        }
        let is_hidden = |fit: &&Fit| fit.labels == Labels::Hidden;
        if claim.constant() == Some(Constant::HellingerSq) && !judged.iter().all(is_hidden) {
            let message = "tends to 1 only where the labels are hidden";
            return Err(Error::value("constant", message));
        }
        Ok(())
    }

    fn validate_claims(&self, fits: &[(Option<String>, Fit)]) -> Result<()> {
        for (i, claim) in self.claim.iter().enumerate() {
            let table = format!("claim[{i}]");
            let key = |name: &str| format!("{table}.{name}");
            self.validate_needs(claim, fits)
                .map_err(|e| e.under(&table))?;
            let (loss, window) = match claim {
                Claim::Slope {
                    loss,
                    window,
                    accept,
                    ..
                } => {
                    if !is_positive(accept[1] - accept[0]) {
                        return Err(Error::value(key("accept"), "must be [low, high]"));
                    }
                    (Some(*loss), Some(*window))
                }
                Claim::SampleSize {
                    loss,
                    window,
                    accuracy,
                } => {
                    if !is_positive(*accuracy) {
                        return Err(Error::value(key("accuracy"), "must be positive"));
                    }
                    (Some(*loss), Some(*window))
                }
                Claim::Coverage { loss, group, .. } => {
                    if *group < 2 {
                        return Err(Error::value(key("group"), "must be at least 2"));
                    }
                    (Some(*loss), None)
                }
                Claim::Passes {
                    median,
                    percentile_99,
                } => {
                    if !(is_positive(*median) && is_positive(*percentile_99)) {
                        return Err(Error::value(key("median"), "limits must be positive"));
                    }
                    (None, None)
                }
                Claim::Level { loss, accept, .. } => {
                    if !is_positive(accept[1] - accept[0]) {
                        return Err(Error::value(key("accept"), "must be [low, high]"));
                    }
                    (Some(*loss), None)
                }
                Claim::Intervals { accept, from, .. } => {
                    if !is_positive(accept[1] - accept[0]) {
                        return Err(Error::value(key("accept"), "must be [low, high]"));
                    }
                    (None, Some([*from, f64::INFINITY]))
                }
                Claim::Efficiency {
                    of,
                    reference,
                    from,
                    tolerance,
                    ..
                } => {
                    for (name, level) in [("of", of), ("reference", reference)] {
                        if !self.grid.fit.iter().any(|f| f.name == *level) {
                            let message = format!("\"{level}\" is no level of grid.fit");
                            return Err(Error::value(key(name), message));
                        }
                    }
                    if of == reference {
                        return Err(Error::value(key("reference"), "must differ from `of`"));
                    }
                    if !is_positive(*tolerance) {
                        return Err(Error::value(key("tolerance"), "must be positive"));
                    }
                    (None, Some([*from, f64::INFINITY]))
                }
                Claim::ChiSquare {
                    constant: Constant::Coordinates,
                    ..
                } => {
                    let message = "the mean over coordinates has no chi-square law";
                    return Err(Error::value(key("constant"), message));
                }
                Claim::ChiSquare {
                    constant,
                    from,
                    confidence,
                    ..
                } => {
                    if !(*confidence > 0.0 && *confidence < 1.0) {
                        let message = "must lie between 0 and 1";
                        return Err(Error::value(key("confidence"), message));
                    }
                    let needs = *constant == Constant::HellingerSq;
                    let window = [*from, f64::INFINITY];
                    (needs.then_some(Loss::HellingerSqMean), Some(window))
                }
                Claim::Constant {
                    constant,
                    tolerance,
                    ..
                } => {
                    if !is_positive(*tolerance) {
                        return Err(Error::value(key("tolerance"), "must be positive"));
                    }
                    let needs = *constant == Constant::HellingerSq;
                    (needs.then_some(Loss::HellingerSqMean), None)
                }
            };
            if let Some(loss) = loss
                && !self.losses.contains(&loss)
            {
                return Err(Error::value(
                    key("loss"),
                    format!("needs \"{loss}\" among the study's losses"),
                ));
            }
            let inside = |window: [f64; 2]| {
                let sizes = self.grid.n.values();
                sizes
                    .iter()
                    .filter(|&&n| (window[0]..=window[1]).contains(&(n as f64)))
                    .count()
            };
            let fewest = match claim {
                Claim::Slope { .. } | Claim::SampleSize { .. } => 2,
                _ => 1,
            };
            if let Some(window) = window
                && inside(window) < fewest
            {
                return Err(match fewest {
                    2 => Error::value(key("window"), "must hold at least two of grid.n"),
                    _ => Error::value(key("from"), "is larger than every n"),
                });
            }
            let combinations = self.combinations();
            if !combinations.iter().any(|c| claim.concerns(&c.series)) {
                return Err(Error::value(key("series"), "is part of no series' name"));
            }
        }
        Ok(())
    }

    /// Every combination of the factors besides n, in plan order.
    pub fn combinations(&self) -> Vec<Combination> {
        fn levels<'a>(
            factor: &str,
            names: impl Iterator<Item = &'a String>,
        ) -> Vec<Option<String>> {
            let named: Vec<_> = names.map(|name| Some(format!("{factor}={name}"))).collect();
            if named.is_empty() { vec![None] } else { named }
        }
        let files = match &self.truth {
            Truth::Files(truth) => truth.files.as_slice(),
            _ => &[],
        };
        let truths = levels("truth", files.iter().map(|f| &f.name));
        let gates = levels("gate", self.grid.gate.iter().map(|g| &g.name));
        let fits = levels("fit", self.grid.fit.iter().map(|f| &f.name));
        let starts = levels("start", self.grid.start.iter().map(|s| &s.name));
        let mut combinations = Vec::new();
        for (truth, truth_name) in truths.iter().enumerate() {
            for (gate, gate_name) in gates.iter().enumerate() {
                for (fit, fit_name) in fits.iter().enumerate() {
                    for (start, start_name) in starts.iter().enumerate() {
                        combinations.push(Combination {
                            truth,
                            gate,
                            fit,
                            start,
                            series: join(&[truth_name, gate_name, fit_name, start_name]),
                            data: join(&[truth_name, gate_name]),
                        });
                    }
                }
            }
        }
        combinations
    }

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

/// One level of every factor besides n, by position; 0 where a factor is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// Of the truths.
    pub truth: usize,
    /// Of the gate variants.
    pub gate: usize,
    /// Of the estimators.
    pub fit: usize,
    /// Of the sets of starts.
    pub start: usize,
    /// The levels by name, such as `gate=softplus,start=near`.
    pub series: String,
    /// The part of it that decides the data.
    pub data: String,
}

/// The levels that are there, with commas between.
pub(super) fn join(parts: &[&Option<String>]) -> String {
    let given: Vec<&str> = parts.iter().filter_map(|p| p.as_deref()).collect();
    given.join(",")
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

/// False for NaN too.
fn is_positive(value: f64) -> bool {
    value > 0.0
}

impl GateVariant {
    /// `truth` with this variant's gate.
    ///
    /// # Errors
    /// [`Error::Value`] if the truth's gate is not a competition gate or the
    /// result is not a valid mixture.
    pub fn apply(&self, truth: &Model) -> Result<Model> {
        let mut model = truth.clone();
        let GateKind::Competition {
            response, weights, ..
        } = &mut model.parameters.gate.kind
        else {
            return Err(Error::value(
                "grid.gate",
                "variants need a truth with a competition gate",
            ));
        };
        *response = self.response.unwrap_or(*response);
        *weights = self.weights.unwrap_or(*weights);
        if self.top_k.is_some() {
            model.parameters.gate.top_k = self.top_k;
        }
        if let Some(Biases::None) = self.biases {
            for expert in &mut model.parameters.experts {
                expert.gate = ExpertGate::None;
            }
        }
        model.validate()?;
        Ok(model)
    }
}
