//! The transformer against the cases of `tests/reference`, computed in PyTorch from
//! the description alone: losses, logits and every gradient.

use super::*;
use crate::rng::{Purpose, Stream};
use crate::train::config::Run;
use crate::train::device::{Cpu, Device};
use crate::train::ops::cross_entropy::IGNORED;
use crate::train::router::schedule::Table;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// Steps of a run: enough to hold one with any pattern of competing layers.
const STEPS: u64 = 64;

/// A case's files.
struct Case {
    name: String,
    config: Value,
    weights: Vec<u8>,
    batch: Vec<u8>,
    expected: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/cases");
    let read = |case: &Path, file: &str| std::fs::read(case.join(file)).unwrap();
    let mut folders: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    let case = |folder: &std::path::PathBuf| Case {
        name: folder.file_name().unwrap().to_str().unwrap().to_string(),
        config: serde_json::from_slice(&read(folder, "config.json")).unwrap(),
        weights: read(folder, "weights.safetensors"),
        batch: read(folder, "batch.safetensors"),
        expected: read(folder, "expected.safetensors"),
    };
    folders.iter().map(case).collect()
}

/// A tensor's numbers.
fn numbers(file: &SafeTensors, name: &str) -> Option<Vec<f64>> {
    let tensor = file.tensor(name).ok()?;
    let data = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F32 => {
            let value = |bytes: &[u8; 4]| f64::from(f32::from_le_bytes(*bytes));
            data.as_chunks().0.iter().map(value).collect()
        }
        Dtype::I64 => {
            let value = |bytes: &[u8; 8]| i64::from_le_bytes(*bytes) as f64;
            data.as_chunks().0.iter().map(value).collect()
        }
        other => panic!("{name}: {other:?}"),
    })
}

/// Lines `ours = value` of a table, for the case's values that are not null.
fn lines(config: &Value, pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (ours, theirs) in pairs {
        if !config[theirs].is_null() {
            writeln!(text, "{ours} = {}", config[theirs]).unwrap();
        }
    }
    text
}

