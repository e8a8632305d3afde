//! Numbers of a table's row, rounded alike.

use crate::plot::number::{decimal, rounded};

/// What stands for a value that is missing.
pub(super) const ABSENT: &str = "–";

/// Significant digits of an error.
const ERROR_DIGITS: i32 = 3;
/// Significant digits of a value without error.
const DIGITS: i32 = 6;

/// How the numbers of a row are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Digits {
    /// This many decimals.
    Decimals(usize),
    /// This many significant digits.
    Significant(i32),
}

impl Digits {
    /// Of an estimate and what it is uncertain by: the error gets three significant
    /// digits and the estimate ends at the same place.
    pub(super) fn of(estimate: f64, error: Option<f64>) -> Digits {
        let Some(error) = error.filter(|e| *e > 0.0 && e.is_finite()) else {
            return Digits::Significant(DIGITS);
        };
        let place = error.log10().floor() as i32 + 1 - ERROR_DIGITS;
        // However uncertain, an estimate keeps as many digits.
        let own = match estimate == 0.0 {
            true => place,
            false => estimate.abs().log10().floor() as i32 + 1 - ERROR_DIGITS,
        };
        let place = place.min(own);
        let is_plain = place >= -9 && estimate.abs().max(error) < 1e7;
        match is_plain {
            true => Digits::Decimals((-place).max(0) as usize),
            false => Digits::Significant(DIGITS),
        }
    }

    pub(super) fn text(self, value: f64) -> String {
        match self {
            Digits::Decimals(decimals) => decimal(value, decimals),
            Digits::Significant(digits) => rounded(value, digits),
        }
    }

    pub(super) fn optional(self, value: Option<f64>) -> String {
        value.map_or(ABSENT.to_string(), |value| self.text(value))
    }

    pub(super) fn interval(self, ends: Option<[f64; 2]>) -> String {
        ends.map_or(ABSENT.to_string(), |[low, high]| {
            format!("[{}, {}]", self.text(low), self.text(high))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_at_the_place_of_its_error() {
        assert_eq!(
            Digits::of(37.940_306, Some(2.612_34)).text(37.940_306),
            "37.94"
        );
        let small = Digits::of(-0.000_123_456, Some(1.5e-6));
        assert_eq!(small.text(-0.000_123_456), "−0.00012346");
        assert_eq!(
            Digits::of(12_345_678.0, Some(1234.0)),
            Digits::Significant(6)
        );
        assert_eq!(Digits::of(0.0123, Some(45.0)).text(0.0123), "0.0123");
        assert_eq!(Digits::of(1.0, None).text(1.5), "1.50000");
        assert_eq!(
            Digits::Decimals(1).interval(Some([-1.0, f64::INFINITY])),
            "[−1.0, ∞]"
        );
        assert_eq!(Digits::Decimals(1).optional(None), ABSENT);
    }
}
