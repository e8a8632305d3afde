use super::*;
use crate::train::moe::experts::Hidden;
use crate::train::moe::{Capacity, Dispatch, Drop, layer};
use crate::train::ops::activation::Activation;
use crate::train::ops::check::{assert_gradient, distance, inner, normals, threads};
use crate::train::router::diversity::{self, Pairs};

const TOKENS: usize = 7;
const WIDTH: usize = 4;
const EXPERTS: usize = 5;

fn shape() -> Shape {
    Shape {
        experts: EXPERTS,
        width: WIDTH,
        hidden: 6,
        kind: Hidden::Plain(Activation::Gelu),
    }
}

fn weights() -> Weights<Vec<f64>> {
    Weights {
        up: normals(1, EXPERTS * WIDTH * 6),
        gate: None,
        down: normals(2, EXPERTS * WIDTH * 6),
        up_bias: Some(normals(3, EXPERTS * 6)),
        down_bias: Some(normals(4, EXPERTS * WIDTH)),
    }
}

/// Everything of one competition step of the loss c . y + 0.3 diversity.
struct Step {
    affinities: Vec<f64>,
    assignment: Assignment<f64>,
    y: Vec<f64>,
    loss: f64,
    dx: Vec<f64>,
    gradients: Weights<Vec<f64>>,
}

fn step(competition: Competition, weights: &Weights<Vec<f64>>, x: &[f64], c: &[f64]) -> Step {
    let (shape, view) = (shape(), weights.view());
    let mut a = vec![f64::NAN; x.len() / WIDTH * EXPERTS];
    let (mut saved, mut workspace) = (Saved::default(), Workspace::default());
    let assignment = compete(
        shape,
        &view,
        &competition,
        None,
        x,
        &mut a,
        &mut saved,
        &mut workspace,
    )
    .unwrap();
    let dispatch = Dispatch::new(&assignment, None);
    let mut y = vec![0.0; x.len()];
    layer::forward_of_winners(WIDTH, &assignment, &dispatch, &mut saved, &mut y);
    let d_weights = layer::weight_gradients(WIDTH, &assignment, &dispatch, &saved, c);
    let outputs = saved.outputs();
    let mut d_outputs = vec![0.0; outputs.len()];
    let diverse = diversity::add(
        Pairs::WithDiagonal,
        &assignment,
        &dispatch,
        WIDTH,
        outputs,
        None,
        0.3,
        &mut d_outputs,
    );
    let mut d_affinities = vec![0.0; a.len()];
    let rule = competition.winners;
    rule.backward(&a, &assignment, &d_weights, &mut d_affinities);
    competition.add_output_gradients(
        &d_affinities,
        &assignment,
        &dispatch,
        WIDTH,
        outputs,
        &mut d_outputs,
    );
    let zeros = |w: &Vec<f64>| vec![0.0; w.len()];
    let mut gradients = Weights {
        up: zeros(&weights.up),
        gate: None,
        down: zeros(&weights.down),
        up_bias: weights.up_bias.as_ref().map(zeros),
        down_bias: weights.down_bias.as_ref().map(zeros),
    };
    let mut dx = vec![0.0; x.len()];
    layer::backward(
        shape,
        &view,
        x,
        &assignment,
        &dispatch,
        &saved,
        &mut workspace,
        layer::Upstream {
            dy: c,
            d_outputs: Some(&d_outputs),
        },
        &mut dx,
        gradients.view_mut(),
    );
    let loss = inner(&y, c) + 0.3 * diverse;
    Step {
        affinities: a,
        assignment,
        y,
        loss,
        dx,
        gradients,
    }
}

fn versions() -> [Competition; 2] {
    [
        Competition::first_version(2),
        Competition::second_version(2),
    ]
}

