//! All blocks, forth and back.

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::train::config::Position;
use crate::train::config::model::{NORM_EPSILON, ROTARY_BASE};
use crate::train::device::{Device, Meter, TensorOf};
use crate::train::model::architecture::{Architecture, Plan};
use crate::train::model::attention::{self, AttentionScratch, AttentionTape};
use crate::train::model::feed_forward::{
    self, FeedForwardScratch, FeedForwardTape, Loads, SparseTape,
};
use crate::train::model::parameters::{Affine, Spec, Tensors};
use crate::train::ops::attention::Shape;
use crate::train::ops::cross_entropy::IGNORED;
use crate::train::ops::norm::Norm;
use crate::train::ops::rotary::Rotary;
use crate::train::router::schedule::Table;

/// What a pass over a micro-batch is for.
#[derive(Clone, Copy, Debug)]
pub enum Phase<'a> {
    /// With jitter, noise, dropout, capacity and competition.
    Training(Training<'a>),
    /// By the router alone, unless the method says otherwise.
    Evaluation {
        /// K, experts per token.
        active: usize,
        /// Whether experts are asked for their responses too.
        observe: Observe,
    },
}

/// What an evaluation looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// The loss.
    Loss,
    /// Also how every expert would respond.
    Responses,
}

/// Where in the training a pass is.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Optimiser step, from 0.
    pub step: u64,
    /// K, experts per token.
    pub active: usize,
    /// When layers compete.
    pub schedule: Option<&'a Table>,
    /// Number of the micro-batch's first token within the step.
    pub first_token: u64,
}

impl Training<'_> {
    fn stream(&self, layer: usize, purpose: Purpose) -> Stream {
        Stream::named(self.seed, &format!("layers.{layer}"), self.step, purpose)
    }

    pub(super) fn jitter(&self, layer: usize) -> Stream {
        self.stream(layer, Purpose::Jitter)
    }

    pub(super) fn noise(&self, layer: usize) -> Stream {
        self.stream(layer, Purpose::Noise)
    }
}

impl<'a> Phase<'a> {
    pub(super) fn training(&self) -> Option<&Training<'a>> {
        match self {
            Phase::Training(training) => Some(training),
            Phase::Evaluation { .. } => None,
        }
    }

    pub(super) fn active(&self) -> usize {
        match self {
            Phase::Training(training) => training.active,
            Phase::Evaluation { active, .. } => *active,
        }
    }

    pub(super) fn observes(&self) -> bool {
        matches!(
            self,
            Phase::Evaluation {
                observe: Observe::Responses,
                ..
            }
        )
    }
}

/// Sequences of one length with what comes next.
pub struct Batch<D: Device> {
    ids: D::Ids,
    targets: D::Ids,
    mask: Option<D::Mask>,
    counted: Counted,
    sequences: usize,
    length: usize,
}

/// What enters the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Tokens with a target.
    pub tokens: usize,
    /// Sequences with such a token.
    pub sequences: usize,
}

impl std::iter::Sum for Counted {
    fn sum<I: Iterator<Item = Counted>>(parts: I) -> Counted {
        parts.fold(Counted::default(), |sum, part| Counted {
            tokens: sum.tokens + part.tokens,
            sequences: sum.sequences + part.sequences,
        })
    }
}

impl<D: Device> Batch<D> {
    /// Tokens and their targets, [`IGNORED`] for those that enter no loss.
    ///
    /// # Errors
    /// [`Error::Dimension`].
    pub fn new(device: &D, ids: &[u32], targets: &[u32], length: usize) -> Result<Self> {
        if ids.len() != targets.len() || !ids.len().is_multiple_of(length.max(1)) {
            return Err(Error::Dimension {
                what: "targets of a batch of whole sequences",
                expected: ids.len().next_multiple_of(length.max(1)),
                got: targets.len(),
            });
        }
        let flags: Vec<bool> = targets.iter().map(|&t| t != IGNORED).collect();
        let sequences = flags.chunks(length.max(1));
        let counted = Counted {
            tokens: flags.iter().filter(|&&f| f).count(),
            sequences: sequences.filter(|s| s.contains(&true)).count(),
        };
        let mask = match counted.tokens == flags.len() {
            true => None,
            false => Some(device.mask(&flags)?),
        };
        Ok(Batch {
            ids: device.ids(ids)?,
            targets: device.ids(targets)?,
            mask,
            counted,
            sequences: ids.len() / length.max(1),
            length,
        })
    }

