//! Every expert on every token, for the responses.
//!
//! a_te = response(E_e(x_t)). Only winners receive gradients (task, weights,
//! diversity), so losers need no lasting memory: a block of tokens passes through all
//! experts, its winners are chosen there, and what they computed is kept. A training step
//! is then a dense forward pass and a sparse backward pass for the winners.

use crate::error::Result;
use crate::train::moe::Assignment;
use crate::train::moe::experts::{
    Block, Expert, Matrices, Saved, Shape, Weights, Workspace, run_block, take,
};
use crate::train::ops::pool::Pool;
use crate::train::ops::real::Real;
use crate::train::router::combine::Selection;
use crate::train::router::competition::Competition;
use crate::train::router::response::Response;
use rayon::prelude::*;

/// Tokens of a block, if there is room for all that experts compute for them.
const TOKENS: usize = 64;
/// Most numbers that a block computes, as far as a block of 8 tokens allows.
const ROOM: usize = 1 << 22;

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
    let (width, experts) = (shape.width, shape.experts);
    assert_eq!(x.len() / width, affinities.len() / experts, "affinities");
    let mut matrices = Matrices::default();
    matrices.pack(shape, weights);
    let pass = Pass {
        shape,
        weights,
        matrices: &matrices,
        response,
    };
    let memory = Pool::<Memory<T>>::default();
    x.par_chunks(TOKENS * width)
        .zip(affinities.par_chunks_mut(TOKENS * experts))
        .with_max_len(1)
        .for_each(|(x, affinities)| {
            memory.lend(|memory| {
                memory.resize(shape, TOKENS, 1);
                for expert in 0..experts {
                    let Memory { up, gate, out, h } = &mut *memory;
                    pass.respond(expert, x, [up, gate, out], h, affinities);
                }
            });
        });
}

/// [`affinities`], the winners, and what the winners computed, kept in `saved` until
/// [`crate::train::moe::layer::forward_of_winners`]. Where `scores` are given, winners
/// are those of the mean (a + z) / 2.
///
/// # Shapes
/// x: tokens, width. scores, affinities: tokens, experts.
///
/// # Errors
/// As [`crate::train::router::combine::TopK::choose`].
#[allow(clippy::too_many_arguments)]
pub fn compete<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    competition: &Competition,
    scores: Option<&[T]>,
    x: &[T],
    affinities: &mut [T],
    saved: &mut Saved<T>,
    workspace: &mut Workspace<T>,
) -> Result<Assignment<T>> {
    let (width, hidden, gate) = (shape.width, shape.hidden, shape.gate());
    let (experts, k) = (shape.experts, competition.winners.k);
    let tokens = x.len() / width;
    assert_eq!(tokens, affinities.len() / experts, "affinities");
    workspace.matrices.pack(shape, weights);
    let pass = Pass {
        shape,
        weights,
        matrices: &workspace.matrices,
        response: competition.response,
    };
    saved.resize(shape, tokens * k);
    saved.kept.resize(tokens * k * width, T::ZERO);
    let room = ROOM / (experts * (hidden + gate + width));
    let block = room.clamp(8, TOKENS);
    let mut kept = Kept {
        up: &mut saved.up,
        gate: &mut saved.gate,
        out: &mut saved.kept,
    };
    let tasks: Vec<_> = x
        .chunks(block * width)
        .zip(affinities.chunks_mut(block * experts))
        .enumerate()
        .map(|(number, (x, affinities))| {
            let rows = x.len() / width;
            let at = number * block * experts..(number * block + rows) * experts;
            let scores = scores.map(|scores| &scores[at]);
            (x, affinities, scores, kept.take(rows * k, shape))
        })
        .collect();
    let memory = &workspace.memory;
    let blocks: Vec<Result<Assignment<T>>> = tasks
        .into_par_iter()
        .with_max_len(1)
        .map(|(x, affinities, scores, kept)| {
            memory.lend(|memory| {
                memory.resize(shape, block, experts);
                let Memory {
                    up,
                    gate: gates,
                    out,
                    h,
                } = memory;
                for expert in 0..experts {
                    let part = [
                        &mut up[expert * block * hidden..],
                        &mut gates[expert * block * gate..],
                        &mut out[expert * block * width..],
                    ];
                    pass.respond(expert, x, part, h, affinities);
                }
                let winners = choose(competition, scores, affinities, experts)?;
                for (pair, &expert) in winners.experts().iter().enumerate() {
                    let from = expert as usize * block + pair / k;
                    copy_row(up, from, kept.up, pair, hidden);
                    copy_row(gates, from, kept.gate, pair, gate);
                    copy_row(out, from, kept.out, pair, width);
                }
                Ok(winners)
            })
        })
        .collect();
    let (mut chosen, mut shares) = (Vec::new(), Vec::new());
    for winners in blocks {
        let winners = winners?;
        chosen.extend_from_slice(winners.experts());
        shares.extend_from_slice(winners.weights());
    }
    Assignment::uniform(k, chosen, shares, experts)
}

