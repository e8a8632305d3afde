//! Simulation, maximum likelihood and exact losses for competition-gated
//! Gaussian sparse mixtures of experts, and the convergence rates they obey.

pub mod backend;
pub mod error;
pub mod fit;
pub mod loss;
pub mod model;
pub mod num;
pub mod plot;
pub mod report;
pub mod rng;
pub mod sim;
