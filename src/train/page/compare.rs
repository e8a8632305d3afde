//! Several runs on one page: runs that differ in nothing but seed and name are one
//! method, and are averaged.

use crate::error::{Error, Result, replace};
use crate::plot::html::{definitions, document, escape, panels, paragraph, table};
use crate::plot::number::{decimal, thousands};
use crate::plot::{Axis, Chart, Interval, Palette, Series};
use crate::train::log::Evaluation;
use crate::train::page::curve::{Average, average, interpolated, marked, without_the_start};
use crate::train::page::record::Record;
use crate::train::page::training::Cost;
use crate::train::page::{PANEL, scale, write_figure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Places at which averaged curves are drawn.
const PLACES: usize = 60;

/// Writes `comparison.svg`, `comparison.png` and `index.html` into `output`.
///
/// # Errors
/// [`Error::Value`] for no runs; [`Error::File`], [`Error::Input`] of the file at fault.
pub fn compare(folders: &[PathBuf], output: &Path) -> Result<()> {
    if folders.is_empty() {
        return Err(Error::value("runs", "must name at least one folder"));
    }
    let records: Result<Vec<Record>> = folders.iter().map(|f| Record::load(f)).collect();
    let records = records?;
    std::fs::create_dir_all(output).map_err(|e| Error::file(output, "create", &e))?;
    let groups = grouped(&records);
    let charts = curves(&groups);
    write_figure(output, "comparison", &charts)?;
    replace(
        &output.join("index.html"),
        page(&records, &groups, &charts).as_bytes(),
    )
}

/// Runs of one method.
pub(super) struct Group<'a> {
    pub(super) label: String,
    pub(super) runs: Vec<&'a Record>,
}

/// A configuration as dotted keys, without what tells runs of one method apart.
fn keys(record: &Record) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    if let Ok(table) = toml::Table::try_from(&record.run) {
        flatten("", &table, &mut flat);
    }
    for key in ["name", "about", "seed"] {
        flat.remove(key);
    }
    flat
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flatten(&format!("{prefix}{key}."), inner, flat),
            toml::Value::String(text) => drop(flat.insert(format!("{prefix}{key}"), text.clone())),
            other => drop(flat.insert(format!("{prefix}{key}"), other.to_string())),
        }
    }
}

/// Runs by method, in the order in which they are given. A method is labelled by its
/// name, and where several have one name by the keys in which they differ.
pub(super) fn grouped(records: &[Record]) -> Vec<Group<'_>> {
    let mut groups: Vec<(BTreeMap<String, String>, Group)> = Vec::new();
    for record in records {
        let keys = keys(record);
        match groups.iter_mut().find(|(known, _)| *known == keys) {
            Some((_, group)) => group.runs.push(record),
            None => {
                let group = Group {
                    label: record.method(),
                    runs: vec![record],
                };
                groups.push((keys, group));
            }
        }
    }
    let labels: Vec<String> = groups
        .iter()
        .map(|(keys, group)| {
            let namesakes = groups
                .iter()
                .filter(|(_, other)| other.label == group.label);
            let namesakes: Vec<_> = namesakes.map(|(keys, _)| keys).collect();
            let every_key: std::collections::BTreeSet<&String> =
                namesakes.iter().flat_map(|keys| keys.keys()).collect();
            let differing = every_key.into_iter().filter(|key| {
                namesakes
                    .iter()
                    .any(|other| other.get(*key) != keys.get(*key))
            });
            let differing: Vec<String> = differing
                .map(|key| match keys.get(key) {
                    Some(value) => format!("{key} {value}"),
                    None => format!("{key} as preset"),
                })
                .collect();
            match differing.is_empty() {
                true => group.label.clone(),
                false => format!("{}, {}", group.label, differing.join(", ")),
            }
        })
        .collect();
    let groups = groups.into_iter().map(|(_, group)| group);
    groups
        .zip(labels)
        .map(|(group, label)| Group { label, ..group })
        .collect()
}

/// Validation losses of a run against what they cost.
fn losses(record: &Record, cost: Cost) -> Vec<(f64, f64)> {
    let rows = record.evaluations.iter();
    rows.map(|row| (cost.of(row), row.loss)).collect()
}

fn last(record: &Record) -> Option<&Evaluation> {
    record.evaluations.last()
}

