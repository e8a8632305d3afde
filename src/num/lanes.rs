//! Eight numbers at a time.
//!
//! A kernel is written once, over [`Lanes`], and compiled three times: for
//! AVX-512, for AVX2 with FMA, and for any processor. [`dispatch`] picks the best
//! at run time, so no build flag is needed. Eight lanes always, whatever the
//! registers hold, make every reduction's order, and with it every bit of a
//! result, the same on each of them; only a processor without fused
//! multiply-add rounds differently.

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::OnceLock;

/// Numbers in one [`Lanes`].
pub const WIDTH: usize = 8;

/// Memory that one [`Lanes`] is read from and written to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Octet(pub [f64; WIDTH]);

impl Octet {
    /// The sum of the eight, in one fixed order.
    pub fn sum(&self) -> f64 {
        let v = &self.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
}

/// Eight f64 and what kernels do with them. Comparisons are false for NaN.
pub trait Lanes:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// One truth value per lane.
    type Mask: Copy;
    /// self * factor + term, rounded once where the processor can.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The smaller; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// The larger; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// self < other
    fn less(self, other: Self) -> Self::Mask;
    /// self == other
    fn equal(self, other: Self) -> Self::Mask;
    /// `self` where the mask holds, else `other`.
    fn select(mask: Self::Mask, this: Self, other: Self) -> Self;
    /// Both masks.
    fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// True if the mask holds in any lane.
    fn any(mask: Self::Mask) -> bool;
    /// The bits and `mask`.
    fn bits_and(self, mask: u64) -> Self;
    /// The bits or `mask`.
    fn bits_or(self, mask: u64) -> Self;
    /// The bits plus `term`, as whole numbers modulo 2^64.
    fn bits_add(self, term: u64) -> Self;
    /// The bits moved up by 52, the width of a mantissa.
    fn bits_up(self) -> Self;
    /// The bits moved down by 52.
    fn bits_down(self) -> Self;
    /// Writes to memory.
    fn store(self, to: &mut Octet);

    /// |self|
    #[inline(always)]
    fn abs(self) -> Self {
        self.bits_and(!(1 << 63))
    }
}

/// slope . x + intercept at eight points; `x` gives one input after the other.
#[inline(always)]
pub fn affine<'a, S: Simd>(
    simd: S,
    slope: &[f64],
    intercept: f64,
    x: impl Iterator<Item = &'a Octet>,
) -> S::V {
    let mut value = simd.splat(intercept);
    for (slope, x) in slope.iter().zip(x) {
        value = simd.load(x).mul_add(simd.splat(*slope), value);
    }
    value
}

/// Proof that the processor has the instructions, and maker of [`Lanes`].
pub trait Simd: Copy {
    /// Its eight numbers.
    type V: Lanes;
    /// The same number in every lane.
    fn splat(self, value: f64) -> Self::V;
    /// Reads from memory.
    fn load(self, from: &Octet) -> Self::V;
}

/// Work written once for every instruction set. `run` must be
/// `#[inline(always)]`, and so must all that it calls with `simd`.
pub trait Kernel {
    /// What the work yields.
    type Output;
    /// Does the work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// AVX-512 F and DQ.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Whatever the build targets.
    Portable,
}

impl Level {
    /// The best that this processor has.
    pub fn detected() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| Level::available()[0])
    }

    /// All that this processor has, best first.
    pub fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                levels.push(Level::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Level::Avx2);
            }
        }
        levels.push(Level::Portable);
        levels
    }
}

/// Runs `kernel` with the best instructions at hand.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    dispatch_at(Level::detected(), kernel)
}

/// Runs `kernel` with the instructions of `level`, which must be available.
#[inline]
pub fn dispatch_at<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx512 => unsafe { x86::run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx2 => unsafe { x86::run_avx2(kernel) },
        _ => kernel.run(portable::Portable),
    }
}