    /// What enters the loss.
    pub fn counted(&self) -> Counted {
        self.counted
    }
}

/// What a micro-batch is of its step.
pub struct Share<'a, D: Device> {
    /// 1 / tokens that enter the loss in the whole step.
    pub scale: f64,
    /// The micro-batch's share of these tokens.
    pub losses: f64,
    /// Its share of the sequences with such tokens.
    pub sequences: f64,
    /// Which tokens enter.
    pub(super) counted: Option<&'a D::Mask>,
    /// The whole step's counts, where they are more than this micro-batch's.
    pub(super) loads: Option<&'a Loads<D>>,
}

/// The meters of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Sum of nats of the task.
    pub nats: f64,
    /// The router's balance, with its coefficient, summed over layers.
    pub balance: f64,
    /// The z-loss likewise.
    pub z: f64,
    /// What the router has yet to learn from competitions, likewise.
    pub distillation: f64,
    /// Likeness of winners, likewise.
    pub diversity: f64,
    /// Balance of the responses, likewise.
    pub competition_balance: f64,
}

impl Losses {
    const NATS: usize = 0;
    pub(super) const BALANCE: usize = 1;
    pub(super) const Z: usize = 2;
    pub(super) const DISTILLATION: usize = 3;
    pub(super) const DIVERSITY: usize = 4;
    pub(super) const COMPETITION_BALANCE: usize = 5;
    /// How many meters a step has.
    pub const METERS: usize = 6;

    /// From the values of the meters.
    pub fn of(values: &[f64]) -> Self {
        Losses {
            nats: values[Losses::NATS],
            balance: values[Losses::BALANCE],
            z: values[Losses::Z],
            distillation: values[Losses::DISTILLATION],
            diversity: values[Losses::DIVERSITY],
            competition_balance: values[Losses::COMPETITION_BALANCE],
        }
    }

    /// All but the task.
    pub fn auxiliary(&self) -> f64 {
        self.balance + self.z + self.distillation + self.diversity + self.competition_balance
    }
}

/// What every part of a pass reads.
pub(super) struct Context<'a, D: Device> {
    pub device: &'a D,
    pub architecture: &'a Architecture,
    pub shape: Shape,
    pub norm: Norm,
    pub rotary: Option<&'a Rotary<D::Number>>,
    pub phase: &'a Phase<'a>,
}

impl<D: Device> Context<'_, D> {
    /// Writes norm(x).
    pub(super) fn normalise(
        &self,
        parameters: &Tensors<D>,
        norm: Affine,
        x: &TensorOf<D>,
        y: &mut TensorOf<D>,
        moments: &mut TensorOf<D>,
    ) -> Result<()> {
        let (gain, shift) = (parameters.get(norm.weight), norm.bias);
        let shift = shift.map(|id| parameters.get(id));
        self.device
            .norm(self.norm, NORM_EPSILON, x, gain, shift, y, moments)
    }

    /// True if dropout is on.
    pub(super) fn drops(&self) -> bool {
        self.architecture.model.dropout > 0.0 && self.phase.training().is_some()
    }

    /// Dropout behind a part of a layer; the same call on the gradient is its backward
    /// pass.
    pub(super) fn dropout(&self, layer: usize, place: u32, x: &mut TensorOf<D>) -> Result<()> {
        let share = self.architecture.model.dropout;
        match self.phase.training() {
            Some(training) if share > 0.0 => {
                let stream = training.stream(layer, Purpose::Dropout(place));
                self.device.dropout(&stream, share, training.first_token, x)
            }
            _ => Ok(()),
        }
    }
}

