//! Charts of the optimisation: losses, learning rate, speed.

use crate::num::sum::quantile;
use crate::plot::{Axis, Chart, Colour, Estimate, Palette, Series};
use crate::train::log::{Evaluation, Step};
use crate::train::page::curve::{interpolated, marked, thinned, without_the_start};
use crate::train::page::record::Record;
use crate::train::page::scale;

/// Points of a drawn line.
const POINTS: usize = 100;

/// The quantity along the horizontal axis of a learning curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    Steps,
    Flops,
    Time,
}

impl Cost {
    pub(super) const ALL: [Cost; 3] = [Cost::Steps, Cost::Flops, Cost::Time];

    /// What a validation loss has cost.
    pub(super) fn of(self, row: &Evaluation) -> f64 {
        match self {
            Cost::Steps => row.step as f64,
            Cost::Flops => row.flops,
            Cost::Time => row.seconds,
        }
    }

    /// The unit and the axis for values up to `largest`.
    pub(super) fn axis(self, largest: f64) -> (f64, Axis) {
        let unit = match self {
            Cost::Steps => return (1.0, Axis::linear("optimiser steps")),
            Cost::Flops => scale::flops(largest),
            Cost::Time => scale::time(largest),
        };
        let what = match self {
            Cost::Flops => "training compute",
            _ => "training time",
        };
        (unit.size, Axis::linear(format!("{what} in {}", unit.name)))
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Cost::Steps => "Loss against steps",
            Cost::Flops => "Loss against compute",
            Cost::Time => "Loss against time",
        }
    }
}

/// Training and validation loss against steps, FLOPs and seconds.
pub(super) fn curves(record: &Record) -> Vec<Chart> {
    if record.steps.is_empty() && record.evaluations.is_empty() {
        return Vec::new();
    }
    // FLOPs are logged with evaluations only; steps of one run cost about the same.
    let mut flops = vec![(0.0, 0.0)];
    flops.extend(
        record
            .evaluations
            .iter()
            .map(|row| (row.step as f64, row.flops)),
    );
    flops.dedup_by_key(|point| point.0);
    let of_step = |cost: Cost, row: &Step| match cost {
        Cost::Steps => Some(row.step as f64),
        Cost::Flops => interpolated(&flops, row.step as f64),
        Cost::Time => Some(row.seconds),
    };
    let chart = |cost: Cost| {
        let trained = record.steps.iter();
        let trained: Vec<(f64, f64)> = trained
            .filter_map(|row| Some((of_step(cost, row)?, row.loss)))
            .collect();
        let validated = record
            .evaluations
            .iter()
            .map(|row| (cost.of(row), row.loss));
        let validated: Vec<(f64, f64)> = validated.collect();
        let largest = trained
            .iter()
            .chain(&validated)
            .fold(0.0, |m: f64, p| m.max(p.0));
        let (unit, axis) = cost.axis(largest);
        let scaled = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
            points.into_iter().map(|(x, y)| (x / unit, y)).collect()
        };
        let trained = scaled(thinned(&trained, POINTS));
        let mut chart = Chart::new(cost.title(), axis, Axis::linear("nats per token"))
            .with_series(Series::line("training", Colour::SkyBlue, trained));
        for series in marked("validation", Colour::Vermillion, scaled(validated)) {
            chart = chart.with_series(series);
        }
        without_the_start(chart)
    };
    Cost::ALL.into_iter().map(chart).collect()
}

