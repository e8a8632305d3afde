//! Inverse bounds, without Monte Carlo: how small can the Hellinger distance be
//! when a true expert is split into copies that are held a distance apart?
//!
//! A Voronoi lower bound E_X h >= C D says that for copies at spread delta in one
//! coordinate, all else free in a compact set,
//!
//! ```text
//! inf sqrt(E_X h^2) >= C' delta^r
//! ```
//!
//! with r the power that D gives the coordinate. The infimum is a least-squares
//! problem in the residuals sqrt q - sqrt p; the local exponents of its minima
//! in delta are the smallest powers r for which the inequality can hold. With
//! the residuals f_G - f_G* it is the same question for least squares.
//!
//! ```text
//! study (TOML) -> split (copies, unknowns) -> sweep (minima) -> finding (exponents, verdicts)
//! ```

pub mod distance;
pub mod finding;
mod increment;
pub mod minimum;
pub mod neighbourhood;
mod regression;
pub mod split;
#[cfg(test)]
mod split_tests;
pub mod study;
pub mod sweep;
pub mod top_k;