/// The operators of a [`Lanes`] type from its arithmetic functions.
macro_rules! operators {
    ($type:ty, $add:path, $sub:path, $mul:path, $div:path) => {
        impl Add for $type {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                $add(self, other)
            }
        }
        impl Sub for $type {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                $sub(self, other)
            }
        }
        impl Mul for $type {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                $mul(self, other)
            }
        }
        impl Div for $type {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                $div(self, other)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Values of these types exist only inside [`run_avx512`] and [`run_avx2`]:
    //! their makers are private to this module's two runners. That makes the
    //! intrinsics sound.

    use super::{Kernel, Lanes, Octet, Simd};
    use std::arch::x86_64::*;
    use std::ops::{Add, Div, Mul, Neg, Sub};

    #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
    pub(super) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512Token(()))
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2Token(()))
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512Token(());
    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512d);
    #[derive(Clone, Copy)]
    pub(super) struct Avx2Token(());
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256d, __m256d);

    impl Simd for Avx512Token {
        type V = Avx512;
        #[inline(always)]
        fn splat(self, value: f64) -> Avx512 {
            Avx512(unsafe { _mm512_set1_pd(value) })
        }
        #[inline(always)]
        fn load(self, from: &Octet) -> Avx512 {
            Avx512(unsafe { _mm512_load_pd(from.0.as_ptr()) })
        }
    }

    impl Avx512 {
        #[inline(always)]
        fn bits(self) -> __m512i {
            unsafe { _mm512_castpd_si512(self.0) }
        }
        #[inline(always)]
        fn of(bits: __m512i) -> Self {
            Avx512(unsafe { _mm512_castsi512_pd(bits) })
        }
        #[inline(always)]
        fn plus(a: Self, b: Self) -> Self {
            Avx512(unsafe { _mm512_add_pd(a.0, b.0) })
        }
        #[inline(always)]
        fn minus(a: Self, b: Self) -> Self {
            Avx512(unsafe { _mm512_sub_pd(a.0, b.0) })
        }
        #[inline(always)]
        fn times(a: Self, b: Self) -> Self {
            Avx512(unsafe { _mm512_mul_pd(a.0, b.0) })
        }
        #[inline(always)]
        fn over(a: Self, b: Self) -> Self {
            Avx512(unsafe { _mm512_div_pd(a.0, b.0) })
        }
    }

    operators!(
        Avx512,
        Avx512::plus,
        Avx512::minus,
        Avx512::times,
        Avx512::over
    );

    impl Neg for Avx512 {
        type Output = Self;
        #[inline(always)]
        fn neg(self) -> Self {
            Self::of(unsafe { _mm512_xor_si512(self.bits(), _mm512_set1_epi64(i64::MIN)) })
        }
    }

    impl Lanes for Avx512 {
        type Mask = __mmask8;
        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            Avx512(unsafe { _mm512_fmadd_pd(self.0, factor.0, term.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_min_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Avx512(unsafe { _mm512_max_pd(self.0, other.0) })
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            Avx512(unsafe { _mm512_sqrt_pd(self.0) })
        }
        #[inline(always)]
        fn less(self, other: Self) -> __mmask8 {
            unsafe { _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, other.0) }
        }
        #[inline(always)]
        fn equal(self, other: Self) -> __mmask8 {
            unsafe { _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self.0, other.0) }
        }
        #[inline(always)]
        fn select(mask: __mmask8, this: Self, other: Self) -> Self {
            Avx512(unsafe { _mm512_mask_blend_pd(mask, other.0, this.0) })
        }
        #[inline(always)]
        fn both(a: __mmask8, b: __mmask8) -> __mmask8 {
            a & b
        }
        #[inline(always)]
        fn any(mask: __mmask8) -> bool {
            mask != 0
        }
        #[inline(always)]
        fn bits_and(self, mask: u64) -> Self {
            Self::of(unsafe { _mm512_and_si512(self.bits(), _mm512_set1_epi64(mask as i64)) })
        }
        #[inline(always)]
        fn bits_or(self, mask: u64) -> Self {
            Self::of(unsafe { _mm512_or_si512(self.bits(), _mm512_set1_epi64(mask as i64)) })
        }
        #[inline(always)]
        fn bits_add(self, term: u64) -> Self {
            Self::of(unsafe { _mm512_add_epi64(self.bits(), _mm512_set1_epi64(term as i64)) })
        }
        #[inline(always)]
        fn bits_up(self) -> Self {
            Self::of(unsafe { _mm512_slli_epi64::<52>(self.bits()) })
        }
        #[inline(always)]
        fn bits_down(self) -> Self {
            Self::of(unsafe { _mm512_srli_epi64::<52>(self.bits()) })
        }
        #[inline(always)]
        fn store(self, to: &mut Octet) {
            unsafe { _mm512_store_pd(to.0.as_mut_ptr(), self.0) }
        }
    }

    impl Simd for Avx2Token {
        type V = Avx2;
        #[inline(always)]
        fn splat(self, value: f64) -> Avx2 {
            let v = unsafe { _mm256_set1_pd(value) };
            Avx2(v, v)
        }
        #[inline(always)]
        fn load(self, from: &Octet) -> Avx2 {
            let at = from.0.as_ptr();
            unsafe { Avx2(_mm256_load_pd(at), _mm256_load_pd(at.add(4))) }
        }
    }

    impl Avx2 {
        /// Applies a function of bits to both halves.
        #[inline(always)]
        fn on_bits(self, f: impl Fn(__m256i) -> __m256i) -> Self {
            let half = |v| unsafe { _mm256_castsi256_pd(f(_mm256_castpd_si256(v))) };
            Avx2(half(self.0), half(self.1))
        }
        #[inline(always)]
        fn plus(a: Self, b: Self) -> Self {
            unsafe { Avx2(_mm256_add_pd(a.0, b.0), _mm256_add_pd(a.1, b.1)) }
        }
        #[inline(always)]
        fn minus(a: Self, b: Self) -> Self {
            unsafe { Avx2(_mm256_sub_pd(a.0, b.0), _mm256_sub_pd(a.1, b.1)) }
        }
        #[inline(always)]
        fn times(a: Self, b: Self) -> Self {
            unsafe { Avx2(_mm256_mul_pd(a.0, b.0), _mm256_mul_pd(a.1, b.1)) }
        }
        #[inline(always)]
        fn over(a: Self, b: Self) -> Self {
            unsafe { Avx2(_mm256_div_pd(a.0, b.0), _mm256_div_pd(a.1, b.1)) }
        }
    }

    operators!(Avx2, Avx2::plus, Avx2::minus, Avx2::times, Avx2::over);

    impl Neg for Avx2 {
        type Output = Self;
        #[inline(always)]
        fn neg(self) -> Self {
            self.on_bits(|v| unsafe { _mm256_xor_si256(v, _mm256_set1_epi64x(i64::MIN)) })
        }
    }

    impl Lanes for Avx2 {
        type Mask = (__m256d, __m256d);
        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            unsafe {
                Avx2(
                    _mm256_fmadd_pd(self.0, factor.0, term.0),
                    _mm256_fmadd_pd(self.1, factor.1, term.1),
                )
            }
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            unsafe {
                Avx2(
                    _mm256_min_pd(self.0, other.0),
                    _mm256_min_pd(self.1, other.1),
                )
            }
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe {
                Avx2(
                    _mm256_max_pd(self.0, other.0),
                    _mm256_max_pd(self.1, other.1),
                )
            }
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            unsafe { Avx2(_mm256_sqrt_pd(self.0), _mm256_sqrt_pd(self.1)) }
        }
        #[inline(always)]
        fn less(self, other: Self) -> Self::Mask {
            unsafe {
                (
                    _mm256_cmp_pd::<_CMP_LT_OQ>(self.0, other.0),
                    _mm256_cmp_pd::<_CMP_LT_OQ>(self.1, other.1),
                )
            }
        }
        #[inline(always)]
        fn equal(self, other: Self) -> Self::Mask {
            unsafe {
                (
                    _mm256_cmp_pd::<_CMP_EQ_OQ>(self.0, other.0),
                    _mm256_cmp_pd::<_CMP_EQ_OQ>(self.1, other.1),
                )
            }
        }
        #[inline(always)]
        fn select(mask: Self::Mask, this: Self, other: Self) -> Self {
            unsafe {
                Avx2(
                    _mm256_blendv_pd(other.0, this.0, mask.0),
                    _mm256_blendv_pd(other.1, this.1, mask.1),
                )
            }
        }
        #[inline(always)]
        fn both(a: Self::Mask, b: Self::Mask) -> Self::Mask {
            unsafe { (_mm256_and_pd(a.0, b.0), _mm256_and_pd(a.1, b.1)) }
        }
        #[inline(always)]
        fn any(mask: Self::Mask) -> bool {
            unsafe { _mm256_movemask_pd(_mm256_or_pd(mask.0, mask.1)) != 0 }
        }
        #[inline(always)]
        fn bits_and(self, mask: u64) -> Self {
            self.on_bits(|v| unsafe { _mm256_and_si256(v, _mm256_set1_epi64x(mask as i64)) })
        }
        #[inline(always)]
        fn bits_or(self, mask: u64) -> Self {
            self.on_bits(|v| unsafe { _mm256_or_si256(v, _mm256_set1_epi64x(mask as i64)) })
        }
        #[inline(always)]
        fn bits_add(self, term: u64) -> Self {
            self.on_bits(|v| unsafe { _mm256_add_epi64(v, _mm256_set1_epi64x(term as i64)) })
        }
        #[inline(always)]
        fn bits_up(self) -> Self {
            self.on_bits(|v| unsafe { _mm256_slli_epi64::<52>(v) })
        }
        #[inline(always)]
        fn bits_down(self) -> Self {
            self.on_bits(|v| unsafe { _mm256_srli_epi64::<52>(v) })
        }
        #[inline(always)]
        fn store(self, to: &mut Octet) {
            let at = to.0.as_mut_ptr();
            unsafe {
                _mm256_store_pd(at, self.0);
                _mm256_store_pd(at.add(4), self.1);
            }
        }
    }
}

