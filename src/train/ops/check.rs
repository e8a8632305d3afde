//! What the tests of operations share: random numbers, finite differences, threads.

use crate::rng::{Purpose, Stream};

/// `length` standard normals, a function of `seed`.
pub fn normals(seed: u64, length: usize) -> Vec<f64> {
    let stream = Stream::named(seed, "train", 0, Purpose::Data);
    (0..length as u64)
        .map(|i| stream.standard_normal(i, 0))
        .collect()
}

/// `length` standard normals in single precision.
pub fn narrow_normals(seed: u64, length: usize) -> Vec<f32> {
    normals(seed, length)
        .into_iter()
        .map(|x| x as f32)
        .collect()
}

/// Compares a gradient with central differences at every coordinate.
#[track_caller]
pub fn assert_gradient(name: &str, at: &[f64], gradient: &[f64], value: impl Fn(&[f64]) -> f64) {
    const STEP: f64 = 1e-5;
    assert_eq!(at.len(), gradient.len(), "{name}: length");
    let mut point = at.to_vec();
    for i in 0..at.len() {
        point[i] = at[i] + STEP;
        let above = value(&point);
        point[i] = at[i] - STEP;
        let below = value(&point);
        point[i] = at[i];
        let expected = (above - below) / (2.0 * STEP);
        assert!(
            (gradient[i] - expected).abs() < 2e-8 * (1.0 + expected.abs() + above.abs()),
            "{name}[{i}]: gradient {}, differences {expected}",
            gradient[i]
        );
    }
}

/// Largest absolute difference.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// sum_i a_i b_i
pub fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `work` on this many threads.
pub fn threads<R: Send>(count: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count);
    pool.build().unwrap().install(work)
}
