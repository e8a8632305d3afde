//! Probability-like numbers stay logarithms.

/// log(2 pi).
pub const LOG_TWO_PI: f64 = 1.837_877_066_409_345_5;

/// log sum_i exp(v_i), without overflow; -inf for an empty slice or all -inf.
#[inline]
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    let sum: f64 = values.iter().map(|v| (v - max).exp()).sum();
    max + sum.ln()
}

/// softplus(t) = log(1 + e^t), its derivative (the logistic function) and its
/// second derivative.
#[inline]
pub fn softplus_derivatives(t: f64) -> (f64, f64, f64) {
    let e = (-t.abs()).exp();
    let logistic = if t >= 0.0 { 1.0 } else { e } / (1.0 + e);
    (
        t.max(0.0) + e.ln_1p(),
        logistic,
        e / ((1.0 + e) * (1.0 + e)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_survives_extreme_arguments() {
        assert_eq!(log_sum_exp(&[1000.0, 1000.0]), 1000.0 + 2f64.ln());
        assert_eq!(log_sum_exp(&[-1000.0, -1000.0]), -1000.0 + 2f64.ln());
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY, 3.0]), 3.0);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn softplus_is_exact_in_both_tails() {
        assert_eq!(softplus_derivatives(800.0), (800.0, 1.0, 0.0));
        let (value, first, second) = softplus_derivatives(-50.0);
        let e = (-50f64).exp();
        assert!((value / e - 1.0).abs() < 1e-15);
        assert!((first / e - 1.0).abs() < 1e-15 && (second / e - 1.0).abs() < 1e-15);
    }
}