/// The run that a case describes.
fn run(config: &Value) -> Run {
    let layers = config["layout"].as_array().unwrap();
    let layout = match layers.iter().filter(|layer| *layer == "sparse").count() {
        0 => "dense",
        all if all == layers.len() => "every-layer",
        _ => "alternating",
    };
    let mut text = format!(
        "name = \"t\"\nsteps = {STEPS}\n[data]\nsource = \"tinyshakespeare\"\n\
         [batch]\nsequences = 2\nlength = 8\n[optimiser]\nrate = 0.01\nwarm_up = 1\n\
         [model]\nlayout = \"{layout}\"\n"
    );
    let same =
        |keys: &[&'static str]| lines(config, &keys.iter().map(|&k| (k, k)).collect::<Vec<_>>());
    text += &same(&[
        "layers",
        "width",
        "heads",
        "position",
        "norm",
        "activation",
        "bias",
        "head",
        "dense_hidden",
    ]);
    text += "[experts]\n";
    text += &same(&["hidden", "shared", "capacity_factor", "drop"]);
    text += &lines(config, &[("count", "experts")]);
    if config["router"] == "switch" && config["capacity_factor"].is_null() {
        text += "capacity_factor = 1000.0\n";
    }
    text += "[router]\njitter = 0.0\n";
    text += &lines(config, &[("kind", "router")]);
    text += &same(&["top_k", "combine", "scale", "z_loss"]);
    if config["groups"] != 1 || config["selection_bias"] == true {
        text += "[router.selection]\n";
        text += &same(&["groups", "kept_groups"]);
        let rate = if config["selection_bias"] == true {
            0.01
        } else {
            0.0
        };
        writeln!(text, "bias_rate = {rate:?}").unwrap();
    }
    if matches!(config["router"].as_str(), Some("xmoe" | "perturbed-cosine")) {
        text += "[router.cosine]\n";
        text += &lines(
            config,
            &[
                ("width", "cosine_width"),
                ("normalised", "cosine_normalised"),
                ("temperature", "cosine_temperature"),
                ("theta", "cosine_theta"),
            ],
        );
    }
    text += "[router.balance]\n";
    text += &lines(
        config,
        &[
            ("kind", "balance"),
            ("scope", "balance_scope"),
            ("distribution", "balance_distribution"),
            ("coefficient", "balance_coefficient"),
        ],
    );
    if config["router"].as_str().unwrap().starts_with("compet") {
        text += "[competition]\n";
        text += &same(&[
            "response",
            "target",
            "temperature",
            "spread",
            "distillation",
            "theta",
            "coefficient",
            "diversity",
            "diversity_pairs",
            "balance_gradient",
            "router_losses",
            "compatibility",
        ]);
        text += &lines(config, &[("combine", "competition_combine")]);
        text += "schedule = { kind = \"constant\", rate = 0.5 }\n[competition.balance]\n";
        text += &lines(
            config,
            &[
                ("kind", "competition_balance"),
                ("scope", "competition_balance_scope"),
                ("distribution", "competition_balance_distribution"),
                ("coefficient", "competition_balance_coefficient"),
            ],
        );
    }
    let run: Run = toml::from_str(&text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    run.check().unwrap_or_else(|e| panic!("{text}\n{e}"));
    run
}

/// A schedule with a step at which just the case's layers compete, and that step.
fn schedule(run: &Run, config: &Value) -> (Option<Table>, u64) {
    let Some(competing) = run.method().unwrap().competing else {
        return (None, 0);
    };
    let stream = Stream::named(1, "competition", 0, Purpose::Schedule);
    let layers = config["competing"].as_array().unwrap();
    let table = competing
        .schedule
        .table(&stream, layers.len(), STEPS)
        .unwrap();
    let agrees = |&step: &u64| {
        let mut layers = layers.iter().enumerate();
        layers.all(|(layer, competes)| *competes == table.competes(layer, step))
    };
    let step = (0..STEPS).find(agrees).unwrap();
    (Some(table), step)
}

/// The largest difference over the largest entry of the reference.
fn distance(ours: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(ours.len(), reference.len());
    let largest = reference.iter().fold(0.0_f64, |l, x| l.max(x.abs()));
    let pairs = ours.iter().zip(reference);
    let gap = pairs.fold(0.0, |gap: f64, (a, b)| match (a - b).abs() {
        d if d.is_nan() => f64::INFINITY,
        d => gap.max(d),
    });
    if gap == 0.0 { 0.0 } else { gap / largest }
}

/// Logits, losses and gradients by the names of the reference.
fn computed(case: &Case) -> Vec<(String, Vec<f64>)> {
    let device = Cpu::<f64>::new();
    let run = run(&case.config);
    let vocabulary = case.config["vocabulary"].as_u64().unwrap() as usize;
    let architecture = Architecture::new(&run, vocabulary).unwrap();
    let specs = architecture.specs();
    let weights = SafeTensors::deserialize(&case.weights).unwrap();
    let values = specs.iter().map(|spec| {
        let values = numbers(&weights, &spec.name);
        values.unwrap_or_else(|| panic!("{}: no {}", case.name, spec.name))
    });
    let parameters = Tensors::uploaded(&device, &specs, &values.collect::<Vec<_>>()).unwrap();
    let transformer = Transformer::with(architecture, parameters).unwrap();
    let batch = SafeTensors::deserialize(&case.batch).unwrap();
    let tokens = |name: &str| -> Vec<u32> {
        let token = |id: f64| if id < 0.0 { IGNORED } else { id as u32 };
        numbers(&batch, name)
            .unwrap()
            .into_iter()
            .map(token)
            .collect()
    };
    let batch = Batch::new(&device, &tokens("ids"), &tokens("targets"), 8).unwrap();
    let mut tape = transformer.tape(&device, 2, 8).unwrap();
    let (table, step) = schedule(&run, &case.config);
    let phase = Phase::Training(Training {
        seed: 1,
        step,
        active: case.config["top_k"].as_u64().unwrap() as usize,
        schedule: table.as_ref(),
        first_token: 0,
    });
    transformer
        .forward(&device, &batch, &phase, &mut tape)
        .unwrap();
    let logits = device.download(tape.logits()).unwrap();
    let mut gradients = Tensors::zeros(&device, &specs).unwrap();
    let mut meters = device.meters(Losses::METERS).unwrap();
    let counted = batch.counted();
    transformer
        .backward(
            &device,
            &batch,
            &phase,
            counted,
            None,
            &mut tape,
            &mut gradients,
            &mut meters,
        )
        .unwrap();
    let losses = Losses::of(&device.read(&mut meters).unwrap());
    let task = losses.nats / counted.tokens as f64;
    let mut results = vec![("logits".to_string(), logits)];
    for (name, value) in [
        ("task", task),
        ("balance", losses.balance),
        ("z", losses.z),
        ("distillation", losses.distillation),
        ("diversity", losses.diversity),
        ("competition_balance", losses.competition_balance),
        ("total", task + losses.auxiliary()),
    ] {
        results.push((format!("loss.{name}"), vec![value]));
    }
    for (spec, gradient) in specs.iter().zip(gradients.all()) {
        let gradient = device.download(gradient).unwrap();
        results.push((format!("gradient.{}", spec.name), gradient));
    }
    results
}

#[test]
fn logits_losses_and_gradients_of_every_method_are_those_of_an_independent_implementation() {
    let cases = cases();
    assert!(cases.len() > 20);
    let mut faults = String::new();
    for case in &cases {
        let expected = SafeTensors::deserialize(&case.expected).unwrap();
        let results = computed(case);
        let known = |name: &&str| results.iter().all(|(own, _)| own != name);
        let unknown: Vec<_> = expected.names().into_iter().filter(known).collect();
        assert_eq!(unknown, [""; 0], "{}", case.name);
        for (name, values) in &results {
            // What the reference leaves out is 0.
            let reference = numbers(&expected, name).unwrap_or_else(|| vec![0.0; values.len()]);
            let gap = distance(values, &reference);
            // The reference is kept in single precision.
            if gap > 2e-7 {
                writeln!(faults, "{}: {name} {gap:.1e}", case.name).unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}
