//! The quadratic model of the log-likelihood around a point of the box.
//!
//! With the score s and A = minus the Hessian, restricted to the coordinates
//! that may move, a step d promises
//!
//! ```text
//! m(d) = s'd - d'Ad / 2
//! ```
//!
//! Where A is positive definite the step is Newton's, if that is not too long.
//! Else it maximises m in a ball |D d| <= r (a trust region: Conn, Gould and Toint
//! 2000), D the square root of the largest diagonal of |A| met so far: at a saddle
//! that is a step along the direction of negative curvature. Either way the step
//! ends inside the box: it stops at the first bound it meets, holds that
//! coordinate, and goes on among the others.

use super::bounds::Bounds;
use crate::num::dense::{Factor, SymmetricEigen};
use ndarray::{Array1, Array2};

/// Eigenvalues of the scaled A below this are rounding: its diagonal is of order
/// one, and sums over rows carry about this many digits.
const ROUNDING: f64 = 1e-13;
/// Least curvature, likewise scaled, by which a score is measured where A is not
/// positive definite.
const FLOOR: f64 = 1e-3;

/// The model at one point.
pub(super) struct Quadratic {
    /// How far each coordinate may move down and up.
    room: Vec<[f64; 2]>,
    /// Coordinates that may move.
    free: Vec<usize>,
    /// A on all coordinates.
    curvature: Array2<f64>,
    /// D on all coordinates.
    scale: Vec<f64>,
    /// A on the free coordinates, or a positive definite matrix in its place.
    metric: Factor,
    /// True if A is positive definite on the free coordinates, up to rounding:
    /// else the point is no maximum, however small its score.
    pub concave: bool,
}

/// A step, and what the model promises along it.
pub(super) struct Step {
    /// On all coordinates; 0 on those held.
    pub direction: Array1<f64>,
    /// s'd
    pub slope: f64,
    /// d'Ad
    pub curvature: f64,
    /// |D d|
    pub length: f64,
}

impl Step {
    /// m(t d)
    pub fn promise(&self, fraction: f64) -> f64 {
        fraction * self.slope - 0.5 * fraction * fraction * self.curvature
    }
}

impl Quadratic {
    /// The model at `packed` with A = -`hessian`; `scale` is D so far and grows to
    /// what this point asks for. `None` if a derivative is not finite.
    pub fn new(
        bounds: &Bounds,
        packed: &[f64],
        score: &Array1<f64>,
        hessian: &Array2<f64>,
        scale: &mut [f64],
    ) -> Option<Self> {
        let free: Vec<usize> = (0..packed.len())
            .filter(|&j| !bounds.blocks(packed, j, score[j]))
            .collect();
        let curvature = -hessian;
        let largest = free
            .iter()
            .fold(0.0f64, |m, &j| m.max(curvature[[j, j]].abs()));
        for &j in &free {
            let own = curvature[[j, j]].abs().max(1e-12 * largest).sqrt();
            scale[j] = scale[j].max(own).max(f64::MIN_POSITIVE);
        }
        let observed = restrict(&curvature, &free);
        let (metric, concave) = match positive(&observed) {
            Some(factor) => (factor, true),
            None => (substitute(&observed, &free, scale)?, false),
        };
        let ends = bounds.low.iter().zip(&bounds.high);
        let room = ends.zip(packed).map(|((low, high), p)| [low - p, high - p]);
        Some(Quadratic {
            room: room.collect(),
            free,
            curvature,
            scale: scale.to_vec(),
            metric,
            concave,
        })
    }

    /// The free part of v, whitened: its length is sqrt(v' M^-1 v).
    pub fn whiten(&self, v: &Array1<f64>) -> Array1<f64> {
        self.metric.whiten(&self.on_free(v))
    }

    /// sqrt(v' M^-1 v) with M = A where that is positive definite.
    pub fn scaled_length(&self, v: &Array1<f64>) -> f64 {
        let white = self.whiten(v);
        white.dot(&white).sqrt()
    }

    /// v' M v
    pub fn norm_sq(&self, v: &Array1<f64>) -> f64 {
        self.metric.norm_sq(&self.on_free(v))
    }

    fn on_free(&self, v: &Array1<f64>) -> Array1<f64> {
        self.free.iter().map(|&j| v[j]).collect()
    }

    /// The step for the score `score`, no longer than `radius`.
    pub fn step(&self, score: &Array1<f64>, radius: f64) -> Step {
        let mut step = Array1::zeros(score.len());
        let mut face = self.free.clone();
        while !face.is_empty() {
            let target = self.target(&face, score, &step, radius);
            match self.first_bound(&face, &step, &target) {
                None => {
                    step = target;
                    break;
                }
                Some((position, fraction)) => {
                    step = &step + &((&target - &step) * fraction);
                    let hit = face.remove(position);
                    step[hit] = self.room(hit, target[hit]);
                }
            }
        }
        let bent = self.curvature.dot(&step);
        let length = scaled_square(&step, &self.scale).sqrt();
        Step {
            slope: score.dot(&step),
            curvature: step.dot(&bent),
            length,
            direction: step,
        }
    }

