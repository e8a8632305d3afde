//! Every method's layer through the device's operations: against loops over tokens
//! written from the formulas alone, against finite differences, in single precision
//! and on several threads. And what a balancing bias must achieve.

use crate::rng::{Purpose, Stream};
use crate::train::device::{BalanceTerm, Cpu, Device, Meter, TensorOf};
use crate::train::moe::experts::{Hidden, Shape, Weights};
use crate::train::ops::activation::Activation;
use crate::train::ops::check::{assert_gradient, distance, inner, normals, threads};
use crate::train::ops::real::Real;
use crate::train::router::balance::{Balance, Load, Scope};
use crate::train::router::combine::{Combine, TopK};
use crate::train::router::competition::Competition;
use crate::train::router::cosine::{Cosine, Normalised};
use crate::train::router::distribution::Distribution;
use crate::train::router::diversity::Pairs;
use crate::train::router::response::Response;
use crate::train::router::selection::Groups;

const WIDTH: usize = 4;
const EXPERTS: usize = 6;
const HIDDEN: usize = 5;
/// Width of the cosine's space.
const NARROW: usize = 3;
const AMPLITUDE: f64 = 0.1;
const TEMPERATURE: f64 = 0.3;

/// Where scores come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Linear,
    Jittered,
    Noisy,
    Cosine { theta: f64 },
    Responses(Response),
}

#[derive(Clone, Copy, Debug)]
struct Method {
    source: Source,
    combine: Combine,
    k: usize,
    scale: f64,
    groups: Groups,
    bias: Option<[f64; EXPERTS]>,
}

/// The methods of the configuration.
fn methods() -> Vec<Method> {
    let method = |source, combine, k| Method {
        source,
        combine,
        k,
        scale: 1.0,
        groups: Groups::NONE,
        bias: None,
    };
    let deepseek = Method {
        scale: 2.5,
        groups: Groups { count: 3, kept: 2 },
        bias: Some([0.3, -0.2, 0.0, 0.25, -0.1, 0.15]),
        ..method(Source::Linear, Combine::SigmoidTopKRenormalised, 2)
    };
    let norm = Source::Responses(Response::Norm);
    let softplus = Source::Responses(Response::SoftplusMean);
    vec![
        method(Source::Linear, Combine::TopKSoftmax, 2),
        method(Source::Linear, Combine::SoftmaxTopKRenormalised, 3),
        method(Source::Jittered, Combine::SoftmaxTopK, 1),
        method(Source::Noisy, Combine::TopKSoftmax, 2),
        method(
            Source::Cosine { theta: 0.0 },
            Combine::SoftmaxTopKSoftmax,
            2,
        ),
        method(
            Source::Cosine { theta: 0.1 },
            Combine::SoftmaxTopKSoftmax,
            2,
        ),
        method(Source::Linear, Combine::SigmoidTopKRenormalised, 2),
        deepseek,
        method(Source::Linear, Combine::Unified, 2),
        method(norm, Combine::TopKSoftmax, 2),
        method(softplus, Combine::LinearTopKRenormalised, 2),
        method(softplus, Combine::LinearTopKRenormalised, EXPERTS),
    ]
}

/// x, the router's matrix, noise's matrix or embeddings, up, down, down bias.
type Parameters<T> = [Vec<T>; 6];

impl Method {
    fn rule(&self) -> TopK {
        TopK {
            k: self.k,
            combine: self.combine,
            scale: self.scale,
        }
    }

    fn columns(&self) -> [usize; 6] {
        let cosine = matches!(self.source, Source::Cosine { .. });
        let scores = if cosine { NARROW } else { EXPERTS };
        [WIDTH, scores, scores, HIDDEN, WIDTH, WIDTH]
    }

    fn parameters(&self, tokens: usize) -> Parameters<f64> {
        let [_, scores, ..] = self.columns();
        let second = if scores == NARROW { EXPERTS } else { WIDTH };
        let rows = [
            tokens,
            WIDTH,
            second,
            EXPERTS * WIDTH,
            EXPERTS * HIDDEN,
            EXPERTS,
        ];
        let columns = self.columns();
        std::array::from_fn(|i| normals(i as u64 + 1, rows[i] * columns[i]))
    }
}

const SHAPE: Shape = Shape {
    experts: EXPERTS,
    width: WIDTH,
    hidden: HIDDEN,
    kind: Hidden::Plain(Activation::Silu),
};

