use super::compare::{common, grouped, loss_at};
use super::run::{Figures, page};
use super::training::Cost;
use super::*;
use crate::train::log::{Auxiliary, Evaluation, Log, Row, Statistics, Step, Text};
use crate::train::ops::check::normals;
use crate::train::statistics::sample::route;
use crate::train::statistics::{Contest, Layer, LayerStatistics, Matrices, layer};
use std::path::PathBuf;
use tempfile::TempDir;

/// A run that was never trained: curves of the usual shapes.
#[derive(Clone, Copy)]
struct Sample {
    kind: &'static str,
    seed: u64,
    layers: usize,
    experts: usize,
    steps: u64,
    /// Loss that the curve tends to.
    floor: f64,
    extra: &'static str,
}

const SAMPLE: Sample = Sample {
    kind: "compete-v2",
    seed: 1,
    layers: 4,
    experts: 8,
    steps: 600,
    floor: 1.45,
    extra: "",
};

impl Sample {
    fn name(&self) -> String {
        format!("{}-{}", self.kind, self.seed)
    }

    fn configuration(&self) -> String {
        format!(
            "name = \"{}\"\nabout = \"Characters of <Shakespeare>, a small model.\"\n\
             seed = {}\nsteps = {}\n[data]\nsource = \"tinyshakespeare\"\n\
             [model]\nlayers = {}\n[experts]\ncount = {}\n[router]\nkind = \"{}\"\n{}",
            self.name(),
            self.seed,
            self.steps,
            self.layers,
            self.experts,
            self.kind,
            self.extra,
        )
    }

    fn competes(&self) -> bool {
        self.kind.starts_with("compete")
    }

    fn statistics(&self, step: u64, number: usize) -> LayerStatistics {
        let (tokens, experts) = (64, self.experts);
        let sharp = 1.0 + 2.0 * step as f64 / self.steps as f64 * (1.0 + number as f64 / 4.0);
        let noise = normals(100 * self.seed + number as u64, tokens * experts);
        let drift = normals(step + 7, tokens * experts);
        let scores: Vec<f64> = noise
            .iter()
            .zip(&drift)
            .map(|(a, b)| sharp * (a + 0.2 * b))
            .collect();
        let routed = route(&scores, experts, 2);
        let previous = route(&noise, experts, 2);
        let mixed: Vec<f64> = noise
            .iter()
            .zip(&drift)
            .map(|(a, b)| 0.7 + 0.05 * (a + b * (1.0 - step as f64 / self.steps as f64)))
            .collect();
        let winners = route(&mixed, experts, 2);
        let contest = Contest {
            affinities: &mixed,
            winners: &winners,
            target: None,
            combined: None,
        };
        let input = Layer {
            layer: number,
            scores: &scores,
            assignment: &routed,
            dropped: 0,
            previous: Some(&previous),
            last: None,
            ids: None,
            outputs: None,
            weights: None,
            contest: self.competes().then_some(contest),
            matrices: Matrices::Summarised,
        };
        layer(&input).unwrap()
    }

