//! The quantities of a model with what is known of their errors.

use super::contents::FittedModel;
use super::wording;
use crate::analysis::{Design, Estimate, Limit, Missing, ProfileLimits, quantities};
use crate::fit::inference;

/// A quantity; what is not known is absent, and `reason` says why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EstimateRow {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) standard_error: Option<f64>,
    pub(super) sandwich: Option<f64>,
    /// From the expected information; empty unless asked for.
    pub(super) expected: Option<f64>,
    pub(super) wald: Option<[f64; 2]>,
    pub(super) profile: Option<Interval>,
    /// Standard deviation over the refits.
    pub(super) bootstrap: Option<f64>,
    pub(super) percentile: Option<[f64; 2]>,
    /// Of the standard error.
    pub(super) reason: Option<String>,
    /// Of the profile interval.
    pub(super) profile_reason: Option<String>,
    /// Of the bootstrap.
    pub(super) bootstrap_reason: Option<String>,
}

impl EstimateRow {
    /// Whether profiles were asked for.
    pub(super) fn has_profile(&self) -> bool {
        self.profile.is_some() || self.profile_reason.is_some()
    }
}

/// An interval; an end may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) ends: [f64; 2],
    /// Whether an end is that of the parameter set.
    pub(super) is_cut: bool,
}

/// The rows of a model's best optimum; none without one.
pub(super) fn estimate_rows(design: &Design, model: &FittedModel) -> Vec<EstimateRow> {
    let (Some(best), None) = (model.best(), &model.uncertainty) else {
        let known = model.uncertainty.iter().flat_map(|u| &u.estimates);
        return known.map(|estimate| row(design, estimate)).collect();
    };
    let packed = best.parameters.layout().pack(&best.parameters);
    let all = quantities(design, &best.parameters);
    all.into_iter()
        .map(|quantity| EstimateRow {
            value: quantity.value(&packed),
            name: quantity.name,
            standard_error: None,
            sandwich: None,
            expected: None,
            wald: None,
            profile: None,
            bootstrap: None,
            percentile: None,
            reason: Some("not computed".to_string()),
            profile_reason: None,
            bootstrap_reason: None,
        })
        .collect()
}

fn row(design: &Design, estimate: &Estimate) -> EstimateRow {
    let finite = |value: &f64| value.is_finite().then_some(*value);
    let known = |ends: &[f64; 2]| ends.iter().all(|e| e.is_finite()).then_some(*ends);
    let reason = |missing: &Missing| missing_reason(design, missing);
    let profile = estimate.profile.as_ref();
    let bootstrap = estimate.bootstrap.as_ref();
    EstimateRow {
        name: estimate.quantity.name.clone(),
        value: estimate.value,
        standard_error: estimate.standard_error.as_ref().ok().and_then(finite),
        sandwich: estimate.sandwich.as_ref().ok().and_then(finite),
        expected: estimate
            .expected_error
            .as_ref()
            .and_then(|error| error.as_ref().ok())
            .and_then(finite),
        wald: estimate.wald.as_ref().ok().and_then(known),
        profile: profile.and_then(|p| p.as_ref().ok()).map(interval),
        bootstrap: bootstrap
            .and_then(|b| b.as_ref().ok())
            .and_then(|b| finite(&b.standard_deviation)),
        percentile: bootstrap
            .and_then(|b| b.as_ref().ok())
            .and_then(|b| known(&b.percentile)),
        reason: estimate.standard_error.as_ref().err().map(reason),
        profile_reason: profile.and_then(|p| p.as_ref().err()).map(reason),
        bootstrap_reason: bootstrap.and_then(|b| b.as_ref().err()).map(reason),
    }
}

fn interval(limits: &ProfileLimits) -> Interval {
    let end = |limit: Limit, beyond: f64| match limit {
        Limit::At(value) | Limit::Bound(value) => value,
        Limit::Unbounded => beyond,
    };
    let is_cut = |limit: Limit| matches!(limit, Limit::Bound(_));
    Interval {
        ends: [
            end(limits.low, f64::NEG_INFINITY),
            end(limits.high, f64::INFINITY),
        ],
        is_cut: is_cut(limits.low) || is_cut(limits.high),
    }
}

/// The reason with users' names.
fn missing_reason(design: &Design, missing: &Missing) -> String {
    let names = |all| wording::coordinates(design, all);
    match missing {
        Missing::RunsAway => "the gate runs away, there is no maximum".to_string(),
        Missing::Held(all) => format!("on the boundary of the parameter set: {}", names(all)),
        Missing::Inference(inference::Missing::Singular(all)) => {
            format!("the information is singular along {}", names(all))
        }
        other => other.to_string(),
    }
}