/// Averaged validation losses against steps, FLOPs and seconds.
pub(super) fn curves(groups: &[Group]) -> Vec<Chart> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    if runs().all(|run| run.evaluations.is_empty()) {
        return Vec::new();
    }
    let chart = |cost: Cost| {
        let ends = runs().filter_map(|run| last(run)).map(|row| cost.of(row));
        let (unit, axis) = cost.axis(ends.fold(0.0, f64::max));
        let mut chart = Chart::new(
            cost.title(),
            axis,
            Axis::linear("validation nats per token"),
        );
        for (k, group) in groups.iter().enumerate() {
            let colour = Palette::colour(k);
            let curve = averaged(group, cost);
            let line = curve.iter().map(|(x, a)| (x / unit, a.mean)).collect();
            let band = curve.iter().filter_map(|(x, a)| {
                let half = a.half_width?;
                Some(Interval::new(x / unit, a.mean - half, a.mean + half))
            });
            let band: Vec<Interval> = band.collect();
            if !band.is_empty() {
                chart = chart.with_series(Series::band(&group.label, colour, band));
            }
            for series in marked(&group.label, colour, line) {
                chart = chart.with_series(series);
            }
        }
        without_the_start(chart)
    };
    Cost::ALL.into_iter().map(chart).collect()
}

/// The mean over runs, where all of them have been. A single run is drawn as it was
/// measured; so are several against steps if they were measured at the same ones.
fn averaged(group: &Group, cost: Cost) -> Vec<(f64, Average)> {
    let curves: Vec<Vec<(f64, f64)>> = group
        .runs
        .iter()
        .map(|run| losses(run, cost))
        .filter(|curve| !curve.is_empty())
        .collect();
    let Some(first) = curves.first() else {
        return Vec::new();
    };
    let places = |curve: &[(f64, f64)]| -> Vec<f64> { curve.iter().map(|p| p.0).collect() };
    let measured = places(first);
    let at = match curves.iter().all(|curve| places(curve) == measured) {
        true => measured,
        false => {
            let start = curves.iter().map(|c| c[0].0).fold(0.0, f64::max);
            let end = curves
                .iter()
                .map(|c| c[c.len() - 1].0)
                .fold(f64::INFINITY, f64::min);
            let step = (end - start) / (PLACES - 1) as f64;
            (0..PLACES)
                .map(|k| match k + 1 == PLACES {
                    true => end,
                    false => start + k as f64 * step,
                })
                .collect()
        }
    };
    at.into_iter()
        .filter_map(|x| {
            let values = curves.iter().map(|curve| interpolated(curve, x));
            Some((x, average(&values.collect::<Option<Vec<f64>>>()?)?))
        })
        .collect()
}

/// What all runs have spent at least.
pub(super) fn common(records: &[Record], cost: Cost) -> Option<f64> {
    let ends: Option<Vec<f64>> = records
        .iter()
        .map(|r| last(r).map(|row| cost.of(row)))
        .collect();
    ends?.into_iter().reduce(f64::min)
}

/// A group's validation loss at a cost, averaged; `None` if a run has no value there.
pub(super) fn loss_at(group: &Group, cost: Cost, at: f64) -> Option<Average> {
    let runs = group.runs.iter();
    let values: Option<Vec<f64>> = runs
        .map(|run| interpolated(&losses(run, cost), at))
        .collect();
    average(&values?)
}

pub(super) fn page(records: &[Record], groups: &[Group], charts: &[Chart]) -> String {
    let caption = "Means over seeds with Student’s 95 % intervals where a method has several \
                   runs. Compute is that of training, competition included; time is that of \
                   training on the run’s own device. The vertical axes leave out what is above \
                   the highest mean after the first fifth.";
    let sections = [
        (
            "curves",
            "Validation loss",
            warnings(records) + &panels(charts, PANEL, caption),
        ),
        ("losses", "At equal cost", equal_cost(records, groups)),
        ("runs", "Runs", runs(groups)),
        ("methods", "How to read this", reading()),
    ];
    let headline = format!(
        "{} runs of {} methods.",
        thousands(records.len() as u64),
        thousands(groups.len() as u64)
    );
    document("Training runs compared", &headline, &sections)
}

