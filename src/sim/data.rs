//! A truth from data: one maximum-likelihood fit that a study then simulates.

use crate::backend::Cpu;
use crate::error::{Error, Result};
use crate::fit::{self, Centre, Limits, Method, Options, Outcome, Start, StartContext};
use crate::model::{
    Data, Expert, ExpertGate, ExpertKind, Gate, GateKind, InputLaw, Model, Parameters, Selection,
    VarianceStructure,
};
use crate::num::sum::mean_and_deviation;
use crate::rng::{Purpose, Stream};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `[truth]` of a study that starts from a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataTruth {
    /// CSV file with a header, relative to the study's folder.
    pub data: PathBuf,
    /// Column of y.
    pub response: String,
    /// Columns the experts' means depend on.
    pub expert: Vec<String>,
    /// Columns the router's scores depend on.
    pub gate: Vec<String>,
    /// Number of experts.
    pub experts: usize,
    /// "softmax" or "constant".
    pub gate_kind: DataGate,
    /// Where simulated inputs come from.
    pub inputs: Inputs,
    /// Units of the inputs in the fit and in the simulations. A router's weights
    /// at the origin enter its Voronoi loss, so the origin should lie among the
    /// data.
    pub units: Units,
    /// Random starts of the fit, beside one k-means start.
    pub random_starts: usize,
    /// Root of the starts' random streams.
    pub seed: u64,
    /// The compact parameter set of the fit to the data.
    pub limits: Limits,
}

/// Gates that can be fitted to data here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataGate {
    /// A softmax router.
    Softmax,
    /// Constant weights: a mixture of regressions.
    Constant,
}

/// Units of the input columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// As in the file.
    Raw,
    /// Minus the column's mean, over its standard deviation.
    Standardised,
}

/// The input law of the simulations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    /// Rows of the file, drawn with replacement.
    Resample,
    /// The distinct rows of inputs, each equally likely.
    Distinct,
}

/// The fit that serves as truth.
#[derive(Clone, Debug, PartialEq)]
pub struct FittedTruth {
    /// The mixture and the input law to simulate from.
    pub model: Model,
    /// The best outcome.
    pub outcome: Outcome,
    /// How many starts reached the best log-likelihood within 1e-6.
    pub hits: usize,
    /// How many starts there were.
    pub starts: usize,
    /// Rows of the data.
    pub rows: usize,
}

impl DataTruth {
    /// Fits the mixture to the file by multi-start maximum likelihood.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`] for what is wrong with the file or its
    /// columns, or if no start reaches a certified maximum.
    pub fn fitted(&self, path: &Path) -> Result<FittedTruth> {
        if self.experts == 0 {
            return Err(Error::value("truth.experts", "must be at least 1"));
        }
        self.limits.validate("truth.limits")?;
        if self.limits.centre == Centre::Truth {
            let message = "must be \"origin\": the truth is not known yet";
            return Err(Error::value("truth.limits.centre", message));
        }
        let mut columns: Vec<String> = self.expert.clone();
        columns.extend(
            self.gate
                .iter()
                .filter(|c| !self.expert.contains(c))
                .cloned(),
        );
        let data = read_data(path, &columns, &self.response)?;
        let data = match self.units {
            Units::Raw => data,
            Units::Standardised => standardised(path, &columns, &data)?,
        };
        let template = self.template(columns.len());
        let layout = template.layout();
        let bounds = self.limits_with_absent_columns(&columns).bounds(&layout);
        let context = StartContext {
            template: &template,
            truth: None,
            data: &data,
            bounds: &bounds,
        };
        let mut starts = vec![Start::KMeans];
        starts.extend(vec![Start::Random; self.random_starts]);
        let options = Options {
            method: Method::Em,
            max_iterations: 500,
            gain: 1e-3,
            pilot_rows: None,
            ..Options::default()
        };
        let stream = |k: usize| Stream::named(self.seed, "truth", 0, Purpose::Start(k as u32));
        let result = fit::fit(&Cpu::new(), context, &starts, stream, &options)?;
        let certified = |o: &&Outcome| o.stop.is_converged() && o.on_bound.is_empty();
        let best = result
            .outcomes
            .iter()
            .filter(certified)
            .max_by(|a, b| a.log_likelihood.total_cmp(&b.log_likelihood))
            .ok_or_else(|| {
                Error::input(
                    path,
                    "truth",
                    "no start reached a certified maximum inside the limits",
                )
            })?
            .clone();
        let hits = result
            .outcomes
            .iter()
            .filter(|o| (o.log_likelihood - best.log_likelihood).abs() < 1e-6)
            .count();
        let mut points: Vec<Vec<f64>> = (0..data.len()).map(|i| data.row(i).0).collect();
        if self.inputs == Inputs::Distinct {
            points.sort_by(|a, b| a.partial_cmp(b).expect("finite"));
            points.dedup();
        }
        Ok(FittedTruth {
            model: Model {
                input: InputLaw::Grid {
                    points,
                    lattice: None,
                },
                parameters: best.parameters.clone(),
            },
            outcome: best,
            hits,
            starts: starts.len(),
            rows: data.len(),
        })
    }

