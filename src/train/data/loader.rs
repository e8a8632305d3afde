//! Windows of training steps.
//!
//! A window of `length` reads length + 1 tokens: ids x_0 .. x_{L-1}, targets x_1 .. x_L.
//! Where it starts is a function of (seed, step, sequence) alone: a run continues from
//! its step, and sequences may be read in any micro-batches, on any number of machines.
//!
//! Shuffled and streams cut the tokens into a grid of windows; an epoch reads each once.
//! The grid of every epoch but the first starts at a random token below `length`, so
//! that no token is always the first of its window. What the grid cannot fill at the
//! ends (fewer than 2 `length` tokens) is left out in that epoch.

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::train::config::data::Order;
use crate::train::config::{Batch, Run};
use crate::train::data::permutation::Permutation;
use crate::train::data::tokens::Tokens;
use crate::train::data::{Corpus, Split};
use std::ops::Range;

/// Windows of training steps.
#[derive(Clone, Debug)]
pub struct Loader {
    order: Order,
    seed: u64,
    length: usize,
    sequences: usize,
    tokens: Tokens,
    /// Of all tokens, or of one stream's.
    grid: Grid,
}

/// Windows side by side in a stretch of tokens.
#[derive(Clone, Copy, Debug)]
struct Grid {
    windows: u64,
    /// Starts that leave room for all windows.
    starts: u64,
}

impl Grid {
    /// A grid for `targets` predicted tokens, at least `length`.
    fn new(targets: usize, length: usize) -> Grid {
        let windows = ((targets + 1).saturating_sub(length) / length).max(1);
        Grid {
            windows: windows as u64,
            starts: (targets + 1 - windows * length).min(length) as u64,
        }
    }
}

impl Loader {
    /// Windows of `length` for steps of `sequences` sequences.
    ///
    /// # Errors
    /// [`Error::Value`] for zeros and for a split too short for one window (of each
    /// stream).
    pub fn new(
        order: Order,
        seed: u64,
        length: usize,
        sequences: usize,
        tokens: Tokens,
    ) -> Result<Loader> {
        for (key, value) in [("batch.length", length), ("batch.sequences", sequences)] {
            if value == 0 {
                return Err(Error::value(key, "must be at least 1"));
            }
        }
        let streams = match order {
            Order::Streams => sequences,
            Order::Random | Order::Shuffled => 1,
        };
        let (split, got) = (tokens.split(), tokens.len());
        let targets = got.saturating_sub(1) / streams;
        if targets < length {
            let needed = length.saturating_mul(streams).saturating_add(1);
            let windows = match streams {
                1 => String::new(),
                _ => format!(" in {streams} streams"),
            };
            let message = format!(
                "is too long: the {split} split has {got} tokens, \
                 windows of {length}{windows} need {needed}"
            );
            return Err(Error::value("batch.length", message));
        }
        Ok(Loader {
            order,
            seed,
            length,
            sequences,
            tokens,
            grid: Grid::new(targets, length),
        })
    }

    /// The training windows of a run.
    ///
    /// # Errors
    /// As [`Loader::new`]; that the text has no training split.
    pub fn of(run: &Run, corpus: &Corpus) -> Result<Loader> {
        let Batch {
            sequences,
            length,
            micro_batches,
        } = run.batch;
        let tokens = corpus.split(Split::Train)?;
        let order = run.data.order;
        Loader::new(order, run.seed, length, sequences * micro_batches, tokens)
    }

    /// Tokens of a window.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Sequences of a step.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Steps that read as many tokens as an epoch has, rounded up.
    pub fn steps_per_epoch(&self) -> u64 {
        match self.order {
            Order::Random => self.tokens.len().div_ceil(self.length * self.sequences) as u64,
            Order::Shuffled => self.grid.windows.div_ceil(self.sequences as u64),
            Order::Streams => self.grid.windows,
        }
    }

    /// The first token of a step's window, the step counted from 0 and `sequence` below
    /// [`Loader::sequences`].
    pub fn window(&self, step: u64, sequence: usize) -> usize {
        let windows = self.grid.windows;
        match self.order {
            Order::Random => {
                let stream = Stream::named(self.seed, "windows", 0, Purpose::Windows);
                let starts = (self.tokens.len() - self.length) as f64;
                let [uniform, _] = stream.uniform_pair(step, sequence as u64);
                (uniform * starts) as usize
            }
            Order::Shuffled => {
                let sequences = self.sequences as u64;
                let nth = step.wrapping_mul(sequences) + sequence as u64;
                let (epoch, place) = (nth / windows, nth % windows);
                let stream = Stream::named(self.seed, "shuffle", epoch, Purpose::Windows);
                let window = Permutation::new(stream, windows).at(place);
                self.start(epoch) + window as usize * self.length
            }
            Order::Streams => {
                let (epoch, place) = (step / windows, step % windows);
                let stream = sequence * ((self.tokens.len() - 1) / self.sequences);
                stream + self.start(epoch) + place as usize * self.length
            }
        }
    }

    /// Where an epoch's grid starts.
    fn start(&self, epoch: u64) -> usize {
        if epoch == 0 {
            return 0;
        }
        let stream = Stream::named(self.seed, "grid", 0, Purpose::Windows);
        let [uniform, _] = stream.uniform_pair(epoch, 0);
        (uniform * self.grid.starts as f64) as usize
    }

    /// Replaces `ids` and `targets` by those of some of a step's sequences.
    ///
    /// # Shapes
    /// Both: sequences, length.
    ///
    /// # Errors
    /// [`Error::Dimension`] for sequences that a step has not; those of [`Tokens::read`].
    pub fn read(
        &self,
        step: u64,
        sequences: Range<usize>,
        ids: &mut Vec<u32>,
        targets: &mut Vec<u32>,
    ) -> Result<()> {
        if sequences.end > self.sequences {
            return Err(Error::Dimension {
                what: "sequences of a step",
                expected: self.sequences,
                got: sequences.end,
            });
        }
        ids.clear();
        targets.clear();
        for sequence in sequences {
            let start = self.window(step, sequence);
            let end = start + self.length;
            self.tokens.read(start..end, ids)?;
            // Targets are the ids one on: only the last is new.
            targets.extend_from_slice(&ids[ids.len() - self.length + 1..]);
            self.tokens.read(end..end + 1, targets)?;
        }
        Ok(())
    }
}
