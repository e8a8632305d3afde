//! Gradients of experts.
//!
//! A task is one expert on a block of rows, with its matrices packed for all of its blocks.
//! Gradients of the weights are one group of products over whole segments.

use super::forward::{Direction, take};
use super::{Hidden, Saved, Shape, Weights, Workspace, blocks, view, view_mut};
use crate::train::moe::Dispatch;
use crate::train::ops::activation::{gated_backward, gated_forward};
use crate::train::ops::matmul::{Into, Product, View, ViewMut, products};
use crate::train::ops::packed::{Finish, Packed};
use crate::train::ops::real::{Real, prefetch, vectorised};
use rayon::prelude::*;

/// Rows of one task: what it computes stays in the second cache.
const BLOCK: usize = 64;

/// Computes `workspace.dx` and adds to the gradients of the weights. `fill(slot, d_out)`
/// writes dL/dE(x) of a slot, weights included.
///
/// # Shapes
/// x: tokens, width. Gradients as the weights.
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    x: &[T],
    dispatch: &Dispatch,
    saved: &Saved<T>,
    workspace: &mut Workspace<T>,
    fill: impl Fn(usize, &mut [T]) + Sync,
    gradients: Weights<&mut [T]>,
) {
    let (width, hidden) = (shape.width, shape.hidden);
    let slots = dispatch.tokens().len();
    workspace.d_out.resize(slots * width, T::ZERO);
    workspace.dx.resize(slots * width, T::ZERO);
    workspace.hidden.resize(slots * shape.activated(), T::ZERO);
    workspace.d_up.resize(slots * hidden, T::ZERO);
    workspace.d_gate.resize(slots * shape.gate(), T::ZERO);
    let (mut d_out, mut dx) = (&mut workspace.d_out[..], &mut workspace.dx[..]);
    let mut h = &mut workspace.hidden[..];
    let (mut d_up, mut d_gate) = (&mut workspace.d_up[..], &mut workspace.d_gate[..]);
    let matrices = &mut workspace.matrices;
    matrices.pack(shape, weights, Direction::Backward, |expert| {
        !dispatch.segment(expert).is_empty()
    });
    let matrices = &*matrices;
    let tasks: Vec<_> = blocks(dispatch, BLOCK)
        .into_iter()
        .map(|(expert, slots)| {
            let rows = slots.len();
            let d_out = take(&mut d_out, rows * width);
            let dx = take(&mut dx, rows * width);
            let h = take(&mut h, rows * shape.activated());
            let d_up = take(&mut d_up, rows * hidden);
            let d_gate = take(&mut d_gate, rows * shape.gate());
            (expert, slots, [d_out, dx, h, d_up, d_gate])
        })
        .collect();
    tasks.into_par_iter().with_max_len(1).for_each(
        |(expert, slots, [d_out, dx, h, d_up, d_gate])| {
            for (slot, d_out) in slots.clone().zip(d_out.chunks_exact_mut(width)) {
                fill(slot, d_out);
            }
            let back = |matrices: &[Packed<T>], d: View<T>, result: ViewMut<T>, into| {
                matrices[expert].product(d, result, into, Finish::Kept);
            };
            let (d, result) = (view(d_out, width), view_mut(d_up, hidden));
            back(&matrices.down, d, result, Into::Written);
            for (i, slot) in slots.clone().enumerate() {
                if slot + 1 < slots.end {
                    prefetch(&saved.up[saved.row(slot + 1) * hidden..][..hidden]);
                }
                let from = saved.row(slot);
                let up = &saved.up[from * hidden..][..hidden];
                let at = i * hidden..(i + 1) * hidden;
                let d_up = &mut d_up[at.clone()];
                vectorised!(|| match shape.kind {
                    Hidden::Plain(activation) => {
                        activation.backward(up, d_up);
                        if let Some(h) = h.get_mut(at) {
                            activation.forward(up, h);
                        }
                    }
                    Hidden::Gated => {
                        let (h, d_gate) = (&mut h[at.clone()], &mut d_gate[at]);
                        d_gate.copy_from_slice(&saved.gate[from * hidden..][..hidden]);
                        h.copy_from_slice(up);
                        gated_backward(d_gate, h, d_up);
                        d_up.copy_from_slice(h);
                        gated_forward(&saved.gate[from * hidden..][..hidden], up, h);
                    }
                });
            }
            let (d, result) = (view(d_up, hidden), view_mut(dx, width));
            back(&matrices.up, d, result, Into::Written);
            if shape.kind == Hidden::Gated {
                let (d, result) = (view(d_gate, hidden), view_mut(dx, width));
                back(&matrices.gate, d, result, Into::Added);
            }
        },
    );
    add_weight_gradients(shape, x, dispatch, saved, workspace, gradients);
}

