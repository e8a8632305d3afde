//! A study's cells, named.

use super::column::Loss;
use super::complete_information::complete_information;
use super::constants::{Regularity, fisher_information};
use super::data::FittedTruth;
use super::study::{
    Admission, Family, Fit, FitVariant, Labels, MOST_ROWS, Precision, Replicates, Study, Truth,
    join,
};
use crate::error::{Error, Result, read_text};
use crate::fit::{Bounds, Start};
use crate::loss::selection::selection_error;
use crate::model::{Model, Parameters, read_model};
use crate::num::sum::mean_and_deviation;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// One combination of the factors.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// What is varied besides n, such as `gate=softplus`; empty if nothing is.
    pub series: String,
    /// The whole name, such as `gate=softplus,n=1000`.
    pub name: String,
    /// The name without estimator and start: cells that differ in nothing else see
    /// the same data.
    pub data_name: String,
    /// Sample size.
    pub n: u64,
    /// Index into [`Plan::truths`].
    pub truth: usize,
    /// Starting points.
    pub starts: Vec<Start>,
}

/// A truth with what every replicate of it needs.
#[derive(Clone, Debug)]
pub struct PlannedTruth {
    /// The levels that decide the data, such as `truth=plane,gate=softplus`.
    pub name: String,
    /// The data-generating mixture.
    pub model: Model,
    /// The same law in the family that is fitted: what the fit's parameters are
    /// compared with.
    pub own: Model,
    /// The estimator.
    pub fit: Fit,
    /// What is fitted: the truth, with experts split where the study says so.
    pub template: Parameters,
    /// The parameter set of the fit.
    pub bounds: Bounds,
    /// Number of free parameters, and information at the truth for those who ask.
    pub regularity: Regularity,
}