    /// The best step that differs from `held` on `face` only.
    fn target(
        &self,
        face: &[usize],
        score: &Array1<f64>,
        held: &Array1<f64>,
        radius: f64,
    ) -> Array1<f64> {
        let mut outside = held.clone();
        face.iter().for_each(|&j| outside[j] = 0.0);
        let rest = score - &self.curvature.dot(&outside);
        let slope: Array1<f64> = face.iter().map(|&j| rest[j]).collect();
        let matrix = restrict(&self.curvature, face);
        let scale: Vec<f64> = face.iter().map(|&j| self.scale[j]).collect();
        let newton = match self.concave {
            true if face.len() == self.free.len() => Some(self.metric.solve(&slope)),
            true => positive(&matrix).map(|factor| factor.solve(&slope)),
            false => None,
        };
        let used = scaled_square(&outside, &self.scale);
        let left = (radius * radius - used).max(0.0).sqrt();
        let inside = |d: &Array1<f64>| scaled_square(d, &scale).sqrt() <= left;
        let solved = match newton {
            Some(newton) if inside(&newton) => newton,
            _ => in_ball(&matrix, &slope, &scale, left),
        };
        let mut target = outside;
        for (&j, value) in face.iter().zip(&solved) {
            target[j] = *value;
        }
        target
    }

    /// How far coordinate j can move in the direction of `sign`.
    fn room(&self, j: usize, sign: f64) -> f64 {
        self.room[j][usize::from(sign > 0.0)]
    }

    /// The first coordinate of `face`, by position, that leaves the box between
    /// two steps, and the fraction of the way.
    fn first_bound(
        &self,
        face: &[usize],
        from: &Array1<f64>,
        to: &Array1<f64>,
    ) -> Option<(usize, f64)> {
        let fraction = |j: usize| {
            let room = self.room(j, to[j] - from[j]);
            match (to[j] - room) * (to[j] - from[j]) > 0.0 {
                true => (room - from[j]) / (to[j] - from[j]),
                false => f64::INFINITY,
            }
        };
        (0..face.len())
            .map(|position| (position, fraction(face[position])))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, fraction)| *fraction < 1.0)
            .map(|(position, fraction)| (position, fraction.max(0.0)))
    }

    /// |D d| of the step that A's eigenvalues would give by their sizes: a first
    /// radius.
    pub fn natural_radius(&self, score: &Array1<f64>) -> f64 {
        let solved = self.metric.solve(&self.on_free(score));
        let scale: Vec<f64> = self.free.iter().map(|&j| self.scale[j]).collect();
        scaled_square(&solved, &scale).sqrt()
    }
}

/// |D d|^2
fn scaled_square(d: &Array1<f64>, scale: &[f64]) -> f64 {
    d.iter().zip(scale).map(|(d, s)| (d * s).powi(2)).sum()
}

/// The rows and columns `to`.
pub(super) fn restrict(matrix: &Array2<f64>, to: &[usize]) -> Array2<f64> {
    Array2::from_shape_fn((to.len(), to.len()), |(a, b)| matrix[[to[a], to[b]]])
}

/// The Cholesky factor of a matrix that is positive definite up to rounding.
fn positive(matrix: &Array2<f64>) -> Option<Factor> {
    [0.0, ROUNDING].into_iter().find_map(|ridge| {
        let mut repaired = matrix.clone();
        repaired.diag_mut().map_inplace(|v| *v += ridge * v.abs());
        Factor::new(&repaired)
    })
}

/// D V |L| V' D for the scaled A = D V L V' D, sizes at least [`FLOOR`].
fn substitute(matrix: &Array2<f64>, free: &[usize], scale: &[f64]) -> Option<Factor> {
    let scale: Vec<f64> = free.iter().map(|&j| scale[j]).collect();
    let eigen = SymmetricEigen::new(&scaled(matrix, &scale))?;
    let sizes = eigen.values.mapv(|v| v.abs().max(FLOOR));
    let weighted = &eigen.vectors * &sizes;
    let mut product = weighted.dot(&eigen.vectors.t());
    for ((a, b), v) in product.indexed_iter_mut() {
        *v *= scale[a] * scale[b];
    }
    Factor::new(&product)
}

/// D^-1 A D^-1
fn scaled(matrix: &Array2<f64>, scale: &[f64]) -> Array2<f64> {
    Array2::from_shape_fn(matrix.dim(), |(a, b)| {
        matrix[[a, b]] / (scale[a] * scale[b])
    })
}

