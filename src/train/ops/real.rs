//! The two kinds of numbers: f32 for work, f64 for checking derivatives.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};
use std::sync::OnceLock;

/// f32 or f64, with the functions that the operations need.
///
/// The f32 functions are polynomials without branches, which compilers turn into
/// vector instructions; without fused multiply-add, so that the bits are the same
/// on every processor.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + SubAssign
    + Mul<Output = Self>
    + MulAssign
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// Minus infinity.
    const LOWEST: Self;
    /// The nearest number.
    fn of(value: f64) -> Self;
    /// As f64, exact.
    fn wide(self) -> f64;
    /// e^x; 0 below the smallest normal number.
    fn exp(self) -> Self;
    /// log(1 + e^x), for every x.
    fn softplus(self) -> Self;
    /// (2 / sqrt pi) times the integral of exp(-s^2) from 0 to x.
    fn erf(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;

    /// 1 / (1 + e^-x)
    #[inline(always)]
    fn sigmoid(self) -> Self {
        // The exponent is never positive, so nothing overflows.
        let e = (-self.abs()).exp();
        let numerator = if self < Self::ZERO { e } else { Self::ONE };
        numerator / (Self::ONE + e)
    }

    /// The larger; `other` where `self` is not a number.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const LOWEST: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn softplus(self) -> f64 {
        // Written so that not-a-number passes through.
        let positive = if self < 0.0 { 0.0 } else { self };
        positive + f64::exp(-f64::abs(self)).ln_1p()
    }
    #[inline(always)]
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const LOWEST: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    /// Within 2 units in the last place.
    #[inline(always)]
    fn exp(self) -> f32 {
        const HIGH: f32 = 88.72;
        let x = if self < LOW { LOW } else { self };
        let x = if x > HIGH { HIGH } else { x };
        let (p, n) = exp_parts(x);
        // 2^n in two factors: at the upper end n is 128, one too many for one.
        let half = n >> 1;
        let value = p * power_of_two(half) * power_of_two(n - half);
        let value = if self > HIGH { f32::INFINITY } else { value };
        if self < LOW { 0.0 } else { value }
    }

    /// max(x, 0) + log(1 + u), u = e^-|x|: log(1 + u) / u on [0, 1] by the polynomial of
    /// degree 9 with the least relative error, 5e-9.
    #[inline(always)]
    fn softplus(self) -> f32 {
        let x = -Real::abs(self);
        let (p, n) = exp_parts(if x < LOW { LOW } else { x });
        let u = p * power_of_two(n);
        // In pairs: one term after another would wait for each other.
        let (square, fourth) = (u * u, (u * u) * (u * u));
        let low = (1.0 - 0.499_999_02 * u) + (0.333_299_64 - 0.249_541_34 * u) * square;
        let high = (0.196_759_39 - 0.153_055_92 * u) + (0.106_036_544 - 0.056_959_53 * u) * square;
        let last = 0.019_851_46 - 0.003_244_024_7 * u;
        let p = low + (high + last * fourth) * fourth;
        let positive = if self < 0.0 { 0.0 } else { self };
        positive + u * p
    }

    /// The rational minimax form x P(x^2) / Q(x^2) on |x| <= 4, as in
    /// Eigen; absolute error below 4e-7.
    #[inline(always)]
    fn erf(self) -> f32 {
        let x = if self < -4.0 { -4.0 } else { self };
        let x = if x > 4.0 { 4.0 } else { x };
        let q = x * x;
        let p = -2.726_142_3e-10;
        let p = p * q + 2.770_681_4e-8;
        let p = p * q + -2.101_024e-6;
        let p = p * q + -5.692_506_4e-5;
        let p = p * q + -7.349_906_3e-4;
        let p = p * q + -2.954_6e-3;
        let p = p * q + -1.609_603_3e-2;
        let d = -1.456_607_2e-5;
        let d = d * q + -2.133_740_6e-4;
        let d = d * q + -1.682_827e-3;
        let d = d * q + -7.373_329e-3;
        let d = d * q + -1.426_473_9e-2;
        x * p / d
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
}

/// Below it e^x is no normal number.
const LOW: f32 = -87.3;

/// e^x = p 2^n: x = n log 2 + r, |r| <= log(2)/2, p Taylor's polynomial of degree 7 in r.
#[inline(always)]
fn exp_parts(x: f32) -> (f32, i32) {
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    (p, shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32)
}

/// 2^n, n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// What `vectorised!` compiles for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// AVX-512: F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every processor of the architecture has.
    Plain,
}

impl Level {
    /// The best of this processor.
    #[inline]
    pub fn best() -> Level {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                    return Level::Avx512;
                }
                if has!("avx2") {
                    return Level::Avx2;
                }
            }
            Level::Plain
        })
    }
}