/// A study, ready to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The study.
    pub study: Study,
    /// Twelve hexadecimal digits over all that decides a row, and the claims.
    pub hash: String,
    /// The fit that serves as truth, where the truth comes from data.
    pub fitted: Option<FittedTruth>,
    /// One per truth, gate variant and estimator.
    pub truths: Vec<PlannedTruth>,
    /// In the order truth, gate, fit, start, n.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// Resolves the truth and lays out the cells.
    ///
    /// # Errors
    /// As [`read_model`] and [`super::data::DataTruth::fitted`]; [`Error::Value`] if a loss or start does not
    /// fit the truth.
    pub fn new(study: Study) -> Result<Self> {
        let locate = |e: Error| match std::fs::read_to_string(&study.path) {
            Ok(text) => e.located(&study.path, &text),
            Err(_) => e,
        };
        let (bases, fitted) = match &study.truth {
            Truth::File(truth) => (vec![read_model(&study.relative(&truth.file))?], None),
            Truth::Files(truth) => {
                let files = truth.files.iter();
                let models = files.map(|f| read_model(&study.relative(&f.file)));
                (models.collect::<Result<Vec<_>>>()?, None)
            }
            Truth::Data(truth) => {
                let path = study.relative(&truth.data);
                let fitted = truth.fitted(&path).map_err(locate)?;
                (vec![fitted.model.clone()], Some(fitted))
            }
        };
        let truth_identity = match &study.truth {
            Truth::File(_) => bases[0].to_toml(),
            Truth::Files(truth) => {
                let named = truth.files.iter().zip(&bases);
                let text = named.map(|(file, model)| format!("{}\n{}", file.name, model.to_toml()));
                text.collect()
            }
            // The data, not the fit to them: its last digits depend on the machine.
            Truth::Data(truth) => {
                let data = read_text(&study.relative(&truth.data))?;
                let table = serde_json::to_string(truth).expect("plain data");
                format!("{table}\n{data}")
            }
        };
        let fits = study.fits().map_err(locate)?;
        let mut truths: Vec<PlannedTruth> = Vec::new();
        let mut places: Vec<[usize; 3]> = Vec::new();
        let mut cells = Vec::new();
        for combination in study.combinations() {
            let place = [combination.truth, combination.gate, combination.fit];
            let known = places.iter().position(|p| *p == place);
            let truth = match known {
                Some(truth) => truth,
                None => {
                    let base = &bases[combination.truth];
                    let model = match study.grid.gate.get(combination.gate) {
                        Some(variant) => variant.apply(base),
                        None => Ok(base.clone()),
                    };
                    let fit = fits[combination.fit].1.clone();
                    let name = &combination.data;
                    let planned = model.and_then(|m| PlannedTruth::new(&study, name, m, fit));
                    let planned = planned.map_err(|e| study.blame(combination.fit, e));
                    truths.push(planned.map_err(locate)?);
                    places.push(place);
                    truths.len() - 1
                }
            };
            let starts = match study.grid.start.get(combination.start) {
                Some(set) => &set.starts,
                None => &truths[truth].fit.starts,
            };
            for n in study.grid.n.values() {
                let size = Some(format!("n={n}"));
                let with_size = |name: &str| {
                    let name = (!name.is_empty()).then(|| name.to_string());
                    join(&[&name, &size])
                };
                cells.push(Cell {
                    series: combination.series.clone(),
                    name: with_size(&combination.series),
                    data_name: with_size(&combination.data),
                    n,
                    truth,
                    starts: starts.clone(),
                });
            }
        }
        let hash = design_hash(&study, &truth_identity);
        Ok(Plan {
            study,
            hash,
            fitted,
            truths,
            cells,
        })
    }

    /// The series in plan order.
    pub fn series(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.cells.iter().map(|c| c.series.as_str()).collect();
        names.dedup();
        names
    }

    /// Replicates that every cell has at once.
    pub fn first_replicates(&self) -> u64 {
        match &self.study.replicates {
            Replicates::Fixed(count) => *count,
            Replicates::Precision(p) => p.pilot,
        }
    }

    /// Replicates each cell has in the end, given the losses of the pilot
    /// replicates: `pilot(cell, loss)` lists them.
    pub fn replicates(&self, pilot: impl Fn(&Cell, Loss) -> Vec<f64>) -> u64 {
        let Replicates::Precision(precision) = &self.study.replicates else {
            return self.first_replicates();
        };
        let (loss, window) = self.study.first_slope().expect("validated with the study");
        let needed = |series: &str| {
            let cells: Vec<&Cell> = self
                .cells
                .iter()
                .filter(|c| c.series == series)
                .filter(|c| (window[0]..=window[1]).contains(&(c.n as f64)))
                .collect();
            let log_n: Vec<f64> = cells.iter().map(|c| (c.n as f64).ln()).collect();
            let (centre, _) = mean_and_deviation(&log_n);
            let spread: f64 = log_n.iter().map(|v| (v - centre) * (v - centre)).sum();
            // Var(slope) = sum_k c_k^2 cv_k^2 / R with c_k = (log n_k - mean) / spread.
            let variance: f64 = cells
                .iter()
                .zip(&log_n)
                .map(|(cell, v)| {
                    let (mean, deviation) = mean_and_deviation(&pilot(cell, loss));
                    let share = (v - centre) / spread * deviation / mean;
                    share * share
                })
                .sum();
            replicates_for(variance, precision)
        };
        self.series()
            .into_iter()
            .map(needed)
            .max()
            .unwrap_or(precision.pilot)
    }
}

fn replicates_for(variance_of_one: f64, precision: &Precision) -> u64 {
    let wanted = variance_of_one / (precision.target_slope_se * precision.target_slope_se);
    // NaN (a pilot without successes) asks for the most.
    if wanted.is_nan() {
        return precision.at_most;
    }
    (wanted.ceil() as u64).clamp(precision.pilot, precision.at_most)
}

/// The error of a mixture that `[fit]` makes of the truth, under the key that asked
/// for it.
fn of_fit(key: &str, error: Error) -> Error {
    match error {
        Error::Value { message, .. } => Error::value(format!("fit.{key}"), message),
        other => other,
    }
}

impl PlannedTruth {
    /// True if the fit has the truth's own number of experts and keeps as many.
    pub fn is_exact(&self) -> bool {
        let sizes = |p: &Parameters| (p.experts.len(), p.active_experts());
        sizes(&self.template) == sizes(&self.own.parameters)
    }

