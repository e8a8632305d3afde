//! x' = m + feed_forward(norm(m)): dense, or routed to experts.
//!
//! A sparse layer takes its experts from the router, or, on steps on which it
//! competes, from the experts' own responses:
//!
//! ```text
//! scores z = router(norm(m)) ------------------> routed choice --+
//! responses a = response(E_e(norm(m))), all e -> winners --------+-> experts -> y
//! ```
//!
//! Gradients. Routed: dL/dw -> dL/dz, with balance and z-loss. Competing: dL/dw ->
//! dL/da -> outputs of winners, with diversity and balance of responses; z learns
//! the verdict (distillation). Losses are means over the tokens of the whole
//! optimiser step, whatever its micro-batches.

use crate::error::Result;
use crate::train::config::competition::{Choice, Learners, Pupils, RouterLosses};
use crate::train::config::router::{BalanceRule, Judge, Scope as BalanceScope};
use crate::train::config::{Competing, Scores};
use crate::train::device::{BalanceTerm, Device, Meter, TensorOf};
use crate::train::model::architecture::{Block, Router, Sparse};
use crate::train::model::parameters::{Id, Tensors};
use crate::train::model::transformer::{Context, Losses, Phase, Share};
use crate::train::moe::Capacity;
use crate::train::moe::experts::Shape;
use crate::train::router::balance::Scope;
use crate::train::router::combine::TopK;
use crate::train::router::competition::Competition;
use crate::train::router::selection::Groups;

/// What the backward pass of a feed-forward needs.
pub(super) struct FeedForwardTape<D: Device> {
    normed: TensorOf<D>,
    moments: TensorOf<D>,
    constant: Option<ConstantTape<D>>,
    pub sparse: Option<SparseTape<D>>,
}

/// Of experts that serve every token.
struct ConstantTape<D: Device> {
    assignment: D::Assignment,
    dispatch: D::Dispatch,
    saved: D::Saved,
}

/// What a sparse layer did with a micro-batch.
pub struct SparseTape<D: Device> {
    /// The router's scores, if it has a router. Shape: tokens, experts.
    pub scores: Option<TensorOf<D>>,
    /// The experts' responses, if they were asked. Shape: tokens, experts.
    pub responses: Option<TensorOf<D>>,
    /// What the winners were chosen by, where it is not the responses alone.
    mixed: Option<TensorOf<D>>,
    /// The router's input, where it is not the layer's.
    jittered: Option<TensorOf<D>>,
    /// Noise and cosine scores' inner values.
    noise: Option<TensorOf<D>>,
    projected: Option<TensorOf<D>>,
    /// The router's choice.
    pub routed: Option<D::Assignment>,
    /// The experts' choice.
    pub winners: Option<D::Assignment>,
    /// The choice that was followed, sorted.
    pub dispatch: Option<D::Dispatch>,
    /// The experts' outputs and hidden layers.
    pub saved: D::Saved,
    follows: Verdict,
}

/// Whose choice was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Router,
    Experts,
}

impl<D: Device> Default for SparseTape<D> {
    fn default() -> Self {
        SparseTape {
            scores: None,
            responses: None,
            mixed: None,
            jittered: None,
            noise: None,
            projected: None,
            routed: None,
            winners: None,
            dispatch: None,
            saved: D::Saved::default(),
            follows: Verdict::Router,
        }
    }
}

impl<D: Device> SparseTape<D> {
    /// The choice that was followed.
    pub fn chosen(&self) -> Option<&D::Assignment> {
        match self.follows {
            Verdict::Router => self.routed.as_ref(),
            Verdict::Experts => self.winners.as_ref(),
        }
    }

    /// True if the experts decided.
    pub fn competed(&self) -> bool {
        self.follows == Verdict::Experts
    }
}

impl<D: Device> FeedForwardTape<D> {
    pub(super) fn new(device: &D, block: &Block, tokens: usize, width: usize) -> Result<Self> {
        let constant = |(shape, _): &(Shape, _)| {
            let assignment = device.everyone(tokens, shape.experts)?;
            let dispatch = device.dispatch(&assignment, None)?;
            Ok(ConstantTape {
                assignment,
                dispatch,
                saved: D::Saved::default(),
            })
        };
        let parts = &block.feed_forward;
        Ok(FeedForwardTape {
            normed: device.zeros(tokens, width)?,
            moments: device.zeros(tokens, 2)?,
            constant: parts.constant.as_ref().map(constant).transpose()?,
            sparse: parts.sparse.as_ref().map(|_| SparseTape::default()),
        })
    }
}

