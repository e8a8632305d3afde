//! What a user can type.

use clap::{Args, Parser, Subcommand};
use smoe_lab::train::data::{Choice, Splits};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Train transformers with sparse mixtures of experts: competition routing and its rivals.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Threads; all cores if absent. Results do not depend on it
    #[arg(long, global = true)]
    pub threads: Option<NonZeroUsize>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train from a run file, or go on with a run that was stopped
    Run(Run),
    /// Turn a text into tokens that runs read
    Data(Data),
    /// Measure a trained model: nats, bits per byte, perplexity
    #[command(name = "eval")]
    Evaluate(Evaluate),
    /// Write a trained model for other programs
    Export(Export),
    /// Let a trained model go on with a text
    Generate(Generate),
    /// Write a run's figures and page again
    Page {
        /// The run's folder
        run: PathBuf,
    },
    /// One page of several runs: curves at equal steps, operations and time
    Compare {
        /// Runs' folders
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// Folder for the page
        #[arg(long, default_value = "results/train/comparison")]
        out: PathBuf,
    },
}

#[derive(Args, Debug)]
pub struct Run {
    /// Run file
    pub file: PathBuf,
    /// Override a value, such as optimiser.rate=0.002; may be repeated
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Folder for the run's folder
    #[arg(long, default_value = "results/train")]
    pub out: PathBuf,
    /// Print sizes, operations, memory and the cost of competition; train nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Train a few steps and print where their time goes; write nothing
    #[arg(long)]
    pub profile: bool,
}

#[derive(Args, Debug)]
pub struct Data {
    /// A text file, a folder with train, valid and test files, or tinyshakespeare
    pub source: PathBuf,
    /// bytes, characters, bpe:SIZE, or a tokenizer.json
    #[arg(long)]
    pub vocabulary: Choice,
    /// Folder to write; must not hold anything
    #[arg(long)]
    pub out: PathBuf,
    /// Share of the text for validation
    #[arg(long, conflicts_with = "splits")]
    pub validation: Option<f64>,
    /// Share of the text for test
    #[arg(long, conflicts_with = "splits")]
    pub test: Option<f64>,
    /// enwik8 or text8: 90, 5 and 5 million bytes
    #[arg(long)]
    pub splits: Option<Splits>,
}

#[derive(Args, Debug)]
pub struct Evaluate {
    /// The run's folder
    pub run: PathBuf,
    /// Experts per token, may be repeated; the run's own if absent
    #[arg(long)]
    pub top_k: Vec<usize>,
    /// Which weights
    #[command(flatten)]
    pub weights: Weights,
    /// Which text
    #[arg(long, value_enum, default_value = "validation")]
    pub split: Split,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct Export {
    /// The run's folder
    pub run: PathBuf,
    /// Folder to write
    #[arg(long)]
    pub out: PathBuf,
    /// Whose model it becomes; the first that can stand for it if absent
    #[arg(long = "as", value_enum)]
    pub family: Option<Family>,
    /// Which weights
    #[command(flatten)]
    pub weights: Weights,
}

/// Whose model an exported one becomes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Family {
    /// Our own names, read by tests/reference/model.py
    Plain,
    /// Hugging Face transformers: Mixtral
    Mixtral,
    /// Hugging Face transformers: Qwen2-MoE
    #[value(name = "qwen2-moe")]
    Qwen2Moe,
    /// Hugging Face transformers: GLM-4-MoE
    #[value(name = "glm4-moe")]
    Glm4Moe,
}

#[derive(Args, Debug)]
pub struct Generate {
    /// The run's folder
    pub run: PathBuf,
    /// The text's beginning
    #[arg(long, default_value = "\n")]
    pub prompt: String,
    /// Tokens to write
    #[arg(long, default_value_t = 200)]
    pub tokens: usize,
    /// Divides logits; 0 for the likeliest token always
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw from this many likeliest tokens
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens of this share of probability
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Equal seeds write equal texts
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Which weights
    #[command(flatten)]
    pub weights: Weights,
}

#[derive(Args, Debug)]
pub struct Weights {
    /// Step of a kept checkpoint; the best weights if absent
    #[arg(long)]
    pub step: Option<u64>,
}

/// A split of a text.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Split {
    Train,
    Validation,
    Test,
}
