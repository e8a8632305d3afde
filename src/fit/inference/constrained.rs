//! Maximum likelihood on the plane w . theta = c inside the box.
//!
//! With A minus the Hessian, D^2 its diagonal at the unconstrained maximum and Z an
//! orthonormal basis of the plane's directions, in units of D and on the coordinates that
//! may move, a step is D^-1 Z y with
//!
//! ```text
//! y = argmax of (Z' D^-1 s) . y - y' (Z' D^-1 A D^-1 Z) y / 2   in a ball
//! ```
//!
//! Z are the last columns of the reflection that takes D^-1 w to an axis (Householder
//! 1958). A coordinate that meets a bound stays there while s_j - lambda w_j points
//! outwards, lambda = d l / d c the multiplier. Where the information is singular the step
//! is that of the trust region of [`crate::fit::quadratic`].

use crate::backend::{Backend, Derivatives};
use crate::fit::bounds::Bounds;
use crate::fit::quadratic::{in_ball, restrict};
use crate::model::{Data, Layout, Parameters};
use crate::num::dense::Factor;
use ndarray::{Array1, Array2, s};

/// Most Newton steps at one c.
const MAX_STEPS: usize = 60;
/// Scaled score of a constrained maximum: half its square, 5e-11, is left to gain.
const SCALED_SCORE: f64 = 1e-5;
/// Added to the scaled information, of order one, where it measures a score: along
/// directions flatter than this nothing can be told from rounding.
const FLOOR: f64 = 1e-10;
/// First radius where the likelihood is not concave; a distance of 1 moves a coordinate by
/// a standard error, the others held.
const FIRST_RADIUS: f64 = 1.0;
/// A step that promises less than this is rounding.
const NOTHING: f64 = 1e-11;
/// Share of its promise that a step must deliver.
const SUFFICIENT: f64 = 0.1;

/// A point and the likelihood there.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub packed: Vec<f64>,
    pub derivatives: Derivatives,
}

/// The likelihood, the box and the linear form.
pub(super) struct Plane<'a> {
    pub backend: &'a dyn Backend,
    pub data: &'a Data,
    pub template: &'a Parameters,
    pub layout: &'a Layout,
    pub bounds: &'a Bounds,
    /// w; all 0 for no constraint.
    pub weights: Array1<f64>,
    /// D
    pub scale: Array1<f64>,
    /// Passes over the data so far.
    pub passes: usize,
}

/// The directions on some coordinates that keep the linear form.
struct Face {
    moving: Vec<usize>,
    /// D on them.
    scale: Array1<f64>,
    /// D^-1 w over its squared length, if it is not 0: moves the form by 1.
    across: Option<Array1<f64>>,
    /// Z. Shape: moving, moving or one less.
    basis: Array2<f64>,
}

