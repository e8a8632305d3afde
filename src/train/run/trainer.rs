//! One optimiser step, exact for any number of micro-batches.

use crate::error::Result;
use crate::train::config::Run;
use crate::train::config::router::Scope;
use crate::train::data::Loader;
use crate::train::device::{Device, Meter};
use crate::train::model::{
    Architecture, Batch, Counted, Loads, Losses, Phase, Role, Tape, Tensors, Training, Transformer,
};
use crate::train::ops::adamw::{AdamW, clip_scale};
use crate::train::router::schedule::Table;
use std::ops::Range;

/// Reads the tokens and targets of some sequences of a step.
pub type Read<'a> = dyn FnMut(Range<usize>, &mut Vec<u32>, &mut Vec<u32>) -> Result<()> + 'a;

/// A model, its gradients and its optimiser.
pub struct Trainer<D: Device> {
    run: Run,
    /// Where it computes.
    pub device: D,
    /// What is trained.
    pub transformer: Transformer<D>,
    gradients: Tensors<D>,
    /// AdamW's mean and mean square of gradients.
    pub moments: [Tensors<D>; 2],
    schedule: Option<Table>,
    loads: Loads<D>,
    meters: D::Meters,
    /// Activations of a micro-batch.
    pub tape: Tape<D>,
    step: u64,
}

/// What a pass over a micro-batch is for.
#[derive(Clone, Copy)]
enum Goal {
    /// Only the counts of its choices.
    Count,
    /// Its share of the step's gradient.
    Learn { counted: Counted, counts: Counts },
}

/// Which counts balance losses see.
#[derive(Clone, Copy, PartialEq)]
enum Counts {
    /// The micro-batch's own.
    Own,
    /// The whole step's, taken before.
    Step,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its number, from 0.
    pub step: u64,
    /// Nats per token of the task; auxiliary losses with their coefficients, summed
    /// over layers.
    pub losses: Losses,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub rate: f64,
    /// Layers that competed.
    pub competing: usize,
    /// Counts per expert of the choices followed, of every sparse layer.
    pub load: Vec<Vec<u64>>,
}

impl<D: Device> Trainer<D> {
    /// Before its first step.
    ///
    /// # Errors
    /// As [`Run::check`]; what the device refuses.
    pub fn new(run: Run, device: D, vocabulary: usize) -> Result<Self> {
        let architecture = Architecture::new(&run, vocabulary)?;
        let layers = run.model.sparse_layers();
        let competing = architecture.method.competing;
        let schedule = competing.map(|c| c.table(run.seed, layers, run.steps));
        let schedule = schedule.transpose()?;
        let transformer = Transformer::new(&device, architecture, run.seed)?;
        let zeros = || Tensors::zeros(&device, transformer.specs());
        let batch = run.batch;
        Ok(Trainer {
            gradients: zeros()?,
            moments: [zeros()?, zeros()?],
            loads: Loads::new(layers),
            meters: device.meters(Losses::METERS + 1)?,
            tape: transformer.tape(&device, batch.sequences, batch.length)?,
            step: 0,
            run,
            device,
            transformer,
            schedule,
        })
    }

    /// What it was made from.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// When layers compete, if they do.
    pub fn schedule(&self) -> Option<&Table> {
        self.schedule.as_ref()
    }

    /// Goes on after `steps` steps, with the parameters and moments that are there.
    pub fn go_on_after(&mut self, steps: u64) {
        self.step = steps;
    }

    /// K at the current step.
    pub fn active(&self) -> usize {
        let active = &self.transformer.architecture().method.active;
        active.at(self.step, self.run.steps)
    }

