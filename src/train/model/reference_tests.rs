//! Whole models against an independent implementation by PyTorch's autograd
//! (`tests/reference/model.py`): logits, losses and every gradient of every method.

use super::*;
use crate::train::config::Run;
use crate::train::device::{Cpu, Device};
use crate::train::ops::cross_entropy::IGNORED;
use crate::train::ops::real::Real;
use crate::train::router::schedule::Table;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder of `tests/reference/cases`.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    /// Its `config.json`.
    pub config: Value,
}

/// A tensor of a file, and how far its numbers were rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
    pub rounding: f64,
}

/// All tensors of a file.
pub fn tensors(path: &Path) -> BTreeMap<String, Numbers> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |(name, view): (String, safetensors::tensor::TensorView)| {
        fn of<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes
                .as_chunks::<N>()
                .0
                .iter()
                .map(|b| number(*b))
                .collect()
        }
        let (values, rounding) = match view.dtype() {
            Dtype::F32 => {
                let wide = |b| f64::from(f32::from_le_bytes(b));
                (of(view.data(), wide), f64::from(f32::EPSILON) / 2.0)
            }
            Dtype::F64 => (of(view.data(), f64::from_le_bytes), 0.0),
            Dtype::I64 => (of(view.data(), |b| i64::from_le_bytes(b) as f64), 0.0),
            other => panic!("{name}: {other:?}"),
        };
        let shape = view.shape().to_vec();
        let numbers = Numbers {
            shape,
            values,
            rounding,
        };
        (name, numbers)
    };
    file.tensors().into_iter().map(read).collect()
}

