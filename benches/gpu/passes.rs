//! Time of one pass: per row, beside the processor, beside the device's limits.

use crate::Devices;
use crate::common::{dense, mixture};
use crate::document::{Document, Table, percent, significant};
use crate::operations::operations;
use crate::scale::{Scale, Shape};
use rayon::prelude::*;
use smoe_lab::backend::cuda::{Cuda, Limits, Operation, Replicates};
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::error::{Error, Result};
use smoe_lab::model::{
    Data, ExpertKind, GateKind, InputLaw, Model, Parameters, Response, VarianceStructure, Weights,
};
use smoe_lab::rng::{Purpose, Stream};
use std::hint::black_box;
use std::time::Instant;

pub const SOFTPLUS: GateKind = GateKind::Competition {
    response: Response::Softplus,
    weights: Weights::Softmax,
    kappa: 1.0,
};

const NOISE: [f64; 9] = [0.7, -0.4, 1.1, -0.9, 0.3, -1.2, 0.5, 0.8, -0.6];

pub fn model(shape: Shape) -> Model {
    let structure = VarianceStructure::PerExpert;
    let (k, d) = (shape.experts, shape.inputs);
    Model {
        input: InputLaw::Uniform {
            low: vec![-1.0; d],
            high: vec![1.0; d],
        },
        parameters: mixture(dense(SOFTPLUS), ExpertKind::Linear, k, d, structure, &NOISE),
    }
}

/// A sample for each fit.
pub fn draw(cuda: &Cuda, model: &Model, shape: Shape) -> Result<Replicates> {
    let stream = |s| Stream::named(1, "gpu", s, Purpose::Data);
    let streams: Vec<Stream> = (0..shape.fits as u64).map(stream).collect();
    cuda.draw(model, shape.rows, &streams)
}

/// Least seconds of a pass for all fits of a shape.
pub fn seconds(
    cuda: &Cuda,
    operation: Operation,
    replicates: &Replicates,
    model: &Model,
    shape: Shape,
    scale: &Scale,
) -> Result<f64> {
    let of: Vec<(usize, &Parameters)> = (0..shape.fits).map(|s| (s, &model.parameters)).collect();
    cuda.time_pass(operation, replicates, shape.rows, &of, scale.repetitions)
}

pub fn run(
    devices: &Devices,
    scale: &Scale,
    limits: Limits,
    document: &mut Document,
) -> Result<()> {
    document.heading("Passes");
    document.paragraph(
        "Nanoseconds per row and fit, softplus gate, all fits in one launch, everything on the device: \
         the least of several; and the same on all cores of the processor, which works on several fits \
         at once if there are several. Shares are of the rates above: of multiply-adds by the f64 \
         instructions a row needs (benches/gpu/operations.rs), of bytes by the 8 (d + 1) bytes of a row.",
    );
    for (axis, shapes) in scale.axes() {
        document.paragraph(&format!("By {axis}:"));
        let mut table = Table::new(&[
            "n",
            "K",
            "d",
            "fits",
            "value",
            "derivatives",
            "ms/pass",
            "processor, value",
            "derivatives",
            "ratio, value",
            "derivatives",
            "f64 rate, value",
            "derivatives",
            "bytes",
        ]);
        for shape in shapes {
            let sizes = [shape.rows, shape.experts, shape.inputs, shape.fits];
            let mut cells: Vec<String> = sizes.iter().map(usize::to_string).collect();
            match measure(&devices.double, scale, shape) {
                Ok(measured) => cells.extend(measured.cells(shape, limits)),
                Err(Error::OutOfMemory { .. }) => {
                    cells.extend(vec!["out of memory".to_string(); 10]);
                }
                Err(error) => return Err(error),
            }
            table.row(cells);
        }
        document.table(table);
    }
    Ok(())
}

/// Seconds per row and fit, value and derivatives.
struct Measured {
    device: [f64; 2],
    processor: [f64; 2],
    parameters: Parameters,
}

impl Measured {
    fn cells(&self, shape: Shape, limits: Limits) -> Vec<String> {
        let [value, derivatives] = self.device;
        let rows = (shape.rows * shape.fits) as f64;
        let needed = operations(&self.parameters);
        let bytes = 8.0 * (shape.inputs + 1) as f64;
        let mut cells: Vec<String> = [
            1e9 * value,
            1e9 * derivatives,
            1e3 * derivatives * rows,
            1e9 * self.processor[0],
            1e9 * self.processor[1],
            self.processor[0] / value,
            self.processor[1] / derivatives,
        ]
        .map(significant)
        .to_vec();
        for (instructions, seconds) in [(needed.value, value), (needed.derivatives, derivatives)] {
            cells.push(percent(
                instructions as f64 / seconds / limits.multiply_adds,
            ));
        }
        cells.push(percent(bytes / derivatives / limits.bytes));
        cells
    }
}

fn measure(cuda: &Cuda, scale: &Scale, shape: Shape) -> Result<Measured> {
    let model = model(shape);
    let replicates = draw(cuda, &model, shape)?;
    let rows = (shape.rows * shape.fits) as f64;
    let device = [Operation::Value, Operation::Derivatives]
        .map(|operation| seconds(cuda, operation, &replicates, &model, shape, scale));
    let [value, derivatives] = device;
    let fits = (scale.processor_rows / shape.rows).clamp(1, shape.fits);
    let samples: Result<Vec<Data>> = (0..fits).map(|s| replicates.sample(s)).collect();
    let samples = samples?;
    let parameters = model.parameters;
    let processor = [
        processor_seconds(&samples, scale, |data| {
            black_box(Cpu::new().log_likelihood(&parameters, data));
        }),
        processor_seconds(&samples, scale, |data| {
            black_box(Cpu::new().derivatives(&parameters, data));
        }),
    ];
    Ok(Measured {
        device: [value? / rows, derivatives? / rows],
        processor,
        parameters,
    })
}

/// Least seconds per row.
fn processor_seconds(samples: &[Data], scale: &Scale, pass: impl Fn(&Data) + Sync) -> f64 {
    let rows: usize = samples.iter().map(Data::len).sum();
    let mut least = f64::INFINITY;
    for _ in 0..=scale.repetitions {
        let clock = Instant::now();
        samples.par_iter().for_each(&pass);
        least = least.min(clock.elapsed().as_secs_f64());
    }
    least / rows as f64
}
