//! Quantile residuals: standard normal if the model is right.

use super::Design;
use super::tails::{log_tails, normal_quantile_of_log};
use crate::model::{Conditional, Parameters};
use crate::num::sum::{CompensatedSum, mean_and_deviation};
use statrs::distribution::Normal;
use statrs::stats_tests::NaNPolicy;
use statrs::stats_tests::ks_test::{KSOneSampleAlternativeMethod, ks_onesample};

/// The quantile residuals of a model and what they look like.
#[derive(Clone, Debug, PartialEq)]
pub struct Residuals {
    /// r_n, in the order of the design's rows. Shape: n.
    pub values: Vec<f64>,
    /// 0 if the model is right.
    pub mean: f64,
    /// 1 if the model is right (divisor n - 1).
    pub deviation: f64,
    /// m_3 / m_2^(3/2) with central moments m (divisor n); 0 if the model is right.
    pub skewness: f64,
    /// Distance from the standard normal; `None` for fewer than two rows.
    pub kolmogorov_smirnov: Option<KolmogorovSmirnov>,
    /// (Phi^-1((i - 1/2) / n), i-th smallest residual). Shape: n.
    pub normal_points: Vec<(f64, f64)>,
    /// (row of the table from 0, residual) of the largest |r|, at most [`LARGEST`].
    pub largest: Vec<(usize, f64)>,
}

/// How many of the largest residuals are listed.
pub const LARGEST: usize = 10;

/// The test of Kolmogorov and Smirnov against the standard normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KolmogorovSmirnov {
    /// sup |F_n - Phi|
    pub distance: f64,
    /// Of the limit law for n rows and known parameters (Kolmogorov 1933). Parameters
    /// estimated from the same rows make the distance smaller: the value is too large,
    /// so a small one counts and a large one proves little.
    pub p_value: f64,
}

/// Phi^-1(F(y)), F the distribution function of a mixture: finite and exact for every y
/// with a finite square.
pub(super) fn quantile_residual(law: &Conditional, y: f64) -> f64 {
    let (below, above) = log_tails(law, y);
    match below <= above {
        true => normal_quantile_of_log(below),
        false => -normal_quantile_of_log(above),
    }
}

/// The randomised quantile residuals of Dunn and Smyth (1996),
/// r_n = Phi^-1(F(y_n | x_n)); y is continuous, so that nothing is randomised.
///
/// Every stored row counts once.
pub fn residuals(design: &Design, parameters: &Parameters) -> Residuals {
    let data = &design.data;
    let mut x = vec![0.0; data.dimension()];
    let mut law = parameters.conditional(&x);
    let values: Vec<f64> = (0..data.len())
        .map(|i| {
            let y = data.read_row(i, &mut x);
            parameters.conditional_into(&x, &mut law);
            quantile_residual(&law, y)
        })
        .collect();
    let (mean, deviation) = mean_and_deviation(&values);
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].abs().total_cmp(&values[i].abs()));
    let largest = order.iter().take(LARGEST);
    Residuals {
        mean,
        deviation,
        skewness: skewness(&values, mean),
        kolmogorov_smirnov: kolmogorov_smirnov(&values),
        normal_points: normal_points(&values),
        largest: largest.map(|&i| (design.rows[i], values[i])).collect(),
        values,
    }
}

fn skewness(values: &[f64], mean: f64) -> f64 {
    let moment = |power: i32| {
        let terms = values.iter().map(|v| (v - mean).powi(power));
        terms.collect::<CompensatedSum>().value() / values.len() as f64
    };
    match moment(2) {
        m2 if m2 > 0.0 => moment(3) / m2.powf(1.5),
        _ => 0.0,
    }
}

fn kolmogorov_smirnov(values: &[f64]) -> Option<KolmogorovSmirnov> {
    if values.len() < 2 {
        return None;
    }
    let method = KSOneSampleAlternativeMethod::TwoSidedAsymptotic;
    let test = ks_onesample(
        values.to_vec(),
        &Normal::standard(),
        method,
        NaNPolicy::Error,
    );
    let (distance, p_value) = test.ok()?;
    Some(KolmogorovSmirnov { distance, p_value })
}

