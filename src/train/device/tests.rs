//! One block of a transformer written against the contract alone.

use super::*;
use crate::train::moe::experts::Hidden;
use crate::train::ops::check::{assert_gradient, normals, threads};
use crate::train::router::combine::Combine;

const SEQUENCES: usize = 2;
const LENGTH: usize = 5;
const TOKENS: usize = SEQUENCES * LENGTH;
const WIDTH: usize = 4;
const VOCABULARY: usize = 6;
const ATTENTION: AttentionShape = AttentionShape {
    sequences: SEQUENCES,
    length: LENGTH,
    heads: 2,
    width: 2,
};
const EXPERTS: ExpertShape = ExpertShape {
    experts: 3,
    width: WIDTH,
    hidden: 5,
    kind: Hidden::Gated,
};
const RULE: TopK = TopK {
    k: 2,
    combine: Combine::SoftmaxTopK,
    scale: 1.0,
};
const BALANCE: BalanceTerm = BalanceTerm {
    balance: Balance::Switch,
    scope: Scope::Batch,
    distribution: Distribution::Softmax,
    coefficient: 0.01,
};
const Z_COEFFICIENT: f64 = 0.001;
const IDS: [u32; TOKENS] = [0, 3, 1, 3, 5, 2, 2, 4, 0, 1];
const TARGETS: [u32; TOKENS] = [3, 1, 3, 5, u32::MAX, 2, 4, 0, 1, 5];

/// Embedding, gains of two norms, shift of the first, qkv, output, router, gate, up,
/// down, head.
const SHAPES: [(usize, usize); 11] = [
    (VOCABULARY, WIDTH),
    (1, WIDTH),
    (1, WIDTH),
    (1, WIDTH),
    (WIDTH, 3 * WIDTH),
    (WIDTH, WIDTH),
    (WIDTH, 3),
    (3 * WIDTH, 5),
    (3 * WIDTH, 5),
    (3 * 5, WIDTH),
    (WIDTH, VOCABULARY),
];

fn parameters() -> Vec<Vec<f64>> {
    let shapes = SHAPES.iter().enumerate();
    shapes
        .map(|(i, (rows, columns))| normals(i as u64, rows * columns))
        .collect()
}

/// nats, balance, z-loss, and the gradient of 1/9 nats + balance + z-loss; the
/// logits of a pass are in the last entry.
type Pass<N> = (Vec<f64>, Vec<Vec<N>>, Vec<N>);

