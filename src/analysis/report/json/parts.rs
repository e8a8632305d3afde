//! The shape of the JSON object; keys in this order.

use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) source: String,
    pub(super) command: Vec<String>,
    pub(super) seconds: f64,
    pub(super) seed: u64,
    pub(super) rows: usize,
    pub(super) response: String,
    pub(super) expert_terms: Vec<String>,
    pub(super) gate_terms: Vec<String>,
    pub(super) gate: &'static str,
    pub(super) top_k: Option<usize>,
    pub(super) equal_variance: bool,
    pub(super) spurious_rule: Rule,
    pub(super) chosen_by: Option<&'static str>,
    #[serde(flatten)]
    pub(super) chosen: ModelReport,
    pub(super) residuals: Option<ResidualReport>,
    pub(super) warnings: Vec<String>,
    pub(super) models: Vec<ModelReport>,
}

#[derive(Serialize)]
pub(super) struct Rule {
    pub(super) least_share: f64,
    pub(super) least_deviation: f64,
}

#[derive(Serialize)]
pub(super) struct ModelReport {
    pub(super) experts: usize,
    pub(super) log_likelihood: Option<f64>,
    pub(super) converged: bool,
    pub(super) attainment: Option<&'static str>,
    pub(super) boundary: Vec<String>,
    pub(super) spurious: Option<String>,
    pub(super) degrees_of_freedom: Option<usize>,
    pub(super) aic: Option<f64>,
    pub(super) bic: Option<f64>,
    pub(super) icl: Option<f64>,
    pub(super) dendrogram: Option<f64>,
    pub(super) parameters: Map<String, Value>,
    pub(super) level: Option<f64>,
    pub(super) standard_errors: Map<String, Value>,
    pub(super) sandwich_errors: Map<String, Value>,
    pub(super) expected_errors: Map<String, Value>,
    pub(super) wald_intervals: Map<String, Value>,
    pub(super) profile_intervals: Map<String, Value>,
    pub(super) bootstrap: Option<BootstrapReport>,
    pub(super) effective_rows: Vec<f64>,
    pub(super) optima: Vec<OptimumReport>,
    pub(super) starts: usize,
    pub(super) failures: Vec<Failures>,
    pub(super) missing: Map<String, Value>,
}

#[derive(Serialize)]
pub(super) struct BootstrapReport {
    pub(super) replicates: usize,
    pub(super) maxima: usize,
    pub(super) others: Map<String, Value>,
    pub(super) standard_deviations: Map<String, Value>,
    pub(super) percentile_intervals: Map<String, Value>,
}

#[derive(Serialize)]
pub(super) struct OptimumReport {
    pub(super) log_likelihood: f64,
    pub(super) gap: f64,
    pub(super) hits: usize,
    pub(super) hits_by_start: Map<String, Value>,
    pub(super) stop: &'static str,
    pub(super) attainment: &'static str,
    pub(super) boundary: Vec<String>,
    pub(super) spurious: Option<String>,
    pub(super) effective_rows: Vec<f64>,
    pub(super) parameters: Map<String, Value>,
}

#[derive(Serialize)]
pub(super) struct Failures {
    pub(super) stop: &'static str,
    pub(super) starts: usize,
    pub(super) largest_log_likelihood: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct ResidualReport {
    pub(super) mean: Value,
    pub(super) standard_deviation: Value,
    pub(super) skewness: Value,
    pub(super) kolmogorov_smirnov: Option<Test>,
}

#[derive(Serialize)]
pub(super) struct Test {
    pub(super) distance: f64,
    pub(super) p_value: f64,
}
