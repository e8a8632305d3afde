//! The report as one JSON object.
//!
//! Numbers have full precision; one that is missing or not finite is `null`, and
//! `missing` says why. Of what was fitted:
//!
//! | key | value |
//! |---|---|
//! | `version` | of smoe-lab |
//! | `source`, `command`, `seconds`, `seed` | the table's file, the words of the command line, wall clock of the run, seed of the starts |
//! | `rows` | rows used |
//! | `response`, `expert_terms`, `gate_terms` | names; the first term is `(Intercept)` |
//! | `gate` | `softmax`, `constant`, `sigmoid`, `competition-absolute`, `competition-softplus` or `competition-square` |
//! | `top_k` | experts kept at each row; `null` keeps all |
//! | `equal_variance` | whether the experts share a variance |
//! | `spurious_rule` | `least_share` of the rows and `least_deviation` in standard deviations of y |
//! | `chosen_by` | criterion that chose the number of experts; `null` if one was given |
//!
//! Of the chosen model, and of every model in `models`:
//!
//! | key | value |
//! |---|---|
//! | `experts` | number of experts |
//! | `log_likelihood` | of the best optimum, in raw units of y |
//! | `converged` | whether it is certified |
//! | `attainment` | `interior`, `not attained` (the log-likelihood is a supremum) or `on bound` |
//! | `boundary` | names of the parameters that run away or are on a bound |
//! | `spurious` | `null`, or why the optimum does not count: then every one is spurious |
//! | `degrees_of_freedom`, `aic`, `bic`, `icl`, `dendrogram` | free parameters; criteria, smaller is better |
//! | `parameters` | name: value in raw units; the gate's relative to the last expert's, but for the sigmoid gate |
//! | `standard_errors`, `sandwich_errors` | name: from the observed information; robust to a wrong model |
//! | `wald_intervals`, `profile_intervals` | name: `[low, high]`, 95 % |
//! | `effective_rows` | sums of responsibilities, one per expert |
//! | `optima` | every optimum, the best first: `log_likelihood`, `below_best`, `hits`, `hits_by_start` (kind: starts), `stop`, `attainment`, `boundary`, `spurious`, `effective_rows`, `parameters` |
//! | `starts`, `failures` | number of starts; those without a certified optimum: `stop`, `starts`, `largest_log_likelihood` |
//! | `missing` | key, or key.name, of what is `null`: reason |
//!
//! Last come `warnings` (text) and `models`: one object per number of experts, as above.

use super::contents::{Analysis, Criterion, Estimated, FittedModel};
use super::{tables, wording};
use crate::analysis::{Attainment, Optimum, quantities};
use crate::model::VarianceStructure;
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Serialize)]
struct Report {
    version: &'static str,
    source: String,
    command: Vec<String>,
    seconds: f64,
    seed: u64,
    rows: usize,
    response: String,
    expert_terms: Vec<String>,
    gate_terms: Vec<String>,
    gate: &'static str,
    top_k: Option<usize>,
    equal_variance: bool,
    spurious_rule: Rule,
    chosen_by: Option<&'static str>,
    #[serde(flatten)]
    chosen: ModelReport,
    warnings: Vec<String>,
    models: Vec<ModelReport>,
}

#[derive(Serialize)]
struct Rule {
    least_share: f64,
    least_deviation: f64,
}

#[derive(Serialize)]
struct ModelReport {
    experts: usize,
    log_likelihood: Option<f64>,
    converged: bool,
    attainment: Option<&'static str>,
    boundary: Vec<String>,
    spurious: Option<String>,
    degrees_of_freedom: Option<usize>,
    aic: Option<f64>,
    bic: Option<f64>,
    icl: Option<f64>,
    dendrogram: Option<f64>,
    parameters: Map<String, Value>,
    standard_errors: Map<String, Value>,
    sandwich_errors: Map<String, Value>,
    wald_intervals: Map<String, Value>,
    profile_intervals: Map<String, Value>,
    effective_rows: Vec<f64>,
    optima: Vec<OptimumReport>,
    starts: usize,
    failures: Vec<Failures>,
    missing: Map<String, Value>,
}

#[derive(Serialize)]
struct OptimumReport {
    log_likelihood: f64,
    below_best: f64,
    hits: usize,
    hits_by_start: Map<String, Value>,
    stop: &'static str,
    attainment: &'static str,
    boundary: Vec<String>,
    spurious: Option<String>,
    effective_rows: Vec<f64>,
    parameters: Map<String, Value>,
}

#[derive(Serialize)]
struct Failures {
    stop: &'static str,
    starts: usize,
    largest_log_likelihood: Option<f64>,
}

/// The whole report as an indented JSON object with a stable order of keys.
pub fn json(analysis: &Analysis) -> String {
    let (design, specification) = (&analysis.design, &analysis.specification);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        source: analysis.source.clone(),
        command: analysis.command.clone(),
        seconds: analysis.seconds,
        seed: specification.seed,
        rows: analysis.rows(),
        response: design.response.name.clone(),
        expert_terms: design.expert.terms.clone(),
        gate_terms: design.gate.terms.clone(),
        gate: wording::gate_name(specification.gate),
        top_k: specification.top_k,
        equal_variance: specification.variance == VarianceStructure::Shared,
        spurious_rule: Rule {
            least_share: specification.spurious.share,
            least_deviation: specification.spurious.deviation,
        },
        chosen_by: analysis.chosen_by.map(Criterion::name),
        chosen: model(analysis, analysis.model()),
        warnings: analysis.all_warnings().cloned().collect(),
        models: analysis.models.iter().map(|m| model(analysis, m)).collect(),
    };
    let text = serde_json::to_string_pretty(&report);
    text.expect("maps have text keys, so this cannot fail") + "\n"
}

