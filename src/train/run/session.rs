//! A run from its first or its next step to its last.
//!
//! ```text
//! NAME/run.toml       the run as it was read, defaults filled in
//! NAME/log.jsonl      one row per logged step, evaluation, statistics, text
//! NAME/events.*       the same for TensorBoard
//! NAME/checkpoints/   the latest, whole
//! NAME/best/          the weights of the smallest validation loss
//! NAME/index.html     the page, with its figures
//! ```
//!
//! A run that is started again goes on from its latest checkpoint; rows behind it are
//! cut off and written again, the same but for the clock.

use crate::error::{Error, Result, replace};
use crate::train::config::Run;
use crate::train::cost::Cost;
use crate::train::data::{Corpus, EvaluationWindows, Loader, Split};
use crate::train::device::Device;
use crate::train::generate::{Sampling, generate};
use crate::train::log::{self, Auxiliary, Events, Log, Row};
use crate::train::page::{self, Summary};
use crate::train::run::checkpoint::{self, State};
use crate::train::run::evaluate::{Choice, Measured, evaluate, observe};
use crate::train::run::trainer::{Step, Trainer};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Who looks on.
pub trait Watch {
    /// A step was done.
    fn step(&mut self, row: &log::Step);
    /// A loss was measured.
    fn evaluation(&mut self, row: &log::Evaluation);
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// It was asked to stop after this many steps and can go on.
    Stopped(u64),
    /// The gradient of this step (counted from 1) was not finite.
    Diverged(u64),
}

/// Files of a run.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// In this folder.
    pub fn new(folder: &Path) -> Self {
        Files {
            folder: folder.to_path_buf(),
        }
    }

    /// The run as it was read.
    pub fn run(&self) -> PathBuf {
        self.folder.join("run.toml")
    }

    /// The log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    /// All checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    /// The weights of the smallest validation loss.
    pub fn best(&self) -> PathBuf {
        self.folder.join("best")
    }
}

/// A run at work.
pub struct Session<'a, D: Device> {
    trainer: Trainer<D>,
    corpus: &'a Corpus,
    loader: Loader,
    validation: EvaluationWindows,
    probe: (Vec<u32>, Vec<u32>),
    previous: Option<Vec<Choice<D>>>,
    cost: Cost,
    files: Files,
    log: Log,
    events: Events,
    seconds: f64,
    flops: f64,
    best: Option<f64>,
    last_logged: (u64, f64),
}

impl<'a, D: Device> Session<'a, D> {
    /// Begins a run in its folder, or goes on with it.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Input`] if the folder holds another run; those of the
    /// run's values.
    pub fn open(run: &Run, device: D, corpus: &'a Corpus, folder: &Path) -> Result<Self> {
        let files = Files::new(folder);
        let vocabulary = corpus.vocabulary().size();
        let mut trainer = Trainer::new(run.clone(), device, vocabulary)?;
        let batch = run.batch;
        let loader = Loader::of(run, corpus)?;
        let tokens = corpus.split(Split::Validation)?;
        let validation =
            EvaluationWindows::new(tokens.clone(), batch.length, run.evaluation.windows)?;
        let probe = probe(&EvaluationWindows::new(tokens, batch.length, None)?, run)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
        let latest = checkpoint::list(&files.checkpoints())?.pop();
        let (state, log) = match latest {
            Some((_, path)) => {
                let state = checkpoint::load(&path, &mut trainer, corpus.digest())?;
                let log = Log::resume(&files.log(), state.step)?;
                (Some((state, path)), log)
            }
            None => {
                refuse_other(&files, run)?;
                (None, Log::create(&files.log())?)
            }
        };
        let text = toml::to_string(run).map_err(|e| Error::value("run", e.to_string()))?;
        replace(&files.run(), text.as_bytes())?;
        let events = Events::create(folder, &log::read(&files.log())?, started())?;
        let cost = Cost::of(run, trainer.transformer.architecture());
        let mut session = Session {
            trainer,
            corpus,
            loader,
            validation,
            probe,
            previous: None,
            cost,
            files,
            log,
            events,
            seconds: 0.0,
            flops: 0.0,
            best: None,
            last_logged: (0, 0.0),
        };
        if let Some((state, path)) = state {
            session.flops = (0..state.step).map(|s| session.flops_of(s)).sum();
            session.seconds = state.seconds;
            session.best = state.best;
            session.last_logged = (state.step, state.seconds);
            session.previous = checkpoint::load_choices(&path)?;
        }
        Ok(session)
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.trainer.steps_done()
    }

    /// What the model costs.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }

    fn flops_of(&self, step: u64) -> f64 {
        let (trainer, run) = (&self.trainer, self.trainer.run());
        let method = &trainer.transformer.architecture().method;
        let competing = trainer.schedule().map_or(0, |s| s.competing(step));
        let active = method.active.at(step, run.steps);
        self.cost.step(run.batch.step_tokens(), active, competing)
    }

    /// Trains to the last step, or until `stop` is set.
    ///
    /// # Errors
    /// [`Error::File`]; what the device refuses.
    pub fn run(&mut self, stop: &AtomicBool, watch: &mut dyn Watch) -> Result<Ending> {
        let run = self.trainer.run().clone();
        if self.steps_done() == 0 {
            self.measure(watch)?;
            self.statistics()?;
        }
        while self.steps_done() < run.steps {
            let start = Instant::now();
            let at = self.trainer.steps_done();
            self.flops += self.flops_of(at);
            let step = self.trainer.step_on(&self.loader)?;
            self.seconds += start.elapsed().as_secs_f64();
            let done = at + 1;
            let last = done == run.steps;
            let diverged = !step.gradient_norm.is_finite();
            if done.is_multiple_of(run.log.every) || last || done == 1 || diverged {
                let row = self.row(&step);
                watch.step(&row);
                self.write(Row::Step(row))?;
            }
            if diverged {
                return Ok(Ending::Diverged(done));
            }
            if done.is_multiple_of(run.evaluation.every) || last {
                self.measure(watch)?;
            }
            if done.is_multiple_of(run.log.statistics) || last {
                self.statistics()?;
            }
            if let Some(every) = run.log.sample
                && (done.is_multiple_of(every) || last)
            {
                self.text()?;
            }
            let stopped = stop.load(Ordering::Relaxed);
            if done.is_multiple_of(run.checkpoints.every) || last || stopped {
                self.save(&run)?;
            }
            if stopped && !last {
                return Ok(Ending::Stopped(done));
            }
        }
        Ok(Ending::Finished)
    }

    fn write(&mut self, row: Row) -> Result<()> {
        self.events.append(&row)?;
        self.log.append(&row)
    }

    fn tokens(&self) -> u64 {
        self.steps_done() * self.trainer.run().batch.step_tokens() as u64
    }

    fn row(&mut self, step: &Step) -> log::Step {
        let done = step.step + 1;
        let (before, seconds) = self.last_logged;
        let tokens = (done - before) * self.trainer.run().batch.step_tokens() as u64;
        self.last_logged = (done, self.seconds);
        let method = &self.trainer.transformer.architecture().method;
        let competing = method.competing.as_ref();
        let auxiliary = |coefficient: Option<f64>, weighted: f64| {
            let coefficient = coefficient.filter(|&c| c > 0.0)?;
            let value = weighted / coefficient;
            Some(Auxiliary { value, coefficient })
        };
        let losses = &step.losses;
        log::Step {
            step: done,
            tokens: self.tokens(),
            seconds: self.seconds,
            loss: losses.nats,
            balance: auxiliary(method.balance.map(|b| b.coefficient), losses.balance),
            z: auxiliary(Some(method.z_loss), losses.z),
            distillation: auxiliary(competing.map(|c| c.coefficient), losses.distillation),
            diversity: auxiliary(
                competing.and_then(|c| c.diversity).map(|d| d.1),
                losses.diversity,
            ),
            competition_balance: auxiliary(
                competing.and_then(|c| c.balance).map(|b| b.coefficient),
                losses.competition_balance,
            ),
            gradient_norm: step.gradient_norm,
            rate: step.rate,
            tokens_per_second: tokens as f64 / (self.seconds - seconds).max(1e-9),
            competing: step.competing,
            load: step.load.clone(),
        }
    }

    /// The validation loss with K experts.
    fn loss(&mut self, active: usize) -> Result<Measured> {
        let Trainer {
            device,
            transformer,
            tape,
            ..
        } = &mut self.trainer;
        let vocabulary = self.corpus.vocabulary();
        evaluate(
            device,
            transformer,
            tape,
            &self.validation,
            vocabulary,
            active,
        )
    }

