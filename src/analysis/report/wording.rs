//! Sentences and names.

use super::contents::{Analysis, FittedModel};
use super::step::{Step, steps};
use super::tables::hits;
use crate::analysis::{Attainment, Design, GateChoice, INTERCEPT, Optimum, Side, Spurious};
use crate::model::{Coordinate, Response, VarianceStructure};
use crate::plot::number::{counted, decimal, rounded};

/// "2 experts", "1 expert".
pub(super) fn experts(count: usize) -> String {
    counted(count, "expert")
}

/// A log-likelihood.
pub(super) fn log_likelihood(value: f64) -> String {
    decimal(value, 6)
}

/// The terms of a side: "x + x^2", "1" for none but the intercept.
pub(super) fn terms(side: &Side) -> String {
    let own = side.terms.iter().filter(|term| *term != INTERCEPT);
    let own: Vec<&str> = own.map(String::as_str).collect();
    match own.is_empty() {
        true => "1".to_string(),
        false => own.join(" + "),
    }
}

/// "waiting ~ eruptions"
pub(super) fn formula(design: &Design) -> String {
    format!("{} ~ {}", design.response.name, terms(&design.expert))
}

/// One word for the gate.
pub(super) fn gate_name(gate: GateChoice) -> &'static str {
    match gate {
        GateChoice::Softmax => "softmax",
        GateChoice::Constant => "constant",
        GateChoice::Sigmoid => "sigmoid",
        GateChoice::Competition(Response::Absolute) => "competition-absolute",
        GateChoice::Competition(Response::Softplus) => "competition-softplus",
        GateChoice::Competition(Response::Square) => "competition-square",
    }
}

/// The gate with its terms.
pub(super) fn gate(analysis: &Analysis) -> String {
    let specification = &analysis.specification;
    let kind = match specification.gate {
        GateChoice::Softmax => format!("softmax gate on {}", terms(&analysis.design.gate)),
        GateChoice::Sigmoid => format!("sigmoid gate on {}", terms(&analysis.design.gate)),
        GateChoice::Constant => "constant weights".to_string(),
        GateChoice::Competition(Response::Absolute) => "competition of |response|".to_string(),
        GateChoice::Competition(Response::Softplus) => {
            "competition of log(1 + e^response)".to_string()
        }
        GateChoice::Competition(Response::Square) => "competition of response squared".to_string(),
    };
    let kept = match specification.top_k {
        None => String::new(),
        Some(kept) => format!(", the best {kept} kept at each row"),
    };
    let variance = match specification.variance {
        VarianceStructure::PerExpert => "",
        VarianceStructure::Shared => ", one variance for all",
    };
    format!("{kind}{kept}{variance}")
}

/// One expert is the same model under every gate.
pub(super) fn gate_of(analysis: &Analysis, model: &FittedModel) -> String {
    match model.experts {
        1 => "no gate".to_string(),
        _ => gate(analysis),
    }
}

/// A coordinate as users know it: by its term.
pub(super) fn coordinate(design: &Design, coordinate: &Coordinate) -> String {
    let term = |side: &Side, feature: usize| {
        let place = side.features.iter().position(|&f| f == feature);
        let term = place.and_then(|p| side.terms.get(p + 1));
        term.cloned()
            .unwrap_or_else(|| format!("feature {}", feature + 1))
    };
    match *coordinate {
        Coordinate::Scale(i) => format!("expert[{}].scale", i + 1),
        Coordinate::Slope(i, j) => format!("expert[{}].{}", i + 1, term(&design.expert, j)),
        Coordinate::Intercept(i) => format!("expert[{}].{INTERCEPT}", i + 1),
        Coordinate::LogVariance(i) => format!("expert[{}].sigma", i + 1),
        Coordinate::Bias(i) => format!("gate[{}].bias", i + 1),
        Coordinate::GateSlope(i, j) => format!("gate[{}].{}", i + 1, term(&design.gate, j)),
        Coordinate::GateIntercept(i) => format!("gate[{}].{INTERCEPT}", i + 1),
    }
}

/// Several of them.
pub(super) fn coordinates(design: &Design, all: &[Coordinate]) -> String {
    let names: Vec<String> = all.iter().map(|c| coordinate(design, c)).collect();
    names.join(", ")
}

/// The coordinates that are not inside the parameter set, by name.
pub(super) fn boundary(design: &Design, optimum: &Optimum) -> Vec<String> {
    match &optimum.attainment {
        Attainment::Interior => Vec::new(),
        Attainment::NotAttained(all) | Attainment::OnBound(all) => {
            all.iter().map(|c| coordinate(design, c)).collect()
        }
    }
}

