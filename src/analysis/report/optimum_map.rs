//! Where the starts ended.

use super::contents::Analysis;
use super::tables::hits;
use crate::analysis::{Attainment, Optimum};
use crate::plot::{Axis, Chart, Colour, Estimate, Marker, ReferenceLine, Series};

/// Starts per optimum against how far its log-likelihood is from the best one's;
/// `None` for a single optimum.
pub(super) fn chart(analysis: &Analysis) -> Option<Chart> {
    let fitted = &analysis.model().fitted;
    let best = fitted.best()?;
    let gap = |optimum: &Optimum| best.log_likelihood - optimum.log_likelihood;
    let others = &fitted.optima[1..];
    let distances = || others.iter().map(|o| gap(o).abs()).filter(|d| *d > 0.0);
    let nearest = distances().fold(f64::INFINITY, f64::min);
    let farthest = distances().fold(0.0, f64::max);
    if !nearest.is_finite() {
        return None;
    }
    // The best has no place on a logarithmic axis: it stands on a line to the left.
    let left = 0.15 * nearest;
    let most = fitted.optima.iter().map(hits).max().unwrap_or(1);
    let x = Axis::log10("distance of the log-likelihood from the best")
        .with_range(0.7 * left, 2.0 * farthest);
    let y = Axis::log10("starts that ended there").with_range(0.7, 1.6 * most as f64);
    let mut chart = Chart::new("Optima", x, y).with_reference_line(ReferenceLine::vertical(
        left,
        "the best: distance 0, off the scale",
    ));
    let of = |keep: &dyn Fn(&Optimum) -> bool| -> Vec<(f64, usize)> {
        let all = fitted.optima.iter().enumerate().filter(|(_, o)| keep(o));
        all.map(|(k, o)| (if k == 0 { left } else { gap(o).abs() }, hits(o)))
            .collect()
    };
    let is_maximum = |o: &Optimum| o.attainment == Attainment::Interior;
    let mut add = |text: &str, colour, marker, all: Vec<(f64, usize)>| {
        let points = all
            .into_iter()
            .map(|(x, hits)| Estimate::exact(x, hits as f64));
        let points: Vec<Estimate> = points.collect();
        if !points.is_empty() {
            let series = Series::points(text, colour, points).with_marker(marker);
            chart.series.push(series);
        }
    };
    let counts = |o: &Optimum| o.spurious.is_none();
    // Those that count come last: they lie on top.
    add(
        "spurious, below the best",
        Colour::Vermillion,
        Marker::Square,
        of(&|o| !counts(o) && gap(o) >= 0.0),
    );
    add(
        "spurious, above the best",
        Colour::Vermillion,
        Marker::OpenSquare,
        of(&|o| !counts(o) && gap(o) < 0.0),
    );
    add(
        "not attained, or on a bound",
        Colour::Blue,
        Marker::OpenCircle,
        of(&|o| counts(o) && !is_maximum(o)),
    );
    add(
        "maximum",
        Colour::Blue,
        Marker::Circle,
        of(&|o| counts(o) && is_maximum(o)),
    );
    Some(chart)
}
