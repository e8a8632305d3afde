//! Operations on plain slices, each with its formula, its forward and its backward.

pub mod activation;
pub mod adamw;
pub mod attention;
#[cfg(test)]
pub(crate) mod check;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
mod kernel;
pub mod linear;
pub mod matmul;
pub mod meter;
pub mod norm;
pub mod packed;
pub mod pool;
pub mod real;
pub mod rotary;
pub mod rows;
pub mod softmax;
mod view;
