//! The quadratic model of the log-likelihood over a polyhedron.
//!
//! ```text
//! maximise  s'd - d'Md / 2    over  normal_k'(theta + d) >= level_k
//! ```
//!
//! by the dual method of Goldfarb and Idnani (1983): from the free maximum, faces
//! are added in order of their violation, and dropped again when their multiplier
//! turns negative. The bounds of the parameter set are faces like the others.

use super::super::bounds::Bounds;
use crate::backend::Derivatives;
use crate::num::dense::{Factor, SymmetricEigen};
use ndarray::{Array1, Array2};

/// Scaled eigenvalues of minus the Hessian below this are rounding: nothing is
/// known along them (the scale of a top-1 router).
const ROUNDING: f64 = 1e-10;
/// The curvature such directions get instead: little, so that moving along them
/// costs nothing, and enough to keep the rest at rest.
const FLAT: f64 = 1e-6;
/// Squared sine of the angle below which a normal depends on others.
const DEPENDENT: f64 = 1e-14;

/// normal'theta >= level
#[derive(Clone, Debug)]
pub(super) struct HalfSpace {
    /// Shape: P.
    normal: Array1<f64>,
    level: f64,
}

impl HalfSpace {
    pub(super) fn through_origin(normal: Array1<f64>) -> Self {
        HalfSpace { normal, level: 0.0 }
    }
}

/// The box as half-spaces; pinned coordinates have none.
pub(super) fn faces_of_the_box(bounds: &Bounds) -> Vec<HalfSpace> {
    let count = bounds.low.len();
    let free = (0..count).filter(|&j| !bounds.is_pinned(j));
    free.flat_map(|j| [(j, 1.0, bounds.low[j]), (j, -1.0, bounds.high[j])])
        .map(|(j, sign, bound)| HalfSpace {
            normal: Array1::from_shape_fn(count, |k| if k == j { sign } else { 0.0 }),
            level: sign * bound,
        })
        .collect()
}

/// The step to the maximum over a polyhedron.
pub(super) struct Solution {
    /// On all coordinates.
    pub(super) step: Array1<f64>,
    /// Faces on which the maximum lies, by index.
    pub(super) active: Vec<usize>,
    /// What the model promises: s'd - d'Md / 2.
    pub(super) promise: f64,
    /// sqrt(d'Md): without active faces the scaled score sqrt(s' M^-1 s).
    pub(super) length: f64,
}

/// The model at one point.
pub(super) struct Program {
    free: Vec<usize>,
    /// On the free coordinates, as the matrices below.
    score: Array1<f64>,
    /// Minus the Hessian, D^-1 A D^-1.
    scaled: Array2<f64>,
    /// D
    scale: Vec<f64>,
    metric: Factor,
    /// L^-1 s with the metric M = L L'.
    pub(super) unconstrained: Array1<f64>,
}