    fn rows(&self) -> Vec<Row> {
        let tokens = 4096;
        let mut rows = Vec::new();
        let noise = normals(self.seed, self.steps as usize + 1);
        let (mut seconds, mut flops) = (0.0, 0.0);
        let loss = |step: u64| {
            self.floor + 2.75 * (-(step as f64) / 120.0).exp() + 40.0 / (step as f64 + 60.0)
        };
        for step in 1..=self.steps {
            let wave = noise[step as usize];
            let competing = match self.competes() {
                true => (1.2 * wave.abs()) as usize,
                false => 0,
            };
            let pace = 0.09 * (1.0 + 0.22 * competing as f64) * (1.0 + 0.03 * wave.abs());
            seconds += pace;
            flops += tokens as f64 * 9.1e6 * (1.0 + 0.2 * competing as f64);
            if step % 10 == 0 || step == 1 {
                let share = |layer: usize, expert: usize| {
                    let start = normals(31 * self.seed + layer as u64, self.experts)[expert];
                    let fade = 0.08 + 0.5 * (-(step as f64) / 300.0).exp();
                    let jitter = normals(step + expert as u64, 1)[0];
                    (8192.0 / self.experts as f64 * (1.0 + fade * start + 0.02 * jitter)).max(0.0)
                };
                let counts = |layer| (0..self.experts).map(|e| share(layer, e) as u64).collect();
                let auxiliary = |value: f64, coefficient: f64| {
                    self.competes().then_some(Auxiliary { value, coefficient })
                };
                rows.push(Row::Step(Step {
                    step,
                    tokens: tokens * step,
                    seconds,
                    loss: loss(step) + 0.03 * wave - 0.04,
                    balance: Some(Auxiliary {
                        value: 1.0 + 0.3 * (-(step as f64) / 300.0).exp() + 0.004 * wave.abs(),
                        coefficient: 0.01,
                    }),
                    z: auxiliary(4.0 + 0.1 * wave.abs(), 0.001),
                    distillation: auxiliary(0.002 + 0.02 * (-(step as f64) / 400.0).exp(), 0.001),
                    diversity: auxiliary(0.1 + 0.01 * wave.abs(), 0.005),
                    competition_balance: None,
                    gradient_norm: 0.4 + 2.0 * (-(step as f64) / 50.0).exp() + 0.08 * wave.abs(),
                    rate: 1e-3
                        * (step as f64 / 100.0).min(1.0)
                        * (0.55
                            + 0.45
                                * (std::f64::consts::PI * step as f64 / self.steps as f64).cos()),
                    tokens_per_second: tokens as f64 / pace,
                    competing,
                    load: (0..self.layers).map(counts).collect(),
                }));
            }
            if step % 100 == 0 {
                let layers = (0..self.layers).map(|l| self.statistics(step, l)).collect();
                rows.push(Row::Statistics(Statistics { step, layers }));
                let of_k = |top_k: usize| {
                    let loss =
                        loss(step) + 0.002 * wave + 0.09 * (top_k as f64 - 2.0).powi(2).min(2.0);
                    Row::Evaluation(Evaluation {
                        step,
                        tokens: tokens * step,
                        seconds,
                        flops,
                        loss,
                        bits_per_byte: loss / 2.0_f64.ln(),
                        perplexity: loss.exp(),
                        top_k,
                    })
                };
                rows.push(of_k(2));
                if step == self.steps {
                    rows.extend([1, 4, 8].map(of_k));
                }
                if step % 500 == 0 {
                    let text = "ROMEO:\nThe <king> that would \"have\" thee & me,\n\
                                And so the world shall stand upon the sea.";
                    rows.push(Row::Text(Text {
                        step,
                        text: text.to_string(),
                    }));
                }
            }
        }
        rows
    }

    fn summary(&self) -> Summary {
        Summary {
            parameters_total: 2_412_032,
            parameters_active: 839_168,
            training_flops_per_token: 9.1e6,
            memory_bytes: Some(412_000_000),
            device: "16 cores".to_string(),
            version: "0.1.0".to_string(),
            commit: None,
        }
    }

    /// The run's folder, as training leaves it.
    fn folder(&self, parent: &TempDir, rows: &[Row]) -> PathBuf {
        let folder = parent.path().join(self.name());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("run.toml"), self.configuration()).unwrap();
        let mut log = Log::create(&folder.join("log.jsonl")).unwrap();
        rows.iter().for_each(|row| log.append(row).unwrap());
        self.summary().save(&folder).unwrap();
        folder
    }

    fn record(&self, rows: &[Row]) -> Record {
        Record::load(&self.folder(&TempDir::new().unwrap(), rows)).unwrap()
    }
}

