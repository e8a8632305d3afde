//! How often two sparse mixtures select different experts.

use super::alignment::aligned;
use super::density::{breaks_along_a_line, support};
use crate::error::{Error, Result};
use crate::model::{InputLaw, Model, Parameters};

/// P(T^(X) != T*(X)), T^ and T* the sets of experts that fit and truth keep at X,
/// experts matched: how far the boundaries between selections lie apart, in units
/// of the input law. For one boundary between two experts and X uniform on [-1, 1]
/// it is |x^_c - x*_c| / 2.
///
/// NaN if the experts do not match one to one.
///
/// # Errors
/// [`Error::Value`] for continuous inputs of more than one dimension.
pub fn selection_error(fitted: &Parameters, truth: &Model) -> Result<f64> {
    let Some(fitted) = aligned(fitted, &truth.parameters) else {
        return Ok(f64::NAN);
    };
    let selected = |mixture: &Parameters, x: &[f64]| {
        let means: Vec<f64> = mixture.experts.iter().map(|e| e.mean(x)).collect();
        mixture.selection(x, &means)
    };
    let differs = |x: &[f64]| selected(&fitted, x) != selected(&truth.parameters, x);
    match &truth.input {
        InputLaw::Grid { points, .. } => {
            let count = points.iter().filter(|x| differs(x)).count();
            Ok(count as f64 / points.len() as f64)
        }
        law if law.dimension() == 1 => {
            let breaks = breaks_along_a_line(law, &[&fitted, &truth.parameters]);
            let intervals = breaks.windows(2);
            let apart = intervals.filter(|ends| differs(&[0.5 * (ends[0] + ends[1])]));
            Ok(apart.map(|ends| probability(law, ends[0], ends[1])).sum())
        }
        law if law.dimension() == 0 => Ok(f64::from(u8::from(differs(&[])))),
        _ => {
            let message = "the selection error needs one input, or inputs on a grid";
            Err(Error::value("losses", message))
        }
    }
}

/// P(low <= X <= high) within the support of a one-dimensional continuous law.
fn probability(law: &InputLaw, low: f64, high: f64) -> f64 {
    let (first, last) = support(law);
    match law {
        InputLaw::Normal { mean, sd, .. } => {
            let distribution =
                |x: f64| libm::erf((x - mean[0]) / (sd[0] * std::f64::consts::SQRT_2));
            (distribution(high) - distribution(low)) / (distribution(last) - distribution(first))
        }
        _ => (high - low) / (last - first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Expert, ExpertGate, ExpertKind, Gate, GateKind, Response, Selection, VarianceStructure,
        Weights,
    };

    fn winner_takes_all(lines: &[(f64, f64)]) -> Parameters {
        let expert = |&(slope, intercept): &(f64, f64)| Expert {
            kind: ExpertKind::Linear,
            slope: vec![slope],
            intercept,
            scale: None,
            variance: 0.09,
            gate: ExpertGate::None,
        };
        Parameters {
            gate: Gate {
                kind: GateKind::Competition {
                    response: Response::Absolute,
                    weights: Weights::Softmax,
                    kappa: 1.0,
                },
                top_k: Some(1),
                selection: Selection::Score,
            },
            variance_structure: VarianceStructure::Shared,
            experts: lines.iter().map(expert).collect(),
        }
    }

    #[test]
    fn it_is_the_mass_between_the_boundaries() {
        // |1.2 x + 1.5| = |x - 1.3| at x = -1/11; with intercept 1.28 at 1/110.
        let parameters = winner_takes_all(&[(1.2, 1.5), (1.0, -1.3)]);
        let fitted = winner_takes_all(&[(1.0, -1.3), (1.2, 1.28)]);
        let uniform = InputLaw::Uniform {
            low: vec![-1.0],
            high: vec![1.0],
        };
        let distance = 1.0 / 110.0 + 1.0 / 11.0;
        let truth = |input| Model {
            input,
            parameters: parameters.clone(),
        };
        let found = selection_error(&fitted, &truth(uniform)).unwrap();
        assert!((found - 0.5 * distance).abs() < 1e-12, "{found}");
        let normal = InputLaw::Normal {
            mean: vec![0.0],
            sd: vec![1.0],
            truncation: 2.0,
        };
        let found = selection_error(&fitted, &truth(normal)).unwrap();
        let density = 0.398_942_280_401_432_7 / 0.954_499_736_103_641_6;
        assert!((found / (density * distance) - 1.0).abs() < 2e-3, "{found}");
        let same = selection_error(
            &parameters,
            &truth(InputLaw::Grid {
                points: vec![vec![-0.5], vec![0.5]],
                lattice: None,
            }),
        );
        assert_eq!(same.unwrap(), 0.0);
    }
}
