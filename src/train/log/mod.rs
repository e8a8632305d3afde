//! What a run reports while it trains: `log.jsonl`, and the same scalars for
//! TensorBoard.
//!
//! | file | content |
//! |---|---|
//! | [`row`] | the rows, typed |
//! | [`mod@file`] | `log.jsonl`: written row by row, cut at a step on resume |
//! | [`events`] | TensorBoard's event file |
//!
//! Only `seconds` and `tokens_per_second` depend on the clock: two runs of one seed
//! have equal rows [without them](Row::without_clock).

pub mod events;
pub mod file;
mod number;
pub mod row;

pub use events::Events;
pub use file::{Log, read};
pub(in crate::train) use number::{number, numbers};
pub use row::{Auxiliary, Evaluation, Row, Statistics, Step, Text};