/// Counts of assignments in each sparse layer, of all micro-batches of a step.
pub struct Loads<D: Device> {
    /// By the router's choice.
    pub routed: Vec<D::Load>,
    /// By the experts' choice.
    pub winners: Vec<D::Load>,
}

impl<D: Device> Loads<D> {
    /// Nothing counted.
    pub fn new(layers: usize) -> Self {
        let none = || (0..layers).map(|_| D::Load::default()).collect();
        Loads {
            routed: none(),
            winners: none(),
        }
    }
}

/// The place of dropout behind a feed-forward.
const FEED_FORWARD_OUTPUT: u32 = 1;

/// The memory of a tensor, made if it is not there yet or has another shape.
fn room<'a, D: Device>(
    device: &D,
    place: &'a mut Option<TensorOf<D>>,
    rows: usize,
    columns: usize,
) -> Result<&'a mut TensorOf<D>> {
    let fits = |t: &TensorOf<D>| t.rows() == rows && t.columns() == columns;
    if !place.as_ref().is_some_and(fits) {
        *place = Some(device.zeros(rows, columns)?);
    }
    Ok(place.as_mut().expect("it has just been made"))
}

/// Writes x'.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<D: Device>(
    context: &Context<D>,
    block: &Block,
    parameters: &Tensors<D>,
    layer: usize,
    m: &TensorOf<D>,
    tape: &mut FeedForwardTape<D>,
    scratch: &mut FeedForwardScratch<D>,
    x: &mut TensorOf<D>,
) -> Result<()> {
    let device = context.device;
    context.normalise(
        parameters,
        block.feed_forward_norm,
        m,
        &mut tape.normed,
        &mut tape.moments,
    )?;
    let parts = &block.feed_forward;
    if let (Some(sparse), Some(tape_of)) = (&parts.sparse, &mut tape.sparse) {
        let workspace = &mut scratch.workspace;
        route(
            context,
            sparse,
            parameters,
            layer,
            &tape.normed,
            tape_of,
            workspace,
        )?;
        let weights = parameters.weights(&sparse.experts);
        let SparseTape {
            routed,
            winners,
            dispatch,
            saved,
            follows,
            ..
        } = tape_of;
        let chosen = match follows {
            Verdict::Router => routed,
            Verdict::Experts => winners,
        };
        let chosen = chosen.as_ref().expect("the choice that is followed exists");
        let sorted = dispatch.insert(device.dispatch(chosen, context.capacity())?);
        match follows {
            Verdict::Router => device.experts(
                sparse.shape,
                &weights,
                &tape.normed,
                chosen,
                sorted,
                saved,
                x,
            )?,
            Verdict::Experts => device.winners(chosen, sorted, saved, x)?,
        }
    }
    if let (Some((shape, experts)), Some(tape_of)) = (&parts.constant, &mut tape.constant) {
        let weights = parameters.weights(experts);
        let ConstantTape {
            assignment,
            dispatch,
            saved,
        } = tape_of;
        let to = match parts.sparse {
            Some(_) => &mut scratch.part,
            None => &mut *x,
        };
        device.experts(
            *shape,
            &weights,
            &tape.normed,
            assignment,
            dispatch,
            saved,
            to,
        )?;
        if parts.sparse.is_some() {
            device.add(&scratch.part, x)?;
        }
    }
    context.dropout(layer, FEED_FORWARD_OUTPUT, x)?;
    device.add(m, x)
}

fn rule<D: Device>(context: &Context<D>, rule: TopK) -> TopK {
    TopK {
        k: context.phase.active(),
        ..rule
    }
}

