//! Top-K fits: the best place of every selection boundary.

mod common;

use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::fit::{
    Bounds, Centre, Limits, NewtonOptions, Options, Outcome, Start, StartContext, Stop, maximise,
    polish,
};
use smoe_lab::model::{
    Data, ExpertKind, Gate, GateKind, InputLaw, Model, Parameters, Response, Selection,
    VarianceStructure, Weights, draw_sample, read_model,
};
use smoe_lab::rng::{Purpose, Stream};
use std::path::Path;

fn truth(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/truths");
    read_model(&folder.join(name)).unwrap()
}

fn bounds(model: &Model) -> Bounds {
    let limits = Limits {
        coefficient: 20.0,
        bias: 10.0,
        gate_slope: 20.0,
        variance: [1e-3, 50.0],
        zero_slopes: vec![],
        zero_gate_slopes: vec![],
        centre: Centre::Origin,
    };
    limits.bounds(&model.parameters.layout())
}

fn data_from(model: &Model, rows: usize, seed: u64) -> Data {
    let stream = Stream::named(seed, "boundaries", 0, Purpose::Data);
    draw_sample(model, 0, rows, &stream)
}

fn perturbed(model: &Model, data: &Data, seed: u64) -> Parameters {
    let bounds = bounds(model);
    let context = StartContext {
        template: &model.parameters,
        truth: Some(&model.parameters),
        data,
        bounds: &bounds,
    };
    let stream = Stream::named(seed, "boundaries", 0, Purpose::Start(0));
    Start::PerturbedTruth { radius: 0.05 }
        .parameters(context, &stream)
        .unwrap()
}

/// The polish and the search alone.
fn options() -> Options {
    Options {
        max_iterations: 0,
        pilot_rows: None,
        ..Options::default()
    }
}

fn fit_from(model: &Model, data: &Data, start: &Parameters) -> Outcome {
    maximise(&Cpu::new(), data, start, &bounds(model), &options())
}

/// One regression line: rows, residual squares, (X'X)^-1 and its estimate.
struct Regression {
    rows: f64,
    squares: f64,
    inverse: [[f64; 2]; 2],
    estimate: [f64; 2],
}

impl Regression {
    fn of(rows: &[(f64, f64)]) -> Self {
        let sum = |f: &dyn Fn(f64, f64) -> f64| rows.iter().map(|(x, y)| f(*x, *y)).sum::<f64>();
        let (n, sx, sxx) = (rows.len() as f64, sum(&|x, _| x), sum(&|x, _| x * x));
        let (sy, sxy) = (sum(&|_, y| y), sum(&|x, y| x * y));
        let determinant = n * sxx - sx * sx;
        let inverse = [[n, -sx], [-sx, sxx]].map(|row| row.map(|v| v / determinant));
        let estimate = inverse.map(|row| row[0] * sxy + row[1] * sy);
        let [a, b] = estimate;
        Regression {
            rows: n,
            squares: sum(&|x, y| (y - a * x - b).powi(2)),
            inverse,
            estimate,
        }
    }

    fn at(&self, x: f64) -> f64 {
        self.estimate[0] * x + self.estimate[1]
    }

    fn leverage(&self, x: f64) -> f64 {
        let [[aa, ab], [_, bb]] = self.inverse;
        aa * x * x + 2.0 * ab * x + bb
    }
}

/// The log-likelihood of two regressions whose lines sum to zero at `tie`, if
/// that is asked for, over both variances.
fn two_lines(left: &Regression, right: &Regression, tie: Option<f64>) -> f64 {
    let sides = [left, right];
    let mut squares = sides.map(|side| side.squares);
    if let Some(x) = tie {
        let gap = left.at(x) + right.at(x);
        for _ in 0..10_000 {
            let spread = [0, 1].map(|s| squares[s] / sides[s].rows * sides[s].leverage(x));
            let total = spread[0] + spread[1];
            let next = [0, 1].map(|s| {
                let shift = gap * spread[s] / total;
                sides[s].squares + shift * shift / sides[s].leverage(x)
            });
            let still = (0..2).all(|s| (next[s] - squares[s]).abs() < 1e-15 * squares[s]);
            squares = next;
            if still {
                break;
            }
        }
    }
    let density = |s: usize| {
        let variance = squares[s] / sides[s].rows;
        -0.5 * sides[s].rows * ((std::f64::consts::TAU * variance).ln() + 1.0)
    };
    density(0) + density(1)
}

