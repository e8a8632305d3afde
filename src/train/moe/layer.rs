//! Tokens to their experts and back, with all gradients.
//!
//! y_t = sum over pairs (t, e) of w_te E_e(x_t). With s the slot of a pair:
//! dL/dw = dy_t . E_e(x_t); dL/dE_e(x_t) = w dy_t, and dL/dx_t adds over pairs in
//! the router's order.

use crate::train::moe::experts::{self, Saved, Shape, Weights, Workspace};
use crate::train::moe::{Assignment, DROPPED, Dispatch};
use crate::train::ops::real::{Real, dot, vectorised};
use crate::train::ops::rows;
use rayon::prelude::*;

/// Writes y; what the backward pass needs stays in `saved`.
///
/// # Shapes
/// x, y: tokens, width.
pub fn forward<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    x: &[T],
    assignment: &Assignment<T>,
    dispatch: &Dispatch,
    saved: &mut Saved<T>,
    y: &mut [T],
) {
    experts::forward(shape, weights, x, dispatch, saved);
    add_outputs(shape.width, assignment, dispatch, saved, y);
}

/// [`forward`] of the winners of a competition that kept what they computed
/// ([`crate::train::moe::competition::compete`]).
///
/// # Shapes
/// y: tokens, width.
pub fn forward_of_winners<T: Real>(
    width: usize,
    assignment: &Assignment<T>,
    dispatch: &Dispatch,
    saved: &mut Saved<T>,
    y: &mut [T],
) {
    let places = &saved.places;
    let rows = dispatch.pairs().iter().map(|&pair| places[pair as usize]);
    let rows = &*saved.rows.insert(rows.collect());
    saved.out.resize(rows.len() * width, T::ZERO);
    let kept = &saved.kept;
    rows::for_each(&mut saved.out, width, |slot, out| {
        out.copy_from_slice(&kept[rows[slot] as usize * width..][..width]);
    });
    add_outputs(width, assignment, dispatch, saved, y);
}

/// y_t = sum over pairs (t, e) of w_te E_e(x_t)
fn add_outputs<T: Real>(
    width: usize,
    assignment: &Assignment<T>,
    dispatch: &Dispatch,
    saved: &Saved<T>,
    y: &mut [T],
) {
    rows::for_each(y, width, |token, y| {
        y.fill(T::ZERO);
        for pair in assignment.pairs_of(token) {
            let slot = dispatch.slots()[pair];
            if slot != DROPPED {
                let weight = assignment.weights()[pair];
                let out = &saved.out[slot as usize * width..][..width];
                vectorised!(|| {
                    for (y, &out) in y.iter_mut().zip(out) {
                        *y += weight * out;
                    }
                });
            }
        }
    });
}

/// What a backward pass starts from.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a, T> {
    /// dL/dy. Shape: tokens, width.
    pub dy: &'a [T],
    /// dL/dE(x) of terms other than y, such as the competition's responses and the
    /// diversity loss. Shape: slots, width.
    pub d_outputs: Option<&'a [T]>,
}

/// dL/dw of every pair, 0 of dropped ones: what the router's backward pass takes.
///
/// # Shapes
/// dy: tokens, width. Result: pairs.
pub fn weight_gradients<T: Real>(
    width: usize,
    assignment: &Assignment<T>,
    dispatch: &Dispatch,
    saved: &Saved<T>,
    dy: &[T],
) -> Vec<T> {
    let mut gradients = vec![T::ZERO; assignment.weights().len()];
    let by_slot: Vec<T> = dispatch
        .tokens()
        .par_iter()
        .enumerate()
        .with_min_len(64)
        .map(|(slot, &token)| {
            let dy = &dy[token as usize * width..][..width];
            vectorised!(|| dot(dy, &saved.out[slot * width..][..width]))
        })
        .collect();
    for (&pair, gradient) in dispatch.pairs().iter().zip(by_slot) {
        gradients[pair as usize] = gradient;
    }
    gradients
}

/// Writes dL/dx (of the experts' inputs; the router's part comes on top) and adds
/// the gradients of the experts' weights.
///
/// # Shapes
/// x, dx: tokens, width.
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    x: &[T],
    assignment: &Assignment<T>,
    dispatch: &Dispatch,
    saved: &Saved<T>,
    workspace: &mut Workspace<T>,
    upstream: Upstream<T>,
    dx: &mut [T],
    gradients: Weights<&mut [T]>,
) {
    let width = shape.width;
    let d_out = |slot: usize, d_out: &mut [T]| {
        let token = dispatch.tokens()[slot] as usize;
        let weight = assignment.weights()[dispatch.pairs()[slot] as usize];
        let dy = &upstream.dy[token * width..][..width];
        let other = upstream.d_outputs.map(|d| &d[slot * width..][..width]);
        vectorised!(|| match other {
            Some(other) => {
                for ((d_out, &dy), &other) in d_out.iter_mut().zip(dy).zip(other) {
                    *d_out = weight * dy + other;
                }
            }
            None => {
                for (d_out, &dy) in d_out.iter_mut().zip(dy) {
                    *d_out = weight * dy;
                }
            }
        });
    };
    experts::backward(
        shape, weights, x, dispatch, saved, workspace, d_out, gradients,
    );
    rows::for_each(dx, width, |token, dx| {
        dx.fill(T::ZERO);
        for pair in assignment.pairs_of(token) {
            let slot = dispatch.slots()[pair];
            if slot != DROPPED {
                let from = &workspace.dx[slot as usize * width..][..width];
                vectorised!(|| {
                    for (dx, &from) in dx.iter_mut().zip(from) {
                        *dx += from;
                    }
                });
            }
        }
    });
}

#[cfg(test)]
mod tests;