/// Scores, responses, choices.
fn route<D: Device>(
    context: &Context<D>,
    sparse: &Sparse,
    parameters: &Tensors<D>,
    layer: usize,
    x: &TensorOf<D>,
    tape: &mut SparseTape<D>,
    workspace: &mut D::Workspace,
) -> Result<()> {
    let (device, method) = (context.device, &context.architecture.method);
    let tokens = x.rows();
    let experts = sparse.shape.experts;
    if let Some(router) = &sparse.router {
        score(context, router, parameters, layer, experts, x, tape)?;
        let scores = tape.scores.as_ref().expect("a router has scores");
        let groups = method.selection.groups();
        let bias = router.bias.map(|id| parameters.get(id));
        let chosen = device.choose(&rule(context, method.rule), groups, bias, scores)?;
        tape.routed = Some(chosen);
    }
    tape.follows = Verdict::Router;
    tape.winners = None;
    let Some(competing) = &method.competing else {
        return Ok(());
    };
    let decides = match context.phase {
        Phase::Training(training) => training
            .schedule
            .is_some_and(|table| table.competes(sparse.index, training.step)),
        Phase::Evaluation { .. } => method.judge == Judge::Experts,
    };
    if !decides && !context.phase.observes() {
        return Ok(());
    }
    let weights = parameters.weights(&sparse.experts);
    let responses = room(device, &mut tape.responses, tokens, experts)?;
    let mixing = tape.scores.as_ref();
    let mixing = mixing.filter(|_| competing.choice == Choice::ResponsesAndScores);
    let rule = Competition {
        winners: rule(context, competing.rule.winners),
        ..competing.rule
    };
    if decides {
        tape.follows = Verdict::Experts;
        let saved = &mut tape.saved;
        let winners = device.compete(
            sparse.shape,
            &weights,
            &rule,
            mixing,
            x,
            responses,
            saved,
            workspace,
        )?;
        tape.winners = Some(winners);
    } else {
        device.affinities(sparse.shape, &weights, &rule, x, responses)?;
    }
    if let Some(scores) = mixing {
        let mixed = room(device, &mut tape.mixed, tokens, experts)?;
        device.average(responses, scores, mixed)?;
    }
    if !decides {
        let by = match mixing {
            Some(_) => tape.mixed.as_ref().expect("mixed above"),
            None => responses,
        };
        tape.winners = Some(device.choose(&rule.winners, Groups::NONE, None, by)?);
    }
    Ok(())
}

/// The router's scores.
fn score<D: Device>(
    context: &Context<D>,
    router: &Router,
    parameters: &Tensors<D>,
    layer: usize,
    experts: usize,
    x: &TensorOf<D>,
    tape: &mut SparseTape<D>,
) -> Result<()> {
    let (device, method) = (context.device, &context.architecture.method);
    let (tokens, width) = (x.rows(), x.columns());
    let weight = parameters.get(router.weight);
    let training = context.phase.training();
    let x = match training {
        Some(training) if method.jitter > 0.0 => {
            let jittered = room(device, &mut tape.jittered, tokens, width)?;
            device.copy(x, jittered)?;
            let (stream, first) = (training.jitter(layer), training.first_token);
            device.jitter(&stream, method.jitter, first, jittered)?;
            &*jittered
        }
        _ => x,
    };
    let scores = room(device, &mut tape.scores, tokens, experts)?;
    match method.scores {
        Scores::Linear | Scores::Frozen => device.linear(x, weight, None, scores),
        Scores::Noisy => {
            device.linear(x, weight, None, scores)?;
            let (Some(training), Some(id)) = (training, router.noise) else {
                return Ok(());
            };
            let noise = room(device, &mut tape.noise, tokens, experts)?;
            device.linear(x, parameters.get(id), None, noise)?;
            device.noisy(&training.noise(layer), training.first_token, noise, scores)
        }
        Scores::Cosine {
            cosine,
            temperature,
        } => {
            let u = room(device, &mut tape.projected, tokens, cosine.width)?;
            device.linear(x, weight, None, u)?;
            let v = parameters.get(router.embeddings.expect("cosine scores have embeddings"));
            device.cosine(&cosine, temperature, u, v, scores)
        }
    }
}

/// Memory of the backward pass, shared by all layers.
pub(super) struct FeedForwardScratch<D: Device> {
    d_normed: TensorOf<D>,
    pub part: TensorOf<D>,
    d_y: Option<TensorOf<D>>,
    d_scores: Option<TensorOf<D>>,
    d_responses: Option<TensorOf<D>>,
    d_projected: Option<TensorOf<D>>,
    d_noise: Option<TensorOf<D>>,
    workspace: D::Workspace,
}

impl<D: Device> FeedForwardScratch<D> {
    pub(super) fn new(device: &D, tokens: usize, width: usize) -> Result<Self> {
        Ok(FeedForwardScratch {
            d_normed: device.zeros(tokens, width)?,
            part: device.zeros(tokens, width)?,
            d_y: None,
            d_scores: None,
            d_responses: None,
            d_projected: None,
            d_noise: None,
            workspace: D::Workspace::default(),
        })
    }
}

