//! How far one mixture is from another.
//!
//! * [`density`]: Hellinger, total variation and Kullback-Leibler between the
//!   conditional densities, averaged over the input: the losses of the density
//!   rates. [`job`] takes the mean step by step, so that [`evaluation`] can compute
//!   the divergences of many pairs at once, here or on a device.
//! * [`voronoi`]: losses between the parameters, one cell of fitted experts per
//!   true expert: the losses of the parameter rates.
//! * [`coordinate`]: errors of single parameters, cell by cell.
//! * [`selection`]: how often two sparse mixtures keep different experts.
//! * [`alignment`]: which fitted expert is which true one, where there are as
//!   many.

pub mod alignment;
pub mod coordinate;
pub mod density;
pub mod divergence;
pub mod evaluation;
pub mod job;
pub mod selection;
pub mod voronoi;