#[test]
fn gradients_through_the_winners_weights_match_finite_differences() {
    let (x, w) = (normals(5, TOKENS * WIDTH), weights());
    let c = normals(6, TOKENS * WIDTH);
    for competition in versions() {
        let now = step(competition, &w, &x, &c);
        let loss = |set: &dyn Fn(&mut Weights<Vec<f64>>)| {
            let mut moved = w.clone();
            set(&mut moved);
            step(competition, &moved, &x, &c).loss
        };
        let gradients = &now.gradients;
        assert_gradient("x", &x, &now.dx, |x| step(competition, &w, x, &c).loss);
        assert_gradient("up", &w.up, &gradients.up, |v| loss(&|w| w.up = v.to_vec()));
        assert_gradient("down", &w.down, &gradients.down, |v| {
            loss(&|w| w.down = v.to_vec())
        });
        let (at, gradient) = (w.down_bias.as_ref(), gradients.down_bias.as_ref());
        assert_gradient("down bias", at.unwrap(), gradient.unwrap(), |v| {
            loss(&|w| w.down_bias = Some(v.to_vec()))
        });
    }
}

#[test]
fn losers_receive_exactly_no_gradient() {
    // One token: every expert but its two winners has lost everywhere.
    let (x, c) = (normals(5, WIDTH), normals(6, WIDTH));
    for competition in versions() {
        let step = step(competition, &weights(), &x, &c);
        for expert in 0..EXPERTS {
            let matrix = &step.gradients.up[expert * WIDTH * 6..][..WIDTH * 6];
            let won = step.assignment.experts().contains(&(expert as u32));
            assert_eq!(matrix.iter().any(|g| *g != 0.0), won);
        }
    }
}

#[test]
fn streamed_responses_equal_those_of_outputs_that_were_kept() {
    let (shape, w) = (shape(), weights());
    let tokens = 2 * super::TOKENS + 5;
    let x = normals(7, tokens * WIDTH);
    for competition in versions() {
        let mut streamed = vec![f64::NAN; tokens * EXPERTS];
        affinities(shape, &w.view(), competition.response, &x, &mut streamed);
        let all = (0..tokens as u32).flat_map(|_| 0..EXPERTS as u32).collect();
        let ones = vec![1.0; tokens * EXPERTS];
        let everyone = Assignment::uniform(EXPERTS, all, ones, EXPERTS).unwrap();
        let dispatch = Dispatch::new(&everyone, None);
        let (mut saved, mut y) = (Saved::default(), vec![0.0; x.len()]);
        layer::forward(
            shape,
            &w.view(),
            &x,
            &everyone,
            &dispatch,
            &mut saved,
            &mut y,
        );
        let response = |&slot: &u32| {
            let out = &saved.outputs()[slot as usize * WIDTH..][..WIDTH];
            competition.response.forward(out)
        };
        let kept: Vec<f64> = dispatch.slots().iter().map(response).collect();
        assert!(distance(&streamed, &kept) < 1e-13);
    }
}

#[test]
fn with_all_experts_winning_the_weights_sum_to_one() {
    let (x, c) = (normals(5, TOKENS * WIDTH), normals(6, TOKENS * WIDTH));
    for competition in [
        Competition::first_version(EXPERTS),
        Competition::second_version(EXPERTS),
    ] {
        let step = step(competition, &weights(), &x, &c);
        for token in 0..TOKENS {
            let weights = &step.assignment.weights()[step.assignment.pairs_of(token)];
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-14);
        }
        assert!(step.y.iter().all(|y| y.is_finite()));
    }
}

#[test]
fn identical_experts_tie_and_the_lower_numbers_win() {
    // Experts copied from one dense layer, as in upcycling: hence the warm-up.
    let mut w = weights();
    for values in [&mut w.up, &mut w.down] {
        let first = values[..WIDTH * 6].to_vec();
        values
            .chunks_mut(WIDTH * 6)
            .for_each(|v| v.copy_from_slice(&first));
    }
    w.up_bias = None;
    w.down_bias = None;
    let (x, c) = (normals(5, TOKENS * WIDTH), normals(6, TOKENS * WIDTH));
    for competition in versions() {
        let step = step(competition, &w, &x, &c);
        assert_eq!(step.assignment.experts(), [0, 1].repeat(TOKENS));
    }
}

