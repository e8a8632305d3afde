//! Residuals: against the normal law, and against the fitted mean.

use super::contents::Analysis;
use crate::analysis::Residuals;
use crate::plot::{Axis, Chart, Colour, Estimate, Interval, Marker, ReferenceLine, Series};
use statrs::distribution::{Beta, ContinuousCDF, Normal};

/// More points than this are thinned.
const MOST_POINTS: usize = 2000;
/// More points than this are drawn as dots.
const MOST_MARKERS: usize = 300;
/// Cross-sections of the band.
const SECTIONS: usize = 120;
/// Points at either end that are never left out.
const TAIL: usize = 50;

/// Normal Q-Q with a pointwise 95 % band, and residuals against fitted means; none
/// without residuals.
pub(super) fn charts(analysis: &Analysis) -> Vec<Chart> {
    let shown = analysis.residuals.as_ref().filter(|r| r.values.len() > 1);
    shown.map_or(Vec::new(), |residuals| {
        vec![normal(residuals), against_fitted(analysis, residuals)]
    })
}

/// What the charts' caption says.
pub(super) fn caption(residuals: &Residuals) -> String {
    let n = residuals.values.len();
    let thinned = match n > MOST_POINTS {
        true => format!(" Of {n} points about {} are drawn.", n.div_ceil(every(n))),
        false => String::new(),
    };
    format!(
        "Quantile residuals: standard normal if the model is right. Band: 95 % pointwise for {n} \
         independent ones, the parameters taken as known. Grey lines: 0 and ± 1.96.{thinned}"
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
    let all = &residuals.normal_points;
    let n = all.len();
    let from_end = |i: usize| i.min(n - 1 - i);
    let points = (0..n)
        .filter(|&i| i % every(n) == 0 || from_end(i) < TAIL)
        .map(|i| Estimate::exact(all[i].0, all[i].1));
    let law = Normal::standard();
    // The i-th smallest of n uniforms has a Beta law.
    let step = n.div_ceil(SECTIONS);
    let sections = (0..n).filter(|&i| i % step == 0 || from_end(i) < TAIL);
    let band = sections.filter_map(|i| {
        let place = Beta::new(i as f64 + 1.0, (n - i) as f64).ok()?;
        let end = |p: f64| law.inverse_cdf(place.inverse_cdf(p));
        Some(Interval::new(all[i].0, end(0.025), end(0.975)))
    });
    let ends = [all[0].0, all[n - 1].0];
    let (x, y) = (
        Axis::linear("standard normal quantile"),
        Axis::linear("quantile residual"),
    );
    Chart::new("Normal quantiles", x, y)
        .with_series(Series::band("", Colour::Grey, band.collect()))
        .with_series(Series::line(
            "",
            Colour::Black,
            ends.map(|q| (q, q)).to_vec(),
        ))
        .with_series(Series::points("", Colour::Blue, points.collect()).with_marker(Marker::Dot))
}

/// Residuals against the mixture's mean at their rows.
fn against_fitted(analysis: &Analysis, residuals: &Residuals) -> Chart {
    let n = residuals.values.len();
    let values = residuals.values.iter().copied();
    let mut fitted: Vec<(f64, f64)> = analysis.means().into_iter().zip(values).collect();
    fitted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let points = fitted
        .iter()
        .step_by(every(n))
        .map(|&(x, y)| Estimate::exact(x, y));
    let x = Axis::linear(format!("fitted mean of {}", analysis.design.response.name));
    let mut chart = Chart::new("Residuals and means", x, Axis::linear("quantile residual"));
    for value in [-1.96, 0.0, 1.96] {
        chart = chart.with_reference_line(ReferenceLine::horizontal(value, ""));
    }
    chart.with_series(Series::points("", Colour::Blue, points.collect()).with_marker(marker(n)))
}
