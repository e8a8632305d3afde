//! Mean and deviation of a column, whatever its units.

/// Mean and standard deviation (divisor n) of the values; the deviation is 0 if they
/// differ by no more than rounding.
///
/// The values are scaled by a power of two first, so that squares neither overflow nor
/// vanish; the mean is corrected by the mean of the residuals (two passes).
pub(super) fn moments(values: &[f64]) -> (f64, f64) {
    /// Units of rounding of the largest value within which values are equal.
    const ROUNDING: f64 = 8.0 * f64::EPSILON;
    let size = power_of_two(largest(values));
    let n = values.len() as f64;
    let scaled = || values.iter().map(|v| v / size);
    let first = scaled().sum::<f64>() / n;
    let mean = first + scaled().map(|v| v - first).sum::<f64>() / n;
    let (low, high) = scaled().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (v.min(low), v.max(high))
    });
    if high - low <= ROUNDING * high.abs().max(low.abs()) {
        return (mean * size, 0.0);
    }
    let squares: f64 = scaled().map(|v| (v - mean) * (v - mean)).sum();
    (mean * size, (squares / n).sqrt() * size)
}

/// Largest absolute value, 0 of none.
pub(super) fn largest(values: &[f64]) -> f64 {
    values
        .iter()
        .fold(0.0, |largest: f64, v| largest.max(v.abs()))
}

/// The power of two at or below a positive number, 1 for 0: division by it is exact.
pub(super) fn power_of_two(value: f64) -> f64 {
    match value > 0.0 {
        true => 2f64.powi((value.log2().floor() as i32).clamp(-1022, 1023)),
        false => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_huge_and_tiny_values_neither_overflow_nor_vanish() {
        for size in [1.0, 1e300, 1e-300, 1.5e308, 1e-307] {
            let values = [0.0, 0.5 * size, size];
            let (mean, deviation) = moments(&values);
            assert!((mean / size - 0.5).abs() < 1e-14, "{mean}");
            assert!((deviation / size - (1.0f64 / 6.0).sqrt()).abs() < 1e-14);
        }
        let (mean, deviation) = moments(&[-1.7e308, 1.7e308]);
        assert_eq!(mean, 0.0);
        assert!((deviation / 1.7e308 - 1.0).abs() < 1e-14, "{deviation}");
    }

    #[test]
    fn moments_of_a_far_shifted_column_keep_its_deviation() {
        let values: Vec<f64> = (0..1000).map(|i| 1e9 + i as f64 / 1000.0).collect();
        let (mean, deviation) = moments(&values);
        assert!((mean - 1e9 - 0.4995).abs() < 1e-6);
        assert!(
            (deviation - (0.999999f64 / 12.0).sqrt()).abs() < 1e-6,
            "{deviation}"
        );
    }

    #[test]
    fn values_that_differ_by_rounding_only_are_constant() {
        assert_eq!(moments(&[0.1 + 0.2, 0.3, 0.3]).1, 0.0);
        assert_eq!(moments(&[0.0, 0.0]), (0.0, 0.0));
        assert!(moments(&[1.0, 1.0 + 1e-14]).1 > 0.0);
    }
}
