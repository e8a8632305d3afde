//! The published estimator: its M-step, its rules, its starts, and where it stops.

mod common;

use common::dense;
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::fit::{
    Assignment, Bounds, Centre, CopyWeight, EmOptions, GainMeasure, GateStep, Limits,
    NewtonOptions, Options, Outcome, Polish, PublishedStart, ShrinkingNoise, Start, StartContext,
    StartingVariance, Stop, expectation_maximisation, maximise,
};
use smoe_lab::model::{
    Data, Expert, ExpertGate, ExpertKind, GateKind, InputLaw, Model, Parameters, Point,
    VarianceStructure, draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};

/// Design D: two experts behind a steep softmax router (arXiv 2305.03288).
fn design_d() -> Model {
    let expert = |slope: f64, intercept: f64, deviation: f64, gate: [f64; 2]| Expert {
        kind: ExpertKind::Linear,
        slope: vec![slope],
        intercept,
        scale: None,
        variance: deviation * deviation,
        gate: ExpertGate::Router {
            slope: vec![gate[0]],
            intercept: gate[1],
        },
    };
    Model {
        input: InputLaw::Uniform {
            low: vec![0.0],
            high: vec![1.0],
        },
        parameters: Parameters {
            gate: dense(GateKind::Softmax),
            variance_structure: VarianceStructure::PerExpert,
            experts: vec![
                expert(-20.0, 15.0, 0.3, [25.0, -8.0]),
                expert(20.0, -5.0, 0.4, [0.0, 0.0]),
            ],
        },
    }
}

fn bounds(parameters: &Parameters) -> Bounds {
    let limits = Limits {
        coefficient: 60.0,
        bias: 60.0,
        gate_slope: 120.0,
        variance: [1e-3, 10.0],
        zero_slopes: vec![],
        zero_gate_slopes: vec![],
        centre: Centre::Origin,
    };
    limits.bounds(&parameters.layout())
}

fn sample(model: &Model, n: usize, seed: u64) -> Data {
    draw_sample(
        model,
        0,
        n,
        &Stream::named(seed, "published", 0, Purpose::Data),
    )
}

/// A published start of the fit with the first expert doubled.
fn started(start: PublishedStart, template: &Parameters, data: &Data, seed: u64) -> Parameters {
    let bounds = bounds(template);
    let context = StartContext {
        template,
        truth: Some(template),
        data,
        bounds: &bounds,
    };
    let stream = Stream::named(seed, "published", 0, Purpose::Start(0));
    Start::Published(start)
        .parameters(context, &stream)
        .unwrap()
}

/// The two experts that are copies of one: nearest slopes.
fn copies(parameters: &Parameters) -> (usize, usize) {
    let experts = &parameters.experts;
    let pairs = [(0, 1), (0, 2), (1, 2)];
    let gap = |&(i, j): &(usize, usize)| (experts[i].slope[0] - experts[j].slope[0]).abs();
    pairs
        .into_iter()
        .min_by(|a, b| gap(a).total_cmp(&gap(b)))
        .unwrap()
}

fn gap(parameters: &Parameters, of: fn(&Expert) -> f64) -> f64 {
    let (i, j) = copies(parameters);
    (of(&parameters.experts[i]) - of(&parameters.experts[j])).abs()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Design D, k = 3, n = 10^4, twelve samples.
fn published_fits(start: PublishedStart) -> Vec<(Parameters, Outcome, Outcome)> {
    let truth = design_d();
    let template = truth.parameters.split(&[2, 1]).unwrap();
    let bounds = bounds(&template);
    let published = Options::published(GainMeasure::Relative);
    let polished = Options {
        polish: Polish::Newton(NewtonOptions::default()),
        ..published
    };
    let backend = Cpu::new();
    (0..12)
        .map(|seed| {
            let data = sample(&truth, 10_000, seed);
            let start = started(start, &template, &data, seed);
            let fit = |options| maximise(&backend, &data, &start, &bounds, &options);
            let (stopped, finished) = (fit(published), fit(polished));
            (start, stopped, finished)
        })
        .collect()
}

/// The first kind of noise, from the truth itself: the rule stops at the start.
/// Fixed seeds: no chance is left.
#[test]
fn the_relative_rule_stops_at_its_start_while_likelihood_is_left() {
    let near = PublishedStart {
        starting_variance: StartingVariance::Variance,
        copy_weight: CopyWeight::Shared,
        expert_noise: ShrinkingNoise {
            scale: 0.005,
            exponent: 0.083,
        },
        ..PublishedStart::default()
    };
    for (start, stopped, finished) in published_fits(near) {
        assert_eq!(stopped.stop, Stop::SmallGain);
        assert!(stopped.effort.em <= 3, "{}", stopped.effort.em);
        let [before, after, end] =
            [&start, &stopped.parameters, &finished.parameters].map(|p| gap(p, |e| e.intercept));
        assert!((after - before).abs() < 1.2e-3, "{before} to {after}");
        assert!(after < 0.007, "{after}");
        assert!(finished.stop.is_converged(), "{}", finished.stop);
        assert!(finished.log_likelihood > stopped.log_likelihood + 0.7);
        let slope = gap(&finished.parameters, |e| e.slope[0]);
        assert!(end.max(slope) > 0.05, "{end} {slope}");
    }
}

/// With the package's own start, whose variances are standard deviations and whose
/// copies weigh double, most fits still stop after three or four iterations.
#[test]
fn the_package_start_stops_early_too() {
    let fits = published_fits(PublishedStart::default());
    let medians = [
        median(fits.iter().map(|f| f.1.effort.em as f64).collect()),
        median(
            fits.iter()
                .map(|f| gap(&f.1.parameters, |e| e.intercept))
                .collect(),
        ),
        median(
            fits.iter()
                .map(|f| gap(&f.2.parameters, |e| e.intercept))
                .collect(),
        ),
    ];
    let [iterations, stopped, finished] = medians;
    assert!(
        iterations <= 4.0 && stopped < 0.02 && finished > 0.2,
        "{medians:?}"
    );
    for (_, stopped, finished) in fits {
        assert!(finished.log_likelihood > stopped.log_likelihood + 0.7);
    }
}

/// sum over rows of (r(before) - w(after)) (x, 1), the gate's M-step equation.
fn gate_equation(before: &Parameters, after: &Parameters, data: &Data) -> f64 {
    let (mut old, mut new) = (Point::new(before), Point::new(after));
    let mut sums = vec![[0.0; 2]; before.experts.len() - 1];
    let mut x = [0.0];
    for n in 0..data.len() {
        let y = data.read_row(n, &mut x);
        old.observe(before, &x, y);
        new.observe(after, &x, y);
        for (i, sum) in sums.iter_mut().enumerate() {
            let surplus = old.atoms[i].responsibility - new.atoms[i].weight;
            sum[0] += surplus * x[0];
            sum[1] += surplus;
        }
    }
    sums.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()))
}

