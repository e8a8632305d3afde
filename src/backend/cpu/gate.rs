//! Log-weights of the rows of a tile: [`crate::model::GateKind::log_weight`].

use super::mixture::Mixture;
use super::tile::{OCTETS, Tile};
use crate::model::{GateKind, Response, Weights};
use crate::num::lanes::{Lanes, Simd};
use crate::num::vector_math::{ln_normal, softplus_derivatives};

/// Replaces every driver by the log-weight of an expression in it: value, first
/// and second derivative. A macro, since a closure cannot be told to be inlined,
/// and not inlined it would be compiled without the vector instructions.
macro_rules! each {
    ($simd:ident, $atoms:ident, $driver:ident => $log_weight:expr) => {
        for v in 0..OCTETS {
            let $driver = $simd.load(&$atoms.log_weight[v]);
            let (value, first, second) = $log_weight;
            value.store(&mut $atoms.log_weight[v]);
            first.store(&mut $atoms.first[v]);
            second.store(&mut $atoms.second[v]);
        }
    };
}

/// Replaces the drivers in a tile by log-weights and their derivatives, and the
/// selection scores of a sparse gate by responses in the same order.
#[inline(always)]
pub(super) fn apply<S: Simd>(simd: S, mixture: &Mixture, tile: &mut Tile) {
    for (expert, atoms) in mixture.experts.iter().zip(&mut tile.atoms) {
        let b = simd.splat(expert.bias);
        match mixture.gate.kind {
            // These are their drivers.
            GateKind::Softmax | GateKind::Constant => {}
            GateKind::Sigmoid => each!(simd, atoms, t => {
                let (softplus, logistic, second) = softplus_derivatives(simd, -t);
                (-softplus, logistic, -second)
            }),
            GateKind::Competition {
                response,
                weights: Weights::Softmax,
                kappa,
            } => {
                let k = simd.splat(kappa);
                match response {
                    Response::Softplus => each!(simd, atoms, t => {
                        let (rho, first, second) = softplus_derivatives(simd, t);
                        (k.mul_add(rho, b), k * first, k * second)
                    }),
                    Response::Absolute => each!(simd, atoms, t => {
                        (k.mul_add(t.abs(), b), k * sign(simd, t), simd.splat(0.0))
                    }),
                    Response::Square => each!(simd, atoms, t => {
                        ((simd.splat(0.5) * t * t).mul_add(k, b), k * t, k)
                    }),
                }
            }
            GateKind::Competition {
                response,
                weights: Weights::Normalised,
                ..
            } => match response {
                Response::Softplus => each!(simd, atoms, t => log_softplus(simd, t, b)),
                Response::Absolute => each!(simd, atoms, t => log_absolute(simd, t, b)),
                Response::Square => each!(simd, atoms, t => log_square(simd, t, b)),
            },
        }
    }
    let by_size = matches!(
        mixture.gate.kind,
        GateKind::Competition {
            response: Response::Absolute | Response::Square,
            ..
        }
    );
    if by_size && mixture.active < mixture.experts.len() {
        for octet in tile.atoms.iter_mut().flat_map(|a| &mut a.selection) {
            simd.load(octet).abs().store(octet);
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

/// log softplus(t), plus a bias, and its derivatives.
#[inline(always)]
fn log_softplus<S: Simd>(simd: S, t: S::V, bias: S::V) -> (S::V, S::V, S::V) {
    let one = simd.splat(1.0);
    let (rho, first, second) = softplus_derivatives(simd, t);
    let slope = first / rho;
    let curve = second / rho - slope * slope;
    // Far below, first = second = e^t: log log(1 + e^t) = t - e^t / 2 + ...
    let half = simd.splat(0.5) * second;
    let far = t.less(simd.splat(-30.0));
    (
        S::V::select(far, t - half, ln_normal(simd, rho)) + bias,
        S::V::select(far, one - half, slope),
        S::V::select(far, -half, curve),
    )
}

/// log |t|, plus a bias, and its derivatives; -inf, 0, 0 at 0.
#[inline(always)]
fn log_absolute<S: Simd>(simd: S, t: S::V, bias: S::V) -> (S::V, S::V, S::V) {
    let lowest = simd.splat(f64::MIN_POSITIVE);
    let none = t.abs().less(lowest);
    let log = ln_normal(simd, t.abs().max(lowest));
    let log = S::V::select(none, simd.splat(f64::NEG_INFINITY), log);
    let reciprocal = S::V::select(none, simd.splat(0.0), simd.splat(1.0) / t);
    (log + bias, reciprocal, -(reciprocal * reciprocal))
}

/// log(t^2 / 2), plus a bias, and its derivatives.
#[inline(always)]
fn log_square<S: Simd>(simd: S, t: S::V, bias: S::V) -> (S::V, S::V, S::V) {
    let two = simd.splat(2.0);
    let (log, first, second) = log_absolute(simd, t, simd.splat(0.0));
    let value = two.mul_add(log, simd.splat(-std::f64::consts::LN_2));
    (value + bias, two * first, two * second)
}
