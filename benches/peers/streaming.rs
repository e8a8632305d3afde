//! Memory of a large fit over the size of its data.

use crate::estimator::{data_stream, design, estimate, perturbed_start};
use crate::measure::{on_threads, timed};
use serde_json::json;
use smoe_lab::model::draw_sample;
use smoe_lab::report::peak_memory;

const ROWS: usize = 10_000_000;
const EXPERTS: usize = 4;
const INPUTS: usize = 4;

pub fn run(quick: bool, threads: usize) {
    let rows = if quick { ROWS / 10 } else { ROWS };
    let before = peak_memory();
    let model = design(EXPERTS, INPUTS);
    let data = draw_sample(&model, 0, rows, &data_stream());
    let drawn = peak_memory();
    let start = perturbed_start(&model, &data);
    let (cpu, wall, outcome) = on_threads(threads, || timed(|| estimate(&data, &start)));
    let peak = peak_memory();
    let size = 8 * rows * (INPUTS + 1);
    println!(
        "{}",
        json!({
            "n": rows, "K": EXPERTS, "d": INPUTS, "threads": threads,
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "log_likelihood": outcome.log_likelihood,
            "stop": outcome.stop.name(),
            "data_bytes": size,
            "peak_bytes_before_data": before,
            "peak_bytes_with_data": drawn,
            "peak_bytes": peak,
            "peak_over_data": peak.map(|peak| peak as f64 / size as f64),
        })
    );
}
