//! Why there is no number.

use crate::model::{Coordinate, Parameters};
use std::fmt;

/// Why a standard error or an interval is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// Every coordinate it is made of is pinned or on a bound.
    Held,
    /// The likelihood or a derivative is not finite at the maximum.
    NotFinite,
    /// The information is not positive definite, or its inverse would be rounding.
    /// The coordinates are those of the direction that is least known.
    Singular(Vec<Coordinate>),
    /// A larger likelihood was met on the way: the fit was not the best of its
    /// surroundings.
    BetterMaximum {
        /// Its log-likelihood less the fit's.
        gain: f64,
        /// Where it was met: a start for a better fit.
        parameters: Box<Parameters>,
    },
    /// No constrained maximum was found where the linear form has this value.
    NoConvergence(f64),
    /// The path of constrained maxima breaks off where the linear form has this value:
    /// the likelihood has several maxima there, or a jump.
    Jump(f64),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Missing::Held => f.write_str("held on a bound of the parameter set"),
            Missing::NotFinite => f.write_str("the likelihood's derivatives are not finite"),
            Missing::Singular(coordinates) => {
                let names: Vec<String> = coordinates.iter().map(Coordinate::to_string).collect();
                let names = names.join(", ");
                write!(f, "the information is singular along {names}")
            }
            Missing::BetterMaximum { gain, .. } => {
                write!(f, "a likelihood larger by {gain:.3e} lies near: refit")
            }
            Missing::NoConvergence(_) => f.write_str("a constrained fit did not converge"),
            Missing::Jump(_) => f.write_str("the profile likelihood jumps before the end"),
        }
    }
}