fn stream(purpose: Purpose) -> Stream {
    Stream::named(5, "acceptance", 0, purpose)
}

fn cosine(theta: f64) -> Cosine {
    Cosine {
        normalised: Normalised::Both,
        theta,
        width: NARROW,
    }
}

/// y, and the gradients of c . y + balance + z-loss (+ diversity where responses
/// decide), and that value.
fn run<T: Real>(method: &Method, p: &Parameters<T>, c: &[T]) -> (Vec<T>, Parameters<T>, f64) {
    let d = Cpu::<T>::new();
    let columns = method.columns();
    let tensors: [TensorOf<Cpu<T>>; 6] =
        std::array::from_fn(|i| d.upload(&p[i], columns[i]).unwrap());
    let [x, router, second, up, down, down_bias] = &tensors;
    let like = |t: &TensorOf<Cpu<T>>| d.zeros(t.rows(), t.columns()).unwrap();
    let tokens = x.rows();
    let table = || d.zeros(tokens, EXPERTS).unwrap();
    let weights = Weights {
        up,
        gate: None,
        down,
        up_bias: None,
        down_bias: Some(down_bias),
    };
    let (mut input, mut scores, mut noise) = (like(x), table(), table());
    d.copy(x, &mut input).unwrap();
    let mut u = d.zeros(tokens, NARROW).unwrap();
    let mut competition = Competition::second_version(method.k);
    competition.winners = method.rule();
    match method.source {
        Source::Linear => d.linear(&input, router, None, &mut scores).unwrap(),
        Source::Jittered => {
            let stream = stream(Purpose::Jitter);
            d.jitter(&stream, AMPLITUDE, 0, &mut input).unwrap();
            d.linear(&input, router, None, &mut scores).unwrap();
        }
        Source::Noisy => {
            d.linear(&input, router, None, &mut scores).unwrap();
            d.linear(&input, second, None, &mut noise).unwrap();
            let stream = stream(Purpose::Noise);
            d.noisy(&stream, 0, &noise, &mut scores).unwrap();
        }
        Source::Cosine { theta } => {
            d.linear(&input, router, None, &mut u).unwrap();
            d.cosine(&cosine(theta), TEMPERATURE, &u, second, &mut scores)
                .unwrap();
        }
        Source::Responses(response) => {
            competition.response = response;
            d.affinities(SHAPE, &weights, &competition, x, &mut scores)
                .unwrap();
        }
    }
    let bias = method.bias.map(|bias| {
        let bias: Vec<T> = bias.iter().map(|&b| T::of(b)).collect();
        d.upload(&bias, EXPERTS).unwrap()
    });
    let rule = method.rule();
    let chosen = d.choose(&rule, method.groups, bias.as_ref(), &scores);
    let chosen = chosen.unwrap();
    let dispatch = d.dispatch(&chosen, None).unwrap();
    let (mut saved, mut y) = (Default::default(), like(x));
    d.experts(SHAPE, &weights, x, &chosen, &dispatch, &mut saved, &mut y)
        .unwrap();

    let mut meters = d.meters(3).unwrap();
    let mut d_scores = table();
    let term = BalanceTerm {
        balance: Balance::Switch,
        scope: Scope::Sequence { length: 4 },
        distribution: Distribution::Softmax,
        coefficient: 0.1,
    };
    let meter = Meter::new(&mut meters, 0);
    d.balance(&term, &scores, &chosen, None, None, &mut d_scores, meter)
        .unwrap();
    let meter = Meter::new(&mut meters, 1);
    d.z_loss(0.01, &scores, None, &mut d_scores, meter).unwrap();
    let dy = d.upload(c, WIDTH).unwrap();
    let d_weights = d.weight_gradients(&chosen, &dispatch, &saved, &dy).unwrap();
    d.choose_backward(&rule, &scores, &chosen, &d_weights, &mut d_scores)
        .unwrap();
    let responses = matches!(method.source, Source::Responses(_));
    let d_outputs = responses.then(|| {
        let diversity = Some((Pairs::WithDiagonal, 0.2));
        let meter = Meter::new(&mut meters, 2);
        d.output_gradients(
            &competition,
            &d_scores,
            &chosen,
            &dispatch,
            &saved,
            diversity,
            None,
            meter,
        )
        .unwrap()
    });
    let mut g: [TensorOf<Cpu<T>>; 6] = std::array::from_fn(|i| like(&tensors[i]));
    let [dx, d_router, d_second, d_up, d_down, d_down_bias] = &mut g;
    let gradients = Weights {
        up: &mut *d_up,
        gate: None,
        down: &mut *d_down,
        up_bias: None,
        down_bias: Some(&mut *d_down_bias),
    };
    let mut workspace = Default::default();
    d.experts_backward(
        SHAPE,
        &weights,
        x,
        &chosen,
        &dispatch,
        &saved,
        &mut workspace,
        &dy,
        d_outputs.as_ref(),
        dx,
        gradients,
    )
    .unwrap();
    let mut part = like(x);
    match method.source {
        Source::Responses(_) => {
            let gradients = Weights {
                up: d_up,
                gate: None,
                down: d_down,
                up_bias: None,
                down_bias: Some(d_down_bias),
            };
            let d_affinities = &d_scores;
            d.losers_backward(
                SHAPE,
                &weights,
                &competition,
                x,
                &chosen,
                d_affinities,
                dx,
                gradients,
            )
            .unwrap();
        }
        Source::Cosine { theta } => {
            let mut du = like(&u);
            let cosine = cosine(theta);
            d.cosine_backward(
                &cosine,
                TEMPERATURE,
                &u,
                second,
                &scores,
                &d_scores,
                &mut du,
                d_second,
            )
            .unwrap();
            let gradients = Some((d_router, None));
            d.linear_backward(&input, router, &du, Some(&mut part), gradients)
                .unwrap();
            d.add(&part, dx).unwrap();
        }
        Source::Linear | Source::Jittered | Source::Noisy => {
            let gradients = Some((d_router, None));
            d.linear_backward(&input, router, &d_scores, Some(&mut part), gradients)
                .unwrap();
            if method.source == Source::Jittered {
                let stream = stream(Purpose::Jitter);
                d.jitter(&stream, AMPLITUDE, 0, &mut part).unwrap();
            }
            d.add(&part, dx).unwrap();
            if method.source == Source::Noisy {
                let mut d_noise = table();
                let stream = stream(Purpose::Noise);
                d.noisy_backward(&stream, 0, &noise, &d_scores, &mut d_noise)
                    .unwrap();
                let gradients = Some((d_second, None));
                d.linear_backward(&input, second, &d_noise, Some(&mut part), gradients)
                    .unwrap();
                d.add(&part, dx).unwrap();
            }
        }
    }
    let y = d.download(&y).unwrap();
    let products = y.iter().zip(c).map(|(y, c)| y.wide() * c.wide());
    let value = products.sum::<f64>() + d.read(&mut meters).unwrap().iter().sum::<f64>();
    (y, g.map(|g| d.download(&g).unwrap()), value)
}

