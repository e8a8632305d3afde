//! The parameters of a model: a list of named tensors, and who uses which.

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::train::device::{Device, TensorOf};
use crate::train::moe::experts::Weights;
use crate::train::ops::real::Real;
use rayon::prelude::*;

/// The place of a parameter in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(usize);

/// What a parameter is for; decides weight decay and training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Embeddings and matrices: with weight decay.
    Matrix,
    /// Gains, shifts and biases: without.
    Vector,
    /// A router's matrices: without.
    Router,
    /// Never trained: the router of SMoE-Dropout.
    Frozen,
    /// Moved by a rule of its own: DeepSeek-V3's bias of the choice.
    SelectionBias,
}

impl Role {
    /// True if the optimiser moves it.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::Frozen | Role::SelectionBias)
    }
}

/// First values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// 0
    Zeros,
    /// 1
    Ones,
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform on plus or minus this.
    Uniform(f64),
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name in checkpoints; also names its random stream.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// What it is for.
    pub role: Role,
    /// First values.
    pub start: Start,
}

impl Spec {
    /// Numbers.
    pub fn size(&self) -> usize {
        self.rows * self.columns
    }

    fn draw<T: Real>(&self, seed: u64) -> Vec<T> {
        let stream = Stream::named(seed, &self.name, 0, Purpose::Weights);
        let value = |i: usize| match self.start {
            Start::Zeros => T::ZERO,
            Start::Ones => T::ONE,
            Start::Normal(deviation) => T::of(deviation * stream.standard_normal(i as u64, 0)),
            Start::Uniform(bound) => {
                T::of(bound * (2.0 * stream.uniform_pair(i as u64, 0)[0] - 1.0))
            }
        };
        (0..self.size()).into_par_iter().map(value).collect()
    }
}

/// Collects the list.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    specs: Vec<Spec>,
}

impl List {
    pub(super) fn add(
        &mut self,
        name: String,
        [rows, columns]: [usize; 2],
        role: Role,
        start: Start,
    ) -> Id {
        self.specs.push(Spec {
            name,
            rows,
            columns,
            role,
            start,
        });
        Id(self.specs.len() - 1)
    }

    pub(super) fn into_specs(self) -> Vec<Spec> {
        self.specs
    }
}

/// One tensor per parameter: values, gradients, or the optimiser's state.
pub struct Tensors<D: Device>(Vec<TensorOf<D>>);

impl<D: Device> Tensors<D> {
    /// All 0.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn zeros(device: &D, specs: &[Spec]) -> Result<Self> {
        let zeros = |spec: &Spec| device.zeros(spec.rows, spec.columns);
        specs.iter().map(zeros).collect::<Result<_>>().map(Tensors)
    }

    /// First values, functions of the seed and of each parameter's name.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn drawn(device: &D, specs: &[Spec], seed: u64) -> Result<Self> {
        let draw = |spec: &Spec| device.upload(&spec.draw(seed), spec.columns);
        specs.iter().map(draw).collect::<Result<_>>().map(Tensors)
    }

    /// The host's numbers, one list per parameter.
    ///
    /// # Errors
    /// [`Error::Dimension`] if a list has the wrong length.
    pub fn uploaded(device: &D, specs: &[Spec], values: &[Vec<D::Number>]) -> Result<Self> {
        let upload = |(spec, values): (&Spec, &Vec<D::Number>)| match values.len() == spec.size() {
            true => device.upload(values, spec.columns),
            false => Err(Error::Dimension {
                what: "numbers of a parameter",
                expected: spec.size(),
                got: values.len(),
            }),
        };
        let all = specs.iter().zip(values).map(upload);
        all.collect::<Result<_>>().map(Tensors)
    }

    /// All tensors in the order of the list.
    pub fn all(&self) -> &[TensorOf<D>] {
        &self.0
    }

    /// All tensors, to write.
    pub fn all_mut(&mut self) -> &mut [TensorOf<D>] {
        &mut self.0
    }

    pub(super) fn get(&self, id: Id) -> &TensorOf<D> {
        &self.0[id.0]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut TensorOf<D> {
        &mut self.0[id.0]
    }

    /// A matrix or gain with its bias or shift.
    pub(super) fn pair(&mut self, pair: Affine) -> (&mut TensorOf<D>, Option<&mut TensorOf<D>>) {
        match pair.bias {
            None => (&mut self.0[pair.weight.0], None),
            Some(bias) => {
                let two = self.0.get_disjoint_mut([pair.weight.0, bias.0]);
                let [weight, bias] = two.expect("two parameters are two");
                (weight, Some(bias))
            }
        }
    }

    pub(super) fn weights(&self, ids: &Weights<Id>) -> Weights<&TensorOf<D>> {
        ids.each_ref().map(|id| self.get(*id))
    }

    pub(super) fn weights_mut(&mut self, ids: &Weights<Id>) -> Weights<&mut TensorOf<D>> {
        let mut all: Vec<Option<&mut TensorOf<D>>> = self.0.iter_mut().map(Some).collect();
        let mut take = |id: Id| all[id.0].take().expect("each parameter is used once");
        ids.each_ref().map(|id| take(*id))
    }
}

/// A matrix with its bias, or a gain with its shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Affine {
    pub weight: Id,
    pub bias: Option<Id>,
}