/// Rows by slot, or by an order of their own.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    values: &'a [T],
    columns: usize,
    order: Option<&'a [u32]>,
}

impl<'a, T> Rows<'a, T> {
    /// The transpose of a segment's rows.
    fn transposed(&self, segment: std::ops::Range<usize>) -> View<'a, T> {
        let columns = self.columns;
        match self.order {
            Some(order) => View::transposed_rows(self.values, columns, &order[segment]),
            None => {
                let part = &self.values[segment.start * columns..segment.end * columns];
                view(part, columns).transposed()
            }
        }
    }
}

/// dV += h^T dE, dU += x^T dup, dG += x^T dgate, and the biases, expert by expert.
fn add_weight_gradients<T: Real>(
    shape: Shape,
    x: &[T],
    dispatch: &Dispatch,
    saved: &Saved<T>,
    workspace: &Workspace<T>,
    gradients: Weights<&mut [T]>,
) {
    let (width, hidden) = (shape.width, shape.hidden);
    let x = Rows {
        values: x,
        columns: width,
        order: Some(dispatch.tokens()),
    };
    let (values, order) = match shape.finish() {
        Finish::Rectified => (&saved.up, saved.rows.as_deref()),
        Finish::Kept => (&workspace.hidden, None),
    };
    let h = Rows {
        values,
        columns: hidden,
        order,
    };
    let (d_out, d_up, d_gate) = (&workspace.d_out, &workspace.d_up, &workspace.d_gate);
    let mut all = Vec::new();
    push_group(&mut all, dispatch, h, (d_out, width), gradients.down);
    push_group(&mut all, dispatch, x, (d_up, hidden), gradients.up);
    if let Some(gate) = gradients.gate {
        push_group(&mut all, dispatch, x, (d_gate, hidden), gate);
    }
    products(all);
    if let Some(bias) = gradients.up_bias {
        add_bias_gradients(dispatch, &workspace.d_up, hidden, bias);
    }
    if let Some(bias) = gradients.down_bias {
        add_bias_gradients(dispatch, &workspace.d_out, width, bias);
    }
}

/// One product left^T right per expert with slots, each over its segment.
fn push_group<'a, T: Real>(
    all: &mut Vec<Product<'a, T>>,
    dispatch: &Dispatch,
    left: Rows<'a, T>,
    (right, outputs): (&'a [T], usize),
    gradient: &'a mut [T],
) {
    let matrices = gradient.chunks_exact_mut(left.columns * outputs);
    for (expert, gradient) in matrices.enumerate() {
        let segment = dispatch.segment(expert);
        if !segment.is_empty() {
            let right = &right[segment.start * outputs..segment.end * outputs];
            all.push(Product {
                left: left.transposed(segment),
                right: view(right, outputs),
                result: view_mut(gradient, outputs),
                into: Into::Added,
            });
        }
    }
}

fn add_bias_gradients<T: Real>(dispatch: &Dispatch, d: &[T], width: usize, bias: &mut [T]) {
    bias.par_chunks_mut(width)
        .enumerate()
        .for_each(|(expert, bias)| {
            for slot in dispatch.segment(expert) {
                for (bias, &d) in bias.iter_mut().zip(&d[slot * width..][..width]) {
                    *bias += d;
                }
            }
        });
}
