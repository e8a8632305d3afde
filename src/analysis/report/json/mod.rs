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
//! | `degrees_of_freedom`, `aic`, `bic`, `icl`, `dendrogram` | free parameters; criteria, smaller is better (the dendrogram's only where several numbers of experts were fitted) |
//! | `parameters` | name: value in raw units; the gate's relative to the last expert's, but for the sigmoid gate |
//! | `level` | of the intervals; `null` if nothing beside the estimates was computed |
//! | `standard_errors`, `sandwich_errors`, `expected_errors` | name: from the observed information; robust to a wrong model; from the expected information, if asked for |
//! | `wald_intervals` | name: `[low, high]` |
//! | `profile_intervals` | likewise, if asked for; an unbounded end is `null` |
//! | `bootstrap` | `null`, or `replicates`, `maxima`, `others` (reason: refits), `standard_deviations`, `percentile_intervals` |
//! | `effective_rows` | sums of responsibilities, one per expert |
//! | `optima` | every optimum, the best first, spurious ones last: `log_likelihood`, `gap` (below the best), `hits`, `hits_by_start` (kind: starts; `rearranged` ones are made of other optima), `stop`, `attainment`, `boundary`, `spurious`, `effective_rows`, `parameters` |
//! | `starts`, `failures` | number of starts; those without a certified optimum: `stop`, `starts`, `largest_log_likelihood` |
//! | `missing` | key, or key.name, of what is `null`: reason |
//!
//! Last come `residuals` of the chosen model (`mean`, `standard_deviation`, `skewness`,
//! `kolmogorov_smirnov`: `distance`, `p_value`), `warnings` (text) and `models`: one
//! object per number of experts, as above.

mod parts;

use super::contents::{Analysis, Criterion, FittedModel};
use super::estimate_rows::{EstimateRow, Interval, estimate_rows};
use super::{tables, wording};
use crate::analysis::{Attainment, Fitted, Optimum, Residuals, quantities};
use crate::model::VarianceStructure;
use parts::{
    BootstrapReport, Failures, ModelReport, OptimumReport, Report, ResidualReport, Rule, Test,
};
use serde_json::{Map, Value};

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
        residuals: analysis.residuals.as_ref().map(residuals),
        warnings: analysis.all_warnings(),
        models: analysis.models.iter().map(|m| model(analysis, m)).collect(),
    };
    let text = serde_json::to_string_pretty(&report);
    text.expect("maps have text keys, so this cannot fail") + "\n"
}

/// A value, and why it is missing if it is.
type Known = (Value, Option<String>);

/// What is `null`, and why.
#[derive(Default)]
struct Reasons(Map<String, Value>);

impl Reasons {
    /// One value per quantity.
    fn named(
        &mut self,
        key: &str,
        rows: &[EstimateRow],
        of: impl Fn(&EstimateRow) -> Known,
    ) -> Map<String, Value> {
        let mut named = |row: &EstimateRow| {
            let (value, reason) = of(row);
            if let Some(plain) = plain_reason(&value) {
                let reason = reason.unwrap_or(plain.to_string());
                self.0.insert(format!("{key}.{}", row.name), reason.into());
            }
            (row.name.clone(), value)
        };
        rows.iter().map(&mut named).collect()
    }

    fn finite(&mut self, key: &str, value: Option<f64>, reason: &str) -> Option<f64> {
        let kept = value.filter(|v| v.is_finite());
        if kept.is_none() {
            self.0.insert(key.to_string(), reason.into());
        }
        kept
    }
}

/// What a `null` means where no reason was given; `None` if there is no `null`.
fn plain_reason(value: &Value) -> Option<&'static str> {
    match value {
        Value::Array(ends) if ends.iter().any(Value::is_null) => Some("unbounded"),
        Value::Null => Some("not computed"),
        _ => None,
    }
}

