//! Feed-forward experts on contiguous segments of tokens.
//!
//! Plain: h = f(x U + a), E(x) = h V + b, f = ReLU, GELU or SiLU.
//! Gated: h = silu(x G) * (x U + a), E(x) = h V + b.
//!
//! A forward task is one expert on a block of rows: rows are gathered as they are
//! loaded and stay in cache through both products. Gradients of the weights are one
//! group of products over whole segments.

use crate::error::{Error, Result};
use crate::train::moe::Dispatch;
use crate::train::moe::competition::Memory;
use crate::train::ops::activation::{Activation, gated_backward, gated_forward, rectified};
use crate::train::ops::matmul::{Into, Product, View, ViewMut, products};
use crate::train::ops::packed::{Finish, Packed};
use crate::train::ops::pool::Pool;
use crate::train::ops::real::{Real, prefetch, vectorised};
use rayon::prelude::*;

/// Rows of one task of a forward pass, which packs its expert's matrices.
pub(super) const BLOCK: usize = 256;
/// Rows of one task of a backward pass: what it computes stays in the second cache.
const BACK: usize = 64;

/// How an expert's hidden layer is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// f(x U + a)
    Plain(Activation),
    /// silu(x G) * (x U + a)
    Gated,
}

/// The sizes of a set of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Experts.
    pub experts: usize,
    /// Width of tokens.
    pub width: usize,
    /// Width of the hidden layer of one expert.
    pub hidden: usize,
    /// How it is computed.
    pub kind: Hidden,
}

/// The parameters of all experts, expert after expert, or their gradients: `S` is
/// `&[T]`, `&mut [T]` or `Vec<T>`.
#[derive(Clone, Debug, Default)]
pub struct Weights<S> {
    /// U. Shape: experts, width, hidden.
    pub up: S,
    /// G, of gated experts only. Shape: experts, width, hidden.
    pub gate: Option<S>,
    /// V. Shape: experts, hidden, width.
    pub down: S,
    /// a. Shape: experts, hidden.
    pub up_bias: Option<S>,
    /// b. Shape: experts, width.
    pub down_bias: Option<S>,
}

impl<S> Weights<S> {
    /// Every array through `f`.
    pub fn map<R>(self, mut f: impl FnMut(S) -> R) -> Weights<R> {
        Weights {
            up: f(self.up),
            gate: self.gate.map(&mut f),
            down: f(self.down),
            up_bias: self.up_bias.map(&mut f),
            down_bias: self.down_bias.map(&mut f),
        }
    }

    /// Borrowed.
    pub fn each_ref(&self) -> Weights<&S> {
        Weights {
            up: &self.up,
            gate: self.gate.as_ref(),
            down: &self.down,
            up_bias: self.up_bias.as_ref(),
            down_bias: self.down_bias.as_ref(),
        }
    }

    /// Borrowed, to write.
    pub fn each_mut(&mut self) -> Weights<&mut S> {
        Weights {
            up: &mut self.up,
            gate: self.gate.as_mut(),
            down: &mut self.down,
            up_bias: self.up_bias.as_mut(),
            down_bias: self.down_bias.as_mut(),
        }
    }
}

impl<T> Weights<Vec<T>> {
    /// Borrowed.
    pub fn view(&self) -> Weights<&[T]> {
        self.each_ref().map(Vec::as_slice)
    }

    /// Borrowed, to write.
    pub fn view_mut(&mut self) -> Weights<&mut [T]> {
        self.each_mut().map(Vec::as_mut_slice)
    }
}

impl Shape {
    /// Checks the lengths of weights or gradients.
    ///
    /// # Errors
    /// [`Error::Dimension`]; [`Error::Value`] if G is there and not needed or
    /// needed and not there.
    pub fn check<T, S: AsRef<[T]>>(&self, weights: &Weights<S>) -> Result<()> {
        let matrix = self.experts * self.width * self.hidden;
        let length = |what, expected, values: Option<&S>| match values.map(|v| v.as_ref().len()) {
            Some(got) if got != expected => Err(Error::Dimension {
                what,
                expected,
                got,
            }),
            _ => Ok(()),
        };
        length("experts' up weights", matrix, Some(&weights.up))?;
        length("experts' gate weights", matrix, weights.gate.as_ref())?;
        length("experts' down weights", matrix, Some(&weights.down))?;
        let (up, down) = (weights.up_bias.as_ref(), weights.down_bias.as_ref());
        length("experts' up bias", self.experts * self.hidden, up)?;
        length("experts' down bias", self.experts * self.width, down)?;
        if weights.gate.is_some() != (self.kind == Hidden::Gated) {
            let message = "must be given for gated experts and for no others";
            return Err(Error::value("experts.gate", message));
        }
        Ok(())
    }

    /// Width of the gate: of gated experts only.
    pub(super) fn gate(&self) -> usize {
        match self.kind {
            Hidden::Gated => self.hidden,
            Hidden::Plain(_) => 0,
        }
    }

    /// What becomes of x U + a at once. A rectified one is h, and tells the slope of the
    /// ReLU too: nothing else is kept.
    fn finish(&self) -> Finish {
        match self.kind {
            Hidden::Plain(Activation::Relu) => Finish::Rectified,
            _ => Finish::Kept,
        }
    }

