//! How sure a maximum is: information, profile likelihood, parametric bootstrap.
//!
//! With the log-likelihood l, its score s_n of row n and a linear form c = w . theta of
//! the packed coordinates:
//!
//! ```text
//! observed information   A = - d2 l / d theta d theta'
//! variance of c          w' A^-1 w                               (Efron and Hinkley 1978)
//! sandwich               w' A^-1 (sum_n s_n s_n') A^-1 w         (Huber 1967, White 1982)
//! profile interval       { c : 2 (max l - max_{w . theta = c} l) <= chi2_1 quantile }
//!                                                                (Venzon and Moolgavkar 1988)
//! parametric bootstrap   refits of samples drawn from the fit    (Efron and Tibshirani 1993, 6.5)
//! ```
//!
//! All on the free coordinates: those neither pinned nor on a bound. What is held stays
//! at its value, and what is told about the others is told given that. What cannot be
//! told is [`Missing`], with the reason; never a number.

mod bootstrap;
mod constrained;
mod face;
mod information;
mod label;
mod missing;
mod profile;
#[cfg(test)]
mod profile_tests;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, Ending, Refit, parametric_bootstrap};
pub use information::Information;
pub use missing::Missing;
pub use profile::{ConstrainedMaximum, End, ProfileInterval, profile_interval};
