//! Every expert on every token, for the responses alone.
//!
//! a_te = response(E_e(x_t)). Only winners receive gradients (task, weights,
//! diversity), so losers need no memory: outputs live in one block of rows per
//! thread and only a, of shape (tokens, experts), is kept. A training step is then
//! a dense forward pass and a sparse step for the winners.

use crate::train::moe::experts::{BLOCK, Block, Hidden, Shape, Weights, run_block};
use crate::train::ops::real::Real;
use crate::train::ops::rows;
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
    let tokens = x.len() / width;
    // Expert after expert, so that a task is one expert on a block of tokens.
    let mut by_expert = vec![T::ZERO; affinities.len()];
    let tasks: Vec<_> = by_expert
        .chunks_mut(tokens.max(1))
        .enumerate()
        .flat_map(|(expert, responses)| {
            let blocks = responses.chunks_mut(BLOCK).zip(x.chunks(BLOCK * width));
            blocks.map(move |(responses, x)| (expert, responses, x))
        })
        .collect();
    tasks.into_par_iter().with_max_len(1).for_each_init(
        Vec::new,
        |memory, (expert, responses, x)| {
            let rows = responses.len();
            // A whole block's, whatever this one's rows: resized once.
            memory.resize(BLOCK * (hidden + gate + width), T::ZERO);
            let memory = &mut memory[..rows * (hidden + gate + width)];
            let (up, rest) = memory.split_at_mut(rows * hidden);
            let (gate, out) = rest.split_at_mut(rows * gate);
            let mut block = Block {
                up,
                gate,
                hidden: None,
                out,
            };
            run_block(shape, weights, expert, x, &mut block);
            for (a, out) in responses.iter_mut().zip(block.out.chunks_exact(width)) {
                *a = response.forward(out);
            }
        },
    );
    rows::for_each(affinities, experts, |token, row| {
        for (expert, a) in row.iter_mut().enumerate() {
            *a = by_expert[expert * tokens + token];
        }
    });
}

#[cfg(test)]
mod tests;
