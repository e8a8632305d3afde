//! Rows through experts.
//!
//! A task is one expert on a block of rows: rows are gathered as they are loaded and stay
//! in cache through both products.

use super::{Hidden, Saved, Shape, Weights, blocks, view, view_mut};
use crate::train::moe::Dispatch;
use crate::train::ops::activation::gated_forward;
use crate::train::ops::matmul::{Into, Product, View};
use crate::train::ops::packed::{Finish, Packed};
use crate::train::ops::real::{Real, vectorised};
use rayon::prelude::*;

/// Rows of one task, which packs its expert's matrices.
pub(in super::super) const BLOCK: usize = 256;

/// The rows of one expert that one task computes.
pub(in super::super) struct Block<'a, T> {
    pub up: &'a mut [T],
    pub gate: &'a mut [T],
    pub hidden: &'a mut [T],
    pub out: &'a mut [T],
}

/// What is multiplied by the matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Direction {
    /// Inputs, by U, G and V.
    Forward,
    /// Gradients, by their transposes.
    Backward,
}

/// The matrices of all experts for products with many blocks of tokens.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Matrices<T> {
    pub(super) up: Vec<Packed<T>>,
    pub(super) gate: Vec<Packed<T>>,
    pub(super) down: Vec<Packed<T>>,
}

impl<T: Real> Matrices<T> {
    /// Of these weights now, of the experts that `serve`.
    pub(in super::super) fn pack(
        &mut self,
        shape: Shape,
        weights: &Weights<&[T]>,
        direction: Direction,
        serve: impl Fn(usize) -> bool,
    ) {
        let (width, hidden) = (shape.width, shape.hidden);
        let mut all = Vec::new();
        for (packed, weight, [inputs, outputs]) in [
            (&mut self.up, Some(weights.up), [width, hidden]),
            (&mut self.gate, weights.gate, [width, hidden]),
            (&mut self.down, Some(weights.down), [hidden, width]),
        ] {
            let weight = weight.unwrap_or_default();
            packed.resize_with(weight.len() / (inputs * outputs), Packed::default);
            let matrices = weight.chunks_exact(inputs * outputs);
            let views = matrices.map(move |matrix| {
                let view = View::rows(matrix, inputs, outputs);
                match direction {
                    Direction::Forward => view,
                    Direction::Backward => view.transposed(),
                }
            });
            let pairs = packed.iter_mut().zip(views).enumerate();
            all.extend(pairs.filter(|(expert, _)| serve(*expert)));
        }
        all.into_par_iter()
            .with_max_len(1)
            .for_each(|(_, (packed, matrix))| packed.pack(matrix));
    }
}

/// One expert, its matrices as they are or packed.
#[derive(Clone, Copy)]
pub(in super::super) struct Expert<'a, T> {
    pub shape: Shape,
    pub number: usize,
    pub weights: &'a Weights<&'a [T]>,
    pub packed: Option<&'a Matrices<T>>,
}

impl<T: Real> Expert<'_, T> {
    fn product(
        &self,
        x: &[T],
        weight: &[T],
        packed: impl Fn(&Matrices<T>) -> &[Packed<T>],
        [inputs, outputs]: [usize; 2],
        (bias, finish): (Option<&[T]>, Finish),
        y: &mut [T],
    ) {
        let into = Into::with(bias.map(|bias| &bias[self.number * outputs..][..outputs]));
        let (left, result) = (view(x, inputs), view_mut(y, outputs));
        if let Some(matrices) = self.packed {
            return packed(matrices)[self.number].product(left, result, into, finish);
        }
        let product = Product {
            left,
            right: View::rows(&weight[self.shape.matrix(self.number)], inputs, outputs),
            result,
            into,
        };
        product.run_to(finish);
    }
}

/// Inputs through an expert.
pub(in super::super) fn run_block<T: Real>(expert: Expert<T>, x: &[T], block: &mut Block<T>) {
    let Expert { shape, weights, .. } = expert;
    let (width, hidden) = (shape.width, shape.hidden);
    let Block {
        up,
        gate,
        hidden: h,
        out,
    } = block;
    let inwards = [width, hidden];
    let finish = (weights.up_bias, shape.finish());
    expert.product(x, weights.up, |m| &m.up, inwards, finish, up);
    if let Some(weight) = weights.gate {
        let finish = (None, Finish::Kept);
        expert.product(x, weight, |m| &m.gate, inwards, finish, gate);
    }
    let h = match shape.finish() {
        Finish::Rectified => up,
        Finish::Kept => {
            vectorised!(|| activate(shape.kind, up, gate, h));
            h
        }
    };
    let outwards = (weights.down_bias, Finish::Kept);
    expert.product(h, weights.down, |m| &m.down, [hidden, width], outwards, out);
}

/// h from x U + a and x G.
#[inline(always)]
fn activate<T: Real>(kind: Hidden, up: &[T], gate: &[T], h: &mut [T]) {
    match kind {
        Hidden::Plain(activation) => activation.forward(up, h),
        Hidden::Gated => gated_forward(gate, up, h),
    }
}

/// Takes the first `length` elements off a slice.
pub(in super::super) fn take<'a, T>(rest: &mut &'a mut [T], length: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(length);
    *rest = tail;
    head
}

fn gather<T: Real>(x: &[T], width: usize, tokens: &[u32], rows: &mut [T]) {
    for (row, &token) in rows.chunks_exact_mut(width).zip(tokens) {
        row.copy_from_slice(&x[token as usize * width..][..width]);
    }
}

/// Computes E_e(x_t) of every slot into `saved`.
///
/// # Shapes
/// x: tokens, width. Weights are taken as checked by [`Shape::check`].
pub fn forward<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    x: &[T],
    dispatch: &Dispatch,
    saved: &mut Saved<T>,
) {
    let (width, hidden) = (shape.width, shape.hidden);
    let slots = dispatch.tokens().len();
    saved.rows = None;
    saved.resize(shape, slots);
    saved.out.resize(slots * width, T::ZERO);
    let (mut up, mut gate) = (&mut saved.up[..], &mut saved.gate[..]);
    let mut out = &mut saved.out[..];
    let tasks: Vec<_> = blocks(dispatch, BLOCK)
        .into_iter()
        .map(|(expert, slots)| {
            let rows = slots.len();
            let up = take(&mut up, rows * hidden);
            let gate = take(&mut gate, rows * shape.gate());
            let out = take(&mut out, rows * width);
            (expert, slots, up, gate, out)
        })
        .collect();
    let memory = &saved.memory;
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(number, slots, up, gate, out)| {
            memory.lend(|[rows, h]| {
                rows.resize(slots.len() * width, T::ZERO);
                h.resize(slots.len() * shape.activated(), T::ZERO);
                gather(x, width, &dispatch.tokens()[slots], rows);
                let expert = Expert {
                    shape,
                    number,
                    weights,
                    packed: None,
                };
                let mut block = Block {
                    up,
                    gate,
                    hidden: h,
                    out,
                };
                run_block(expert, rows, &mut block);
            });
        });
}
