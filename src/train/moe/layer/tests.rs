use super::*;
use crate::train::moe::experts::Hidden;
use crate::train::moe::{Capacity, Drop};
use crate::train::ops::activation::{Activation, gated_forward};
use crate::train::ops::check::{assert_gradient, distance, inner, normals, threads};

const TOKENS: usize = 6;

fn shape(kind: Hidden) -> Shape {
    Shape {
        experts: 4,
        width: 3,
        hidden: 5,
        kind,
    }
}

/// Random weights; plain experts have biases, gated ones have none.
fn weights(shape: Shape) -> Weights<Vec<f64>> {
    let matrix = shape.experts * shape.width * shape.hidden;
    let gated = shape.kind == Hidden::Gated;
    Weights {
        up: normals(11, matrix),
        gate: gated.then(|| normals(12, matrix)),
        down: normals(13, matrix),
        up_bias: (!gated).then(|| normals(14, shape.experts * shape.hidden)),
        down_bias: (!gated).then(|| normals(15, shape.experts * shape.width)),
    }
}

fn zeros(weights: &Weights<Vec<f64>>) -> Weights<Vec<f64>> {
    let zeros = |w: &Vec<f64>| vec![0.0; w.len()];
    Weights {
        up: zeros(&weights.up),
        gate: weights.gate.as_ref().map(zeros),
        down: zeros(&weights.down),
        up_bias: weights.up_bias.as_ref().map(zeros),
        down_bias: weights.down_bias.as_ref().map(zeros),
    }
}

/// Tokens with two, one, none or four experts; expert 3 is the busiest.
fn assignment(weights: &[f64]) -> Assignment<f64> {
    let offsets = vec![0, 2, 3, 3, 5, 9, 10];
    let experts = vec![3, 0, 3, 1, 3, 2, 3, 0, 1, 3];
    Assignment::new(offsets, experts, weights.to_vec(), 4).unwrap()
}

/// Every expert on every token, dense weights, loops over the definition.
fn dense(
    shape: Shape,
    weights: &Weights<Vec<f64>>,
    x: &[f64],
    assignment: &Assignment<f64>,
    dispatch: &Dispatch,
) -> Vec<f64> {
    let (d, h) = (shape.width, shape.hidden);
    let mut y = vec![0.0; x.len()];
    for t in 0..x.len() / d {
        for e in 0..shape.experts {
            let into_hidden = |w: &[f64], bias: &Option<Vec<f64>>| -> Vec<f64> {
                let column = |j: usize| -> f64 {
                    let terms = (0..d).map(|i| x[t * d + i] * w[(e * d + i) * h + j]);
                    bias.as_ref().map_or(0.0, |b| b[e * h + j]) + terms.sum::<f64>()
                };
                (0..h).map(column).collect()
            };
            let up = into_hidden(&weights.up, &weights.up_bias);
            let mut hidden = vec![0.0; h];
            match shape.kind {
                Hidden::Plain(activation) => activation.forward(&up, &mut hidden),
                Hidden::Gated => {
                    let gate = into_hidden(weights.gate.as_ref().unwrap(), &None);
                    gated_forward(&gate, &up, &mut hidden);
                }
            }
            let weight: f64 = assignment
                .pairs_of(t)
                .filter(|&p| assignment.experts()[p] as usize == e)
                .filter(|&p| dispatch.slots()[p] != DROPPED)
                .map(|p| assignment.weights()[p])
                .sum();
            for i in 0..d {
                let bias = weights.down_bias.as_ref().map_or(0.0, |b| b[e * d + i]);
                let terms = (0..h).map(|j| hidden[j] * weights.down[(e * h + j) * d + i]);
                y[t * d + i] += weight * (bias + terms.sum::<f64>());
            }
        }
    }
    y
}

