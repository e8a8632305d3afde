//! A whole analysis: from a table to everything that is reported.

use super::report::{Analysis, Criterion, FittedModel, Slice};
use super::{
    Design, Formula, Prediction, Specification, Table, UncertaintyOptions, criteria, dendrogram,
    predict, residuals, search, uncertainty,
};
use crate::backend::Backend;
use crate::error::{Error, Result};
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
/// As [`Design::new`], [`search()`] (for the smallest number of experts; larger ones that
/// the rows cannot fix are left out with a warning) and [`uncertainty()`].
pub fn analyse(
    backend: &dyn Backend,
    table: &Table,
    request: &Request,
    step: &dyn Fn(&str),
) -> Result<Analysis> {
    let began = Instant::now();
    let design = Design::new(table, &request.response, &request.expert, &request.gate)?;
    let mut warnings = Vec::new();
    let mut models: Vec<FittedModel> = Vec::new();
    for experts in request.experts.clone() {
        step(&format!(
            "{experts} experts: {} starts",
            request.specification.starts
        ));
        match search(backend, &design, &request.specification, experts) {
            Ok(fitted) => models.push(FittedModel {
                experts,
                criteria: fitted.best().map(|best| criteria(&design, best)),
                fitted,
                uncertainty: None,
            }),
            Err(error) if models.is_empty() => return Err(error),
            Err(error) => {
                warnings.push(format!("{error}: not fitted, nor any with more"));
                break;
            }
        }
    }
    let largest = models.last().filter(|_| models.len() > 1);
    let tree = largest.and_then(FittedModel::best).and_then(|best| {
        dendrogram(backend, &design, best)
            .map_err(|reason| warnings.push(format!("no dendrogram criterion: {reason}")))
            .ok()
    });
    let several = models.len() > 1;
    let slice = Slice::new(table, &design, &request.expert, &request.gate);
    let mut analysis = Analysis {
        source: request.source.clone(),
        command: request.command.clone(),
        design,
        specification: request.specification,
        models,
        chosen: 0,
        chosen_by: several.then_some(request.criterion),
        dendrogram: tree,
        slice,
        residuals: None,
        warnings,
        seconds: 0.0,
    };
    analysis.chosen = choice(&analysis, request.criterion);
    if let Some(best) = analysis.model().best().cloned() {
        step(&format!(
            "{} experts: standard errors",
            best.parameters.experts.len()
        ));
        let design = &analysis.design;
        let known = uncertainty(backend, design, &best, request.uncertainty)?;
        analysis.residuals = Some(residuals(design, &best.parameters));
        analysis.models[analysis.chosen].uncertainty = Some(known);
    }
    analysis.seconds = began.elapsed().as_secs_f64();
    Ok(analysis)
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
        let raw = |z: &Option<f64>| z.map(|z| design.response.raw(z));
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

/// The model with the least criterion, or the first whose best optimum counts.
fn choice(analysis: &Analysis, criterion: Criterion) -> usize {
    let first = || analysis.models.iter().position(FittedModel::counts);
    let chosen = analysis.least(criterion).or_else(first);
    chosen.unwrap_or(0)
}