#[test]
fn the_gate_goes_to_its_maximum_or_one_step_towards_it() {
    let truth = design_d();
    let template = truth.parameters.split(&[2, 1]).unwrap();
    let data = sample(&truth, 2000, 3);
    let start = started(PublishedStart::default(), &template, &data, 3);
    let one = |gate_step| {
        let options = EmOptions {
            max_iterations: 1,
            gain: 0.0,
            gain_measure: GainMeasure::Total,
            gate_step,
        };
        expectation_maximisation(&Cpu::new(), &data, &start, &bounds(&template), options)
    };
    let [step, maximum] = [GateStep::OneStep, GateStep::ToMaximum]
        .map(|s| gate_equation(&start, &one(s).parameters, &data));
    assert!(maximum < 1e-3, "{maximum}");
    assert!(step > 10.0 * maximum, "{step} {maximum}");
}

#[test]
fn each_rule_stops_at_its_first_small_gain() {
    let truth = design_d();
    let template = truth.parameters.split(&[2, 1]).unwrap();
    let data = sample(&truth, 1000, 4);
    let start = started(PublishedStart::default(), &template, &data, 4);
    let backend = Cpu::new();
    let run = |gain_measure, gain, max_iterations| {
        let options = EmOptions {
            max_iterations,
            gain,
            gain_measure,
            gate_step: GateStep::ToMaximum,
        };
        expectation_maximisation(&backend, &data, &start, &bounds(&template), options)
    };
    let value = |iterations| match iterations {
        0 => backend.log_likelihood(&start, &data),
        k => run(GainMeasure::Total, 0.0, k).log_likelihood,
    };
    let rules = [
        (GainMeasure::Total, 1.0),
        (GainMeasure::Relative, 1e-3),
        (GainMeasure::Mean, 1e-3),
    ];
    for (measure, small) in rules {
        let unit = |before: f64| match measure {
            GainMeasure::Total => 1.0,
            GainMeasure::Relative => before.abs(),
            GainMeasure::Mean => 1000.0,
        };
        let outcome = run(measure, small, 200);
        assert_eq!(outcome.stop, Stop::SmallGain);
        for k in 1..=outcome.effort.em {
            let gain = (value(k) - value(k - 1)) / unit(value(k - 1));
            assert_eq!(gain < small, k == outcome.effort.em, "{measure:?} {k}");
        }
    }
}

#[test]
fn a_published_start_is_an_error_where_the_box_would_move_it() {
    let truth = design_d();
    let template = truth.parameters.split(&[2, 1]).unwrap();
    let data = sample(&truth, 100, 5);
    let mut bounds = bounds(&template);
    bounds.high[0] = -21.0;
    let context = StartContext {
        template: &template,
        truth: Some(&truth.parameters),
        data: &data,
        bounds: &bounds,
    };
    let stream = Stream::named(5, "published", 0, Purpose::Start(0));
    let start = Start::Published(PublishedStart::default());
    let message = start.parameters(context, &stream).unwrap_err().to_string();
    assert!(message.contains("slope[0][0]"), "{message}");
    let split = PublishedStart {
        assignment: Assignment::Template,
        ..PublishedStart::default()
    };
    assert!(
        Start::Published(split)
            .parameters(context, &stream)
            .is_err()
    );
}

#[test]
fn a_published_start_is_read_from_its_kind_alone_and_keeps_its_numbers() {
    #[derive(serde::Deserialize)]
    struct File {
        starts: Vec<Start>,
    }
    let text = r#"starts = [
        { kind = "published" },
        { kind = "published", assignment = "template", expert_noise = { scale = 0.1, exponent = 0.25 } },
    ]"#;
    let file: File = toml::from_str(text).unwrap();
    assert_eq!(file.starts[0], Start::Published(PublishedStart::default()));
    let Start::Published(second) = &file.starts[1] else {
        panic!("another kind");
    };
    assert_eq!(second.assignment, Assignment::Template);
    assert_eq!(second.expert_noise.standard_deviation(16.0), 0.05);
    assert!(toml::from_str::<File>(r#"starts = [{ kind = "published", noise = 1 }]"#).is_err());
}