impl Case {
    /// All cases, by name.
    pub fn all() -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/cases");
        let entries = std::fs::read_dir(&folder).unwrap();
        let mut folders: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        folders.sort();
        let case = |folder: PathBuf| Case {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            config: serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap())
                .unwrap(),
            folder,
        };
        folders.into_iter().map(case).collect()
    }

    /// The case of a name.
    pub fn named(name: &str) -> Case {
        let mut all = Case::all().into_iter();
        all.find(|case| case.name == name).unwrap()
    }

    pub fn tensors(&self, file: &str) -> BTreeMap<String, Numbers> {
        tensors(&self.folder.join(format!("{file}.safetensors")))
    }

    fn flag(&self, list: &str, layer: usize, is: impl Into<Value>) -> bool {
        self.config[list][layer] == is.into()
    }

    fn layers(&self) -> usize {
        self.config["layers"].as_u64().unwrap() as usize
    }

    fn is_sparse(&self, layer: usize) -> bool {
        self.flag("layout", layer, "sparse")
    }

    /// The run whose first step the case is, but for the layers that compete.
    pub fn run(&self) -> Run {
        let c = &self.config;
        let sparse = (0..self.layers()).filter(|&l| self.is_sparse(l)).count();
        let layout = match sparse {
            0 => "dense",
            all if all == self.layers() => "every-layer",
            _ => "alternating",
        };
        let kind = c["router"].as_str().unwrap();
        let cosine = matches!(kind, "xmoe" | "perturbed-cosine").then(|| {
            json!({
                "width": c["cosine_width"],
                "normalised": c["cosine_normalised"],
                "temperature": c["cosine_temperature"],
                "theta": c["cosine_theta"],
            })
        });
        let competition = kind.starts_with("compet").then(|| {
            json!({
                "response": c["response"],
                "combine": c["competition_combine"],
                "target": c["target"],
                "temperature": c["temperature"],
                "spread": c["spread"],
                "distillation": c["distillation"],
                "theta": c["theta"],
                "coefficient": c["coefficient"],
                "diversity": c["diversity"],
                "diversity_pairs": c["diversity_pairs"],
                "balance": {
                    "kind": c["competition_balance"],
                    "scope": c["competition_balance_scope"],
                    "distribution": c["competition_balance_distribution"],
                    "coefficient": c["competition_balance_coefficient"],
                },
                "balance_gradient": c["balance_gradient"],
                "router_losses": c["router_losses"],
                "compatibility": c["compatibility"],
            })
        });
        let bias_rate = if c["selection_bias"] == true {
            0.001
        } else {
            0.0
        };
        let run = json!({
            "name": self.name,
            "steps": 1,
            "data": { "source": "tinyshakespeare" },
            "batch": { "sequences": 2, "length": 8 },
            "optimiser": { "warm_up": 0 },
            "model": {
                "layers": c["layers"],
                "width": c["width"],
                "heads": c["heads"],
                "position": c["position"],
                "norm": c["norm"],
                "activation": c["activation"],
                "bias": c["bias"],
                "head": c["head"],
                "layout": layout,
                "dense_hidden": c["dense_hidden"],
            },
            "experts": {
                "count": c["experts"],
                "hidden": c["hidden"],
                "shared": c["shared"],
                "capacity_factor": c["capacity_factor"],
                "drop": c["drop"],
            },
            "router": {
                "kind": kind,
                "top_k": c["top_k"],
                "combine": c["combine"],
                "scale": c["scale"],
                "jitter": 0.0,
                "k_schedule": { "first": c["top_k"], "last": c["top_k"], "curve": "linear" },
                "cosine": cosine,
                "selection": {
                    "bias_rate": bias_rate,
                    "groups": c["groups"],
                    "kept_groups": c["kept_groups"],
                },
                "balance": {
                    "kind": c["balance"],
                    "scope": c["balance_scope"],
                    "distribution": c["balance_distribution"],
                    "coefficient": c["balance_coefficient"],
                },
                "z_loss": c["z_loss"],
            },
            "competition": competition,
        });
        let run: Run = serde_json::from_value(run).unwrap();
        run.check().unwrap_or_else(|e| panic!("{}: {e}", self.name));
        run
    }

    /// Its model's shapes.
    pub fn architecture(&self) -> Architecture {
        let vocabulary = self.config["vocabulary"].as_u64().unwrap() as usize;
        Architecture::new(&self.run(), vocabulary).unwrap()
    }

    /// Its weights in the order of the model's list; none may be missing or left over.
    pub fn parameters<T: Real>(&self) -> Vec<Vec<T>> {
        let mut weights = self.tensors("weights");
        let take = |spec: &Spec| {
            let numbers = weights.remove(&spec.name);
            let numbers = numbers.unwrap_or_else(|| panic!("{}: no {}", self.name, spec.name));
            let values: Vec<T> = numbers.values.iter().map(|&v| T::of(v)).collect();
            assert_eq!(values.len(), spec.size(), "{}: {}", self.name, spec.name);
            values
        };
        let values = self.architecture().specs().iter().map(take).collect();
        assert!(weights.is_empty(), "{}: {weights:?}", self.name);
        values
    }

    /// Its transformer with its weights.
    pub fn transformer<T: Real>(&self, device: &Cpu<T>) -> Transformer<Cpu<T>> {
        let architecture = self.architecture();
        let values = self.parameters();
        let parameters = Tensors::uploaded(device, &architecture.specs(), &values).unwrap();
        Transformer::with(architecture, parameters).unwrap()
    }

    /// Ids and targets.
    fn text(&self) -> [Vec<u32>; 2] {
        let batch = self.tensors("batch");
        let id = |&v: &f64| if v < 0.0 { IGNORED } else { v as u32 };
        ["ids", "targets"].map(|name| batch[name].values.iter().map(id).collect())
    }

    fn competing(&self) -> Table {
        let sparse = (0..self.layers()).filter(|&l| self.is_sparse(l));
        let competing: Vec<bool> = sparse.map(|l| self.flag("competing", l, true)).collect();
        Table::of_one_step(&competing)
    }
}

/// What our implementation makes of a case.
struct Pass {
    logits: Vec<f64>,
    losses: Losses,
    /// Tokens that the task counts.
    counted: f64,
    gradients: Vec<(Spec, Vec<f64>)>,
}