fn model(analysis: &Analysis, model: &FittedModel) -> ModelReport {
    let best = model.best();
    let rows = estimate_rows(&analysis.design, model);
    let mut reasons = Reasons::default();
    let mut named = |key: &str, of: fn(&EstimateRow) -> Known| reasons.named(key, &rows, of);
    let parameters = named("parameters", |row| (row.value.into(), None));
    let standard_errors = named("standard_errors", |row| {
        (row.standard_error.into(), row.reason.clone())
    });
    let expected_errors = match rows.iter().any(|row| row.expected.is_some()) {
        true => named("expected_errors", |row| {
            (row.expected.into(), row.reason.clone())
        }),
        false => Map::new(),
    };
    let sandwich_errors = named("sandwich_errors", |row| {
        (row.sandwich.into(), row.reason.clone())
    });
    let wald_intervals = named("wald_intervals", |row| (ends(row.wald), row.reason.clone()));
    let has_profiles = rows.iter().any(EstimateRow::has_profile);
    let profile_intervals = match has_profiles {
        true => named("profile_intervals", |row| {
            (profile(row.profile), row.profile_reason.clone())
        }),
        false => Map::new(),
    };
    let uncertainty = model.uncertainty.as_ref();
    let fits = uncertainty.and_then(|u| u.bootstrap.as_ref());
    let bootstrap = fits.map(|fits| BootstrapReport {
        replicates: fits.replicates,
        maxima: fits.maxima,
        others: fits
            .others
            .iter()
            .map(|(reason, count)| (reason.to_string(), (*count).into()))
            .collect(),
        standard_deviations: named("bootstrap.standard_deviations", |row| {
            (row.bootstrap.into(), row.bootstrap_reason.clone())
        }),
        percentile_intervals: named("bootstrap.percentile_intervals", |row| {
            (ends(row.percentile), row.bootstrap_reason.clone())
        }),
    });
    let none = "no start ended at a certified optimum";
    let log_likelihood = best.map(|best| best.log_likelihood);
    let log_likelihood = reasons.finite("log_likelihood", log_likelihood, none);
    let mut of = |key: &str, criterion: Criterion, reason: &str| {
        reasons.finite(key, analysis.criterion(model, criterion), reason)
    };
    ModelReport {
        experts: model.experts,
        log_likelihood,
        converged: best.is_some_and(|best| best.stop.is_converged()),
        attainment: best.map(|best| attainment(&best.attainment)),
        boundary: best.map_or(Vec::new(), |best| wording::boundary(&analysis.design, best)),
        spurious: best.and_then(|best| best.spurious.as_ref().map(wording::spurious)),
        degrees_of_freedom: model.criteria.as_ref().map(|c| c.parameters),
        aic: of("aic", Criterion::Aic, none),
        bic: of("bic", Criterion::Bic, none),
        icl: of("icl", Criterion::Icl, none),
        dendrogram: of(
            "dendrogram",
            Criterion::Dendrogram,
            "not computed for this model",
        ),
        parameters,
        level: uncertainty.map(|u| u.level),
        standard_errors,
        sandwich_errors,
        expected_errors,
        wald_intervals,
        profile_intervals,
        bootstrap,
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
        missing: reasons.0,
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
        let kinds = Fitted::start_kinds();
        OptimumReport {
            log_likelihood: optimum.log_likelihood,
            gap: best.log_likelihood - optimum.log_likelihood,
            hits: tables::hits(optimum),
            hits_by_start: kinds
                .into_iter()
                .zip(optimum.hits.iter().map(|&hits| hits.into()))
                .collect(),
            stop: optimum.stop.name(),
            attainment: attainment(&optimum.attainment),
            boundary: wording::boundary(&analysis.design, optimum),
            spurious: optimum.spurious.as_ref().map(wording::spurious),
            effective_rows: optimum.effective_rows.clone(),
            parameters: quantities
                .into_iter()
                .map(|quantity| (quantity.name.clone(), quantity.value(&packed).into()))
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

fn residuals(residuals: &Residuals) -> ResidualReport {
    let test = residuals.kolmogorov_smirnov;
    ResidualReport {
        mean: residuals.mean.into(),
        standard_deviation: residuals.deviation.into(),
        skewness: residuals.skewness.into(),
        kolmogorov_smirnov: test.map(|test| Test {
            distance: test.distance,
            p_value: test.p_value,
        }),
    }
}

/// An interval; what is not finite becomes `null`.
fn ends(ends: Option<[f64; 2]>) -> Value {
    ends.map(|ends| ends.to_vec()).into()
}

fn profile(interval: Option<Interval>) -> Value {
    ends(interval.map(|interval| interval.ends))
}