    /// Width of h, where it is computed beside x U + a.
    pub(super) fn activated(&self) -> usize {
        match self.finish() {
            Finish::Rectified => 0,
            Finish::Kept => self.hidden,
        }
    }

    fn matrix(&self, expert: usize) -> std::ops::Range<usize> {
        let size = self.width * self.hidden;
        expert * size..(expert + 1) * size
    }
}

/// What the backward pass needs; memory is kept from step to step. h is computed again.
#[derive(Debug, Default)]
pub struct Saved<T> {
    /// x U + a, or h where it is that rectified. Shape: slots (or pairs), hidden.
    pub(super) up: Vec<T>,
    /// x G, empty unless gated. Shape: slots (or pairs), hidden.
    pub(super) gate: Vec<T>,
    /// E(x), without the weight. Shape: slots, width.
    pub(super) out: Vec<T>,
    /// After a competition, the rows of `up` and `gate` that belong to the slots.
    pub(super) rows: Option<Vec<u32>>,
    /// The row of every pair, as a competition kept them.
    pub(super) places: Vec<u32>,
    /// Outputs that a competition kept. Shape: pairs in the order of rows, width.
    pub(super) kept: Vec<T>,
    /// Of a task of the forward pass: x and h.
    memory: Pool<[Vec<T>; 2]>,
}

impl<T: Real> Saved<T> {
    /// Outputs of experts without weights. Shape: slots, width.
    pub fn outputs(&self) -> &[T] {
        &self.out
    }

    /// Numbers of outputs that a competition kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Room for hidden layers of so many slots or pairs.
    pub(super) fn resize(&mut self, shape: Shape, rows: usize) {
        self.up.resize(rows * shape.hidden, T::ZERO);
        self.gate.resize(rows * shape.gate(), T::ZERO);
    }

    /// A slot's row of `up` and `gate`.
    fn row(&self, slot: usize) -> usize {
        match &self.rows {
            Some(rows) => rows[slot] as usize,
            None => slot,
        }
    }
}

/// The rows of one expert that one task computes.
pub(super) struct Block<'a, T> {
    pub up: &'a mut [T],
    pub gate: &'a mut [T],
    pub hidden: &'a mut [T],
    pub out: &'a mut [T],
}

/// What is multiplied by the matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Inputs, by U, G and V.
    Forward,
    /// Gradients, by their transposes.
    Backward,
}

/// The matrices of all experts for products with many blocks of tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrices<T> {
    up: Vec<Packed<T>>,
    gate: Vec<Packed<T>>,
    down: Vec<Packed<T>>,
}

impl<T: Real> Matrices<T> {
    /// Of these weights now, of the experts that `serve`.
    pub(super) fn pack(
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
pub(super) struct Expert<'a, T> {
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
        product.run();
        if finish == Finish::Rectified {
            vectorised!(|| y.iter_mut().for_each(|y| *y = rectified(*y)));
        }
    }
}

/// Inputs through an expert.
pub(super) fn run_block<T: Real>(expert: Expert<T>, x: &[T], block: &mut Block<T>) {
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
pub(super) fn take<'a, T>(rest: &mut &'a mut [T], length: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(length);
    *rest = tail;
    head
}

/// Expert and slots of every task, in the order of slots. A segment is cut into equal
/// parts of at most `most` rows: a short one would cost almost as much.
fn blocks(dispatch: &Dispatch, most: usize) -> Vec<(usize, std::ops::Range<usize>)> {
    let mut blocks = Vec::new();
    for expert in 0..dispatch.expert_count() {
        let segment = dispatch.segment(expert);
        let rows = segment.len().div_ceil(segment.len().div_ceil(most).max(1));
        for start in segment.clone().step_by(rows.max(1)) {
            blocks.push((expert, start..(start + rows).min(segment.end)));
        }
    }
    blocks
}

/// Whole rows of `columns` numbers.
fn view<T>(values: &[T], columns: usize) -> View<'_, T> {
    View::rows(values, values.len() / columns, columns)
}

fn view_mut<T>(values: &mut [T], columns: usize) -> ViewMut<'_, T> {
    ViewMut::rows(values, values.len() / columns, columns)
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

/// Memory of passes, kept from step to step and shared by layers.
#[derive(Debug, Default)]
pub struct Workspace<T> {
    /// dL/dE(x), weights included. Shape: slots, width.
    d_out: Vec<T>,
    /// dL/dx of every slot. Shape: slots, width.
    pub(super) dx: Vec<T>,
    /// h, where it is not kept. Shape: slots, hidden.
    hidden: Vec<T>,
    /// dL/d(x U + a). Shape: slots, hidden.
    d_up: Vec<T>,
    /// dL/d(x G), empty unless gated. Shape: slots, hidden.
    d_gate: Vec<T>,
    /// For the passes of a competition.
    pub(super) matrices: Matrices<T>,
    /// Of its blocks.
    pub(super) memory: Pool<Memory<T>>,
}

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
    let tasks: Vec<_> = blocks(dispatch, BACK)
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
