//! Models for other programs.
//!
//! ```text
//! checkpoint --Source::open--> names, arrays, vocabulary --export--> folder
//! ```
//!
//! | format | files | read by |
//! |---|---|---|
//! | [`Format::Plain`] | `config.json`, `weights.safetensors`: our own names | `tests/reference/model.py` (PyTorch) |
//! | [`Format::Of`] a [`Family`] | `config.json`, `model.safetensors`: theirs | Hugging Face transformers |
//!
//! With a vocabulary both get `vocabulary.json`, or the tokenizer with
//! `tokenizer_config.json`. Numbers are f32. A model is written as it evaluates:
//! without noise, jitter, dropout and training's capacity.
//!
//! | module | what is inside |
//! |---|---|
//! | [`family`] | whose models can stand for ours |
//! | [`mapping`](self) | which array goes where |
//! | [`plain`] | our own description |

mod array;
pub mod family;
mod mapping;
pub mod plain;

pub use family::Family;

use crate::error::{Error, Result};
use crate::train::config::Run;
use crate::train::data::Vocabulary;
use crate::train::device::{Cpu, Device};
use crate::train::export::array::Array;
use crate::train::model::{Architecture, Spec, Tensors, Transformer};
use crate::train::run::checkpoint;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// How a model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Under our own names.
    Plain,
    /// As a model of this family.
    Of(Family),
    /// As a model of the first family that can stand for it.
    Automatic,
}

/// A model, ready to be written.
#[derive(Clone, Debug)]
pub struct Source {
    architecture: Architecture,
    vocabulary: Option<Vocabulary>,
    arrays: BTreeMap<String, Array>,
}

impl Source {
    /// The `weights.safetensors` of a checkpoint's folder; the run says what they are.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Input`] with the tensor at fault; as [`Run::check`].
    pub fn open(folder: &Path, run: &Run, vocabulary: Vocabulary) -> Result<Self> {
        let architecture = Architecture::new(run, vocabulary.size())?;
        let (device, specs) = (Cpu::<f32>::new(), architecture.specs());
        let path = folder.join("weights.safetensors");
        let tensors = checkpoint::read_tensors(&path, &device, &specs)?;
        Ok(Source {
            vocabulary: Some(vocabulary),
            arrays: arrays(&device, &specs, &tensors)?,
            architecture,
        })
    }

    /// A model in memory.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn of<D: Device>(
        device: &D,
        transformer: &Transformer<D>,
        vocabulary: Option<Vocabulary>,
    ) -> Result<Self> {
        Ok(Source {
            architecture: transformer.architecture().clone(),
            vocabulary,
            arrays: arrays(device, transformer.specs(), &transformer.parameters)?,
        })
    }

    /// What decides its shapes.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Writes it into a folder, which is made if need be; says as whose model.
    ///
    /// # Errors
    /// [`Error::Value`] with the key that no model of the family has; [`Error::File`].
    pub fn export(&self, out: &Path, format: Format) -> Result<Option<Family>> {
        let family = match format {
            Format::Plain => None,
            Format::Of(family) => {
                family.check(&self.architecture)?;
                Some(family)
            }
            Format::Automatic => Some(Family::of(&self.architecture)?),
        };
        std::fs::create_dir_all(out).map_err(|e| Error::file(out, "create", &e))?;
        let config = out.join("config.json");
        match family {
            None => {
                write_json(&config, &plain::config(&self.architecture))?;
                write_arrays(&out.join("weights.safetensors"), &self.arrays)?;
            }
            Some(family) => {
                write_json(&config, &family.config(&self.architecture))?;
                let theirs = mapping::arrays(&self.architecture, family, &self.arrays);
                write_arrays(&out.join("model.safetensors"), &theirs)?;
            }
        }
        let Some(vocabulary) = &self.vocabulary else {
            return Ok(family);
        };
        vocabulary.save(out)?;
        if vocabulary.tokenizer_json().is_some() {
            let class = json!({
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": self.architecture.length,
            });
            write_json(&out.join("tokenizer_config.json"), &class)?;
        }
        Ok(family)
    }
}

fn arrays<D: Device>(
    device: &D,
    specs: &[Spec],
    tensors: &Tensors<D>,
) -> Result<BTreeMap<String, Array>> {
    let values = checkpoint::download(device, tensors)?.into_iter();
    let array = |(spec, values): (&Spec, _)| {
        let array = Array::new([spec.rows, spec.columns], values);
        (spec.name.clone(), array)
    };
    Ok(specs.iter().zip(values).map(array).collect())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("keys are text") + "\n";
    std::fs::write(path, text).map_err(|e| Error::file(path, "write", &e))
}

fn write_arrays<'a>(path: &Path, arrays: &'a BTreeMap<String, Array>) -> Result<()> {
    let named = |(name, array): (&'a String, &'a Array)| {
        ((name.as_str(), array.shape().to_vec()), array.values())
    };
    // transformers asks which framework wrote the file.
    let words = HashMap::from([("format".to_string(), "pt".to_string())]);
    checkpoint::write_named(path, arrays.iter().map(named), Some(words))
}

#[cfg(test)]
mod tests;
