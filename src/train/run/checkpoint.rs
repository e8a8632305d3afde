//! Checkpoints: everything a run needs to go on to the bit.
//!
//! ```text
//! checkpoints/step-00000500/{weights,mean,square}.safetensors state.json
//! ```
//!
//! A folder is written under another name and renamed when it is complete, so that a
//! killed run leaves whole checkpoints only. Streams of random numbers and positions
//! in the text are functions of the step and need no state.

use crate::error::{Error, Result, read_text};
use crate::train::config::Run;
use crate::train::data::description::sha256;
use crate::train::device::Device;
use crate::train::model::{Spec, Tensors};
use crate::train::moe::Assignment;
use crate::train::ops::real::Real;
use crate::train::run::evaluate::Choice;
use crate::train::run::trainer::Trainer;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The layout of checkpoints.
const FORMAT: u32 = 1;

/// Beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The layout.
    pub format: u32,
    /// The crate's version that wrote it.
    pub version: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Training time so far, seconds.
    pub seconds: f64,
    /// Smallest validation loss so far, nats per token.
    pub best: Option<f64>,
    /// SHA-256 of what decides the rows to come: the run without its name, its words and
    /// what is only written or kept.
    pub run: String,
    /// SHA-256 of the description of the text.
    pub data: String,
    /// SHA-256 of the schedule of competitions, empty without one.
    pub schedule: String,
}

/// What decides the numbers of a run.
pub fn digest_of_run(run: &Run) -> String {
    let defaults = Run {
        name: String::new(),
        about: String::new(),
        checkpoints: Default::default(),
        ..run.clone()
    };
    let text = serde_json::to_string(&defaults).expect("a run is plain data");
    sha256(text.as_bytes())
}

impl State {
    /// Of a trainer now.
    pub fn of<D: Device>(
        trainer: &Trainer<D>,
        data: &str,
        seconds: f64,
        best: Option<f64>,
    ) -> Self {
        let schedule = trainer.schedule().map(|table| sha256(&table.bytes()));
        State {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_string(),
            step: trainer.steps_done(),
            seconds,
            best,
            run: digest_of_run(trainer.run()),
            data: data.to_string(),
            schedule: schedule.unwrap_or_default(),
        }
    }
}

/// Checkpoints of a run, latest last.
///
/// # Errors
/// [`Error::File`] if the folder is there and cannot be read.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(|e| Error::file(folder, "read", &e))?;
    let step_of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("step-")?.parse().ok()
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| step_of(&entry.path()).map(|step| (step, entry.path())))
        .collect();
    found.sort();
    Ok(found)
}

/// Writes a checkpoint and removes all but the latest `keep`. `choices` are those of
/// the latest statistics.
///
/// # Errors
/// [`Error::File`]; what the device refuses.
pub fn save<D: Device>(
    folder: &Path,
    trainer: &Trainer<D>,
    state: &State,
    choices: &[Choice<D>],
    keep: usize,
) -> Result<()> {
    let target = folder.join(format!("step-{:08}", state.step));
    replace(&target, |part| {
        let specs = trainer.transformer.specs();
        let [mean, square] = &trainer.moments;
        let values = &trainer.transformer.parameters;
        let files = [("weights", values), ("mean", mean), ("square", square)];
        for (name, tensors) in files {
            let path = part.join(format!("{name}.safetensors"));
            write_tensors(&path, &trainer.device, specs, tensors)?;
        }
        write_json(&part.join(CHOICES), &kept(choices))?;
        write_json(&part.join("state.json"), state)
    })?;
    let all = list(folder)?;
    for (_, old) in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_dir_all(old).map_err(|e| Error::file(old, "remove", &e))?;
    }
    Ok(())
}

