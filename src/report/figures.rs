//! The report's figures: rates and constants against n.

use super::format::{decimal, interval};
use super::wording::{loss_name, series_label};
use crate::plot::{
    Axis, Chart, Colour, Estimate, Figure, LineStyle, Palette, ReferenceLine, Series, SeriesData,
    ShadedBand,
};
use crate::sim::Plan;
use crate::sim::claim::{Claim, Constant, Curve};
use crate::sim::column::Loss;
use crate::sim::rate::Line;
use crate::sim::statistic::Statistic;
use crate::sim::summary::{Finding, SeriesSummary, Summary};

/// Points of a drawn theorem curve.
const CURVE_POINTS: usize = 33;
/// Half-width over which points of equal n are spread, as a share of the axis.
const SPREAD: f64 = 0.02;

/// More series than this in one panel cannot be told apart.
const MOST_SERIES: usize = 8;

/// One panel per loss and statistic: those that slope claims name first, in the
/// order of the losses. Many series go into one panel per level of their first
/// factor.
pub(super) fn rate_charts(plan: &Plan, summary: &Summary) -> Vec<Chart> {
    let mut claimed: Vec<(Loss, Statistic)> = Vec::new();
    let mut others = Vec::new();
    for &loss in &plan.study.losses {
        let before = claimed.len();
        for result in &summary.claims {
            if let Finding::Slope {
                loss: of,
                statistic,
                ..
            } = &result.finding
                && *of == loss
                && !claimed.contains(&(loss, *statistic))
            {
                claimed.push((loss, *statistic));
            }
        }
        if claimed.len() == before {
            others.push((loss, Statistic::Mean));
        }
    }
    let facets = facets(summary);
    let panels = claimed.into_iter().chain(others);
    panels
        .filter(|(loss, statistic)| has_points(summary, *loss, *statistic))
        .flat_map(|(loss, statistic)| {
            let facets = facets.iter();
            let charts = facets.map(move |f| rate_chart(summary, loss, statistic, f.as_deref()));
            charts.collect::<Vec<_>>()
        })
        .collect()
}

/// The levels of the first factor, each a panel; one panel for all where a few
/// series fit into it.
fn facets(summary: &Summary) -> Vec<Option<String>> {
    if summary.series.len() <= MOST_SERIES {
        return vec![None];
    }
    let mut levels: Vec<Option<String>> = Vec::new();
    for series in &summary.series {
        let first = series.name.split(',').next().map(String::from);
        if !levels.contains(&first) {
            levels.push(first);
        }
    }
    levels
}

/// One panel per constant that the rows give.
pub(super) fn constant_charts(plan: &Plan, summary: &Summary) -> Vec<Chart> {
    let range = constant_range(plan, summary);
    Constant::ALL
        .into_iter()
        .filter(|constant| {
            let cells = summary.series.iter().flat_map(|s| &s.cells);
            cells.flat_map(|c| &c.constants).any(|(c, _)| c == constant)
        })
        .map(|constant| constant_chart(plan, summary, constant, range))
        .collect()
}

/// The panels as one figure.
pub(super) fn joined(charts: Vec<Chart>) -> Figure {
    let columns = match charts.len() {
        0..=3 => charts.len(),
        4 => 2,
        _ => 3,
    };
    Figure::grid(columns.max(1), charts).with_panel_size(600, 580)
}

fn slope_of(finding: &Finding, wanted: Loss, of: Statistic) -> bool {
    matches!(finding, Finding::Slope { loss, statistic, .. } if *loss == wanted && *statistic == of)
}

fn has_points(summary: &Summary, loss: Loss, statistic: Statistic) -> bool {
    let cells = summary.series.iter().flat_map(|s| &s.cells);
    let mut losses = cells.flat_map(|c| &c.losses).filter(|l| l.loss == loss);
    losses.any(|l| l.of(statistic).is_some_and(|e| e.value > 0.0))
}

