//! Elementary functions of eight numbers at a time.
//!
//! Each has a relative error of at most 5e-16 (the cosine: absolute), checked
//! against 60-digit arithmetic in `tests/vector_math.rs`. Polynomials are
//! minimax, fitted by Remez' algorithm to the reduced argument.

use super::lanes::{Kernel, Lanes, Octet, Simd, WIDTH, dispatch};

/// log 2 in two parts; the first has trailing zeros, so that its product with an
/// exponent is exact without fused multiply-add too.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// 1.5 * 2^52: adding it rounds to a whole number and leaves that number in the
/// low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// exp is 0 below this: a subnormal weight is no weight.
const EXP_LOWEST: f64 = -708.0;
/// exp is infinite above this.
const EXP_HIGHEST: f64 = 709.0;
const MANTISSA: u64 = (1 << 52) - 1;
const ONE: u64 = 0x3ff0_0000_0000_0000;
/// Bits of sqrt(1/2).
const ROOT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;

/// c0 + c1 t + c2 t^2 + ... by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, t: S::V, coefficients: [f64; N]) -> S::V {
    let mut value = simd.splat(coefficients[N - 1]);
    for k in (0..N - 1).rev() {
        value = value.mul_add(t, simd.splat(coefficients[k]));
    }
    value
}

/// x = n log 2 + r with n whole and |r| <= log(2) / 2: returns e^r - 1, to a
/// relative error of an ulp, and 2^n, for |x| < 709.
#[inline(always)]
fn exp_reduced<S: Simd>(simd: S, x: S::V) -> (S::V, S::V) {
    let shifted = x.mul_add(simd.splat(std::f64::consts::LOG2_E), simd.splat(ROUND));
    let n = shifted - simd.splat(ROUND);
    let r = n.mul_add(simd.splat(-LN_2_HIGH), x);
    let r = n.mul_add(simd.splat(-LN_2_LOW), r);
    // e^r = 1 + r + r^2 q(r)
    let q = polynomial(
        simd,
        r,
        [
            0.500_000_000_000_001_1,
            0.166_666_666_666_664_1,
            0.041_666_666_666_529_08,
            0.008_333_333_333_495_624,
            0.001_388_888_894_392_265_6,
            0.000_198_412_695_047_653_84,
            2.480_149_276_278_181_3e-5,
            2.755_758_734_216_402e-6,
            2.763_037_862_521_066_3e-7,
            2.499_996_535_964_128e-8,
        ],
    );
    ((r * r).mul_add(q, r), shifted.bits_up().bits_add(ONE))
}

/// e^x for x <= 709; 0 below -708.
#[inline(always)]
pub fn exp_below<S: Simd>(simd: S, x: S::V) -> S::V {
    let (less_one, power) = exp_reduced(simd, x);
    let value = (less_one + simd.splat(1.0)) * power;
    S::V::select(x.less(simd.splat(EXP_LOWEST)), simd.splat(0.0), value)
}

/// e^x - 1 for x <= 709, exact to rounding for small x too.
#[inline(always)]
pub fn exp_m1<S: Simd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    let (less_one, power) = exp_reduced(simd, x);
    let value = power.mul_add(less_one, power - one);
    S::V::select(x.less(simd.splat(EXP_LOWEST)), -one, value)
}

/// e^x; 0 below -708, infinite above 709.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    let value = exp_below(simd, x);
    let infinite = simd.splat(EXP_HIGHEST).less(x);
    S::V::select(infinite, simd.splat(f64::INFINITY), value)
}

/// log(1 + f) + exponent log 2 for 1 + f between sqrt(1/2) and sqrt(2).
///
/// With s = f / (2 + f): log(1 + f) = 2 artanh s = f - s (f - R(s^2)).
#[inline(always)]
fn ln_reduced<S: Simd>(simd: S, f: S::V, exponent: S::V) -> S::V {
    let s = f / (f + simd.splat(2.0));
    let z = s * s;
    let r = z * polynomial(
        simd,
        z,
        [
            0.666_666_666_666_674,
            0.399_999_999_993_779_6,
            0.285_714_287_513_055_55,
            0.222_221_975_871_699_95,
            0.181_836_189_939_797_78,
            0.153_125_695_097_012_32,
            0.148_114_055_397_898_15,
        ],
    );
    // f - f^2/2 + s (f^2/2 + R): what is large stays exact.
    let half = f * f * simd.splat(0.5);
    let low = s.mul_add(half + r, exponent * simd.splat(LN_2_LOW));
    exponent.mul_add(simd.splat(LN_2_HIGH), f - (half - low))
}

/// log x for normal positive x.
#[inline(always)]
pub fn ln_normal<S: Simd>(simd: S, x: S::V) -> S::V {
    let shifted = x.bits_add(ONE - ROOT_HALF);
    let mantissa = shifted.bits_and(MANTISSA).bits_add(ROOT_HALF);
    // The exponent as a number: as the low bits of 2^52.
    const TWO_52: f64 = 4_503_599_627_370_496.0;
    let biased = shifted.bits_down().bits_or(TWO_52.to_bits());
    let exponent = biased - simd.splat(TWO_52 + 1023.0);
    ln_reduced(simd, mantissa - simd.splat(1.0), exponent)
}

