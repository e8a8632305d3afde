//! Gates, eight inputs at a time.

use super::gate::{GateKind, Response, Weights};
use crate::num::lanes::{Lanes, Simd};
use crate::num::vector_math::{ln_normal, softplus_derivatives};

impl GateKind {
    /// The log-weight at `driver`, plus `bias`, and its first and second
    /// derivatives in the driver: [`GateKind::log_weight`] in every lane.
    #[inline(always)]
    pub(crate) fn log_weight_lanes<S: Simd>(
        self,
        simd: S,
        driver: S::V,
        bias: S::V,
    ) -> (S::V, S::V, S::V) {
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        match self {
            GateKind::Softmax => (driver + bias, one, zero),
            GateKind::Constant => (bias, zero, zero),
            GateKind::Sigmoid => {
                let (softplus, logistic, second) = softplus_derivatives(simd, -driver);
                (bias - softplus, logistic, -second)
            }
            GateKind::Competition {
                response,
                weights: Weights::Softmax,
                kappa,
            } => {
                let (rho, first, second) = match response {
                    Response::Softplus => softplus_derivatives(simd, driver),
                    Response::Absolute => (driver.abs(), sign(simd, driver), zero),
                    Response::Square => (simd.splat(0.5) * driver * driver, driver, one),
                };
                let kappa = simd.splat(kappa);
                (kappa.mul_add(rho, bias), kappa * first, kappa * second)
            }
            GateKind::Competition {
                response,
                weights: Weights::Normalised,
                ..
            } => {
                let (log, first, second) = match response {
                    Response::Softplus => log_softplus(simd, driver),
                    Response::Absolute => log_absolute(simd, driver),
                    Response::Square => log_square(simd, driver),
                };
                (log + bias, first, second)
            }
        }
    }
}

/// -1, 0 or 1.
#[inline(always)]
fn sign<S: Simd>(simd: S, t: S::V) -> S::V {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let sign = S::V::select(t.less(zero), -one, one);
    S::V::select(t.equal(zero), zero, sign)
}

/// log softplus(t), and its derivatives.
#[inline(always)]
fn log_softplus<S: Simd>(simd: S, t: S::V) -> (S::V, S::V, S::V) {
    let one = simd.splat(1.0);
    let (rho, first, second) = softplus_derivatives(simd, t);
    let slope = first / rho;
    let curve = second / rho - slope * slope;
    // Far below, first = second = e^t: log log(1 + e^t) = t - e^t / 2 + ...
    let half = simd.splat(0.5) * second;
    let far = t.less(simd.splat(-30.0));
    (
        S::V::select(far, t - half, ln_normal(simd, rho)),
        S::V::select(far, one - half, slope),
        S::V::select(far, -half, curve),
    )
}

/// log |t|, and its derivatives; -inf, 0, 0 at 0.
#[inline(always)]
fn log_absolute<S: Simd>(simd: S, t: S::V) -> (S::V, S::V, S::V) {
    let lowest = simd.splat(f64::MIN_POSITIVE);
    let none = t.abs().less(lowest);
    let log = ln_normal(simd, t.abs().max(lowest));
    let log = S::V::select(none, simd.splat(f64::NEG_INFINITY), log);
    let reciprocal = S::V::select(none, simd.splat(0.0), simd.splat(1.0) / t);
    (log, reciprocal, -(reciprocal * reciprocal))
}

/// log(t^2 / 2), and its derivatives.
#[inline(always)]
fn log_square<S: Simd>(simd: S, t: S::V) -> (S::V, S::V, S::V) {
    let two = simd.splat(2.0);
    let (log, first, second) = log_absolute(simd, t);
    let value = two.mul_add(log, simd.splat(-std::f64::consts::LN_2));
    (value, two * first, two * second)
}