impl Program {
    /// The model with M = minus the Hessian, its eigenvalues by size; `None` if a
    /// derivative is not finite.
    pub(super) fn new(bounds: &Bounds, derivatives: &Derivatives) -> Option<Self> {
        let Derivatives {
            gradient, hessian, ..
        } = derivatives;
        let free: Vec<usize> = (0..gradient.len())
            .filter(|&j| !bounds.is_pinned(j))
            .collect();
        let score: Array1<f64> = free.iter().map(|&j| gradient[j]).collect();
        if score.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let sizes: Vec<f64> = free.iter().map(|&j| hessian[[j, j]].abs()).collect();
        let largest = sizes.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(*v));
        let scale: Vec<f64> = sizes
            .iter()
            .map(|&size| {
                if size > 1e-12 * largest {
                    size
                } else {
                    largest
                }
            })
            .map(f64::sqrt)
            .collect();
        let size = (free.len(), free.len());
        let scaled = Array2::from_shape_fn(size, |(a, b)| {
            -hessian[[free[a], free[b]]] / (scale[a] * scale[b])
        });
        let eigen = SymmetricEigen::new(&scaled)?;
        let sizes = eigen.values.mapv(|v| match v.abs() > ROUNDING {
            true => v.abs(),
            false => FLAT,
        });
        let mut matrix = (&eigen.vectors * &sizes).dot(&eigen.vectors.t());
        for ((a, b), v) in matrix.indexed_iter_mut() {
            *v *= scale[a] * scale[b];
        }
        let metric = Factor::new(&matrix)?;
        let unconstrained = metric.whiten(&score);
        Some(Program {
            free,
            score,
            scaled,
            scale,
            metric,
            unconstrained,
        })
    }

    /// L^-1 v on the free coordinates.
    pub(super) fn whiten(&self, v: &Array1<f64>) -> Array1<f64> {
        self.metric.whiten(&self.on_free(v))
    }

    fn on_free(&self, v: &Array1<f64>) -> Array1<f64> {
        self.free.iter().map(|&j| v[j]).collect()
    }

    /// The maximum over the polyhedron; `None` if that is empty.
    ///
    /// # Shapes
    /// `packed`: P.
    pub(super) fn maximum(&self, packed: &[f64], faces: &[HalfSpace]) -> Option<Solution> {
        // A face asks for whitened'y >= missing, y = L'd.
        let mut whitened = Vec::with_capacity(faces.len());
        let mut missing = Vec::with_capacity(faces.len());
        let mut rounding = Vec::with_capacity(faces.len());
        for face in faces {
            whitened.push(self.whiten(&face.normal));
            let terms = face.normal.iter().zip(packed).map(|(n, p)| n * p);
            missing.push(face.level - terms.clone().sum::<f64>());
            rounding.push(1e-14 * (face.level.abs() + terms.map(f64::abs).sum::<f64>()));
        }
        let mut y = self.unconstrained.clone();
        let mut active: Vec<usize> = Vec::new();
        let mut multipliers: Vec<f64> = Vec::new();
        // Each round raises the dual objective; the limit is for rounding.
        for _ in 0..10 * (faces.len() + 1) {
            let violated = (0..faces.len())
                .filter(|k| !active.contains(k))
                .map(|k| {
                    let lacks = missing[k] - whitened[k].dot(&y);
                    (k, lacks, lacks / norm(&whitened[k]))
                })
                .filter(|(k, lacks, _)| *lacks > rounding[*k])
                .max_by(|a, b| a.2.total_cmp(&b.2));
            let Some((entering, ..)) = violated else {
                return self.solution(faces, &whitened, &missing, active);
            };
            let normal = &whitened[entering];
            let mut pressure = 0.0;
            loop {
                let (shares, along) = split(normal, &whitened, &active)?;
                let square = along.dot(&along);
                let full = match square > DEPENDENT * normal.dot(normal) {
                    true => (missing[entering] - normal.dot(&y)) / square,
                    false => f64::INFINITY,
                };
                let leaving = (0..active.len())
                    .filter(|&a| shares[a] > 0.0)
                    .map(|a| (a, multipliers[a] / shares[a]))
                    .min_by(|a, b| a.1.total_cmp(&b.1));
                let partial = leaving.map_or(f64::INFINITY, |(_, time)| time);
                let time = full.min(partial);
                if time.is_infinite() {
                    return None;
                }
                if full.is_finite() {
                    y.scaled_add(time, &along);
                }
                pressure += time;
                for (multiplier, share) in multipliers.iter_mut().zip(&shares) {
                    *multiplier -= time * share;
                }
                if full <= partial {
                    active.push(entering);
                    multipliers.push(pressure);
                    break;
                }
                let (a, _) = leaving.expect("the shorter time is finite");
                active.remove(a);
                multipliers.remove(a);
            }
        }
        None
    }

    /// The maximum on the faces found active, solved once more.
    fn solution(
        &self,
        faces: &[HalfSpace],
        whitened: &[Array1<f64>],
        missing: &[f64],
        active: Vec<usize>,
    ) -> Option<Solution> {
        let lacks: Array1<f64> = active
            .iter()
            .map(|&k| missing[k] - whitened[k].dot(&self.unconstrained))
            .collect();
        let multipliers = Factor::new(&gram(whitened, &active))?.solve(&lacks);
        let mut pull = self.score.clone();
        for (&k, multiplier) in active.iter().zip(&multipliers) {
            pull.scaled_add(*multiplier, &self.on_free(&faces[k].normal));
        }
        let moved = self.metric.solve(&pull);
        let square = self.metric.norm_sq(&moved);
        let mut step = Array1::zeros(faces.first().map_or(0, |f| f.normal.len()));
        for (&j, value) in self.free.iter().zip(&moved) {
            step[j] = *value;
        }
        Some(Solution {
            step,
            active,
            promise: self.score.dot(&moved) - 0.5 * square,
            length: square.sqrt(),
        })
    }

    /// True if minus the Hessian has no negative eigenvalue, up to rounding, along
    /// the faces found active.
    pub(super) fn is_concave_along(&self, faces: &[HalfSpace], active: &[usize]) -> bool {
        let count = self.free.len();
        let mut projector: Array2<f64> = Array2::eye(count);
        for &k in active {
            let normal = self.on_free(&faces[k].normal);
            let scaled: Array1<f64> = normal.iter().zip(&self.scale).map(|(n, s)| n / s).collect();
            let rest = projector.dot(&scaled);
            let square = rest.dot(&rest);
            if square <= DEPENDENT * scaled.dot(&scaled) {
                continue;
            }
            for a in 0..count {
                for b in 0..count {
                    projector[[a, b]] -= rest[a] * rest[b] / square;
                }
            }
        }
        let along = projector.dot(&self.scaled).dot(&projector);
        SymmetricEigen::new(&along).is_some_and(|eigen| eigen.values.iter().all(|v| *v > -ROUNDING))
    }
}

