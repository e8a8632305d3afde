//! Pointwise activations, and the gated unit.
//!
//! ReLU max(x, 0), slope 0 at 0. GELU x Phi(x), Phi the normal distribution
//! function, exact (Hendrycks, Gimpel 2016). SiLU x s(x), s the logistic function.
//! Gated: y = silu(gate) * up (SwiGLU of Shazeer 2020).

use crate::train::ops::real::Real;
use serde::{Deserialize, Serialize};

/// A pointwise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x Phi(x)
    Gelu,
    /// x / (1 + exp(-x))
    Silu,
}

const ROOT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// 1 / sqrt(2 pi)
const DENSITY_AT_ZERO: f64 = 0.398_942_280_401_432_7;

#[inline(always)]
fn normal_distribution<T: Real>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(ROOT_HALF)).erf())
}

/// max(x, 0); what is not a number stays.
#[inline(always)]
pub fn rectified<T: Real>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

impl Activation {
    /// y_i = f(x_i); `x` and `y` have the same length.
    #[inline(always)]
    pub fn forward<T: Real>(self, x: &[T], y: &mut [T]) {
        let pairs = y.iter_mut().zip(x);
        match self {
            Activation::Relu => {
                pairs.for_each(|(y, &x)| *y = rectified(x));
            }
            Activation::Gelu => pairs.for_each(|(y, &x)| *y = x * normal_distribution(x)),
            Activation::Silu => pairs.for_each(|(y, &x)| *y = x * x.sigmoid()),
        }
    }

    /// `gradient[i] *= f'(x_i)`: turns dL/dy into dL/dx.
    #[inline(always)]
    pub fn backward<T: Real>(self, x: &[T], gradient: &mut [T]) {
        let pairs = gradient.iter_mut().zip(x);
        match self {
            Activation::Relu => pairs.for_each(|(g, &x)| {
                *g = if x > T::ZERO { *g } else { T::ZERO };
            }),
            Activation::Gelu => pairs.for_each(|(g, &x)| {
                let density = (T::of(-0.5) * x * x).exp() * T::of(DENSITY_AT_ZERO);
                *g *= normal_distribution(x) + x * density;
            }),
            Activation::Silu => pairs.for_each(|(g, &x)| {
                let s = x.sigmoid();
                *g *= s * (T::ONE + x * (T::ONE - s));
            }),
        }
    }
}

/// y_i = silu(gate_i) up_i
#[inline(always)]
pub fn gated_forward<T: Real>(gate: &[T], up: &[T], y: &mut [T]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate * gate.sigmoid() * up;
    }
}

/// Replaces gate and up by dL/dgate and dL/dup.
#[inline(always)]
pub fn gated_backward<T: Real>(gate: &mut [T], up: &mut [T], dy: &[T]) {
    for ((gate, up), &dy) in gate.iter_mut().zip(up.iter_mut()).zip(dy) {
        let s = gate.sigmoid();
        let activated = *gate * s;
        *gate = dy * *up * s * (T::ONE + *gate * (T::ONE - s));
        *up = dy * activated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_slopes_of_all_activations_match_finite_differences() {
        let (x, c) = (normals(1, 40), normals(2, 40));
        for activation in [Activation::Relu, Activation::Gelu, Activation::Silu] {
            let value = |x: &[f64]| {
                let mut y = vec![0.0; 40];
                activation.forward(x, &mut y);
                inner(&y, &c)
            };
            let mut gradient = c.clone();
            activation.backward(&x, &mut gradient);
            assert_gradient("activation", &x, &gradient, value);
        }
    }

    #[test]
    fn the_gradients_of_the_gated_unit_match_finite_differences() {
        let (gate, up, c) = (normals(1, 20), normals(2, 20), normals(3, 20));
        let value = |gate: &[f64], up: &[f64]| {
            let mut y = vec![0.0; 20];
            gated_forward(gate, up, &mut y);
            inner(&y, &c)
        };
        let (mut dgate, mut dup) = (gate.clone(), up.clone());
        gated_backward(&mut dgate, &mut dup, &c);
        assert_gradient("gate", &gate, &dgate, |gate| value(gate, &up));
        assert_gradient("up", &up, &dup, |up| value(&gate, up));
    }

    #[test]
    fn known_values_of_the_exact_gelu() {
        let mut y = [0.0; 2];
        Activation::Gelu.forward(&[1.0_f64, -2.0], &mut y);
        assert!((y[0] - 0.841_344_746_068_543).abs() < 1e-14);
        assert!((y[1] + 0.045_500_263_896_358_4).abs() < 1e-14);
    }
}
