//! A truth with one expert twice.

use crate::error::{Error, Result};
use crate::model::{ExpertGate, Parameters};

/// The mixture that keeps `kept` experts and in which two copies stand for
/// `expert`: they come first and have the share and the rest of `mass` times its
/// mass, e^(router intercept). With `mass` 1 and enough experts kept it is the truth.
///
/// # Errors
/// [`Error::Value`] if there is no such expert, if the truth has no softmax router,
/// if `kept` is not between 1 and the number of experts of the fit, or if a copy
/// has no positive mass.
pub fn duplicate(
    truth: &Parameters,
    expert: usize,
    kept: usize,
    share: f64,
    mass: f64,
) -> Result<Parameters> {
    let count = truth.experts.len() + 1;
    if expert + 1 >= count {
        let message = format!("must be below the number of experts ({})", count - 1);
        return Err(Error::value("expert", message));
    }
    if !(1..=count).contains(&kept) {
        let message = format!("must be between 1 and {count}, got {kept}");
        return Err(Error::value("kept", message));
    }
    if !(share > 0.0 && share < 1.0) {
        return Err(Error::value("shares", "must lie between 0 and 1"));
    }
    if !(mass > 0.0 && mass.is_finite()) {
        return Err(Error::value("mass", "must be positive and finite"));
    }
    let copy = |share: f64| {
        let mut copy = truth.experts[expert].clone();
        match &mut copy.gate {
            ExpertGate::Router { intercept, .. } => *intercept += (share * mass).ln(),
            _ => return Err(Error::value("truth", "needs a softmax router")),
        }
        Ok(copy)
    };
    let mut experts = vec![copy(share)?, copy(1.0 - share)?];
    let others = truth.experts.iter().enumerate();
    experts.extend(others.filter(|(j, _)| *j != expert).map(|(_, e)| e.clone()));
    let mut fitted = Parameters {
        experts,
        ..truth.clone()
    };
    fitted.gate.top_k = Some(kept);
    Ok(fitted)
}