fn rate_chart(summary: &Summary, loss: Loss, statistic: Statistic, facet: Option<&str>) -> Chart {
    let of = match statistic {
        Statistic::Mean => "mean".to_string(),
        Statistic::Quantile(50) => "median".to_string(),
        Statistic::Quantile(percent) => format!("{percent} % quantile"),
        Statistic::Moment(power) => format!("(mean of power {power})^(1/{power})"),
    };
    let heading = match facet {
        Some(facet) => format!("{}: {}", loss_name(loss), series_label(facet)),
        None => loss_name(loss),
    };
    let mut chart = Chart::new(
        heading,
        Axis::log10("sample size n"),
        Axis::log10(loss.symbol()),
    )
    .with_subtitle(format!("{of} over replicates, 95 % interval"));
    let mut curves: Vec<Series> = Vec::new();
    let shown = summary
        .series
        .iter()
        .filter(|s| facet.is_none_or(|facet| s.name.split(',').next() == Some(facet)));
    for (k, series) in shown.enumerate() {
        let colour = Palette::colour(k);
        let mut label = match facet {
            // The panel's heading says the first level.
            Some(facet) => series_label(series.name[facet.len()..].trim_start_matches(',')),
            None => series_label(&series.name),
        };
        let points = loss_points(series, loss, statistic);
        let mut lines = Vec::new();
        for result in &summary.claims {
            let Finding::Slope {
                curve,
                rate: Some(rate),
                window,
                ..
            } = &result.finding
            else {
                continue;
            };
            if result.series != series.name || !slope_of(&result.finding, loss, statistic) {
                continue;
            }
            let Some(ends) = inside(&points, *window) else {
                continue;
            };
            if lines.is_empty() {
                label = format!(
                    "{label}: slope {} {}",
                    decimal(rate.line.slope, 3),
                    interval(rate.interval, 3)
                );
                lines = fitted_line(&rate.line, ends);
            }
            let theorem = format!("theorem: {}", curve.symbol());
            let anchored = anchored_curve(*curve, &rate.line, *window, ends);
            // Many curves of one rate would hide the points.
            if facet.is_none() || curves.is_empty() {
                curves.push(theorem_series(theorem, *curve, anchored));
            }
        }
        if !lines.is_empty() {
            chart = chart.with_series(Series::line(&label, colour, lines));
        }
        chart = chart.with_series(Series::points(label, colour, points));
    }
    for curve in curves {
        chart = chart.with_series(curve);
    }
    chart
}

/// Black; dotted if the curve has a logarithm, so that two claims differ.
fn theorem_series(label: String, curve: Curve, points: Vec<(f64, f64)>) -> Series {
    let style = match curve {
        Curve::LogParametric => LineStyle::Dotted,
        _ => LineStyle::Dashed,
    };
    Series {
        label,
        colour: Colour::Black,
        data: SeriesData::Line { points, style },
    }
}

fn loss_points(series: &SeriesSummary, loss: Loss, statistic: Statistic) -> Vec<Estimate> {
    let point = |n: u64, mean: crate::sim::summary::Estimate| {
        Estimate::new(n as f64, mean.value, mean.interval[0], mean.interval[1])
    };
    series
        .cells
        .iter()
        .filter_map(|c| {
            let found = c.losses.iter().find(|l| l.loss == loss)?;
            Some(point(c.n, found.of(statistic)?))
        })
        .collect()
}

/// Smallest and largest n among `points` within the window.
fn inside(points: &[Estimate], window: [f64; 2]) -> Option<[f64; 2]> {
    let sizes = || {
        points
            .iter()
            .map(|p| p.x)
            .filter(|n| (window[0]..=window[1]).contains(n))
    };
    let low = sizes().reduce(f64::min)?;
    let high = sizes().reduce(f64::max)?;
    Some([low, high])
}

fn line_at(line: &Line, n: f64) -> f64 {
    (line.intercept + line.slope * n.ln()).exp()
}

fn fitted_line(line: &Line, ends: [f64; 2]) -> Vec<(f64, f64)> {
    ends.map(|n| (n, line_at(line, n))).to_vec()
}

