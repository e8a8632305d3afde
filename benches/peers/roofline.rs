//! One gradient pass against the least time the machine could need for it.

use crate::estimator::{data_stream, design};
use crate::limits::Limits;
use crate::measure::{on_threads, thread_counts, timed};
use serde_json::json;
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::model::draw_sample;
use std::hint::black_box;

const ROWS: usize = 1_000_000;
/// (K, d) of the passes.
const SIZES: [(usize, usize); 3] = [(2, 1), (3, 2), (4, 4)];
/// Rounds of limits and passes in turn.
const ROUNDS: usize = 9;
/// Passes of each size in a round.
const PASSES: usize = 5;
/// Numbers read for the bandwidth: 1 GiB.
const MEMORY: usize = 1 << 27;

/// What one row of one pass needs by the formulas, with K experts, d inputs and
/// a softmax gate.
struct Operations {
    exponentials: usize,
    logarithms: usize,
    divisions: usize,
    /// Every other operation: additions, products and maxima, alone or fused.
    multiply_adds: usize,
    bytes: usize,
}

fn operations(experts: usize, inputs: usize) -> Operations {
    let (k, d) = (experts, inputs);
    // The last expert's router score is zero.
    let routed = k - 1;
    let multiply_adds = [
        k * (d + 1),        // residuals
        routed * d,         // router scores, from their intercepts
        2 * k,              // log-densities: the square, and its line
        routed,             // joint log-densities
        2 * routed + 2 * k, // largest of K twice, differences from it
        2 * routed,         // two sums of exponentials
        4,                  // log-likelihood of the row and its sum
        4,                  // both inverses and their ratio from one division
        k + routed,         // responsibilities and weights
        k * (d + 4),        // sums of r z x, r z, r z^2, r, and r z itself
        routed * (d + 2),   // sums of (r - w) x and r - w, and r - w itself
    ];
    Operations {
        // Relative to the largest; of two values one exponential is enough.
        exponentials: if k == 2 { 2 } else { 2 * k },
        logarithms: 1,
        // The inverses of both sums of exponentials, from that of their product.
        divisions: 1,
        multiply_adds: multiply_adds.iter().sum(),
        bytes: 8 * (d + 1),
    }
}

pub fn run(quick: bool) {
    let rounds = if quick { 3 } else { ROUNDS };
    let memory = vec![1.0; if quick { MEMORY / 4 } else { MEMORY }];
    let sizes: Vec<_> = SIZES
        .iter()
        .map(|&(experts, inputs)| {
            let model = design(experts, inputs);
            let data = draw_sample(&model, 0, ROWS, &data_stream());
            (model.parameters, data)
        })
        .collect();
    let threads = thread_counts();
    let mut limits = vec![Limits::default(); threads.len()];
    let mut seconds = vec![vec![Vec::new(); sizes.len()]; threads.len()];
    for _ in 0..rounds {
        for (t, &count) in threads.iter().enumerate() {
            limits[t] = limits[t].max(Limits::measure(count, &memory));
            on_threads(count, || {
                for (s, (parameters, data)) in sizes.iter().enumerate() {
                    let pass = || black_box(Cpu::new().gradient(black_box(parameters), data));
                    pass();
                    for _ in 0..PASSES {
                        // CPU time would be blind to threads that wait for each
                        // other. Neighbours on the machine only ever add time.
                        let (_, wall, _) = timed(pass);
                        seconds[t][s].push(wall);
                    }
                }
            });
        }
    }
    let mut passes = Vec::new();
    for (s, (experts, inputs)) in SIZES.into_iter().enumerate() {
        let need = operations(experts, inputs);
        for (t, count) in threads.iter().enumerate() {
            let limit = limits[t];
            let n = ROWS as f64;
            let arithmetic = n
                * (need.exponentials as f64 / limit.exponentials
                    + need.logarithms as f64 / limit.logarithms
                    + need.divisions as f64 / limit.divisions
                    + need.multiply_adds as f64 / limit.multiply_adds);
            let memory = n * need.bytes as f64 / limit.bytes;
            let measured = seconds[t][s].iter().copied().fold(f64::INFINITY, f64::min);
            passes.push(json!({
                "n": ROWS, "K": experts, "d": inputs, "threads": count,
                "fraction": arithmetic.max(memory) / measured,
                "seconds": measured,
                "arithmetic_seconds": arithmetic,
                "memory_seconds": memory,
                "per_row": {
                    "exponentials": need.exponentials,
                    "logarithms": need.logarithms,
                    "divisions": need.divisions,
                    "multiply_adds": need.multiply_adds,
                    "bytes": need.bytes,
                },
            }));
        }
    }
    let limits: Vec<_> = threads
        .iter()
        .zip(&limits)
        .map(|(threads, limit)| {
            json!({
                "threads": threads,
                "exponentials_per_second": limit.exponentials,
                "logarithms_per_second": limit.logarithms,
                "multiply_adds_per_second": limit.multiply_adds,
                "divisions_per_second": limit.divisions,
                "bytes_per_second": limit.bytes,
            })
        })
        .collect();
    println!("{}", json!({"limits": limits, "passes": passes}));
}
