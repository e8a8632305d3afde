//! Numerical ground: no statistics, no model.

pub mod dense;
pub mod lanes;
pub mod least_squares;
pub mod log_space;
pub mod quadrature;
pub mod sum;
pub mod top_k;
pub mod vector_math;