/// The maximum of slope'd - d'Ad / 2 in |D d| <= radius.
pub(super) fn in_ball(
    matrix: &Array2<f64>,
    slope: &Array1<f64>,
    scale: &[f64],
    radius: f64,
) -> Array1<f64> {
    let Some(eigen) = SymmetricEigen::new(&scaled(matrix, scale)) else {
        return Array1::zeros(slope.len());
    };
    let white: Array1<f64> = slope.iter().zip(scale).map(|(s, d)| s / d).collect();
    let along = eigen.vectors.t().dot(&white);
    let least = eigen.values[0];
    // The eigenvalues shifted so that the least is `shift`.
    let at = |shift: f64| -> Array1<f64> {
        let pairs = along.iter().zip(&eigen.values);
        pairs
            .map(|(a, v)| {
                if *a == 0.0 {
                    0.0
                } else {
                    a / (v - least + shift)
                }
            })
            .collect()
    };
    let length = |d: &Array1<f64>| d.dot(d).sqrt();
    let unshifted = least.max(0.0);
    let mut solved = at(unshifted);
    if least <= 0.0 || length(&solved) > radius {
        let shift = shift_to_length(
            |shift| length(&at(shift)),
            unshifted,
            length(&along),
            radius,
        );
        solved = at(shift);
        // The hard case: no slope along the direction of least curvature.
        let missing = radius * radius - solved.dot(&solved);
        if least < 0.0 && missing > 1e-6 * radius * radius {
            let sign = if solved[0] < 0.0 { -1.0 } else { 1.0 };
            solved[0] = sign * (solved[0] * solved[0] + missing).sqrt();
        }
    }
    let step = eigen.vectors.dot(&solved);
    step.iter().zip(scale).map(|(d, s)| d / s).collect()
}

/// The shift, at least `low`, at which a falling length, at most size / shift,
/// comes down to `radius`; bisection of the logarithm, from above.
fn shift_to_length(length: impl Fn(f64) -> f64, low: f64, size: f64, radius: f64) -> f64 {
    let (mut low, mut high) = (low, low + size / radius);
    let least = 1e-16 * high;
    while high > least && high - low > 1e-3 * high {
        let middle = (low.max(least) * high).sqrt();
        match length(middle) > radius {
            true => low = middle,
            false => high = middle,
        }
        if middle <= least * 1.01 {
            break;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn model(score: Array1<f64>, hessian: Array2<f64>, size: f64) -> Quadratic {
        let bounds = Bounds {
            low: vec![-size; 2],
            high: vec![size; 2],
        };
        Quadratic::new(&bounds, &[0.0; 2], &score, &hessian, &mut [0.0; 2]).unwrap()
    }

    #[test]
    fn a_concave_model_gives_newtons_step() {
        let score = array![1.0, 2.0];
        let model = model(score.clone(), array![[-2.0, 0.5], [0.5, -1.0]], 10.0);
        assert!(model.concave);
        let step = model.step(&score, f64::INFINITY);
        let rest = &score + &array![[-2.0, 0.5], [0.5, -1.0]].dot(&step.direction);
        assert!(rest.iter().all(|v| v.abs() < 1e-14));
        assert!((step.promise(1.0) - 0.5 * model.scaled_length(&score).powi(2)).abs() < 1e-14);
    }

    #[test]
    fn a_saddle_is_left_along_its_negative_curvature_as_far_as_the_ball_allows() {
        let score = array![0.0, 0.0];
        let model = model(score.clone(), array![[-1.0, 0.0], [0.0, 4.0]], 10.0);
        assert!(!model.concave);
        let step = model.step(&score, 1.0);
        // D = (1, 2).
        assert!(step.direction[0].abs() < 1e-12);
        assert!((step.direction[1].abs() - 0.5).abs() < 1e-3);
        assert!((step.length - 1.0).abs() < 1e-3 && step.promise(1.0) > 0.0);
    }

    #[test]
    fn a_step_in_a_ball_is_the_best_on_its_circle() {
        let score = array![1.0, 0.3];
        let hessian = array![[-1.0, 0.2], [0.2, 0.7]];
        let model = model(score.clone(), hessian.clone(), 10.0);
        let step = model.step(&score, 0.5);
        let best = step.promise(1.0);
        let scale = [1.0, 0.7f64.sqrt()];
        for k in 0..1000 {
            let angle = std::f64::consts::TAU * f64::from(k) / 1000.0;
            let d = array![angle.cos() / scale[0], angle.sin() / scale[1]] * 0.5;
            let promise = score.dot(&d) + 0.5 * d.dot(&hessian.dot(&d));
            assert!(promise <= best + 1e-3 * best.abs(), "{promise} {best}");
        }
    }

    #[test]
    fn a_step_stops_at_a_bound_and_goes_on_among_the_others() {
        let score = array![4.0, 1.0];
        let hessian = array![[-1.0, -0.5], [-0.5, -1.0]];
        let step = model(score.clone(), hessian, 1.0).step(&score, f64::INFINITY);
        assert_eq!(step.direction[0], 1.0);
        // The maximum in the second coordinate, given the first.
        assert!((step.direction[1] - 0.5).abs() < 1e-14);
    }

    #[test]
    fn coordinates_on_a_bound_that_the_score_leaves_are_held() {
        let bounds = Bounds {
            low: vec![0.0, -1.0],
            high: vec![1.0, 1.0],
        };
        let score = array![-3.0, 0.5];
        let hessian = array![[5.0, 0.0], [0.0, -1.0]];
        let model = Quadratic::new(&bounds, &[0.0, 0.0], &score, &hessian, &mut [0.0; 2]).unwrap();
        assert!(model.concave);
        assert_eq!(
            model.step(&score, f64::INFINITY).direction,
            array![0.0, 0.5]
        );
    }
}
