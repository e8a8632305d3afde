//! Feed-forward experts on contiguous segments of tokens.
//!
//! Plain: h = f(x U + a), E(x) = h V + b, f = ReLU, GELU or SiLU.
//! Gated: h = silu(x G) * (x U + a), E(x) = h V + b.
//!
//! The forward pass is in `forward`, for the chosen experts of a segment and for the
//! blocks of a competition; the gradients in `backward`.

mod backward;
mod forward;

pub use backward::backward;
pub use forward::forward;
pub(super) use forward::{BLOCK, Block, Direction, Expert, Matrices, run_block, take};

use crate::error::{Error, Result};
use crate::train::moe::Dispatch;
use crate::train::moe::competition::Memory;
use crate::train::ops::activation::Activation;
use crate::train::ops::matmul::{View, ViewMut};
use crate::train::ops::packed::Finish;
use crate::train::ops::pool::Pool;
use crate::train::ops::real::Real;

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
    pub fn gate(&self) -> usize {
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
    pub fn activated(&self) -> usize {
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
    /// For passes in which many blocks go through every expert.
    pub(super) matrices: Matrices<T>,
    /// Of a competition's blocks.
    pub(super) memory: Pool<Memory<T>>,
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