impl Plane<'_> {
    pub fn parameters(&self, packed: &[f64]) -> Parameters {
        self.layout.unpack(self.template, packed)
    }

    pub fn form(&self, packed: &[f64]) -> f64 {
        let products = self.weights.iter().zip(packed).map(|(w, p)| w * p);
        products.sum()
    }

    /// The point, unless a derivative is not finite there.
    pub fn point(&mut self, packed: Vec<f64>) -> Option<Point> {
        self.passes += 1;
        let derivatives = self
            .backend
            .derivatives(&self.parameters(&packed), self.data);
        let finite = derivatives.log_likelihood.is_finite()
            && derivatives.gradient.iter().all(|v| v.is_finite())
            && derivatives.hessian.iter().all(|v| v.is_finite());
        finite.then_some(Point {
            packed,
            derivatives,
        })
    }

    /// lambda = d l / d c at a constrained maximum: the least-squares multiplier on the
    /// coordinates off the bounds, 0 if the form has none there.
    pub fn multiplier(&self, point: &Point) -> f64 {
        let (mut product, mut square) = (0.0, 0.0);
        for j in 0..point.packed.len() {
            if self.bounds.is_pinned(j) || self.bounds.is_at_bound(&point.packed, j) {
                continue;
            }
            let own = self.weights[j] / self.scale[j];
            product += own * point.derivatives.gradient[j] / self.scale[j];
            square += own * own;
        }
        match square > 0.0 {
            true => product / square,
            false => 0.0,
        }
    }

    /// The coordinates that may move from `point`, but for those of `held`.
    fn face(&self, point: &Point, held: &[usize]) -> Face {
        let multiplier = self.multiplier(point);
        let pulled = |j: usize| point.derivatives.gradient[j] - multiplier * self.weights[j];
        let moves =
            |j: &usize| !self.bounds.blocks(&point.packed, *j, pulled(*j)) && !held.contains(j);
        Face::new(self, (0..point.packed.len()).filter(moves).collect())
    }

    /// The maximum on the plane through `point`, up from there; `None` if it is not found.
    pub fn maximise(&mut self, mut point: Point) -> Option<Point> {
        let mut radius = f64::INFINITY;
        let mut held = Vec::new();
        for _ in 0..MAX_STEPS {
            let face = self.face(&point, &held);
            let slope = face.along(&point.derivatives.gradient);
            let matrix = face.curvature(&point.derivatives.hessian);
            if held.is_empty() && is_stationary(&matrix, &slope) {
                return Some(point);
            }
            let newton = Factor::new(&matrix).map(|factor| factor.solve(&slope));
            let short = newton.filter(|y| y.dot(y).sqrt() <= radius);
            if short.is_none() && radius.is_infinite() {
                radius = FIRST_RADIUS;
            }
            let ones = vec![1.0; slope.len()];
            let step = short.unwrap_or_else(|| in_ball(&matrix, &slope, &ones, radius));
            let direction = face.expand(&step, point.packed.len());
            let (fraction, hit) = self.room(&point.packed, &direction);
            if fraction == 0.0 {
                // On a bound already and outwards: not with this coordinate.
                held.extend(hit);
                continue;
            }
            let rise = fraction * slope.dot(&step);
            let promise = rise - 0.5 * fraction * fraction * step.dot(&matrix.dot(&step));
            if promise <= NOTHING {
                return (held.is_empty() && radius >= FIRST_RADIUS).then_some(point);
            }
            let length = fraction * step.dot(&step).sqrt();
            let next = self.point(self.moved(&point.packed, &direction, fraction, hit));
            let gain = next.as_ref().map(|next| {
                let whole = &direction * fraction;
                gain(&point, next, &whole)
            });
            match (next, gain) {
                (Some(next), Some(gain)) if gain >= SUFFICIENT * promise => {
                    if gain > 0.5 * promise {
                        radius = radius.max(2.0 * length);
                    } else if gain < 0.25 * promise {
                        radius = 0.5 * length;
                    }
                    point = next;
                    held.clear();
                }
                (_, Some(gain)) => {
                    // The maximum of the parabola through both points.
                    radius = length * (0.5 * rise / (rise - gain)).clamp(0.1, 0.5);
                }
                _ => radius = 0.1 * length,
            }
            if radius < 1e-12 {
                return None;
            }
        }
        None
    }

    /// The velocity d theta / d c of the constrained maximum, `held` apart; `None` if no
    /// coordinate of the form may move.
    pub fn velocity(&self, point: &Point, held: &[usize]) -> Option<Array1<f64>> {
        let moves = |j: &usize| !self.bounds.is_pinned(*j) && !held.contains(j);
        let face = Face::new(self, (0..point.packed.len()).filter(moves).collect());
        let across = face.across.as_ref()?;
        let scaled = face.scaled_curvature(&point.derivatives.hessian);
        let pulled = face.basis.t().dot(&scaled.dot(across));
        let matrix = face.curvature(&point.derivatives.hessian);
        let along = match Factor::new(&matrix) {
            Some(factor) => face.basis.dot(&factor.solve(&-pulled)),
            None => Array1::zeros(across.len()),
        };
        Some(face.unscaled(&(across + &along), point.packed.len()))
    }

    /// A point of the box with w . theta = `target`, near the constrained maximum there as
    /// far as the velocity at `from` tells.
    pub fn advance(&mut self, from: &Point, target: f64) -> Option<Point> {
        let mut packed = from.packed.clone();
        let multiplier = self.multiplier(from);
        let pulled = |j: usize| from.derivatives.gradient[j] - multiplier * self.weights[j];
        let stays =
            |j: &usize| self.weights[*j] == 0.0 && self.bounds.blocks(&from.packed, *j, pulled(*j));
        let mut held: Vec<usize> = (0..packed.len()).filter(stays).collect();
        for _ in 0..=packed.len() {
            let missing = target - self.form(&packed);
            let Some(velocity) = self.velocity(from, &held) else {
                break;
            };
            let direction = velocity * missing;
            let (fraction, hit) = self.room(&packed, &direction);
            packed = self.moved(&packed, &direction, fraction, hit);
            match hit {
                Some(j) => held.push(j),
                None => return self.point(packed),
            }
        }
        // Bounds have stopped every coordinate of the form, some on its wrong side: each
        // in turn takes what is missing.
        for j in 0..packed.len() {
            let missing = target - self.form(&packed);
            if self.weights[j] != 0.0 && !self.bounds.is_pinned(j) {
                let moved = packed[j] + missing / self.weights[j];
                packed[j] = moved.clamp(self.bounds.low[j], self.bounds.high[j]);
            }
        }
        let size = self.weights.iter().zip(&packed).map(|(w, p)| (w * p).abs());
        let size: f64 = size.sum();
        let reached = (target - self.form(&packed)).abs() <= 1e-12 * size;
        reached.then(|| self.point(packed)).flatten()
    }

    /// How much of `direction` fits into the box, and the coordinate that it hits.
    fn room(&self, packed: &[f64], direction: &Array1<f64>) -> (f64, Option<usize>) {
        let mut found = (1.0, None);
        for (j, &way) in direction.iter().enumerate() {
            let bound = match way > 0.0 {
                true => self.bounds.high[j],
                false => self.bounds.low[j],
            };
            if way != 0.0 {
                let fraction = ((bound - packed[j]) / way).max(0.0);
                if fraction < found.0 {
                    found = (fraction, Some(j));
                }
            }
        }
        found
    }

    /// The point there; a coordinate that hits its bound is on it exactly.
    fn moved(
        &self,
        packed: &[f64],
        direction: &Array1<f64>,
        fraction: f64,
        hit: Option<usize>,
    ) -> Vec<f64> {
        let pairs = packed.iter().zip(direction);
        let mut moved: Vec<f64> = pairs.map(|(p, d)| p + fraction * d).collect();
        self.bounds.project(&mut moved);
        if let Some(j) = hit {
            moved[j] = match direction[j] > 0.0 {
                true => self.bounds.high[j],
                false => self.bounds.low[j],
            };
        }
        moved
    }
}

