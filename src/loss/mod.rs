//! How far one mixture is from another.

pub mod voronoi;
