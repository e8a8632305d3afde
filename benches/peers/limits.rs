//! What the machine can do at most: exponentials, logarithms, fused
//! multiply-adds, divisions and bytes per second.

use smoe_lab::num::vector_math::{exp_in_place, ln_in_place};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Measured limits of some threads together, per second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub exponentials: f64,
    pub logarithms: f64,
    pub multiply_adds: f64,
    pub divisions: f64,
    pub bytes: f64,
}

impl Limits {
    /// The better of two measurements, limit by limit.
    pub fn max(self, other: Limits) -> Limits {
        Limits {
            exponentials: self.exponentials.max(other.exponentials),
            logarithms: self.logarithms.max(other.logarithms),
            multiply_adds: self.multiply_adds.max(other.multiply_adds),
            divisions: self.divisions.max(other.divisions),
            bytes: self.bytes.max(other.bytes),
        }
    }

    /// Measures all limits with so many threads at once; `memory` is read for the
    /// bandwidth and should be many times the cache.
    pub fn measure(threads: usize, memory: &[f64]) -> Limits {
        let share = memory.len() / threads;
        Limits {
            exponentials: best_of(threads, [exponential, exp_in_place]),
            logarithms: best_of(threads, [logarithm, ln_in_place]),
            multiply_adds: best_rate(threads, |_| multiply_add_rounds()),
            divisions: best_rate(threads, |_| slice_rounds(inverse)),
            bytes: best_rate(threads, |thread| {
                let part = &memory[thread * share..(thread + 1) * share];
                let began = Instant::now();
                black_box(sum(black_box(part)));
                (8 * part.len(), began.elapsed())
            }),
        }
    }
}

/// The rate of the faster of two ways to do the same: the crate's own and a plain
/// loop, so that a slow function of ours does not lower the limit.
fn best_of(threads: usize, kernels: [fn(&mut [f64]); 2]) -> f64 {
    let rates = kernels.map(|kernel| best_rate(threads, |_| slice_rounds(kernel)));
    rates[0].max(rates[1])
}

/// Repetitions of each measurement. They are short, so that most of them are not
/// interrupted; the best one is the limit.
const REPETITIONS: usize = 5;

fn best_rate(threads: usize, work: impl Fn(usize) -> (usize, Duration) + Sync) -> f64 {
    let rates = (0..REPETITIONS).map(|_| rate(threads, &work));
    rates.fold(0.0, f64::max)
}

/// Operations per second of all threads; `work` gives a thread's number of
/// operations and their time.
fn rate(threads: usize, work: impl Fn(usize) -> (usize, Duration) + Sync) -> f64 {
    let (work, barrier) = (&work, &Barrier::new(threads));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    barrier.wait();
                    let (operations, time) = work(thread);
                    operations as f64 / time.as_secs_f64()
                })
            })
            .collect();
        let rates = workers.into_iter().map(|worker| worker.join());
        rates.map(|rate| rate.expect("no worker panics")).sum()
    })
}

/// Values per slice, which stays in the first-level cache.
const SLICE: usize = 2048;
/// Rounds over a slice: about a millisecond.
const SLICE_ROUNDS: usize = 500;

/// Number and time of the operations of `kernel` over a slice of values between
/// 0 and 1, where responsibilities and, but for their sign, most exponents lie.
fn slice_rounds(kernel: fn(&mut [f64])) -> (usize, Duration) {
    let arguments: Vec<f64> = (1..=SLICE).map(|i| i as f64 / SLICE as f64).collect();
    let mut values = arguments.clone();
    let mut time = Duration::ZERO;
    for _ in 0..SLICE_ROUNDS {
        values.copy_from_slice(&arguments);
        let began = Instant::now();
        kernel(black_box(&mut values));
        time += began.elapsed();
    }
    (SLICE * SLICE_ROUNDS, time)
}

/// Independent chains per lane: enough to hide the latency of an operation.
const CHAINS: usize = 12;
/// Steps of each chain: about a millisecond.
const STEPS: usize = 250_000;

/// Number and time of fused multiply-adds.
fn multiply_add_rounds() -> (usize, Duration) {
    let began = Instant::now();
    let per_step = multiply_add_chains(black_box(STEPS));
    (STEPS * per_step, began.elapsed())
}

/// Defines a function that runs `body`, written for any number of lanes, with
/// the widest vectors of the processor.
macro_rules! with_widest_vectors {
    ($name:ident, $body:ident, $argument:ty, $result:ty) => {
        fn $name(argument: $argument) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq")]
                fn with_avx512(argument: $argument) -> $result {
                    $body::<8>(argument)
                }
                #[target_feature(enable = "avx2,fma")]
                fn with_avx2(argument: $argument) -> $result {
                    $body::<4>(argument)
                }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                    // SAFETY: the processor has these instructions.
                    return unsafe { with_avx512(argument) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { with_avx2(argument) };
                }
            }
            $body::<2>(argument)
        }
    };
}