    fn template(&self, dimension: usize) -> Parameters {
        let (kind, gate) = match self.gate_kind {
            DataGate::Softmax => (
                GateKind::Softmax,
                ExpertGate::Router {
                    slope: vec![0.0; dimension],
                    intercept: 0.0,
                },
            ),
            DataGate::Constant => (GateKind::Constant, ExpertGate::Bias(0.0)),
        };
        let expert = Expert {
            kind: ExpertKind::Linear,
            slope: vec![0.0; dimension],
            intercept: 0.0,
            scale: None,
            variance: 1.0,
            gate,
        };
        Parameters {
            gate: Gate {
                kind,
                top_k: None,
                selection: Selection::default(),
            },
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![expert; self.experts],
        }
    }

    /// Columns that only one of experts and gate use have slope zero in the other.
    fn limits_with_absent_columns(&self, columns: &[String]) -> Limits {
        let mut limits = self.limits.clone();
        for (j, column) in columns.iter().enumerate() {
            for i in 0..self.experts {
                if !self.expert.contains(column) {
                    limits.zero_slopes.push([i, j]);
                }
                if !self.gate.contains(column) {
                    limits.zero_gate_slopes.push([i, j]);
                }
            }
        }
        limits
    }
}

/// The data with every input column at mean 0 and standard deviation 1.
fn standardised(path: &Path, columns: &[String], data: &Data) -> Result<Data> {
    let mut inputs = data.inputs().to_owned();
    for (mut column, name) in inputs.columns_mut().into_iter().zip(columns) {
        let (mean, deviation) = mean_and_deviation(&column.to_vec());
        if deviation == 0.0 {
            return Err(Error::input(path, name, "the column is constant"));
        }
        column.map_inplace(|x| *x = (*x - mean) / deviation);
    }
    Data::new(inputs, Array1::from(data.responses().to_vec()))
}

/// Reads the named columns of a CSV file with a header.
///
/// # Errors
/// [`Error::File`]; [`Error::Input`] naming line and column for a missing
/// column, a row of the wrong length or a value that is not a finite number.
pub fn read_data(path: &Path, inputs: &[String], response: &str) -> Result<Data> {
    read_columns(path, inputs, response, false)
}

/// As [`read_data`], of a file that must have no other columns.
///
/// # Errors
/// As [`read_data`]; [`Error::Input`] naming a further column.
pub fn read_points(path: &Path, inputs: &[String], response: &str) -> Result<Data> {
    read_columns(path, inputs, response, true)
}

fn read_columns(path: &Path, inputs: &[String], response: &str, only: bool) -> Result<Data> {
    let text = crate::error::read_text(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let at = |line: Option<usize>, key: &str, message: String| Error::Input {
        path: path.to_path_buf(),
        line,
        key: key.to_string(),
        message,
    };
    let header = reader
        .headers()
        .map_err(|e| at(Some(1), "", e.to_string()))?
        .clone();
    let position = |name: &str| {
        header.iter().position(|h| h == name).ok_or_else(|| {
            let known: Vec<&str> = header.iter().collect();
            at(
                Some(1),
                name,
                format!("no such column; the file has {}", known.join(", ")),
            )
        })
    };
    let wanted: Vec<(String, usize)> = inputs
        .iter()
        .map(String::as_str)
        .chain([response])
        .map(|name| Ok((name.to_string(), position(name)?)))
        .collect::<Result<_>>()?;
    let spare = (0..header.len()).find(|k| wanted.iter().all(|(_, used)| used != k));
    if let Some(name) = spare.filter(|_| only).and_then(|k| header.get(k)) {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("expected the columns {} and no other", names.join(", "));
        return Err(at(Some(1), name, message));
    }
    let mut values = Vec::new();
    let mut responses = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map(|p| p.line() as usize);
            at(
                line,
                "",
                "the row has another number of fields than the header".to_string(),
            )
        })?;
        let line = record.position().map(|p| p.line() as usize);
        for (k, (name, column)) in wanted.iter().enumerate() {
            let field = &record[*column];
            let value = field
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite())
                .ok_or_else(|| {
                    at(
                        line,
                        name,
                        format!("expected a finite number, got \"{field}\""),
                    )
                })?;
            if k < inputs.len() {
                values.push(value);
            } else {
                responses.push(value);
            }
        }
    }
    if responses.is_empty() {
        return Err(at(None, "", "the file has no rows".to_string()));
    }
    let shape = (responses.len(), inputs.len());
    let inputs = Array2::from_shape_vec(shape, values).expect("as many values as fields read");
    Data::new(inputs, Array1::from(responses))
}
