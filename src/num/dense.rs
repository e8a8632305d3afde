//! Small dense symmetric systems, on LAPACK through ndarray-linalg.

use ndarray::{Array1, Array2};
use ndarray_linalg::{Cholesky, Diag, Eigh, SolveTriangular, UPLO};

/// OpenBLAS's own threads would only stand in the way of those that run whole
/// fits: the systems here have a few dozen unknowns.
fn one_thread() {
    // The library that ndarray-linalg calls, linked through openblas-src.
    unsafe extern "C" {
        fn openblas_set_num_threads(count: std::ffi::c_int);
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the function takes a number and changes only the library's pool.
    ONCE.call_once(|| unsafe { openblas_set_num_threads(1) });
}

/// Cholesky factor of a symmetric positive definite matrix.
#[derive(Clone, Debug)]
pub struct Factor {
    lower: Array2<f64>,
}

impl Factor {
    /// Factors `matrix` = L L'; `None` if it is not numerically positive
    /// definite or holds a value that is not finite.
    pub fn new(matrix: &Array2<f64>) -> Option<Self> {
        if matrix.iter().any(|v| !v.is_finite()) {
            return None;
        }
        if matrix.is_empty() {
            return Some(Factor {
                lower: matrix.clone(),
            });
        }
        one_thread();
        let lower = matrix.cholesky(UPLO::Lower).ok()?;
        Some(Factor { lower })
    }

    /// L^-1 v: its squared length is v' A^-1 v.
    pub fn whiten(&self, v: &Array1<f64>) -> Array1<f64> {
        if v.is_empty() {
            return v.clone();
        }
        self.lower
            .solve_triangular(UPLO::Lower, Diag::NonUnit, v)
            .expect("a Cholesky factor has a positive diagonal")
    }

    /// v' A v.
    pub fn norm_sq(&self, v: &Array1<f64>) -> f64 {
        let product = self.lower.t().dot(v);
        product.dot(&product)
    }

    /// A^-1 v.
    pub fn solve(&self, v: &Array1<f64>) -> Array1<f64> {
        if v.is_empty() {
            return v.clone();
        }
        let upper = self.lower.t().to_owned();
        upper
            .solve_triangular(UPLO::Upper, Diag::NonUnit, &self.whiten(v))
            .expect("a Cholesky factor has a positive diagonal")
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix.
#[derive(Clone, Debug)]
pub struct SymmetricEigen {
    /// In ascending order.
    pub values: Array1<f64>,
    /// One per column, orthonormal.
    pub vectors: Array2<f64>,
}

impl SymmetricEigen {
    /// Decomposes `matrix` = V diag(values) V'; `None` if it holds a value that is
    /// not finite.
    pub fn new(matrix: &Array2<f64>) -> Option<Self> {
        if matrix.iter().any(|v| !v.is_finite()) {
            return None;
        }
        if matrix.is_empty() {
            return Some(SymmetricEigen {
                values: Array1::zeros(0),
                vectors: matrix.clone(),
            });
        }
        one_thread();
        let (values, vectors) = matrix.eigh(UPLO::Lower).ok()?;
        Some(SymmetricEigen { values, vectors })
    }
}

/// Solves A x = b for symmetric A; a ridge of `1e-12` times the diagonal's
/// largest entry, raised tenfold until Cholesky succeeds, repairs a singular A.
///
/// `None` if no ridge up to the diagonal itself helps.
pub fn solve_ridged(matrix: &Array2<f64>, rhs: &Array1<f64>) -> Option<Array1<f64>> {
    if let Some(factor) = Factor::new(matrix) {
        return Some(factor.solve(rhs));
    }
    let scale = matrix.diag().iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if !scale.is_finite() {
        return None;
    }
    let mut ridge = 1e-12 * scale.max(f64::MIN_POSITIVE);
    while ridge <= scale {
        let mut repaired = matrix.clone();
        repaired.diag_mut().map_inplace(|v| *v += ridge);
        if let Some(factor) = Factor::new(&repaired) {
            return Some(factor.solve(rhs));
        }
        ridge *= 10.0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn a_factor_solves_its_system() {
        let a = array![[4.0, 1.0], [1.0, 3.0]];
        let x = Factor::new(&a).unwrap().solve(&array![1.0, 2.0]);
        let back = a.dot(&x) - array![1.0, 2.0];
        assert!(back.iter().all(|v| v.abs() < 1e-15));
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        assert!(Factor::new(&array![[1.0, 2.0], [2.0, 1.0]]).is_none());
        assert!(Factor::new(&array![[f64::NAN]]).is_none());
    }

    #[test]
    fn a_singular_system_is_solved_with_a_small_ridge() {
        let a = array![[1.0, 1.0], [1.0, 1.0]];
        let x = solve_ridged(&a, &array![2.0, 2.0]).unwrap();
        assert!((x[0] + x[1] - 2.0).abs() < 1e-6);
        assert!(solve_ridged(&array![[0.0]], &array![1.0]).is_none());
        assert!(solve_ridged(&array![[f64::INFINITY]], &array![1.0]).is_none());
    }
}
