//! The competition-gated Gaussian sparse mixture of experts.
//!
//! ```text
//! p(y | x) = sum over i in T(x) of  w_i(x) N(y; m_i(x), v_i)
//! w_i(x)   = exp(s_i(x)) / sum over j in T(x) of exp(s_j(x))
//! ```
//!
//! m_i is the mean of expert i, v_i its variance, s_i its log-weight and T(x)
//! the `top_k` experts with the largest selection score (all of them when
//! dense). The gate fixes s_i:
//!
//! | gate | log-weight s_i | selection score |
//! |---|---|---|
//! | competition, softmax weights | kappa rho(m_i) + bias_i | rho(m_i) |
//! | competition, normalised weights | log rho(m_i) + bias_i | rho(m_i) |
//! | softmax router | gate_slope_i . x + gate_intercept_i | see [`Selection`] |
//! | sigmoid router | log sigmoid(gate_slope_i . x + gate_intercept_i) | see [`Selection`] |
//! | constant | bias_i | bias_i |
//!
//! with response rho(t) = |t|, softplus(t) or t^2 / 2. Competition routing is
//! that of CompeteSMoE (arXiv 2402.02526, 2505.13380) as reconstructed; routers
//! are the rivals the papers compare with.
//!
//! **Symmetries.** Experts may be permuted; for every gate but the sigmoid
//! router a common shift of the log-weights changes nothing, so packed
//! parameters give the last expert log-weight parameters zero.

mod data;
mod density;
mod expert;
mod file;
mod gate;
mod gate_lanes;
mod input_law;
mod lattice;
mod layout;
mod nesting;
mod parameters;
mod sample;
mod score;

pub use data::Data;
pub(crate) use data::Identity;
pub use density::Conditional;
pub use expert::{ExpertKind, MeanDerivatives};
pub use file::{Model, read_model};
pub use gate::{Gate, GateKind, LogWeight, Response, Selection, Weights};
pub use input_law::InputLaw;
pub use layout::{Coordinate, Layout};
pub use parameters::{Expert, ExpertGate, Parameters, VarianceStructure};
pub use sample::{draw_labelled_sample, draw_responses, draw_sample};
pub use score::{Atom, Point};
