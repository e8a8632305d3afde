//! What is measured: the estimator, its parameter set and its start.

use crate::common::{dense, mixture};
use ndarray::{Array1, Array2};
use smoe_lab::backend::Cpu;
use smoe_lab::fit::{Bounds, Centre, Limits, Options, Outcome, Start, StartContext, maximise};
use smoe_lab::model::{
    Data, Expert, ExpertGate, ExpertKind, GateKind, InputLaw, Model, Parameters, VarianceStructure,
};
use smoe_lab::num::dense::solve_ridged;
use smoe_lab::rng::{Purpose, Stream};

/// A box so wide that no maximum is near its boundary.
pub fn bounds(template: &Parameters) -> Bounds {
    let limits = Limits {
        coefficient: 1e3,
        bias: 1e3,
        gate_slope: 1e3,
        variance: [1e-6, 1e6],
        zero_slopes: Vec::new(),
        zero_gate_slopes: Vec::new(),
        centre: Centre::Origin,
    };
    limits.bounds(&template.layout())
}

/// The fit that is measured: with the options that the library recommends.
pub fn estimate(data: &Data, start: &Parameters) -> Outcome {
    maximise(
        &Cpu::new(),
        data,
        start,
        &bounds(start),
        &Options::default(),
    )
}

/// The start all peers have: least squares in each part of the rows, the part's
/// own residual variance, gate parameters zero.
pub fn partition_start(data: &Data, partition: &[usize], experts: usize) -> Parameters {
    let expert = |i| {
        let rows: Vec<usize> = (0..data.len()).filter(|&n| partition[n] == i).collect();
        least_squares(data, &rows)
    };
    Parameters {
        gate: dense(GateKind::Softmax),
        variance_structure: VarianceStructure::PerExpert,
        experts: (0..experts).map(expert).collect(),
    }
}

fn least_squares(data: &Data, rows: &[usize]) -> Expert {
    let inputs = data.dimension();
    let design = Array2::from_shape_fn((rows.len(), inputs + 1), |(n, j)| {
        data.row(rows[n]).0.get(j).copied().unwrap_or(1.0)
    });
    let responses: Array1<f64> = rows.iter().map(|&n| data.row(n).1).collect();
    let coefficients = solve_ridged(&design.t().dot(&design), &design.t().dot(&responses))
        .expect("each part has more rows than coefficients");
    let residuals = &responses - &design.dot(&coefficients);
    Expert {
        kind: ExpertKind::Linear,
        slope: coefficients.iter().take(inputs).copied().collect(),
        intercept: coefficients[inputs],
        scale: None,
        variance: residuals.dot(&residuals) / rows.len() as f64,
        gate: ExpertGate::Router {
            slope: vec![0.0; inputs],
            intercept: 0.0,
        },
    }
}

/// A mixture with a softmax gate for the measurements without a file, inputs
/// uniform on [-1, 1]^d.
pub fn design(experts: usize, inputs: usize) -> Model {
    let noise = [1.7, -1.4, 2.1, -0.9, 0.3, -2.2, 0.5, 1.8, -0.6];
    Model {
        input: InputLaw::Uniform {
            low: vec![-1.0; inputs],
            high: vec![1.0; inputs],
        },
        parameters: mixture(
            dense(GateKind::Softmax),
            ExpertKind::Linear,
            experts,
            inputs,
            VarianceStructure::PerExpert,
            &noise,
        ),
    }
}

/// The stream of a design's data.
pub fn data_stream() -> Stream {
    Stream::named(1, "peers", 0, Purpose::Data)
}

/// A start near the truth of a design.
pub fn perturbed_start(model: &Model, data: &Data) -> Parameters {
    let bounds = bounds(&model.parameters);
    let context = StartContext {
        template: &model.parameters,
        truth: Some(&model.parameters),
        data,
        bounds: &bounds,
    };
    Start::PerturbedTruth { radius: 0.2 }
        .parameters(context, &Stream::named(1, "peers", 0, Purpose::Start(0)))
        .expect("the truth is known")
}