/// The place of dropout behind the embedding.
const EMBEDDING: u32 = 2;

/// Everything of one micro-batch that the backward pass or the statistics need,
/// allocated once for a shape of batch.
pub struct Tape<D: Device> {
    shape: Shape,
    /// x_0 to x_L
    streams: Vec<TensorOf<D>>,
    /// m_l
    middles: Vec<TensorOf<D>>,
    attention: Vec<AttentionTape<D>>,
    feed_forward: Vec<FeedForwardTape<D>>,
    positions: Option<D::Ids>,
    normed: TensorOf<D>,
    moments: TensorOf<D>,
    logits: TensorOf<D>,
    d_stream: TensorOf<D>,
    attention_scratch: AttentionScratch<D>,
    feed_forward_scratch: FeedForwardScratch<D>,
}

impl<D: Device> Tape<D> {
    /// Logits, until a backward pass replaces them. Shape: tokens, vocabulary.
    pub fn logits(&self) -> &TensorOf<D> {
        &self.logits
    }

    /// Sequences, and tokens of each.
    pub fn sizes(&self) -> [usize; 2] {
        [self.shape.sequences, self.shape.length]
    }
}

/// A transformer on a device.
pub struct Transformer<D: Device> {
    architecture: Architecture,
    plan: Plan,
    specs: Vec<Spec>,
    rotary: Option<Rotary<D::Number>>,
    /// Values of all parameters.
    pub parameters: Tensors<D>,
}