/// The claimed curve, scaled to meet the fitted line at the geometric middle of
/// the window.
fn anchored_curve(curve: Curve, line: &Line, window: [f64; 2], ends: [f64; 2]) -> Vec<(f64, f64)> {
    // A window may reach beyond all n, even to infinity.
    let low = window[0].max(ends[0]);
    let high = window[1].min(ends[1]);
    let middle = (low * high).sqrt();
    let scale = line_at(line, middle) / curve.at(middle);
    (0..CURVE_POINTS)
        .map(|k| low * (high / low).powf(k as f64 / (CURVE_POINTS - 1) as f64))
        .map(|n| (n, scale * curve.at(n)))
        .collect()
}

/// One range for all constants, so that the panels compare at a glance; none if
/// one ratio is so far from 1 that it would flatten the others.
fn constant_range(plan: &Plan, summary: &Summary) -> Option<(f64, f64)> {
    const FAR: f64 = 2.0;
    let cells = summary.series.iter().flat_map(|s| &s.cells);
    let ends = cells
        .flat_map(|c| &c.constants)
        .flat_map(|(_, e)| e.interval);
    let bands = plan.study.claim.iter().flat_map(|claim| match claim {
        Claim::Constant { tolerance, .. } => [1.0 - tolerance, 1.0 + tolerance],
        _ => [1.0, 1.0],
    });
    let values = || ends.clone().chain(bands.clone());
    let low = values().fold(1.0, f64::min);
    let high = values().fold(1.0, f64::max);
    let room = 0.05 * (high - low);
    (high < FAR && low > 1.0 / FAR).then_some((low - room, high + room))
}

fn constant_chart(
    plan: &Plan,
    summary: &Summary,
    wanted: Constant,
    range: Option<(f64, f64)>,
) -> Chart {
    let ratio = Axis::linear("ratio to its limit");
    let ratio = match range {
        Some((low, high)) => ratio.with_range(low, high),
        None => ratio,
    };
    let mut chart = Chart::new(wanted.symbol(), Axis::log10("sample size n"), ratio)
        .with_subtitle("mean over replicates, 95 % interval")
        .with_reference_line(ReferenceLine::horizontal(1.0, "limit").with_colour(Colour::Black));
    let count = summary.series.len();
    let sizes = || plan.cells.iter().map(|c| (c.n as f64).log10());
    let span = sizes().fold(0.0, f64::max) - sizes().fold(f64::INFINITY, f64::min);
    for (k, series) in summary.series.iter().enumerate() {
        // Beside each other, where they would hide each other.
        let place = (2.0 * k as f64 - (count - 1) as f64) / count as f64;
        let shift = 10f64.powf(SPREAD * span * place);
        let points = series
            .cells
            .iter()
            .filter_map(|c| {
                let (_, e) = c
                    .constants
                    .iter()
                    .find(|(constant, _)| *constant == wanted)?;
                let n = c.n as f64 * shift;
                Some(Estimate::new(n, e.value, e.interval[0], e.interval[1]))
            })
            .collect();
        let label = series_label(&series.name);
        chart = chart.with_series(Series::points(label, Palette::colour(k), points));
    }
    for claim in &plan.study.claim {
        if let Claim::Constant {
            constant,
            tolerance,
            ..
        } = claim
            && *constant == wanted
        {
            let (low, high) = (1.0 - tolerance, 1.0 + tolerance);
            let label = "accepted at the largest n";
            chart = chart.with_shaded_band(ShadedBand::horizontal(low, high, label));
        }
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_theorem_curve_meets_the_fitted_line_at_the_geometric_middle() {
        let line = Line {
            slope: -0.47,
            intercept: 0.3,
            slope_error: 0.01,
        };
        let ends = [100.0, 10_000.0];
        for window in [ends, [1.0, f64::INFINITY]] {
            let points = anchored_curve(Curve::Parametric, &line, window, ends);
            let (n, value) = points[CURVE_POINTS / 2];
            assert!((n - 1000.0).abs() < 1e-9);
            assert!((value / line_at(&line, 1000.0) - 1.0).abs() < 1e-12);
            assert_eq!(points[0].0, 100.0);
            assert!((points[CURVE_POINTS - 1].0 - 10_000.0).abs() < 1e-6);
        }
    }
}
