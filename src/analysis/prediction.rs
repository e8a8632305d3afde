//! What a model says of rows, in raw units of y.

use super::Design;
use super::quantile::mixture_quantile;
use super::responsibility::responsibilities_at;
use crate::error::{Error, Result};
use crate::model::{Conditional, Parameters};
use ndarray::ArrayView2;
use std::io::Write;
use std::path::Path;

/// The conditional law of y at one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// E(y | x) = sum_i w_i m_i
    pub mean: f64,
    /// sqrt(sum_i w_i (v_i + (m_i - mean)^2))
    pub deviation: f64,
    /// One per level asked for.
    pub quantiles: Vec<f64>,
    /// w_i(x), summing to 1. Shape: experts.
    pub weights: Vec<f64>,
    /// What the row's response adds, if it was given.
    pub observed: Option<Observed>,
}

/// What is known of a row whose response is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// log p(y | x), per raw unit of y.
    pub log_density: f64,
    /// Which expert made it, as probabilities. Shape: experts.
    pub responsibilities: Vec<f64>,
}

impl Observed {
    /// p(y | x), per raw unit of y.
    pub fn density(&self) -> f64 {
        self.log_density.exp()
    }
}

/// Predicts rows.
///
/// # Shapes
/// `inputs`: n, features of the design, standardised; `responses`: n, in raw units.
///
/// # Errors
/// [`Error::Dimension`] if sizes differ; [`Error::Value`] if a level is not inside
/// (0, 1) or a number is not finite.
pub fn predict(
    design: &Design,
    parameters: &Parameters,
    inputs: ArrayView2<f64>,
    responses: Option<&[f64]>,
    levels: &[f64],
) -> Result<Vec<Prediction>> {
    let dimension = |what, expected, got| match expected == got {
        true => Ok(()),
        false => Err(Error::Dimension {
            what,
            expected,
            got,
        }),
    };
    dimension("features of a row", parameters.dimension(), inputs.ncols())?;
    let given = responses.unwrap_or_default();
    if responses.is_some() {
        dimension("responses", inputs.nrows(), given.len())?;
    }
    if let Some(level) = levels.iter().find(|l| !(**l > 0.0 && **l < 1.0)) {
        let message = format!("quantile levels lie between 0 and 1, got {level}");
        return Err(Error::value("levels", message));
    }
    if inputs.iter().chain(given).any(|v| !v.is_finite()) {
        return Err(Error::value("data", "all values must be finite"));
    }
    let mut x = vec![0.0; inputs.ncols()];
    let mut law = parameters.conditional(&x);
    let rows = inputs.rows().into_iter().enumerate();
    Ok(rows
        .map(|(i, row)| {
            x.iter_mut().zip(row).for_each(|(x, value)| *x = *value);
            parameters.conditional_into(&x, &mut law);
            at(design, &law, given.get(i).copied(), levels)
        })
        .collect())
}

/// The prediction of one law; `response` in raw units.
fn at(design: &Design, law: &Conditional, response: Option<f64>, levels: &[f64]) -> Prediction {
    let scale = &design.response;
    let weights: Vec<f64> = law.log_weights.iter().map(|w| w.exp()).collect();
    let mean = law.mean();
    let spread = |i: usize| law.variances[i] + (law.means[i] - mean).powi(2);
    let variance: f64 = law.active().map(|i| weights[i] * spread(i)).sum();
    let observed = response.map(|y| {
        let standardised = scale.standardised(y);
        let mut responsibilities = vec![0.0; weights.len()];
        responsibilities_at(law, standardised, &mut responsibilities);
        Observed {
            log_density: law.log_density(standardised) - scale.deviation.ln(),
            responsibilities,
        }
    });
    let quantiles = levels
        .iter()
        .map(|&level| scale.raw(mixture_quantile(law, level)));
    Prediction {
        mean: scale.raw(mean),
        deviation: scale.deviation * variance.sqrt(),
        quantiles: quantiles.collect(),
        weights,
        observed,
    }
}