/// Writes the weights alone, with the state they belong to.
///
/// # Errors
/// [`Error::File`]; what the device refuses.
pub fn save_weights<D: Device>(target: &Path, trainer: &Trainer<D>, state: &State) -> Result<()> {
    replace(target, |part| {
        let path = part.join("weights.safetensors");
        let (specs, values) = (trainer.transformer.specs(), &trainer.transformer.parameters);
        write_tensors(&path, &trainer.device, specs, values)?;
        write_json(&part.join("state.json"), state)
    })
}

/// The choices of the latest statistics, kept so that a resumed run's next ones see
/// the same change.
const CHOICES: &str = "choices.json";

/// A choice without its weights.
#[derive(Serialize, Deserialize)]
struct Kept {
    offsets: Vec<u32>,
    experts: Vec<u32>,
    expert_count: usize,
}

fn kept<T: Real>(choices: &[Assignment<T>]) -> Vec<Kept> {
    let of = |choice: &Assignment<T>| {
        let ends = (0..choice.tokens()).map(|token| choice.pairs_of(token).end as u32);
        Kept {
            offsets: [0].into_iter().chain(ends).collect(),
            experts: choice.experts().to_vec(),
            expert_count: choice.expert_count(),
        }
    };
    choices.iter().map(of).collect()
}

/// The choices of a checkpoint, with weights of 0; none if there were none.
///
/// # Errors
/// [`Error::File`], [`Error::Input`].
pub fn load_choices<T: Real>(folder: &Path) -> Result<Option<Vec<Assignment<T>>>> {
    let path = folder.join(CHOICES);
    let all: Vec<Kept> = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| Error::input(&path, "", e.to_string()))?;
    let of = |kept: Kept| {
        let weights = vec![T::ZERO; kept.experts.len()];
        Assignment::new(kept.offsets, kept.experts, weights, kept.expert_count)
    };
    let choices: Vec<_> = all.into_iter().map(of).collect::<Result<_>>()?;
    Ok((!choices.is_empty()).then_some(choices))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("it is plain data");
    write(path, text.as_bytes())
}

/// Fills a folder under another name, then puts it into its place.
///
/// # Errors
/// [`Error::File`]; those of `fill`.
pub fn replace(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = target.file_name().and_then(|n| n.to_str()).unwrap_or("x");
    let part = target.with_file_name(format!(".{name}.part"));
    let gone = |path: &Path| match path.exists() {
        true => std::fs::remove_dir_all(path).map_err(|e| Error::file(path, "remove", &e)),
        false => Ok(()),
    };
    gone(&part)?;
    std::fs::create_dir_all(&part).map_err(|e| Error::file(&part, "create", &e))?;
    fill(&part)?;
    gone(target)?;
    std::fs::rename(&part, target).map_err(|e| Error::file(target, "write", &e))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|e| Error::file(path, "write", &e))
}

/// Puts a checkpoint's numbers into a trainer made from the same run.
///
/// # Errors
/// [`Error::Input`] if the checkpoint is of another run, text or schedule, or its
/// tensors are not the model's.
pub fn load<D: Device>(folder: &Path, trainer: &mut Trainer<D>, data: &str) -> Result<State> {
    let state = read_state(folder)?;
    let path = folder.join("state.json");
    let now = State::of(trainer, data, 0.0, None);
    let same = |key: &str, was: &str, is: &str, message: &str| match was == is {
        true => Ok(()),
        false => Err(Error::input(&path, key, message)),
    };
    if state.format != FORMAT {
        let message = format!("is format {}, this program reads {FORMAT}", state.format);
        return Err(Error::input(&path, "format", message));
    }
    let other =
        "the checkpoint is of a run with other settings: use another name, or remove its folder";
    same("run", &state.run, &now.run, other)?;
    let other = "the checkpoint is of another text: use another name, or remove its folder";
    same("data", &state.data, &now.data, other)?;
    let other = "the checkpoint followed another schedule of competitions";
    same("schedule", &state.schedule, &now.schedule, other)?;
    if state.step > trainer.run().steps {
        let message = format!("is beyond the run's {} steps", trainer.run().steps);
        return Err(Error::input(&path, "step", message));
    }
    let specs = trainer.transformer.specs().to_vec();
    let read = |name: &str| {
        let path = folder.join(format!("{name}.safetensors"));
        read_tensors(&path, &trainer.device, &specs)
    };
    let (values, mean, square) = (read("weights")?, read("mean")?, read("square")?);
    trainer.transformer.parameters = values;
    trainer.moments = [mean, square];
    trainer.go_on_after(state.step);
    Ok(state)
}