fn pass<T: Real>(case: &Case) -> Pass {
    let device = Cpu::<T>::new();
    let transformer = case.transformer(&device);
    let [ids, targets] = case.text();
    let batch = Batch::new(&device, &ids, &targets, 8).unwrap();
    let mut tape = transformer.tape(&device, 2, 8).unwrap();
    let table = case.competing();
    let phase = Phase::Training(Training {
        // Those of the noise of `make.py`.
        seed: 1,
        step: 0,
        active: case.architecture().method.active.at(0, 1),
        schedule: Some(&table),
        first_token: 0,
    });
    transformer
        .forward(&device, &batch, &phase, &mut tape)
        .unwrap();
    let wide = |values: Vec<T>| values.iter().map(|v| v.wide()).collect();
    let logits = wide(device.download(tape.logits()).unwrap());
    let mut gradients = Tensors::zeros(&device, transformer.specs()).unwrap();
    let mut meters = device.meters(Losses::METERS).unwrap();
    transformer
        .backward(
            &device,
            &batch,
            &phase,
            batch.counted(),
            None,
            &mut tape,
            &mut gradients,
            &mut meters,
        )
        .unwrap();
    let of = |(spec, g): (&Spec, _)| (spec.clone(), wide(device.download(g).unwrap()));
    Pass {
        logits,
        losses: Losses::of(&device.read(&mut meters).unwrap()),
        counted: batch.counted().tokens as f64,
        gradients: transformer
            .specs()
            .iter()
            .zip(gradients.all())
            .map(of)
            .collect(),
    }
}

/// The largest difference over the largest entry.
fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let gaps = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    match gaps.fold(
        0.0,
        |m: f64, gap| if gap > m || gap.is_nan() { gap } else { m },
    ) {
        0.0 => 0.0,
        gap => gap / largest,
    }
}

/// All quantities of a case that are too far, with how far.
fn faults<T: Real>(case: &Case, tolerance: f64) -> Vec<String> {
    let ours = pass::<T>(case);
    let mut expected = case.tensors("expected");
    let mut faults = Vec::new();
    let mut compare = |name: &str, ours: &[f64], theirs: &[f64], rounding: f64| {
        let gap = difference(ours, theirs);
        let near = gap <= tolerance + rounding;
        if !near {
            faults.push(format!("{}: {name} differs by {gap:.1e}", case.name));
        }
    };
    let logits = expected.remove("logits").unwrap();
    compare("logits", &ours.logits, &logits.values, logits.rounding);
    let losses = &ours.losses;
    let task = losses.nats / ours.counted;
    for (name, value) in [
        ("task", task),
        ("balance", losses.balance),
        ("z", losses.z),
        ("distillation", losses.distillation),
        ("diversity", losses.diversity),
        ("competition_balance", losses.competition_balance),
        ("total", task + losses.auxiliary()),
    ] {
        match expected.remove(&format!("loss.{name}")) {
            Some(theirs) => compare(name, &[value], &theirs.values, theirs.rounding),
            None => assert_eq!(value, 0.0, "{}: an extra {name}", case.name),
        }
    }
    for (spec, gradient) in &ours.gradients {
        let theirs = expected.remove(&format!("gradient.{}", spec.name));
        assert!(theirs.is_none() || spec.role.is_trained(), "{}", spec.name);
        // What nothing depends on has no gradient there, and zeros here.
        let (values, rounding) = match theirs {
            Some(theirs) => (theirs.values, theirs.rounding),
            None => (vec![0.0; gradient.len()], 0.0),
        };
        compare(&spec.name, gradient, &values, rounding);
    }
    assert!(expected.is_empty(), "{}: left over {expected:?}", case.name);
    faults
}

fn assert_agreement<T: Real>(tolerance: f64) {
    let cases = Case::all();
    let methods: std::collections::BTreeSet<String> = cases
        .iter()
        .map(|c| c.config["router"].to_string())
        .collect();
    assert_eq!(methods.len(), 12, "a method has no case: {methods:?}");
    let faults: Vec<String> = cases
        .iter()
        .flat_map(|case| faults::<T>(case, tolerance))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_case_is_the_references_to_the_precision_of_its_file() {
    assert_agreement::<f64>(1e-9);
}

#[test]
fn every_case_is_the_references_in_single_precision() {
    assert_agreement::<f32>(1e-5);
}