fn output(
    shape: Shape,
    weights: &Weights<Vec<f64>>,
    x: &[f64],
    assignment: &Assignment<f64>,
    capacity: Option<Capacity>,
) -> Vec<f64> {
    let dispatch = Dispatch::new(assignment, capacity);
    let mut y = vec![f64::NAN; x.len()];
    let mut saved = Saved::default();
    let view = weights.view();
    shape.check(&view).unwrap();
    forward(shape, &view, x, assignment, &dispatch, &mut saved, &mut y);
    y
}

/// Puts values into one of the arrays of weights.
type Set<'a> = &'a dyn Fn(&mut Weights<Vec<f64>>, Vec<f64>);

fn kinds() -> [Hidden; 4] {
    [
        Hidden::Plain(Activation::Relu),
        Hidden::Plain(Activation::Gelu),
        Hidden::Plain(Activation::Silu),
        Hidden::Gated,
    ]
}

fn capacities() -> [Option<Capacity>; 3] {
    let capacity = |drop| Some(Capacity { limit: 2, drop });
    [None, capacity(Drop::Latest), capacity(Drop::Lightest)]
}

#[test]
fn the_sparse_layer_equals_every_expert_on_every_token_under_a_mask() {
    for kind in kinds() {
        for capacity in capacities() {
            let shape = shape(kind);
            let (x, weights) = (normals(1, TOKENS * 3), weights(shape));
            let assignment = assignment(&normals(2, 10));
            let dispatch = Dispatch::new(&assignment, capacity);
            assert_eq!(dispatch.dropped() > 0, capacity.is_some());
            let expected = dense(shape, &weights, &x, &assignment, &dispatch);
            let y = output(shape, &weights, &x, &assignment, capacity);
            assert!(distance(&y, &expected) < 1e-13);
            assert_eq!(y[6..9], [0.0; 3], "a token without experts has output 0");
        }
    }
}

#[test]
fn all_gradients_of_the_layer_match_finite_differences() {
    for kind in kinds() {
        for capacity in capacities() {
            let shape = shape(kind);
            let (x, w) = (normals(1, TOKENS * 3), weights(shape));
            // Order of weights decides who is dropped: keep them apart.
            let pair_weights: Vec<f64> =
                (0..10).map(|i| 0.1 + 0.3 * f64::from(i * 7 % 10)).collect();
            let (c, c_out) = (normals(3, TOKENS * 3), normals(4, 30));
            let chosen = assignment(&pair_weights);
            let dispatch = Dispatch::new(&chosen, capacity);
            let slots = dispatch.tokens().len();
            let value = |x: &[f64], w: &Weights<Vec<f64>>, pair_weights: &[f64]| {
                let chosen = assignment(pair_weights);
                let (mut y, mut saved) = (vec![0.0; x.len()], Saved::default());
                forward(shape, &w.view(), x, &chosen, &dispatch, &mut saved, &mut y);
                inner(&y, &c) + inner(saved.outputs(), &c_out[..slots * 3])
            };
            let (mut y, mut saved) = (vec![0.0; x.len()], Saved::default());
            let mut workspace = Workspace::default();
            let mut gradients = zeros(&w);
            forward(shape, &w.view(), &x, &chosen, &dispatch, &mut saved, &mut y);
            let d_weights = weight_gradients(3, &chosen, &dispatch, &saved, &c);
            let upstream = Upstream {
                dy: &c,
                d_outputs: Some(&c_out[..slots * 3]),
            };
            let mut dx = vec![f64::NAN; x.len()];
            backward(
                shape,
                &w.view(),
                &x,
                &chosen,
                &dispatch,
                &saved,
                &mut workspace,
                upstream,
                &mut dx,
                gradients.view_mut(),
            );
            assert_gradient("x", &x, &dx, |x| value(x, &w, &pair_weights));
            assert_gradient("pair weights", &pair_weights, &d_weights, |p| {
                value(&x, &w, p)
            });
            let check = |name: &str, at: &[f64], gradient: &[f64], set: Set| {
                assert_gradient(name, at, gradient, |values| {
                    let mut moved = w.clone();
                    set(&mut moved, values.to_vec());
                    value(&x, &moved, &pair_weights)
                });
            };
            check("up", &w.up, &gradients.up, &|w, v| w.up = v);
            check("down", &w.down, &gradients.down, &|w, v| w.down = v);
            if let (Some(at), Some(gradient)) = (&w.gate, &gradients.gate) {
                check("gate", at, gradient, &|w, v| w.gate = Some(v));
            }
            if let (Some(at), Some(gradient)) = (&w.up_bias, &gradients.up_bias) {
                check("up bias", at, gradient, &|w, v| w.up_bias = Some(v));
            }
            if let (Some(at), Some(gradient)) = (&w.down_bias, &gradients.down_bias) {
                check("down bias", at, gradient, &|w, v| w.down_bias = Some(v));
            }
        }
    }
}