/// The largest log-likelihood of design S10 over all places of the boundary: the
/// dropped expert's mean is minus the kept one's between two observations.
fn best_of_all_places(data: &Data) -> f64 {
    let mut rows: Vec<(f64, f64)> = (0..data.len())
        .map(|i| (data.column(0)[i], data.responses()[i]))
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    (4..rows.len() - 4)
        .map(|k| {
            let (left, right) = (Regression::of(&rows[..k]), Regression::of(&rows[k..]));
            let sum = |x: f64| left.at(x) + right.at(x);
            let (low, high) = (rows[k - 1].0, rows[k].0);
            let tie = if sum(low) > 0.0 {
                Some(low)
            } else if sum(high) < 0.0 {
                Some(high)
            } else {
                None
            };
            two_lines(&left, &right, tie)
        })
        .fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn the_boundary_of_s10_is_at_the_best_of_all_places() {
    let model = truth("s10-jump.toml");
    for n in [200, 400] {
        for seed in 0..25 {
            let data = data_from(&model, n, seed);
            let fit = fit_from(&model, &data, &perturbed(&model, &data, seed));
            assert!(fit.stop.is_converged(), "{n} {seed}: {}", fit.stop);
            let gap = fit.log_likelihood - best_of_all_places(&data);
            assert!(gap.abs() < 1e-6, "{n} {seed}: {gap}");
        }
    }
}

/// Models whose density jumps, beside S10.
fn jumping() -> Vec<(String, Model)> {
    let mut models = vec![("router, 1 of 2".to_string(), truth("s10-router-top1.toml"))];
    let noise = [
        1.5, 0.4, -0.3, 1.8, 0.3, -1.4, 0.6, 0.5, -1.6, 0.2, 0.4, -0.9, 0.1, 0.0, 0.0,
    ];
    let competition = |response| GateKind::Competition {
        response,
        weights: Weights::Softmax,
        kappa: 1.0,
    };
    for (name, kind) in [
        ("router", GateKind::Softmax),
        ("sigmoid router", GateKind::Sigmoid),
        ("absolute", competition(Response::Absolute)),
        ("square", competition(Response::Square)),
        ("softplus", competition(Response::Softplus)),
    ] {
        let gate = Gate {
            kind,
            top_k: Some(2),
            selection: Selection::Score,
        };
        let structure = VarianceStructure::PerExpert;
        let mut parameters = common::mixture(gate, ExpertKind::Linear, 3, 1, structure, &noise);
        for expert in &mut parameters.experts {
            expert.variance *= 0.3;
        }
        let input = InputLaw::Uniform {
            low: vec![-1.0],
            high: vec![1.0],
        };
        models.push((format!("{name}, 2 of 3"), Model { input, parameters }));
    }
    models
}

const SEEDS: u64 = 6;

/// The parameters with normal noise on every packed coordinate.
fn nudged(model: &Model, at: &Parameters, radius: f64, stream: &Stream) -> Parameters {
    let layout = at.layout();
    let mut packed = layout.pack(at);
    for (j, value) in packed.iter_mut().enumerate() {
        *value += radius * stream.standard_normal(j as u64, 0);
    }
    bounds(model).project(&mut packed);
    layout.unpack(at, &packed)
}

#[test]
fn no_parameters_nearby_are_better_and_the_polish_never_is() {
    for (name, model) in jumping() {
        let mut certified = 0;
        for seed in 0..SEEDS {
            let data = data_from(&model, 300, seed);
            let start = perturbed(&model, &data, seed);
            let fit = fit_from(&model, &data, &start);
            let newton = NewtonOptions::default();
            let polished = polish(&Cpu::new(), &data, &start, &bounds(&model), newton);
            let behind = polished.log_likelihood - fit.log_likelihood;
            assert!(behind <= 0.0, "{name} {seed}: the polish by {behind}");
            if !fit.stop.is_converged() {
                continue;
            }
            certified += 1;
            for k in 0..200 {
                let stream = Stream::named(seed, &name, k, Purpose::Start(1));
                let radius = [1e-4, 1e-3, 1e-2][k as usize % 3];
                let near = nudged(&model, &fit.parameters, radius, &stream);
                let behind = Cpu::new().log_likelihood(&near, &data) - fit.log_likelihood;
                assert!(behind < 1e-6, "{name} {seed}: neighbour {k} by {behind}");
            }
        }
        assert!(certified >= SEEDS - 2, "{name}: {certified} certified");
    }
}

/// Where the density is continuous the polish's certified maxima stay as they are,
/// bit for bit, unless a neighbouring cell is better.
#[test]
fn a_smooth_maximum_of_a_continuous_density_stays() {
    for name in ["s11-softplus-top1.toml", "s11-softplus-top2.toml"] {
        let model = truth(name);
        let mut stayed = 0;
        for seed in 0..20 {
            let data = data_from(&model, 500, seed);
            let start = perturbed(&model, &data, seed);
            let newton = NewtonOptions::default();
            let polished = polish(&Cpu::new(), &data, &start, &bounds(&model), newton);
            let fit = fit_from(&model, &data, &start);
            assert!(fit.stop.is_converged(), "{name} {seed}: {}", fit.stop);
            let gain = fit.log_likelihood - polished.log_likelihood;
            assert!(gain > -1e-6, "{name} {seed}: {gain}");
            if polished.stop == Stop::Converged && gain < 1e-7 {
                assert_eq!(fit.parameters, polished.parameters, "{name} {seed}");
                assert_eq!(fit.stop, Stop::Converged);
                stayed += 1;
            }
        }
        assert!(stayed >= 8, "{name}: {stayed}");
    }
}

/// A top-1 router is identified by its boundary alone: its scale stays where the
/// search found it, and the fit is certified nevertheless.
#[test]
fn a_router_that_keeps_one_expert_is_certified() {
    let model = truth("s10-router-top1.toml");
    for seed in 0..20 {
        let data = data_from(&model, 400, 100 + seed);
        let fit = fit_from(&model, &data, &perturbed(&model, &data, seed));
        assert!(fit.stop.is_converged(), "{seed}: {}", fit.stop);
        let truth = Cpu::new().log_likelihood(&model.parameters, &data);
        assert!(fit.log_likelihood > truth, "{seed}");
    }
}
