//! Whole fits per second, and where the time goes.

use crate::Devices;
use crate::common::{competition, softmax};
use crate::document::{Document, Table, percent, significant};
use crate::scale::Scale;
use rayon::prelude::*;
use smoe_lab::backend::Cpu;
use smoe_lab::backend::cuda::{Cuda, Replicates};
use smoe_lab::error::Result;
use smoe_lab::fit::{
    Batch, Bounds, Centre, Limits, MultiStart, Options, Phases, Start, StartContext, fit,
};
use smoe_lab::loss::density::{Effort, density_distances};
use smoe_lab::loss::divergence::Wanted;
use smoe_lab::model::{Data, Model, Parameters, Response, draw_sample};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::device::DeviceDivergences;
use std::time::Instant;

/// As in the headline study.
const STARTS: [Start; 2] = [Start::PerturbedTruth { radius: 0.1 }, Start::KMeans];

pub fn stream(sample: u64) -> Stream {
    Stream::named(1, "gpu-fits", sample, Purpose::Data)
}

fn start_stream(sample: usize, k: usize) -> Stream {
    Stream::named(1, "gpu-fits", sample as u64, Purpose::Start(k as u32))
}

fn bounds(parameters: &Parameters) -> Bounds {
    let limits = Limits {
        coefficient: 10.0,
        bias: 5.0,
        gate_slope: 10.0,
        variance: [0.01, 10.0],
        zero_slopes: Vec::new(),
        zero_gate_slopes: Vec::new(),
        centre: Centre::Origin,
    };
    limits.bounds(&parameters.layout())
}

/// Fits of all samples, drawn by [`stream`] on a device.
pub fn fit_on_device(
    cuda: &Cuda,
    model: &Model,
    replicates: &Replicates,
) -> Result<(Vec<MultiStart>, Phases)> {
    let batch = Batch {
        cuda,
        replicates,
        template: &model.parameters,
        truth: Some(&model.parameters),
        bounds: &bounds(&model.parameters),
        sample_size: replicates.rows() as f64,
        options: &Options::default(),
        head: &|sample, rows| draw_sample(model, 0, rows, &stream(sample as u64)),
    };
    batch.fit_timed(&STARTS, start_stream)
}

/// The same by the processor, and the seconds that fits alone take.
pub fn fit_on_processor(
    model: &Model,
    rows: usize,
    count: usize,
) -> Result<(Vec<MultiStart>, f64)> {
    let draw = |s| draw_sample(model, 0, rows, &stream(s));
    let samples: Vec<Data> = (0..count as u64).into_par_iter().map(draw).collect();
    let bounds = bounds(&model.parameters);
    let one = |(s, data): (usize, &Data)| {
        let context = StartContext {
            template: &model.parameters,
            truth: Some(&model.parameters),
            data,
            bounds: &bounds,
        };
        let options = Options::default();
        fit(
            &Cpu::new(),
            context,
            &STARTS,
            |k| start_stream(s, k),
            &options,
        )
    };
    let clock = Instant::now();
    let fits: Result<Vec<MultiStart>> = samples.par_iter().enumerate().map(one).collect();
    Ok((fits?, clock.elapsed().as_secs_f64()))
}

pub fn run(devices: &Devices, scale: &Scale, document: &mut Document) -> Result<()> {
    document.heading("Whole fits");
    document.paragraph(&format!(
        "{} samples of the headline study's truths, two starts each, standard options; samples fitted \
         per second, without sampling and losses, on the device, on it in mixed precision, and on all \
         cores of the processor, on the same samples (the processor on as many as {} rows allow).",
        scale.replicates, scale.fitted_processor_rows
    ));
    let mut speeds = Table::new(&[
        "gate",
        "n",
        "device, 1/s",
        "mixed, 1/s",
        "processor, 1/s",
        "ratio",
        "converged",
    ]);
    let mut parts = Table::new(&[
        "gate", "n", "seconds", "sampling", "starts", "pilot", "polish", "host", "losses",
    ]);
    let designs = [
        ("softplus", competition(Response::Softplus)),
        ("softmax", softmax()),
    ];
    for (gate, model) in designs {
        // Compiles.
        for cuda in [&devices.double, &devices.mixed] {
            timed(cuda, &model, 100, 1)?;
        }
        for &rows in &scale.fitted_rows {
            let run = timed(&devices.double, &model, rows, scale.replicates)?;
            let mixed = timed(&devices.mixed, &model, rows, scale.replicates)?;
            let count = (scale.fitted_processor_rows / rows).clamp(1, scale.replicates);
            let (_, seconds) = fit_on_processor(&model, rows, count)?;
            let device = scale.replicates as f64 / run.fitting;
            let processor = count as f64 / seconds;
            speeds.row([
                gate.to_string(),
                rows.to_string(),
                significant(device),
                significant(scale.replicates as f64 / mixed.fitting),
                significant(processor),
                significant(device / processor),
                percent(run.converged),
            ]);
            let phases = run.phases;
            let total = run.sampling + run.fitting + run.losses;
            let share = |seconds: f64| percent(seconds / total);
            parts.row([
                gate.to_string(),
                rows.to_string(),
                significant(total),
                share(run.sampling),
                share(phases.starts),
                share(phases.pilot),
                share(phases.polish),
                share(phases.host),
                share(run.losses),
            ]);
        }
    }
    document.table(speeds);
    document.paragraph(
        "Where the device's time goes: sampling, pilot, polish and losses on it; starts, and what it \
         leaves of a fit, on the host.",
    );
    document.table(parts);
    Ok(())
}

/// Seconds of a cell's parts.
struct Run {
    sampling: f64,
    fitting: f64,
    phases: Phases,
    losses: f64,
    /// Share of samples whose best fit is certified.
    converged: f64,
}

fn timed(cuda: &Cuda, model: &Model, rows: usize, count: usize) -> Result<Run> {
    let streams: Vec<Stream> = (0..count as u64).map(stream).collect();
    let clock = Instant::now();
    let replicates = cuda.draw(model, rows, &streams)?;
    let sampling = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    let (fits, phases) = fit_on_device(cuda, model, &replicates)?;
    let fitting = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    let pairs: Vec<(&Model, &Parameters)> = fits
        .iter()
        .map(|fit| (model, &fit.best().parameters))
        .collect();
    let evaluator = DeviceDivergences(cuda.comparer());
    density_distances(&pairs, Wanted::Smooth, Effort::default(), &evaluator)?;
    let losses = clock.elapsed().as_secs_f64();
    let converged = fits
        .iter()
        .filter(|fit| fit.best().stop.is_converged())
        .count();
    Ok(Run {
        sampling,
        fitting,
        phases,
        losses,
        converged: converged as f64 / count as f64,
    })
}