/// The state of an optimum in a word or two.
pub(super) fn state(optimum: &Optimum) -> &'static str {
    match (&optimum.spurious, &optimum.attainment) {
        (Some(_), _) => "spurious",
        (None, Attainment::Interior) => "interior",
        (None, Attainment::NotAttained(_)) => "not attained",
        (None, Attainment::OnBound(_)) => "on bound",
    }
}

/// What is to be said of an optimum beside its state; nothing for an interior one.
pub(super) fn remark(design: &Design, optimum: &Optimum) -> Option<String> {
    let attainment = match &optimum.attainment {
        Attainment::Interior => None,
        Attainment::NotAttained(all) => Some(format!(
            "supremum not attained: the likelihood rises for ever along {}",
            coordinates(design, all)
        )),
        Attainment::OnBound(all) => Some(format!("on the bound of {}", coordinates(design, all))),
    };
    match (spurious_remark(optimum), attainment) {
        (Some(a), Some(b)) => Some(format!("{a}; {b}")),
        (a, b) => a.or(b),
    }
}

/// Why it does not count, if it does not.
pub(super) fn spurious_remark(optimum: &Optimum) -> Option<String> {
    let reason = optimum.spurious.as_ref()?;
    Some(format!("spurious: {}", spurious(reason)))
}

/// Why an optimum does not count.
pub(super) fn spurious(reason: &Spurious) -> String {
    match *reason {
        Spurious::FewRows {
            expert,
            rows,
            least,
        } => format!(
            "expert {} has {} effective rows, fewer than {}",
            expert + 1,
            rounded(rows, 3),
            rounded(least, 3)
        ),
        Spurious::SmallDeviation {
            expert,
            deviation,
            least,
        } => format!(
            "expert {} has a standard deviation of {} times that of y, less than {}",
            expert + 1,
            rounded(deviation, 2),
            rounded(least, 2)
        ),
    }
}

/// The result in plain words.
pub(super) fn headline(analysis: &Analysis) -> String {
    let model = analysis.model();
    let choice = match (analysis.chosen_by, analysis.models.as_slice()) {
        (Some(criterion), [first, .., last]) => format!(
            "Of {} to {} experts, {} has the least {}. ",
            first.experts,
            last.experts,
            model.experts,
            criterion.name()
        ),
        _ => String::new(),
    };
    choice + &of_model(analysis, model)
}

fn of_model(analysis: &Analysis, model: &FittedModel) -> String {
    let count = experts(model.experts);
    let starts = model.fitted.starts;
    let Some(best) = model.best() else {
        return format!("{count}: none of {starts} starts ended at a certified optimum.");
    };
    let found = match starts {
        1 => "from one start".to_string(),
        _ => format!("found from {} of {starts} starts", hits(best)),
    };
    let value = log_likelihood(best.log_likelihood);
    if let Some(reason) = &best.spurious {
        return format!(
            "{count}: every optimum is spurious; the best of them has log-likelihood {value}, but {}.",
            spurious(reason)
        );
    }
    match &best.attainment {
        Attainment::Interior => format!("{count}; log-likelihood {value} is a maximum, {found}."),
        Attainment::OnBound(all) => format!(
            "{count}; log-likelihood {value} is the largest in the parameter set, on the bound of \
             {}, {found}.",
            coordinates(&analysis.design, all)
        ),
        Attainment::NotAttained(_) => format!(
            "{count}; log-likelihood {value} is a supremum that no gate attains: the weights tend to {}, {found}.",
            limit(analysis, best)
        ),
    }
}

/// What the weights of a gate that runs away tend to.
fn limit(analysis: &Analysis, optimum: &Optimum) -> String {
    let covariate = analysis.slice.as_ref().map(|slice| &slice.covariate);
    let found = analysis
        .slice
        .as_ref()
        .map(|slice| steps(&analysis.design, slice, optimum))
        .unwrap_or_default();
    let (Some(name), false) = (covariate, found.is_empty()) else {
        return "a step".to_string();
    };
    let text = |step: &Step| format!("{} and {}", exact(step.below), exact(step.above));
    let places: Vec<String> = found.iter().map(text).collect();
    match places.as_slice() {
        [one] => format!("a step between {name} {one}"),
        many => format!("steps between {name} {}", many.join(", ")),
    }
}

/// A value of the data: as short as it is exact.
fn exact(value: f64) -> String {
    crate::plot::number::stated((value * 1e9).round() / 1e9)
}
