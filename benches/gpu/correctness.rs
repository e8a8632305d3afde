//! Results against the processor's, in the same run.

use crate::common::{competition, dense, mixture, softmax};
use crate::document::{Document, Table};
use crate::fits::{fit_on_device, fit_on_processor, stream};
use crate::scale::Scale;
use crate::single::name;
use crate::{Devices, passes::SOFTPLUS};
use ndarray::{Array1, Array2};
use smoe_lab::backend::{Backend, Cpu, Reference};
use smoe_lab::error::Result;
use smoe_lab::fit::{MultiStart, Outcome};
use smoe_lab::loss::density::{DensityDistance, Effort, density_distance, density_distances};
use smoe_lab::loss::divergence::Wanted;
use smoe_lab::model::{
    Data, ExpertKind, GateKind, Model, Parameters, Response, VarianceStructure, Weights,
    draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::device::DeviceDivergences;

/// Of passes: as for GPUs in tests/backends.rs.
const PASSES: f64 = 1e-11;
/// Of inputs and responses.
const SAMPLES: f64 = 1e-12;
/// Of distances between densities.
const DIVERGENCES: f64 = 1e-9;
/// Of a maximum's log-likelihood, relative.
const LOG_LIKELIHOODS: f64 = 1e-9;
/// Of its parameters, in units of the larger of 1 and the parameter.
const PARAMETERS: f64 = 1e-5;
/// Share of fits that must reach the processor's maximum: a last bit may decide in
/// which valley a climb ends.
const SAME_MAXIMUM: f64 = 0.99;

/// K and d.
const SHAPES: [(usize, usize); 3] = [(2, 1), (3, 2), (4, 4)];

struct Checks {
    table: Table,
    hold: bool,
}

impl Checks {
    fn add(&mut self, what: &str, error: f64, tolerance: f64) {
        let holds = error <= tolerance;
        self.hold &= holds;
        self.table.row([
            what.to_string(),
            format!("{error:.1e}"),
            format!("{tolerance:.0e}"),
            if holds { "yes" } else { "FAILED" }.to_string(),
        ]);
    }
}

/// Largest error over the largest entry, or over 1; infinite for anything that is
/// not a number.
pub fn relative_error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    let errors = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    errors.fold(0.0, |most, error| match error.is_nan() {
        true => f64::INFINITY,
        false => f64::max(most, error / scale),
    })
}

/// A mixture with numbers of order one.
pub fn noisy(kind: GateKind, experts: usize, inputs: usize) -> Parameters {
    let stream = Stream::named(7, "noise", (experts * 10 + inputs) as u64, Purpose::Data);
    let noise: Vec<f64> = (0..23).map(|k| stream.standard_normal(k, 0)).collect();
    let structure = VarianceStructure::PerExpert;
    mixture(
        dense(kind),
        ExpertKind::Linear,
        experts,
        inputs,
        structure,
        &noise,
    )
}

/// Normal inputs and responses.
pub fn compared_data(rows: usize, d: usize) -> Data {
    let stream = Stream::named(3, "compared", d as u64, Purpose::Data);
    let draw = |i: usize, j: usize| stream.standard_normal(i as u64, j as u64);
    Data::new(
        Array2::from_shape_fn((rows, d), |(i, j)| draw(i, j)),
        Array1::from_shape_fn(rows, |i| 1.5 * draw(i, d)),
    )
    .expect("as many inputs as responses")
}

pub fn run(devices: &Devices, scale: &Scale, document: &mut Document) -> Result<bool> {
    document.heading("Agreement with the processor");
    document.paragraph(
        "Largest error over the largest entry of the same kind. A fit's error counts where both reach \
         the same maximum; how often they do is the row before.",
    );
    let mut checks = Checks {
        table: Table::new(&["what", "largest error", "tolerance", "holds"]),
        hold: true,
    };
    passes(devices, scale, &mut checks);
    samples(devices, scale, &mut checks)?;
    fits(devices, scale, &mut checks)?;
    if let Some(error) = devices.double.failure() {
        return Err(error);
    }
    document.table(checks.table);
    Ok(checks.hold)
}

/// All sums of all operations.
fn sums(backend: &dyn Backend, parameters: &Parameters, data: &Data) -> Vec<Vec<f64>> {
    let (value, gradient) = backend.gradient(parameters, data);
    let derivatives = backend.derivatives(parameters, data);
    let em = backend.em_statistics(parameters, data);
    let mut all = vec![
        vec![
            backend.log_likelihood(parameters, data),
            value,
            derivatives.log_likelihood,
            em.log_likelihood,
        ],
        gradient.to_vec(),
        derivatives.gradient.to_vec(),
        derivatives.hessian.into_iter().collect(),
        backend.score_outer(parameters, data).into_iter().collect(),
        em.gate_score.to_vec(),
        em.gate_information.into_iter().collect(),
    ];
    for expert in em.experts {
        all.push(vec![expert.responsibility, expert.squares]);
        all.push(expert.score.to_vec());
        all.push(expert.moment.to_vec());
        all.push(expert.curvature.into_iter().collect());
        all.push(expert.gram.into_iter().collect());
    }
    all
}

