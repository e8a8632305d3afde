//! Time against n, and the same bits on one and two threads.

use crate::estimator::{data_stream, design, estimate, perturbed_start};
use crate::measure::{median, on_threads, timed};
use serde_json::json;
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::model::{Data, Parameters, draw_sample};
use std::hint::black_box;

const EXPERTS: usize = 2;
const INPUTS: usize = 1;
const COUNTS: [usize; 7] = [
    10_000, 31_623, 100_000, 316_228, 1_000_000, 3_162_278, 10_000_000,
];
/// Rows of a measurement: smaller passes and fits are repeated.
const PASS_ROWS: usize = 10_000_000;
const FIT_ROWS: usize = 1_000_000;
/// Measurements of each n, for the median; a fit to more rows than `FIT_ROWS`
/// is made once.
const MEASUREMENTS: usize = 5;
/// Rows of the comparison of bits.
const COMPARED_ROWS: usize = 1_000_000;

pub fn run(quick: bool) {
    let counts = &COUNTS[..if quick { 5 } else { 7 }];
    let (fit_rows, measurements) = if quick {
        (COUNTS[0], 1)
    } else {
        (FIT_ROWS, MEASUREMENTS)
    };
    let model = design(EXPERTS, INPUTS);
    let largest = draw_sample(&model, 0, counts[counts.len() - 1], &data_stream());
    let start = perturbed_start(&model, &largest);
    let (mut rows, mut pass_times, mut fit_times) = (Vec::new(), Vec::new(), Vec::new());
    on_threads(1, || {
        for &n in counts {
            let data = largest.head(n);
            let (pass, _) = seconds_each(PASS_ROWS / n, measurements, || {
                Cpu::new().gradient(black_box(&start), &data)
            });
            let measurements = if n > FIT_ROWS { 1 } else { measurements };
            let (fit, outcome) =
                seconds_each(fit_rows / n, measurements, || estimate(&data, &start));
            rows.push(json!({
                "n": n,
                "pass_seconds": pass,
                "fit_seconds": fit,
                "stop": outcome.stop.name(),
            }));
            pass_times.push(pass);
            fit_times.push(fit);
        }
    });
    let compared = largest.head(COMPARED_ROWS);
    println!(
        "{}",
        json!({
            "K": EXPERTS,
            "d": INPUTS,
            "threads": 1,
            "rows": rows,
            "pass_exponent": exponent(counts, &pass_times),
            "fit_exponent": exponent(counts, &fit_times),
            "same_bits_on_two_threads":
                on_threads(1, || bits(&compared, &start)) == on_threads(2, || bits(&compared, &start)),
        })
    );
}

/// CPU seconds of `work`, the median of measurements, each over several runs;
/// and its result.
fn seconds_each<T>(runs: usize, measurements: usize, work: impl Fn() -> T) -> (f64, T) {
    let runs = runs.max(1);
    let mut results = (0..measurements).map(|_| {
        timed(|| {
            for _ in 1..runs {
                black_box(work());
            }
            work()
        })
    });
    let (first, _, result) = results.next().expect("at least one measurement");
    let mut seconds = vec![first / runs as f64];
    seconds.extend(results.map(|(cpu, _, _)| cpu / runs as f64));
    (median(seconds), result)
}

/// Slope of log-time in log n, by least squares.
fn exponent(counts: &[usize], seconds: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let across: Vec<f64> = counts.iter().map(|&n| (n as f64).ln()).collect();
    let up: Vec<f64> = seconds.iter().map(|s| s.ln()).collect();
    let (centre, level) = (mean(&across), mean(&up));
    let products = across
        .iter()
        .zip(&up)
        .map(|(a, u)| (a - centre) * (u - level));
    let squares = across.iter().map(|a| (a - centre) * (a - centre));
    products.sum::<f64>() / squares.sum::<f64>()
}

/// The bits of every kind of pass and of a fit.
fn bits(data: &Data, start: &Parameters) -> Vec<u64> {
    let (value, gradient) = Cpu::new().gradient(start, data);
    let derivatives = Cpu::new().derivatives(start, data);
    let statistics = Cpu::new().em_statistics(start, data);
    let outcome = estimate(data, start);
    let mut numbers = vec![
        Cpu::new().log_likelihood(start, data),
        value,
        derivatives.log_likelihood,
        statistics.log_likelihood,
        outcome.log_likelihood,
    ];
    numbers.extend(gradient);
    numbers.extend(derivatives.gradient);
    numbers.extend(derivatives.hessian);
    numbers.extend(statistics.gate_score);
    numbers.extend(statistics.gate_information);
    for expert in statistics.experts {
        numbers.extend(expert.moment);
        numbers.extend(expert.gram);
    }
    numbers.extend(outcome.parameters.layout().pack(&outcome.parameters));
    numbers.into_iter().map(f64::to_bits).collect()
}
