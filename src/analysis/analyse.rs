//! A whole analysis: from a table to everything that is reported.

use super::report::{Analysis, Criteria, Criterion, Estimated, FittedModel, Residuals, Slice};
use super::table::{Cells, Column};
use super::{
    Attainment, Dendrogram, Design, Estimate, Fitted, Formula, Limit, Optimum, Prediction,
    ProfileLimits, Specification, Table, UncertaintyOptions, criteria, dendrogram, predict,
    residuals, search, uncertainty,
};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::model::Parameters;
use std::ops::RangeInclusive;
use std::time::Instant;

/// What is asked of a table.
#[derive(Clone, Debug)]
pub struct Request {
    /// The table's file, as the user named it.
    pub source: String,
    /// The words of the command line.
    pub command: Vec<String>,
    /// Column of the response.
    pub response: String,
    /// Terms of the experts.
    pub expert: Formula,
    /// Terms of the gate.
    pub gate: Formula,
    /// Numbers of experts.
    pub experts: RangeInclusive<usize>,
    /// Gate, variances, starts.
    pub specification: Specification,
    /// What a number of experts is chosen by.
    pub criterion: Criterion,
    /// Intervals of the chosen model.
    pub uncertainty: UncertaintyOptions,
}

/// Fits every number of experts, chooses one, and says how sure it is.
///
/// `step` is told what begins.
///
/// # Errors
/// As [`Design::new`], [`search`] (for the smallest number of experts; larger ones that
/// the rows cannot fix are left out with a warning) and [`uncertainty`].
pub fn analyse(
    backend: &dyn Backend,
    table: &Table,
    request: &Request,
    step: &dyn Fn(&str),
) -> Result<Analysis> {
    let began = Instant::now();
    let design = Design::new(table, &request.response, &request.expert, &request.gate)?;
    let specification = &request.specification;
    let mut warnings = Vec::new();
    let mut models: Vec<FittedModel> = Vec::new();
    for experts in request.experts.clone() {
        step(&format!(
            "{experts} experts: {} starts",
            specification.starts
        ));
        match search(backend, &design, specification, experts) {
            Ok(fitted) => models.push(FittedModel {
                experts,
                criteria: fitted.best().map(|best| numbers(&design, best)),
                fitted,
                estimates: Vec::new(),
            }),
            Err(error) if models.is_empty() => return Err(error),
            Err(error) => {
                warnings.push(format!("{error}: not fitted, nor any with more"));
                break;
            }
        }
    }
    add_dendrogram(backend, &design, &mut models, &mut warnings);
    let (chosen, chosen_by) = choice(&models, request.criterion);
    let model = &mut models[chosen];
    warnings.extend(cautions(&model.fitted, model.experts));
    let mut residuals_of_best = None;
    if let Some(best) = model.fitted.best() {
        step(&format!("{} experts: standard errors", model.experts));
        let known = uncertainty(backend, &design, best, request.uncertainty)?;
        if let Some(fits) = &known.bootstrap
            && fits.used < fits.replicates
        {
            let reasons: Vec<String> = fits
                .left_out
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            warnings.push(format!(
                "bootstrap: {} of {} refits are left out ({})",
                fits.replicates - fits.used,
                fits.replicates,
                reasons.join(", ")
            ));
        }
        residuals_of_best = Some(checked(&design, &best.parameters)?);
        model.estimates = known.estimates.into_iter().map(estimated).collect();
    }
    let slice = slice(table, &design)?;
    Ok(Analysis {
        source: request.source.clone(),
        command: request.command.clone(),
        specification: *specification,
        start_kinds: Fitted::start_kinds(),
        models,
        chosen,
        chosen_by: chosen_by.then_some(request.criterion),
        slice,
        residuals: residuals_of_best,
        warnings,
        seconds: began.elapsed().as_secs_f64(),
        design,
    })
}

/// What the best model of an analysis predicts for new rows: rows of the table, from 0,
/// predictions, warnings.
///
/// # Errors
/// As [`Design::features_of`] and [`predict`]; [`Error::Value`] if there is no fit.
pub fn predictions(
    analysis: &Analysis,
    table: &Table,
    levels: &[f64],
) -> Result<(Vec<usize>, Vec<Prediction>, Vec<String>)> {
    let best = analysis.model().best();
    let best = best.ok_or_else(|| Error::value("--predict", "there is no fit to predict from"))?;
    let design = &analysis.design;
    let new = design.features_of(table)?;
    let mut warnings = new.warnings.clone();
    let standardised = design.standardised_response_of(table, &new)?;
    let complete: Option<Vec<f64>> = standardised.as_ref().and_then(|all| {
        let raw = |z: &Option<f64>| z.map(|z| design.response.mean + design.response.deviation * z);
        all.iter().map(raw).collect()
    });
    if standardised.is_some() && complete.is_none() {
        let name = &design.response.name;
        warnings.push(format!(
            "{name} is missing in some rows: no densities are written"
        ));
    }
    let inputs = new.inputs.view();
    let predicted = predict(
        design,
        &best.parameters,
        inputs,
        complete.as_deref(),
        levels,
    )?;
    Ok((new.rows, predicted, warnings))
}

fn numbers(design: &Design, best: &Optimum) -> Criteria {
    let known = criteria(design, best);
    Criteria {
        degrees_of_freedom: known.parameters,
        aic: known.aic,
        bic: known.bic,
        icl: known.icl,
        dendrogram: None,
    }
}