#[test]
fn responses_do_not_depend_on_the_number_of_threads() {
    let (w, x) = (weights(), normals(7, 300 * WIDTH));
    let run = || {
        let mut a = vec![0.0; 300 * EXPERTS];
        let response = Competition::second_version(2).response;
        affinities(shape(), &w.view(), response, &x, &mut a);
        a
    };
    assert_eq!(threads(1, run), threads(3, run));
    let c = normals(6, TOKENS * WIDTH);
    let x = &x[..TOKENS * WIDTH];
    let affinities = || step(Competition::second_version(2), &w, x, &c).affinities;
    assert_eq!(threads(1, affinities), threads(3, affinities));
}

#[test]
fn what_winners_keep_is_what_they_would_compute_again() {
    let tokens = 2 * super::TOKENS + 5;
    let (x, c) = (normals(7, tokens * WIDTH), normals(8, tokens * WIDTH));
    let scores = normals(9, tokens * EXPERTS);
    let gated = Weights {
        gate: Some(normals(10, EXPERTS * WIDTH * 6)),
        ..weights()
    };
    let full = Capacity {
        limit: tokens / EXPERTS,
        drop: Drop::Lightest,
    };
    for (kind, w) in [
        (Hidden::Plain(Activation::Silu), weights()),
        (Hidden::Gated, gated),
    ] {
        let (shape, view) = (Shape { kind, ..shape() }, w.view());
        let rest = |dispatch: &Dispatch, saved: &Saved<f64>, won: &Assignment<f64>| {
            let (mut workspace, mut dx) = (Workspace::default(), vec![0.0; x.len()]);
            let mut gradients = w.clone().map(|w| vec![0.0; w.len()]);
            let upstream = layer::Upstream {
                dy: &c,
                d_outputs: None,
            };
            layer::backward(
                shape,
                &view,
                &x,
                won,
                dispatch,
                saved,
                &mut workspace,
                upstream,
                &mut dx,
                gradients.view_mut(),
            );
            let d_weights = layer::weight_gradients(WIDTH, won, dispatch, saved, &c);
            (d_weights, dx, gradients)
        };
        let (mut saved, mut workspace) = (Saved::default(), Workspace::default());
        for competition in versions() {
            for (scores, capacity) in [(None, None), (Some(&scores[..]), Some(full))] {
                let mut a = vec![f64::NAN; tokens * EXPERTS];
                let won = compete(
                    shape,
                    &view,
                    &competition,
                    scores,
                    &x,
                    &mut a,
                    &mut saved,
                    &mut workspace,
                )
                .unwrap();
                let by: Vec<f64> = match scores {
                    Some(z) => a.iter().zip(z).map(|(a, z)| 0.5 * (a + z)).collect(),
                    None => a,
                };
                assert_eq!(won, competition.winners.forward(&by, EXPERTS).unwrap());
                let dispatch = Dispatch::new(&won, capacity);
                assert_eq!(dispatch.dropped() > 0, capacity.is_some());
                let mut y = vec![f64::NAN; x.len()];
                layer::forward_of_winners(WIDTH, &won, &dispatch, &mut saved, &mut y);
                let kept = rest(&dispatch, &saved, &won);
                let mut again = vec![f64::NAN; x.len()];
                // The same memory: a routed step may follow a competition.
                layer::forward(shape, &view, &x, &won, &dispatch, &mut saved, &mut again);
                let computed = rest(&dispatch, &saved, &won);
                let pairs: [(&[f64], &[f64]); 5] = [
                    (&y, &again),
                    (&kept.0, &computed.0),
                    (&kept.1, &computed.1),
                    (&kept.2.up, &computed.2.up),
                    (&kept.2.down, &computed.2.down),
                ];
                for (kept, computed) in pairs {
                    assert!(distance(kept, computed) < 1e-11);
                }
            }
        }
    }
}