/// v^T W of a matrix with this many columns.
fn times(v: &[f64], matrix: &[f64], columns: usize) -> Vec<f64> {
    let entry = |j: usize| -> f64 {
        let terms = v.iter().enumerate();
        terms.map(|(i, v)| v * matrix[i * columns + j]).sum()
    };
    (0..columns).map(entry).collect()
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let total: f64 = z.iter().map(|z| z.exp()).sum();
    z.iter().map(|z| z.exp() / total).collect()
}

/// E_e(x) from its formula.
fn expert(p: &Parameters<f64>, e: usize, x: &[f64]) -> Vec<f64> {
    let [_, _, _, up, down, down_bias] = p;
    let matrix = WIDTH * HIDDEN;
    let hidden: Vec<f64> = times(x, &up[e * matrix..][..matrix], HIDDEN)
        .iter()
        .map(|a| a * sigmoid(*a))
        .collect();
    let mut out = times(&hidden, &down[e * matrix..][..matrix], WIDTH);
    for (out, b) in out.iter_mut().zip(&down_bias[e * WIDTH..]) {
        *out += b;
    }
    out
}

/// Scores of token `t` from their formula.
fn reference_scores(method: &Method, p: &Parameters<f64>, t: usize) -> Vec<f64> {
    let [x, router, second, ..] = p;
    let x = &x[t * WIDTH..][..WIDTH];
    let [_, columns, ..] = method.columns();
    match method.source {
        Source::Linear => times(x, router, columns),
        Source::Jittered => {
            let factor = |i: usize| {
                let pair = stream(Purpose::Jitter).uniform_pair(t as u64, i as u64 / 2);
                1.0 + AMPLITUDE * (2.0 * pair[i % 2] - 1.0)
            };
            let moved: Vec<f64> = (0..WIDTH).map(|i| x[i] * factor(i)).collect();
            times(&moved, router, columns)
        }
        Source::Noisy => {
            let (z, n) = (times(x, router, columns), times(x, second, columns));
            let normal = |e: usize| stream(Purpose::Noise).standard_normal(t as u64, e as u64);
            let noisy = |e: usize| z[e] + normal(e) * (1.0 + n[e].exp()).ln();
            (0..EXPERTS).map(noisy).collect()
        }
        Source::Cosine { theta } => {
            let u = times(x, router, columns);
            let length = |a: &[f64]| inner(a, a).sqrt() + theta;
            let cosine = |v: &[f64]| inner(&u, v) / (length(&u) * length(v));
            let embeddings = second.chunks(NARROW);
            embeddings.map(|v| cosine(v) / TEMPERATURE).collect()
        }
        Source::Responses(response) => (0..EXPERTS)
            .map(|e| {
                let out = expert(p, e, x);
                match response {
                    Response::Norm => inner(&out, &out).sqrt(),
                    Response::SoftplusMean => {
                        let terms = out.iter().map(|o| (1.0 + o.exp()).ln());
                        terms.sum::<f64>() / WIDTH as f64
                    }
                    other => panic!("{other:?} has no reference"),
                }
            })
            .collect(),
    }
}

