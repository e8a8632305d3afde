//! Where the time of a step goes: a device that times the operations of another.
//!
//! [`Profiled`] passes every call on and adds its time to its operation. Products are
//! timed inside ([`crate::train::ops::meter`]), on every thread. What a step spends
//! outside the device (reading a batch, the schedule) is its total less the sum of
//! operations. Times are those of a device that has finished when it returns.

use crate::error::Result;
use crate::rng::Stream;
use crate::train::device::{BalanceTerm, Device, Meter, TensorOf};
use crate::train::moe::experts::{Shape as ExpertShape, Weights};
use crate::train::moe::{Assignment, Capacity};
use crate::train::ops::adamw::AdamW;
use crate::train::ops::attention::Shape as AttentionShape;
use crate::train::ops::matmul::{Into, Product, View, ViewMut};
use crate::train::ops::meter::{self, Spent};
use crate::train::ops::norm::Norm;
use crate::train::ops::rotary::{Rotary, Turn};
use crate::train::router::balance::Load;
use crate::train::router::combine::TopK;
use crate::train::router::competition::Competition;
use crate::train::router::cosine::Cosine;
use crate::train::router::diversity::Pairs;
use crate::train::router::selection::Groups;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a call of the device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Rows of the table of tokens.
    Embedding,
    /// Layer norm or RMS norm.
    Norm,
    /// Matrices of attention and router, and the head.
    Linear,
    /// Softmax of queries and keys, values, rotary positions.
    Attention,
    /// Dropout; its backward pass is the same call.
    Dropout,
    /// Scores beyond their matrix, experts and weights of every token.
    Choice,
    /// Pairs of token and expert in the order of experts.
    Sort,
    /// The chosen experts.
    Experts,
    /// Responses of all experts, and their gradients.
    Competition,
    /// The loss of the task.
    CrossEntropy,
    /// Balance, distillation, z-loss; counts.
    AuxiliaryLosses,
    /// Norm of the gradient, AdamW.
    Optimiser,
    /// Copies, zeros, sums of two tensors.
    Memory,
}

/// Which pass a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// Values; also what belongs to no pass or to both.
    Forward,
    /// Gradients.
    Backward,
}

/// Calls of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// Their time.
    pub seconds: f64,
}

/// What has been timed since the start.
struct Record {
    start: Instant,
    products: Spent,
    calls: BTreeMap<(Operation, Pass), Calls>,
}

impl Record {
    fn new() -> Self {
        Record {
            start: Instant::now(),
            products: meter::spent(),
            calls: BTreeMap::new(),
        }
    }
}

/// A device that times every operation.
pub struct Profiled<D> {
    device: D,
    record: Mutex<Record>,
}

impl<D> Profiled<D> {
    /// Times `device` from now on.
    pub fn new(device: D) -> Self {
        meter::start();
        Profiled {
            device,
            record: Mutex::new(Record::new()),
        }
    }

    /// Forgets what was timed, such as a first step that allocates.
    pub fn restart(&self) {
        *self.record() = Record::new();
    }

    /// What `steps` steps since the start cost on this many threads.
    pub fn profile(&self, steps: usize, threads: usize) -> Profile {
        let record = self.record();
        let (seconds, spent) = (record.start.elapsed().as_secs_f64(), meter::spent());
        let lines = record.calls.iter();
        Profile {
            steps,
            threads,
            seconds,
            lines: lines
                .map(|(&(operation, pass), &calls)| Line {
                    operation,
                    pass,
                    calls,
                })
                .collect(),
            products: spent - record.products,
            peak: None,
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // A record is whole after every statement, also of a thread that panicked.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timed<R>(&self, operation: Operation, pass: Pass, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        let mut record = self.record();
        let calls = record.calls.entry((operation, pass)).or_default();
        calls.count += 1;
        calls.seconds += seconds;
        result
    }
}

/// One operation of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Which.
    pub operation: Operation,
    /// Of which pass.
    pub pass: Pass,
    /// Its calls.
    pub calls: Calls,
}

