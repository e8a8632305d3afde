//! What a user can type.

use clap::{Parser, ValueEnum};
use smoe_lab::backend::cuda::DeviceChoice;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Fit a mixture of experts to a table by maximum likelihood.
///
/// p(y | x) = sum over experts k of weight_k(x) N(y; mean_k(x), sigma_k^2), means and gate
/// affine in terms of the table's columns.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    /// CSV or Parquet file
    pub table: PathBuf,
    /// Column of the response y
    #[arg(long)]
    pub response: String,
    /// Terms of the experts' means, such as x,x^2,x:z,factor(sex); the intercept is always there
    #[arg(long, default_value = "1", value_name = "TERMS")]
    pub expert: String,
    /// Terms of the gate, likewise
    #[arg(long, default_value = "1", value_name = "TERMS")]
    pub gate: String,
    /// Number of experts, or a range such as 1..6 to choose from
    #[arg(long, value_parser = experts, value_name = "K|A..B")]
    pub experts: RangeInclusive<usize>,
    /// How weights depend on the input; constant where the gate has no terms
    #[arg(long, value_enum)]
    pub gate_kind: Option<GateKind>,
    /// How a competing expert responds with its mean, in standard deviations of y
    #[arg(long, value_enum, default_value = "softplus")]
    pub competition: Response,
    /// Experts that are kept at each input; all if absent
    #[arg(long)]
    pub top_k: Option<NonZeroUsize>,
    /// One variance for all experts
    #[arg(long)]
    pub equal_variance: bool,
    /// Starts of each fit, of four kinds in turn
    #[arg(long, default_value = "100")]
    pub starts: NonZeroUsize,
    /// Seed of starts and bootstrap
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// What a number of experts is chosen by
    #[arg(long, value_enum, default_value = "bic")]
    pub criterion: Criterion,
    /// Least share of the rows of an expert that is not spurious
    #[arg(long, default_value = "0.05", value_name = "SHARE")]
    pub least_share: f64,
    /// Least standard deviation of an expert that is not spurious, in those of y
    #[arg(long, default_value = "0.01", value_name = "RATIO")]
    pub least_sigma: f64,
    /// Level of intervals
    #[arg(long, default_value = "0.95")]
    pub level: f64,
    /// Profile-likelihood intervals as well
    #[arg(long)]
    pub profile: bool,
    /// Standard errors from the expected information as well: what a bootstrap estimates
    #[arg(long)]
    pub expected: bool,
    /// Parametric bootstrap with this many replicates
    #[arg(long, value_name = "REPLICATES")]
    pub bootstrap: Option<NonZeroUsize>,
    /// Table of new rows; predictions go to OUT/predictions.csv
    #[arg(long, requires = "out", value_name = "TABLE")]
    pub predict: Option<PathBuf>,
    /// Levels of predicted quantiles
    #[arg(long, value_delimiter = ',', default_value = "0.025,0.5,0.975")]
    pub quantiles: Vec<f64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Folder that gets page, figures, JSON, residuals and predictions
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Threads; all cores if absent. Results do not depend on it
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// What computes passes over the data: a GPU pays from about a million rows on
    #[arg(long, value_name = "auto|cpu|cuda[:I]", default_value = "cpu")]
    pub device: DeviceChoice,
}

/// Kinds of gate.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GateKind {
    /// Softmax of affine scores
    Softmax,
    /// Weights that do not depend on the input: a mixture of regressions
    Constant,
    /// The experts' own responses, with biases
    Competition,
    /// Normalised sigmoids of affine scores
    Sigmoid,
}

/// Responses of competing experts.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Response {
    /// log(1 + e^m)
    Softplus,
    /// |m|
    Absolute,
    /// m^2 / 2
    Square,
}

/// Criteria.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Criterion {
    /// Akaike's
    Aic,
    /// The Bayesian one
    Bic,
    /// The integrated complete likelihood
    Icl,
    /// That of the dendrogram of the largest fit (arXiv 2510.12744)
    Dendrogram,
}

/// Most experts of one fit.
const MOST: usize = 16;

fn experts(text: &str) -> Result<RangeInclusive<usize>, String> {
    let expected = || format!("expected a number such as 3 or a range such as 1..6, up to {MOST}");
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(k) if (1..=MOST).contains(&k) => Ok(k),
        _ => Err(expected()),
    };
    match text.split_once("..") {
        None => number(text).map(|k| k..=k),
        Some((first, last)) => {
            let last = last.strip_prefix('=').unwrap_or(last);
            let (first, last) = (number(first)?, number(last)?);
            match first <= last {
                true => Ok(first..=last),
                false => Err(expected()),
            }
        }
    }
}
