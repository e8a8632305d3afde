//! Points of a curve: fewer of them, between them, and averaged over seeds.

use crate::num::sum::mean_and_deviation;
use crate::plot::{Chart, Colour, Estimate, Series, SeriesData};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// At most `most` points: means of as many runs of neighbours, equally long but for
/// the last.
pub(super) fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let length = points.len().div_ceil(most.max(1)).max(1);
    let middle = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(length).map(middle).collect()
}

/// y at x, on straight lines between points of ascending x; `None` outside them.
pub(super) fn interpolated(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = points.partition_point(|p| p.0 < x);
    let &(right, high) = points.get(after)?;
    if right == x {
        return Some(high);
    }
    let &(left, low) = points.get(after.checked_sub(1)?)?;
    Some(low + (high - low) * (x - left) / (right - left))
}

/// A mean with the half-width of Student's 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Average {
    pub(super) mean: f64,
    /// `None` for a single value.
    pub(super) half_width: Option<f64>,
    pub(super) n: usize,
}

/// The average of values that are taken as independent and normal; `None` of nothing.
pub(super) fn average(values: &[f64]) -> Option<Average> {
    let n = values.len();
    let (mean, deviation) = mean_and_deviation(values);
    let freedom = n as f64 - 1.0;
    let student = StudentsT::new(0.0, 1.0, freedom).ok();
    (n > 0).then(|| Average {
        mean,
        half_width: student.map(|t| t.inverse_cdf(0.975) * deviation / (n as f64).sqrt()),
        n,
    })
}

/// A line, with a point at each value where there are few.
pub(super) fn marked(label: &str, colour: Colour, points: Vec<(f64, f64)>) -> Vec<Series> {
    const MOST_MARKED: usize = 16;
    let marks = points.iter().map(|&(x, y)| Estimate::exact(x, y)).collect();
    let few = points.len() <= MOST_MARKED;
    let mut series = vec![Series::line(label, colour, points)];
    if few {
        series.push(Series::points(label, colour, marks));
    }
    series
}

/// The chart with an axis y that shows what its lines do after their first fifth: a
/// loss falls so much at the start that nothing else would be seen. Bands are shown as
/// far as they reach no further than half the lines' range beyond it.
pub(super) fn without_the_start(mut chart: Chart) -> Chart {
    let lines = || {
        chart.series.iter().filter_map(|series| match &series.data {
            SeriesData::Line { points, .. } => Some(points),
            _ => None,
        })
    };
    let bands = || {
        chart.series.iter().filter_map(|series| match &series.data {
            SeriesData::Band { intervals } => Some(intervals),
            _ => None,
        })
    };
    let (first, last) = extent(lines().flatten().map(|p| p.0));
    let start = first + 0.2 * (last - first);
    let shown = lines().flatten().filter(|p| p.0 >= start).map(|p| p.1);
    let (low, high) = extent(shown);
    let beyond = 0.5 * (high - low);
    let shown = bands().flatten().filter(|band| band.x >= start);
    let (band_low, band_high) = extent(shown.flat_map(|band| [band.low, band.high]));
    let low = low.min(band_low.max(low - beyond));
    let high = high.max(band_high.min(high + beyond));
    if low < high {
        let room = 0.06 * (high - low);
        chart.y = chart.y.with_range(low - room, high + room);
    }
    chart
}

/// The smallest and the largest finite value; infinite ends of nothing.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Axis, Interval};

    #[test]
    fn thinning_keeps_the_mean_and_short_curves() {
        let points: Vec<(f64, f64)> = (0..100).map(|k| (k as f64, 2.0 * k as f64)).collect();
        let thin = thinned(&points, 10);
        assert_eq!(thin.len(), 10);
        assert_eq!((thin[0], thin[9]), ((4.5, 9.0), (94.5, 189.0)));
        assert_eq!(thinned(&points, 100), points);
        assert!(thinned(&[], 10).is_empty());
    }

    #[test]
    fn interpolation_is_straight_inside_and_refused_outside() {
        let points = [(1.0, 4.0), (3.0, 2.0), (4.0, 2.5)];
        assert_eq!(interpolated(&points, 2.0), Some(3.0));
        assert_eq!(interpolated(&points, 1.0), Some(4.0));
        assert_eq!(interpolated(&points, 4.0), Some(2.5));
        assert_eq!(interpolated(&points, 0.9), None);
        assert_eq!(interpolated(&points, 4.1), None);
        assert_eq!(interpolated(&[], 0.0), None);
    }

    #[test]
    fn students_interval_of_three_values() {
        // s = 1, t_2(0.975) = 4.302653, divided by sqrt 3.
        let three = average(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((three.mean, three.n), (2.0, 3));
        assert!((three.half_width.unwrap() - 2.484_138).abs() < 1e-6);
        assert_eq!(average(&[5.0]).unwrap().half_width, None);
        assert_eq!(average(&[]), None);
    }

    #[test]
    fn the_start_of_a_loss_does_not_set_the_scale() {
        let fall: Vec<(f64, f64)> = (1..=100)
            .map(|k| (k as f64, 1.0 + 9.0 / k as f64))
            .collect();
        let chart = Chart::new("", Axis::linear(""), Axis::linear(""));
        let chart = without_the_start(chart.with_series(Series::line("", Colour::Blue, fall)));
        let (low, high) = chart.y.range.unwrap();
        assert!(low < 1.09 && high > 1.4 && high < 1.5, "{low} {high}");
    }

    #[test]
    fn bands_widen_the_scale_but_a_boundless_one_does_not_rule_it() {
        let line = vec![(0.0, 9.0), (5.0, 2.0), (10.0, 1.0)];
        let range = |half: f64| {
            let band = [5.0, 10.0].map(|x| Interval::new(x, 1.5 - half, 1.5 + half));
            let chart = Chart::new("", Axis::linear(""), Axis::linear(""))
                .with_series(Series::line("", Colour::Blue, line.clone()))
                .with_series(Series::band("", Colour::Blue, band.to_vec()));
            let (low, high) = without_the_start(chart).y.range.unwrap();
            (
                (100.0 * low).round() / 100.0,
                (100.0 * high).round() / 100.0,
            )
        };
        assert_eq!(range(0.1), (0.94, 2.06));
        assert_eq!(range(0.75), (0.66, 2.34));
        assert_eq!(range(1e6), (0.38, 2.62));
    }
}
