//! Rows in f32: error against f64, and time.

use crate::correctness::{compared_data, noisy};
use crate::document::{Document, Table, significant};
use crate::passes::{draw, seconds};
use crate::scale::Scale;
use crate::{Devices, common};
use smoe_lab::backend::Backend;
use smoe_lab::backend::cuda::Operation;
use smoe_lab::error::Result;
use smoe_lab::model::GateKind;

pub fn run(devices: &Devices, scale: &Scale, document: &mut Document) -> Result<()> {
    document.heading("Rows in f32");
    document.paragraph(&format!(
        "Sums over {} rows of K = 3, d = 2 with rows in f32, against rows in f64: largest error over \
         the largest entry.",
        scale.compared_rows
    ));
    let mut table = Table::new(&["gate", "log-likelihood", "gradient", "Hessian"]);
    for kind in common::gate_kinds() {
        let parameters = noisy(kind, 3, 2);
        let data = compared_data(scale.compared_rows, 2);
        let exact = devices.double.derivatives(&parameters, &data);
        let single = devices.single.derivatives(&parameters, &data);
        table.row([
            name(kind),
            error([single.log_likelihood], [exact.log_likelihood]),
            error(single.gradient, exact.gradient),
            error(single.hessian, exact.hessian),
        ]);
    }
    document.table(table);
    let mut times = Table::new(&["K", "d", "n", "fits", "f64 ns/row", "f32 ns/row", "ratio"]);
    let shape = scale.centre;
    let model = crate::passes::model(shape);
    let seconds = [&devices.double, &devices.single].map(|cuda| {
        let replicates = draw(cuda, &model, shape)?;
        seconds(
            cuda,
            Operation::Derivatives,
            &replicates,
            &model,
            shape,
            scale,
        )
    });
    let [double, single] = seconds;
    let (double, single) = (double?, single?);
    let rows = (shape.rows * shape.fits) as f64;
    times.row([
        shape.experts.to_string(),
        shape.inputs.to_string(),
        shape.rows.to_string(),
        shape.fits.to_string(),
        significant(1e9 * double / rows),
        significant(1e9 * single / rows),
        significant(double / single),
    ]);
    document.paragraph("Value, gradient and Hessian, softplus gate:");
    document.table(times);
    Ok(())
}

fn error(got: impl IntoIterator<Item = f64>, expected: impl IntoIterator<Item = f64>) -> String {
    let got: Vec<f64> = got.into_iter().collect();
    let expected: Vec<f64> = expected.into_iter().collect();
    format!(
        "{:.1e}",
        crate::correctness::relative_error(&got, &expected)
    )
}

/// In words.
pub fn name(kind: GateKind) -> String {
    match kind {
        GateKind::Softmax => "softmax".to_string(),
        GateKind::Sigmoid => "sigmoid".to_string(),
        GateKind::Constant => "constant".to_string(),
        GateKind::Competition {
            response, weights, ..
        } => format!("{response:?}, {weights:?}").to_lowercase(),
    }
}