/// Writes predictions as CSV: `row, mean, sd, q0.05, ..., weight_1, ...`, and where
/// responses were given `responsibility_1, ..., log_density`. Experts count from 1.
///
/// # Shapes
/// `rows`: n, the numbers in the column `row`; `levels`: those of the predictions.
///
/// # Errors
/// [`Error::File`] naming `path` if `to` cannot be written.
pub fn write_predictions(
    to: impl Write,
    path: &Path,
    rows: &[usize],
    levels: &[f64],
    predictions: &[Prediction],
) -> Result<()> {
    let failed = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::file(path, "write", &error),
        other => Error::file(path, "write", &std::io::Error::other(format!("{other:?}"))),
    };
    let mut file = csv::Writer::from_writer(to);
    let Some(first) = predictions.first() else {
        return Ok(());
    };
    let experts = first.weights.len();
    let numbered = |name: &str| (1..=experts).map(|k| format!("{name}_{k}")).collect();
    let mut header: Vec<String> = ["row", "mean", "sd"].map(String::from).to_vec();
    header.extend(levels.iter().map(|level| format!("q{level}")));
    header.extend::<Vec<String>>(numbered("weight"));
    if first.observed.is_some() {
        header.extend::<Vec<String>>(numbered("responsibility"));
        header.push("log_density".to_string());
    }
    file.write_record(&header).map_err(failed)?;
    for (row, p) in rows.iter().zip(predictions) {
        let known = p.observed.iter();
        let known = known.flat_map(|o| o.responsibilities.iter().chain([&o.log_density]));
        let numbers = [p.mean, p.deviation];
        let numbers = numbers.iter().chain(&p.quantiles).chain(&p.weights);
        // Debug writes the shortest digits that read back, tiny numbers with exponents.
        let numbers = numbers.chain(known).map(|value| format!("{value:?}"));
        let record = std::iter::once(row.to_string()).chain(numbers);
        file.write_record(record).map_err(failed)?;
    }
    let flushed = file.flush();
    flushed.map_err(|error| Error::file(path, "write", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::example::{design, line, softmax};
    use crate::num::quadrature::integrate;
    use ndarray::{arr1, arr2};

    fn example() -> (Design, Parameters) {
        let parameters = softmax(vec![
            line(0.8, 1.0, 0.09, [1.5, 0.2]),
            line(-0.6, -0.5, 0.25, [-2.0, 0.1]),
            line(0.1, 0.0, 0.01, [0.0, 0.0]),
        ]);
        let design = design(arr2(&[[-1.0], [1.0]]), arr1(&[-1.0, 1.0]), -20.0, 5.0);
        (design, parameters)
    }

    #[test]
    fn one_expert_predicts_the_normal_law_of_its_line() {
        let (design, _) = example();
        let one = softmax(vec![line(0.8, 0.1, 0.04, [0.0, 0.0])]);
        let levels = [0.05, 0.5, 0.975];
        let rows = arr2(&[[-1.5], [0.0], [2.0]]);
        let y = [-24.0, -19.0, -10.0];
        let all = predict(&design, &one, rows.view(), Some(&y), &levels).unwrap();
        for ((p, x), y) in all.iter().zip(&rows).zip(y) {
            let mean = -20.0 + 5.0 * (0.8 * x + 0.1);
            assert!((p.mean - mean).abs() < 1e-12);
            assert!((p.deviation - 1.0).abs() < 1e-12);
            for (q, z) in
                p.quantiles
                    .iter()
                    .zip([-1.644_853_626_951_472_2, 0.0, 1.959_963_984_540_054])
            {
                assert!((q - (mean + z)).abs() < 1e-12);
            }
            let observed = p.observed.as_ref().unwrap();
            let density = (-0.5 * (y - mean).powi(2)).exp() / std::f64::consts::TAU.sqrt();
            assert!((observed.density() / density - 1.0).abs() < 1e-12);
            assert_eq!((p.weights[0], observed.responsibilities[0]), (1.0, 1.0));
        }
    }

    #[test]
    fn moments_and_quantiles_are_those_of_the_density_by_quadrature() {
        let (design, parameters) = example();
        let levels = [1e-12, 0.05, 0.3, 0.5, 0.95];
        for x in [-1.7, -0.2, 0.0, 0.4, 1.3] {
            let density = |y: f64| {
                let row = arr2(&[[x]]);
                let one = predict(&design, &parameters, row.view(), Some(&[y]), &[]).unwrap();
                one[0].observed.as_ref().unwrap().density()
            };
            let row = arr2(&[[x]]);
            let p = &predict(&design, &parameters, row.view(), None, &levels).unwrap()[0];
            let moments = |y: f64| [1.0, y, (y - p.mean).powi(2)].map(|f| f * density(y));
            let breaks = [
                -60.0,
                p.quantiles[1],
                p.quantiles[2],
                p.quantiles[3],
                p.quantiles[4],
                20.0,
            ];
            let [total, mean, variance] = integrate(moments, &breaks, 1e-12, 300).value;
            assert!((total - 1.0).abs() < 1e-10);
            assert!((mean - p.mean).abs() < 1e-9);
            assert!((variance.sqrt() - p.deviation).abs() < 1e-9);
            for (q, level) in p.quantiles.iter().zip(levels) {
                let below =
                    integrate(|y| [density(y)], &[q - 40.0, q - 2.0, *q], 1e-12, 300).value[0];
                assert!((below / level - 1.0).abs() < 1e-8, "{level}: {below}");
            }
        }
    }

    #[test]
    fn bad_levels_and_sizes_are_one_clear_line() {
        let (design, parameters) = example();
        let row = arr2(&[[0.0]]);
        for level in [0.0, 1.0, -0.1, f64::NAN] {
            let error = predict(&design, &parameters, row.view(), None, &[level]).unwrap_err();
            assert!(error.to_string().contains("between 0 and 1"), "{error}");
        }
        let wide = arr2(&[[0.0, 1.0]]);
        assert!(predict(&design, &parameters, wide.view(), None, &[]).is_err());
        assert!(predict(&design, &parameters, row.view(), Some(&[]), &[]).is_err());
        assert!(predict(&design, &parameters, row.view(), Some(&[f64::NAN]), &[]).is_err());
    }

    #[test]
    fn the_csv_has_stable_names_and_every_digit() {
        let (design, parameters) = example();
        let rows = arr2(&[[0.3], [-0.4]]);
        let levels = [0.05, 0.5];
        let all = predict(
            &design,
            &parameters,
            rows.view(),
            Some(&[-21.0, -18.0]),
            &levels,
        )
        .unwrap();
        let mut bytes = Vec::new();
        write_predictions(&mut bytes, Path::new("p.csv"), &[4, 7], &levels, &all).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap(),
            "row,mean,sd,q0.05,q0.5,weight_1,weight_2,weight_3,\
             responsibility_1,responsibility_2,responsibility_3,log_density"
        );
        let fields: Vec<&str> = lines.nth(1).unwrap().split(',').collect();
        assert_eq!(fields[0], "7");
        assert_eq!(fields[3].parse::<f64>().unwrap(), all[1].quantiles[0]);
        let observed = all[1].observed.as_ref().unwrap();
        assert_eq!(fields[11].parse::<f64>().unwrap(), observed.log_density);
        let mut bytes = Vec::new();
        let blind = predict(&design, &parameters, rows.view(), None, &[]).unwrap();
        write_predictions(&mut bytes, Path::new("p.csv"), &[0, 1], &[], &blind).unwrap();
        assert!(
            String::from_utf8(bytes)
                .unwrap()
                .starts_with("row,mean,sd,weight_1,weight_2,weight_3\n")
        );
    }
}