fn pass<D: Device>(
    device: &D,
    ids: &[u32],
    parameters: &[Vec<D::Number>],
) -> Result<Pass<D::Number>> {
    let upload = |(values, (_, columns)): (&Vec<D::Number>, &(usize, usize))| {
        device.upload(values, *columns)
    };
    let p: Vec<TensorOf<D>> = parameters
        .iter()
        .zip(&SHAPES)
        .map(upload)
        .collect::<Result<_>>()?;
    let mut g: Vec<TensorOf<D>> = SHAPES
        .iter()
        .map(|&(rows, columns)| device.zeros(rows, columns))
        .collect::<Result<_>>()?;
    let wide = || device.zeros(TOKENS, WIDTH);
    let rotary = Rotary::new(LENGTH, 2, 100.0)?;
    let (ids, targets) = (device.ids(ids)?, device.ids(&TARGETS)?);
    let mut meters = device.meters(3)?;
    // The token without a target enters no loss.
    let counted: Vec<bool> = TARGETS.iter().map(|&t| t != u32::MAX).collect();
    let counted = device.mask(&counted)?;
    let mut load = D::Load::default();

    let mut x = wide()?;
    device.embed(&p[0], &ids, &mut x)?;
    let (mut normed, mut moments) = (wide()?, device.zeros(TOKENS, 2)?);
    device.norm(
        Norm::Layer,
        1e-5,
        &x,
        &p[1],
        Some(&p[3]),
        &mut normed,
        &mut moments,
    )?;
    let mut qkv = device.zeros(TOKENS, 3 * WIDTH)?;
    device.linear(&normed, &p[4], None, &mut qkv)?;
    device.rotate(&rotary, ATTENTION, &mut qkv, Turn::Forth)?;
    let (mut o, mut log_sums) = (wide()?, device.zeros(SEQUENCES * 2, LENGTH)?);
    device.attend(ATTENTION, &qkv, &mut o, &mut log_sums)?;
    let mut middle = wide()?;
    device.linear(&o, &p[5], None, &mut middle)?;
    device.add(&x, &mut middle)?;
    let (mut input, mut input_moments) = (wide()?, device.zeros(TOKENS, 2)?);
    let rms = Norm::RootMeanSquare;
    device.norm(
        rms,
        1e-5,
        &middle,
        &p[2],
        None,
        &mut input,
        &mut input_moments,
    )?;
    let mut scores = device.zeros(TOKENS, 3)?;
    device.linear(&input, &p[6], None, &mut scores)?;
    let assignment = device.choose(&RULE, Groups::NONE, None, &scores)?;
    let dispatch = device.dispatch(&assignment, None)?;
    let weights = Weights {
        up: &p[8],
        gate: Some(&p[7]),
        down: &p[9],
        up_bias: None,
        down_bias: None,
    };
    let (mut saved, mut y) = (D::Saved::default(), wide()?);
    device.experts(
        EXPERTS,
        &weights,
        &input,
        &assignment,
        &dispatch,
        &mut saved,
        &mut y,
    )?;
    device.add(&middle, &mut y)?;
    let mut logits = device.zeros(TOKENS, VOCABULARY)?;
    device.linear(&y, &p[10], None, &mut logits)?;
    let host_logits = device.download(&logits)?;

    device.cross_entropy(&mut logits, &targets, 1.0 / 9.0, Meter::new(&mut meters, 0))?;
    let mut d_scores = device.zeros(TOKENS, 3)?;
    device.count(&assignment, Some(&counted), &mut load)?;
    device.balance(
        &BALANCE,
        &scores,
        &assignment,
        Some(&counted),
        Some(&load),
        &mut d_scores,
        Meter::new(&mut meters, 1),
    )?;
    device.z_loss(
        Z_COEFFICIENT,
        &scores,
        Some(&counted),
        &mut d_scores,
        Meter::new(&mut meters, 2),
    )?;
    let mut dy = wide()?;
    device.linear_backward(&y, &p[10], &logits, Some(&mut dy), Some((&mut g[10], None)))?;
    let d_weights = device.weight_gradients(&assignment, &dispatch, &saved, &dy)?;
    device.choose_backward(&RULE, &scores, &assignment, &d_weights, &mut d_scores)?;
    let mut workspace = D::Workspace::default();
    let mut d_input = wide()?;
    let [_, _, _, _, _, _, d_router, d_gate, d_up, d_down, _] = &mut g[..] else {
        unreachable!("eleven shapes")
    };
    let gradients = Weights {
        up: d_up,
        gate: Some(d_gate),
        down: d_down,
        up_bias: None,
        down_bias: None,
    };
    device.experts_backward(
        EXPERTS,
        &weights,
        &input,
        &assignment,
        &dispatch,
        &saved,
        &mut workspace,
        &dy,
        None,
        &mut d_input,
        gradients,
    )?;
    let mut part = wide()?;
    device.linear_backward(
        &input,
        &p[6],
        &d_scores,
        Some(&mut part),
        Some((d_router, None)),
    )?;
    device.add(&part, &mut d_input)?;
    let d_gains = (&mut g[2], None);
    device.norm_backward(
        rms,
        &middle,
        &p[2],
        &input_moments,
        &d_input,
        &mut part,
        d_gains,
    )?;
    device.add(&part, &mut dy)?;
    let mut d_o = wide()?;
    device.linear_backward(&o, &p[5], &dy, Some(&mut d_o), Some((&mut g[5], None)))?;
    let mut d_qkv = device.zeros(TOKENS, 3 * WIDTH)?;
    device.attend_backward(ATTENTION, &qkv, &o, &log_sums, &d_o, &mut d_qkv)?;
    device.rotate(&rotary, ATTENTION, &mut d_qkv, Turn::Back)?;
    let mut d_normed = wide()?;
    device.linear_backward(
        &normed,
        &p[4],
        &d_qkv,
        Some(&mut d_normed),
        Some((&mut g[4], None)),
    )?;
    let (gains, shifts) = g.split_at_mut(3);
    let gradients = (&mut gains[1], Some(&mut shifts[0]));
    device.norm_backward(
        Norm::Layer,
        &x,
        &p[1],
        &moments,
        &d_normed,
        &mut part,
        gradients,
    )?;
    device.add(&part, &mut dy)?;
    device.embed_backward(&ids, &dy, &mut g[0])?;
    let g = g
        .iter()
        .map(|g| device.download(g))
        .collect::<Result<_>>()?;
    Ok((device.read(&mut meters)?, g, host_logits))
}

