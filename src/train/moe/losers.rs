//! What a loss of responses teaches the experts that did not win.
//!
//! A loss of all responses a_te = response(E_e(x_t)), such as their balance, has a
//! gradient in every expert on every token. Winners get theirs with their other
//! gradients ([`crate::train::router::competition::Competition::add_output_gradients`]);
//! losers kept no outputs and are computed again here, a block of tokens at a time, so
//! that memory grows with the block and not with the batch.

use crate::train::moe::experts::{self, Saved, Shape, Weights, Workspace};
use crate::train::moe::{Assignment, Dispatch};
use crate::train::ops::real::Real;
use crate::train::ops::rows;
use crate::train::router::response::Response;

/// Tokens of a block: one task per expert.
const TOKENS: usize = experts::BLOCK;

/// Adds the gradients of the losers of `winners`: to `dx` of the tokens, to
/// `gradients` of the experts' weights.
///
/// # Shapes
/// x, dx: tokens, width. d_affinities: tokens, experts. Weights are taken as checked
/// by [`Shape::check`].
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    response: Response,
    x: &[T],
    winners: &Assignment<T>,
    d_affinities: &[T],
    dx: &mut [T],
    mut gradients: Weights<&mut [T]>,
) {
    let width = shape.width;
    let (mut saved, mut workspace) = (Saved::default(), Workspace::default());
    for (block, (x, dx)) in x
        .chunks(TOKENS * width)
        .zip(dx.chunks_mut(TOKENS * width))
        .enumerate()
    {
        let first = block * TOKENS;
        let losers = losers(winners, first..first + x.len() / width);
        let dispatch = Dispatch::new(&losers, None);
        experts::forward(shape, weights, x, &dispatch, &mut saved);
        workspace.d_out.clear();
        workspace.d_out.resize(saved.outputs().len(), T::ZERO);
        rows::for_each(&mut workspace.d_out, width, |slot, d_out| {
            let token = first + dispatch.tokens()[slot] as usize;
            let expert = losers.experts()[dispatch.pairs()[slot] as usize] as usize;
            let d_response = d_affinities[token * shape.experts + expert];
            let out = &saved.outputs()[slot * width..][..width];
            response.backward(out, d_response, d_out);
        });
        experts::backward(
            shape,
            weights,
            x,
            &dispatch,
            &mut saved,
            &mut workspace,
            gradients.each_mut().map(|g| &mut **g),
        );
        rows::for_each(dx, width, |token, dx| {
            for pair in losers.pairs_of(token) {
                let slot = dispatch.slots()[pair] as usize;
                for (dx, &from) in dx.iter_mut().zip(&workspace.dx[slot * width..][..width]) {
                    *dx += from;
                }
            }
        });
    }
}

/// The experts of these tokens that are not among the winners, in order.
fn losers<T: Real>(winners: &Assignment<T>, tokens: std::ops::Range<usize>) -> Assignment<T> {
    let count = winners.expert_count();
    let mut offsets = vec![0];
    let mut experts = Vec::with_capacity(tokens.len() * count);
    for token in tokens {
        let won = &winners.experts()[winners.pairs_of(token)];
        experts.extend((0..count as u32).filter(|e| !won.contains(e)));
        offsets.push(experts.len() as u32);
    }
    // Weights mean nothing here: responses are of outputs without weights.
    let weights = vec![T::ONE; experts.len()];
    Assignment::new(offsets, experts, weights, count).expect("offsets and experts are in order")
}