/// The criterion of every level of the largest model's dendrogram, beside those of the
/// models that were fitted.
fn add_dendrogram(
    backend: &dyn Backend,
    design: &Design,
    models: &mut [FittedModel],
    warnings: &mut Vec<String>,
) {
    if models.len() < 2 {
        return;
    }
    let Some(largest) = models.last().and_then(FittedModel::best) else {
        return;
    };
    let Dendrogram { levels, .. } = match dendrogram(backend, design, &largest.parameters) {
        Ok(tree) => tree,
        Err(reason) => {
            warnings.push(format!("no dendrogram criterion: {reason}"));
            return;
        }
    };
    for model in models {
        let level = levels.iter().find(|l| l.nodes.len() == model.experts);
        if let (Some(level), Some(criteria)) = (level, &mut model.criteria) {
            criteria.dendrogram = level.criterion;
        }
    }
}

/// The model with the smallest criterion, of those whose best optimum counts if any
/// does; and whether there was a choice.
fn choice(models: &[FittedModel], criterion: Criterion) -> (usize, bool) {
    let value = |model: &FittedModel| {
        let criteria = model.criteria?;
        match criterion {
            Criterion::Aic => Some(criteria.aic),
            Criterion::Bic => Some(criteria.bic),
            Criterion::Icl => Some(criteria.icl),
            Criterion::Dendrogram => criteria.dendrogram,
        }
    };
    let counts = |model: &FittedModel| model.best().is_some_and(|o| o.spurious.is_none());
    let any = models.iter().any(counts);
    let known = (0..models.len())
        .filter(|&k| !any || counts(&models[k]))
        .filter_map(|k| Some((k, value(&models[k])?)));
    let least = known.min_by(|a, b| a.1.total_cmp(&b.1));
    let fallback = || models.iter().position(counts).unwrap_or(0);
    (least.map_or_else(fallback, |(k, _)| k), models.len() > 1)
}

/// What the user should know of a fit.
fn cautions(fitted: &Fitted, experts: usize) -> Vec<String> {
    let mut all = Vec::new();
    let Some(best) = fitted.best() else {
        all.push(format!(
            "none of {} starts ended at a certified optimum",
            fitted.starts
        ));
        return all;
    };
    if best.spurious.is_some() {
        all.push("every optimum found is spurious: this is the best of them".to_string());
    }
    let hits: usize = best.hits.iter().sum();
    if experts > 1 && hits <= 1 {
        all.push(format!(
            "one start alone, of {}, found this optimum: others may be better, try more starts",
            fitted.starts
        ));
    }
    if fitted.has_better_failure() {
        all.push("a start that was not certified ended at a larger likelihood".to_string());
    }
    if let Attainment::OnBound(coordinates) = &best.attainment {
        let names: Vec<String> = coordinates.iter().map(ToString::to_string).collect();
        all.push(format!(
            "on the boundary of the parameter set: {}",
            names.join(", ")
        ));
    }
    all
}

/// Residuals beside the fitted means.
fn checked(design: &Design, parameters: &Parameters) -> Result<Residuals> {
    let means = predict(design, parameters, design.data.inputs(), None, &[])?;
    Ok(Residuals {
        fitted: means.into_iter().map(|p| p.mean).collect(),
        quantile: residuals(design, parameters).values,
    })
}

fn estimated(estimate: Estimate) -> Estimated {
    let reason = [
        estimate.standard_error.as_ref().err(),
        estimate.sandwich.as_ref().err(),
        estimate.wald.as_ref().err(),
        estimate.profile.as_ref().and_then(|p| p.as_ref().err()),
        estimate.bootstrap.as_ref().and_then(|b| b.as_ref().err()),
    ];
    let reason = reason.into_iter().flatten().next().map(ToString::to_string);
    Estimated {
        name: estimate.quantity.name,
        part: estimate.quantity.part,
        estimate: estimate.value,
        standard_error: estimate.standard_error.ok(),
        sandwich_error: estimate.sandwich.ok(),
        wald: estimate.wald.ok(),
        profile: estimate.profile.and_then(|p| p.ok()).map(ends),
        reason,
    }
}

fn ends(limits: ProfileLimits) -> [f64; 2] {
    let end = |limit: Limit, infinite: f64| match limit {
        Limit::At(value) | Limit::Bound(value) => value,
        Limit::Unbounded => infinite,
    };
    [
        end(limits.low, f64::NEG_INFINITY),
        end(limits.high, f64::INFINITY),
    ]
}

/// Along the first column of numbers that the terms use, the others at their means,
/// factors at their reference level.
fn slice(table: &Table, design: &Design) -> Result<Option<Slice>> {
    let used = design.columns();
    let Some(covariate) = used.iter().find(|name| !design.is_factor(name)) else {
        return Ok(None);
    };
    let cells = table.numbers(covariate)?;
    let observed: Vec<f64> = design.rows.iter().filter_map(|&row| cells[row]).collect();
    let values = Slice::grid(&observed);
    let columns = used.iter().map(|name| Column {
        name: name.clone(),
        cells: match name == covariate {
            true => Cells::Number(values.iter().copied().map(Some).collect()),
            false => design.typical(name, values.len()),
        },
    });
    let along = Table::from_columns(table.path(), columns.collect())?;
    // A column that is a number and a factor at once has no slice.
    let Ok(new) = design.features_of(&along) else {
        return Ok(None);
    };
    Ok(Some(Slice {
        covariate: covariate.clone(),
        held: used
            .iter()
            .filter(|name| *name != covariate)
            .cloned()
            .collect(),
        observed,
        values,
        inputs: new.inputs,
    }))
}
