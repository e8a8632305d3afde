//! How close a top-K mixture can be to a truth whose expert has copies, when it
//! keeps too few experts, without Monte Carlo.
//!
//! With k* experts of which K are kept, and a fit whose Voronoi cells have the
//! sizes |A_j|, the papers on top-K gating (arXiv 2309.13850) need
//!
//! ```text
//! K-bar >= max over sets of K true experts of  sum |A_j|
//! ```
//!
//! for the number K-bar that the fit keeps; otherwise inf E_X V > 0 over a
//! neighbourhood of the truth whose atoms keep a mass of at least e^-B each. Here
//! that infimum is searched for over boxes around fits with fixed shares.
//!
//! ```text
//! study (TOML) -> duplicate (the fit at given shares) -> search (infimum) -> record (verdicts)
//! ```

pub mod duplicate;
pub mod record;
pub mod search;
pub mod study;
