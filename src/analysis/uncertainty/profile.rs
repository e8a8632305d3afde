//! Profile-likelihood intervals in raw units.

use super::Context;
use super::missing::Missing;
use crate::analysis::quantity::Quantity;
use crate::fit::Bounds;
use crate::fit::inference::{End, profile_interval};
use crate::model::Coordinate;
use std::result::Result as Known;

/// One end of an interval, in raw units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// The deviance reaches its quantile here.
    At(f64),
    /// The parameter set ends here, with the deviance still below its quantile.
    Bound(f64),
    /// The deviance never reaches its quantile: no value is too far out.
    Unbounded,
}

/// A profile-likelihood interval, in raw units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileLimits {
    /// Lower end.
    pub low: Limit,
    /// Upper end.
    pub high: Limit,
    /// Passes over the data that it took.
    pub passes: usize,
}

impl ProfileLimits {
    /// True if `value` lies in the interval.
    pub fn contains(&self, value: f64) -> bool {
        let above = match self.low {
            Limit::At(low) | Limit::Bound(low) => value >= low,
            Limit::Unbounded => true,
        };
        above
            && match self.high {
                Limit::At(high) | Limit::Bound(high) => value <= high,
                Limit::Unbounded => true,
            }
    }
}

/// The interval of one quantity.
pub(super) fn limits(context: &Context, quantity: &Quantity) -> Known<ProfileLimits, Missing> {
    context.held.check(quantity)?;
    let interval = profile_interval(
        context.backend,
        &context.design.data,
        &context.optimum.parameters,
        &open(&context.held.bounds, &context.held.coordinates),
        &quantity.weights,
        context.options.level,
    )?;
    let limit = |end: &End| match end {
        End::Quantile(at) => Limit::At(quantity.transformed(quantity.offset + at.value)),
        End::Bound(at) => Limit::Bound(quantity.transformed(quantity.offset + at.value)),
        End::Unbounded => Limit::Unbounded,
    };
    Ok(ProfileLimits {
        low: limit(&interval.low),
        high: limit(&interval.high),
        passes: interval.passes,
    })
}

/// The same box with no bounds on the gate: those are the search's, not the model's.
fn open(bounds: &Bounds, coordinates: &[Coordinate]) -> Bounds {
    let mut open = bounds.clone();
    for (j, coordinate) in coordinates.iter().enumerate() {
        if coordinate.is_of_gate() && !bounds.is_pinned(j) {
            open.low[j] = f64::NEG_INFINITY;
            open.high[j] = f64::INFINITY;
        }
    }
    open
}
