//! Normalisation of rows.
//!
//! Layer norm: y = gain * (x - mean) r + shift, r = 1 / sqrt(variance + epsilon).
//! RMS norm: y = gain * x r, r = 1 / sqrt(mean square + epsilon).
//!
//! With u = (x - mean) r (or x r) and g = gain * dy:
//! layer norm dx = r (g - mean(g) - u mean(g u)), RMS norm dx = r (g - u mean(g u));
//! dgain += sum dy u, dshift += sum dy.
//!
//! Ba, Kiros, Hinton (2016); Zhang, Sennrich (2019).

use crate::train::ops::linear::add_bias_gradient;
use crate::train::ops::real::{Real, dot, sum, sum_of, vectorised};
use crate::train::ops::rows;
use serde::{Deserialize, Serialize};

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Mean 0 and variance 1 before gain and shift.
    Layer,
    /// Mean square 1 before the gain; no shift.
    RootMeanSquare,
}

/// What the backward pass needs beside x: a row's [mean, r] (mean 0 for RMS norm).
pub type Moments<T> = [T; 2];

#[inline(always)]
fn moments<T: Real>(norm: Norm, epsilon: T, x: &[T]) -> Moments<T> {
    let scale = T::ONE / T::of(x.len() as f64);
    let mean = match norm {
        Norm::Layer => sum(x) * scale,
        Norm::RootMeanSquare => T::ZERO,
    };
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) * scale;
    [mean, T::ONE / (variance + epsilon).sqrt()]
}

/// Writes y and the moments.
///
/// # Shapes
/// x, y: rows, width. gain, shift: width (the shift for layer norm only). moments: rows.
pub fn forward<T: Real>(
    norm: Norm,
    epsilon: f64,
    x: &[T],
    gain: &[T],
    shift: Option<&[T]>,
    y: &mut [T],
    saved: &mut [Moments<T>],
) {
    let width = gain.len();
    let epsilon = T::of(epsilon);
    rows::for_each_pair((y, width), (saved, 1), |row, y, saved| {
        let x = &x[row * width..][..width];
        vectorised!(|| {
            let [mean, r] = moments(norm, epsilon, x);
            saved[0] = [mean, r];
            for ((y, &x), &gain) in y.iter_mut().zip(x).zip(gain) {
                *y = gain * ((x - mean) * r);
            }
            if let Some(shift) = shift {
                for (y, &shift) in y.iter_mut().zip(shift) {
                    *y += shift;
                }
            }
        });
    });
}

/// Gradients of the parameters, added to.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// dL/dgain
    pub gain: &'a mut [T],
    /// dL/dshift, if there is a shift.
    pub shift: Option<&'a mut [T]>,
}

/// Writes dL/dx and adds the gradients of the parameters.
///
/// # Shapes
/// As in [`forward`]; `dy`, `dx` as x.
pub fn backward<T: Real>(
    norm: Norm,
    x: &[T],
    gain: &[T],
    saved: &[Moments<T>],
    dy: &[T],
    dx: &mut [T],
    gradients: Gradients<T>,
) {
    let width = gain.len();
    let scale = T::ONE / T::of(width as f64);
    let parts = rows::map_blocks(dx, width, |first, block| {
        let (mut d_gain, mut centred) = (vec![T::ZERO; width], vec![T::ZERO; width]);
        for (i, dx) in block.chunks_exact_mut(width).enumerate() {
            let [mean, r] = saved[first + i];
            let at = (first + i) * width..(first + i + 1) * width;
            let (x, dy) = (&x[at.clone()], &dy[at]);
            vectorised!(|| {
                // mean(g u) = r (mean(g x) - mean(g) mean(x)) would cancel; u first.
                for (u, &x) in centred.iter_mut().zip(x) {
                    *u = (x - mean) * r;
                }
                for ((d_gain, &dy), &u) in d_gain.iter_mut().zip(dy).zip(&centred) {
                    *d_gain += dy * u;
                }
                for ((dx, &gain), &dy) in dx.iter_mut().zip(gain).zip(dy) {
                    *dx = gain * dy;
                }
            });
            vectorised!(|| {
                let shift = match norm {
                    Norm::Layer => sum(dx) * scale,
                    Norm::RootMeanSquare => T::ZERO,
                };
                let along = dot(dx, &centred) * scale;
                for (dx, &u) in dx.iter_mut().zip(&centred) {
                    *dx = r * (*dx - shift - u * along);
                }
            });
        }
        d_gain
    });
    for part in parts {
        for (total, part) in gradients.gain.iter_mut().zip(part) {
            *total += part;
        }
    }
    if let Some(shift) = gradients.shift {
        add_bias_gradient(dy, width, shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    const EPSILON: f64 = 1e-5;

    #[test]
    fn the_gradients_of_both_norms_match_finite_differences() {
        let (rows, width) = (3, 70);
        let n = rows * width;
        let (x, gain, c) = (normals(1, n), normals(2, width), normals(3, n));
        for (norm, shift) in [
            (Norm::Layer, Some(normals(4, width))),
            (Norm::RootMeanSquare, None),
        ] {
            let run = |x: &[f64], gain: &[f64], shift: Option<&[f64]>| {
                let (mut y, mut saved) = (vec![0.0; n], vec![[0.0; 2]; rows]);
                forward(norm, EPSILON, x, gain, shift, &mut y, &mut saved);
                (y, saved)
            };
            let (_, saved) = run(&x, &gain, shift.as_deref());
            let (mut dx, mut dgain, mut dshift) =
                (vec![0.0; n], vec![0.0; width], vec![0.0; width]);
            let gradients = Gradients {
                gain: &mut dgain,
                shift: shift.is_some().then_some(&mut dshift),
            };
            backward(norm, &x, &gain, &saved, &c, &mut dx, gradients);
            let value =
                |x: &[f64], gain: &[f64], shift: Option<&[f64]>| inner(&run(x, gain, shift).0, &c);
            assert_gradient("x", &x, &dx, |x| value(x, &gain, shift.as_deref()));
            assert_gradient("gain", &gain, &dgain, |g| value(&x, g, shift.as_deref()));
            if let Some(shift) = &shift {
                assert_gradient("shift", shift, &dshift, |s| value(&x, &gain, Some(s)));
            }
        }
    }

    #[test]
    fn a_layer_norm_ignores_a_constant_and_an_rms_norm_does_not() {
        let x = normals(5, 8);
        let moved: Vec<f64> = x.iter().map(|x| x + 3.0).collect();
        let y = |norm, x: &[f64]| {
            let (mut y, mut saved) = (vec![0.0; 8], vec![[0.0; 2]]);
            forward(norm, EPSILON, x, &[1.0; 8], None, &mut y, &mut saved);
            y
        };
        let gap = |norm| crate::train::ops::check::distance(&y(norm, &x), &y(norm, &moved));
        assert!(gap(Norm::Layer) < 1e-12);
        assert!(gap(Norm::RootMeanSquare) > 0.1);
    }
}
