//! Directions that keep a linear form.

use crate::fit::quadratic::restrict;
use ndarray::{Array1, Array2, s};

/// The directions on some coordinates that keep the linear form.
pub(super) struct Face {
    moving: Vec<usize>,
    /// D on them.
    scale: Array1<f64>,
    /// D^-1 w over its squared length, if it is not 0: moves the form by 1.
    pub across: Option<Array1<f64>>,
    /// Z. Shape: moving, moving or one less.
    pub basis: Array2<f64>,
}

impl Face {
    /// # Shapes
    /// `weights`, `scale`: all coordinates.
    pub fn new(moving: Vec<usize>, weights: &Array1<f64>, scale: &Array1<f64>) -> Self {
        let scale: Array1<f64> = moving.iter().map(|&j| scale[j]).collect();
        let normal: Array1<f64> = moving.iter().map(|&j| weights[j]).collect();
        let normal = normal / &scale;
        let square = normal.dot(&normal);
        let count = moving.len();
        let (across, basis) = match square > 0.0 {
            false => (None, Array2::eye(count)),
            true => {
                let mut mirror = &normal / square.sqrt();
                mirror[0] += 1.0f64.copysign(mirror[0]);
                let twice = 2.0 / mirror.dot(&mirror);
                let reflection = Array2::from_shape_fn((count, count), |(a, b)| {
                    f64::from(u8::from(a == b)) - twice * mirror[a] * mirror[b]
                });
                let basis = reflection.slice(s![.., 1..]).to_owned();
                (Some(normal / square), basis)
            }
        };
        Face {
            moving,
            scale,
            across,
            basis,
        }
    }

    /// Z' D^-1 v
    pub fn along(&self, v: &Array1<f64>) -> Array1<f64> {
        let moving: Array1<f64> = self.moving.iter().map(|&j| v[j]).collect();
        self.basis.t().dot(&(moving / &self.scale))
    }

    /// D^-1 A D^-1
    pub fn scaled_curvature(&self, hessian: &Array2<f64>) -> Array2<f64> {
        let mut scaled = -restrict(hessian, &self.moving);
        for ((a, b), value) in scaled.indexed_iter_mut() {
            *value /= self.scale[a] * self.scale[b];
        }
        scaled
    }

    /// Z' D^-1 A D^-1 Z
    pub fn curvature(&self, hessian: &Array2<f64>) -> Array2<f64> {
        let half = self.scaled_curvature(hessian).dot(&self.basis);
        self.basis.t().dot(&half)
    }

    /// D^-1 Z y on all coordinates.
    pub fn expand(&self, y: &Array1<f64>, size: usize) -> Array1<f64> {
        self.unscaled(&self.basis.dot(y), size)
    }

    pub fn unscaled(&self, v: &Array1<f64>, size: usize) -> Array1<f64> {
        let mut all = Array1::zeros(size);
        for ((&j, value), scale) in self.moving.iter().zip(v).zip(&self.scale) {
            all[j] = value / scale;
        }
        all
    }
}
