//! Where divergences at single inputs are computed.

use super::divergence::{Divergence, Wanted, divergence};
use crate::error::Result;
use crate::model::Parameters;
use rayon::prelude::*;

/// Two mixtures over inputs of one dimension.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The density that expectations are taken under.
    pub p: &'a Parameters,
    /// The other one.
    pub q: &'a Parameters,
}

/// An input at which the divergences of a pair are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Index of the pair.
    pub pair: usize,
    /// Shape: d.
    pub input: &'a [f64],
}

/// Computes divergences: the processor, or a device.
pub trait Divergences {
    /// The divergences that each request asks for, in their order.
    ///
    /// # Errors
    /// [`crate::error::Error::Device`], [`crate::error::Error::OutOfMemory`]: on a
    /// device.
    fn divergences(
        &self,
        pairs: &[Pair],
        requests: &[Request],
        wanted: Wanted,
    ) -> Result<Vec<Divergence>>;
}

/// [`divergence`] on all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor;

impl Divergences for Processor {
    fn divergences(
        &self,
        pairs: &[Pair],
        requests: &[Request],
        wanted: Wanted,
    ) -> Result<Vec<Divergence>> {
        let at = |request: &Request| {
            let Pair { p, q } = pairs[request.pair];
            let (p, q) = (p.conditional(request.input), q.conditional(request.input));
            divergence(&p, &q, wanted)
        };
        Ok(requests.par_iter().map(at).collect())
    }
}
