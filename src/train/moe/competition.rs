//! Every expert on every token, for the responses.
//!
//! a_te = response(E_e(x_t)). Only winners receive gradients (task, weights,
//! diversity), so losers need no lasting memory: a block of tokens passes through one
//! expert after another, and what the best so far computed is kept. A training step
//! is then a dense forward pass and a sparse backward pass for the winners.

use crate::error::Result;
use crate::train::moe::Assignment;
use crate::train::moe::experts::{
    Block, Direction, Expert, Matrices, Saved, Shape, Weights, Workspace, run_block, take,
};
use crate::train::ops::pool::Pool;
use crate::train::ops::real::Real;
use crate::train::router::combine::Selection;
use crate::train::router::competition::Competition;
use crate::train::router::response::Response;
use crate::train::router::top_k::{self, Entry};
use rayon::prelude::*;

/// Tokens of a block: what an expert computes for them stays in the second cache.
const TOKENS: usize = 64;

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
    matrices.pack(shape, weights, Direction::Forward, |_| true);
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
                memory.resize(shape);
                for expert in 0..experts {
                    pass.respond(expert, x, memory, affinities);
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
    let (width, experts, k) = (shape.width, shape.experts, competition.winners.k);
    let tokens = x.len() / width;
    assert_eq!(tokens, affinities.len() / experts, "affinities");
    let matrices = &mut workspace.matrices;
    matrices.pack(shape, weights, Direction::Forward, |_| true);
    let pass = Pass {
        shape,
        weights,
        matrices,
        response: competition.response,
    };
    saved.resize(shape, tokens * k);
    saved.kept.resize(tokens * k * width, T::ZERO);
    saved.places.clear();
    saved.places.extend(0..(tokens * k) as u32);
    let mut kept = Kept {
        k,
        places: &mut saved.places,
        up: &mut saved.up,
        gate: &mut saved.gate,
        out: &mut saved.kept,
    };
    let tasks: Vec<_> = x
        .chunks(TOKENS * width)
        .zip(affinities.chunks_mut(TOKENS * experts))
        .enumerate()
        .map(|(block, (x, affinities))| {
            let (first, rows) = (block * TOKENS, x.len() / width);
            let scores = scores.map(|scores| &scores[first * experts..(first + rows) * experts]);
            (x, affinities, scores, kept.take(rows, shape))
        })
        .collect();
    let memory = &workspace.memory;
    let blocks: Vec<Result<Assignment<T>>> = tasks
        .into_par_iter()
        .with_max_len(1)
        .map(|(x, affinities, scores, mut kept)| {
            memory.lend(|memory| {
                memory.resize(shape);
                let mut rank = vec![T::ZERO; affinities.len()];
                let mut best = vec![0; x.len() / width * k];
                for expert in 0..experts {
                    pass.respond(expert, x, memory, affinities);
                    for (token, rank) in rank.chunks_exact_mut(experts).enumerate() {
                        let at = token * experts + expert;
                        rank[expert] = match scores {
                            Some(scores) => T::of(0.5) * (affinities[at] + scores[at]),
                            None => affinities[at],
                        };
                        let best = &mut best[token * k..(token + 1) * k];
                        if let Some(entry) = top_k::insert(rank, expert, best) {
                            kept.keep(entry, token, memory, shape);
                        }
                    }
                }
                let winners = competition
                    .winners
                    .choose(Selection::PLAIN, &rank, experts)?;
                assert_eq!(winners.experts(), best, "what is kept is the winners'");
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

fn copy_row<T: Copy>(from: &[T], row: usize, to: &mut [T], place: usize, width: usize) {
    to[place * width..][..width].copy_from_slice(&from[row * width..][..width]);
}

/// What an expert computes for a block.
#[derive(Debug, Default)]
pub(super) struct Memory<T> {
    up: Vec<T>,
    gate: Vec<T>,
    out: Vec<T>,
    h: Vec<T>,
}

impl<T: Real> Memory<T> {
    fn resize(&mut self, shape: Shape) {
        self.up.resize(TOKENS * shape.hidden, T::ZERO);
        self.gate.resize(TOKENS * shape.gate(), T::ZERO);
        self.out.resize(TOKENS * shape.width, T::ZERO);
        self.h.resize(TOKENS * shape.activated(), T::ZERO);
    }
}

/// What is kept of the best of a block's tokens.
struct Kept<'a, T> {
    /// Rows of a token.
    k: usize,
    /// The row of every pair, counted from the batch's first.
    places: &'a mut [u32],
    up: &'a mut [T],
    gate: &'a mut [T],
    out: &'a mut [T],
}

impl<'a, T: Copy> Kept<'a, T> {
    /// Takes the rows of the next tokens off.
    fn take(&mut self, tokens: usize, shape: Shape) -> Kept<'a, T> {
        let pairs = tokens * self.k;
        Kept {
            k: self.k,
            places: take(&mut self.places, pairs),
            up: take(&mut self.up, pairs * shape.hidden),
            gate: take(&mut self.gate, pairs * shape.gate()),
            out: take(&mut self.out, pairs * shape.width),
        }
    }

    /// Keeps what an expert that enters a token's best has computed for it, in place of what
    /// the one that falls out had.
    fn keep(&mut self, entry: Entry, token: usize, memory: &Memory<T>, shape: Shape) {
        let pairs = token * self.k..(token + 1) * self.k;
        // A token's rows stay its own, in any order.
        let row = pairs.start + *entry.rotate(&mut self.places[pairs]) as usize % self.k;
        copy_row(&memory.up, token, self.up, row, shape.hidden);
        copy_row(&memory.gate, token, self.gate, row, shape.gate());
        copy_row(&memory.out, token, self.out, row, shape.width);
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
    /// An expert's responses to a block of tokens; what it computes is left in memory.
    fn respond(&self, number: usize, x: &[T], memory: &mut Memory<T>, affinities: &mut [T]) {
        let (width, hidden) = (self.shape.width, self.shape.hidden);
        let rows = x.len() / width;
        let expert = Expert {
            shape: self.shape,
            number,
            weights: self.weights,
            packed: Some(self.matrices),
        };
        let mut block = Block {
            up: &mut memory.up[..rows * hidden],
            gate: &mut memory.gate[..rows * self.shape.gate()],
            hidden: &mut memory.h[..rows * self.shape.activated()],
            out: &mut memory.out[..rows * width],
        };
        run_block(expert, x, &mut block);
        let own = affinities.iter_mut().skip(number);
        let own = own.step_by(self.shape.experts);
        self.response.forward_rows(block.out, width, own);
    }
}

#[cfg(test)]
mod tests;
