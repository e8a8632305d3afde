//! Time of one training step of one block: layer norm, causal attention, layer norm,
//! top-2 of 8 experts 128 -> 512 -> 128 GELU, 8 sequences of 128 tokens, mean square
//! error, backward, AdamW. Median and minimum over steps, by number of threads, and
//! the same with a competition step in place of the router's.
//!
//! `cargo bench --bench block [-- STEPS]`

use smoe_lab::error::Result;
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::train::device::{Cpu, Device, Meter, Tensor, TensorOf};
use smoe_lab::train::moe::experts::{Hidden, Saved, Shape, Weights, Workspace};
use smoe_lab::train::ops::activation::Activation;
use smoe_lab::train::ops::adamw::AdamW;
use smoe_lab::train::ops::attention;
use smoe_lab::train::ops::norm::Norm;
use smoe_lab::train::router::combine::{Combine, TopK};
use smoe_lab::train::router::competition::Competition;
use std::time::Instant;

const WIDTH: usize = 128;
const HIDDEN: usize = 512;
const EXPERTS: usize = 8;
const HEADS: usize = 4;
const SEQUENCES: usize = 8;
const LENGTH: usize = 128;
const TOKENS: usize = SEQUENCES * LENGTH;

/// Rows, columns and scale of the initial normals: two gains (scale 0 means ones), two
/// shifts, qkv, output, router, up, up bias, down, down bias.
const PARAMETERS: [(usize, usize, f64); 11] = [
    (1, WIDTH, 0.0),
    (1, WIDTH, 0.0),
    (1, WIDTH, 0.01),
    (1, WIDTH, 0.01),
    (WIDTH, 3 * WIDTH, 0.09),
    (WIDTH, WIDTH, 0.09),
    (WIDTH, EXPERTS, 0.09),
    (EXPERTS * WIDTH, HIDDEN, 0.09),
    (EXPERTS, HIDDEN, 0.01),
    (EXPERTS * HIDDEN, WIDTH, 0.04),
    (EXPERTS, WIDTH, 0.01),
];

/// Who decides.
#[derive(Clone, Copy, PartialEq)]
enum Policy {
    Router,
    Competition,
}

struct Block {
    device: Cpu<f32>,
    parameters: Vec<TensorOf<Cpu<f32>>>,
    gradients: Vec<TensorOf<Cpu<f32>>>,
    means: Vec<TensorOf<Cpu<f32>>>,
    squares: Vec<TensorOf<Cpu<f32>>>,
    saved: Saved<f32>,
    workspace: Workspace<f32>,
    step: u64,
}

fn normals(seed: u64, length: usize, scale: f64) -> Vec<f32> {
    let stream = Stream::named(seed, "block", 0, Purpose::Data);
    let normal = |i| (scale * stream.standard_normal(i, 0)) as f32;
    (0..length as u64).map(normal).collect()
}

impl Block {
    fn new() -> Result<Self> {
        let device = Cpu::new();
        let mut parameters = Vec::new();
        for (i, &(rows, columns, scale)) in PARAMETERS.iter().enumerate() {
            let values = match scale == 0.0 {
                true => vec![1.0; rows * columns],
                false => normals(i as u64, rows * columns, scale),
            };
            parameters.push(device.upload(&values, columns)?);
        }
        let zeros = || -> Result<Vec<Tensor<Vec<f32>>>> {
            let shapes = PARAMETERS.iter();
            shapes
                .map(|&(rows, columns, _)| device.zeros(rows, columns))
                .collect()
        };
        Ok(Block {
            gradients: zeros()?,
            means: zeros()?,
            squares: zeros()?,
            device,
            parameters,
            saved: Saved::default(),
            workspace: Workspace::default(),
            step: 0,
        })
    }