impl<D: Device> Transformer<D> {
    /// With first values named by the seed.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn new(device: &D, architecture: Architecture, seed: u64) -> Result<Self> {
        let parameters = Tensors::drawn(device, &architecture.specs(), seed)?;
        Transformer::with(architecture, parameters)
    }

    /// With these values.
    ///
    /// # Errors
    /// As [`Rotary::new`].
    pub fn with(architecture: Architecture, parameters: Tensors<D>) -> Result<Self> {
        let (plan, specs) = architecture.plan();
        let rotary = match architecture.model.position {
            Position::Learned => None,
            Position::Rotary => {
                let width = architecture.model.head_width();
                Some(Rotary::new(architecture.length, width, ROTARY_BASE)?)
            }
        };
        Ok(Transformer {
            architecture,
            plan,
            specs,
            rotary,
            parameters,
        })
    }

    /// What decides its shapes.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Its parameters' names, shapes and roles.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// Memory for micro-batches of this shape.
    ///
    /// # Errors
    /// [`Error::Value`] for sequences longer than the model's; what the device refuses.
    pub fn tape(&self, device: &D, sequences: usize, length: usize) -> Result<Tape<D>> {
        if length > self.architecture.length {
            let message = format!("must be at most the model's {}", self.architecture.length);
            return Err(Error::value("length of sequences", message));
        }
        let model = &self.architecture.model;
        let shape = Shape {
            sequences,
            length,
            heads: model.heads,
            width: model.head_width(),
        };
        let (tokens, width) = (shape.tokens(), model.width);
        let wide = |count: usize| -> Result<Vec<TensorOf<D>>> {
            (0..count).map(|_| device.zeros(tokens, width)).collect()
        };
        let positions: Vec<u32> = (0..tokens).map(|t| (t % length) as u32).collect();
        let blocks = || self.plan.blocks.iter();
        Ok(Tape {
            shape,
            streams: wide(model.layers + 1)?,
            middles: wide(model.layers)?,
            attention: blocks()
                .map(|_| AttentionTape::new(device, shape))
                .collect::<Result<_>>()?,
            feed_forward: blocks()
                .map(|block| FeedForwardTape::new(device, block, tokens, width))
                .collect::<Result<_>>()?,
            positions: match model.position {
                Position::Learned => Some(device.ids(&positions)?),
                Position::Rotary => None,
            },
            normed: device.zeros(tokens, width)?,
            moments: device.zeros(tokens, 2)?,
            logits: device.zeros(tokens, self.architecture.vocabulary)?,
            d_stream: device.zeros(tokens, width)?,
            attention_scratch: AttentionScratch::new(device, shape)?,
            feed_forward_scratch: FeedForwardScratch::new(device, tokens, width)?,
        })
    }

    fn context<'a>(&'a self, device: &'a D, shape: Shape, phase: &'a Phase<'a>) -> Context<'a, D> {
        Context {
            device,
            architecture: &self.architecture,
            shape,
            norm: self.architecture.model.norm,
            rotary: self.rotary.as_ref(),
            phase,
        }
    }

    /// Writes the logits of a micro-batch.
    ///
    /// # Errors
    /// [`Error::Dimension`] if the batch has not the tape's shape, [`Error::Value`] for
    /// tokens beyond the vocabulary.
    pub fn forward(
        &self,
        device: &D,
        batch: &Batch<D>,
        phase: &Phase,
        tape: &mut Tape<D>,
    ) -> Result<()> {
        let shape = tape.shape;
        if [batch.sequences, batch.length] != [shape.sequences, shape.length] {
            return Err(Error::Dimension {
                what: "tokens of a batch",
                expected: shape.tokens(),
                got: batch.sequences * batch.length,
            });
        }
        let context = self.context(device, shape, phase);
        let (plan, parameters) = (&self.plan, &self.parameters);
        let scratch = &mut tape.feed_forward_scratch;
        device.embed(
            parameters.get(plan.embedding),
            &batch.ids,
            &mut tape.streams[0],
        )?;
        if let (Some(id), Some(positions)) = (plan.positions, &tape.positions) {
            device.embed(parameters.get(id), positions, &mut scratch.part)?;
            device.add(&scratch.part, &mut tape.streams[0])?;
        }
        context.dropout(0, EMBEDDING, &mut tape.streams[0])?;
        for (layer, block) in plan.blocks.iter().enumerate() {
            let (before, after) = tape.streams.split_at_mut(layer + 1);
            let (x, m) = (&before[layer], &mut tape.middles[layer]);
            let attention = &mut tape.attention[layer];
            attention::forward(&context, block, parameters, layer, x, attention, m)?;
            let feed_forward = &mut tape.feed_forward[layer];
            let next = &mut after[0];
            feed_forward::forward(
                &context,
                block,
                parameters,
                layer,
                m,
                feed_forward,
                scratch,
                next,
            )?;
        }
        context.normalise(
            parameters,
            plan.final_norm,
            &tape.streams[plan.blocks.len()],
            &mut tape.normed,
            &mut tape.moments,
        )?;
        match plan.head {
            Some(head) => device.linear(&tape.normed, parameters.get(head), None, &mut tape.logits),
            None => {
                let table = parameters.get(plan.embedding);
                device.unembed(&tape.normed, table, &mut tape.logits)
            }
        }
    }

    /// Adds the choices of a forward pass to the step's counts.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn count(
        &self,
        device: &D,
        batch: &Batch<D>,
        tape: &Tape<D>,
        loads: &mut Loads<D>,
    ) -> Result<()> {
        for (block, tape) in self.plan.blocks.iter().zip(&tape.feed_forward) {
            if let (Some(sparse), Some(tape)) = (&block.feed_forward.sparse, &tape.sparse) {
                feed_forward::count(device, sparse, tape, batch.mask.as_ref(), loads)?;
            }
        }
        Ok(())
    }

    /// What the sparse layers did in the last forward pass: number of the layer, its
    /// experts' first matrices, and its part of the tape.
    pub fn sparse_layers<'a>(
        &'a self,
        tape: &'a Tape<D>,
    ) -> impl Iterator<Item = (usize, &'a TensorOf<D>, &'a SparseTape<D>)> {
        let layers = self.plan.blocks.iter().zip(&tape.feed_forward).enumerate();
        layers.filter_map(|(number, (block, tape))| {
            let sparse = block.feed_forward.sparse.as_ref()?;
            let up = self.parameters.get(sparse.experts.up);
            Some((number, up, tape.sparse.as_ref()?))
        })
    }

    /// Moves the biases of choices towards balance, if the method has any.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn move_biases(&mut self, device: &D, loads: &Loads<D>) -> Result<()> {
        let rate = self.architecture.method.selection.bias_rate;
        for block in &self.plan.blocks {
            let sparse = block.feed_forward.sparse.as_ref();
            let bias = sparse.and_then(|s| Some((s.index, s.router?.bias?)));
            if let Some((index, bias)) = bias {
                let bias = self.parameters.get_mut(bias);
                device.move_bias(&loads.routed[index], rate, bias)?;
            }
        }
        Ok(())
    }

    /// The sum of nats after a forward pass; uses up the logits.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn loss(
        &self,
        device: &D,
        batch: &Batch<D>,
        tape: &mut Tape<D>,
        meters: &mut D::Meters,
    ) -> Result<()> {
        let meter = Meter::new(meters, Losses::NATS);
        device.cross_entropy(&mut tape.logits, &batch.targets, 0.0, meter)
    }

    /// The backward pass after a training forward pass: adds the gradient of task and
    /// auxiliary losses, and meters them. `counted` is what enters the loss in the whole
    /// step; `loads` its counts, where it has several
    /// micro-batches.
    ///
    /// # Errors
    /// What the device refuses.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        device: &D,
        batch: &Batch<D>,
        phase: &Phase,
        counted: Counted,
        loads: Option<&Loads<D>>,
        tape: &mut Tape<D>,
        gradients: &mut Tensors<D>,
        meters: &mut D::Meters,
    ) -> Result<()> {
        let context = self.context(device, tape.shape, phase);
        let (plan, parameters) = (&self.plan, &self.parameters);
        let share = Share {
            scale: 1.0 / counted.tokens.max(1) as f64,
            losses: batch.counted.tokens as f64 / counted.tokens.max(1) as f64,
            sequences: batch.counted.sequences as f64 / counted.sequences.max(1) as f64,
            counted: batch.mask.as_ref(),
            loads,
        };
        let Tape {
            streams,
            middles,
            attention,
            feed_forward,
            normed,
            moments,
            logits,
            d_stream,
            attention_scratch,
            feed_forward_scratch,
            positions,
            ..
        } = tape;
        let meter = Meter::new(meters, Losses::NATS);
        device.cross_entropy(logits, &batch.targets, share.scale, meter)?;
        let part = &mut feed_forward_scratch.part;
        match plan.head {
            Some(head) => {
                let gradient = Some((gradients.get_mut(head), None));
                device.linear_backward(
                    normed,
                    parameters.get(head),
                    logits,
                    Some(part),
                    gradient,
                )?;
            }
            None => {
                let table = parameters.get(plan.embedding);
                let gradient = gradients.get_mut(plan.embedding);
                device.unembed_backward(normed, table, logits, part, gradient)?;
            }
        }
        device.norm_backward(
            context.norm,
            &streams[plan.blocks.len()],
            parameters.get(plan.final_norm.weight),
            moments,
            part,
            d_stream,
            gradients.pair(plan.final_norm),
        )?;
        for (layer, block) in plan.blocks.iter().enumerate().rev() {
            feed_forward::backward(
                &context,
                block,
                parameters,
                gradients,
                layer,
                &middles[layer],
                &mut feed_forward[layer],
                feed_forward_scratch,
                &share,
                meters,
                d_stream,
            )?;
            attention::backward(
                &context,
                block,
                parameters,
                gradients,
                layer,
                &streams[layer],
                &attention[layer],
                attention_scratch,
                d_stream,
            )?;
        }
        context.dropout(0, EMBEDDING, d_stream)?;
        if let (Some(id), Some(positions)) = (plan.positions, positions) {
            device.embed_backward(positions, d_stream, gradients.get_mut(id))?;
        }
        device.embed_backward(&batch.ids, d_stream, gradients.get_mut(plan.embedding))
    }
}