fn passes(devices: &Devices, scale: &Scale, checks: &mut Checks) {
    let normalised = GateKind::Competition {
        response: Response::Absolute,
        weights: Weights::Normalised,
        kappa: 1.0,
    };
    for kind in [GateKind::Softmax, GateKind::Sigmoid, SOFTPLUS, normalised] {
        for (experts, inputs) in SHAPES {
            let parameters = noisy(kind, experts, inputs);
            let data = compared_data(scale.compared_rows, inputs);
            let got = sums(&devices.double, &parameters, &data);
            let expected = sums(&Reference, &parameters, &data);
            let processor = sums(&Cpu::new(), &parameters, &data);
            let error = |to: &[Vec<f64>]| {
                let errors = got.iter().zip(to).map(|(a, b)| relative_error(a, b));
                errors.fold(0.0, f64::max)
            };
            let what = format!("five passes, {}, K = {experts}, d = {inputs}", name(kind));
            checks.add(&what, error(&expected).max(error(&processor)), PASSES);
        }
    }
}

fn samples(devices: &Devices, scale: &Scale, checks: &mut Checks) -> Result<()> {
    for (what, model) in designs() {
        let drawn = devices
            .double
            .draw(&model, scale.compared_rows, &[stream(0)])?;
        let got = drawn.sample(0)?;
        let expected = draw_sample(&model, 0, scale.compared_rows, &stream(0));
        let error = relative_error(got.column(0), expected.column(0))
            .max(relative_error(got.responses(), expected.responses()));
        checks.add(&format!("samples, {what}"), error, SAMPLES);
    }
    Ok(())
}

fn designs() -> [(&'static str, Model); 2] {
    [
        ("softplus", competition(Response::Softplus)),
        ("softmax", softmax()),
    ]
}

/// Fits, and the distances of the fitted densities from the truth's.
fn fits(devices: &Devices, scale: &Scale, checks: &mut Checks) -> Result<()> {
    for (what, model) in designs() {
        let (rows, count) = (scale.compared_rows, scale.compared_fits);
        let streams: Vec<Stream> = (0..count as u64).map(stream).collect();
        let replicates = devices.double.draw(&model, rows, &streams)?;
        let got = fit_on_device(&devices.double, &model, &replicates)?.0;
        let expected = fit_on_processor(&model, rows, count)?.0;
        // Start by start: experts may be in another order at another start's maximum.
        let outcomes = |fits: &[MultiStart]| -> Vec<Outcome> {
            fits.iter().flat_map(|fit| fit.outcomes.clone()).collect()
        };
        let all: Vec<(Outcome, Outcome)> = outcomes(&got)
            .into_iter()
            .zip(outcomes(&expected))
            .collect();
        let same: Vec<&(Outcome, Outcome)> = all
            .iter()
            .filter(|(a, b)| {
                let error = (a.log_likelihood - b.log_likelihood).abs();
                error <= LOG_LIKELIHOODS * b.log_likelihood.abs()
            })
            .collect();
        let other = 1.0 - same.len() as f64 / all.len() as f64;
        let tolerance = 1.0 - SAME_MAXIMUM;
        checks.add(&format!("fits, {what}: other maximum"), other, tolerance);
        let layout = model.parameters.layout();
        let (mut likelihood, mut parameters) = (0.0f64, 0.0f64);
        for (a, b) in same {
            let error = (a.log_likelihood - b.log_likelihood).abs() / b.log_likelihood.abs();
            likelihood = likelihood.max(error);
            let packed = |p: &Parameters| layout.pack(p);
            let (a, b) = (packed(&a.parameters), packed(&b.parameters));
            let each = a
                .iter()
                .zip(&b)
                .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
            parameters = each.fold(parameters, f64::max);
        }
        let what_likelihood = format!("fits, {what}: log-likelihood");
        checks.add(&what_likelihood, likelihood, LOG_LIKELIHOODS);
        checks.add(&format!("fits, {what}: parameters"), parameters, PARAMETERS);
        let error = distances(devices, &model, &expected)?;
        checks.add(
            &format!("distances of densities, {what}"),
            error,
            DIVERGENCES,
        );
    }
    Ok(())
}

fn distances(devices: &Devices, model: &Model, fits: &[MultiStart]) -> Result<f64> {
    let pairs: Vec<(&Model, &Parameters)> = fits
        .iter()
        .map(|fit| (model, &fit.best().parameters))
        .collect();
    let evaluator = DeviceDivergences(devices.double.comparer());
    let effort = Effort::default();
    let found = density_distances(&pairs, Wanted::Smooth, effort, &evaluator)?;
    let mut most = 0.0f64;
    for ((p, q), found) in pairs.iter().zip(&found) {
        let expected = density_distance(p, q, Wanted::Smooth, effort)?;
        let values = |d: &DensityDistance| {
            [
                d.hellinger.value,
                d.hellinger_sq.value,
                d.kullback_leibler.value,
            ]
        };
        for (a, b) in values(found).into_iter().zip(values(&expected)) {
            most = most.max((a - b).abs() / b);
        }
    }
    Ok(most)
}