/// Auxiliary losses, learning rate and gradient norm against steps.
pub(super) fn losses(record: &Record) -> Vec<Chart> {
    if record.steps.is_empty() {
        return Vec::new();
    }
    let line = |f: &dyn Fn(&Step) -> Option<f64>| {
        let points = record.steps.iter();
        let points: Vec<(f64, f64)> = points
            .filter_map(|row| Some((row.step as f64, f(row)?)))
            .collect();
        thinned(&points, POINTS)
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in record.steps.iter().flat_map(Step::auxiliaries) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut charts = Vec::new();
    let lines: Vec<(&str, Vec<(f64, f64)>)> = names
        .into_iter()
        .map(|name| {
            let of_row = |row: &Step| {
                let mut all = row.auxiliaries();
                all.find(|(known, _)| *known == name)
                    .map(|(_, loss)| loss.weighted())
            };
            (name, line(&of_row))
        })
        .collect();
    if !lines.is_empty() {
        let positive = lines.iter().flat_map(|(_, line)| line).all(|p| p.1 > 0.0);
        let axis = match positive {
            true => Axis::log10("coefficient times loss"),
            false => Axis::linear("coefficient times loss"),
        };
        let mut chart = Chart::new("Auxiliary losses", Axis::linear("optimiser steps"), axis);
        for (k, (name, points)) in lines.into_iter().enumerate() {
            chart = chart.with_series(Series::line(name, Palette::colour(k), points));
        }
        charts.push(chart);
    }
    let single = |title: &str, axis: Axis, points: Vec<(f64, f64)>| {
        let series = Series::line("", Colour::Blue, points);
        Chart::new(title, Axis::linear("optimiser steps"), axis).with_series(series)
    };
    charts.push(single(
        "Learning rate",
        Axis::linear("learning rate"),
        line(&|row| Some(row.rate)),
    ));
    charts.push(single(
        "Gradient",
        Axis::log10("norm before clipping"),
        line(&|row| Some(row.gradient_norm)),
    ));
    charts
}

/// Tokens per second by the number of competing layers: mean, and the range of nine in
/// ten rows.
pub(super) fn speed(record: &Record) -> Vec<Chart> {
    // The first row holds what is done once, such as compiling kernels.
    let rows = record.steps.get(1..).unwrap_or_default();
    let most = rows.iter().map(|row| row.competing).max();
    let largest = rows.iter().map(|row| row.tokens_per_second);
    let unit = scale::count(largest.fold(0.0, f64::max));
    let points = (0..=most.unwrap_or(0)).filter_map(|competing| {
        let of_rows = rows.iter().filter(|row| row.competing == competing);
        let mut speeds: Vec<f64> = of_rows
            .map(|row| row.tokens_per_second / unit.size)
            .filter(|speed| speed.is_finite())
            .collect();
        speeds.sort_by(f64::total_cmp);
        let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
        let at = |share| quantile(&speeds, share);
        let point = || Estimate::new(competing as f64, mean, at(0.05), at(0.95));
        (!speeds.is_empty()).then(point)
    });
    let points: Vec<Estimate> = points.collect();
    let Some(most) = most.filter(|&most| most > 0 && points.len() > 1) else {
        return Vec::new();
    };
    let label = match unit.name {
        "" => "tokens per second".to_string(),
        name => format!("{name} tokens per second"),
    };
    let top = points.iter().fold(0.0, |top: f64, p| top.max(p.high));
    let x = Axis::whole("layers that compete").with_range(-0.5, most as f64 + 0.5);
    let y = Axis::linear(label).with_range(0.0, 1.08 * top);
    let chart = Chart::new("Speed", x, y);
    vec![chart.with_series(Series::points("", Colour::Blue, points))]
}

/// Bits per byte against the number of experts per token at evaluation.
pub(super) fn experts(record: &Record) -> Vec<Chart> {
    if record.by_top_k.len() < 2 {
        return Vec::new();
    }
    let points = record.by_top_k.iter();
    let points = points
        .map(|row| (row.top_k as f64, row.bits_per_byte))
        .collect();
    let x = Axis::whole("experts per token at evaluation");
    let mut chart = Chart::new("Number of experts", x, Axis::linear("bits per byte"));
    for series in marked("", Colour::Blue, points) {
        chart = chart.with_series(series);
    }
    vec![chart]
}
