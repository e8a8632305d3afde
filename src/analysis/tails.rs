//! Distribution functions in log space: exact however far out.

use crate::model::Conditional;
use crate::num::log_space::{LOG_TWO_PI, log_sum_exp};
use std::f64::consts::{FRAC_1_SQRT_2, LN_2};

/// Below this the normal tail is its asymptotic series, whose first term left out is
/// 9e-17 of the sum there.
const SERIES: f64 = -25.0;

/// log Phi(z), Phi the standard normal distribution function: full relative accuracy
/// in both tails.
pub(super) fn log_normal_cdf(z: f64) -> f64 {
    if z < SERIES {
        // Phi(z) = phi(z) / |z| (1 - 1/z^2 + 3/z^4 - 15/z^6 + ...)
        let t = 1.0 / (z * z);
        let factors = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0];
        let series = factors.iter().rev().fold(1.0, |sum, f| 1.0 - f * t * sum);
        log_normal_density(z) - (-z).ln() + series.ln()
    } else if z < 0.0 {
        libm::erfc(-z * FRAC_1_SQRT_2).ln() - LN_2
    } else {
        (-0.5 * libm::erfc(z * FRAC_1_SQRT_2)).ln_1p()
    }
}

/// log phi(z), phi the standard normal density.
pub(super) fn log_normal_density(z: f64) -> f64 {
    -0.5 * (z * z + LOG_TWO_PI)
}

/// The z with log Phi(z) = `log_probability`, at most log 1/2, so that z <= 0.
///
/// Newton from the left: log Phi is concave, so every iterate stays on the left of the
/// root and each is closer.
pub(super) fn normal_quantile_of_log(log_probability: f64) -> f64 {
    // Phi(z) <= exp(-z^2 / 2) / 2 for z <= 0 puts this start on the left.
    let mut z = -(2.0 * (-LN_2 - log_probability).max(0.0)).sqrt();
    for _ in 0..100 {
        let value = log_normal_cdf(z);
        let step = (log_probability - value) * (value - log_normal_density(z)).exp();
        z += step;
        if step.abs() <= 4.0 * f64::EPSILON * z.abs() || step <= 0.0 {
            break;
        }
    }
    z.min(0.0)
}

/// (log F(y), log (1 - F(y))) of a mixture, F its distribution function.
pub(super) fn log_tails(law: &Conditional, y: f64) -> (f64, f64) {
    let tail = |sign: f64| {
        let terms: Vec<f64> = law
            .active()
            .map(|i| {
                let z = (y - law.means[i]) / law.variances[i].sqrt();
                law.log_weights[i] + log_normal_cdf(sign * z)
            })
            .collect();
        // Rounding of the weights must not make a probability exceed 1.
        log_sum_exp(&terms).min(0.0)
    };
    (tail(1.0), tail(-1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::quadrature::integrate;
    use proptest::prelude::*;

    #[test]
    fn the_normal_tail_has_its_known_values() {
        // log Phi(-37), log Phi(-40), log Phi(-1000): 30-digit arithmetic of the
        // continued fraction of the Mills ratio.
        for (z, digits) in [
            (-37.0, mills(37.0)),
            (-40.0, mills(40.0)),
            (-1000.0, mills(1000.0)),
        ] {
            let exact = log_normal_density(z) + digits;
            assert!((log_normal_cdf(z) / exact - 1.0).abs() < 1e-15, "{z}");
        }
        assert_eq!(log_normal_cdf(0.0), -LN_2);
        assert_eq!(log_normal_cdf(1e3), 0.0);
        assert!((log_normal_cdf(-1.0) - 0.158_655_253_931_457_05f64.ln()).abs() < 1e-15);
        assert!((log_normal_cdf(1.0) - 0.841_344_746_068_542_9f64.ln()).abs() < 1e-15);
        assert!((log_normal_cdf(-10.0) - 7.619_853_024_160_525e-24f64.ln()).abs() < 1e-13);
    }

    /// log of the Mills ratio at t by Laplace's continued fraction
    /// 1 / (t + 1 / (t + 2 / (t + ...))).
    fn mills(t: f64) -> f64 {
        -(1..200)
            .rev()
            .fold(t, |below, k| t + f64::from(k) / below)
            .ln()
    }

    #[test]
    fn the_two_formulas_of_the_tail_meet() {
        for z in [-24.0, -24.999, -25.001, -26.0, -37.0f64] {
            let by_series = log_normal_density(z) + mills(-z);
            let error = (log_normal_cdf(z) - by_series).abs() / by_series.abs();
            assert!(error < 1e-15, "{z}: {error:e}");
        }
    }

    proptest! {
        #[test]
        fn the_quantile_inverts_the_distribution_function(z in -2000.0f64..0.0) {
            for z in [z, z / 100.0, z / 1e5] {
                let back = normal_quantile_of_log(log_normal_cdf(z));
                // Near 0 the probability holds z to an absolute 1e-16.
                prop_assert!((back - z).abs() < 1e-13 * z.abs() + 1e-15, "{z} {back}");
            }
        }

        #[test]
        fn the_tails_of_a_mixture_are_integrals_of_its_density(
            weight in 0.05f64..0.95, mean in -3.0f64..3.0, y in -4.0f64..4.0,
        ) {
            let law = Conditional {
                log_weights: vec![weight.ln(), (1.0 - weight).ln()],
                means: vec![mean, 0.5],
                variances: vec![0.3, 1.2],
            };
            let (below, above) = log_tails(&law, y);
            let density = |t: f64| [law.log_density(t).exp()];
            let lower = integrate(density, &[-20.0, mean.min(y - 1e-3), y], 1e-13, 200).value[0];
            prop_assert!((below.exp() - lower).abs() < 1e-12);
            prop_assert!((below.exp() + above.exp() - 1.0).abs() < 1e-14);
        }
    }
}
