//! A run's folder, read.

use crate::error::{Error, Result, parse_toml, read_text, replace};
use crate::train::config::router::Kind;
use crate::train::config::{FeedForward, Layout, Run, read as read_run};
use crate::train::log::{Evaluation, Row, Statistics, Step, Text, read as read_log};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a run's files do not say: the size of its model, and where it ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// All parameters.
    pub parameters_total: u64,
    /// Parameters that one token uses.
    pub parameters_active: u64,
    /// FLOPs of training on one token, forward and backward, the mean over the schedule
    /// of competition.
    pub training_flops_per_token: f64,
    /// Most memory that was used, in bytes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The hardware, in words.
    pub device: String,
    /// Version of this program.
    pub version: String,
    /// Its commit, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

const SUMMARY: &str = "summary.toml";

impl Summary {
    /// Writes `summary.toml` into a run's folder.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(SUMMARY);
        let text = toml::to_string(self).map_err(|e| Error::input(&path, "", e.to_string()))?;
        replace(&path, text.as_bytes())
    }

    /// Reads `summary.toml` of a run's folder.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`].
    pub fn load(folder: &Path) -> Result<Summary> {
        let path = folder.join(SUMMARY);
        parse_toml(&path, &read_text(&path)?)
    }
}

/// A run's configuration, log and summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its configuration.
    pub run: Run,
    /// The text of its configuration.
    pub text: String,
    /// Optimiser steps that were logged.
    pub steps: Vec<Step>,
    /// Validation losses, the method's own K: the first evaluation of each step.
    pub evaluations: Vec<Evaluation>,
    /// Evaluations of the last evaluated step, by K.
    pub by_top_k: Vec<Evaluation>,
    /// Routing statistics.
    pub statistics: Vec<Statistics>,
    /// Sampled texts.
    pub texts: Vec<Text>,
    /// Size of the model, and where it ran.
    pub summary: Summary,
}

impl Record {
    /// Reads `run.toml`, `log.jsonl` and `summary.toml` of a folder.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Input`] of the file at fault.
    pub fn load(folder: &Path) -> Result<Record> {
        let path = folder.join("run.toml");
        Ok(Record::new(
            read_run(&path, &[])?,
            read_text(&path)?,
            read_log(&folder.join("log.jsonl"))?,
            Summary::load(folder)?,
        ))
    }

    fn new(run: Run, text: String, rows: Vec<Row>, summary: Summary) -> Record {
        let mut record = Record {
            run,
            text,
            steps: Vec::new(),
            evaluations: Vec::new(),
            by_top_k: Vec::new(),
            statistics: Vec::new(),
            texts: Vec::new(),
            summary,
        };
        for row in rows {
            match row {
                Row::Step(row) => record.steps.push(row),
                Row::Statistics(row) => record.statistics.push(row),
                Row::Text(row) => record.texts.push(row),
                Row::Evaluation(row) => {
                    if record
                        .by_top_k
                        .last()
                        .is_some_and(|last| last.step != row.step)
                    {
                        record.by_top_k.clear();
                    }
                    if record.by_top_k.is_empty() {
                        record.evaluations.push(row.clone());
                    }
                    // Measured again with the same K: the later one counts.
                    record.by_top_k.retain(|known| known.top_k != row.top_k);
                    record.by_top_k.push(row);
                }
            }
        }
        record.by_top_k.sort_by_key(|row| row.top_k);
        record
    }

    /// Steps done.
    pub fn last_step(&self) -> u64 {
        let of_steps = self.steps.last().map_or(0, |row| row.step);
        of_steps.max(self.evaluations.last().map_or(0, |row| row.step))
    }

    /// The method's name as in the configuration; `dense` without experts.
    pub fn method(&self) -> String {
        match self.run.model.layout {
            Layout::Dense => "dense".to_string(),
            _ => kind_name(self.run.router.kind),
        }
    }

    /// Numbers of the sparse layers, in order.
    pub fn sparse_layers(&self) -> Vec<usize> {
        let model = &self.run.model;
        let is_sparse =
            |&layer: &usize| model.feed_forward(layer, &self.run.experts, 1) == FeedForward::Sparse;
        (0..model.layers).filter(is_sparse).collect()
    }
}

/// The kind as a configuration spells it.
fn kind_name(kind: Kind) -> String {
    match toml::Value::try_from(kind) {
        Ok(toml::Value::String(name)) => name,
        _ => format!("{kind:?}"),
    }
}