    fn new(study: &Study, name: &str, model: Model, fit: Fit) -> Result<Self> {
        let own = Model {
            parameters: match fit.family {
                Family::Own => model.parameters.clone(),
                Family::Router => model
                    .parameters
                    .as_router(&model.input)
                    .map_err(|e| of_fit("family", e))?,
            },
            input: model.input.clone(),
        };
        let mut template = match fit.copies.as_slice() {
            [] => own.parameters.clone(),
            copies => own.parameters.split(copies).map_err(|e| e.under("fit"))?,
        };
        if let Some(top_k) = fit.top_k {
            template.gate.top_k = Some(top_k);
            template.validate().map_err(|e| of_fit("top_k", e))?;
        }
        if fit.labels == Labels::Known {
            let refused = |message: &str| Err(Error::value("fit.labels", message));
            if model.input.is_lattice() {
                return refused("a sample of counts on a lattice has no labels");
            }
            // Labels name experts of the truth.
            let sizes = |p: &Parameters| (p.experts.len(), p.active_experts());
            if sizes(&template) != sizes(&own.parameters) {
                return refused("known labels need a fit with the truth's own experts and top_k");
            }
        }
        for loss in &study.losses {
            if let Some(voronoi) = loss.voronoi(own.parameters.gate.kind) {
                crate::loss::voronoi::voronoi_loss(voronoi, &template, &own)
                    .map_err(|e| Error::value("losses", format!("{loss}: {e}")))?;
            }
            if let Loss::Cell(_, expert) = *loss
                && expert >= own.parameters.experts.len()
            {
                let message = format!("{loss}: the truth has no such expert");
                return Err(Error::value("losses", message));
            }
            if let Loss::Selection = loss {
                selection_error(&template, &own)?;
            }
        }
        let largest = study.grid.n.values().into_iter().max().unwrap_or(0);
        if largest > MOST_ROWS && !model.input.is_lattice() {
            return Err(Error::value(
                "grid.n",
                "must be at most 10^9, but on a lattice",
            ));
        }
        let limits = &fit.limits;
        let layout = template.layout();
        limits.check_pairs(&layout, "fit.limits")?;
        let packed = layout.pack(&template);
        let bounds = limits.bounds_around(&layout, &packed);
        for (j, coordinate) in layout.coordinates().iter().enumerate() {
            let slack = 1e-9 * (1.0 + packed[j].abs());
            if packed[j] < bounds.low[j] - slack || packed[j] > bounds.high[j] + slack {
                return Err(Error::value(
                    "fit.limits",
                    format!(
                        "the truth lies outside the parameter set: {coordinate} = {} is not in \
                         [{}, {}]",
                        packed[j], bounds.low[j], bounds.high[j]
                    ),
                ));
            }
        }
        // Of the truth's own structure, whatever is fitted.
        let layout = own.parameters.layout();
        let own_bounds = limits.bounds_around(&layout, &layout.pack(&own.parameters));
        let rule = match fit.labels {
            Labels::Hidden => fisher_information,
            Labels::Known => complete_information,
        };
        let regularity = Regularity::new(&own, &own_bounds, rule);
        Ok(PlannedTruth {
            name: name.to_string(),
            model,
            own,
            fit,
            template,
            bounds,
            regularity,
        })
    }
}

/// SHA-256 over what decides a row (seed, truth, gate variants, estimator,
/// losses) and over the claims, which must not change once rows exist. Sample
/// sizes and the number of replicates are left out: they may grow.
fn design_hash(study: &Study, truth: &str) -> String {
    #[derive(Serialize)]
    struct Design<'a> {
        seed: u64,
        truth: &'a str,
        gates: &'a [super::study::GateVariant],
        fit: &'a Fit,
        #[serde(skip_serializing_if = "<[FitVariant]>::is_empty")]
        fits: &'a [FitVariant],
        starts: &'a [super::study::StartSet],
        losses: &'a [Loss],
        record_parameters: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        record_standard_errors: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        admit: Option<Admission>,
        claims: &'a [super::claim::Claim],
    }
    let design = Design {
        seed: study.seed,
        truth,
        gates: &study.grid.gate,
        fit: &study.fit,
        fits: &study.grid.fit,
        starts: &study.grid.start,
        losses: &study.losses,
        record_parameters: study.record_parameters,
        record_standard_errors: study.record_standard_errors,
        admit: (study.admit != Admission::default()).then_some(study.admit),
        claims: &study.claim,
    };
    digest(&design)
}

/// The first twelve hexadecimal digits of SHA-256 over a design as JSON.
pub(super) fn digest(design: &impl Serialize) -> String {
    let text = serde_json::to_string(design).expect("plain data");
    let digest = Sha256::digest(text.as_bytes());
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
