//! What routers do, measured on one batch: pure functions on host arrays.
//!
//! | file | measures |
//! |---|---|
//! | [`load`] | how evenly experts are used |
//! | [`distribution`] | how sure routers are |
//! | [`choice`] | how choices move, and what is chosen together |
//! | [`outputs`] | how large and how alike experts are |
//! | [`competition`] | what the router has learnt of the competition |
//!
//! Notation. T tokens, E experts, S_t the experts chosen for token t, p_t =
//! softmax(z_t) the router's distribution, w_te the weights. Entropies are in nats, or
//! divided by log E where called normalised. A mean over nothing is `None`, or 0 where
//! stated.

pub mod choice;
pub mod competition;
pub mod distribution;
mod layer;
pub mod load;
pub mod outputs;

pub use competition::{CompetitionStatistics, Contest};
pub use layer::{Layer, LayerStatistics, Matrices, Similarity, layer};
pub use outputs::{ExpertWeights, Outputs};

/// sum / count; `None` of nothing.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u64);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

/// - sum of q log q over the q that are not 0, in nats.
///
/// 0 for one certain outcome, log n for n equal ones; not-a-number passes through.
pub fn entropy(probabilities: impl Iterator<Item = f64>) -> f64 {
    let terms = probabilities.filter(|&q| q != 0.0).map(|q| q * q.ln());
    // Subtracting from 0 gives 0 rather than -0 for a certain outcome.
    0.0 - terms.sum::<f64>()
}

/// Random inputs of this module's tests.
#[cfg(test)]
pub(in crate::train) mod sample {
    use crate::train::moe::Assignment;
    use crate::train::router::combine::{Combine, TopK};

    /// Top K, softmax over the chosen.
    pub fn route(scores: &[f64], experts: usize, k: usize) -> Assignment<f64> {
        let rule = TopK {
            k,
            combine: Combine::TopKSoftmax,
            scale: 1.0,
        };
        rule.forward(scores, experts).unwrap()
    }

    /// Tokens with these experts, of equal weights.
    pub fn chosen(tokens: &[&[u32]], experts: usize) -> Assignment<f64> {
        let mut offsets = vec![0];
        let mut pairs: Vec<u32> = Vec::new();
        let mut weights = Vec::new();
        for token in tokens {
            pairs.extend_from_slice(token);
            weights.extend(token.iter().map(|_| 1.0 / token.len() as f64));
            offsets.push(pairs.len() as u32);
        }
        Assignment::new(offsets, pairs, weights, experts).unwrap()
    }
}