/// Runs `work` compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Runs `work` compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(crate) fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// `vectorised!(|| work)` runs work compiled for AVX-512 or AVX2 where the processor has
/// it; the same bits everywhere, because multiplications and additions are never fused.
///
/// A macro, so that every level has a closure of its own: one that is called from
/// several functions would not be inlined into them, and would be compiled for none. Nor
/// would a long one: give it a loop or two.
macro_rules! vectorised {
    (|| $work:expr) => {
        match $crate::train::ops::real::Level::best() {
            #[cfg(target_arch = "x86_64")]
            $crate::train::ops::real::Level::Avx512 => {
                let work = || $work;
                // SAFETY: the processor has these parts of AVX-512.
                unsafe { $crate::train::ops::real::with_avx512(work) }
            }
            #[cfg(target_arch = "x86_64")]
            $crate::train::ops::real::Level::Avx2 => {
                let work = || $work;
                // SAFETY: the processor has AVX2.
                unsafe { $crate::train::ops::real::with_avx2(work) }
            }
            $crate::train::ops::real::Level::Plain => $work,
        }
    };
}
pub(crate) use vectorised;

/// Asks for numbers that will soon be read: where they lie is hard to guess.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks((64 / size_of::<T>()).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which every processor of the architecture takes.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Partial sums that run side by side in [`dot`] and [`sum`].
const LANES: usize = 16;

/// The sum of the lanes, by halves.
#[inline(always)]
fn fold<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// sum_i a_i b_i in an order fixed by the length.
#[inline(always)]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for (a, b) in a_whole.iter().zip(b_whole) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += a * b;
    }
    fold(lanes)
}

/// sum_i f(a_i) in an order fixed by the length.
#[inline(always)]
pub fn sum_of<T: Real>(a: &[T], f: impl Fn(T) -> T) -> T {
    let (whole, rest) = a.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for a in whole {
        for i in 0..LANES {
            lanes[i] += f(a[i]);
        }
    }
    for (i, &a) in rest.iter().enumerate() {
        lanes[i] += f(a);
    }
    fold(lanes)
}

/// sum_i a_i in an order fixed by the length.
#[inline(always)]
pub fn sum<T: Real>(a: &[T]) -> T {
    sum_of(a, |a| a)
}

/// max_i a_i; minus infinity of nothing.
#[inline(always)]
pub fn maximum<T: Real>(a: &[T]) -> T {
    let (whole, rest) = a.as_chunks::<LANES>();
    let mut lanes = [T::LOWEST; LANES];
    for a in whole {
        for i in 0..LANES {
            lanes[i] = a[i].larger(lanes[i]);
        }
    }
    let all = rest.iter().chain(&lanes);
    all.fold(T::LOWEST, |best, &a| a.larger(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points -100, -99.99, ..., 100.
    fn grid() -> impl Iterator<Item = f32> {
        (-10_000..=10_000).map(|i| i as f32 / 100.0)
    }

    #[test]
    fn the_single_precision_exponential_is_right_to_two_units_in_the_last_place() {
        for x in grid().filter(|x| (-87.0..88.7).contains(x)) {
            let exact = f64::from(x).exp();
            let error = (f64::from(Real::exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): {error:e}");
        }
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(89.0_f32), f32::INFINITY);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_single_precision_softplus_keeps_its_digits_in_both_tails() {
        for x in grid().filter(|x| *x > -87.0) {
            let exact = Real::softplus(f64::from(x));
            let error = (f64::from(Real::softplus(x)) - exact).abs() / exact;
            assert!(error < 4e-7, "softplus({x}): {error:e}");
        }
        assert!(Real::softplus(f32::NAN).is_nan());
    }

    #[test]
    fn the_single_precision_error_function_is_right_to_seven_digits() {
        for x in grid() {
            let error = (f64::from(Real::erf(x)) - libm::erf(f64::from(x))).abs();
            assert!(error < 4e-7, "erf({x}): {error:e}");
        }
        assert!(Real::erf(f32::NAN).is_nan());
    }

    #[test]
    fn the_sigmoid_is_one_minus_its_mirror_and_never_overflows() {
        for x in grid() {
            let s = Real::sigmoid(x);
            assert!((0.0..=1.0).contains(&s));
            assert!((s + Real::sigmoid(-x) - 1.0).abs() < 2e-7);
        }
        assert_eq!(Real::sigmoid(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn a_dot_product_counts_every_element_once() {
        for length in [0, 1, 15, 16, 17, 100] {
            let ones = vec![1.0_f64; length];
            assert_eq!(dot(&ones, &ones), length as f64);
            assert_eq!(sum(&ones), length as f64);
        }
    }
}
