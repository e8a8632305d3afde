//! The file of a top-K study. Format: `docs/studies.md`.

use super::duplicate::duplicate;
use crate::error::{Error, Result, parse_toml, read_text};
use crate::model::{GateKind, InputLaw, Model, Parameters, read_model};
use crate::sim::plan::digest;
use crate::sim::study::{beside, stem};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A table of infima, read from one TOML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKStudy {
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
    /// Root of the random starts.
    pub seed: u64,
    /// Random starts of each search, beside the centre of its box.
    pub starts: usize,
    /// Inputs of the search: the middles of so many equal cells. What is found is
    /// evaluated by quadrature over the continuous law.
    pub points: usize,
    /// The cases.
    pub case: Vec<TopKCase>,
    /// The file's stem. Not part of the file.
    #[serde(skip)]
    pub name: String,
    /// The file itself. Not part of the file.
    #[serde(skip)]
    pub path: PathBuf,
}

/// Fits that keep the same number of experts, one for each share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKCase {
    /// Its name in tables.
    pub name: String,
    /// Model file, relative to the study's folder.
    pub truth: PathBuf,
    /// The true expert that has two copies, counted from 0.
    pub expert: usize,
    /// How many experts the fit keeps.
    pub kept: usize,
    /// Shares of the first copy.
    pub shares: Vec<f64>,
    /// Mass of both copies, as a multiple of the true expert's.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub mass: f64,
    /// Half-width of the box over which E_X h^2 is minimised, in all packed
    /// coordinates; 0: the fit as it is.
    pub radius: f64,
    /// Claimed range of E_X h^2, one for each share.
    pub accept: Vec<[f64; 2]>,
}

fn one() -> f64 {
    1.0
}

fn is_one(value: &f64) -> bool {
    *value == 1.0
}

/// One share of one case.
#[derive(Clone, Debug)]
pub struct TopKCell {
    /// The case.
    pub case: TopKCase,
    /// Share of the first copy.
    pub share: f64,
    /// Claimed range of E_X h^2.
    pub accept: [f64; 2],
    /// The truth.
    pub truth: Model,
    /// The centre of the box.
    pub centre: Parameters,
}

/// A study with its truths.
#[derive(Clone, Debug)]
pub struct TopKPlan {
    /// The study.
    pub study: TopKStudy,
    /// Twelve hexadecimal digits over all that decides a result, and the claims.
    pub hash: String,
    /// Case by case, share by share.
    pub cells: Vec<TopKCell>,
}

/// Reads and checks a study file and its truths.
///
/// # Errors
/// [`Error::File`] or [`Error::Input`] naming file, line and key.
pub fn read_top_k_study(path: &Path) -> Result<TopKPlan> {
    let text = read_text(path)?;
    let mut study: TopKStudy = parse_toml(path, &text)?;
    study.path = path.to_path_buf();
    study.name = stem(path);
    study.validate().map_err(|e| e.located(path, &text))?;
    let truths = study
        .case
        .iter()
        .map(|case| read_model(&study.relative(&case.truth)))
        .collect::<Result<Vec<_>>>()?;
    TopKPlan::new(study, &truths).map_err(|e| e.located(path, &text))
}

impl TopKPlan {
    fn new(study: TopKStudy, truths: &[Model]) -> Result<Self> {
        let mut cells = Vec::new();
        for (c, (case, truth)) in study.case.iter().zip(truths).enumerate() {
            let under = |e: Error| e.under(&format!("case[{c}]"));
            check_truth(truth).map_err(under)?;
            for (&share, &accept) in case.shares.iter().zip(&case.accept) {
                let parameters = &truth.parameters;
                let centre = duplicate(parameters, case.expert, case.kept, share, case.mass);
                cells.push(TopKCell {
                    case: case.clone(),
                    share,
                    accept,
                    truth: truth.clone(),
                    centre: centre.map_err(under)?,
                });
            }
        }
        let hash = design_hash(&study, truths);
        Ok(TopKPlan { study, hash, cells })
    }

    /// The same study made small, to see that it works: no random start and a
    /// coarse grid. Its name and hash are its own.
    pub fn smoke(mut self) -> Self {
        const POINTS: usize = 20;
        self.study.name.push_str("-smoke");
        self.study.starts = 0;
        self.study.points = self.study.points.min(POINTS);
        self.hash.push_str("-smoke");
        self
    }
}

impl TopKStudy {
    /// A path of the study file, relative to the study's folder.
    pub fn relative(&self, path: &Path) -> PathBuf {
        beside(&self.path, path)
    }

    fn validate(&self) -> Result<()> {
        if !(1..=100_000).contains(&self.points) {
            return Err(Error::value("points", "must be between 1 and 100000"));
        }
        let mut names = HashSet::new();
        for (c, case) in self.case.iter().enumerate() {
            let wrong =
                |key: &str, message: &str| Err(Error::value(format!("case[{c}].{key}"), message));
            if case.name.is_empty() || !names.insert(case.name.as_str()) {
                return wrong("name", "names must be distinct and not empty");
            }
            if case.shares.is_empty() || case.accept.len() != case.shares.len() {
                return wrong("accept", "must have one range for each share, at least one");
            }
            if case
                .accept
                .iter()
                .any(|[low, high]| low > high || low.is_nan() || high.is_nan())
            {
                return wrong("accept", "ranges need low <= high");
            }
            if !(case.radius >= 0.0 && case.radius.is_finite()) {
                return wrong("radius", "must be finite and not negative");
            }
        }
        match names.is_empty() {
            true => Err(Error::value("case", "at least one case is needed")),
            false => Ok(()),
        }
    }
}

fn check_truth(truth: &Model) -> Result<()> {
    let line = matches!(&truth.input, InputLaw::Uniform { low, .. } if low.len() == 1);
    if !line {
        return Err(Error::value("truth", "needs a uniform law on an interval"));
    }
    match truth.parameters.gate.kind {
        GateKind::Softmax => Ok(()),
        _ => Err(Error::value("truth", "needs a softmax router")),
    }
}

/// SHA-256 over truths, cases, points, starts and seed; prose and paths are left
/// out.
fn design_hash(study: &TopKStudy, truths: &[Model]) -> String {
    #[derive(Serialize)]
    struct Design {
        seed: u64,
        starts: usize,
        points: usize,
        cases: Vec<(String, TopKCase)>,
    }
    let cases = study.case.iter().zip(truths);
    let without_path = |case: &TopKCase| TopKCase {
        truth: PathBuf::new(),
        ..case.clone()
    };
    digest(&Design {
        seed: study.seed,
        starts: study.starts,
        points: study.points,
        cases: cases
            .map(|(case, truth)| (truth.to_toml(), without_path(case)))
            .collect(),
    })
}
