//! Sums whose value does not depend on who computes them.

/// Neumaier's compensated sum: error independent of the number of terms to
/// first order (Neumaier 1974).
#[derive(Clone, Copy, Debug, Default)]
pub struct CompensatedSum {
    sum: f64,
    compensation: f64,
}

impl CompensatedSum {
    /// Adds one term.
    #[inline]
    pub fn add(&mut self, term: f64) {
        let total = self.sum + term;
        self.compensation += if self.sum.abs() >= term.abs() {
            (self.sum - total) + term
        } else {
            (term - total) + self.sum
        };
        self.sum = total;
    }

    /// The sum so far.
    #[inline]
    pub fn value(&self) -> f64 {
        // An infinite or NaN sum makes the compensation NaN; the sum is right.
        if self.sum.is_finite() {
            self.sum + self.compensation
        } else {
            self.sum
        }
    }
}

impl FromIterator<f64> for CompensatedSum {
    fn from_iter<I: IntoIterator<Item = f64>>(terms: I) -> Self {
        let mut sum = CompensatedSum::default();
        terms.into_iter().for_each(|term| sum.add(term));
        sum
    }
}

/// Mean and standard deviation (divisor n - 1; 0 for fewer than two values).
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().copied().collect::<CompensatedSum>().value() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares = values.iter().map(|v| (v - mean) * (v - mean));
    let variance = squares.collect::<CompensatedSum>().value() / (n - 1.0);
    (mean, variance.sqrt())
}

/// The `probability` quantile of `sorted` values, by linear interpolation
/// between order statistics (type 7 of Hyndman and Fan 1996).
pub fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let position = probability * (sorted.len() as f64 - 1.0);
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compensation_recovers_what_plain_addition_loses() {
        let terms = [1.0, 1e100, 1.0, -1e100];
        assert_eq!(terms.into_iter().collect::<CompensatedSum>().value(), 2.0);
        assert_eq!(terms.into_iter().sum::<f64>(), 0.0);
    }

    #[test]
    fn quantiles_interpolate_between_order_statistics() {
        let sorted = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&sorted, 0.5), 2.5);
        assert_eq!(quantile(&sorted, 1.0), 4.0);
        assert_eq!(quantile(&[7.0], 0.3), 7.0);
    }
}