impl Face {
    fn new(plane: &Plane, moving: Vec<usize>) -> Self {
        let scale: Array1<f64> = moving.iter().map(|&j| plane.scale[j]).collect();
        let normal: Array1<f64> = moving.iter().map(|&j| plane.weights[j]).collect();
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
    fn along(&self, v: &Array1<f64>) -> Array1<f64> {
        let moving: Array1<f64> = self.moving.iter().map(|&j| v[j]).collect();
        self.basis.t().dot(&(moving / &self.scale))
    }

    /// D^-1 A D^-1
    fn scaled_curvature(&self, hessian: &Array2<f64>) -> Array2<f64> {
        let mut scaled = -restrict(hessian, &self.moving);
        for ((a, b), value) in scaled.indexed_iter_mut() {
            *value /= self.scale[a] * self.scale[b];
        }
        scaled
    }

    /// Z' D^-1 A D^-1 Z
    fn curvature(&self, hessian: &Array2<f64>) -> Array2<f64> {
        let half = self.scaled_curvature(hessian).dot(&self.basis);
        self.basis.t().dot(&half)
    }

    /// D^-1 Z y on all coordinates.
    fn expand(&self, y: &Array1<f64>, size: usize) -> Array1<f64> {
        self.unscaled(&self.basis.dot(y), size)
    }

    fn unscaled(&self, v: &Array1<f64>, size: usize) -> Array1<f64> {
        let mut all = Array1::zeros(size);
        for ((&j, value), scale) in self.moving.iter().zip(v).zip(&self.scale) {
            all[j] = value / scale;
        }
        all
    }
}

/// True if the matrix is positive definite, up to rounding, and the score below tolerance.
fn is_stationary(matrix: &Array2<f64>, slope: &Array1<f64>) -> bool {
    let mut floored = matrix.clone();
    floored.diag_mut().map_inplace(|v| *v += FLOOR);
    let Some(factor) = Factor::new(&floored) else {
        return false;
    };
    let white = factor.whiten(slope);
    white.dot(&white).sqrt() <= SCALED_SCORE
}

/// The gain along a straight step; where the difference of two sums drowns in their
/// rounding, by Hermite's rule from slopes and bends at both ends.
fn gain(from: &Point, to: &Point, step: &Array1<f64>) -> f64 {
    let difference = to.derivatives.log_likelihood - from.derivatives.log_likelihood;
    if difference.abs() > 1e-13 * (1.0 + from.derivatives.log_likelihood.abs()) {
        return difference;
    }
    let [first, last] = [from, to].map(|at| {
        let Derivatives {
            gradient, hessian, ..
        } = &at.derivatives;
        (gradient.dot(step), step.dot(&hessian.dot(step)))
    });
    0.5 * (first.0 + last.0) + (first.1 - last.1) / 12.0
}