/// Experts of a token, best first, with their weights.
fn reference_choice(method: &Method, z: &[f64]) -> Vec<(usize, f64)> {
    let s: Vec<f64> = z.iter().map(|&z| sigmoid(z)).collect();
    let p = softmax(z);
    let unified = |e: usize| 0.5 * p[e] + 0.5 * s[e] * 2.0 / EXPERTS as f64;
    let rank = |e: usize| {
        let score = match method.combine {
            Combine::SigmoidTopKRenormalised => s[e],
            Combine::Unified => unified(e),
            _ => z[e],
        };
        score + method.bias.map_or(0.0, |b| b[e])
    };
    let best = |candidates: Vec<usize>, k: usize, rank: &dyn Fn(usize) -> f64| -> Vec<usize> {
        let mut candidates = candidates;
        candidates.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
        candidates.truncate(k);
        candidates
    };
    let size = EXPERTS / method.groups.count;
    let members = |g: usize| (g * size..(g + 1) * size).collect::<Vec<_>>();
    let sum = |g: usize| -> f64 { best(members(g), 2, &rank).into_iter().map(rank).sum() };
    let groups = best((0..method.groups.count).collect(), method.groups.kept, &sum);
    let open = groups.into_iter().flat_map(members).collect();
    let chosen = best(open, method.k, &rank);
    let total = |f: &dyn Fn(usize) -> f64| chosen.iter().map(|&e| f(e)).sum::<f64>();
    let weight = |e: usize| match method.combine {
        Combine::SoftmaxTopK => p[e],
        Combine::SoftmaxTopKRenormalised => p[e] / total(&|e| p[e]),
        Combine::TopKSoftmax => z[e].exp() / total(&|e| z[e].exp()),
        Combine::SoftmaxTopKSoftmax => p[e].exp() / total(&|e| p[e].exp()),
        Combine::SigmoidTopKRenormalised => s[e] / total(&|e| s[e]),
        Combine::LinearTopKRenormalised => z[e] / total(&|e| z[e]),
        Combine::Unified => unified(e),
    };
    let weighted = chosen.iter().map(|&e| (e, method.scale * weight(e)));
    weighted.collect()
}

fn reference(method: &Method, p: &Parameters<f64>) -> Vec<f64> {
    let token = |t: usize| {
        let mut y = vec![0.0; WIDTH];
        let x = &p[0][t * WIDTH..][..WIDTH];
        for (e, weight) in reference_choice(method, &reference_scores(method, p, t)) {
            for (y, out) in y.iter_mut().zip(expert(p, e, x)) {
                *y += weight * out;
            }
        }
        y
    };
    (0..p[0].len() / WIDTH).flat_map(token).collect()
}

#[test]
fn every_methods_layer_equals_loops_over_tokens() {
    for method in methods() {
        for k in [
            1,
            method.k,
            EXPERTS / method.groups.count * method.groups.kept,
        ] {
            let method = Method { k, ..method };
            let p = method.parameters(11);
            let (y, _, _) = run(&method, &p, &vec![0.0; 11 * WIDTH]);
            let error = distance(&y, &reference(&method, &p));
            assert!(error < 1e-12, "{method:?}: {error:e}");
        }
    }
}