    /// One optimiser step on its windows of a text.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_on(&mut self, loader: &Loader) -> Result<Step> {
        let at = self.step;
        self.step(&mut |sequences, ids, targets| loader.read(at, sequences, ids, targets))
    }

    /// One optimiser step.
    ///
    /// # Errors
    /// Those of `read`; what the device refuses.
    pub fn step(&mut self, read: &mut Read) -> Result<Step> {
        let batch = self.run.batch;
        let layers = self.run.model.sparse_layers();
        self.loads = Loads::new(layers);
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        let mut load = |micro: usize| {
            let sequences = micro * batch.sequences..(micro + 1) * batch.sequences;
            ids.clear();
            targets.clear();
            read(sequences, &mut ids, &mut targets)?;
            Batch::new(&self.device, &ids, &targets, batch.length)
        };
        let micro_batches: Vec<Batch<D>> = (0..batch.micro_batches)
            .map(&mut load)
            .collect::<Result<_>>()?;
        let counted: Counted = micro_batches.iter().map(Batch::counted).sum();
        let counts_first = batch.micro_batches > 1 && self.needs_step_counts();
        if counts_first {
            for (micro, batch) in micro_batches.iter().enumerate() {
                self.pass(micro, batch, Goal::Count)?;
            }
        }
        let counts = match counts_first {
            true => Counts::Step,
            false => Counts::Own,
        };
        for (micro, batch) in micro_batches.iter().enumerate() {
            self.pass(micro, batch, Goal::Learn { counted, counts })?;
        }
        let (losses, gradient_norm) = self.measure(counted.tokens)?;
        let rate = self.run.optimiser.rate_at(self.step, self.run.steps);
        if gradient_norm.is_finite() {
            self.update(rate, gradient_norm)?;
        }
        let competing = self.schedule.as_ref().map(|s| s.competing(self.step));
        let done = Step {
            step: self.step,
            losses,
            gradient_norm,
            rate,
            competing: competing.unwrap_or(0),
            load: self.followed()?,
        };
        self.step += 1;
        Ok(done)
    }

    /// One micro-batch forth and, to learn, back.
    fn pass(&mut self, micro: usize, batch: &Batch<D>, goal: Goal) -> Result<()> {
        let phase = Phase::Training(Training {
            seed: self.run.seed,
            step: self.step,
            active: self.active(),
            schedule: self.schedule.as_ref(),
            first_token: (micro * self.run.batch.tokens()) as u64,
        });
        let (device, tape, loads) = (&self.device, &mut self.tape, &mut self.loads);
        self.transformer.forward(device, batch, &phase, tape)?;
        let (counted, counts) = match goal {
            Goal::Count => return self.transformer.count(device, batch, tape, loads),
            Goal::Learn { counted, counts } => (counted, counts),
        };
        if counts == Counts::Own {
            self.transformer.count(device, batch, tape, loads)?;
        }
        let (gradients, meters) = (&mut self.gradients, &mut self.meters);
        let loads = (counts == Counts::Step).then_some(&*loads);
        self.transformer.backward(
            device, batch, &phase, counted, loads, tape, gradients, meters,
        )
    }

    /// True if a loss averages over all micro-batches.
    fn needs_step_counts(&self) -> bool {
        let method = &self.transformer.architecture().method;
        let competing = method.competing.and_then(|c| c.balance);
        let rules = [method.balance, competing];
        rules.iter().flatten().any(|r| r.scope == Scope::Step)
    }

    /// Losses of the step and the norm of its gradient.
    fn measure(&mut self, counted: usize) -> Result<(Losses, f64)> {
        for (spec, gradient) in self.transformer.specs().iter().zip(self.gradients.all()) {
            if spec.role.is_trained() {
                let meter = Meter::new(&mut self.meters, Losses::METERS);
                self.device.square_norm(gradient, meter)?;
            }
        }
        let values = self.device.read(&mut self.meters)?;
        let mut losses = Losses::of(&values);
        losses.nats /= counted.max(1) as f64;
        Ok((losses, values[Losses::METERS].sqrt()))
    }

    /// AdamW, biases of choices, and gradients back to 0.
    fn update(&mut self, rate: f64, gradient_norm: f64) -> Result<()> {
        let optimiser = &self.run.optimiser;
        let scale = clip_scale(gradient_norm, optimiser.clip);
        let rule = |role| AdamW {
            rate,
            memory: optimiser.memory,
            epsilon: optimiser.epsilon,
            decay: match role {
                Role::Matrix => optimiser.weight_decay,
                _ => 0.0,
            },
        };
        let roles: Vec<Role> = self.transformer.specs().iter().map(|s| s.role).collect();
        let [means, squares] = &mut self.moments;
        let state = means.all_mut().iter_mut().zip(squares.all_mut());
        let values = self.transformer.parameters.all_mut().iter_mut();
        let gradients = self.gradients.all_mut().iter_mut();
        for (((value, gradient), (mean, square)), role) in
            values.zip(gradients).zip(state).zip(roles)
        {
            if role.is_trained() {
                self.device.update(
                    &rule(role),
                    self.step + 1,
                    scale,
                    value,
                    gradient,
                    mean,
                    square,
                )?;
            }
        }
        self.transformer.move_biases(&self.device, &self.loads)
    }

    /// Counts of the choices that were followed.
    fn followed(&self) -> Result<Vec<Vec<u64>>> {
        let competes = |layer| {
            let table = self.schedule.as_ref();
            table.is_some_and(|table| table.competes(layer, self.step))
        };
        let loads = self.loads.routed.iter().zip(&self.loads.winners);
        let of = |(layer, (routed, winners))| {
            let load = if competes(layer) { winners } else { routed };
            self.device.load(load).map(|load| load.all)
        };
        loads.enumerate().map(of).collect()
    }
}
