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
