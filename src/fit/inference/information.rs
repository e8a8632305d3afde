//! Observed information at a maximum, its inverse and the sandwich.

use super::missing::Missing;
use crate::backend::Backend;
use crate::fit::bounds::Bounds;
use crate::fit::quadratic::restrict;
use crate::model::{Data, Parameters};
use crate::num::dense::{Factor, SymmetricEigen};
use ndarray::{Array1, Array2};

/// Least eigenvalue of the information scaled to a diagonal of ones. Sums over rows carry
/// about 13 digits: here three of a variance's are left.
const LEAST: f64 = 1e-10;

/// The observed information at a maximum and the sum of score products, on the free
/// coordinates.
#[derive(Clone, Debug)]
pub struct Information {
    free: Vec<usize>,
    /// D, the square roots of the diagonal of A.
    scale: Array1<f64>,
    /// Of D^-1 A D^-1.
    factor: Factor,
    /// D^-1 (sum s s') D^-1
    score_products: Array2<f64>,
}

impl Information {
    /// The information at `maximum`, with the coordinates that are pinned or on a bound
    /// held.
    ///
    /// # Errors
    /// [`Missing::NotFinite`]; [`Missing::Singular`] if it is not positive definite, or
    /// an eigenvalue of D^-1 A D^-1, D^2 the diagonal of A, is below 1e-10: names the
    /// coordinates of its eigenvector, those of at least half the largest component.
    pub fn new(
        backend: &dyn Backend,
        data: &Data,
        maximum: &Parameters,
        bounds: &Bounds,
    ) -> Result<Self, Missing> {
        let layout = maximum.layout();
        let packed = layout.pack(maximum);
        let held = |j: usize| bounds.is_pinned(j) || bounds.is_at_bound(&packed, j);
        let free: Vec<usize> = (0..packed.len()).filter(|&j| !held(j)).collect();
        let coordinate = |position: usize| layout.coordinates()[free[position]];
        let observed = restrict(&-backend.derivatives(maximum, data).hessian, &free);
        let products = restrict(&backend.score_outer(maximum, data), &free);
        if observed.iter().chain(&products).any(|v| !v.is_finite()) {
            return Err(Missing::NotFinite);
        }
        let flat = |position: &usize| observed[[*position, *position]] <= 0.0;
        let flat: Vec<usize> = (0..free.len()).filter(flat).collect();
        if !flat.is_empty() {
            return Err(Missing::Singular(
                flat.into_iter().map(coordinate).collect(),
            ));
        }
        let scale = observed.diag().mapv(f64::sqrt);
        let scaled = |matrix: &Array2<f64>| {
            Array2::from_shape_fn(matrix.dim(), |(a, b)| {
                matrix[[a, b]] / (scale[a] * scale[b])
            })
        };
        let observed = scaled(&observed);
        let eigen = SymmetricEigen::new(&observed).ok_or(Missing::NotFinite)?;
        let factor = match eigen.values.first() {
            Some(least) if *least < LEAST => None,
            _ => Factor::new(&observed),
        };
        let Some(factor) = factor else {
            let worst = eigen.vectors.column(0);
            let largest = worst.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let part = |position: &usize| worst[*position].abs() >= 0.5 * largest;
            let coordinates = (0..free.len()).filter(part).map(coordinate);
            return Err(Missing::Singular(coordinates.collect()));
        };
        Ok(Information {
            score_products: scaled(&products),
            free,
            scale,
            factor,
        })
    }

    /// The free coordinates: positions in the packed vector.
    pub fn free(&self) -> &[usize] {
        &self.free
    }

    /// The standard error (w' A^-1 w)^(1/2) of w . packed.
    ///
    /// # Errors
    /// [`Missing::Held`] if no weight lies on a free coordinate.
    ///
    /// # Shapes
    /// `weights`: P.
    pub fn standard_error(&self, weights: &[f64]) -> Result<f64, Missing> {
        let white = self.factor.whiten(&self.scaled(weights)?);
        Ok(white.dot(&white).sqrt())
    }

    /// The standard error (w' A^-1 (sum s s') A^-1 w)^(1/2) of w . packed, which holds
    /// where the model is wrong too, for the parameters nearest to the truth.
    ///
    /// # Errors
    /// As [`Information::standard_error`].
    ///
    /// # Shapes
    /// `weights`: P.
    pub fn sandwich(&self, weights: &[f64]) -> Result<f64, Missing> {
        let solved = self.factor.solve(&self.scaled(weights)?);
        Ok(solved.dot(&self.score_products.dot(&solved)).sqrt())
    }

    /// D^-1 w on the free coordinates.
    fn scaled(&self, weights: &[f64]) -> Result<Array1<f64>, Missing> {
        let pairs = self.free.iter().zip(&self.scale);
        let scaled: Array1<f64> = pairs.map(|(&j, scale)| weights[j] / scale).collect();
        match scaled.iter().all(|v| *v == 0.0) {
            true => Err(Missing::Held),
            false => Ok(scaled),
        }
    }
}