fn norm(v: &Array1<f64>) -> f64 {
    v.dot(v).sqrt().max(f64::MIN_POSITIVE)
}

fn gram(vectors: &[Array1<f64>], of: &[usize]) -> Array2<f64> {
    Array2::from_shape_fn((of.len(), of.len()), |(a, b)| {
        vectors[of[a]].dot(&vectors[of[b]])
    })
}

/// The shares of the active normals in `normal`, and what is left of it.
fn split(
    normal: &Array1<f64>,
    whitened: &[Array1<f64>],
    active: &[usize],
) -> Option<(Array1<f64>, Array1<f64>)> {
    let along: Array1<f64> = active.iter().map(|&k| whitened[k].dot(normal)).collect();
    let shares = Factor::new(&gram(whitened, active))?.solve(&along);
    let mut rest = normal.clone();
    for (&k, share) in active.iter().zip(&shares) {
        rest.scaled_add(-share, &whitened[k]);
    }
    Some((shares, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn bounds(size: f64) -> Bounds {
        Bounds {
            low: vec![-size; 2],
            high: vec![size; 2],
        }
    }

    /// -(u - 2)^2 - (v - 1)^2 at the origin.
    fn bowl() -> Derivatives {
        Derivatives {
            log_likelihood: 0.0,
            gradient: array![4.0, 2.0],
            hessian: array![[-2.0, 0.0], [0.0, -2.0]],
        }
    }

    fn maximum(faces: Vec<HalfSpace>, size: f64) -> Option<Solution> {
        let bounds = bounds(size);
        let mut all = faces;
        all.extend(faces_of_the_box(&bounds));
        Program::new(&bounds, &bowl())
            .unwrap()
            .maximum(&[0.0, 0.0], &all)
    }

    fn below(normal: Array1<f64>, level: f64) -> HalfSpace {
        HalfSpace {
            normal: -normal,
            level: -level,
        }
    }

    #[test]
    fn the_free_maximum_needs_no_face() {
        let found = maximum(vec![], 10.0).unwrap();
        assert!(
            (&found.step - &array![2.0, 1.0])
                .iter()
                .all(|v| v.abs() < 1e-12)
        );
        assert!(found.active.is_empty() && (found.promise - 5.0).abs() < 1e-12);
    }

    #[test]
    fn the_maximum_on_a_face_is_the_foot_of_the_perpendicular() {
        let found = maximum(vec![below(array![1.0, 1.0], 1.0)], 10.0).unwrap();
        assert!(
            (&found.step - &array![1.0, 0.0])
                .iter()
                .all(|v| v.abs() < 1e-12)
        );
        assert_eq!(found.active, vec![0]);
    }

    #[test]
    fn faces_that_stop_pressing_are_dropped() {
        // The first face is the most violated, the corner of the two others is
        // the maximum.
        let faces = vec![
            below(array![1.0, 0.2], 1.0),
            below(array![1.0, 0.0], 0.5),
            below(array![0.0, 1.0], 0.5),
        ];
        let found = maximum(faces, 10.0).unwrap();
        assert!(
            (&found.step - &array![0.5, 0.5])
                .iter()
                .all(|v| v.abs() < 1e-12)
        );
    }

    #[test]
    fn an_empty_polyhedron_has_no_maximum() {
        let faces = vec![
            below(array![1.0, 0.0], -1.0),
            below(array![-1.0, 0.0], -1.0),
        ];
        assert!(maximum(faces, 10.0).is_none());
    }

    #[test]
    fn the_box_is_a_face_like_others() {
        let found = maximum(vec![], 1.5).unwrap();
        assert!(
            (&found.step - &array![1.5, 1.0])
                .iter()
                .all(|v| v.abs() < 1e-12)
        );
    }
}
