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

/// A line with a point at each of few values.
pub(super) fn marked(label: &str, colour: Colour, points: Vec<(f64, f64)>) -> [Series; 2] {
    const MOST_MARKED: usize = 16;
    let marks = match points.len() {
        n if n > MOST_MARKED => &[],
        _ => &points[..],
    };
    let marks = marks.iter().map(|&(x, y)| Estimate::exact(x, y)).collect();
    let series = Series::points(label, colour, marks);
    [Series::line(label, colour, points), series]
}

/// The chart with an axis y that shows what its lines do after their first fifth:
/// a loss falls so much at the start that nothing else would be seen.
pub(super) fn without_the_start(mut chart: Chart) -> Chart {
    let lines = || {
        chart.series.iter().filter_map(|series| match &series.data {
            SeriesData::Line { points, .. } => Some(points),
            _ => None,
        })
    };
    let ends = lines().flatten().map(|p| p.0);
    let (first, last) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    let start = first + 0.2 * (last - first);
    let shown = lines()
        .flatten()
        .filter(|p| p.0 >= start && p.1.is_finite());
    let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| {
        (low.min(p.1), high.max(p.1))
    });
    if low < high {
        let room = 0.06 * (high - low);
        chart.y = chart.y.with_range(low - room, high + room);
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Axis;

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
}
