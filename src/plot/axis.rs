//! Axes: their scale, the range they show, and where a value lands.

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps for equal differences.
    Linear,
    /// As linear, with ticks at whole numbers only.
    Whole,
    /// Equal steps for equal ratios; only positive values have a place.
    Log10,
}

/// Values beyond this have no place on any axis.
const LARGEST: f64 = 1e100;

impl Scale {
    /// Whether `value` has a place on an axis of this scale.
    pub fn admits(self, value: f64) -> bool {
        match self {
            Scale::Linear | Scale::Whole => value.abs() <= LARGEST,
            Scale::Log10 => (LARGEST.recip()..=LARGEST).contains(&value),
        }
    }

    /// The coordinate in which this scale is uniform.
    pub(super) fn forward(self, value: f64) -> f64 {
        match self {
            Scale::Linear | Scale::Whole => value,
            Scale::Log10 => value.log10(),
        }
    }

    fn backward(self, coordinate: f64) -> f64 {
        match self {
            Scale::Linear | Scale::Whole => coordinate,
            Scale::Log10 => 10f64.powf(coordinate),
        }
    }
}

/// One axis of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with unit; may be empty.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// Lowest and highest value shown; `None` fits the data.
    pub range: Option<(f64, f64)>,
}

impl Axis {
    /// A linear axis fitted to the data.
    pub fn linear(label: impl Into<String>) -> Self {
        Self::new(label.into(), Scale::Linear)
    }

    /// A linear axis of counts or numbers of things, fitted to the data.
    pub fn whole(label: impl Into<String>) -> Self {
        Self::new(label.into(), Scale::Whole)
    }

    /// A logarithmic axis fitted to the data.
    pub fn log10(label: impl Into<String>) -> Self {
        Self::new(label.into(), Scale::Log10)
    }

    /// The same axis with a fixed range. A range that the scale cannot show
    /// (empty, not finite, or not positive on a logarithmic axis) is ignored.
    pub const fn with_range(mut self, low: f64, high: f64) -> Self {
        self.range = Some((low, high));
        self
    }

    fn new(label: String, scale: Scale) -> Self {
        Self {
            label,
            scale,
            range: None,
        }
    }

    /// The range to show: the explicit one if usable, else one that holds all
    /// `values` with some room on both sides.
    pub(super) fn resolve_range(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        match self.range {
            Some((low, high))
                if low < high && self.scale.admits(low) && self.scale.admits(high) =>
            {
                (low, high)
            }
            _ => fitted_range(self.scale, values),
        }
    }
}

fn fitted_range(scale: Scale, values: impl Iterator<Item = f64>) -> (f64, f64) {
    const ROOM: f64 = 0.05;
    let extent = values
        .filter(|&value| scale.admits(value))
        .map(|value| scale.forward(value))
        .fold(None, |extent: Option<(f64, f64)>, value| match extent {
            None => Some((value, value)),
            Some((low, high)) => Some((low.min(value), high.max(value))),
        });
    let Some((low, high)) = extent else {
        return match scale {
            Scale::Linear | Scale::Whole => (0.0, 1.0),
            Scale::Log10 => (1.0, 10.0),
        };
    };
    let magnitude = low.abs().max(high.abs());
    let width = high - low;
    let room = if width > 1e-9 * magnitude && width > LARGEST.recip() {
        ROOM * width
    } else {
        match scale {
            Scale::Linear if magnitude > LARGEST.recip() => 0.1 * magnitude,
            Scale::Linear => 1.0,
            Scale::Whole => (0.1 * magnitude).max(1.0),
            Scale::Log10 => 0.5,
        }
    };
    (scale.backward(low - room), scale.backward(high + room))
}

/// Where the values of an axis land on the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projection {
    scale: Scale,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Projection {
    /// Maps `range` onto the page coordinates from `start` to `end`.
    pub(super) fn new(scale: Scale, range: (f64, f64), start: f64, end: f64) -> Self {
        Self {
            scale,
            low: scale.forward(range.0),
            high: scale.forward(range.1),
            start,
            end,
        }
    }

    /// The page coordinate of `value`, also outside the range; `None` for a
    /// value that has no place on the axis.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        self.scale.admits(value).then(|| {
            let share = (self.scale.forward(value) - self.low) / (self.high - self.low);
            self.start + share * (self.end - self.start)
        })
    }

    /// The page coordinate of the end of an interval: as [`Projection::place`],
    /// but a value below all places lands on the axis' low end and one above
    /// all on its high end. `None` only for NaN.
    pub(super) fn place_end(&self, value: f64) -> Option<f64> {
        if value.is_nan() {
            return None;
        }
        Some(
            self.place(value)
                .unwrap_or(if value > 1.0 { self.end } else { self.start }),
        )
    }

    /// Whether a page coordinate lies within the range shown.
    pub(super) fn shows(&self, coordinate: f64) -> bool {
        const ROUNDING: f64 = 1e-6;
        let (low, high) = (self.start.min(self.end), self.start.max(self.end));
        (low - ROUNDING..=high + ROUNDING).contains(&coordinate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(axis: &Axis, values: &[f64]) -> (f64, f64) {
        axis.resolve_range(values.iter().copied())
    }

    #[test]
    fn a_fitted_range_holds_all_values_with_room_and_skips_what_has_no_place() {
        let (low, high) = fitted(&Axis::linear(""), &[0.0, 10.0, f64::NAN, f64::INFINITY]);
        assert_eq!((low, high), (-0.5, 10.5));
        let (low, high) = fitted(&Axis::log10(""), &[-3.0, 0.0, 1.0, 100.0]);
        assert!((0.5..1.0).contains(&low) && (100.0..200.0).contains(&high));
    }

    #[test]
    fn identical_values_and_no_values_get_a_range_of_positive_width() {
        for axis in [Axis::linear(""), Axis::whole(""), Axis::log10("")] {
            for values in [&[][..], &[0.0, 0.0], &[7.0], &[1e99, 1e99], &[1e-320]] {
                let (low, high) = fitted(&axis, values);
                assert!(low < high, "{axis:?} {values:?}");
            }
        }
    }

    #[test]
    fn an_explicit_range_that_the_scale_cannot_show_is_ignored() {
        let axis = Axis::log10("").with_range(0.0, 1.0);
        assert!(fitted(&axis, &[2.0, 4.0]).0 > 1.0);
        let axis = Axis::linear("").with_range(0.0, 1.0);
        assert_eq!(fitted(&axis, &[2.0, 4.0]), (0.0, 1.0));
    }

    #[test]
    fn equal_ratios_are_equally_far_apart_on_a_logarithmic_axis() {
        let projection = Projection::new(Scale::Log10, (1.0, 100.0), 0.0, 200.0);
        assert!((projection.place(10.0).unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(projection.place(0.0), None);
        assert_eq!(projection.place_end(-1.0), Some(0.0));
        assert_eq!(projection.place_end(f64::INFINITY), Some(200.0));
    }
}
