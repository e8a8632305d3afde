//! Charts of routers and experts.

use crate::num::sum::quantile;
use crate::plot::{Axis, Chart, Colour, Interval, LineStyle, Palette, ReferenceLine, Series};
use crate::train::page::curve::{marked, thinned};
use crate::train::page::record::Record;
use crate::train::statistics::{CompetitionStatistics, LayerStatistics};

/// More lines than this in one panel cannot be told apart.
const MOST_LINES: usize = 8;
/// Points of a drawn line.
const POINTS: usize = 80;

/// Share of assignments per expert over time, one panel per sparse layer: a line per
/// expert, or of many experts the median, the middle half and the range.
pub(super) fn load(record: &Record) -> Vec<Chart> {
    let layers = record.sparse_layers();
    let of_layer = |(index, layer): (usize, &usize)| {
        let rows: Vec<(f64, Vec<f64>)> = record
            .steps
            .iter()
            .filter_map(|row| {
                let counts = row.load.get(index)?;
                let total: u64 = counts.iter().sum();
                let shares = counts.iter().map(|&n| n as f64 / total as f64).collect();
                (total > 0).then_some((row.step as f64, shares))
            })
            .collect();
        let experts = rows.first()?.1.len();
        let lines: Vec<Vec<(f64, f64)>> = (0..experts)
            .map(|e| {
                let share = |row: &(f64, Vec<f64>)| (row.0, row.1.get(e).copied().unwrap_or(0.0));
                thinned(&rows.iter().map(share).collect::<Vec<_>>(), POINTS)
            })
            .collect();
        let x = Axis::linear("optimiser steps");
        let largest = lines.iter().flatten().fold(0.0, |m: f64, p| m.max(p.1));
        let y = Axis::linear("share of assignments").with_range(0.0, 1.05 * largest);
        let chart = Chart::new(format!("Layer {layer}"), x, y);
        let chart = match experts {
            0..=MOST_LINES => lines
                .into_iter()
                .enumerate()
                .fold(chart, |chart, (e, line)| {
                    chart.with_series(Series::line(format!("{e}"), Palette::colour(e), line))
                }),
            _ => spread(chart, &lines),
        };
        let even = ReferenceLine::horizontal(1.0 / experts as f64, "even share");
        Some(chart.with_reference_line(even.with_style(LineStyle::Dashed)))
    };
    layers.iter().enumerate().filter_map(of_layer).collect()
}

/// Median, middle half and range over lines of equal x.
fn spread(chart: Chart, lines: &[Vec<(f64, f64)>]) -> Chart {
    let at = |share: f64| -> Vec<(f64, f64)> {
        (0..lines[0].len())
            .map(|k| {
                let mut values: Vec<f64> = lines.iter().map(|line| line[k].1).collect();
                values.sort_by(f64::total_cmp);
                (lines[0][k].0, quantile(&values, share))
            })
            .collect()
    };
    let band = |low: f64, high: f64| -> Vec<Interval> {
        let ends = at(low).into_iter().zip(at(high));
        ends.map(|(low, high)| Interval::new(low.0, low.1, high.1))
            .collect()
    };
    chart
        .with_series(Series::band("all experts", Colour::SkyBlue, band(0.0, 1.0)))
        .with_series(Series::band("middle half", Colour::Blue, band(0.25, 0.75)))
        .with_series(Series::line("median", Colour::Blue, at(0.5)))
}

