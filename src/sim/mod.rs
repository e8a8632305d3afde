//! Monte-Carlo studies: a study is a data file, a result is a row.
//!
//! ```text
//! study (TOML) -> plan (named cells) -> run (rows, resumable) -> rate, constants -> verdicts
//! ```
//!
//! A row is a function of (study seed, cell, replicate): it does not depend on
//! the other cells, on the number of threads, or on when the run was killed.

pub mod claim;
pub mod column;
pub mod complete_information;
pub mod constants;
pub mod data;
pub mod device;
mod estimate;
pub mod inverse;
mod judge;
pub mod plan;
pub mod rate;
pub mod row;
pub mod run;
pub mod series;
pub mod shard;
pub mod statistic;
pub mod study;
pub mod summary;

pub use plan::{Cell, Plan};
pub use row::{Row, RowFile};
pub use shard::Shard;
pub use study::Study;
pub use summary::{Summary, Verdict};
