//! The sparse layer: y_t = sum over chosen e of w_te E_e(x_t).
//!
//! ```text
//! router -> Assignment (pairs in token order) -> Dispatch (one counting sort)
//!        -> experts on contiguous segments (gather on load, grouped products)
//!        -> weighted sum back into token order
//! ```
//!
//! No work is done per expert that the host would wait for, no atomic is used, and
//! every sum runs in an order given by the assignment alone. The pieces:
//! [`Assignment`] and [`Dispatch`], [`experts`] (the feed-forward maps of the
//! segments), [`layer`] (gather, experts, weighted sum and their gradients),
//! [`competition`] (every expert on every token, for responses only), [`losers`] (the
//! gradient of the responses of those that were not chosen).

mod assignment;
pub mod competition;
mod dispatch;
pub mod experts;
pub mod layer;
pub mod losers;

pub use assignment::Assignment;
pub use dispatch::{Capacity, DROPPED, Dispatch, Drop};