fn normal_points(values: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let position = |i: usize| (i as f64 + 0.5) / n;
    let normal = |p: f64| match p <= 0.5 {
        true => normal_quantile_of_log(p.ln()),
        false => -normal_quantile_of_log((1.0 - p).ln()),
    };
    let points = sorted.iter().enumerate();
    points.map(|(i, &r)| (normal(position(i)), r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::example::{design, line, softmax};
    use crate::model::{InputLaw, Model, draw_sample};
    use crate::rng::{Purpose, Stream};

    fn truth() -> Parameters {
        softmax(vec![
            line(2.0, 1.0, 0.3, [1.5, 0.3]),
            line(-1.5, -0.5, 0.1, [0.0, 0.0]),
            line(0.3, 3.0, 0.02, [-1.0, 0.4]),
        ])
    }

    fn sample(rows: usize) -> Design {
        let model = Model {
            parameters: truth(),
            input: InputLaw::Uniform {
                low: vec![-2.0],
                high: vec![2.0],
            },
        };
        let stream = Stream::named(11, "residuals", 0, Purpose::Data);
        let data = draw_sample(&model, 0, rows, &stream);
        let responses = data.responses().to_vec().into();
        design(data.inputs().to_owned(), responses, 100.0, 7.0)
    }

    /// p < 1e-6 has probability 1e-6 for residuals that are standard normal. With
    /// n = 20000 a distance of 0.019 fails (D > 2.69 / sqrt(n)); a model whose variances
    /// are all 20 % too large is at 0.022 or more.
    #[test]
    fn residuals_of_the_true_model_are_standard_normal_and_of_a_wrong_one_are_not() {
        let design = sample(20_000);
        let right = residuals(&design, &truth());
        assert!(right.kolmogorov_smirnov.unwrap().p_value > 1e-6);
        let n = 20_000f64;
        // 4.9 standard errors: 1e-6 each.
        assert!(right.mean.abs() < 4.9 / n.sqrt());
        assert!((right.deviation - 1.0).abs() < 4.9 / (2.0 * n).sqrt());
        assert!(right.skewness.abs() < 4.9 * (6.0 / n).sqrt());
        let mut wrong = truth();
        wrong.experts.iter_mut().for_each(|e| e.variance *= 1.2);
        let wrong = residuals(&design, &wrong);
        assert!(wrong.kolmogorov_smirnov.unwrap().p_value < 1e-6);
    }

    #[test]
    fn far_tails_stay_finite_and_exact() {
        let one = softmax(vec![line(0.0, 0.0, 1.0, [0.0, 0.0])]).conditional(&[0.0]);
        for y in [
            -1e4, -300.0, -38.5, -37.0, -9.0, -1.0, 0.0, 1e-3, 8.5, 37.0, 38.5, 300.0, 1e4,
        ] {
            let error = (quantile_residual(&one, y) - y).abs();
            assert!(error <= 1e-13 * y.abs() + 1e-15, "{y}: {error:e}");
        }
        // Two equal components at half weight are one, in both tails.
        let half = softmax(vec![
            line(0.0, 0.0, 1.0, [0.0, 0.0]),
            line(0.0, 0.0, 1.0, [0.0, 0.0]),
        ]);
        let half = half.conditional(&[0.0]);
        for y in [-40.0, -2.0, 2.0, 40.0f64] {
            assert!((quantile_residual(&half, y) - y).abs() < 1e-12 * y.abs());
        }
        // Far out the wider component rules: 1 - F = w (1 - Phi(y / s)) to rounding.
        let two = softmax(vec![
            line(0.0, 0.0, 1.0, [0.0, -3.0]),
            line(0.0, 0.0, 0.01, [0.0, 0.0]),
        ]);
        let two = two.conditional(&[0.0]);
        let y = 60.0f64;
        let expected =
            -0.5 * y * y - y.ln() + two.log_weights[0] - 0.5 * std::f64::consts::TAU.ln();
        let r = quantile_residual(&two, y);
        let tail = -0.5 * r * r - r.ln() - 0.5 * std::f64::consts::TAU.ln();
        assert!((tail - expected).abs() < 1e-5, "{tail} {expected}");
    }

    #[test]
    fn the_largest_residuals_name_their_rows_of_the_table() {
        let mut design = sample(50);
        design.rows = (0..50).map(|i| 2 * i + 1).collect();
        let all = residuals(&design, &truth());
        assert_eq!(all.largest.len(), LARGEST);
        let biggest = all.values.iter().fold(0.0, |a: f64, r| a.max(r.abs()));
        assert_eq!(all.largest[0].1.abs(), biggest);
        for &(row, r) in &all.largest {
            assert_eq!(all.values[(row - 1) / 2], r);
        }
        assert!(
            all.normal_points
                .windows(2)
                .all(|w| w[0].1 <= w[1].1 && w[0].0 < w[1].0)
        );
        assert!((all.normal_points[0].0 + 2.326_347_874_040_841).abs() < 1e-14);
    }
}
