//! Units that keep numbers short.

use crate::plot::number::{rounded, shortened};

/// A unit: how many of the base unit it is, and its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    pub(super) size: f64,
    pub(super) name: &'static str,
}

/// The largest unit of which `largest` is at least one; the smallest if none.
fn fitting(largest: f64, units: &[(f64, &'static str)]) -> Unit {
    let fits = units.iter().rev().find(|(size, _)| largest >= *size);
    let &(size, name) = fits.unwrap_or(&units[0]);
    Unit { size, name }
}

/// Of durations in seconds.
pub(super) fn time(largest: f64) -> Unit {
    let units = [(1.0, "s"), (60.0, "min"), (3600.0, "h"), (86_400.0, "d")];
    // A few minutes are better told in seconds, a few hours in minutes.
    fitting(largest / 3.0, &units)
}

/// Of floating-point operations.
pub(super) fn flops(largest: f64) -> Unit {
    let units = [
        (1e6, "MFLOP"),
        (1e9, "GFLOP"),
        (1e12, "TFLOP"),
        (1e15, "PFLOP"),
        (1e18, "EFLOP"),
        (1e21, "ZFLOP"),
    ];
    fitting(largest, &units)
}

/// Of bytes.
pub(super) fn bytes(largest: f64) -> Unit {
    let units = [
        (1.0, "B"),
        (1024.0, "KiB"),
        (1_048_576.0, "MiB"),
        (1_073_741_824.0, "GiB"),
    ];
    fitting(largest, &units)
}

/// Of counts.
pub(super) fn count(largest: f64) -> Unit {
    let units = [(1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G"), (1e12, "T")];
    fitting(largest, &units)
}

impl Unit {
    /// A value of the base unit in this unit, to three digits.
    pub(super) fn text(self, value: f64) -> String {
        let number = shortened(&rounded(value / self.size, 3));
        match self.name {
            "" => number,
            name => format!("{number} {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_in_units_that_keep_them_short() {
        assert_eq!(time(100.0).text(100.0), "100 s");
        assert_eq!(time(600.0).text(600.0), "10 min");
        assert_eq!(time(3.0 * 3600.0).text(3.0 * 3600.0), "3 h");
        assert_eq!(flops(2.5e15).text(2.5e15), "2.5 PFLOP");
        assert_eq!(flops(0.0).text(0.0), "0 MFLOP");
        assert_eq!(
            bytes(1.5 * 1_073_741_824.0).text(1_610_612_736.0),
            "1.5 GiB"
        );
        assert_eq!(count(36_077_000.0).text(36_077_000.0), "36.1 M");
        assert_eq!(count(12.0).text(12.0), "12");
    }
}
