//! The file of an inverse-bound study. Format: `docs/studies.md`.

use super::distance::Distance;
use super::split::{Bounds, Split, Spread};
use crate::error::{Error, Result, parse_toml, read_text};
use crate::model::{ExpertKind, Model, Response, Weights, read_model};
use crate::sim::plan::digest;
use crate::sim::study::{GateVariant, LogSpaced, beside, stem};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A table of inverse-bound exponents, read from one TOML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InverseStudy {
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
    /// What is minimised.
    #[serde(default, skip_serializing_if = "Distance::is_default")]
    pub distance: Distance,
    /// Random starts at each spread, beside those from its neighbours.
    pub starts: usize,
    /// The compact set.
    pub bounds: Bounds,
    /// The truths.
    pub gate: Vec<GateEntry>,
    /// What is held apart, and the exponents claimed.
    pub case: Vec<Case>,
    /// The file's stem. Not part of the file.
    #[serde(skip)]
    pub name: String,
    /// The file itself. Not part of the file.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A truth and the expert of it that is split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateEntry {
    /// Its name in tables and cases.
    pub name: String,
    /// Model file, relative to the study's folder.
    pub truth: PathBuf,
    /// The true expert that is split, counted from 0.
    pub expert: usize,
    /// Replaces the kind of all experts of the truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ExpertKind>,
    /// Replaces the truth's response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// Replaces the truth's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

/// One claim: the exponent of the distance in the spread of one coordinate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Names of the gates it is about.
    pub gates: Vec<String>,
    /// Copies of the split expert: 2 or 3.
    pub copies: usize,
    /// The coordinate in which they are held apart.
    pub coordinate: Spread,
    /// The spreads, largest first.
    pub delta: LogSpaced,
    /// Smallest and largest spread of the regression.
    pub window: [f64; 2],
    /// Claimed d log distance / d log delta; `inf`: zero at every spread.
    pub exponent: f64,
    /// Claimed exponent of the mass error at the minimum; absent: not claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_mass: Option<f64>,
    /// The same for tilted masses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tilted_mass: Option<f64>,
    /// Accepted deviation from each claimed exponent.
    pub tolerance: f64,
}

/// One gate of one case: what is minimised along the spreads.
#[derive(Clone, Debug)]
pub struct InverseCell {
    /// The gate's name.
    pub gate: String,
    /// The case.
    pub case: Case,
    /// The fits compared with the truth.
    pub split: Split,
}

/// A study with its truths.
#[derive(Clone, Debug)]
pub struct InversePlan {
    /// The study.
    pub study: InverseStudy,
    /// Twelve hexadecimal digits over all that decides a result, and the claims.
    pub hash: String,
    /// The truths with their gate variants applied, in the order of the gates.
    pub truths: Vec<Model>,
    /// Case by case, gate by gate.
    pub cells: Vec<InverseCell>,
}

/// Reads and checks a study file and its truths.
///
/// # Errors
/// [`Error::File`] or [`Error::Input`] naming file, line and key.
pub fn read_inverse_study(path: &Path) -> Result<InversePlan> {
    let text = read_text(path)?;
    let mut study: InverseStudy = parse_toml(path, &text)?;
    study.path = path.to_path_buf();
    study.name = stem(path);
    study.validate().map_err(|e| e.located(path, &text))?;
    let truths = study
        .gate
        .iter()
        .map(|gate| read_model(&study.relative(&gate.truth)))
        .collect::<Result<Vec<_>>>()?;
    InversePlan::new(study, truths).map_err(|e| e.located(path, &text))
}