/// The state of a checkpoint.
///
/// # Errors
/// [`Error::File`], [`Error::Input`].
pub fn read_state(folder: &Path) -> Result<State> {
    let path = folder.join("state.json");
    let text = read_text(&path)?;
    serde_json::from_str(&text).map_err(|e| Error::input(&path, "", e.to_string()))
}

/// Writes tensors in f32 under their names.
///
/// # Errors
/// [`Error::File`]; what the device refuses.
pub fn write_tensors<D: Device>(
    path: &Path,
    device: &D,
    specs: &[Spec],
    tensors: &Tensors<D>,
) -> Result<()> {
    let values = download(device, tensors)?;
    let shapes = specs.iter().map(|s| vec![s.rows, s.columns]);
    let named = specs.iter().map(|s| s.name.as_str());
    let arrays = named.zip(shapes).zip(values.iter().map(Vec::as_slice));
    write_named(path, arrays, None)
}

/// All tensors on the host, in f32.
///
/// # Errors
/// What the device refuses.
pub fn download<D: Device>(device: &D, tensors: &Tensors<D>) -> Result<Vec<Vec<f32>>> {
    let narrow = |tensor| {
        let values = device.download(tensor)?;
        Ok(values.iter().map(|v| v.wide() as f32).collect())
    };
    tensors.all().iter().map(narrow).collect()
}

/// Writes arrays in f32; `words` go into the file's head.
///
/// # Errors
/// [`Error::File`].
pub fn write_named<'a>(
    path: &Path,
    arrays: impl Iterator<Item = ((&'a str, Vec<usize>), &'a [f32])>,
    words: Option<HashMap<String, String>>,
) -> Result<()> {
    let views: Vec<(&str, TensorView)> = arrays
        .map(|((name, shape), values)| {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            let view = TensorView::new(Dtype::F32, shape, bytes);
            (name, view.expect("a shape fits its numbers"))
        })
        .collect();
    let bytes = safetensors::serialize(views, words)
        .map_err(|e| Error::input(path, "", format!("cannot write tensors: {e}")))?;
    write(path, &bytes)
}

/// Reads the tensors of a model, and no others.
///
/// # Errors
/// [`Error::File`]; [`Error::Input`] with the tensor at fault.
pub fn read_tensors<D: Device>(path: &Path, device: &D, specs: &[Spec]) -> Result<Tensors<D>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, "read", &e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::input(path, "", format!("is no safetensors file: {e}")))?;
    let mut all: HashMap<String, TensorView> = file.tensors().into_iter().collect();
    let mut values = Vec::with_capacity(specs.len());
    for spec in specs {
        let tensor = all
            .remove(&spec.name)
            .ok_or_else(|| Error::input(path, &spec.name, "is missing"))?;
        if tensor.shape() != [spec.rows, spec.columns] || tensor.dtype() != Dtype::F32 {
            let message = format!(
                "must be f32 of shape ({}, {}), is {:?} of {:?}",
                spec.rows,
                spec.columns,
                tensor.dtype(),
                tensor.shape()
            );
            return Err(Error::input(path, &spec.name, message));
        }
        let (numbers, _) = tensor.data().as_chunks::<4>();
        let wide = |bytes: &[u8; 4]| D::Number::of(f64::from(f32::from_le_bytes(*bytes)));
        values.push(numbers.iter().map(wide).collect());
    }
    if let Some(name) = all.keys().min() {
        return Err(Error::input(path, name, "is no tensor of this model"));
    }
    Tensors::uploaded(device, specs, &values)
}
