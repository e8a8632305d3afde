//! Clocks and threads.

use cpu_time::ProcessTime;
use rayon::ThreadPoolBuilder;
use std::time::Instant;

/// CPU and wall seconds of `work`, and its result.
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, f64, T) {
    let (cpu, wall) = (ProcessTime::now(), Instant::now());
    let result = work();
    (
        cpu.elapsed().as_secs_f64(),
        wall.elapsed().as_secs_f64(),
        result,
    )
}

/// Runs `work` with so many threads for parallel passes.
pub fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads can be started")
        .install(work)
}

/// One thread, and two where the machine has them.
pub fn thread_counts() -> Vec<usize> {
    let available = std::thread::available_parallelism().map_or(1, |count| count.get());
    (1..=available.min(2)).collect()
}

/// The middle of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