#[test]
fn the_gradients_of_a_whole_block_match_finite_differences() {
    let device = Cpu::<f64>::new();
    let p = parameters();
    let (_, gradients, _) = pass(&device, &IDS, &p).unwrap();
    for (i, gradient) in gradients.iter().enumerate() {
        assert_gradient(&format!("parameter {i}"), &p[i], gradient, |at| {
            let mut moved = p.clone();
            moved[i] = at.to_vec();
            let (losses, _, _) = pass(&device, &IDS, &moved).unwrap();
            losses[0] / 9.0 + losses[1] + losses[2]
        });
    }
}

#[test]
fn a_block_in_single_precision_is_the_block_in_double_precision_to_five_digits() {
    let p = parameters();
    let narrow: Vec<Vec<f32>> = p
        .iter()
        .map(|p| p.iter().map(|&x| x as f32).collect())
        .collect();
    let (losses, gradients, _) = pass(&Cpu::<f64>::new(), &IDS, &p).unwrap();
    let (narrow_losses, narrow_gradients, _) = pass(&Cpu::<f32>::new(), &IDS, &narrow).unwrap();
    for (a, b) in losses.iter().zip(&narrow_losses) {
        assert!((a - b).abs() < 1e-5 * a.abs());
    }
    for (wide, narrow) in gradients.iter().zip(&narrow_gradients) {
        let largest = wide.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
        for (a, &b) in wide.iter().zip(narrow) {
            assert!((a - f64::from(b)).abs() < 1e-5 * largest);
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_logits_of_a_block_with_chosen_experts() {
    let (device, p) = (Cpu::<f64>::new(), parameters());
    let (_, _, before) = pass(&device, &IDS, &p).unwrap();
    let mut ids = IDS;
    ids[3] = 4;
    let (_, _, after) = pass(&device, &ids, &p).unwrap();
    assert_eq!(before[..3 * VOCABULARY], after[..3 * VOCABULARY]);
    assert_ne!(
        before[3 * VOCABULARY..5 * VOCABULARY],
        after[3 * VOCABULARY..5 * VOCABULARY]
    );
    assert_eq!(
        before[5 * VOCABULARY..],
        after[5 * VOCABULARY..],
        "another sequence"
    );
}

#[test]
fn a_hundred_steps_of_adamw_learn_the_sequences_the_same_on_any_number_of_threads() {
    let run = || {
        let device = Cpu::<f32>::new();
        let mut p: Vec<Vec<f32>> = parameters()
            .iter()
            .map(|p| p.iter().map(|&x| 0.5 * x as f32).collect())
            .collect();
        let rule = AdamW {
            rate: 0.03,
            memory: [0.9, 0.95],
            epsilon: 1e-8,
            decay: 0.0,
        };
        let zeros = || -> Vec<TensorOf<Cpu<f32>>> {
            let zeros = |&(rows, columns): &(usize, usize)| device.zeros(rows, columns).unwrap();
            SHAPES.iter().map(zeros).collect()
        };
        let (mut means, mut squares) = (zeros(), zeros());
        let mut losses = Vec::new();
        for step in 1..=100 {
            let (loss, gradients, _) = pass(&device, &IDS, &p).unwrap();
            losses.push(loss[0] / 9.0);
            for i in 0..p.len() {
                let columns = SHAPES[i].1;
                let mut tensor = device.upload(&p[i], columns).unwrap();
                let mut gradient = device.upload(&gradients[i], columns).unwrap();
                let state = (&mut means[i], &mut squares[i]);
                device
                    .update(
                        &rule,
                        step,
                        1.0,
                        &mut tensor,
                        &mut gradient,
                        state.0,
                        state.1,
                    )
                    .unwrap();
                p[i] = device.download(&tensor).unwrap();
            }
        }
        losses
    };
    let losses = threads(1, run);
    assert!(losses[0] > 1.2 && losses[99] < 0.2, "{losses:?}");
    assert_eq!(losses, threads(4, run));
}

#[test]
fn tensors_that_do_not_fit_are_refused_in_one_line() {
    let device = Cpu::<f32>::new();
    let (x, w) = (device.zeros(2, 3).unwrap(), device.zeros(4, 5).unwrap());
    let mut y = device.zeros(2, 5).unwrap();
    let error = device.linear(&x, &w, None, &mut y).unwrap_err();
    assert_eq!(
        error.to_string(),
        "inputs of a linear map: expected dimension 4, got 3"
    );
    let error = device.embed(&w, &vec![4], &mut device.zeros(1, 5).unwrap());
    assert_eq!(
        error.unwrap_err().to_string(),
        "id of a token: 4 must be below 4"
    );
    assert!(device.upload(&[0.0; 5], 2).is_err());
}