/// log x; -inf at 0 (and for subnormal x), NaN below, infinite at infinity.
#[inline(always)]
pub fn ln<S: Simd>(simd: S, x: S::V) -> S::V {
    let value = ln_normal(simd, x);
    let infinity = simd.splat(f64::INFINITY);
    let value = S::V::select(x.less(infinity), value, x);
    let value = S::V::select(x.less(simd.splat(f64::MIN_POSITIVE)), -infinity, value);
    S::V::select(x.less(simd.splat(0.0)), simd.splat(f64::NAN), value)
}

/// log(1 + e) for 0 <= e <= 1, exact to rounding for small e too.
#[inline(always)]
pub fn ln_1p_unit<S: Simd>(simd: S, e: S::V) -> S::V {
    let one = simd.splat(1.0);
    let upper = simd.splat(std::f64::consts::SQRT_2 - 1.0).less(e);
    let f = S::V::select(upper, (e - one) * simd.splat(0.5), e);
    let exponent = S::V::select(upper, one, simd.splat(0.0));
    ln_reduced(simd, f, exponent)
}

/// cos(2 pi u) for 0 <= u <= 1; absolute error at most 5e-16.
///
/// u is reduced, exactly, to the nearest quarter turn.
#[inline(always)]
pub fn cos_turn<S: Simd>(simd: S, u: S::V) -> S::V {
    let one = simd.splat(1.0);
    let shifted = u.mul_add(simd.splat(4.0), simd.splat(ROUND));
    let quarter = shifted - simd.splat(ROUND);
    let t = quarter.mul_add(simd.splat(-0.25), u) * simd.splat(std::f64::consts::TAU);
    let z = t * t;
    let cosine = polynomial(
        simd,
        z,
        [
            0.041_666_666_666_666_6,
            -0.001_388_888_888_887_412_5,
            2.480_158_728_948_218_4e-5,
            -2.755_731_435_233_307e-7,
            2.087_572_327_328_653_6e-9,
            -1.135_964_780_709_020_6e-11,
        ],
    );
    let cosine = (z * z).mul_add(cosine, simd.splat(-0.5).mul_add(z, one));
    let sine = polynomial(
        simd,
        z,
        [
            -0.166_666_666_666_666_32,
            0.008_333_333_333_322_413,
            -0.000_198_412_698_298_078_2,
            2.755_731_369_192_191_7e-6,
            -2.505_075_811_584_396e-8,
            1.589_679_568_470_823e-10,
        ],
    );
    let sine = (t * z).mul_add(sine, t);
    // Quarter turns 0, 1, 2, 3, 4: cos, -sin, -cos, sin, cos.
    let is = |k: f64| quarter.equal(simd.splat(k));
    let value = S::V::select(is(1.0), -sine, cosine);
    let value = S::V::select(is(2.0), -cosine, value);
    S::V::select(is(3.0), sine, value)
}

/// softplus(t) = log(1 + e^t), its derivative (the logistic function) and its
/// second derivative; see [`super::log_space::softplus_derivatives`].
#[inline(always)]
pub fn softplus_derivatives<S: Simd>(simd: S, t: S::V) -> (S::V, S::V, S::V) {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let e = exp_below(simd, -t.abs());
    let reciprocal = one / (one + e);
    let share = e * reciprocal;
    let logistic = S::V::select(t.less(zero), share, reciprocal);
    let value = t.max(zero) + ln_1p_unit(simd, e);
    (value, logistic, share * reciprocal)
}

/// Replaces every value by its exponential.
pub fn exp_in_place(values: &mut [f64]) {
    struct Exp;
    impl Function for Exp {
        #[inline(always)]
        fn at<S: Simd>(&self, simd: S, x: S::V) -> S::V {
            exp(simd, x)
        }
    }
    dispatch(InPlace(values, Exp));
}

/// Replaces every value by its natural logarithm.
pub fn ln_in_place(values: &mut [f64]) {
    struct Ln;
    impl Function for Ln {
        #[inline(always)]
        fn at<S: Simd>(&self, simd: S, x: S::V) -> S::V {
            ln(simd, x)
        }
    }
    dispatch(InPlace(values, Ln));
}

/// A function of eight numbers.
pub trait Function {
    /// Its values; must be `#[inline(always)]`.
    fn at<S: Simd>(&self, simd: S, x: S::V) -> S::V;
}

/// Applies a function to a slice.
pub struct InPlace<'a, F>(pub &'a mut [f64], pub F);

impl<F: Function> Kernel for InPlace<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (whole, rest) = self.0.as_chunks_mut::<WIDTH>();
        let mut octet = Octet::default();
        for chunk in whole {
            octet.0 = *chunk;
            self.1.at(simd, simd.load(&octet)).store(&mut octet);
            *chunk = octet.0;
        }
        octet.0[..rest.len()].copy_from_slice(rest);
        self.1.at(simd, simd.load(&octet)).store(&mut octet);
        rest.copy_from_slice(&octet.0[..rest.len()]);
    }
}
