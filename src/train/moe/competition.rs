//! Every expert on every token, for the responses alone.
//!
//! a_te = response(E_e(x_t)). Only winners receive gradients (task, weights,
//! diversity), so losers need no memory: outputs live in one block of rows per
//! thread and only a, of shape (tokens, experts), is kept. A training step is then
//! a dense forward pass and a sparse step for the winners.

use crate::train::moe::experts::{BLOCK, Block, Hidden, Shape, Weights, run_block};
use crate::train::ops::real::Real;
use crate::train::router::response::Response;
use rayon::prelude::*;

/// Writes the response of every expert to every token.
///
/// # Shapes
/// x: tokens, width. affinities: tokens, experts.
pub fn affinities<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    response: Response,
    x: &[T],
    affinities: &mut [T],
) {
    let (width, hidden, experts) = (shape.width, shape.hidden, shape.experts);
    assert_eq!(x.len() / width, affinities.len() / experts, "affinities");
    let gate = match shape.kind {
        Hidden::Gated => hidden,
        Hidden::Plain(_) => 0,
    };
    affinities
        .par_chunks_mut(BLOCK * experts)
        .zip(x.par_chunks(BLOCK * width))
        .with_max_len(1)
        .for_each(|(affinities, x)| {
            let rows = x.len() / width;
            let mut memory = vec![T::ZERO; rows * (2 * hidden + gate + width)];
            let (up, rest) = memory.split_at_mut(rows * hidden);
            let (activated, rest) = rest.split_at_mut(rows * hidden);
            let (gate, out) = rest.split_at_mut(rows * gate);
            let mut block = Block {
                up,
                gate,
                hidden: activated,
                out,
            };
            for expert in 0..experts {
                run_block(shape, weights, expert, x, &mut block);
                let outputs = block.out.chunks_exact(width);
                for (affinities, out) in affinities.chunks_exact_mut(experts).zip(outputs) {
                    affinities[expert] = response.forward(out);
                }
            }
        });
}

#[cfg(test)]
mod tests;
