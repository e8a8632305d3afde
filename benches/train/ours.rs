//! The steps of `layers.py`, on the device.

use smoe_lab::error::Result;
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::train::device::profiled::Profiled;
use smoe_lab::train::device::{BalanceTerm, Cpu, Device, Meter, TensorOf};
use smoe_lab::train::moe::experts::{Hidden, Saved, Shape, Weights, Workspace};
use smoe_lab::train::ops::activation::Activation;
use smoe_lab::train::ops::adamw::AdamW;
use smoe_lab::train::ops::attention;
use smoe_lab::train::ops::norm::Norm;
use smoe_lab::train::ops::rotary::{Rotary, Turn};
use smoe_lab::train::router::balance::{Balance, Scope};
use smoe_lab::train::router::combine::{Combine, TopK};
use smoe_lab::train::router::competition::Competition;
use smoe_lab::train::router::distribution::Distribution;
use smoe_lab::train::router::diversity::Pairs;
use smoe_lab::train::router::selection::Groups;

const SEQUENCES: usize = 8;
const LENGTH: usize = 128;
const TOKENS: usize = SEQUENCES * LENGTH;
const WIDTH: usize = 128;
const HEADS: usize = 4;
const HIDDEN: usize = 512;
const EXPERTS: usize = 8;
const ACTIVE: usize = 2;
const BALANCE: f64 = 0.01;
const DISTILLATION: f64 = 0.001;
const DIVERSITY: f64 = 0.005;
const EPSILON: f64 = 1e-5;

/// What takes a step.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    /// Router and experts, forth and back.
    Layer,
    /// With attention, norms and AdamW.
    Block,
}

/// Who decides.
#[derive(Clone, Copy, PartialEq)]
pub enum Decision {
    Routed,
    Competition,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Layer => "layer",
            Part::Block => "block",
        }
    }
}

impl Decision {
    pub fn name(self) -> &'static str {
        match self {
            Decision::Routed => "routed",
            Decision::Competition => "competition",
        }
    }
}

type Timed = Profiled<Cpu<f32>>;
type Matrix = TensorOf<Timed>;

struct Parameter {
    value: Matrix,
    gradient: Matrix,
    mean: Matrix,
    square: Matrix,
}

impl Parameter {
    /// Normals of this scale, or ones.
    fn new(device: &Timed, [rows, columns]: [usize; 2], scale: Option<f64>) -> Result<Self> {
        let values = match scale {
            Some(scale) => normals(rows * columns, scale),
            None => vec![1.0; rows * columns],
        };
        let zeros = || device.zeros(rows, columns);
        Ok(Parameter {
            value: device.upload(&values, columns)?,
            gradient: zeros()?,
            mean: zeros()?,
            square: zeros()?,
        })
    }
}

fn normals(length: usize, scale: f64) -> Vec<f32> {
    let stream = Stream::named(length as u64, "train", 0, Purpose::Data);
    let normal = |i| (scale * stream.standard_normal(i, 0)) as f32;
    (0..length as u64).map(normal).collect()
}

/// Router and experts.
struct Layer {
    decision: Decision,
    router: Parameter,
    up: Parameter,
    down: Parameter,
    scores: Matrix,
    responses: Matrix,
    d_scores: Matrix,
    d_responses: Matrix,
    part: Matrix,
    chosen: Option<<Timed as Device>::Assignment>,
    routed: Option<<Timed as Device>::Assignment>,
    dispatch: Option<<Timed as Device>::Dispatch>,
    saved: Saved<f32>,
    workspace: Workspace<f32>,
    meters: Vec<f64>,
}

fn experts() -> Shape {
    Shape {
        experts: EXPERTS,
        width: WIDTH,
        hidden: HIDDEN,
        kind: Hidden::Plain(Activation::Relu),
    }
}

fn rule() -> TopK {
    TopK {
        k: ACTIVE,
        combine: Combine::TopKSoftmax,
        scale: 1.0,
    }
}

