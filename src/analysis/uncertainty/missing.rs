//! Why a quantity has no standard error or interval.

use crate::fit::inference;
use crate::model::Coordinate;
use std::fmt;

/// Why there is no number.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// It belongs to a gate for which the likelihood has no maximum.
    RunsAway,
    /// All that it is made of is on a bound of the parameter set.
    Held(Vec<Coordinate>),
    /// What stopped the computation.
    Inference(inference::Missing),
    /// Fewer than two refits of the bootstrap ended at a maximum.
    TooFewRefits(usize),
}

impl From<inference::Missing> for Missing {
    fn from(missing: inference::Missing) -> Self {
        Missing::Inference(missing)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Missing::RunsAway => f.write_str("the gate runs away: no maximum"),
            Missing::Held(coordinates) => {
                let names: Vec<String> = coordinates.iter().map(Coordinate::to_string).collect();
                let names = names.join(", ");
                write!(f, "on the boundary of the parameter set: {names}")
            }
            Missing::Inference(missing) => missing.fmt(f),
            Missing::TooFewRefits(count) => {
                write!(f, "only {count} refits of the bootstrap ended at a maximum")
            }
        }
    }
}
