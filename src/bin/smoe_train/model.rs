//! Commands on trained models.

use crate::arguments::{Evaluate, Split as SplitName, Weights};
use crate::output::print;
use smoe_lab::error::{Error, Result};
use smoe_lab::train::config::{self, Run};
use smoe_lab::train::data::{Corpus, EvaluationWindows, Split};
use smoe_lab::train::device::Cpu;
use smoe_lab::train::model::{Architecture, Transformer};
use smoe_lab::train::page::{self, Summary};
use smoe_lab::train::run::checkpoint;
use smoe_lab::train::run::evaluate::{self, Measured};
use smoe_lab::train::run::session::Files;
use std::path::{Path, PathBuf};

/// A trained model.
pub struct Trained {
    pub run: Run,
    pub corpus: Corpus,
    pub transformer: Transformer<Cpu<f32>>,
    pub device: Cpu<f32>,
}

impl Trained {
    /// From a run's folder.
    pub fn load(folder: &Path, weights: &Weights) -> Result<Self> {
        let files = Files::new(folder);
        let run = config::read(&files.run(), &[])?;
        let corpus = Corpus::open(&run.data.source)?;
        let place = match weights.step {
            None => files.best(),
            Some(step) => {
                let kept = checkpoint::list(&files.checkpoints())?;
                let found = kept.iter().find(|(at, _)| *at == step);
                let found = found.map(|(_, path)| path.clone());
                found.ok_or_else(|| {
                    let steps: Vec<String> = kept.iter().map(|(at, _)| at.to_string()).collect();
                    let message = format!("is not kept; kept are {}", steps.join(", "));
                    Error::value(format!("--step {step}"), message)
                })?
            }
        };
        let state = checkpoint::read_state(&place)?;
        if state.data != corpus.digest() {
            let message = "the weights belong to another text";
            return Err(Error::input(&place.join("state.json"), "data", message));
        }
        let device = Cpu::new();
        let architecture = Architecture::new(&run, corpus.vocabulary().size())?;
        let path = place.join("weights.safetensors");
        let parameters = checkpoint::read_tensors(&path, &device, &architecture.specs())?;
        Ok(Trained {
            run,
            corpus,
            transformer: Transformer::with(architecture, parameters)?,
            device,
        })
    }

    fn measure(&self, split: Split, active: usize) -> Result<Measured> {
        let batch = self.run.batch;
        let tokens = self.corpus.split(split)?;
        let windows = EvaluationWindows::new(tokens, batch.length, None)?;
        let mut tape = self
            .transformer
            .tape(&self.device, batch.sequences, batch.length)?;
        evaluate::evaluate(
            &self.device,
            &self.transformer,
            &mut tape,
            &windows,
            self.corpus.vocabulary(),
            active,
        )
    }
}

/// `smoe_train eval`.
pub fn evaluate(arguments: &Evaluate) -> Result<bool> {
    let trained = Trained::load(&arguments.run, &arguments.weights)?;
    let architecture = trained.transformer.architecture();
    let (own, experts) = (architecture.method.rule.k, architecture.experts.count);
    let split = match arguments.split {
        SplitName::Train => Split::Train,
        SplitName::Validation => Split::Validation,
        SplitName::Test => Split::Test,
    };
    let ks = match arguments.top_k.is_empty() {
        true => vec![own],
        false => arguments.top_k.clone(),
    };
    for k in ks {
        if k == 0 || k > experts {
            let message = format!("must be 1 to {experts}, the number of experts");
            return Err(Error::value(format!("--top-k {k}"), message));
        }
        let measured = trained.measure(split, k)?;
        let (loss, bits) = (measured.loss(), measured.bits_per_byte());
        let perplexity = measured.perplexity();
        let tokens = measured.tokens;
        print(&match arguments.json {
            true => format!(
                "{{\"split\":\"{split}\",\"top_k\":{k},\"tokens\":{tokens},\"loss\":{loss},\"bits_per_byte\":{bits},\"perplexity\":{perplexity}}}\n"
            ),
            false => format!(
                "{split}, {k} experts per token: {loss:.4} nats per token, {bits:.4} bits per byte, perplexity {perplexity:.3} ({tokens} tokens)\n"
            ),
        });
    }
    Ok(true)
}

/// `smoe_train page`.
pub fn page(folder: &Path) -> Result<bool> {
    page::write(folder, &Summary::load(folder)?)?;
    print(&format!("{}\n", folder.join("index.html").display()));
    Ok(true)
}

/// `smoe_train compare`.
pub fn compare(runs: &[PathBuf], out: &Path) -> Result<bool> {
    page::compare(runs, out)?;
    print(&format!("{}\n", out.join("index.html").display()));
    Ok(true)
}
