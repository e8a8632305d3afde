//! A training run, from its file to its results.

pub mod checkpoint;
pub mod evaluate;
pub mod session;
pub mod trainer;

#[cfg(test)]
mod tests;
