//! Estimators: monotone, in agreement, able to recover, honest about failing.

mod common;

use common::{competition, dense, gate_kinds, mixture, softmax};
use ndarray::{Array1, Array2};
use proptest::prelude::*;
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::fit::{
    Bounds, Centre, EmOptions, GainMeasure, GateStep, GradientOptions, Limits, Method,
    NewtonOptions, Options, Outcome, Start, StartContext, Stop, expectation_maximisation, fit,
    maximise, polish, quasi_newton,
};
use smoe_lab::loss::alignment::aligned;
use smoe_lab::model::{
    Data, ExpertKind, GateKind, InputLaw, Model, Parameters, Response, VarianceStructure, Weights,
    draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::constants::{Regularity, fisher_information};

fn limits() -> Limits {
    Limits {
        coefficient: 20.0,
        bias: 10.0,
        gate_slope: 20.0,
        variance: [1e-3, 50.0],
        zero_slopes: vec![],
        zero_gate_slopes: vec![],
        centre: Centre::Origin,
    }
}

fn bounds(parameters: &Parameters) -> Bounds {
    limits().bounds(&parameters.layout())
}

fn options(method: Method) -> Options {
    Options {
        method,
        max_iterations: 500,
        gain: 1e-2,
        pilot_rows: None,
        ..Options::default()
    }
}

fn data_from(model: &Model, rows: usize, seed: u64) -> Data {
    draw_sample(
        model,
        0,
        rows,
        &Stream::named(seed, "test", 0, Purpose::Data),
    )
}

fn perturbed(model: &Model, data: &Data, radius: f64, seed: u64) -> Parameters {
    let bounds = bounds(&model.parameters);
    let context = StartContext {
        template: &model.parameters,
        truth: Some(&model.parameters),
        data,
        bounds: &bounds,
    };
    let stream = Stream::named(seed, "test", 0, Purpose::Start(0));
    Start::PerturbedTruth { radius }
        .parameters(context, &stream)
        .unwrap()
}

/// Designs on which every estimator must find the same maximum.
fn designs() -> Vec<Model> {
    let mut square = competition(Response::Square);
    square.parameters.experts[0].slope = vec![1.2];
    let mut normalised = competition(Response::Softplus);
    normalised.parameters.gate.kind = GateKind::Competition {
        response: Response::Softplus,
        weights: Weights::Normalised,
        kappa: 1.0,
    };
    let mut sigmoid = softmax();
    sigmoid.parameters.gate.kind = GateKind::Sigmoid;
    vec![
        competition(Response::Softplus),
        competition(Response::Absolute),
        square,
        normalised,
        softmax(),
        sigmoid,
    ]
}

#[test]
fn em_and_gradient_agree_on_the_maximum_to_1e_8() {
    for (k, model) in designs().iter().enumerate() {
        let data = data_from(model, 2000, k as u64);
        let start = perturbed(model, &data, 0.1, k as u64);
        let bounds = bounds(&model.parameters);
        let run = |method| maximise(&Cpu::new(), &data, &start, &bounds, &options(method));
        let (em, gradient) = (run(Method::Em), run(Method::Gradient));
        for outcome in [&em, &gradient] {
            assert!(outcome.stop.is_converged(), "{k}: {}", outcome.stop);
        }
        assert!(em.effort.em > 0 && gradient.effort.gradient > 0);
        let difference = (em.log_likelihood - gradient.log_likelihood).abs();
        assert!(
            difference < 1e-8 * em.log_likelihood.abs(),
            "{k}: {} {}",
            em.log_likelihood,
            gradient.log_likelihood
        );
    }
}

/// Without the polish, each alone, on a problem without kinks.
#[test]
fn em_and_gradient_agree_even_without_the_polish() {
    for (k, model) in [competition(Response::Softplus), softmax()]
        .iter()
        .enumerate()
    {
        let data = data_from(model, 1000, 50 + k as u64);
        let start = perturbed(model, &data, 0.1, k as u64);
        let bounds = bounds(&model.parameters);
        let stop = EmOptions {
            max_iterations: 20_000,
            gain: 1e-10,
            gain_measure: GainMeasure::Total,
            gate_step: GateStep::OneStep,
        };
        let em = expectation_maximisation(&Cpu::new(), &data, &start, &bounds, stop);
        let stop = GradientOptions {
            max_iterations: 2000,
            gain: 0.0,
        };
        let gradient = quasi_newton(&Cpu::new(), &data, &start, &bounds, stop);
        let difference = (em.log_likelihood - gradient.log_likelihood).abs();
        assert!(
            difference < 1e-8 * em.log_likelihood.abs(),
            "{k}: {} {} ({} and {})",
            em.log_likelihood,
            gradient.log_likelihood,
            em.stop,
            gradient.stop
        );
    }
}

/// At n = 10^5 the errors in the metric of the Fisher information have mean P;
/// a chi-square with 7 or 8 degrees of freedom exceeds 45 with probability
/// below 1e-6.
#[test]
fn the_truth_is_recovered_at_large_n() {
    for (k, model) in designs().iter().enumerate() {
        let data = data_from(model, 100_000, 100 + k as u64);
        let bounds = bounds(&model.parameters);
        let start = perturbed(model, &data, 0.2, k as u64);
        let mut with_pilot = options(Method::Em);
        with_pilot.pilot_rows = Some(2000);
        let outcome = maximise(&Cpu::new(), &data, &start, &bounds, &with_pilot);
        assert!(outcome.stop.is_converged(), "{k}: {}", outcome.stop);
        let ratio =
            2.0 * (outcome.log_likelihood - Cpu::new().log_likelihood(&model.parameters, &data));
        assert!(
            (0.0..45.0).contains(&ratio),
            "{k}: likelihood ratio {ratio}"
        );
        // Two sigmoid gates nearly replace each other: that valley is too flat
        // for a quadratic law at this n.
        if model.parameters.gate.kind == GateKind::Sigmoid {
            continue;
        }
        let regularity = Regularity::new(model, &bounds, fisher_information);
        let distance = regularity.information_distance(&outcome.parameters, 100_000);
        assert!(distance < 45.0, "{k}: {distance}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn em_never_decreases_the_log_likelihood(
        noise in proptest::collection::vec(-1.2f64..1.2, 31),
        seed in 0u64..1000,
        top_k in prop_oneof![Just(None), Just(Some(2))],
        gate_step in prop_oneof![Just(GateStep::OneStep), Just(GateStep::ToMaximum)],
    ) {
        for kind in gate_kinds() {
            let mut gate = dense(kind);
            gate.top_k = top_k;
            for expert in [ExpertKind::Linear, ExpertKind::Tanh] {
                let parameters = mixture(gate, expert, 3, 2, VarianceStructure::PerExpert, &noise);
                let model = Model {
                    input: InputLaw::Uniform { low: vec![-1.0; 2], high: vec![1.0; 2] },
                    parameters,
                };
                let data = data_from(&model, 150, seed);
                let bounds = bounds(&model.parameters);
                let mut at = perturbed(&model, &data, 0.5, seed);
                let mut value = Cpu::new().log_likelihood(&at, &data);
                for _ in 0..6 {
                    let gain_measure = GainMeasure::Total;
                    let one = EmOptions { max_iterations: 1, gain: 0.0, gain_measure, gate_step };
                    let next = expectation_maximisation(&Cpu::new(), &data, &at, &bounds, one);
                    prop_assert!(
                        next.log_likelihood >= value - 1e-12 * (1.0 + value.abs()),
                        "{kind:?} {expert:?}: {value} to {}", next.log_likelihood
                    );
                    let recomputed = Cpu::new().log_likelihood(&next.parameters, &data);
                    prop_assert!((recomputed - next.log_likelihood).abs() < 1e-9 * (1.0 + value.abs()));
                    if next.stop != Stop::MaxIterations {
                        break;
                    }
                    value = next.log_likelihood;
                    at = next.parameters;
                }
            }
        }
    }

    #[test]
    fn quasi_newton_never_ends_below_its_start(
        noise in proptest::collection::vec(-1.2f64..1.2, 31),
        seed in 0u64..1000,
    ) {
        for kind in gate_kinds() {
            let parameters =
                mixture(dense(kind), ExpertKind::Tanh, 2, 1, VarianceStructure::Shared, &noise);
            let model = Model {
                input: InputLaw::Uniform { low: vec![-1.0], high: vec![1.0] },
                parameters,
            };
            let data = data_from(&model, 100, seed);
            let start = perturbed(&model, &data, 0.5, seed);
            let stop = GradientOptions { max_iterations: 20, gain: 1e-6 };
            let outcome = quasi_newton(&Cpu::new(), &data, &start, &bounds(&model.parameters), stop);
            let before = Cpu::new().log_likelihood(&start, &data);
            prop_assert!(
                outcome.log_likelihood >= before - 1e-9 * before.abs(),
                "{kind:?}: {before} to {} ({})", outcome.log_likelihood, outcome.stop
            );
        }
    }

    #[test]
    fn fits_stay_inside_the_parameter_set(seed in 0u64..1000) {
        // Too many experts for so few rows: without the box the likelihood is
        // unbounded.
        let model = softmax();
        let data = data_from(&model, 40, seed);
        let mut template = model.parameters.clone();
        template.experts.push(template.experts[0].clone());
        let bounds = limits().bounds(&template.layout());
        let context = StartContext { template: &template, truth: None, data: &data, bounds: &bounds };
        let stream = |k: usize| Stream::named(seed, "box", 0, Purpose::Start(k as u32));
        let starts = [Start::KMeans, Start::Random];
        let result = fit(&Cpu::new(), context, &starts, stream, &options(Method::Em)).unwrap();
        for outcome in &result.outcomes {
            let packed = template.layout().pack(&outcome.parameters);
            for (j, value) in packed.iter().enumerate() {
                prop_assert!(*value >= bounds.low[j] - 1e-9 && *value <= bounds.high[j] + 1e-9);
            }
            prop_assert!(outcome.log_likelihood.is_finite(), "{}", outcome.stop);
        }
    }
}

#[test]
fn starts_differ_and_the_best_of_more_starts_is_never_worse() {
    let model = softmax();
    let data = data_from(&model, 300, 3);
    let bounds = bounds(&model.parameters);
    let context = StartContext {
        template: &model.parameters,
        truth: None,
        data: &data,
        bounds: &bounds,
    };
    let starts = vec![Start::Random; 12];
    let stream = |k: usize| Stream::named(9, "many", 0, Purpose::Start(k as u32));
    let points: Vec<Parameters> = (0..12)
        .map(|k| starts[k].parameters(context, &stream(k)).unwrap())
        .collect();
    for a in 0..12 {
        for b in 0..a {
            assert_ne!(points[a], points[b], "starts {a} and {b}");
        }
    }
    let mut best = f64::NEG_INFINITY;
    for count in 1..=12 {
        let result = fit(
            &Cpu::new(),
            context,
            &starts[..count],
            stream,
            &options(Method::Em),
        )
        .unwrap();
        assert_eq!(result.outcomes.len(), count);
        // Among equal maxima a certified one is preferred, at most 1e-6 below.
        assert!(result.best().log_likelihood >= best - 1e-6);
        best = result.best().log_likelihood;
    }
}

#[test]
fn a_pilot_leads_to_the_same_maximum() {
    let model = competition(Response::Softplus);
    let data = data_from(&model, 20_000, 5);
    let bounds = bounds(&model.parameters);
    let context = StartContext {
        template: &model.parameters,
        truth: Some(&model.parameters),
        data: &data,
        bounds: &bounds,
    };
    let stream = |k: usize| Stream::named(5, "pilot", 0, Purpose::Start(k as u32));
    let starts = [Start::PerturbedTruth { radius: 0.1 }, Start::KMeans];
    let with = Options {
        pilot_rows: Some(1000),
        ..options(Method::Em)
    };
    let a = fit(&Cpu::new(), context, &starts, stream, &with).unwrap();
    let b = fit(&Cpu::new(), context, &starts, stream, &options(Method::Em)).unwrap();
    let difference = a.best().log_likelihood - b.best().log_likelihood;
    assert!(difference.abs() < 1e-5, "{difference}");
    assert!(a.best().effort.rows < b.best().effort.rows);
}

#[test]
fn an_iteration_limit_gives_a_usable_outcome() {
    let model = competition(Response::Absolute);
    let data = data_from(&model, 500, 1);
    let start = perturbed(&model, &data, 0.5, 1);
    let newton = NewtonOptions {
        max_iterations: 1,
        ..NewtonOptions::default()
    };
    let outcome = polish(
        &Cpu::new(),
        &data,
        &start,
        &bounds(&model.parameters),
        newton,
    );
    assert_eq!(outcome.stop, Stop::MaxIterations);
    assert!(outcome.log_likelihood >= Cpu::new().log_likelihood(&start, &data));
}

#[test]
fn experts_that_start_equal_leave_their_saddle_for_the_maximum() {
    let model = softmax();
    let data = data_from(&model, 500, 1);
    let mut start = model.parameters.clone();
    start.experts[0] = start.experts[1].clone();
    let bounds = bounds(&model.parameters);
    let fit = |start| maximise(&Cpu::new(), &data, start, &bounds, &options(Method::Em));
    let (from_saddle, from_truth) = (fit(&start), fit(&model.parameters));
    assert!(certified(&from_saddle), "{}", from_saddle.stop);
    let difference = from_saddle.log_likelihood - from_truth.log_likelihood;
    assert!(difference.abs() < 1e-6, "{difference}");
}

#[test]
fn degenerate_data_end_with_a_reason_and_never_panic() {
    let model = softmax();
    let constant =
        |n: usize| Data::new(Array2::from_elem((n, 1), 0.5), Array1::from_elem(n, 2.0)).unwrap();
    let bounds = bounds(&model.parameters);
    for (rows, expected) in [(3, Some(Stop::TooFewRows)), (50, None)] {
        let data = constant(rows);
        let context = StartContext {
            template: &model.parameters,
            truth: None,
            data: &data,
            bounds: &bounds,
        };
        let stream = |k: usize| Stream::named(1, "degenerate", 0, Purpose::Start(k as u32));
        let starts = [Start::KMeans, Start::Random];
        let result = fit(&Cpu::new(), context, &starts, stream, &options(Method::Em)).unwrap();
        if let Some(expected) = expected {
            assert!(result.outcomes.iter().all(|o| o.stop == expected));
        }
    }
}

#[test]
fn extreme_variances_and_outliers_give_finite_densities() {
    let mut model = softmax();
    model.parameters.experts[0].variance = 1e-300;
    model.parameters.experts[1].variance = 1e300;
    for y in [0.0, 1e10, -1e150] {
        let value = model.parameters.log_density(&[0.3], y);
        assert!(value.is_finite(), "{y}: {value}");
    }
}

fn certified(outcome: &Outcome) -> bool {
    outcome.stop.is_converged()
}

/// The maximum of the absolute gate may sit on a kink: nudging any parameter
/// must not raise the likelihood by more than the certificate's tolerance.
#[test]
fn a_certified_kink_is_a_maximum_in_every_direction() {
    let model = competition(Response::Absolute);
    let mut kinks = 0;
    for seed in 0..12 {
        let data = data_from(&model, 400, 300 + seed);
        let start = perturbed(&model, &data, 0.1, seed);
        let bounds = bounds(&model.parameters);
        let outcome = maximise(&Cpu::new(), &data, &start, &bounds, &options(Method::Em));
        assert!(certified(&outcome), "{seed}: {}", outcome.stop);
        kinks += usize::from(outcome.stop == Stop::ConvergedAtKink);
        let layout = outcome.parameters.layout();
        let packed = layout.pack(&outcome.parameters);
        let directions = Stream::named(seed, "directions", 0, Purpose::Data);
        for trial in 0..200 {
            let size = 10f64.powf(-1.0 - 6.0 * directions.uniform_pair(trial, 99)[0]);
            let moved: Vec<f64> = packed
                .iter()
                .enumerate()
                .map(|(j, v)| v + size * directions.standard_normal(trial, j as u64))
                .collect();
            let there =
                Cpu::new().log_likelihood(&layout.unpack(&outcome.parameters, &moved), &data);
            assert!(
                there <= outcome.log_likelihood + 2e-6,
                "{seed}: {} by {size:e}",
                there - outcome.log_likelihood
            );
        }
    }
    assert!(
        kinks > 0,
        "no fit ended on a kink: the test looks at nothing"
    );
}

#[test]
fn alignment_matches_fitted_experts_to_true_ones() {
    let model = softmax();
    let swapped = model.parameters.permuted(&[1, 0]);
    assert_eq!(
        aligned(&swapped, &model.parameters).unwrap(),
        model.parameters
    );
}
