//! One affine predictor: which of its terms stay, and the way back to raw units.

use super::base::Base;
use super::feature::Feature;
use crate::analysis::quantity::INTERCEPT;
use crate::error::{Error, Result};
use ndarray::{Array1, Array2};
use ndarray_linalg::LeastSquaresSvd;

/// Part of a standardised column that earlier ones leave, below which it is a linear
/// combination of them: R's tolerance.
const TOLERANCE: f64 = 1e-7;

/// A candidate for a column of the model matrix. Values: shape n.
pub(super) struct Candidate {
    pub(super) feature: Feature,
    pub(super) values: Vec<f64>,
}

/// What stays of the candidates of one predictor.
pub(super) struct Reduced {
    /// Which candidates stay.
    pub(super) kept: Vec<usize>,
    /// The intercept and the candidates that stay, each as a feature in terms of raw
    /// terms. Shape: 1 + kept (terms), 1 + kept (features).
    pub(super) to_raw: Array2<f64>,
    /// Names of the raw terms, the intercept first.
    pub(super) terms: Vec<String>,
    /// What was dropped and why.
    pub(super) warnings: Vec<String>,
}

/// Drops candidates that are constant or a linear combination of earlier ones.
///
/// Every candidate is a polynomial in raw monomials, its own last and those before it
/// candidates themselves. Going forward, the raw monomial of a dropped candidate is
/// written in those that stay, and so every feature that stays is, too.
pub(super) fn reduced(candidates: &[Candidate], bases: &[Base]) -> Result<Reduced> {
    let fates = fates(candidates)?;
    let kept: Vec<usize> = (0..candidates.len())
        .filter(|&k| matches!(fates[k], Fate::Kept))
        .collect();
    let width = 1 + kept.len();
    let unit = |i: usize| {
        let mut unit = Array1::zeros(width);
        unit[i] = 1.0;
        unit
    };
    let mut reduced = Reduced {
        terms: vec![INTERCEPT.to_string()],
        to_raw: Array2::zeros((width, width)),
        kept,
        warnings: Vec::new(),
    };
    reduced.to_raw.column_mut(0).assign(&unit(0));
    // Raw monomial k in terms of the intercept and the monomials that stay.
    let mut raw: Vec<Array1<f64>> = Vec::new();
    let mut seen = 0;
    for (k, (candidate, fate)) in candidates.iter().zip(&fates).enumerate() {
        let feature = &candidate.feature;
        let name = feature.monomial.name(bases);
        let mut expansion = feature.expansion(bases);
        let (_, own) = expansion.pop().expect("holds its own monomial");
        let mut rest = Array1::zeros(width);
        for (monomial, coefficient) in expansion {
            match monomial.is_empty() {
                true => rest[0] += coefficient,
                false => {
                    let is_it = |c: &Candidate| c.feature.monomial == monomial;
                    let earlier = candidates[..k].iter().position(is_it);
                    let earlier = earlier.expect("divisors come first");
                    rest.scaled_add(coefficient, &raw[earlier]);
                }
            }
        }
        let (is_what, feature_itself) = match fate {
            Fate::Kept => {
                seen += 1;
                raw.push(unit(seen));
                rest[seen] += own;
                reduced.to_raw.column_mut(seen).assign(&rest);
                reduced.terms.push(name);
                continue;
            }
            Fate::Constant => ("constant", Array1::zeros(width)),
            Fate::Combination(weights) => {
                let kept = reduced.to_raw.slice(ndarray::s![.., 1..=weights.len()]);
                (
                    "a linear combination of the terms before it",
                    kept.dot(weights),
                )
            }
        };
        raw.push((feature_itself - rest) / own);
        reduced
            .warnings
            .push(format!("{name} is dropped: it is {is_what}"));
    }
    Ok(reduced)
}

/// What becomes of a candidate.
enum Fate {
    Kept,
    Constant,
    /// sum of weights times the kept candidates before it.
    Combination(Array1<f64>),
}

/// Gram-Schmidt, every projection done twice.
fn fates(candidates: &[Candidate]) -> Result<Vec<Fate>> {
    let mut fates = Vec::new();
    let mut kept: Vec<&Candidate> = Vec::new();
    let mut directions: Vec<Array1<f64>> = Vec::new();
    for candidate in candidates {
        if candidate.feature.deviation == 0.0 {
            fates.push(Fate::Constant);
            continue;
        }
        let values = Array1::from_vec(candidate.values.clone());
        let size = norm(&values);
        let mut left = values.clone();
        for _ in 0..2 {
            for direction in &directions {
                let part = left.dot(direction);
                left.scaled_add(-part, direction);
            }
        }
        let length = norm(&left);
        if length > TOLERANCE * size {
            kept.push(candidate);
            directions.push(left / length);
            fates.push(Fate::Kept);
        } else {
            let matrix =
                Array2::from_shape_fn((values.len(), kept.len()), |(i, j)| kept[j].values[i]);
            let weights = matrix.least_squares(&values);
            let weights = weights.map_err(|e| Error::value("terms", e.to_string()))?;
            fates.push(Fate::Combination(weights.solution));
        }
    }
    Ok(fates)
}

fn norm(values: &Array1<f64>) -> f64 {
    values.dot(values).sqrt()
}