    fn measure(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let run = self.trainer.run();
        let last = self.steps_done() == run.steps;
        let architecture = self.trainer.transformer.architecture();
        let own = architecture.method.rule.k;
        let experts = architecture.experts.count;
        let sparse = architecture.model.sparse_layers() > 0;
        let mut ks = vec![own];
        if last && sparse {
            let powers = (0..).map(|p| 1 << p).take_while(|&k| k < experts);
            ks.extend(powers.chain([experts]).filter(|&k| k != own));
        }
        for k in ks {
            let measured = self.loss(k)?;
            let row = log::Evaluation {
                step: self.steps_done(),
                tokens: self.tokens(),
                seconds: self.seconds,
                flops: self.flops,
                loss: measured.loss(),
                bits_per_byte: measured.bits_per_byte(),
                perplexity: measured.perplexity(),
                top_k: k,
            };
            let better = self.best.is_none_or(|best| row.loss < best);
            if k == own {
                watch.evaluation(&row);
            }
            if k == own && better && row.loss.is_finite() {
                self.best = Some(row.loss);
                let state = self.state();
                checkpoint::save_weights(&self.files.best(), &self.trainer, &state)?;
            }
            self.write(Row::Evaluation(row))?;
        }
        Ok(())
    }

    fn statistics(&mut self) -> Result<()> {
        if self.trainer.run().model.sparse_layers() == 0 {
            return Ok(());
        }
        let active = self.trainer.transformer.architecture().method.rule.k;
        let Trainer {
            device,
            transformer,
            tape,
            ..
        } = &mut self.trainer;
        let (ids, targets) = &self.probe;
        let previous = self.previous.as_deref();
        let seen = observe(device, transformer, tape, (ids, targets), active, previous)?;
        self.previous = Some(seen.1);
        self.write(Row::Statistics(log::Statistics {
            step: self.steps_done(),
            layers: seen.0,
        }))
    }

    /// A text that the model writes behind the first token of the validation split.
    fn text(&mut self) -> Result<()> {
        let (device, transformer) = (&self.trainer.device, &self.trainer.transformer);
        let sampling = Sampling {
            temperature: 0.8,
            top_k: None,
            top_p: None,
            seed: self.trainer.run().seed,
        };
        let prompt = &self.probe.0[..1];
        let written = generate(device, transformer, prompt, SAMPLED, sampling)?;
        let tokens: Vec<u32> = prompt.iter().copied().chain(written).collect();
        let row = log::Text {
            step: self.steps_done(),
            text: self.corpus.vocabulary().text(&tokens)?,
        };
        self.write(Row::Text(row))
    }

    fn state(&self) -> State {
        State::of(&self.trainer, self.corpus.digest(), self.seconds, self.best)
    }

    fn save(&mut self, run: &Run) -> Result<()> {
        // Rows of a checkpoint are on disk before it.
        self.log.sync()?;
        let (folder, state) = (self.files.checkpoints(), self.state());
        let choices = self.previous.as_deref().unwrap_or_default();
        checkpoint::save(
            &folder,
            &self.trainer,
            &state,
            choices,
            run.checkpoints.keep,
        )
    }

    /// Writes figures and page from what the log holds. `memory_bytes`: the most that
    /// was used, where known.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn page(&self, device: String, memory_bytes: Option<u64>) -> Result<()> {
        let run = self.trainer.run();
        let method = &self.trainer.transformer.architecture().method;
        let rate = method.competition_rate(run.steps);
        let summary = Summary {
            parameters_total: self.cost.parameters as u64,
            parameters_active: self.cost.active_parameters as u64,
            training_flops_per_token: self.cost.training(rate),
            memory_bytes,
            device,
            version: env!("CARGO_PKG_VERSION").to_string(),
            commit: None,
        };
        page::write(&self.files.folder, &summary)
    }
}

/// Tokens of a sampled text.
const SAMPLED: usize = 300;

/// Seconds since 1970.
fn started() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |d| d.as_secs_f64())
}

/// One batch of validation text, evenly spread, on which routers are observed.
fn probe(windows: &EvaluationWindows, run: &Run) -> Result<(Vec<u32>, Vec<u32>)> {
    let sequences = run.batch.sequences;
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    let (mut i, mut t) = (Vec::new(), Vec::new());
    for s in 0..sequences {
        // Whole windows only, so that every token has a target.
        let window = s * windows.len().saturating_sub(1) / sequences;
        windows.read(window..window + 1, &mut i, &mut t)?;
        ids.append(&mut i);
        targets.append(&mut t);
    }
    Ok((ids, targets))
}

/// A folder without checkpoints may still hold the log of another run.
fn refuse_other(files: &Files, run: &Run) -> Result<()> {
    let path = files.run();
    if !path.exists() {
        return Ok(());
    }
    let same = crate::train::config::read(&path, &[])
        .is_ok_and(|other| checkpoint::digest_of_run(&other) == checkpoint::digest_of_run(run));
    match same {
        true => Ok(()),
        false => Err(Error::input(
            &path,
            "",
            "is a run with other settings: use another name, or remove its folder",
        )),
    }
}