impl Layer {
    fn new(device: &Timed, decision: Decision) -> Result<Self> {
        let of = |rows: usize, columns, inputs: usize| {
            let scale = 1.0 / (inputs as f64).sqrt();
            Parameter::new(device, [rows, columns], Some(scale))
        };
        let small = || device.zeros(TOKENS, EXPERTS);
        Ok(Layer {
            decision,
            router: of(WIDTH, EXPERTS, WIDTH)?,
            up: of(EXPERTS * WIDTH, HIDDEN, WIDTH)?,
            down: of(EXPERTS * HIDDEN, WIDTH, HIDDEN)?,
            scores: small()?,
            responses: small()?,
            d_scores: small()?,
            d_responses: small()?,
            part: device.zeros(TOKENS, WIDTH)?,
            chosen: None,
            routed: None,
            dispatch: None,
            saved: Saved::default(),
            workspace: Workspace::default(),
            meters: device.meters(1)?,
        })
    }

    fn parameters(&mut self) -> [&mut Parameter; 3] {
        [&mut self.router, &mut self.up, &mut self.down]
    }

    /// Writes y.
    fn forward(&mut self, device: &Timed, x: &Matrix, y: &mut Matrix) -> Result<()> {
        device.linear(x, &self.router.value, None, &mut self.scores)?;
        let routed = device.choose(&rule(), Groups::NONE, None, &self.scores)?;
        let weights = Weights {
            up: &self.up.value,
            gate: None,
            down: &self.down.value,
            up_bias: None,
            down_bias: None,
        };
        let (saved, workspace) = (&mut self.saved, &mut self.workspace);
        let chosen = match self.decision {
            Decision::Routed => routed,
            Decision::Competition => {
                self.routed = Some(routed);
                let competition = Competition::second_version(ACTIVE);
                let responses = &mut self.responses;
                device.compete(
                    experts(),
                    &weights,
                    &competition,
                    None,
                    x,
                    responses,
                    saved,
                    workspace,
                )?
            }
        };
        let chosen = &*self.chosen.insert(chosen);
        let dispatch = &*self.dispatch.insert(device.dispatch(chosen, None)?);
        match self.decision {
            Decision::Routed => device.experts(experts(), &weights, x, chosen, dispatch, saved, y),
            Decision::Competition => device.winners(chosen, dispatch, saved, y),
        }
    }

    /// Writes dL/dx from dL/dy; adds to gradients.
    fn backward(&mut self, d: &Timed, x: &Matrix, dy: &Matrix, dx: &mut Matrix) -> Result<()> {
        let chosen = self.chosen.as_ref().expect("after a forward pass");
        let dispatch = self.dispatch.as_ref().expect("after a forward pass");
        let d_weights = d.weight_gradients(chosen, dispatch, &self.saved, dy)?;
        d.clear(&mut self.d_scores)?;
        let (scores, d_scores) = (&self.scores, &mut self.d_scores);
        let meter = Meter::new(&mut self.meters, 0);
        let d_outputs = match self.decision {
            Decision::Routed => {
                d.choose_backward(&rule(), scores, chosen, &d_weights, d_scores)?;
                let term = BalanceTerm {
                    balance: Balance::Switch,
                    scope: Scope::Batch,
                    distribution: Distribution::Softmax,
                    coefficient: BALANCE,
                };
                d.balance(&term, scores, chosen, None, None, d_scores, meter)?;
                None
            }
            Decision::Competition => {
                let competition = Competition::second_version(ACTIVE);
                let (responses, d_responses) = (&self.responses, &mut self.d_responses);
                d.clear(d_responses)?;
                let winners = &competition.winners;
                d.choose_backward(winners, responses, chosen, &d_weights, d_responses)?;
                let routed = self.routed.as_ref().expect("scored before");
                d.distil(
                    &competition,
                    responses,
                    chosen,
                    scores,
                    routed,
                    None,
                    DISTILLATION,
                    d_scores,
                    None,
                    meter,
                )?;
                Some(d.output_gradients(
                    &competition,
                    d_responses,
                    chosen,
                    dispatch,
                    &self.saved,
                    Some((Pairs::WithDiagonal, DIVERSITY)),
                    None,
                    Meter::new(&mut self.meters, 0),
                )?)
            }
        };
        let weights = Weights {
            up: &self.up.value,
            gate: None,
            down: &self.down.value,
            up_bias: None,
            down_bias: None,
        };
        let gradients = Weights {
            up: &mut self.up.gradient,
            gate: None,
            down: &mut self.down.gradient,
            up_bias: None,
            down_bias: None,
        };
        d.experts_backward(
            experts(),
            &weights,
            x,
            chosen,
            dispatch,
            &self.saved,
            &mut self.workspace,
            dy,
            d_outputs.as_ref(),
            dx,
            gradients,
        )?;
        let gradient = Some((&mut self.router.gradient, None));
        let (router, part) = (&self.router.value, &mut self.part);
        d.linear_backward(x, router, &self.d_scores, Some(part), gradient)?;
        d.add(&self.part, dx)
    }
}

