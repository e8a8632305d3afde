//! The contract between a model and the hardware it runs on.
//!
//! Model code holds [`Tensor`]s of a [`Device`] and calls the device's operations;
//! it never sees a number unless it downloads it. [`Cpu`] passes every call on to the
//! functions of [`crate::train::ops`], [`crate::train::moe`] and
//! [`crate::train::router`], which are the definition.
//!
//! How a CUDA device fits in: `Buffer` is an allocation on the device, `Assignment`
//! and `Dispatch` are its arrays there, so the counting sort (histogram, prefix sum,
//! scatter) and the grouped products read segment bounds on the device and the host
//! never waits for a count; buffers of slots are sized for the most there can be.
//! Operations enqueue and return; [`Device::download`] and [`Device::read`] are the
//! only ones that wait. Losses are added up in [`Device::Meters`], read once per
//! logging interval. Products go to cuBLASLt or own kernels, everything else is one
//! kernel per operation. Activations may be stored narrower there; scores, responses,
//! losses and the optimiser's state stay f32 or wider.
//!
//! Every operation returns an error for sizes that do not fit ([`Error::Dimension`])
//! and for what the hardware refuses.

mod cpu;
pub mod profiled;

pub use cpu::Cpu;

use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::train::moe::experts::{Shape as ExpertShape, Weights};
use crate::train::moe::{Assignment, Capacity};
use crate::train::ops::adamw::AdamW;
use crate::train::ops::attention::Shape as AttentionShape;
use crate::train::ops::norm::Norm;
use crate::train::ops::real::Real;
use crate::train::ops::rotary::{Rotary, Turn};
use crate::train::router::balance::{Balance, Load, Scope};
use crate::train::router::combine::TopK;
use crate::train::router::competition::Competition;
use crate::train::router::cosine::Cosine;
use crate::train::router::distribution::Distribution;
use crate::train::router::diversity::Pairs;
use crate::train::router::selection::Groups;

/// A matrix on a device; a vector is one row.
#[derive(Clone, Debug)]
pub struct Tensor<B> {
    values: B,
    rows: usize,
    columns: usize,
}

impl<B> Tensor<B> {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Fails unless the shape is this one.
    ///
    /// # Errors
    /// [`Error::Dimension`].
    pub fn expect(&self, what: &'static str, rows: usize, columns: usize) -> Result<()> {
        expect(what, columns, self.columns)?;
        expect(what, rows, self.rows)
    }
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<()> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::Dimension {
            what,
            expected,
            got,
        }),
    }
}

/// The tensors of a device.
pub type TensorOf<D> = Tensor<<D as Device>::Buffer>;

/// A balance loss, see [`crate::train::router::balance::Loss`].
#[derive(Clone, Copy, Debug)]
pub struct BalanceTerm {
    /// Which one.
    pub balance: Balance,
    /// What it averages over.
    pub scope: Scope,
    /// How scores become probabilities.
    pub distribution: Distribution,
    /// Multiplies the gradient, and the value that is metered.
    pub coefficient: f64,
}

/// A loss added to one meter.
#[derive(Debug)]
pub struct Meter<'a, M> {
    /// All meters.
    pub meters: &'a mut M,
    /// Which one.
    pub index: usize,
}

impl<'a, M> Meter<'a, M> {
    /// Number `index` of `meters`.
    pub fn new(meters: &'a mut M, index: usize) -> Self {
        Meter { meters, index }
    }
}

/// Hardware that holds tensors and runs operations.
pub trait Device {
    /// The numbers that the host sees.
    type Number: Real;
    /// Memory for numbers.
    type Buffer;
    /// Memory for ids of tokens.
    type Ids;
    /// Sums of losses, in f64.
    type Meters;
    /// Experts and weights of tokens.
    type Assignment;
    /// Pairs sorted by expert.
    type Dispatch;
    /// Which tokens enter losses.
    type Mask;
    /// Counts of assignments, of several micro-batches or layers.
    type Load: Default;
    /// What a sparse layer keeps for its backward pass.
    type Saved: Default;
    /// Memory of a sparse layer's backward pass.
    type Workspace: Default;

    // Memory.

