//! The page of one run.

use crate::error::{Result, replace};
use crate::plot::html::{
    code, definitions, details, document, escape, panels, paragraph, paragraphs, table,
};
use crate::plot::number::{decimal, percent, rounded, thousands};
use crate::train::log::Evaluation;
use crate::train::page::record::{Record, Summary};
use crate::train::page::{PANEL, routing, scale, training, write_figure};
use crate::train::statistics::LayerStatistics;
use std::path::Path;

/// Rows of the table of evaluations.
const MOST_EVALUATIONS: usize = 12;
/// Sampled texts on the page, the latest ones.
const MOST_TEXTS: usize = 5;

/// Writes summary, figures and page into a run's folder, from its `run.toml` and
/// `log.jsonl`. Each file is replaced at once, the page last.
///
/// # Errors
/// [`crate::error::Error::File`]; [`crate::error::Error::Input`] of the file at fault.
pub fn write(folder: &Path, summary: &Summary) -> Result<()> {
    summary.save(folder)?;
    let record = Record::load(folder)?;
    let figures = Figures::of(&record);
    for (name, charts) in figures.named() {
        write_figure(folder, name, charts)?;
    }
    replace(
        &folder.join("index.html"),
        page(&record, &figures).as_bytes(),
    )
}

/// All charts of a run.
pub(super) struct Figures {
    pub(super) curves: Vec<crate::plot::Chart>,
    pub(super) load: Vec<crate::plot::Chart>,
    pub(super) routing: Vec<crate::plot::Chart>,
    pub(super) competition: Vec<crate::plot::Chart>,
    pub(super) losses: Vec<crate::plot::Chart>,
    pub(super) speed: Vec<crate::plot::Chart>,
    pub(super) experts: Vec<crate::plot::Chart>,
}

impl Figures {
    pub(super) fn of(record: &Record) -> Figures {
        Figures {
            curves: training::curves(record),
            load: routing::load(record),
            routing: routing::distributions(record),
            competition: routing::competition(record),
            losses: training::losses(record),
            speed: training::speed(record),
            experts: training::experts(record),
        }
    }

