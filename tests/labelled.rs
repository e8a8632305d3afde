//! The oracle that knows the labels: its sample, its likelihood, its information
//! and its variance.

mod common;

use common::{competition, dense, gate_kinds, mixture, softmax};
use ndarray::{Array1, Array2};
use ndarray_linalg::{Eigh, UPLO};
use smoe_lab::backend::{Backend, Cpu, Labelled};
use smoe_lab::fit::{
    Bounds, Centre, Limits, NewtonOptions, Options, Stop, labelled_maximum, maximise,
};
use smoe_lab::model::{
    Data, ExpertKind, GateKind, InputLaw, Model, Parameters, Response, VarianceStructure, Weights,
    draw_labelled_sample, draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::complete_information::complete_information;
use smoe_lab::sim::constants::fisher_information;

fn stream(seed: u64) -> Stream {
    Stream::named(seed, "labelled", 0, Purpose::Data)
}

fn bounds(parameters: &Parameters) -> Bounds {
    let limits = Limits {
        coefficient: 20.0,
        bias: 10.0,
        gate_slope: 20.0,
        variance: [1e-3, 50.0],
        zero_slopes: vec![],
        zero_gate_slopes: vec![],
        centre: Centre::Origin,
    };
    limits.bounds(&parameters.layout())
}

const NOISE: [f64; 31] = [
    0.9, -0.4, 1.1, 0.3, -0.8, 0.5, -1.0, 0.7, 0.2, -0.6, 1.2, -0.3, 0.4, -0.9, 0.8, 0.1, -0.7,
    0.6, -1.1, 1.0, -0.2, 0.35, -0.45, 0.75, -0.55, 0.15, 0.95, -0.85, 0.65, -0.25, 0.05,
];

/// Three experts on the square, every gate, dense or two kept.
fn models(kind: ExpertKind, structure: VarianceStructure) -> Vec<Model> {
    let gates = gate_kinds().into_iter().flat_map(|gate| {
        [None, Some(2)].map(|top_k| {
            let mut gate = dense(gate);
            gate.top_k = top_k;
            gate
        })
    });
    gates
        .map(|gate| Model {
            input: InputLaw::Uniform {
                low: vec![-1.0; 2],
                high: vec![1.0; 2],
            },
            parameters: mixture(gate, kind, 3, 2, structure, &NOISE),
        })
        .collect()
}

/// Two experts on the line under every gate.
fn line_models() -> Vec<Model> {
    let mut models = vec![softmax(), competition(Response::Softplus)];
    for response in common::RESPONSES {
        let mut model = competition(response);
        models.push(model.clone());
        model.parameters.gate.kind = GateKind::Competition {
            response,
            weights: Weights::Normalised,
            kappa: 1.0,
        };
        // A mean without a zero: log |m| has a pole there.
        model.parameters.experts[0].intercept = 2.5;
        model.parameters.experts[1].intercept = 2.0;
        models.push(model);
    }
    let mut shared = competition(Response::Softplus);
    shared.parameters.variance_structure = VarianceStructure::Shared;
    shared.parameters.experts[1].variance = shared.parameters.experts[0].variance;
    models.push(shared);
    models
}

#[test]
fn a_labelled_sample_is_the_sample_and_its_labels_made_it() {
    for kind in [ExpertKind::Linear, ExpertKind::Tanh] {
        for model in models(kind, VarianceStructure::PerExpert) {
            let stream = stream(1);
            let (data, labels) = draw_labelled_sample(&model, 5, 500, &stream).unwrap();
            assert_eq!(data, draw_sample(&model, 5, 500, &stream));
            for (i, &label) in labels.iter().enumerate() {
                let (x, y) = data.row(i);
                let law = model.parameters.conditional(&x);
                assert!(law.log_weights[label] > f64::NEG_INFINITY);
                let noise = stream.standard_normal(5 + i as u64, 1);
                let made = law.means[label] + law.variances[label].sqrt() * noise;
                assert!((made - y).abs() < 1e-9, "{made} {y}");
            }
        }
    }
}

/// The complete-data log-likelihood from the conditional law.
fn by_hand(parameters: &Parameters, data: &Data, labels: &[usize]) -> f64 {
    let rows = labels.iter().enumerate().map(|(i, &label)| {
        let (x, y) = data.row(i);
        parameters.conditional(&x).log_term(label, y)
    });
    rows.sum()
}

#[test]
fn the_labelled_likelihood_and_its_derivatives_match_differences() {
    for (kind, structure) in [
        (ExpertKind::Linear, VarianceStructure::PerExpert),
        (ExpertKind::Tanh, VarianceStructure::Shared),
    ] {
        for model in models(kind, structure) {
            let parameters = &model.parameters;
            let (data, labels) = draw_labelled_sample(&model, 0, 40, &stream(2)).unwrap();
            let backend = Labelled::new(&data, &labels, 3).unwrap();
            let layout = parameters.layout();
            let packed = layout.pack(parameters);
            let at = |j: usize, step: f64| {
                let mut moved = packed.clone();
                moved[j] += step;
                layout.unpack(parameters, &moved)
            };
            let found = backend.derivatives(parameters, &data);
            let value = by_hand(parameters, &data, &labels);
            assert!((found.log_likelihood - value).abs() < 1e-9 * value.abs());
            let (_, gradient) = backend.gradient(parameters, &data);
            let step = 1e-6;
            for j in 0..packed.len() {
                let ends = [at(j, step), at(j, -step)];
                let [up, down] = ends.clone().map(|p| by_hand(&p, &data, &labels));
                let slope = (up - down) / (2.0 * step);
                let size = 1.0 + slope.abs();
                // A kept set that changes within the step is no derivative.
                if !slope.is_finite() || size > 1e5 {
                    continue;
                }
                assert!(
                    (found.gradient[j] - slope).abs() < 1e-4 * size,
                    "{:?}",
                    parameters.gate
                );
                assert!((found.gradient[j] - gradient[j]).abs() < 1e-9 * size);
                let [up, down] = ends.map(|p| backend.gradient(&p, &data).1);
                for i in 0..packed.len() {
                    let bend = (up[i] - down[i]) / (2.0 * step);
                    let difference = (found.hessian[[i, j]] - bend).abs();
                    assert!(
                        difference < 1e-3 * (1.0 + bend.abs()),
                        "{:?}",
                        parameters.gate
                    );
                }
            }
        }
    }
}

/// Eigenvalues of a symmetric matrix, ascending.
fn eigenvalues(matrix: &Array2<f64>) -> Array1<f64> {
    matrix.eigh(UPLO::Lower).unwrap().0
}

#[test]
fn labels_never_lower_the_information() {
    for model in line_models() {
        let complete = complete_information(&model);
        let observed = fisher_information(&model);
        let missing = eigenvalues(&(&complete - &observed));
        let largest = eigenvalues(&complete)[complete.nrows() - 1];
        assert!(
            missing[0] > -1e-9 * largest,
            "{:?}: {missing}",
            model.parameters.gate
        );
        assert!(missing[missing.len() - 1] > 1e-3 * largest);
    }
}

/// Entries of one row's Hessian have standard deviations below three times the
/// largest eigenvalue here, so 0.05 of it is 7 standard errors of the mean of
/// 200 000 rows: false failures in one of at most 400 entries below 1e-6.
#[test]
fn the_complete_information_is_minus_the_mean_hessian() {
    let n = 200_000;
    for model in line_models() {
        let (data, labels) = draw_labelled_sample(&model, 0, n, &stream(3)).unwrap();
        let backend = Labelled::new(&data, &labels, 2).unwrap();
        let hessian = backend.derivatives(&model.parameters, &data).hessian;
        let complete = complete_information(&model);
        let largest = eigenvalues(&complete)[complete.nrows() - 1];
        let error = (&complete + &(hessian / n as f64)).mapv(f64::abs);
        let worst = error.iter().fold(0.0f64, |m, v| m.max(*v));
        assert!(
            worst < 0.05 * largest,
            "{:?}: {worst}",
            model.parameters.gate
        );
    }
}

/// n d' I_c d summed over R replicates is chi-square with R P degrees of freedom in
/// the limit. By the normal approximation its mean lies within 4.9 (2 / (R P))^(1/2)
/// of 1 with probability 1 - 1e-6; n = 4000 biases it by less than 0.02, added.
#[test]
fn the_oracle_has_the_variance_that_the_complete_information_promises() {
    let (n, replicates) = (4000, 120);
    for (k, model) in [softmax(), competition(Response::Softplus)]
        .iter()
        .enumerate()
    {
        let bounds = bounds(&model.parameters);
        let layout = model.parameters.layout();
        let truth = layout.pack(&model.parameters);
        let complete = complete_information(model);
        let mut sums = [0.0; 2];
        for replicate in 0..replicates {
            let stream = Stream::named(4, "oracle", (1000 * k + replicate) as u64, Purpose::Data);
            let (data, labels) = draw_labelled_sample(model, 0, n, &stream).unwrap();
            let start = &model.parameters;
            let options = NewtonOptions::default();
            let oracle = labelled_maximum(&data, &labels, start, &bounds, options).unwrap();
            assert!(oracle.stop.is_converged(), "{}", oracle.stop);
            let fit = maximise(&Cpu::new(), &data, start, &bounds, &Options::default());
            assert!(fit.stop.is_converged(), "{}", fit.stop);
            for (sum, outcome) in sums.iter_mut().zip([&oracle, &fit]) {
                let at = layout.pack(&outcome.parameters);
                let delta: Array1<f64> = at.iter().zip(&truth).map(|(a, b)| a - b).collect();
                *sum += n as f64 * delta.dot(&complete.dot(&delta));
            }
        }
        let size = truth.len() as f64 * replicates as f64;
        let [oracle, fit] = sums.map(|s| s / size);
        let band = 4.9 * (2.0 / size).sqrt() + 0.02;
        assert!((oracle - 1.0).abs() < band, "{oracle}");
        // In the limit tr(I_c I_obs^-1) / P, here 1.46 and 1.55: ten standard errors.
        assert!(fit > oracle);
    }
}

#[test]
fn labels_that_do_not_fit_the_data_are_errors() {
    let model = softmax();
    let (data, mut labels) = draw_labelled_sample(&model, 0, 50, &stream(5)).unwrap();
    let start = &model.parameters;
    let fit = |labels: &[usize]| {
        labelled_maximum(
            &data,
            labels,
            start,
            &bounds(start),
            NewtonOptions::default(),
        )
    };
    assert!(fit(&labels[1..]).is_err());
    labels[7] = 2;
    assert!(fit(&labels).is_err());
    let few = data.head(3);
    let labels = [0, 1, 0];
    let outcome = labelled_maximum(
        &few,
        &labels,
        start,
        &bounds(start),
        NewtonOptions::default(),
    );
    assert_eq!(outcome.unwrap().stop, Stop::TooFewRows);
}