/// Where the time of some steps went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Steps.
    pub steps: usize,
    /// Threads that shared the work.
    pub threads: usize,
    /// Wall time of all steps.
    pub seconds: f64,
    /// By operation and pass.
    pub lines: Vec<Line>,
    /// Matrix products, on all threads.
    pub products: Spent,
    /// [`peak_of_products`], if it was measured: operations per second of all threads.
    pub peak: Option<f64>,
}

impl Profile {
    /// With the machine's peak, measured in the same run.
    pub fn with_peak(self, peak: f64) -> Self {
        Profile {
            peak: Some(peak),
            ..self
        }
    }

    /// Time inside operations.
    pub fn in_operations(&self) -> f64 {
        self.lines.iter().map(|line| line.calls.seconds).sum()
    }

    /// Share of the threads' time that products took.
    pub fn share_of_products(&self) -> f64 {
        self.products.seconds / (self.threads as f64 * self.seconds)
    }

    /// Share of the peak that whole steps reach: operations of products over what the
    /// machine could have done in the time.
    pub fn share_of_peak(&self) -> Option<f64> {
        let peak = self.peak?;
        Some(self.products.operations / (peak * self.seconds))
    }
}

impl fmt::Display for Profile {
    /// A table: operations in milliseconds per step, then the sum and products.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let per_step = 1e3 / self.steps.max(1) as f64;
        let mut row = |name: &str, calls: String, seconds: f64| {
            let share = 100.0 * seconds / self.seconds;
            let time = seconds * per_step;
            writeln!(f, "{name:<28} {calls:>7} {time:>10.3} {share:>6.1} %")
        };
        for line in &self.lines {
            let pass = match line.pass {
                Pass::Forward => "",
                Pass::Backward => ", backward",
            };
            let calls = line.calls.count as f64 / self.steps.max(1) as f64;
            let name = format!("{}{pass}", line.operation);
            row(&name, format!("{calls:.0}"), line.calls.seconds)?;
        }
        let outside = self.seconds - self.in_operations();
        row("outside operations", String::new(), outside)?;
        row("step", String::new(), self.seconds)?;
        let giga = |rate: f64| rate * 1e-9;
        write!(
            f,
            "matrix products: {:.1} % of the time of {} threads, {:.0} GFLOP/s each",
            100.0 * self.share_of_products(),
            self.threads,
            giga(self.products.rate()),
        )?;
        if let (Some(peak), Some(share)) = (self.peak, self.share_of_peak()) {
            let (peak, share) = (giga(peak), 100.0 * share);
            write!(f, "; the step reaches {share:.1} % of {peak:.0} GFLOP/s")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Operation::Embedding => "embedding",
            Operation::Norm => "norm",
            Operation::Linear => "linear",
            Operation::Attention => "attention",
            Operation::Dropout => "dropout",
            Operation::Choice => "choice",
            Operation::Sort => "sort",
            Operation::Experts => "experts",
            Operation::Competition => "competition",
            Operation::CrossEntropy => "cross-entropy",
            Operation::AuxiliaryLosses => "auxiliary losses",
            Operation::Optimiser => "optimiser",
            Operation::Memory => "memory",
        })
    }
}

