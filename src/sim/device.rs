//! Losses whose divergences a device computes.

use crate::backend::cuda::Comparer;
use crate::backend::cuda::Steps;
use crate::error::Result;
use crate::loss::divergence::{Divergence, MAX_NODES, NODES_PER_DEVIATION, RANGE, Wanted};
use crate::loss::evaluation::{Divergences, Pair, Processor, Request};
use crate::model::Parameters;

const STEPS: Steps = Steps {
    range: RANGE,
    nodes_per_deviation: NODES_PER_DEVIATION,
    most_nodes: MAX_NODES,
};

/// Divergences from a device. The processor takes what is not made for one: total
/// variation, and mixtures whose scales are very different.
#[derive(Clone, Debug)]
pub struct DeviceDivergences(pub Comparer);

impl Divergences for DeviceDivergences {
    fn divergences(
        &self,
        pairs: &[Pair],
        requests: &[Request],
        wanted: Wanted,
    ) -> Result<Vec<Divergence>> {
        if wanted == Wanted::All {
            return Processor.divergences(pairs, requests, wanted);
        }
        let mixtures: Vec<(&Parameters, &Parameters)> =
            pairs.iter().map(|pair| (pair.p, pair.q)).collect();
        let inputs: Vec<(usize, &[f64])> = requests.iter().map(|r| (r.pair, r.input)).collect();
        let found = self.0.divergences(&mixtures, &inputs, STEPS)?;
        let missing = requests.iter().zip(&found);
        let missing: Vec<Request> = missing
            .filter(|(_, found)| found.is_none())
            .map(|(request, _)| *request)
            .collect();
        let mut others = Processor.divergences(pairs, &missing, wanted)?.into_iter();
        let divergences = found.into_iter().filter_map(|found| match found {
            Some(found) => Some(Divergence {
                hellinger_sq: found.hellinger_sq,
                total_variation: f64::NAN,
                kullback_leibler: found.kullback_leibler,
            }),
            None => others.next(),
        });
        Ok(divergences.collect())
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