impl InversePlan {
    fn new(study: InverseStudy, truths: Vec<Model>) -> Result<Self> {
        let truths = study
            .gate
            .iter()
            .zip(truths)
            .enumerate()
            .map(|(g, (gate, truth))| {
                gate.apply(truth)
                    .map_err(|e| e.under(&format!("gate[{g}]")))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut cells = Vec::new();
        for (c, case) in study.case.iter().enumerate() {
            for name in &case.gates {
                let g = study.gate.iter().position(|gate| gate.name == *name);
                let g = g.expect("validated with the study");
                let split = Split::new(
                    &truths[g],
                    study.gate[g].expert,
                    case.copies,
                    case.coordinate,
                    &study.bounds,
                    study.distance,
                );
                let of_gate = |key: &str| matches!(key, "truth" | "expert");
                cells.push(InverseCell {
                    gate: name.clone(),
                    case: case.clone(),
                    split: split.map_err(|e| match &e {
                        Error::Value { key, .. } if of_gate(key) => e.under(&format!("gate[{g}]")),
                        _ => e.under(&format!("case[{c}]")),
                    })?,
                });
            }
        }
        let hash = design_hash(&study, &truths);
        Ok(InversePlan {
            study,
            hash,
            truths,
            cells,
        })
    }
}

impl InversePlan {
    /// The same study made small, to see that it works: the three largest spreads
    /// of each case from one random start. Its name and hash are its own, so that
    /// its minima are never taken for the study's; its windows are empty, so that
    /// it decides nothing.
    pub fn smoke(mut self) -> Self {
        const SPREADS: usize = 3;
        const EMPTY: [f64; 2] = [0.0, 0.0];
        let shorten = |case: &mut Case| {
            let last = case.delta.points.min(SPREADS);
            let to = case.delta.values()[last - 1];
            // A short number for headings.
            case.delta.to = format!("{to:.2e}").parse().unwrap_or(to);
            case.delta.points = last;
            case.window = EMPTY;
        };
        self.study.name.push_str("-smoke");
        self.study.starts = 1;
        self.study.case.iter_mut().for_each(shorten);
        self.cells
            .iter_mut()
            .for_each(|cell| shorten(&mut cell.case));
        self.hash = design_hash(&self.study, &self.truths);
        self
    }
}

impl GateEntry {
    /// `truth` with this entry's kind of experts, response and weights.
    fn apply(&self, mut truth: Model) -> Result<Model> {
        if let Some(kind) = self.kind {
            let experts = &mut truth.parameters.experts;
            experts.iter_mut().for_each(|e| e.kind = kind);
            let refused = |e| Error::value("kind", format!("does not fit the truth: {e}"));
            truth.parameters.validate().map_err(refused)?;
        }
        if self.response.is_none() && self.weights.is_none() {
            return Ok(truth);
        }
        let variant = GateVariant {
            name: self.name.clone(),
            response: self.response,
            weights: self.weights,
            top_k: None,
            biases: None,
        };
        let refused = |_| Error::value("response", "variants need a truth with a competition gate");
        variant.apply(&truth).map_err(refused)
    }
}

impl InverseStudy {
    /// A path of the study file, relative to the study's folder.
    pub fn relative(&self, path: &Path) -> PathBuf {
        beside(&self.path, path)
    }

    fn validate(&self) -> Result<()> {
        self.bounds.validate()?;
        let names: HashSet<&str> = self.gate.iter().map(|g| g.name.as_str()).collect();
        let plain = |n: &str| !n.is_empty() && !n.contains(['"', '\n']) && n.trim() == n;
        if names.len() != self.gate.len() || !names.iter().all(|n| plain(n)) {
            let message = "names must be distinct, not empty, and free of quotes";
            return Err(Error::value("gate", message));
        }
        let mut seen = HashSet::new();
        for (c, case) in self.case.iter().enumerate() {
            case.validate()
                .map_err(|e| e.under(&format!("case[{c}]")))?;
            for gate in &case.gates {
                let key = || format!("case[{c}].gates");
                if !names.contains(gate.as_str()) {
                    return Err(Error::value(key(), format!("there is no gate `{gate}`")));
                }
                if !seen.insert((gate, case.copies, case.coordinate)) {
                    let message =
                        format!("`{gate}` has this coordinate and number of copies twice");
                    return Err(Error::value(key(), message));
                }
            }
        }
        if seen.is_empty() {
            return Err(Error::value(
                "case",
                "at least one case with a gate is needed",
            ));
        }
        Ok(())
    }
}

impl Case {
    fn validate(&self) -> Result<()> {
        let LogSpaced { from, to, points } = self.delta;
        if !(to > 0.0 && from > to && from.is_finite() && (2..=1000).contains(&points)) {
            let message = "needs from > to > 0 and 2 to 1000 points";
            return Err(Error::value("delta", message));
        }
        if self.delta_in_window().count() < 2 {
            return Err(Error::value("window", "must hold at least two spreads"));
        }
        if self.exponent.is_nan() || self.exponent == f64::NEG_INFINITY {
            return Err(Error::value("exponent", "must be a number or inf"));
        }
        let masses = [self.raw_mass, self.tilted_mass];
        if masses.into_iter().flatten().any(|e| !e.is_finite()) {
            return Err(Error::value("raw_mass", "claims on masses must be finite"));
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            return Err(Error::value("tolerance", "must be positive"));
        }
        Ok(())
    }

    /// True if a spread belongs to the regression; ends belong to it, in spite
    /// of rounding.
    pub fn is_in_window(&self, delta: f64) -> bool {
        const SLACK: f64 = 1e-9;
        delta >= self.window[0] * (1.0 - SLACK) && delta <= self.window[1] * (1.0 + SLACK)
    }

    fn delta_in_window(&self) -> impl Iterator<Item = f64> + '_ {
        self.delta
            .values()
            .into_iter()
            .filter(|d| self.is_in_window(*d))
    }
}

/// SHA-256 over truths, gates, cases, bounds, starts, seed and a distance other
/// than the default; prose and paths are left out.
fn design_hash(study: &InverseStudy, truths: &[Model]) -> String {
    #[derive(Serialize)]
    struct Design<'a> {
        seed: u64,
        #[serde(skip_serializing_if = "Distance::is_default")]
        distance: Distance,
        starts: usize,
        bounds: &'a Bounds,
        gates: Vec<(&'a str, usize, String)>,
        cases: &'a [Case],
    }
    let gates = study.gate.iter().zip(truths);
    let design = Design {
        seed: study.seed,
        distance: study.distance,
        starts: study.starts,
        bounds: &study.bounds,
        gates: gates
            .map(|(gate, truth)| (gate.name.as_str(), gate.expert, truth.to_toml()))
            .collect(),
        cases: &study.case,
    };
    digest(&design)
}