/// Operations per second of all threads of the current pool together, each at its own
/// f32 products of 512 by 512 by 512: the best of 12 rounds.
pub fn peak_of_products() -> f64 {
    const SIDE: usize = 512;
    const PRODUCTS: usize = 6;
    let factor = vec![0.5_f32; SIDE * SIDE];
    let results = rayon::broadcast(|_| Mutex::new(vec![0.0; SIDE * SIDE]));
    let round = |_| {
        let start = Instant::now();
        rayon::broadcast(|context| {
            let mut result = results[context.index()]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for _ in 0..PRODUCTS {
                let product = Product {
                    left: View::rows(&factor, SIDE, SIDE),
                    right: View::rows(&factor, SIDE, SIDE),
                    result: ViewMut::rows(&mut result, SIDE, SIDE),
                    into: Into::Written,
                };
                product.run();
            }
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..12).map(round).fold(f64::INFINITY, f64::min);
    (results.len() * PRODUCTS * 2 * SIDE.pow(3)) as f64 / best
}

/// Methods that time a call of the same name.
macro_rules! pass_on {
    ($(
        $operation:ident $pass:ident: fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty;
    )*) => {
        $(
            fn $name(&self, $($argument: $kind),*) -> Result<$result> {
                let call = || self.device.$name($($argument),*);
                self.timed(Operation::$operation, Pass::$pass, call)
            }
        )*
    };
}

impl<D: Device> Device for Profiled<D> {
    type Number = D::Number;
    type Buffer = D::Buffer;
    type Ids = D::Ids;
    type Meters = D::Meters;
    type Assignment = D::Assignment;
    type Dispatch = D::Dispatch;
    type Mask = D::Mask;
    type Load = D::Load;
    type Saved = D::Saved;
    type Workspace = D::Workspace;

    pass_on! {
        Memory Forward: fn zeros(rows: usize, columns: usize) -> TensorOf<Self>;
        Memory Forward: fn upload(values: &[Self::Number], columns: usize) -> TensorOf<Self>;
        Memory Forward: fn download(tensor: &TensorOf<Self>) -> Vec<Self::Number>;
        Memory Forward: fn ids(ids: &[u32]) -> Self::Ids;
        Memory Forward: fn mask(counted: &[bool]) -> Self::Mask;
        Memory Forward: fn meters(count: usize) -> Self::Meters;
        Memory Forward: fn read(meters: &mut Self::Meters) -> Vec<f64>;
        Memory Forward: fn clear(tensor: &mut TensorOf<Self>) -> ();
        Memory Forward: fn copy(from: &TensorOf<Self>, to: &mut TensorOf<Self>) -> ();
        Memory Forward: fn add(from: &TensorOf<Self>, to: &mut TensorOf<Self>) -> ();
        Memory Forward: fn scale(factor: f64, x: &mut TensorOf<Self>) -> ();
        Memory Forward: fn average(
            a: &TensorOf<Self>,
            b: &TensorOf<Self>,
            out: &mut TensorOf<Self>,
        ) -> ();
        Memory Forward: fn assignment(
            assignment: &Self::Assignment,
        ) -> Assignment<Self::Number>;
        Memory Forward: fn load(load: &Self::Load) -> Load;
        Memory Forward: fn dropped(dispatch: &Self::Dispatch) -> usize;
        Memory Forward: fn slots(dispatch: &Self::Dispatch) -> Vec<u32>;
        Memory Forward: fn outputs(saved: &Self::Saved) -> Vec<Self::Number>;
        Embedding Forward: fn embed(
            table: &TensorOf<Self>,
            ids: &Self::Ids,
            y: &mut TensorOf<Self>,
        ) -> ();
        Embedding Backward: fn embed_backward(
            ids: &Self::Ids,
            dy: &TensorOf<Self>,
            d_table: &mut TensorOf<Self>,
        ) -> ();
        Linear Forward: fn linear(
            x: &TensorOf<Self>,
            weight: &TensorOf<Self>,
            bias: Option<&TensorOf<Self>>,
            y: &mut TensorOf<Self>,
        ) -> ();
        Linear Backward: fn linear_backward(
            x: &TensorOf<Self>,
            weight: &TensorOf<Self>,
            dy: &TensorOf<Self>,
            dx: Option<&mut TensorOf<Self>>,
            gradients: Option<(&mut TensorOf<Self>, Option<&mut TensorOf<Self>>)>,
        ) -> ();
        Linear Forward: fn unembed(
            x: &TensorOf<Self>,
            table: &TensorOf<Self>,
            logits: &mut TensorOf<Self>,
        ) -> ();
        Linear Backward: fn unembed_backward(
            x: &TensorOf<Self>,
            table: &TensorOf<Self>,
            d_logits: &TensorOf<Self>,
            dx: &mut TensorOf<Self>,
            d_table: &mut TensorOf<Self>,
        ) -> ();
        Dropout Forward: fn dropout(
            stream: &Stream,
            share: f64,
            first_token: u64,
            x: &mut TensorOf<Self>,
        ) -> ();
        Norm Forward: fn norm(
            norm: Norm,
            epsilon: f64,
            x: &TensorOf<Self>,
            gain: &TensorOf<Self>,
            shift: Option<&TensorOf<Self>>,
            y: &mut TensorOf<Self>,
            moments: &mut TensorOf<Self>,
        ) -> ();
        Norm Backward: fn norm_backward(
            norm: Norm,
            x: &TensorOf<Self>,
            gain: &TensorOf<Self>,
            moments: &TensorOf<Self>,
            dy: &TensorOf<Self>,
            dx: &mut TensorOf<Self>,
            gradients: (&mut TensorOf<Self>, Option<&mut TensorOf<Self>>),
        ) -> ();
        Attention Forward: fn rotate(
            rotary: &Rotary<Self::Number>,
            shape: AttentionShape,
            qkv: &mut TensorOf<Self>,
            turn: Turn,
        ) -> ();
        Attention Forward: fn attend(
            shape: AttentionShape,
            qkv: &TensorOf<Self>,
            o: &mut TensorOf<Self>,
            log_sums: &mut TensorOf<Self>,
        ) -> ();
        Attention Backward: fn attend_backward(
            shape: AttentionShape,
            qkv: &TensorOf<Self>,
            o: &TensorOf<Self>,
            log_sums: &TensorOf<Self>,
            d_o: &TensorOf<Self>,
            d_qkv: &mut TensorOf<Self>,
        ) -> ();
        CrossEntropy Forward: fn cross_entropy(
            logits: &mut TensorOf<Self>,
            targets: &Self::Ids,
            scale: f64,
            nats: Meter<Self::Meters>,
        ) -> ();
        Choice Forward: fn jitter(
            stream: &Stream,
            amplitude: f64,
            first_token: u64,
            x: &mut TensorOf<Self>,
        ) -> ();
        Choice Forward: fn noisy(
            stream: &Stream,
            first_token: u64,
            noise: &TensorOf<Self>,
            scores: &mut TensorOf<Self>,
        ) -> ();
        Choice Backward: fn noisy_backward(
            stream: &Stream,
            first_token: u64,
            noise: &TensorOf<Self>,
            d_scores: &TensorOf<Self>,
            d_noise: &mut TensorOf<Self>,
        ) -> ();
        Choice Forward: fn cosine(
            cosine: &Cosine,
            temperature: f64,
            u: &TensorOf<Self>,
            v: &TensorOf<Self>,
            scores: &mut TensorOf<Self>,
        ) -> ();
        Choice Backward: fn cosine_backward(
            cosine: &Cosine,
            temperature: f64,
            u: &TensorOf<Self>,
            v: &TensorOf<Self>,
            scores: &TensorOf<Self>,
            d_scores: &TensorOf<Self>,
            d_u: &mut TensorOf<Self>,
            d_v: &mut TensorOf<Self>,
        ) -> ();
        Choice Forward: fn choose(
            rule: &TopK,
            groups: Groups,
            bias: Option<&TensorOf<Self>>,
            scores: &TensorOf<Self>,
        ) -> Self::Assignment;
        Choice Forward: fn move_bias(
            load: &Self::Load,
            rate: f64,
            bias: &mut TensorOf<Self>,
        ) -> ();
        Sort Forward: fn everyone(tokens: usize, experts: usize) -> Self::Assignment;
        Choice Backward: fn choose_backward(
            rule: &TopK,
            scores: &TensorOf<Self>,
            assignment: &Self::Assignment,
            d_weights: &TensorOf<Self>,
            d_scores: &mut TensorOf<Self>,
        ) -> ();
        Sort Forward: fn dispatch(
            assignment: &Self::Assignment,
            capacity: Option<Capacity>,
        ) -> Self::Dispatch;
        Experts Forward: fn experts(
            shape: ExpertShape,
            weights: &Weights<&TensorOf<Self>>,
            x: &TensorOf<Self>,
            assignment: &Self::Assignment,
            dispatch: &Self::Dispatch,
            saved: &mut Self::Saved,
            y: &mut TensorOf<Self>,
        ) -> ();
        Experts Forward: fn winners(
            assignment: &Self::Assignment,
            dispatch: &Self::Dispatch,
            saved: &mut Self::Saved,
            y: &mut TensorOf<Self>,
        ) -> ();
        Experts Backward: fn weight_gradients(
            assignment: &Self::Assignment,
            dispatch: &Self::Dispatch,
            saved: &Self::Saved,
            dy: &TensorOf<Self>,
        ) -> TensorOf<Self>;
        Experts Backward: fn experts_backward(
            shape: ExpertShape,
            weights: &Weights<&TensorOf<Self>>,
            x: &TensorOf<Self>,
            assignment: &Self::Assignment,
            dispatch: &Self::Dispatch,
            saved: &Self::Saved,
            workspace: &mut Self::Workspace,
            dy: &TensorOf<Self>,
            d_outputs: Option<&TensorOf<Self>>,
            dx: &mut TensorOf<Self>,
            gradients: Weights<&mut TensorOf<Self>>,
        ) -> ();
        Competition Forward: fn affinities(
            shape: ExpertShape,
            weights: &Weights<&TensorOf<Self>>,
            competition: &Competition,
            x: &TensorOf<Self>,
            affinities: &mut TensorOf<Self>,
        ) -> ();
        Competition Forward: fn compete(
            shape: ExpertShape,
            weights: &Weights<&TensorOf<Self>>,
            competition: &Competition,
            scores: Option<&TensorOf<Self>>,
            x: &TensorOf<Self>,
            affinities: &mut TensorOf<Self>,
            saved: &mut Self::Saved,
            workspace: &mut Self::Workspace,
        ) -> Self::Assignment;
        Competition Backward: fn output_gradients(
            competition: &Competition,
            d_affinities: &TensorOf<Self>,
            assignment: &Self::Assignment,
            dispatch: &Self::Dispatch,
            saved: &Self::Saved,
            diversity: Option<(Pairs, f64)>,
            counted: Option<&Self::Mask>,
            meter: Meter<Self::Meters>,
        ) -> TensorOf<Self>;
        Competition Backward: fn losers_backward(
            shape: ExpertShape,
            weights: &Weights<&TensorOf<Self>>,
            competition: &Competition,
            x: &TensorOf<Self>,
            winners: &Self::Assignment,
            d_affinities: &TensorOf<Self>,
            dx: &mut TensorOf<Self>,
            gradients: Weights<&mut TensorOf<Self>>,
        ) -> ();
        AuxiliaryLosses Forward: fn distil(
            competition: &Competition,
            affinities: &TensorOf<Self>,
            winners: &Self::Assignment,
            scores: &TensorOf<Self>,
            routed: &Self::Assignment,
            counted: Option<&Self::Mask>,
            coefficient: f64,
            d_scores: &mut TensorOf<Self>,
            d_affinities: Option<&mut TensorOf<Self>>,
            meter: Meter<Self::Meters>,
        ) -> ();
        AuxiliaryLosses Forward: fn count(
            assignment: &Self::Assignment,
            counted: Option<&Self::Mask>,
            load: &mut Self::Load,
        ) -> ();
        AuxiliaryLosses Forward: fn balance(
            term: &BalanceTerm,
            scores: &TensorOf<Self>,
            assignment: &Self::Assignment,
            counted: Option<&Self::Mask>,
            load: Option<&Self::Load>,
            d_scores: &mut TensorOf<Self>,
            meter: Meter<Self::Meters>,
        ) -> ();
        AuxiliaryLosses Forward: fn z_loss(
            coefficient: f64,
            scores: &TensorOf<Self>,
            counted: Option<&Self::Mask>,
            d_scores: &mut TensorOf<Self>,
            meter: Meter<Self::Meters>,
        ) -> ();
        Optimiser Forward: fn square_norm(
            gradient: &TensorOf<Self>,
            meter: Meter<Self::Meters>,
        ) -> ();
        Optimiser Forward: fn update(
            rule: &AdamW,
            step: u64,
            scale: f64,
            parameters: &mut TensorOf<Self>,
            gradient: &mut TensorOf<Self>,
            mean: &mut TensorOf<Self>,
            square: &mut TensorOf<Self>,
        ) -> ();
    }
}

#[cfg(test)]
mod tests;
