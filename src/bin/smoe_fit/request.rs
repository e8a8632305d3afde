//! From the words of the command line to a request.

use crate::arguments::{Arguments, Criterion, GateKind, Response};
use smoe_lab::analysis::{
    Expected, Formula, GateChoice, Profiles, Request, Specification, SpuriousRule,
    UncertaintyOptions, report,
};
use smoe_lab::error::{Error, Result};
use smoe_lab::fit::inference::Bootstrap;
use smoe_lab::model::{self, VarianceStructure};

/// The request.
///
/// # Errors
/// [`Error::Value`] that names the option.
pub fn of(arguments: &Arguments) -> Result<Request> {
    let formula = |option: &str, text: &str| {
        Formula::parse(text).map_err(|error| match error {
            Error::Value { message, .. } => Error::value(option, message),
            other => other,
        })
    };
    let expert = formula("--expert", &arguments.expert)?;
    let gate = formula("--gate", &arguments.gate)?;
    let share = |option: &str, value: f64, most: f64| match (0.0..most).contains(&value) {
        true => Ok(value),
        false => Err(Error::value(
            option,
            format!("expected a number from 0 to {most}, got {value}"),
        )),
    };
    let inside = |option: &str, level: f64| match level > 0.0 && level < 1.0 {
        true => Ok(level),
        false => Err(Error::value(
            option,
            format!("expected a number between 0 and 1, got {level}"),
        )),
    };
    for &level in &arguments.quantiles {
        inside("--quantiles", level)?;
    }
    if let Some(kept) = arguments.top_k
        && kept.get() > *arguments.experts.end()
    {
        let most = arguments.experts.end();
        let message = format!("expected at most the number of experts, {most}, got {kept}");
        return Err(Error::value("--top-k", message));
    }
    Ok(Request {
        source: arguments.table.display().to_string(),
        command: std::env::args().skip(1).collect(),
        response: arguments.response.clone(),
        experts: arguments.experts.clone(),
        specification: Specification {
            gate: gate_choice(arguments, &gate)?,
            top_k: arguments.top_k.map(usize::from),
            variance: match arguments.equal_variance {
                true => VarianceStructure::Shared,
                false => VarianceStructure::PerExpert,
            },
            starts: arguments.starts.get(),
            seed: arguments.seed,
            spurious: SpuriousRule {
                share: share("--least-share", arguments.least_share, 1.0)?,
                deviation: share("--least-sigma", arguments.least_sigma, 1.0)?,
            },
        },
        expert,
        gate,
        criterion: match arguments.criterion {
            Criterion::Aic => report::Criterion::Aic,
            Criterion::Bic => report::Criterion::Bic,
            Criterion::Icl => report::Criterion::Icl,
            Criterion::Dendrogram => report::Criterion::Dendrogram,
        },
        uncertainty: UncertaintyOptions {
            level: inside("--level", arguments.level)?,
            profiles: match arguments.profile {
                true => Profiles::Every,
                false => Profiles::Skip,
            },
            bootstrap: arguments.bootstrap.map(|replicates| Bootstrap {
                replicates: replicates.get(),
                seed: arguments.seed,
            }),
            expected: match arguments.expected {
                true => Expected::Every,
                false => Expected::Skip,
            },
        },
    })
}

/// The gate that was asked for, or that its terms suggest.
fn gate_choice(arguments: &Arguments, gate: &Formula) -> Result<GateChoice> {
    let without_terms = |choice: GateChoice, name: &str| match gate.terms.is_empty() {
        true => Ok(choice),
        false => Err(Error::value(
            "--gate",
            format!("a {name} gate has no terms, got {}", arguments.gate),
        )),
    };
    match (arguments.gate_kind, gate.terms.is_empty()) {
        (None, false) | (Some(GateKind::Softmax), _) => Ok(GateChoice::Softmax),
        (None, true) => Ok(GateChoice::Constant),
        (Some(GateKind::Constant), _) => without_terms(GateChoice::Constant, "constant"),
        (Some(GateKind::Sigmoid), _) => Ok(GateChoice::Sigmoid),
        (Some(GateKind::Competition), _) => {
            let response = match arguments.competition {
                Response::Softplus => model::Response::Softplus,
                Response::Absolute => model::Response::Absolute,
                Response::Square => model::Response::Square,
            };
            without_terms(GateChoice::Competition(response), "competition")
        }
    }
}