with_widest_vectors!(multiply_add_chains, multiply_add_lanes, usize, usize);
with_widest_vectors!(inverse, inverse_lanes, &mut [f64], ());
with_widest_vectors!(sum, sum_lanes, &[f64], f64);
with_widest_vectors!(exponential, exponential_lanes, &mut [f64], ());
with_widest_vectors!(logarithm, logarithm_lanes, &mut [f64], ());

#[inline(always)]
fn multiply_add_lanes<const LANES: usize>(steps: usize) -> usize {
    let (factor, term) = (black_box([0.5; LANES]), black_box([1.0; LANES]));
    let mut chains = [[1.0f64; LANES]; CHAINS];
    for _ in 0..steps {
        for chain in &mut chains {
            for lane in 0..LANES {
                chain[lane] = chain[lane].mul_add(factor[lane], term[lane]);
            }
        }
    }
    black_box(chains);
    CHAINS * LANES
}

#[inline(always)]
fn inverse_lanes<const LANES: usize>(values: &mut [f64]) {
    for value in values {
        *value = 1.0 / *value;
    }
}

#[inline(always)]
fn sum_lanes<const LANES: usize>(values: &[f64]) -> f64 {
    let mut sums = [[0.0; LANES]; 4];
    for chunk in values.chunks_exact(4 * LANES) {
        for (sums, values) in sums.iter_mut().zip(chunk.chunks_exact(LANES)) {
            for lane in 0..LANES {
                sums[lane] += values[lane];
            }
        }
    }
    sums.iter().flatten().sum()
}

/// e^v = 2^k e^r with k whole and |r| <= log(2) / 2, e^r by its Taylor
/// polynomial.
#[inline(always)]
fn exponential_lanes<const LANES: usize>(values: &mut [f64]) {
    // Adding this number rounds to a whole number, which its low bits then hold.
    const ROUND: f64 = 1.5 * (1u64 << 52) as f64;
    const LOG_TWO_HIGH: f64 = 0.693_147_180_369_123_8;
    const LOG_TWO_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const DEGREE: usize = 13;
    let mut inverse_factorials = [1.0; DEGREE + 1];
    for k in 1..=DEGREE {
        inverse_factorials[k] = inverse_factorials[k - 1] / k as f64;
    }
    for value in values {
        let rounded = value.mul_add(std::f64::consts::LOG2_E, ROUND);
        let whole = rounded - ROUND;
        let rest = whole.mul_add(-LOG_TWO_HIGH, *value);
        let rest = whole.mul_add(-LOG_TWO_LOW, rest);
        let mut power = inverse_factorials[DEGREE];
        for k in (0..DEGREE).rev() {
            power = power.mul_add(rest, inverse_factorials[k]);
        }
        let scale = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
        *value = power * scale;
    }
}

/// log v = k log 2 + 2 artanh s with v = 2^k m, m near 1, s = (m - 1) / (m + 1).
#[inline(always)]
fn logarithm_lanes<const LANES: usize>(values: &mut [f64]) {
    // The bits of sqrt(1/2): subtracting them before taking the exponent puts m
    // between sqrt(1/2) and sqrt(2).
    const HALF_ROOT: u64 = 0x3fe6_a09e_667f_3bcd;
    // A double with this exponent holds a small whole number in its low bits.
    const WHOLE: u64 = 0x4330_0000_0000_0000;
    const TERMS: usize = 10;
    for value in values {
        // Shifted to be positive, by 1023 exponents.
        let shifted = value
            .to_bits()
            .wrapping_sub(HALF_ROOT)
            .wrapping_add(1023 << 52);
        let exponent = f64::from_bits((shifted >> 52) | WHOLE) - f64::from_bits(WHOLE) - 1023.0;
        let mantissa = f64::from_bits((shifted & ((1 << 52) - 1)).wrapping_add(HALF_ROOT));
        let ratio = (mantissa - 1.0) / (mantissa + 1.0);
        let square = ratio * ratio;
        let mut series = 1.0 / (2 * TERMS + 1) as f64;
        for k in (0..TERMS).rev() {
            series = series.mul_add(square, 1.0 / (2 * k + 1) as f64);
        }
        *value = exponent.mul_add(std::f64::consts::LN_2, 2.0 * ratio * series);
    }
}
