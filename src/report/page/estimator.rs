//! The estimators of a study in words.

use crate::plot::html::{list, paragraph};
use crate::report::format::{stated, thousands};
use crate::sim::Plan;
use crate::sim::study::{
    Distillation, DistillationLoss, Family, Fit, GainMeasure, GateStep, Labels, Method, PolishKind,
    Schedule,
};

/// One paragraph, or one item for every level of the factor `fit`.
pub(super) fn estimators(plan: &Plan) -> String {
    let study = &plan.study;
    if study.grid.fit.is_empty() {
        return paragraph(&estimator(&study.fit));
    }
    let item = |(name, fit): (Option<String>, Fit)| {
        let limits = match fit.limits == study.fit.limits {
            true => "",
            false => " Its parameter set is its own: see the study file.",
        };
        format!("{}: {}{limits}", name.unwrap_or_default(), estimator(&fit))
    };
    // Read from a study that was checked: no variant is wrong.
    let fits = study.fits().unwrap_or_default();
    paragraph("The estimators, all on the same data:")
        + &list(&fits.into_iter().map(item).collect::<Vec<_>>())
}

fn estimator(fit: &Fit) -> String {
    if let Some(distillation) = &fit.distillation {
        return distilled(distillation);
    }
    let family = family(fit);
    let end = "Of all starts, the outcome with the largest likelihood is the estimate.";
    let newton = match fit.polish_iterations {
        Some(count) => format!("at most {count} Newton steps, until the maximum is certified"),
        None => "Newton steps until the maximum is certified".to_string(),
    };
    if fit.labels == Labels::Known {
        return format!(
            "Maximum likelihood of the complete data by an oracle that is told which expert made \
             each row, over a compact parameter set, {family}: {newton}: projected score and last \
             gain below tolerance. {end}"
        );
    }
    let method = match fit.method {
        Method::Em => "expectation maximisation",
        Method::Gradient => "L-BFGS",
    };
    let gate = match (fit.method, fit.gate_step) {
        (Method::Em, GateStep::ToMaximum) => ", the gate to its maximum in each,",
        _ => ",",
    };
    let unit = match fit.gain_measure {
        GainMeasure::Total => "in log-likelihood",
        GainMeasure::Relative => "of the log-likelihood, relative to its size",
        GainMeasure::Mean => "in log-likelihood per row",
    };
    let rule = format!(
        "{method} (at most {} iterations{gate} until an iteration gains less than {} {unit})",
        fit.max_iterations,
        stated(fit.gain)
    );
    if fit.polish == PolishKind::None {
        return format!(
            "Likelihood over a compact parameter set, {family}: {rule}, and nothing after it. The \
             estimate is where that rule stops it, which counts as a success and is no certified \
             maximum. {end}"
        );
    }
    let pilot = match fit.pilot_rows {
        Some(rows) => format!(
            " Samples of more than {} rows are first fitted on that many leading rows, and the \
             distinct maxima then polished on all rows.",
            thousands(rows as u64)
        ),
        None => String::new(),
    };
    format!(
        "Maximum likelihood over a compact parameter set, {family}: {rule}, then {newton}: \
         projected score and last gain below tolerance.{pilot} {end}"
    )
}

/// What is trained where a router is distilled.
fn distilled(distillation: &Distillation) -> String {
    let schedule = match distillation.schedule {
        Schedule::Constant { probability } => format!("λ = {} throughout", stated(probability)),
        Schedule::Linear { first } => format!("λ falling linearly from {} to 0", stated(first)),
        Schedule::InverseRoot { periods } => {
            format!("λ = 2 / (2 + (t + 1)^(1/2)) in period t of {periods}, early-heavy")
        }
        Schedule::WarmUp { probability, share } => format!(
            "λ = 0 in the first {} of the steps, then {}",
            stated(share),
            stated(probability)
        ),
    };
    let loss = match distillation.loss {
        DistillationLoss::Hybrid { alpha } => format!(
            "mean squared error of the weights plus {} times that of the winners’",
            stated(alpha)
        ),
        DistillationLoss::KullbackLeibler => "Kullback–Leibler divergence of the weights".into(),
    };
    format!(
        "One stochastic pass over the rows trains a competition mixture and a softmax router: a \
         step is a competition step, from which the router learns ({loss}), with probability λ, \
         else a step under the router’s gate; {schedule}. The estimate is the router-gated \
         mixture, averaged over the late steps; that the pass is complete counts as a success."
    )
}

/// What is fitted.
fn family(fit: &Fit) -> String {
    let gate = match fit.family {
        Family::Own => "the gate of the truth",
        Family::Router => "softmax routers, which contain the truth’s law",
    };
    let experts = match fit.copies.as_slice() {
        [] => "with the number of experts of the truth".to_string(),
        copies => {
            let copies: Vec<String> = copies.iter().map(usize::to_string).collect();
            format!(
                "with {} experts for the experts of the truth in turn",
                copies.join(", ")
            )
        }
    };
    match fit.top_k {
        Some(kept) => format!("{experts}, {kept} of them kept at each input, and {gate}"),
        None => format!("{experts} and {gate}"),
    }
}
