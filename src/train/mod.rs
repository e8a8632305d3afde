//! Sparse mixtures of experts inside a transformer: operations with their
//! backward passes by hand, routers, the layer. No framework.
//!
//! | module | what is inside |
//! |---|---|
//! | [`config`] | a run's file, checked |
//! | [`data`] | text as tokens: prepared once, read in windows |
//! | [`ops`] | one file per operation: formula, forward, backward |
//! | [`moe`] | tokens to their experts and back: one sort, contiguous segments |
//! | [`router`] | which experts, which weights, which extra losses |
//! | [`device`] | the contract between a model and the hardware it runs on |
//! | [`statistics`] | what routers do, measured |
//! | [`log`] | rows of a run, for programs and for TensorBoard |
//! | [`page`] | a run, or several compared, as figures and one page |
//!
//! Conventions. Arrays are row-major slices. A linear map is y = x W with W of
//! shape (in, out). A backward pass *adds* to gradients of parameters (so that
//! micro-batches accumulate) and *writes* gradients of activations. Every sum runs
//! in an order fixed by the shapes alone: results do not depend on the number of
//! threads. Everything is generic over [`ops::real::Real`], f32 for work and f64
//! for finite differences.

pub mod config;
pub mod cost;
pub mod data;
pub mod device;
pub mod log;
pub mod model;
pub mod moe;
pub mod ops;
pub mod page;
pub mod router;
pub mod run;
pub mod statistics;