    /// One step; returns the loss.
    fn step(&mut self, policy: Policy, x: &Tensor<Vec<f32>>, target: &[f32]) -> Result<f64> {
        let (d, p, g) = (&self.device, &self.parameters, &mut self.gradients);
        g.iter_mut().try_for_each(|g| d.clear(g))?;
        let wide = || d.zeros(TOKENS, WIDTH);
        let shape = attention::Shape {
            sequences: SEQUENCES,
            length: LENGTH,
            heads: HEADS,
            width: WIDTH / HEADS,
        };
        let experts = Shape {
            experts: EXPERTS,
            width: WIDTH,
            hidden: HIDDEN,
            kind: Hidden::Plain(Activation::Gelu),
        };
        let rule = TopK {
            k: 2,
            combine: Combine::TopKSoftmax,
            scale: 1.0,
        };
        let competition = Competition::second_version(2);

        let (mut normed, mut moments) = (wide()?, d.zeros(TOKENS, 2)?);
        d.norm(
            Norm::Layer,
            1e-5,
            x,
            &p[0],
            Some(&p[2]),
            &mut normed,
            &mut moments,
        )?;
        let mut qkv = d.zeros(TOKENS, 3 * WIDTH)?;
        d.linear(&normed, &p[4], None, &mut qkv)?;
        let (mut o, mut log_sums) = (wide()?, d.zeros(SEQUENCES * HEADS, LENGTH)?);
        d.attend(shape, &qkv, &mut o, &mut log_sums)?;
        let mut middle = wide()?;
        d.linear(&o, &p[5], None, &mut middle)?;
        d.add(x, &mut middle)?;
        let (mut input, mut input_moments) = (wide()?, d.zeros(TOKENS, 2)?);
        d.norm(
            Norm::Layer,
            1e-5,
            &middle,
            &p[1],
            Some(&p[3]),
            &mut input,
            &mut input_moments,
        )?;
        let mut scores = d.zeros(TOKENS, EXPERTS)?;
        d.linear(&input, &p[6], None, &mut scores)?;
        let weights = Weights {
            up: &p[7],
            gate: None,
            down: &p[9],
            up_bias: Some(&p[8]),
            down_bias: Some(&p[10]),
        };
        let mut affinities = d.zeros(TOKENS, EXPERTS)?;
        let routed = d.choose(&rule, &scores)?;
        let assignment = match policy {
            Policy::Router => routed.clone(),
            Policy::Competition => {
                d.affinities(experts, &weights, &competition, &input, &mut affinities)?;
                d.choose(&competition.winners, &affinities)?
            }
        };
        let dispatch = d.dispatch(&assignment, None)?;
        let mut y = wide()?;
        d.experts(
            experts,
            &weights,
            &input,
            &assignment,
            &dispatch,
            &mut self.saved,
            &mut y,
        )?;
        d.add(&middle, &mut y)?;

        let mut dy = d.download(&y)?;
        let scale = 1.0 / dy.len() as f32;
        let mut loss = 0.0;
        for (dy, target) in dy.iter_mut().zip(target) {
            let gap = *dy - target;
            loss += f64::from(gap * gap);
            *dy = 2.0 * gap * scale;
        }
        let mut dy = d.upload(&dy, WIDTH)?;

        let mut d_scores = d.zeros(TOKENS, EXPERTS)?;
        let d_weights = d.weight_gradients(&assignment, &dispatch, &self.saved, &dy)?;
        let mut meters = d.meters(1)?;
        let d_outputs = match policy {
            Policy::Router => {
                d.choose_backward(&rule, &scores, &assignment, &d_weights, &mut d_scores)?;
                None
            }
            Policy::Competition => {
                let meter = Meter::new(&mut meters, 0);
                d.distil(
                    &competition,
                    &affinities,
                    &assignment,
                    &scores,
                    &routed,
                    None,
                    0.01,
                    &mut d_scores,
                    meter,
                )?;
                Some(d.output_gradients(
                    &competition,
                    &affinities,
                    &assignment,
                    &dispatch,
                    &d_weights,
                    &self.saved,
                    None,
                    None,
                    Meter::new(&mut meters, 0),
                )?)
            }
        };
        let (small, large) = g.split_at_mut(7);
        let [d_up, d_up_bias, d_down, d_down_bias] = large else {
            unreachable!("eleven parameters")
        };
        let gradients = Weights {
            up: d_up,
            gate: None,
            down: d_down,
            up_bias: Some(d_up_bias),
            down_bias: Some(d_down_bias),
        };
        let mut d_input = wide()?;
        d.experts_backward(
            experts,
            &weights,
            &input,
            &assignment,
            &dispatch,
            &mut self.saved,
            &mut self.workspace,
            &dy,
            d_outputs.as_ref(),
            &mut d_input,
            gradients,
        )?;
        let [
            gain,
            gain2,
            shift,
            shift2,
            d_qkv_weight,
            d_o_weight,
            d_router,
        ] = small
        else {
            unreachable!("seven parameters")
        };
        let mut part = wide()?;
        d.linear_backward(
            &input,
            &p[6],
            &d_scores,
            Some(&mut part),
            Some((d_router, None)),
        )?;
        d.add(&part, &mut d_input)?;
        let norms = (gain2, Some(shift2));
        d.norm_backward(
            Norm::Layer,
            &middle,
            &p[1],
            &input_moments,
            &d_input,
            &mut part,
            norms,
        )?;
        d.add(&part, &mut dy)?;
        let mut d_o = wide()?;
        d.linear_backward(&o, &p[5], &dy, Some(&mut d_o), Some((d_o_weight, None)))?;
        let mut d_qkv = d.zeros(TOKENS, 3 * WIDTH)?;
        d.attend_backward(shape, &qkv, &o, &log_sums, &d_o, &mut d_qkv)?;
        let mut d_normed = wide()?;
        d.linear_backward(
            &normed,
            &p[4],
            &d_qkv,
            Some(&mut d_normed),
            Some((d_qkv_weight, None)),
        )?;
        let norms = (gain, Some(shift));
        d.norm_backward(Norm::Layer, x, &p[0], &moments, &d_normed, &mut part, norms)?;

        self.step += 1;
        let adam = AdamW {
            rate: 1e-3,
            memory: [0.9, 0.999],
            epsilon: 1e-8,
            decay: 0.01,
        };
        let state = self.means.iter_mut().zip(&mut self.squares);
        for ((p, g), (m, v)) in self.parameters.iter_mut().zip(&self.gradients).zip(state) {
            self.device.update(&adam, self.step, 1.0, p, g, m, v)?;
        }
        Ok(loss / (TOKENS * WIDTH) as f64)
    }
}

fn measure(threads: usize, policy: Policy, steps: usize) -> Result<()> {
    let x = Cpu::new().upload(&normals(100, TOKENS * WIDTH, 1.0), WIDTH)?;
    let target = normals(101, TOKENS * WIDTH, 1.0);
    let mut block = Block::new()?;
    let mut times = Vec::new();
    let (mut first, mut last) = (0.0, 0.0);
    for step in 0..steps + 3 {
        let start = Instant::now();
        last = block.step(policy, &x, &target)?;
        if step == 0 {
            first = last;
        }
        if step >= 3 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let name = match policy {
        Policy::Router => "router",
        Policy::Competition => "competition",
    };
    println!(
        "{name:<12} {threads} threads: median {:.1} ms, minimum {:.1} ms, loss {first:.3} -> {last:.3}",
        times[times.len() / 2],
        times[0],
    );
    Ok(())
}

fn main() -> Result<()> {
    let steps = std::env::args()
        .filter_map(|a| a.parse().ok())
        .next()
        .unwrap_or(40);
    for policy in [Policy::Router, Policy::Competition] {
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("a thread pool")
                .install(|| measure(threads, policy, steps))?;
        }
    }
    Ok(())
}