/// Replaces dL/dx' in `d_stream` by dL/dm; adds to gradients and meters losses.
#[allow(clippy::too_many_arguments)]
pub(super) fn backward<D: Device>(
    context: &Context<D>,
    block: &Block,
    parameters: &Tensors<D>,
    gradients: &mut Tensors<D>,
    layer: usize,
    m: &TensorOf<D>,
    tape: &mut FeedForwardTape<D>,
    scratch: &mut FeedForwardScratch<D>,
    share: &Share<D>,
    meters: &mut D::Meters,
    d_stream: &mut TensorOf<D>,
) -> Result<()> {
    let device = context.device;
    let mut d_y = scratch.d_y.take();
    let dy = if context.drops() {
        let dropped = room(device, &mut d_y, m.rows(), m.columns())?;
        device.copy(d_stream, dropped)?;
        context.dropout(layer, FEED_FORWARD_OUTPUT, dropped)?;
        &*dropped
    } else {
        &*d_stream
    };
    let parts = &block.feed_forward;
    if let (Some(sparse), Some(tape_of)) = (&parts.sparse, &mut tape.sparse) {
        let normed = &tape.normed;
        SparseBackward {
            context,
            sparse,
            parameters,
            layer,
            x: normed,
            share,
        }
        .run(tape_of, gradients, scratch, meters, dy)?;
    }
    if let (Some((shape, experts)), Some(tape_of)) = (&parts.constant, &mut tape.constant) {
        let to = match parts.sparse {
            Some(_) => &mut scratch.part,
            None => &mut scratch.d_normed,
        };
        device.experts_backward(
            *shape,
            &parameters.weights(experts),
            &tape.normed,
            &tape_of.assignment,
            &tape_of.dispatch,
            &tape_of.saved,
            &mut scratch.workspace,
            dy,
            None,
            to,
            gradients.weights_mut(experts),
        )?;
        if parts.sparse.is_some() {
            device.add(&scratch.part, &mut scratch.d_normed)?;
        }
    }
    scratch.d_y = d_y;
    device.norm_backward(
        context.norm,
        m,
        parameters.get(block.feed_forward_norm.weight),
        &tape.moments,
        &scratch.d_normed,
        &mut scratch.part,
        gradients.pair(block.feed_forward_norm),
    )?;
    device.add(&scratch.part, d_stream)
}

/// A sparse layer's backward pass: what it reads.
struct SparseBackward<'a, D: Device> {
    context: &'a Context<'a, D>,
    sparse: &'a Sparse,
    parameters: &'a Tensors<D>,
    layer: usize,
    x: &'a TensorOf<D>,
    share: &'a Share<'a, D>,
}