/// The winners by the responses, or by their mean with scores.
fn choose<T: Real>(
    competition: &Competition,
    scores: Option<&[T]>,
    affinities: &[T],
    experts: usize,
) -> Result<Assignment<T>> {
    let Some(scores) = scores else {
        return competition
            .winners
            .choose(Selection::PLAIN, affinities, experts);
    };
    let half = T::of(0.5);
    let pairs = affinities.iter().zip(scores);
    let mixed: Vec<T> = pairs.map(|(&a, &z)| half * (a + z)).collect();
    competition
        .winners
        .choose(Selection::PLAIN, &mixed, experts)
}

fn copy_row<T: Copy>(from: &[T], row: usize, to: &mut [T], place: usize, width: usize) {
    to[place * width..][..width].copy_from_slice(&from[row * width..][..width]);
}

/// What a block computes: of one expert or of all, expert after expert.
#[derive(Debug, Default)]
pub(super) struct Memory<T> {
    up: Vec<T>,
    gate: Vec<T>,
    out: Vec<T>,
    /// h of one expert.
    h: Vec<T>,
}

impl<T: Real> Memory<T> {
    fn resize(&mut self, shape: Shape, rows: usize, experts: usize) {
        self.up.resize(experts * rows * shape.hidden, T::ZERO);
        self.gate.resize(experts * rows * shape.gate(), T::ZERO);
        self.out.resize(experts * rows * shape.width, T::ZERO);
        self.h.resize(rows * shape.hidden, T::ZERO);
    }
}

/// Where winners' rows go, by pair.
struct Kept<'a, T> {
    up: &'a mut [T],
    gate: &'a mut [T],
    out: &'a mut [T],
}

impl<'a, T> Kept<'a, T> {
    /// Takes the rows of the next pairs off.
    fn take(&mut self, pairs: usize, shape: Shape) -> Kept<'a, T> {
        Kept {
            up: take(&mut self.up, pairs * shape.hidden),
            gate: take(&mut self.gate, pairs * shape.gate()),
            out: take(&mut self.out, pairs * shape.width),
        }
    }
}

/// What a block needs of the experts.
struct Pass<'a, T> {
    shape: Shape,
    weights: &'a Weights<&'a [T]>,
    matrices: &'a Matrices<T>,
    response: Response,
}

impl<T: Real> Pass<'_, T> {
    /// An expert's responses to a block of tokens; what it computes is left in memory: up,
    /// gate and outputs, and h.
    fn respond(
        &self,
        number: usize,
        x: &[T],
        [up, gate, out]: [&mut [T]; 3],
        h: &mut [T],
        affinities: &mut [T],
    ) {
        let (width, hidden) = (self.shape.width, self.shape.hidden);
        let rows = x.len() / width;
        let expert = Expert {
            shape: self.shape,
            number,
            weights: self.weights,
            packed: Some(self.matrices),
        };
        let mut block = Block {
            up: &mut up[..rows * hidden],
            gate: &mut gate[..rows * self.shape.gate()],
            hidden: &mut h[..rows * hidden],
            out: &mut out[..rows * width],
        };
        run_block(expert, x, &mut block);
        let outputs = block.out.chunks_exact(width);
        for (a, out) in affinities.chunks_exact_mut(self.shape.experts).zip(outputs) {
            a[number] = self.response.forward(out);
        }
    }
}

#[cfg(test)]
mod tests;