/// How sure routers are: entropy over layers, probabilities by rank, and what changes
/// over time.
pub(super) fn distributions(record: &Record) -> Vec<Chart> {
    let Some(last) = record
        .statistics
        .last()
        .filter(|last| !last.layers.is_empty())
    else {
        return Vec::new();
    };
    let mut charts = vec![entropy_over_layers(record), probabilities(&last.layers)];
    let nats = || Axis::linear("nats");
    charts.extend(over_time(record, "Router entropy", nats(), |s| {
        Some(s.router_entropy)
    }));
    charts.extend(over_time(record, "Entropy of weights", nats(), |s| {
        s.weight_entropy
    }));
    charts.extend(over_time(
        record,
        "Imbalance of load",
        Axis::linear("max / mean − 1"),
        |s| Some(s.maximum_violation),
    ));
    charts.extend(over_time(
        record,
        "Changed choices",
        Axis::linear("share of choices"),
        |s| s.change_rate,
    ));
    charts.extend(over_time(
        record,
        "Size of experts’ outputs",
        Axis::linear("mean norm"),
        |s| {
            let known: Vec<f64> = s.output_norms.iter().flatten().copied().collect();
            (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
        },
    ));
    charts.extend(over_time(
        record,
        "Likeness of outputs",
        Axis::linear("mean cosine within a token"),
        |s| s.output_cosine,
    ));
    charts.extend(over_time(
        record,
        "Likeness of experts’ weights",
        Axis::linear("mean cosine"),
        |s| s.weight_cosine.as_ref().map(|w| w.mean),
    ));
    charts
}

/// What the router learns of the competition.
pub(super) fn competition(record: &Record) -> Vec<Chart> {
    type Value = fn(&CompetitionStatistics) -> Option<f64>;
    let panels: [(&str, &str, Value); 6] = [
        ("Overlap with the winners", "share of winners", |c| {
            c.overlap
        }),
        ("Divergence from the target", "KL(π ‖ g) in nats", |c| {
            Some(c.divergence)
        }),
        (
            "Spread of responses",
            "standard deviation over experts",
            |c| Some(c.affinity_spread),
        ),
        ("Entropy of the target", "nats", |c| Some(c.target_entropy)),
        ("Evenness of wins", "entropy / log E", |c| {
            Some(c.win_entropy)
        }),
        ("Size of outputs", "competition / router", |c| {
            c.output_scale_ratio
        }),
    ];
    let chart = |(title, label, value): (&str, &str, Value)| {
        let of_layer = |s: &LayerStatistics| s.competition.as_ref().and_then(value);
        over_time(record, title, Axis::linear(label), of_layer)
    };
    panels.into_iter().filter_map(chart).collect()
}

/// Entropy of the router's distribution over layers, at the first, middle and last
/// measurement.
fn entropy_over_layers(record: &Record) -> Chart {
    let rows = &record.statistics;
    let mut shown = vec![0, rows.len() / 2, rows.len() - 1];
    shown.dedup();
    let x = Axis::whole("layer");
    let mut chart = Chart::new("Router entropy over layers", x, Axis::linear("nats"));
    let colours = [Colour::SkyBlue, Colour::BluishGreen, Colour::Vermillion];
    for (row, colour) in shown.into_iter().zip(colours) {
        let row = &rows[row];
        let points = row.layers.iter();
        let points = points.map(|s| (s.layer as f64, s.router_entropy)).collect();
        for series in marked(&format!("step {}", row.step), colour, points) {
            chart = chart.with_series(series);
        }
    }
    let experts = rows[0].layers.first().map_or(1, |s| s.load.len());
    let uniform = ReferenceLine::horizontal((experts as f64).ln(), "uniform, log E");
    chart.with_reference_line(uniform.with_style(LineStyle::Dashed))
}

/// Mean probability by rank, a line per layer.
fn probabilities(layers: &[LayerStatistics]) -> Chart {
    let x = Axis::whole("rank of the expert for a token");
    let experts = layers.first().map_or(1, |s| s.load.len());
    // Of many experts all but the first few get little.
    let y = match experts {
        0..=MOST_LINES => Axis::linear("mean probability"),
        _ => Axis::log10("mean probability").with_range(1e-4, 1.2),
    };
    let mut chart = Chart::new("Router distribution, last step", x, y);
    for (k, layer) in evenly(layers, MOST_LINES).enumerate() {
        let ranks = layer.probabilities.iter().enumerate();
        let points = ranks.map(|(rank, &p)| (rank as f64 + 1.0, p)).collect();
        for series in marked(
            &format!("layer {}", layer.layer),
            Palette::colour(k),
            points,
        ) {
            chart = chart.with_series(series);
        }
    }
    let even = ReferenceLine::horizontal(1.0 / experts as f64, "uniform");
    chart.with_reference_line(even.with_style(LineStyle::Dashed))
}

/// A quantity against steps: a line per layer, of many layers the median, the middle
/// half and the range. `None` where it was not measured.
fn over_time(
    record: &Record,
    title: &str,
    axis: Axis,
    value: impl Fn(&LayerStatistics) -> Option<f64>,
) -> Option<Chart> {
    let layers = record.statistics.last()?.layers.len();
    let lines = (0..layers).map(|k| {
        let of_row = |row: &crate::train::log::Statistics| {
            Some((row.step as f64, value(row.layers.get(k)?)?))
        };
        record.statistics.iter().filter_map(of_row).collect()
    });
    let lines: Vec<Vec<(f64, f64)>> = lines.collect();
    if lines.iter().all(Vec::is_empty) {
        return None;
    }
    let chart = Chart::new(title, Axis::linear("optimiser steps"), axis);
    let of_one_length = lines.iter().all(|line| line.len() == lines[0].len());
    if layers > MOST_LINES && of_one_length {
        let mut chart = spread(chart, &lines);
        chart.series[0].label = "all layers".to_string();
        return Some(chart);
    }
    let names = record.statistics.last()?.layers.iter().map(|s| s.layer);
    Some(
        names
            .zip(lines)
            .enumerate()
            .fold(chart, |chart, (k, (layer, line))| {
                let label = format!("layer {layer}");
                chart.with_series(Series::line(label, Palette::colour(k), line))
            }),
    )
}

/// At most `most` items, evenly spaced, the first and the last among them.
fn evenly<T>(items: &[T], most: usize) -> impl Iterator<Item = &T> {
    let shown = items.len().min(most);
    let place = move |k: usize| k * (items.len() - 1) / (shown - 1).max(1);
    (0..shown).map(move |k| &items[place(k)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_many_include_both_ends() {
        let items: Vec<usize> = (0..24).collect();
        let few: Vec<usize> = evenly(&items, 8).copied().collect();
        assert_eq!((few.len(), few[0], few[7]), (8, 0, 23));
        assert_eq!(evenly(&items[..1], 8).count(), 1);
        assert_eq!(evenly(&items[..0], 8).count(), 0);
    }
}
