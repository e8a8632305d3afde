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
        for seed in 0..12 {
            let data = data_from(&model, 300, seed);
            let start = perturbed(&model, &data, seed);
            let fit = fit_from(&model, &data, &start);
            let own = bounds(&model);
            let newton = NewtonOptions::default();
            let polished = polish(&Cpu::new(), &data, &start, &own, newton);
            let behind = polished.log_likelihood - fit.log_likelihood;
            if behind > 1e-6 { println!("{name} {seed}: polish ahead by {behind} {} {}", fit.stop, polished.stop); }
            certified += usize::from(fit.stop.is_converged());
            println!("{name} {seed} {} {}", fit.stop, fit.log_likelihood);
            for k in 0..200 {
                let stream = Stream::named(seed, &name, k, Purpose::Start(1));
                let radius = [1e-4, 1e-3, 1e-2, 3e-2][k as usize % 4];
                let near = nudged(&model, &fit.parameters, radius, &stream);
                let ahead = Cpu::new().log_likelihood(&near, &data) - fit.log_likelihood;
                if ahead > 1e-6 { println!("{name} {seed}: {k} ahead by {ahead} {}", fit.stop); }
            }
        }
        println!("{name}: {certified}");
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
        println!("{name} {stayed}");
    }
}

#[test]
#[ignore]
fn zz_measure() {
    let name = std::env::var("TRUTH").unwrap_or("s10-jump.toml".into());
    let reps: u64 = std::env::var("REPS").unwrap_or("100".into()).parse().unwrap();
    let model = truth(&name);
    for n in std::env::var("SIZES").unwrap_or("200,800,3200,12800".into()).split(',') {
        let n: usize = n.parse().unwrap();
        let mut stops = std::collections::BTreeMap::<String, usize>::new();
        let (mut err, mut passes, mut ppasses, mut cert) = (0.0, 0.0, 0.0, 0.0);
        let (mut tp, mut tf) = (0.0, 0.0);
        let (mut maxpass, mut below) = (0.0f64, 0usize);
        let mut lr = 0.0;
        for seed in 0..reps {
            let data = data_from(&model, n, seed);
            let start = perturbed(&model, &data, seed);
            let t = std::time::Instant::now();
            let old = polish(&Cpu::new(), &data, &start, &bounds(&model), options().newton);
            tp += t.elapsed().as_secs_f64();
            ppasses += old.effort.rows as f64 / n as f64;
            let t = std::time::Instant::now();
            let fit = if std::env::var("PILOT").is_ok() {
                maximise(&Cpu::new(), &data, &start, &bounds(&model), &Options::default())
            } else { fit_from(&model, &data, &start) };
            tf += t.elapsed().as_secs_f64();
            *stops.entry(format!("{} <- {}", fit.stop.name(), old.stop.name())).or_default() += 1;
            if fit.log_likelihood < old.log_likelihood - 1e-9 { below += 1; }
            passes += fit.effort.rows as f64 / n as f64;
            maxpass = maxpass.max(fit.effort.rows as f64 / n as f64);
            let e = &fit.parameters.experts;
            let x = match &e[0].gate {
                smoe_lab::model::ExpertGate::Router { slope, intercept } => -intercept / slope[0],
                _ if name.starts_with("s10") => -(e[0].intercept + e[1].intercept) / (e[0].slope[0] + e[1].slope[0]),
                _ => -(e[0].intercept - e[1].intercept) / (e[0].slope[0] - e[1].slope[0]),
            };
            let xc = if name.starts_with("s10") { -1.0 / 11.0 } else { -0.08 };
            if fit.stop.is_converged() { cert += 1.0; err += (x - xc).abs();
                lr += 2.0 * (fit.log_likelihood - Cpu::new().log_likelihood(&model.parameters, &data)); }
        }
        println!("{name} n={n} cert={:.3} E|err|={:.3e} LR={:.3} passes={:.1} (max {:.0}) polish alone {:.1}; ms {:.2} vs polish {:.2}; below {below}; {stops:?}",
            cert / reps as f64, err / cert, lr / cert, passes / reps as f64, maxpass, ppasses / reps as f64, 1e3 * tf / reps as f64, 1e3 * tp / reps as f64);
    }
}