#[test]
fn one_expert_with_weight_one_is_a_dense_feed_forward_layer() {
    let shape = Shape {
        experts: 1,
        ..shape(Hidden::Gated)
    };
    let (x, weights) = (normals(1, 300 * 3), weights(shape));
    let assignment = Assignment::uniform(1, vec![0; 300], vec![1.0; 300], 1).unwrap();
    let dispatch = Dispatch::new(&assignment, None);
    let expected = dense(shape, &weights, &x, &assignment, &dispatch);
    assert!(distance(&output(shape, &weights, &x, &assignment, None), &expected) < 1e-12);
}

#[test]
fn the_layer_does_not_depend_on_the_number_of_threads() {
    let shape = Shape {
        experts: 3,
        width: 40,
        hidden: 70,
        kind: Hidden::Plain(Activation::Gelu),
    };
    let tokens = 500;
    let narrow = |v: Vec<f64>| -> Vec<f32> { v.into_iter().map(|x| x as f32).collect() };
    let wide = weights(shape);
    let w = Weights {
        up: narrow(wide.up),
        gate: None,
        down: narrow(wide.down),
        up_bias: wide.up_bias.map(narrow),
        down_bias: wide.down_bias.map(narrow),
    };
    let x = narrow(normals(1, tokens * 40));
    let dy = narrow(normals(2, tokens * 40));
    let experts = (0..tokens as u32).flat_map(|t| [t * t % 3, (t * t + 1) % 3]);
    let chosen =
        Assignment::uniform(2, experts.collect(), narrow(normals(3, 2 * tokens)), 3).unwrap();
    let run = || {
        let dispatch = Dispatch::new(&chosen, None);
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (mut saved, mut workspace) = (Saved::default(), Workspace::default());
        let mut gradients = Weights {
            up: vec![0.0; w.up.len()],
            gate: None,
            down: vec![0.0; w.down.len()],
            up_bias: Some(vec![0.0; 210]),
            down_bias: Some(vec![0.0; 120]),
        };
        forward(shape, &w.view(), &x, &chosen, &dispatch, &mut saved, &mut y);
        let d_weights = weight_gradients(40, &chosen, &dispatch, &saved, &dy);
        let upstream = Upstream {
            dy: &dy,
            d_outputs: None,
        };
        backward(
            shape,
            &w.view(),
            &x,
            &chosen,
            &dispatch,
            &saved,
            &mut workspace,
            upstream,
            &mut dx,
            gradients.view_mut(),
        );
        (y, dx, d_weights, gradients.up, gradients.down_bias)
    };
    assert!(threads(1, run) == threads(4, run));
}

#[test]
fn weights_of_the_wrong_size_are_refused() {
    let shape = shape(Hidden::Gated);
    let mut weights = weights(shape);
    weights.down.pop();
    let message = shape.check(&weights.view()).unwrap_err().to_string();
    assert_eq!(
        message,
        "experts' down weights: expected dimension 60, got 59"
    );
    weights.down.push(0.0);
    weights.gate = None;
    assert!(shape.check(&weights.view()).is_err());
}
