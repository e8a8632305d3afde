//! Rows per second of one pass over data, by operation, gate, experts, inputs
//! and rows: `cargo bench --bench passes`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{dense, mixture};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::model::{
    ExpertKind, GateKind, InputLaw, Model, Response, VarianceStructure, Weights, draw_sample,
};
use smoe_lab::rng::{Purpose, Stream};
use std::hint::black_box;

/// From one that fits the first cache to one that fits none.
const ROWS: [usize; 3] = [300, 10_000, 1_000_000];

fn passes(criterion: &mut Criterion) {
    let softplus = GateKind::Competition {
        response: Response::Softplus,
        weights: Weights::Softmax,
        kappa: 1.0,
    };
    let noise = [0.7, -0.4, 1.1, -0.9, 0.3, -1.2, 0.5, 0.8, -0.6];
    for (gate, kind) in [("softplus", softplus), ("softmax", GateKind::Softmax)] {
        for (experts, inputs) in [(2, 1), (3, 2), (4, 4), (8, 8)] {
            let structure = VarianceStructure::PerExpert;
            let model = Model {
                input: InputLaw::Uniform {
                    low: vec![-1.0; inputs],
                    high: vec![1.0; inputs],
                },
                parameters: mixture(
                    dense(kind),
                    ExpertKind::Linear,
                    experts,
                    inputs,
                    structure,
                    &noise,
                ),
            };
            let case = format!("{gate},K={experts},d={inputs}");
            for rows in ROWS {
                operations(criterion, &format!("{case},n={rows}"), &model, rows);
            }
        }
    }
}

fn operations(criterion: &mut Criterion, case: &str, model: &Model, rows: usize) {
    let stream = Stream::named(1, "bench", 0, Purpose::Data);
    let data = draw_sample(model, 0, rows, &stream);
    let (backend, parameters) = (Cpu::new(), &model.parameters);
    let mut group = criterion.benchmark_group(case);
    group.throughput(Throughput::Elements(rows as u64));
    let mut add = |name: &str, run: &dyn Fn()| {
        group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(run));
    };
    add("log_likelihood", &|| {
        black_box(backend.log_likelihood(parameters, &data));
    });
    add("gradient", &|| {
        black_box(backend.gradient(parameters, &data));
    });
    add("derivatives", &|| {
        black_box(backend.derivatives(parameters, &data));
    });
    add("em_statistics", &|| {
        black_box(backend.em_statistics(parameters, &data));
    });
    add("draw_sample", &|| {
        black_box(draw_sample(model, 0, rows, &stream));
    });
    group.finish();
}

criterion_group!(benches, passes);
criterion_main!(benches);