impl<D: Device> SparseBackward<'_, D> {
    /// Writes dL/dx to `scratch.d_normed`.
    fn run(
        &self,
        tape: &mut SparseTape<D>,
        gradients: &mut Tensors<D>,
        scratch: &mut FeedForwardScratch<D>,
        meters: &mut D::Meters,
        dy: &TensorOf<D>,
    ) -> Result<()> {
        let device = self.context.device;
        let (tokens, experts) = (self.x.rows(), self.sparse.shape.experts);
        let weights = self.parameters.weights(&self.sparse.experts);
        let chosen = tape.chosen().expect("a backward pass follows a forward");
        let dispatch = tape.dispatch.as_ref().expect("and its sort");
        let d_weights = device.weight_gradients(chosen, dispatch, &tape.saved, dy)?;
        let d_scores = room(device, &mut scratch.d_scores, tokens, experts)?;
        device.clear(d_scores)?;
        let competing = self.context.architecture.method.competing.as_ref();
        let competing = competing.filter(|_| tape.competed());
        let d_outputs = match competing {
            None => {
                self.routed(tape, &d_weights, d_scores)?;
                None
            }
            Some(competing) => {
                let d_responses = room(device, &mut scratch.d_responses, tokens, experts)?;
                self.compete(competing, tape, &d_weights, d_scores, d_responses, meters)?;
                Some(device.output_gradients(
                    &competing.rule,
                    d_responses,
                    chosen,
                    dispatch,
                    &tape.saved,
                    competing.diversity.map(|(p, c)| (p, c * self.share.losses)),
                    self.share.counted,
                    Meter::new(meters, Losses::DIVERSITY),
                )?)
            }
        };
        if competing.is_none_or(|c| c.router_losses == RouterLosses::AllSteps) {
            self.router_losses(tape, d_scores, meters)?;
        }
        let chosen = match tape.follows {
            Verdict::Router => &tape.routed,
            Verdict::Experts => &tape.winners,
        };
        let chosen = chosen.as_ref().expect("as above");
        device.experts_backward(
            self.sparse.shape,
            &weights,
            self.x,
            chosen,
            dispatch,
            &tape.saved,
            &mut scratch.workspace,
            dy,
            d_outputs.as_ref(),
            &mut scratch.d_normed,
            gradients.weights_mut(&self.sparse.experts),
        )?;
        if let Some(competing) = competing.filter(|c| c.learners == Learners::All) {
            device.losers_backward(
                self.sparse.shape,
                &weights,
                &competing.rule,
                self.x,
                chosen,
                scratch.d_responses.as_ref().expect("written above"),
                &mut scratch.d_normed,
                gradients.weights_mut(&self.sparse.experts),
            )?;
        }
        match &self.sparse.router {
            Some(router) => self.router(router, tape, gradients, scratch),
            None => Ok(()),
        }
    }

    fn routed(
        &self,
        tape: &SparseTape<D>,
        d_weights: &TensorOf<D>,
        d_scores: &mut TensorOf<D>,
    ) -> Result<()> {
        let rule = rule(self.context, self.context.architecture.method.rule);
        let (Some(scores), Some(routed)) = (&tape.scores, &tape.routed) else {
            return Ok(());
        };
        let device = self.context.device;
        device.choose_backward(&rule, scores, routed, d_weights, d_scores)
    }

    /// dL/d(responses) and what the router learns.
    fn compete(
        &self,
        competing: &Competing,
        tape: &SparseTape<D>,
        d_weights: &TensorOf<D>,
        d_scores: &mut TensorOf<D>,
        d_responses: &mut TensorOf<D>,
        meters: &mut D::Meters,
    ) -> Result<()> {
        let device = self.context.device;
        let responses = tape.responses.as_ref().expect("winners have responses");
        let winners = tape.winners.as_ref().expect("experts have decided");
        device.clear(d_responses)?;
        let rule = rule(self.context, competing.rule.winners);
        let mixed = tape.mixed.as_ref();
        let mixed = mixed.filter(|_| competing.choice == Choice::ResponsesAndScores);
        let by = mixed.unwrap_or(responses);
        device.choose_backward(&rule, by, winners, d_weights, d_responses)?;
        if mixed.is_some() {
            device.scale(0.5, d_responses)?;
            device.add(d_responses, d_scores)?;
        }
        if let Some(balance) = &competing.balance {
            let load = self.share.loads.map(|l| &l.winners[self.sparse.index]);
            let (term, load) = self.term(balance, load);
            let meter = Meter::new(meters, Losses::COMPETITION_BALANCE);
            let counted = self.share.counted;
            device.balance(&term, responses, winners, counted, load, d_responses, meter)?;
        }
        if let (Some(scores), Some(routed)) = (&tape.scores, &tape.routed)
            && competing.coefficient > 0.0
        {
            device.distil(
                &competing.rule,
                responses,
                winners,
                scores,
                routed,
                self.share.counted,
                competing.coefficient * self.share.losses,
                d_scores,
                (competing.pupils == Pupils::RouterAndExperts).then_some(d_responses),
                Meter::new(meters, Losses::DISTILLATION),
            )?;
        }
        Ok(())
    }

    fn term<'l>(
        &self,
        rule: &BalanceRule,
        load: Option<&'l D::Load>,
    ) -> (BalanceTerm, Option<&'l D::Load>) {
        let length = self.context.shape.length;
        let Share {
            losses, sequences, ..
        } = *self.share;
        let (scope, load, share) = match rule.scope {
            BalanceScope::Step => (Scope::Batch, load, losses),
            BalanceScope::MicroBatch => (Scope::Batch, None, losses),
            BalanceScope::Sequence => (Scope::Sequence { length }, None, sequences),
        };
        let term = BalanceTerm {
            balance: rule.kind,
            scope,
            distribution: rule.distribution,
            coefficient: rule.coefficient * share,
        };
        (term, load)
    }

    /// The balance loss and the z-loss of the router.
    fn router_losses(
        &self,
        tape: &SparseTape<D>,
        d_scores: &mut TensorOf<D>,
        meters: &mut D::Meters,
    ) -> Result<()> {
        let (device, method) = (self.context.device, &self.context.architecture.method);
        let (Some(scores), Some(routed)) = (&tape.scores, &tape.routed) else {
            return Ok(());
        };
        let counted = self.share.counted;
        if let Some(balance) = &method.balance {
            let load = self.share.loads.map(|l| &l.routed[self.sparse.index]);
            let (term, load) = self.term(balance, load);
            let meter = Meter::new(meters, Losses::BALANCE);
            device.balance(&term, scores, routed, counted, load, d_scores, meter)?;
        }
        if method.z_loss > 0.0 {
            let coefficient = method.z_loss * self.share.losses;
            let meter = Meter::new(meters, Losses::Z);
            device.z_loss(coefficient, scores, counted, d_scores, meter)?;
        }
        Ok(())
    }

    /// dL/dz to the router's parameters; adds to dL/dx.
    fn router(
        &self,
        router: &Router,
        tape: &SparseTape<D>,
        gradients: &mut Tensors<D>,
        scratch: &mut FeedForwardScratch<D>,
    ) -> Result<()> {
        let (device, method) = (self.context.device, &self.context.architecture.method);
        let FeedForwardScratch {
            d_normed,
            part,
            d_scores,
            d_projected,
            d_noise,
            ..
        } = scratch;
        let d_scores = d_scores.as_ref().expect("filled before");
        let training = self.context.phase.training();
        let jitter = training.filter(|_| method.jitter > 0.0);
        let x = match (jitter, &tape.jittered) {
            (Some(_), Some(jittered)) => jittered,
            _ => self.x,
        };
        let linear = |id: Id, dz: &_, part: &mut _, gradients: &mut Tensors<D>| {
            let weight = self.parameters.get(id);
            let gradient = Some((gradients.get_mut(id), None));
            device.linear_backward(x, weight, dz, Some(part), gradient)
        };
        match method.scores {
            Scores::Linear => linear(router.weight, d_scores, part, gradients)?,
            Scores::Frozen => {
                let weight = self.parameters.get(router.weight);
                device.linear_backward(x, weight, d_scores, Some(part), None)?;
            }
            Scores::Noisy => {
                linear(router.weight, d_scores, part, gradients)?;
                if let (Some(training), Some(id), Some(noise)) =
                    (training, router.noise, &tape.noise)
                {
                    device.add(part, d_normed)?;
                    let d_noise = room(device, d_noise, noise.rows(), noise.columns())?;
                    device.clear(d_noise)?;
                    let stream = training.noise(self.layer);
                    let first = training.first_token;
                    device.noisy_backward(&stream, first, noise, d_scores, d_noise)?;
                    linear(id, d_noise, part, gradients)?;
                }
            }
            Scores::Cosine {
                cosine,
                temperature,
            } => {
                let u = tape.projected.as_ref().expect("cosine scores project");
                let scores = tape.scores.as_ref().expect("a router has scores");
                let id = router.embeddings.expect("cosine scores have embeddings");
                let d_u = room(device, d_projected, u.rows(), u.columns())?;
                device.clear(d_u)?;
                let (v, d_v) = (self.parameters.get(id), gradients.get_mut(id));
                device.cosine_backward(&cosine, temperature, u, v, scores, d_scores, d_u, d_v)?;
                linear(router.weight, d_u, part, gradients)?;
            }
        }
        if let Some(training) = jitter {
            let stream = training.jitter(self.layer);
            device.jitter(&stream, method.jitter, training.first_token, part)?;
        }
        device.add(part, d_normed)
    }
}

/// Adds a micro-batch's choices to the step's counts.
pub(super) fn count<D: Device>(
    device: &D,
    sparse: &Sparse,
    tape: &SparseTape<D>,
    counted: Option<&D::Mask>,
    loads: &mut Loads<D>,
) -> Result<()> {
    if let Some(routed) = &tape.routed {
        device.count(routed, counted, &mut loads.routed[sparse.index])?;
    }
    if let Some(winners) = &tape.winners {
        device.count(winners, counted, &mut loads.winners[sparse.index])?;
    }
    Ok(())
}

impl<D: Device> Context<'_, D> {
    fn capacity(&self) -> Option<Capacity> {
        let (method, experts) = (&self.architecture.method, &self.architecture.experts);
        let factor = match self.phase {
            Phase::Training(_) => method.capacity_factor,
            Phase::Evaluation { .. } => method.evaluation_capacity_factor,
        };
        let pairs = self.shape.tokens() * self.phase.active();
        factor.map(|factor| Capacity::of_factor(factor, pairs, experts.count, experts.drop))
    }
}
