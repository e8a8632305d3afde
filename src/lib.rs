#![doc = include_str!("../README.md")]
//!
//! # Rooms
//!
//! | room | what is inside |
//! |---|---|
//! | [`model`] | p(y given x): gates, experts, scores, samples |
//! | [`loss`] | how far one mixture is from another |
//! | [`backend`] | one pass over data |
//! | [`fit`] | maximum likelihood |
//! | [`analysis`] | people's data: tables, formulas, fits, how sure they are |
//! | [`sim`] | studies, rows, rates, verdicts |
//! | [`report`], [`plot`] | what people look at |
//! | [`train`] | sparse mixtures inside a transformer: the other half, which meets no room above but `plot` |
//! | [`num`], [`rng`], [`error`] | the ground |

pub mod analysis;
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
pub mod train;
