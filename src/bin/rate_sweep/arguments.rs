//! What a user can type.

use clap::{Args, Parser, Subcommand};
use smoe_lab::backend::cuda::{DeviceChoice, Precision};
use std::path::PathBuf;

/// Measure how fast competition-gated mixtures of experts are learnt.
///
/// Without a command: runs the headline study into results/, prints its table
/// and says where its page is.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Of the headline study, where there is no command
    #[command(flatten)]
    pub on: OnDevice,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List a study's cells, replicates and expected time; run nothing
    Plan {
        /// Study file, or a folder of them
        study: PathBuf,
    },
    /// Run what is missing of a study, or of all in a folder and its folder `inverse`, then report
    Run(Run),
    /// Compute one replicate again and show every start
    Replay {
        /// Study file
        study: PathBuf,
        /// CELL/REPLICATE, such as gate=softplus,n=1000/17
        name: String,
        /// Folder whose STUDY/rows.csv is compared
        #[arg(long, default_value = "results")]
        out: PathBuf,
    },
    /// Rebuild table, plots and page from recorded rows
    Report {
        /// Study file, or a folder of them
        study: PathBuf,
        /// Folder that holds STUDY/rows.csv
        #[arg(long, default_value = "results")]
        out: PathBuf,
        /// Also print the sample size at which E h reaches this value
        #[arg(long)]
        accuracy: Option<f64>,
    },
    /// Judge the recorded rows in STUDIES/records; exit 1 if a claim fails or a report is stale
    Check {
        /// Folder of study files, or one of them
        studies: PathBuf,
    },
    /// Write the folder's README.md and index.html: claims, findings and plots of all records
    Index {
        /// Folder of study files
        studies: PathBuf,
    },
    /// Minimise the distance of over-specified mixtures from a truth at fixed spreads; print exponents
    Inverse {
        /// Inverse-bound study file
        study: PathBuf,
        /// Threads; all cores unless given
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        jobs: Option<u16>,
        /// Three spreads of each case from one start, into STUDY-smoke, to see that a study works
        #[arg(long)]
        smoke: bool,
        /// Folder that gets STUDY/minima.csv, table, plots and page
        #[arg(long, default_value = "results")]
        out: PathBuf,
    },
    /// Distances between two models, averaged over the first one's input
    Distance {
        /// Model file (the truth)
        first: PathBuf,
        /// Model file (the fit)
        second: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Log-densities of a model at the points of a CSV file (columns x1, ..., xd, y)
    Density {
        /// Model file
        model: PathBuf,
        /// CSV file
        points: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Draw a sample from a model as CSV
    Sample {
        /// Model file
        model: PathBuf,
        /// Number of rows
        #[arg(short = 'n', long)]
        rows: usize,
        /// Seed of the random stream
        #[arg(long)]
        seed: u64,
    },
}

#[derive(Args, Debug)]
pub struct Run {
    /// Study file, or a folder of them
    pub study: PathBuf,
    /// Threads; all cores unless given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Run only cells whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Run two replicates of each cell, and a small version of each inverse-bound study, to see that
    /// they work
    #[arg(long)]
    pub smoke: bool,
    /// Run part I of M of the replicates into a row file of its own, or `none`: all of them.
    /// Unless given, a Slurm array or an indexed Kubernetes job decides
    #[arg(long, value_name = "I/M")]
    pub shard: Option<String>,
    #[command(flatten)]
    pub on: OnDevice,
    /// Folder that gets STUDY/rows.csv, plots and page
    #[arg(long, default_value = "results")]
    pub out: PathBuf,
}

/// Where fits run.
#[derive(Args, Clone, Copy, Debug)]
pub struct OnDevice {
    /// What fits: `cpu` (rows have the same bits everywhere), `cuda`, `cuda:1`, or `auto`: a GPU if
    /// there is one. Rows of a GPU agree with the processor's to the certificate of their fits
    #[arg(long, value_name = "auto|cpu|cuda[:I]", default_value = "cpu")]
    pub device: DeviceChoice,
    /// Numbers of a GPU's climbs: `double`, or `mixed`: f32 on the way, f64 for the certificate
    #[arg(long, value_name = "double|mixed", default_value = "double")]
    pub precision: Precision,
}