    fn named(&self) -> [(&'static str, &[crate::plot::Chart]); 7] {
        [
            ("curves", &self.curves),
            ("load", &self.load),
            ("routing", &self.routing),
            ("competition", &self.competition),
            ("losses", &self.losses),
            ("speed", &self.speed),
            ("experts", &self.experts),
        ]
    }
}

pub(super) fn page(record: &Record, figures: &Figures) -> String {
    let about = paragraphs(&record.run.about) + &at_a_glance(record);
    let sections = [
        ("run", "Run", about),
        ("loss", "Loss", loss(record, figures)),
        ("text", "Sampled text", texts(record)),
        ("experts", "Number of experts", by_top_k(record, figures)),
        ("load", "Load of experts", load(figures)),
        ("routing", "Routers", routers(record, figures)),
        (
            "competition",
            "Competition",
            panels(
                &figures.competition,
                PANEL,
                "The router against the competition, on the same tokens. Overlap: share of a \
                 token’s winners that the router chooses too. π is the target, g the router’s \
                 distribution.",
            ),
        ),
        (
            "optimisation",
            "Optimisation",
            panels(
                &figures.losses,
                PANEL,
                "Means of neighbouring logged steps.",
            ),
        ),
        (
            "speed",
            "Speed",
            panels(
                &figures.speed,
                PANEL,
                "Training tokens per second by the number of layers in which experts compete: \
                 mean, and the range of the middle 90 % of logged steps.",
            ),
        ),
        (
            "configuration",
            "Configuration",
            details("run.toml", &code(&record.text)),
        ),
    ];
    document(&record.run.name, &headline(record), &sections)
}

fn headline(record: &Record) -> String {
    let progress = format!(
        "{} of {} steps",
        thousands(record.last_step()),
        thousands(record.run.steps)
    );
    let method = record.method();
    match record.evaluations.last() {
        None => format!("{method}, {progress}, not evaluated yet."),
        Some(last) => format!(
            "{method}, {progress}: validation loss {} nats per token, {} bits per byte, \
             perplexity {}.",
            decimal(last.loss, 4),
            decimal(last.bits_per_byte, 4),
            rounded(last.perplexity, 4),
        ),
    }
}

fn at_a_glance(record: &Record) -> String {
    let (run, summary) = (&record.run, &record.summary);
    let unknown = || "not recorded".to_string();
    let amount = |value: u64| scale::count(value as f64).text(value as f64);
    let flops = summary.training_flops_per_token;
    let mut pairs = vec![
        ("Method", record.method()),
        ("Data", run.data.source.display().to_string()),
        ("Seed", run.seed.to_string()),
        (
            "Model",
            format!(
                "{} layers of width {}, {} heads",
                run.model.layers, run.model.width, run.model.heads
            ),
        ),
    ];
    if run.model.sparse_layers() > 0 {
        let top_k = run.method().map_or(0, |method| method.rule.k);
        let shared = match run.experts.shared {
            0 => String::new(),
            shared => format!(", {shared} shared"),
        };
        let experts = format!(
            "{} of hidden width {} in {} layers, {top_k} per token{shared}",
            run.experts.count,
            run.experts.hidden,
            run.model.sparse_layers(),
        );
        pairs.push(("Experts", experts));
    }
    pairs.extend([
        (
            "Parameters",
            format!(
                "{}, of which a token uses {}",
                amount(summary.parameters_total),
                amount(summary.parameters_active)
            ),
        ),
        (
            "Training compute",
            format!("{} per token", scale::flops(flops).text(flops)),
        ),
        (
            "Tokens",
            format!(
                "{} per step, {} at the end",
                thousands(run.batch.step_tokens() as u64),
                amount(run.batch.step_tokens() as u64 * run.steps)
            ),
        ),
        (
            "Memory",
            summary.memory_bytes.map_or_else(unknown, |bytes| {
                scale::bytes(bytes as f64).text(bytes as f64)
            }),
        ),
        ("Device", summary.device.clone()),
        ("Version", format!("smoe-lab {}", summary.version)),
        ("Commit", summary.commit.clone().unwrap_or_else(unknown)),
    ]);
    let pairs: Vec<(String, String)> = pairs
        .into_iter()
        .map(|(term, text)| (term.to_string(), text))
        .collect();
    definitions(&pairs)
}

fn loss(record: &Record, figures: &Figures) -> String {
    let caption = "Task loss without auxiliary losses; training: means of neighbouring logged \
                   steps. The vertical axes leave out what is above the highest loss after the \
                   first fifth. Time and compute are those of training, without evaluations; \
                   compute includes competition.";
    let html = panels(&figures.curves, PANEL, caption);
    if record.evaluations.is_empty() {
        return html;
    }
    let headings = [
        "Step",
        "Tokens",
        "Time",
        "Compute",
        "Nats per token",
        "Bits per byte",
        "Perplexity",
    ];
    let rows = &record.evaluations;
    let every = rows.len().div_ceil(MOST_EVALUATIONS);
    // Counted from the end, so that the last is shown.
    let shown = rows.iter().rev().step_by(every).rev();
    let cells: Vec<Vec<String>> = shown.map(evaluation_cells(record)).collect();
    html + &table("Validation", 0, &headings.map(String::from), &cells)
}

/// Cells of a row, in the units of the last row.
fn evaluation_cells(record: &Record) -> impl Fn(&Evaluation) -> Vec<String> {
    let last = record.evaluations.last().cloned().unwrap_or_default();
    let tokens = scale::count(last.tokens as f64);
    let (time, flops) = (scale::time(last.seconds), scale::flops(last.flops));
    move |row| {
        vec![
            thousands(row.step),
            tokens.text(row.tokens as f64),
            time.text(row.seconds),
            flops.text(row.flops),
            decimal(row.loss, 4),
            decimal(row.bits_per_byte, 4),
            rounded(row.perplexity, 4),
        ]
    }
}

fn texts(record: &Record) -> String {
    let mut latest = record.texts.iter().rev().take(MOST_TEXTS);
    let Some(last) = latest.next() else {
        return String::new();
    };
    let mut html = paragraph(&format!("After {} steps:", thousands(last.step)));
    html += &code(&last.text);
    for text in latest {
        let heading = format!("After {} steps", thousands(text.step));
        html += &details(&heading, &code(&text.text));
    }
    html
}

fn by_top_k(record: &Record, figures: &Figures) -> String {
    if figures.experts.is_empty() {
        return String::new();
    }
    let caption = format!(
        "The model of step {} evaluated with other numbers of experts than it was trained with.",
        record.by_top_k.first().map_or(0, |row| row.step)
    );
    let headings = [
        "Experts per token",
        "Nats per token",
        "Bits per byte",
        "Perplexity",
    ];
    let cells: Vec<Vec<String>> = record
        .by_top_k
        .iter()
        .map(|row| {
            vec![
                row.top_k.to_string(),
                decimal(row.loss, 4),
                decimal(row.bits_per_byte, 4),
                rounded(row.perplexity, 4),
            ]
        })
        .collect();
    panels(&figures.experts, PANEL, &caption) + &table("", 0, &headings.map(String::from), &cells)
}

fn load(figures: &Figures) -> String {
    let caption = "Share of a step’s assignments that each expert gets; means of neighbouring \
                   logged steps. Layers and experts are counted from 0, as in checkpoints.";
    panels(&figures.load, PANEL, caption)
}

fn routers(record: &Record, figures: &Figures) -> String {
    let Some(last) = record
        .statistics
        .last()
        .filter(|last| !last.layers.is_empty())
    else {
        return String::new();
    };
    let caption = "Entropies are means over tokens. Imbalance is 0 when all experts get equally \
                   many tokens. Probabilities are sorted within each token before they are \
                   averaged.";
    let headings = [
        "Layer",
        "Imbalance",
        "Load entropy",
        "Dead experts",
        "Dropped",
        "Router entropy",
        "Margin",
        "Weight entropy",
        "Changed",
        "Outputs",
        "Weights",
    ];
    let rows: Vec<Vec<String>> = last.layers.iter().map(layer_cells).collect();
    let (headings, rows) = without_empty_columns(&headings, &rows);
    let caption_of_table = format!("Routers at step {}", thousands(last.step));
    panels(&figures.routing, PANEL, caption)
        + &table(&caption_of_table, 0, &headings, &rows)
        + &paragraph(
            "Imbalance: max / mean of load, minus 1. Load entropy: over log E. Margin: largest \
             minus second probability. Changed: share of choices that differ from the last \
             measurement. Outputs and Weights: mean cosines of the outputs that a token gets, \
             and of experts’ weights. What was not measured has no column.",
        )
}

/// What stands for a value that was not measured.
const ABSENT: &str = "–";

/// The columns in which some row has a value.
fn without_empty_columns(
    headings: &[&str],
    rows: &[Vec<String>],
) -> (Vec<String>, Vec<Vec<String>>) {
    let is_used = |k: &usize| rows.iter().any(|row| row[*k] != ABSENT);
    let used: Vec<usize> = (0..headings.len()).filter(is_used).collect();
    let of_row = |row: &Vec<String>| used.iter().map(|&k| row[k].clone()).collect();
    let headings = used.iter().map(|&k| headings[k].to_string()).collect();
    (headings, rows.iter().map(of_row).collect())
}

fn layer_cells(layer: &LayerStatistics) -> Vec<String> {
    let optional = |value: Option<f64>| value.map_or(ABSENT.to_string(), |v| decimal(v, 3));
    vec![
        layer.layer.to_string(),
        decimal(layer.maximum_violation, 3),
        decimal(layer.load_entropy, 3),
        layer.dead.to_string(),
        percent(layer.dropped),
        decimal(layer.router_entropy, 3),
        decimal(layer.margin, 3),
        optional(layer.weight_entropy),
        escape(&layer.change_rate.map_or(ABSENT.to_string(), percent)),
        optional(layer.output_cosine),
        optional(layer.weight_cosine.as_ref().map(|w| w.mean)),
    ]
}