/// What a block has beside its layer.
struct Attention {
    gain: Parameter,
    layer_gain: Parameter,
    qkv_weight: Parameter,
    out_weight: Parameter,
    rotary: Rotary<f32>,
    normed: Matrix,
    moments: Matrix,
    qkv: Matrix,
    o: Matrix,
    log_sums: Matrix,
    middle: Matrix,
    layer_normed: Matrix,
    layer_moments: Matrix,
    d_stream: Matrix,
    d_normed: Matrix,
    part: Matrix,
    d_qkv: Matrix,
}

fn heads() -> attention::Shape {
    attention::Shape {
        sequences: SEQUENCES,
        length: LENGTH,
        heads: HEADS,
        width: WIDTH / HEADS,
    }
}

impl Attention {
    fn new(device: &Timed) -> Result<Self> {
        let wide = || device.zeros(TOKENS, WIDTH);
        let three = || device.zeros(TOKENS, 3 * WIDTH);
        let gain = || Parameter::new(device, [1, WIDTH], None);
        let scale = Some(1.0 / (WIDTH as f64).sqrt());
        Ok(Attention {
            gain: gain()?,
            layer_gain: gain()?,
            qkv_weight: Parameter::new(device, [WIDTH, 3 * WIDTH], scale)?,
            out_weight: Parameter::new(device, [WIDTH, WIDTH], scale)?,
            rotary: Rotary::new(LENGTH, WIDTH / HEADS, 10_000.0)?,
            normed: wide()?,
            moments: device.zeros(TOKENS, 2)?,
            qkv: three()?,
            o: wide()?,
            log_sums: device.zeros(SEQUENCES * HEADS, LENGTH)?,
            middle: wide()?,
            layer_normed: wide()?,
            layer_moments: device.zeros(TOKENS, 2)?,
            d_stream: wide()?,
            d_normed: wide()?,
            part: wide()?,
            d_qkv: three()?,
        })
    }

    fn parameters(&mut self) -> [&mut Parameter; 4] {
        [
            &mut self.gain,
            &mut self.layer_gain,
            &mut self.qkv_weight,
            &mut self.out_weight,
        ]
    }

    /// x + attention(norm(x)), and its norm.
    fn forward(&mut self, d: &Timed, x: &Matrix) -> Result<()> {
        let (y, moments) = (&mut self.normed, &mut self.moments);
        d.norm(Norm::Layer, EPSILON, x, &self.gain.value, None, y, moments)?;
        d.linear(&self.normed, &self.qkv_weight.value, None, &mut self.qkv)?;
        d.rotate(&self.rotary, heads(), &mut self.qkv, Turn::Forth)?;
        d.attend(heads(), &self.qkv, &mut self.o, &mut self.log_sums)?;
        d.linear(&self.o, &self.out_weight.value, None, &mut self.middle)?;
        d.add(x, &mut self.middle)?;
        let (y, moments) = (&mut self.layer_normed, &mut self.layer_moments);
        let gain = &self.layer_gain.value;
        d.norm(Norm::Layer, EPSILON, &self.middle, gain, None, y, moments)
    }