#[test]
fn a_run_leaves_a_page_with_all_its_figures_and_loads_nothing() {
    let parent = TempDir::new().unwrap();
    let folder = SAMPLE.folder(&parent, &SAMPLE.rows());
    write(&folder, &SAMPLE.summary()).unwrap();
    let html = std::fs::read_to_string(folder.join("index.html")).unwrap();
    for name in FIGURES {
        let (svg, png) = (format!("{name}.svg"), format!("{name}.png"));
        assert!(
            folder.join(svg).exists() && folder.join(png).exists(),
            "{name}"
        );
    }
    for id in ["loss", "text", "load", "routing", "competition", "speed"] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for outside in ["src=", "href=\"http", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("The &lt;king&gt; that would"));
    let loss = Record::load(&folder).unwrap().evaluations[5].loss;
    let headline = format!("600 of 600 steps: validation loss {loss:.4} nats per token");
    assert!(html.contains(&headline));
    assert!(html.contains("2.41 M, of which a token uses 839 K"));
    assert!(html.len() < 400_000, "{} bytes", html.len());
    assert_eq!(Summary::load(&folder).unwrap(), SAMPLE.summary());
}

const FIGURES: [&str; 7] = [
    "curves",
    "load",
    "routing",
    "competition",
    "losses",
    "speed",
    "experts",
];

#[test]
fn a_run_that_has_logged_nothing_yet_has_a_page() {
    let parent = TempDir::new().unwrap();
    let folder = SAMPLE.folder(&parent, &[]);
    write(&folder, &SAMPLE.summary()).unwrap();
    let html = std::fs::read_to_string(folder.join("index.html")).unwrap();
    assert!(html.contains("0 of 600 steps, not evaluated yet"));
    assert!(!folder.join("curves.svg").exists());
}

#[test]
fn a_model_without_experts_has_no_panels_of_them() {
    let dense = Sample {
        kind: "smoe",
        extra: "[log]\nevery = 10\n",
        ..SAMPLE
    };
    let mut rows = dense.rows();
    for row in &mut rows {
        match row {
            Row::Step(row) => row.load.clear(),
            Row::Statistics(row) => row.layers.clear(),
            Row::Evaluation(_) | Row::Text(_) => {}
        }
    }
    let mut record = dense.record(&rows);
    record.run.model.layout = crate::train::config::Layout::Dense;
    assert_eq!(record.method(), "dense");
    assert!(record.sparse_layers().is_empty());
    let figures = Figures::of(&record);
    assert!(figures.load.is_empty() && figures.routing.is_empty());
    assert!(figures.competition.is_empty() && figures.speed.is_empty());
    assert_eq!(figures.curves.len(), 3);
    assert!(!page(&record, &figures).contains("id=\"routing\""));
}

#[test]
fn panels_of_load_are_named_after_the_layers_that_have_experts() {
    let half = Sample {
        layers: 4,
        extra: "",
        ..SAMPLE
    };
    let mut rows = half.rows();
    for row in &mut rows {
        if let Row::Step(row) = row {
            row.load.truncate(2);
        }
    }
    let mut record = half.record(&rows);
    record.run.model.layout = crate::train::config::Layout::Alternating;
    let titles: Vec<String> = Figures::of(&record)
        .load
        .into_iter()
        .map(|c| c.title)
        .collect();
    assert_eq!(titles, ["Layer 1", "Layer 3"]);
}

#[test]
fn a_run_that_diverged_has_a_page_that_says_so() {
    let mut rows = SAMPLE.rows();
    for row in &mut rows {
        match row {
            Row::Step(row) if row.step > 300 => row.loss = f64::NAN,
            Row::Evaluation(row) if row.step > 300 => row.loss = f64::NAN,
            _ => {}
        }
    }
    let record = SAMPLE.record(&rows);
    let html = page(&record, &Figures::of(&record));
    assert!(html.contains("validation loss – nats per token"));
    let records = [record];
    let groups = grouped(&records);
    let html = super::compare::page(&records, &groups, &[]);
    assert!(html.contains("Diverged: compete-v2-1."));
}

#[test]
fn evaluations_with_other_numbers_of_experts_are_no_part_of_the_curve() {
    let record = SAMPLE.record(&SAMPLE.rows());
    assert_eq!(record.evaluations.len(), 6);
    assert!(record.evaluations.iter().all(|row| row.top_k == 2));
    let numbers: Vec<usize> = record.by_top_k.iter().map(|row| row.top_k).collect();
    assert_eq!(numbers, [1, 2, 4, 8]);
    assert!(record.by_top_k.iter().all(|row| row.step == 600));
}