/// What makes the numbers hard to compare.
fn warnings(records: &[Record]) -> String {
    let differ = |f: &dyn Fn(&Record) -> String| {
        let first = records.first().map(f);
        records.iter().any(|record| Some(f(record)) != first)
    };
    let mut html = String::new();
    let mut warn = |text: &str| {
        html += &format!("<p class=\"warning\">{}</p>\n", escape(text));
    };
    if differ(&|r| format!("{:?}", r.run.data.source)) {
        warn("The runs read different data: their losses cannot be compared.");
    }
    if differ(&|r| format!("{:?} {}", r.run.evaluation.windows, r.run.batch.length)) {
        warn("The runs were evaluated on different windows: small differences mean nothing.");
    }
    if differ(&|r| r.summary.device.clone()) {
        warn("The runs were on different devices: their times cannot be compared.");
    }
    let diverged = |r: &Record| last(r).is_some_and(|row| !row.loss.is_finite());
    let names = records
        .iter()
        .filter(|r| diverged(r))
        .map(|r| r.run.name.as_str());
    let names: Vec<&str> = names.collect();
    if !names.is_empty() {
        warn(&format!("Diverged: {}.", names.join(", ")));
    }
    let none = records.iter().filter(|r| r.evaluations.is_empty());
    let none: Vec<&str> = none.map(|r| r.run.name.as_str()).collect();
    if !none.is_empty() {
        warn(&format!("Not evaluated yet: {}.", none.join(", ")));
    }
    html
}

fn equal_cost(records: &[Record], groups: &[Group]) -> String {
    let places = Cost::ALL.map(|cost| common(records, cost).map(|at| (cost, at)));
    let headings = ["Method", "n"].map(String::from).into_iter();
    let headings: Vec<String> = headings
        .chain(places.iter().flatten().map(|&(cost, at)| match cost {
            Cost::Steps => format!("at {} steps", thousands(at as u64)),
            Cost::Flops => format!("at {}", scale::flops(at).text(at)),
            Cost::Time => format!("at {}", scale::time(at).text(at)),
        }))
        .collect();
    if headings.len() == 2 {
        return String::new();
    }
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|group| {
            let mut cells = vec![escape(&group.label), group.runs.len().to_string()];
            cells.extend(places.iter().flatten().map(|&(cost, at)| {
                loss_at(group, cost, at).map_or("–".to_string(), |a| stated(&a))
            }));
            cells
        })
        .collect();
    table("Validation loss in nats per token", 1, &headings, &rows)
        + &paragraph(
            "Each column is where the run that spent least ended. Between \
             evaluations losses are interpolated on straight lines. ± is the half-width of \
             Student’s 95 % interval over n seeds; a single run has none.",
        )
}

fn stated(average: &Average) -> String {
    let mean = decimal(average.mean, 4);
    match average.half_width {
        Some(half) => format!("{mean} ± {}", decimal(half, 4)),
        None => mean,
    }
}

fn runs(groups: &[Group]) -> String {
    let headings = [
        "Run",
        "Method",
        "Seed",
        "Parameters",
        "Active",
        "Steps",
        "Tokens",
        "Compute",
        "Time",
        "Nats per token",
        "Bits per byte",
    ];
    let amount = |value: u64| scale::count(value as f64).text(value as f64);
    let mut rows = Vec::new();
    for group in groups {
        for run in &group.runs {
            let last = last(run).cloned().unwrap_or(Evaluation {
                loss: f64::NAN,
                bits_per_byte: f64::NAN,
                ..Evaluation::default()
            });
            rows.push(vec![
                escape(&run.run.name),
                escape(&group.label),
                run.run.seed.to_string(),
                amount(run.summary.parameters_total),
                amount(run.summary.parameters_active),
                thousands(last.step),
                amount(last.tokens),
                scale::flops(last.flops).text(last.flops),
                scale::time(last.seconds).text(last.seconds),
                decimal(last.loss, 4),
                decimal(last.bits_per_byte, 4),
            ]);
        }
    }
    let mut devices: Vec<&str> = groups
        .iter()
        .flat_map(|group| &group.runs)
        .map(|run| run.summary.device.as_str())
        .collect();
    devices.sort_unstable();
    devices.dedup();
    table(
        "Last evaluation of every run",
        2,
        &headings.map(String::from),
        &rows,
    ) + &definitions(&[("Devices".to_string(), devices.join("; "))])
}

fn reading() -> String {
    paragraph(
        "Competition makes a step dearer: every expert sees every token. Equal steps favour such \
         methods, and are what papers report; equal compute and equal time are what a user pays. \
         Losses are those of the router alone unless the method’s experts also decide at \
         evaluation.",
    )
}