mod portable {
    use super::{Lanes, Octet, Simd, WIDTH};
    use std::array::from_fn;
    use std::ops::{Add, Div, Mul, Neg, Sub};

    #[derive(Clone, Copy)]
    pub(super) struct Portable;
    #[derive(Clone, Copy)]
    pub(super) struct Eight([f64; WIDTH]);

    /// Where the target has no fused multiply-add, the function call that
    /// replaces it would cost more than the whole kernel.
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

    impl Simd for Portable {
        type V = Eight;
        #[inline(always)]
        fn splat(self, value: f64) -> Eight {
            Eight([value; WIDTH])
        }
        #[inline(always)]
        fn load(self, from: &Octet) -> Eight {
            Eight(from.0)
        }
    }

    impl Eight {
        #[inline(always)]
        fn plus(a: Self, b: Self) -> Self {
            Eight(from_fn(|k| a.0[k] + b.0[k]))
        }
        #[inline(always)]
        fn minus(a: Self, b: Self) -> Self {
            Eight(from_fn(|k| a.0[k] - b.0[k]))
        }
        #[inline(always)]
        fn times(a: Self, b: Self) -> Self {
            Eight(from_fn(|k| a.0[k] * b.0[k]))
        }
        #[inline(always)]
        fn over(a: Self, b: Self) -> Self {
            Eight(from_fn(|k| a.0[k] / b.0[k]))
        }
        #[inline(always)]
        fn on_bits(self, f: impl Fn(u64) -> u64) -> Self {
            Eight(self.0.map(|v| f64::from_bits(f(v.to_bits()))))
        }
    }