    /// A tensor of zeros.
    fn zeros(&self, rows: usize, columns: usize) -> Result<TensorOf<Self>>;
    /// A copy of the host's numbers. Shape: rows, columns.
    fn upload(&self, values: &[Self::Number], columns: usize) -> Result<TensorOf<Self>>;
    /// A copy on the host; waits.
    fn download(&self, tensor: &TensorOf<Self>) -> Result<Vec<Self::Number>>;
    /// A copy of ids.
    fn ids(&self, ids: &[u32]) -> Result<Self::Ids>;
    /// A copy of one flag per token: true if it enters losses.
    fn mask(&self, counted: &[bool]) -> Result<Self::Mask>;
    /// Meters at zero.
    fn meters(&self, count: usize) -> Result<Self::Meters>;
    /// The meters; waits. Sets them to zero.
    fn read(&self, meters: &mut Self::Meters) -> Result<Vec<f64>>;
    /// Sets to zero.
    fn clear(&self, tensor: &mut TensorOf<Self>) -> Result<()>;
    /// `to = from`
    fn copy(&self, from: &TensorOf<Self>, to: &mut TensorOf<Self>) -> Result<()>;
    /// `to += from`
    fn add(&self, from: &TensorOf<Self>, to: &mut TensorOf<Self>) -> Result<()>;
    /// `x *= factor`
    fn scale(&self, factor: f64, x: &mut TensorOf<Self>) -> Result<()>;
    /// `out = (a + b) / 2`
    fn average(
        &self,
        a: &TensorOf<Self>,
        b: &TensorOf<Self>,
        out: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// A copy on the host; waits.
    fn assignment(&self, assignment: &Self::Assignment) -> Result<Assignment<Self::Number>>;
    /// A copy on the host; waits.
    fn load(&self, load: &Self::Load) -> Result<Load>;
    /// Pairs that found no room; waits.
    fn dropped(&self, dispatch: &Self::Dispatch) -> Result<usize>;
    /// The slot of every pair, or [`crate::train::moe::DROPPED`]; waits.
    fn slots(&self, dispatch: &Self::Dispatch) -> Result<Vec<u32>>;
    /// Outputs of experts without weights, slots by width; waits.
    fn outputs(&self, saved: &Self::Saved) -> Result<Vec<Self::Number>>;

    // The transformer.

    /// [`crate::train::ops::embedding::forward`].
    fn embed(&self, table: &TensorOf<Self>, ids: &Self::Ids, y: &mut TensorOf<Self>) -> Result<()>;
    /// [`crate::train::ops::embedding::backward`].
    fn embed_backward(
        &self,
        ids: &Self::Ids,
        dy: &TensorOf<Self>,
        d_table: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::linear::forward`].
    fn linear(
        &self,
        x: &TensorOf<Self>,
        weight: &TensorOf<Self>,
        bias: Option<&TensorOf<Self>>,
        y: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::linear::backward`]. `gradients`: weight, bias.
    fn linear_backward(
        &self,
        x: &TensorOf<Self>,
        weight: &TensorOf<Self>,
        dy: &TensorOf<Self>,
        dx: Option<&mut TensorOf<Self>>,
        gradients: Option<(&mut TensorOf<Self>, Option<&mut TensorOf<Self>>)>,
    ) -> Result<()>;
    /// logits = x table^T: the head that shares the embedding's table.
    fn unembed(
        &self,
        x: &TensorOf<Self>,
        table: &TensorOf<Self>,
        logits: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// Writes dx = d_logits table, adds d_logits^T x to `d_table`.
    fn unembed_backward(
        &self,
        x: &TensorOf<Self>,
        table: &TensorOf<Self>,
        d_logits: &TensorOf<Self>,
        dx: &mut TensorOf<Self>,
        d_table: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::dropout::apply`]; on the gradient it is the backward pass.
    fn dropout(
        &self,
        stream: &Stream,
        share: f64,
        first_token: u64,
        x: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::norm::forward`]. `moments`: rows, 2.
    #[allow(clippy::too_many_arguments)]
    fn norm(
        &self,
        norm: Norm,
        epsilon: f64,
        x: &TensorOf<Self>,
        gain: &TensorOf<Self>,
        shift: Option<&TensorOf<Self>>,
        y: &mut TensorOf<Self>,
        moments: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::norm::backward`]. `gradients`: gain, shift.
    #[allow(clippy::too_many_arguments)]
    fn norm_backward(
        &self,
        norm: Norm,
        x: &TensorOf<Self>,
        gain: &TensorOf<Self>,
        moments: &TensorOf<Self>,
        dy: &TensorOf<Self>,
        dx: &mut TensorOf<Self>,
        gradients: (&mut TensorOf<Self>, Option<&mut TensorOf<Self>>),
    ) -> Result<()>;
    /// [`Rotary::apply`] on queries and keys of `qkv`.
    fn rotate(
        &self,
        rotary: &Rotary<Self::Number>,
        shape: AttentionShape,
        qkv: &mut TensorOf<Self>,
        turn: Turn,
    ) -> Result<()>;
    /// [`crate::train::ops::attention::forward`]. `log_sums`: sequences * heads, length.
    fn attend(
        &self,
        shape: AttentionShape,
        qkv: &TensorOf<Self>,
        o: &mut TensorOf<Self>,
        log_sums: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::attention::backward`].
    fn attend_backward(
        &self,
        shape: AttentionShape,
        qkv: &TensorOf<Self>,
        o: &TensorOf<Self>,
        log_sums: &TensorOf<Self>,
        d_o: &TensorOf<Self>,
        d_qkv: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::ops::cross_entropy::forward_backward`]: the logits become the
    /// gradient of scale * nats; nats are metered without the scale.
    fn cross_entropy(
        &self,
        logits: &mut TensorOf<Self>,
        targets: &Self::Ids,
        scale: f64,
        nats: Meter<Self::Meters>,
    ) -> Result<()>;

    // Scores and the sparse layer.

    /// [`crate::train::router::switch::jitter`]; on the gradient it is the backward pass.
    fn jitter(
        &self,
        stream: &Stream,
        amplitude: f64,
        first_token: u64,
        x: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::router::noisy::forward`].
    fn noisy(
        &self,
        stream: &Stream,
        first_token: u64,
        noise: &TensorOf<Self>,
        scores: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::router::noisy::backward`]: writes `d_noise`.
    fn noisy_backward(
        &self,
        stream: &Stream,
        first_token: u64,
        noise: &TensorOf<Self>,
        d_scores: &TensorOf<Self>,
        d_noise: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`Cosine::forward`]. `u`: tokens, width of the cosine; `v`: experts, width.
    fn cosine(
        &self,
        cosine: &Cosine,
        temperature: f64,
        u: &TensorOf<Self>,
        v: &TensorOf<Self>,
        scores: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`Cosine::backward`] at a fixed temperature: writes `d_u`, adds to `d_v`.
    #[allow(clippy::too_many_arguments)]
    fn cosine_backward(
        &self,
        cosine: &Cosine,
        temperature: f64,
        u: &TensorOf<Self>,
        v: &TensorOf<Self>,
        scores: &TensorOf<Self>,
        d_scores: &TensorOf<Self>,
        d_u: &mut TensorOf<Self>,
        d_v: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`TopK::choose`]. `bias`: one row, experts.
    fn choose(
        &self,
        rule: &TopK,
        groups: Groups,
        bias: Option<&TensorOf<Self>>,
        scores: &TensorOf<Self>,
    ) -> Result<Self::Assignment>;
    /// [`crate::train::router::selection::move_bias`]. `bias`: one row, experts.
    fn move_bias(&self, load: &Self::Load, rate: f64, bias: &mut TensorOf<Self>) -> Result<()>;
    /// [`Assignment::everyone`]: a dense feed-forward layer, or shared experts.
    fn everyone(&self, tokens: usize, experts: usize) -> Result<Self::Assignment>;
    /// [`TopK::backward`]. `d_weights`: one row, pairs. Adds to `d_scores`.
    fn choose_backward(
        &self,
        rule: &TopK,
        scores: &TensorOf<Self>,
        assignment: &Self::Assignment,
        d_weights: &TensorOf<Self>,
        d_scores: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::moe::Dispatch::new`].
    fn dispatch(
        &self,
        assignment: &Self::Assignment,
        capacity: Option<Capacity>,
    ) -> Result<Self::Dispatch>;
    /// [`crate::train::moe::layer::forward`]. Weights are vectors of any row length.
    #[allow(clippy::too_many_arguments)]
    fn experts(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        x: &TensorOf<Self>,
        assignment: &Self::Assignment,
        dispatch: &Self::Dispatch,
        saved: &mut Self::Saved,
        y: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::moe::layer::forward_of_winners`], after [`Device::compete`].
    fn winners(
        &self,
        assignment: &Self::Assignment,
        dispatch: &Self::Dispatch,
        saved: &mut Self::Saved,
        y: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::moe::layer::weight_gradients`]: one row, pairs.
    fn weight_gradients(
        &self,
        assignment: &Self::Assignment,
        dispatch: &Self::Dispatch,
        saved: &Self::Saved,
        dy: &TensorOf<Self>,
    ) -> Result<TensorOf<Self>>;
    /// [`crate::train::moe::layer::backward`].
    #[allow(clippy::too_many_arguments)]
    fn experts_backward(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        x: &TensorOf<Self>,
        assignment: &Self::Assignment,
        dispatch: &Self::Dispatch,
        saved: &Self::Saved,
        workspace: &mut Self::Workspace,
        dy: &TensorOf<Self>,
        d_outputs: Option<&TensorOf<Self>>,
        dx: &mut TensorOf<Self>,
        gradients: Weights<&mut TensorOf<Self>>,
    ) -> Result<()>;

    // Competition and losses. A loss meters coefficient times its value; `counted` are
    // the tokens that enter, all if absent.

    /// [`crate::train::moe::competition::affinities`].
    fn affinities(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        competition: &Competition,
        x: &TensorOf<Self>,
        affinities: &mut TensorOf<Self>,
    ) -> Result<()>;
    /// [`crate::train::moe::competition::compete`]: responses, winners, and in `saved` what
    /// they computed.
    #[allow(clippy::too_many_arguments)]
    fn compete(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        competition: &Competition,
        scores: Option<&TensorOf<Self>>,
        x: &TensorOf<Self>,
        affinities: &mut TensorOf<Self>,
        saved: &mut Self::Saved,
        workspace: &mut Self::Workspace,
    ) -> Result<Self::Assignment>;
    /// dL/d(outputs of experts) beside dL/dy on a competition step:
    /// [`Competition::add_output_gradients`] and, with its coefficient,
    /// [`crate::train::router::diversity::add`]. `d_affinities`: tokens, experts, of
    /// which those of the winners are used. Result: slots, width.
    #[allow(clippy::too_many_arguments)]
    fn output_gradients(
        &self,
        competition: &Competition,
        d_affinities: &TensorOf<Self>,
        assignment: &Self::Assignment,
        dispatch: &Self::Dispatch,
        saved: &Self::Saved,
        diversity: Option<(Pairs, f64)>,
        counted: Option<&Self::Mask>,
        meter: Meter<Self::Meters>,
    ) -> Result<TensorOf<Self>>;
    /// [`crate::train::moe::losers::backward`]: the gradient of the responses of those
    /// that did not win, computed again. Adds to `dx` and `gradients`.
    #[allow(clippy::too_many_arguments)]
    fn losers_backward(
        &self,
        shape: ExpertShape,
        weights: &Weights<&TensorOf<Self>>,
        competition: &Competition,
        x: &TensorOf<Self>,
        winners: &Self::Assignment,
        d_affinities: &TensorOf<Self>,
        dx: &mut TensorOf<Self>,
        gradients: Weights<&mut TensorOf<Self>>,
    ) -> Result<()>;
    /// The router's lesson: target and loss of [`crate::train::router::distillation`].
    /// Adds to `d_scores`, and to `d_affinities`, where given, the gradient through the
    /// target, which papers take as constant.
    #[allow(clippy::too_many_arguments)]
    fn distil(
        &self,
        competition: &Competition,
        affinities: &TensorOf<Self>,
        winners: &Self::Assignment,
        scores: &TensorOf<Self>,
        routed: &Self::Assignment,
        counted: Option<&Self::Mask>,
        coefficient: f64,
        d_scores: &mut TensorOf<Self>,
        d_affinities: Option<&mut TensorOf<Self>>,
        meter: Meter<Self::Meters>,
    ) -> Result<()>;
    /// Adds to the counts of a load ([`crate::train::router::balance::Load`]).
    fn count(
        &self,
        assignment: &Self::Assignment,
        counted: Option<&Self::Mask>,
        load: &mut Self::Load,
    ) -> Result<()>;
    /// [`crate::train::router::balance::Loss::add`]. `load` replaces the counts of
    /// these tokens by those of all micro-batches and devices.
    #[allow(clippy::too_many_arguments)]
    fn balance(
        &self,
        term: &BalanceTerm,
        scores: &TensorOf<Self>,
        assignment: &Self::Assignment,
        counted: Option<&Self::Mask>,
        load: Option<&Self::Load>,
        d_scores: &mut TensorOf<Self>,
        meter: Meter<Self::Meters>,
    ) -> Result<()>;
    /// [`crate::train::router::balance::add_z_loss`].
    fn z_loss(
        &self,
        coefficient: f64,
        scores: &TensorOf<Self>,
        counted: Option<&Self::Mask>,
        d_scores: &mut TensorOf<Self>,
        meter: Meter<Self::Meters>,
    ) -> Result<()>;

    // The optimiser.

    /// Adds the sum of squares to a meter ([`crate::train::ops::adamw::square_norm`]).
    fn square_norm(&self, gradient: &TensorOf<Self>, meter: Meter<Self::Meters>) -> Result<()>;
    /// [`AdamW::update`]: the gradient is used up.
    #[allow(clippy::too_many_arguments)]
    fn update(
        &self,
        rule: &AdamW,
        step: u64,
        scale: f64,
        parameters: &mut TensorOf<Self>,
        gradient: &mut TensorOf<Self>,
        mean: &mut TensorOf<Self>,
        square: &mut TensorOf<Self>,
    ) -> Result<()>;
}

#[cfg(test)]
mod tests;