#[test]
fn all_gradients_of_every_methods_layer_and_losses_match_finite_differences() {
    for method in methods() {
        let (p, c) = (method.parameters(6), normals(9, 6 * WIDTH));
        let (_, gradients, _) = run(&method, &p, &c);
        for (i, gradient) in gradients.iter().enumerate() {
            let name = format!("{method:?} parameter {i}");
            assert_gradient(&name, &p[i], gradient, |at| {
                let mut moved = p.clone();
                moved[i] = at.to_vec();
                run(&method, &moved, &c).2
            });
        }
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

#[test]
fn single_precision_agrees_with_double_to_five_digits() {
    for method in methods() {
        let (p, c) = (method.parameters(11), normals(9, 11 * WIDTH));
        let (y, gradients, value) = run(&method, &p, &c);
        let p32: Parameters<f32> = std::array::from_fn(|i| narrow(&p[i]));
        let (y32, gradients32, value32) = run(&method, &p32, &narrow(&c));
        let pairs = gradients.iter().zip(&gradients32);
        for (wide, single) in pairs.chain([(&y, &y32)]) {
            let largest = wide.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
            let single: Vec<f64> = single.iter().map(|&g| f64::from(g)).collect();
            let error = distance(wide, &single);
            assert!(
                error <= 3e-5 * largest,
                "{method:?}: {error:e} of {largest}"
            );
        }
        assert!((value - value32).abs() < 1e-5 * (1.0 + value.abs()));
    }
}

#[test]
fn every_method_gives_the_same_bits_on_one_two_and_three_threads() {
    // Blocks of rows hold 2730 tokens: three blocks and a rest.
    let tokens = 9_000;
    for method in methods() {
        let p = method.parameters(tokens).map(|p| narrow(&p));
        let c = narrow(&normals(9, tokens * WIDTH));
        let one = threads(1, || run(&method, &p, &c));
        for count in [2, 3] {
            assert!(one == threads(count, || run(&method, &p, &c)), "{method:?}");
        }
    }
}

#[test]
fn with_all_experts_softmax_rules_are_the_dense_mixture() {
    for combine in [
        Combine::SoftmaxTopK,
        Combine::SoftmaxTopKRenormalised,
        Combine::TopKSoftmax,
    ] {
        let method = Method {
            combine,
            k: EXPERTS,
            ..methods()[0]
        };
        let p = method.parameters(7);
        let (y, _, _) = run(&method, &p, &[0.0; 7 * WIDTH]);
        for t in 0..7 {
            let x = &p[0][t * WIDTH..][..WIDTH];
            let shares = softmax(&times(x, &p[1], EXPERTS));
            let mut dense = vec![0.0; WIDTH];
            for (e, share) in shares.iter().enumerate() {
                for (y, out) in dense.iter_mut().zip(expert(&p, e, x)) {
                    *y += share * out;
                }
            }
            assert!(distance(&y[t * WIDTH..][..WIDTH], &dense) < 1e-13);
        }
    }
}

#[test]
fn one_expert_is_a_dense_feed_forward_layer_whatever_the_rule() {
    let d = Cpu::<f64>::new();
    let shape = Shape {
        experts: 1,
        ..SHAPE
    };
    let up = d.upload(&normals(1, WIDTH * HIDDEN), HIDDEN).unwrap();
    let down = d.upload(&normals(2, WIDTH * HIDDEN), WIDTH).unwrap();
    let weights = Weights {
        up: &up,
        gate: None,
        down: &down,
        up_bias: None,
        down_bias: None,
    };
    let x = d.upload(&normals(3, 7 * WIDTH), WIDTH).unwrap();
    let layer = |assignment| {
        let dispatch = d.dispatch(&assignment, None).unwrap();
        let (mut saved, mut y) = (Default::default(), d.zeros(7, WIDTH).unwrap());
        d.experts(
            shape,
            &weights,
            &x,
            &assignment,
            &dispatch,
            &mut saved,
            &mut y,
        )
        .unwrap();
        d.download(&y).unwrap()
    };
    let dense = layer(d.everyone(7, 1).unwrap());
    let mut zeros = vec![0.0; 6 * WIDTH * HIDDEN];
    zeros[..WIDTH * HIDDEN].copy_from_slice(&normals(1, WIDTH * HIDDEN));
    let mut zeros_down = vec![0.0; 6 * WIDTH * HIDDEN];
    zeros_down[..WIDTH * HIDDEN].copy_from_slice(&normals(2, WIDTH * HIDDEN));
    let none = vec![0.0; EXPERTS * WIDTH];
    let p = [
        normals(3, 7 * WIDTH),
        vec![],
        vec![],
        zeros,
        zeros_down,
        none,
    ];
    let formula: Vec<f64> = p[0].chunks(WIDTH).flat_map(|x| expert(&p, 0, x)).collect();
    assert!(distance(&dense, &formula) < 1e-13);
    let scores: Vec<f64> = normals(4, 7).iter().map(|z| z.abs() + 0.1).collect();
    let scores = d.upload(&scores, 1).unwrap();
    for combine in [
        Combine::SoftmaxTopK,
        Combine::SoftmaxTopKRenormalised,
        Combine::TopKSoftmax,
        Combine::SoftmaxTopKSoftmax,
        Combine::SigmoidTopKRenormalised,
        Combine::LinearTopKRenormalised,
    ] {
        let rule = TopK {
            k: 1,
            combine,
            scale: 1.0,
        };
        let chosen = d.choose(&rule, Groups::NONE, None, &scores).unwrap();
        assert_eq!(layer(chosen), dense, "{combine:?}");
    }
}

#[test]
fn shared_experts_add_up() {
    let method = methods()[0];
    let p = method.parameters(5);
    let d = Cpu::<f64>::new();
    let tensor = |i: usize| d.upload(&p[i], method.columns()[i]).unwrap();
    let (x, up, down, down_bias) = (tensor(0), tensor(3), tensor(4), tensor(5));
    let weights = Weights {
        up: &up,
        gate: None,
        down: &down,
        up_bias: None,
        down_bias: Some(&down_bias),
    };
    let everyone = d.everyone(5, EXPERTS).unwrap();
    let dispatch = d.dispatch(&everyone, None).unwrap();
    let (mut saved, mut y) = (Default::default(), d.zeros(5, WIDTH).unwrap());
    d.experts(
        SHAPE, &weights, &x, &everyone, &dispatch, &mut saved, &mut y,
    )
    .unwrap();
    let sum = |x: &[f64]| -> Vec<f64> {
        let outputs: Vec<_> = (0..EXPERTS).map(|e| expert(&p, e, x)).collect();
        let channel = |c: usize| outputs.iter().map(|o| o[c]).sum();
        (0..WIDTH).map(channel).collect()
    };
    let expected: Vec<f64> = p[0].chunks(WIDTH).flat_map(sum).collect();
    assert!(distance(&d.download(&y).unwrap(), &expected) < 1e-13);
}

#[test]
fn deepseeks_bias_moves_a_skewed_router_to_balance() {
    let (tokens, experts, k) = (512, 8, 2);
    let d = Cpu::<f64>::new();
    let skewed = normals(1, tokens * experts);
    let skewed: Vec<f64> = (0..tokens * experts)
        .map(|i| skewed[i] + 0.5 * (i % experts) as f64)
        .collect();
    let scores = d.upload(&skewed, experts).unwrap();
    let rule = TopK {
        k,
        combine: Combine::SigmoidTopKRenormalised,
        scale: 2.5,
    };
    let mut bias = d.zeros(1, experts).unwrap();
    // The busiest expert's load over the mean.
    let step = |bias: &mut TensorOf<Cpu<f64>>| {
        let chosen = d.choose(&rule, Groups::NONE, Some(bias), &scores).unwrap();
        let mut load = Load::default();
        d.count(&chosen, None, &mut load).unwrap();
        d.move_bias(&load, 0.001, bias).unwrap();
        let busiest = *d.load(&load).unwrap().all.iter().max().unwrap();
        busiest as f64 * experts as f64 / (tokens * k) as f64
    };
    let before = step(&mut bias);
    let mut after = before;
    for _ in 0..1500 {
        after = step(&mut bias);
    }
    assert!(before > 2.5 && after < 1.1, "{before} {after}");
    // Weights are those of the scores: they sum to the scale, bias or not.
    let chosen = d.choose(&rule, Groups::NONE, Some(&bias), &scores).unwrap();
    for t in 0..tokens {
        let pairs = chosen.pairs_of(t);
        let [a, b] = [pairs.start, pairs.start + 1];
        let s = |pair: usize| sigmoid(skewed[t * experts + chosen.experts()[pair] as usize]);
        let expected = 2.5 * s(a) / (s(a) + s(b));
        assert!((chosen.weights()[a] - expected).abs() < 1e-12);
    }
}