    /// From dL/d(norm), which `d_normed` holds, and the upstream gradient.
    fn backward(&mut self, d: &Timed, x: &Matrix, upstream: &Matrix) -> Result<()> {
        d.norm_backward(
            Norm::Layer,
            &self.middle,
            &self.layer_gain.value,
            &self.layer_moments,
            &self.d_normed,
            &mut self.d_stream,
            (&mut self.layer_gain.gradient, None),
        )?;
        d.add(upstream, &mut self.d_stream)?;
        let gradient = Some((&mut self.out_weight.gradient, None));
        let (weight, d_o) = (&self.out_weight.value, &mut self.part);
        d.linear_backward(&self.o, weight, &self.d_stream, Some(d_o), gradient)?;
        let (o, log_sums) = (&self.o, &self.log_sums);
        d.attend_backward(heads(), &self.qkv, o, log_sums, &self.part, &mut self.d_qkv)?;
        d.rotate(&self.rotary, heads(), &mut self.d_qkv, Turn::Back)?;
        let gradient = Some((&mut self.qkv_weight.gradient, None));
        let (weight, d_normed) = (&self.qkv_weight.value, &mut self.d_normed);
        d.linear_backward(&self.normed, weight, &self.d_qkv, Some(d_normed), gradient)?;
        d.norm_backward(
            Norm::Layer,
            x,
            &self.gain.value,
            &self.moments,
            &self.d_normed,
            &mut self.part,
            (&mut self.gain.gradient, None),
        )
    }
}

/// Steps of a layer or block on normals, with normals for the output's gradient.
pub struct Ours {
    device: Timed,
    layer: Layer,
    attention: Option<Attention>,
    x: Matrix,
    upstream: Matrix,
    y: Matrix,
    dx: Matrix,
    steps: u64,
}

impl Ours {
    pub fn new(part: Part, decision: Decision) -> Result<Self> {
        let device = Profiled::new(Cpu::new());
        let upstream = normals(TOKENS * WIDTH, 1.0 / TOKENS as f64);
        Ok(Ours {
            layer: Layer::new(&device, decision)?,
            attention: match part {
                Part::Layer => None,
                Part::Block => Some(Attention::new(&device)?),
            },
            x: device.upload(&normals(TOKENS * WIDTH, 1.0), WIDTH)?,
            upstream: device.upload(&upstream, WIDTH)?,
            y: device.zeros(TOKENS, WIDTH)?,
            dx: device.zeros(TOKENS, WIDTH)?,
            device,
            steps: 0,
        })
    }

    pub fn device(&self) -> &Timed {
        &self.device
    }

    pub fn step(&mut self) -> Result<()> {
        let (d, layer, upstream) = (&self.device, &mut self.layer, &self.upstream);
        match &mut self.attention {
            None => {
                layer.forward(d, &self.x, &mut self.y)?;
                layer.backward(d, &self.x, upstream, &mut self.dx)?;
                for p in layer.parameters() {
                    d.clear(&mut p.gradient)?;
                }
            }
            Some(attention) => {
                attention.forward(d, &self.x)?;
                layer.forward(d, &attention.layer_normed, &mut self.y)?;
                d.add(&attention.middle, &mut self.y)?;
                let d_normed = &mut attention.d_normed;
                layer.backward(d, &attention.layer_normed, upstream, d_normed)?;
                attention.backward(d, &self.x, upstream)?;
                self.steps += 1;
                let rule = AdamW {
                    rate: 1e-4,
                    memory: [0.9, 0.999],
                    epsilon: 1e-8,
                    decay: 0.1,
                };
                let all = layer.parameters().into_iter().chain(attention.parameters());
                for p in all {
                    let (gradient, mean, square) = (&mut p.gradient, &mut p.mean, &mut p.square);
                    let value = &mut p.value;
                    d.update(&rule, self.steps, 1.0, value, gradient, mean, square)?;
                }
            }
        }
        Ok(())
    }
}