    operators!(Eight, Eight::plus, Eight::minus, Eight::times, Eight::over);

    impl Neg for Eight {
        type Output = Self;
        #[inline(always)]
        fn neg(self) -> Self {
            Eight(self.0.map(|v| -v))
        }
    }

    impl Lanes for Eight {
        type Mask = [bool; WIDTH];
        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            if FUSED {
                Eight(from_fn(|k| self.0[k].mul_add(factor.0[k], term.0[k])))
            } else {
                self * factor + term
            }
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self::select(self.less(other), self, other)
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self::select(other.less(self), self, other)
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            Eight(self.0.map(f64::sqrt))
        }
        #[inline(always)]
        fn less(self, other: Self) -> [bool; WIDTH] {
            from_fn(|k| self.0[k] < other.0[k])
        }
        #[inline(always)]
        fn equal(self, other: Self) -> [bool; WIDTH] {
            from_fn(|k| self.0[k] == other.0[k])
        }
        #[inline(always)]
        fn select(mask: [bool; WIDTH], this: Self, other: Self) -> Self {
            Eight(from_fn(|k| if mask[k] { this.0[k] } else { other.0[k] }))
        }
        #[inline(always)]
        fn both(a: [bool; WIDTH], b: [bool; WIDTH]) -> [bool; WIDTH] {
            from_fn(|k| a[k] & b[k])
        }
        #[inline(always)]
        fn any(mask: [bool; WIDTH]) -> bool {
            mask.contains(&true)
        }
        #[inline(always)]
        fn bits_and(self, mask: u64) -> Self {
            self.on_bits(|v| v & mask)
        }
        #[inline(always)]
        fn bits_or(self, mask: u64) -> Self {
            self.on_bits(|v| v | mask)
        }
        #[inline(always)]
        fn bits_add(self, term: u64) -> Self {
            self.on_bits(|v| v.wrapping_add(term))
        }
        #[inline(always)]
        fn bits_up(self) -> Self {
            self.on_bits(|v| v << 52)
        }
        #[inline(always)]
        fn bits_down(self) -> Self {
            self.on_bits(|v| v >> 52)
        }
        #[inline(always)]
        fn store(self, to: &mut Octet) {
            to.0 = self.0;
        }
    }
}