fn model(analysis: &Analysis, model: &FittedModel) -> ModelReport {
    let best = model.best();
    let criteria = model.criteria;
    let mut missing = Map::new();
    let mut all = |key: &str, of: &dyn Fn(&Estimated) -> Value| -> Map<String, Value> {
        let rows = model.estimates.iter();
        rows.map(|row| {
            let value = of(row);
            if has_null(&value) {
                let reason = row.reason.clone();
                let reason = reason.unwrap_or_else(|| no_reason(&value).to_string());
                missing.insert(format!("{key}.{}", row.name), reason.into());
            }
            (row.name.clone(), value)
        })
        .collect()
    };
    let parameters = all("parameters", &|row| number(row.estimate));
    let standard_errors = all("standard_errors", &|row| optional(row.standard_error));
    let sandwich_errors = all("sandwich_errors", &|row| optional(row.sandwich_error));
    let wald_intervals = all("wald_intervals", &|row| interval(row.wald));
    let profile_intervals = all("profile_intervals", &|row| interval(row.profile));
    let mut finite = |key: &str, value: Option<f64>, reason: &str| {
        let kept = value.filter(|v| v.is_finite());
        if kept.is_none() {
            missing.insert(key.to_string(), reason.into());
        }
        kept
    };
    let none = "no start ended at a certified optimum";
    let log_likelihood = finite("log_likelihood", best.map(|b| b.log_likelihood), none);
    let aic = finite("aic", criteria.map(|c| c.aic), none);
    let bic = finite("bic", criteria.map(|c| c.bic), none);
    let icl = finite("icl", criteria.map(|c| c.icl), none);
    let dendrogram = criteria.and_then(|c| c.dendrogram);
    let dendrogram = finite("dendrogram", dendrogram, "not computed for this model");
    ModelReport {
        experts: model.experts,
        log_likelihood,
        converged: best.is_some_and(|best| best.stop.is_converged()),
        attainment: best.map(|best| attainment(&best.attainment)),
        boundary: best.map_or(Vec::new(), |best| wording::boundary(&analysis.design, best)),
        spurious: best.and_then(|best| best.spurious.as_ref().map(wording::spurious)),
        degrees_of_freedom: criteria.map(|c| c.degrees_of_freedom),
        aic,
        bic,
        icl,
        dendrogram,
        parameters,
        standard_errors,
        sandwich_errors,
        wald_intervals,
        profile_intervals,
        effective_rows: best.map_or(Vec::new(), |best| best.effective_rows.clone()),
        optima: optima(analysis, model),
        starts: model.fitted.starts,
        failures: tables::grouped_failures(model)
            .into_iter()
            .map(|(stop, starts, largest)| Failures {
                stop,
                starts,
                largest_log_likelihood: Some(largest).filter(|v| v.is_finite()),
            })
            .collect(),
        missing,
    }
}

fn optima(analysis: &Analysis, model: &FittedModel) -> Vec<OptimumReport> {
    let Some(best) = model.best() else {
        return Vec::new();
    };
    let report = |optimum: &Optimum| {
        let parameters = &optimum.parameters;
        let packed = parameters.layout().pack(parameters);
        let quantities = quantities(&analysis.design, parameters);
        let kinds = analysis.start_kinds.iter().zip(&optimum.hits);
        OptimumReport {
            log_likelihood: optimum.log_likelihood,
            below_best: best.log_likelihood - optimum.log_likelihood,
            hits: tables::hits(optimum),
            hits_by_start: kinds
                .map(|(kind, &hits)| (kind.clone(), hits.into()))
                .collect(),
            stop: optimum.stop.name(),
            attainment: attainment(&optimum.attainment),
            boundary: wording::boundary(&analysis.design, optimum),
            spurious: optimum.spurious.as_ref().map(wording::spurious),
            effective_rows: optimum.effective_rows.clone(),
            parameters: quantities
                .iter()
                .map(|quantity| (quantity.name.clone(), number(quantity.value(&packed))))
                .collect(),
        }
    };
    model.fitted.optima.iter().map(report).collect()
}

fn attainment(attainment: &Attainment) -> &'static str {
    match attainment {
        Attainment::Interior => "interior",
        Attainment::NotAttained(_) => "not attained",
        Attainment::OnBound(_) => "on bound",
    }
}

/// `null` for what is not finite, as `From` does.
fn number(value: f64) -> Value {
    value.into()
}

fn optional(value: Option<f64>) -> Value {
    value.map_or(Value::Null, number)
}

fn interval(ends: Option<[f64; 2]>) -> Value {
    ends.map_or(Value::Null, |ends| ends.map(number).to_vec().into())
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Array(ends) => ends.iter().any(Value::is_null),
        other => other.is_null(),
    }
}

/// What a `null` means where no reason was given.
fn no_reason(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "unbounded",
        _ => "not computed",
    }
}
