//! Numbers of the report: for people as in [`crate::plot::number`], for CSV files with
//! six digits.

pub(super) use crate::plot::number::{
    counted, decimal, interval, percent, rounded, shortened, size, stated, stated_interval,
    thousands, with_error,
};
pub(super) use crate::sim::summary::wilson_interval as wilson;

/// `value` with six significant digits, in plain decimals that read back to the
/// same number: what a CSV file holds. Empty for `None`.
pub(super) fn six_digits(value: Option<f64>) -> String {
    let Some(value) = value else {
        return String::new();
    };
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    // Adding zero turns -0 into 0.
    (rounded + 0.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_numbers_have_six_digits_and_read_back() {
        assert_eq!(six_digits(Some(0.123_456_789)), "0.123457");
        assert_eq!(six_digits(Some(1_234_567.0)), "1234570");
        assert_eq!(six_digits(Some(-0.0)), "0");
        assert_eq!(six_digits(Some(f64::NAN)), "NaN");
        assert_eq!(six_digits(None), "");
    }
}