/// Evaluations at steps 10 and 20 with these losses, a step costing so much.
fn two_evaluations(losses: [f64; 2], flops: f64, seconds: f64) -> Vec<Row> {
    let row = |(step, loss): (u64, f64)| {
        Row::Evaluation(Evaluation {
            step,
            flops: flops * step as f64,
            seconds: seconds * step as f64,
            loss,
            top_k: 2,
            ..Evaluation::default()
        })
    };
    [10, 20].into_iter().zip(losses).map(row).collect()
}

#[test]
fn seeds_are_averaged_and_costs_are_made_equal() {
    let cheap = Sample {
        kind: "smoe",
        ..SAMPLE
    };
    let records = [
        SAMPLE.record(&two_evaluations([3.0, 1.0], 4.0, 2.0)),
        cheap.record(&two_evaluations([3.0, 2.0], 2.0, 2.0)),
        Sample { seed: 2, ..SAMPLE }.record(&two_evaluations([4.0, 2.0], 4.0, 2.0)),
    ];
    let groups = grouped(&records);
    let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
    assert_eq!(labels, ["compete-v2", "smoe"]);
    let at = |group: usize, cost: Cost| {
        let place = common(&records, cost).unwrap();
        let average = loss_at(&groups[group], cost, place).unwrap();
        (place, average.mean, average.n)
    };
    assert_eq!(at(0, Cost::Steps), (20.0, 1.5, 2));
    assert_eq!(at(0, Cost::Time), (40.0, 1.5, 2));
    // The cheap run ends at 40 FLOP: where the dear ones were at step 10.
    assert_eq!(at(0, Cost::Flops), (40.0, 3.5, 2));
    assert_eq!(at(1, Cost::Flops), (40.0, 2.0, 1));
    let half = loss_at(&groups[0], Cost::Steps, 20.0).unwrap().half_width;
    // s = 1 / sqrt 2, t_1(0.975) = 12.7062, divided by sqrt 2.
    assert!((half.unwrap() - 6.3531).abs() < 1e-4);
    assert_eq!(
        loss_at(&groups[1], Cost::Steps, 20.0).unwrap().half_width,
        None
    );
}

#[test]
fn methods_of_one_name_are_told_apart_by_the_keys_in_which_they_differ() {
    let stronger = Sample {
        extra: "[competition]\ncoefficient = 0.05\n",
        ..SAMPLE
    };
    let records = [
        SAMPLE.record(&[]),
        stronger.record(&[]),
        Sample {
            kind: "smoe",
            ..SAMPLE
        }
        .record(&[]),
    ];
    let groups = grouped(&records);
    let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
    let expected = [
        "compete-v2, competition.coefficient as preset",
        "compete-v2, competition.coefficient 0.05",
        "smoe",
    ];
    assert_eq!(labels, expected);
}

#[test]
fn a_comparison_is_one_page_that_warns_of_what_cannot_be_compared() {
    let parent = TempDir::new().unwrap();
    let other = Sample {
        kind: "smoe",
        ..SAMPLE
    };
    let folders = [SAMPLE, other].map(|s| s.folder(&parent, &s.rows()));
    let output = parent.path().join("compared");
    compare(&folders, &output).unwrap();
    let html = || std::fs::read_to_string(output.join("index.html")).unwrap();
    assert!(output.join("comparison.png").exists());
    assert!(html().contains("2 runs of 2 methods"));
    assert!(
        !html().contains("class=\"warning\""),
        "alike runs need no warning"
    );
    let elsewhere = Summary {
        device: "one GPU".to_string(),
        ..SAMPLE.summary()
    };
    elsewhere.save(&folders[1]).unwrap();
    compare(&folders, &output).unwrap();
    assert!(html().contains("different devices: their times cannot be compared"));
    assert!(compare(&[], &output).is_err());
}

#[test]
fn a_page_does_not_depend_on_when_it_is_written() {
    let record = SAMPLE.record(&SAMPLE.rows());
    let once = page(&record, &Figures::of(&record));
    assert_eq!(page(&record, &Figures::of(&record)), once);
}
