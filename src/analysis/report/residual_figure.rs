//! Residuals: against the normal law, and against the fitted mean.

use super::contents::{Analysis, Residuals};
use crate::plot::{Axis, Chart, Colour, Estimate, Interval, Marker, ReferenceLine, Series};
use statrs::distribution::{Beta, ContinuousCDF, Normal};

/// More points than this are thinned.
const MOST_POINTS: usize = 2000;
/// More points than this are drawn as dots.
const MOST_MARKERS: usize = 300;
/// Cross-sections of the band.
const SECTIONS: usize = 120;

/// Normal Q-Q with a pointwise 95 % band, and residuals against fitted means; none
/// without residuals.
pub(super) fn charts(analysis: &Analysis) -> Vec<Chart> {
    let Some(residuals) = &analysis.residuals else {
        return Vec::new();
    };
    match residuals.quantile.len() {
        0 | 1 => Vec::new(),
        _ => vec![normal(residuals), against_fitted(analysis, residuals)],
    }
}

/// What the charts' caption says.
pub(super) fn caption(residuals: &Residuals) -> String {
    let n = residuals.quantile.len();
    let thinned = match n > MOST_POINTS {
        true => format!(" Of {n} points, {} are drawn.", n.div_ceil(every(n))),
        false => String::new(),
    };
    format!(
        "Quantile residuals: standard normal if the model is right, whatever the mixture. Band: \
         95 % pointwise for {n} independent ones, parameters taken as known.{thinned}"
    )
}

fn every(n: usize) -> usize {
    n.div_ceil(MOST_POINTS).max(1)
}

fn marker(n: usize) -> Marker {
    match n > MOST_MARKERS {
        true => Marker::Dot,
        false => Marker::OpenCircle,
    }
}

/// Sorted residuals against normal quantiles at (i - 1/2) / n.
fn normal(residuals: &Residuals) -> Chart {
    let mut sorted = residuals.quantile.clone();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let law = Normal::standard();
    let quantile = |i: usize| law.inverse_cdf((i as f64 + 0.5) / n as f64);
    // The ends are what one looks at: they stay when points are thinned.
    let tail = n / 20;
    let step = every(n);
    let shown = (0..n).filter(|&i| i % step == 0 || step > 1 && (i.min(n - 1 - i)) < tail.min(100));
    let points = shown
        .map(|i| Estimate::exact(quantile(i), sorted[i]))
        .collect();
    let band = sections(n).into_iter().filter_map(|i| {
        let place = Beta::new(i as f64 + 1.0, (n - i) as f64).ok()?;
        let end = |p: f64| law.inverse_cdf(place.inverse_cdf(p).clamp(1e-300, 1.0 - 1e-16));
        Some(Interval::new(quantile(i), end(0.025), end(0.975)))
    });
    let ends = [quantile(0), quantile(n - 1)];
    Chart::new(
        "Normal quantiles",
        Axis::linear("standard normal"),
        Axis::linear("quantile residual"),
    )
    .with_series(Series::band("95 % pointwise", Colour::Grey, band.collect()))
    .with_series(Series::line(
        "standard normal",
        Colour::Black,
        ends.map(|q| (q, q)).to_vec(),
    ))
    .with_series(Series::points("", Colour::Blue, points).with_marker(marker(n)))
}

/// Ranks from 0 for the band: all if few; else equally spaced, with every rank of the
/// ends, where the band bends.
fn sections(n: usize) -> Vec<usize> {
    let step = n.div_ceil(SECTIONS).max(1);
    (0..n)
        .filter(|&i| i % step == 0 || i.min(n - 1 - i) < 20)
        .collect()
}

fn against_fitted(analysis: &Analysis, residuals: &Residuals) -> Chart {
    let n = residuals.quantile.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| residuals.fitted[a].total_cmp(&residuals.fitted[b]));
    let shown = order.into_iter().step_by(every(n));
    let points = shown.map(|i| Estimate::exact(residuals.fitted[i], residuals.quantile[i]));
    let x = Axis::linear(format!("fitted mean of {}", analysis.design.response.name));
    let mut chart = Chart::new("Residuals and means", x, Axis::linear("quantile residual"));
    for value in [-1.96, 0.0, 1.96] {
        chart = chart.with_reference_line(ReferenceLine::horizontal(
            value,
            if value == 0.0 { "0 and ± 1.96" } else { "" },
        ));
    }
    chart.with_series(Series::points("", Colour::Blue, points.collect()).with_marker(marker(n)))
}
