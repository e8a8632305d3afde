//! Which parameters a model has, their names, sizes and first values.
//!
//! Matrices start normal with variance 1 / inputs; those that write to the residual
//! stream are divided by sqrt(2 layers) (GPT-2). Embeddings and routers start with
//! standard deviation 0.02.

use crate::error::Result;
use crate::train::config::model::{Bias, Head};
use crate::train::config::router::Kind;
use crate::train::config::{Experts, FeedForward, Method, Model, Position, Run, Scores};
use crate::train::model::parameters::{Affine, Id, List, Role, Spec, Start};
use crate::train::moe::experts::{Hidden, Shape, Weights};
use crate::train::ops::norm::Norm;

/// Everything that decides the shapes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The transformer.
    pub model: Model,
    /// Its experts.
    pub experts: Experts,
    /// How they are chosen.
    pub method: Method,
    /// Tokens that exist.
    pub vocabulary: usize,
    /// Longest sequence.
    pub length: usize,
}

/// Standard deviation of embeddings and routers at first.
const SMALL: f64 = 0.02;

/// The parameters of one block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub attention_norm: Affine,
    pub qkv: Affine,
    pub out: Affine,
    pub feed_forward_norm: Affine,
    pub feed_forward: Parts,
}

/// A feed-forward, dense or sparse.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// Experts that serve every token: shared ones, or the one of a dense block.
    pub constant: Option<(Shape, Weights<Id>)>,
    /// Experts that are chosen.
    pub sparse: Option<Sparse>,
}

/// The sparse part of a block.
#[derive(Clone, Debug)]
pub(super) struct Sparse {
    /// Counted among sparse layers.
    pub index: usize,
    pub shape: Shape,
    pub experts: Weights<Id>,
    /// Absent where experts decide alone.
    pub router: Option<Router>,
}

/// The parameters of a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Router {
    /// W, or the projection of cosine scores.
    pub weight: Id,
    /// V of noisy scores.
    pub noise: Option<Id>,
    /// Experts' embeddings of cosine scores.
    pub embeddings: Option<Id>,
    /// Bias of the choice.
    pub bias: Option<Id>,
}

/// All parameters.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub embedding: Id,
    pub positions: Option<Id>,
    pub blocks: Vec<Block>,
    pub final_norm: Affine,
    /// Absent if tied.
    pub head: Option<Id>,
}

impl Architecture {
    /// Of a run on a text with this vocabulary.
    ///
    /// # Errors
    /// As [`Run::check`].
    pub fn new(run: &Run, vocabulary: usize) -> Result<Self> {
        Ok(Architecture {
            model: run.model.clone(),
            experts: run.experts,
            method: run.method()?,
            vocabulary,
            length: run.batch.length,
        })
    }

    /// The parameters in the order of checkpoints.
    pub fn specs(&self) -> Vec<Spec> {
        self.plan().1
    }

    /// The feed-forward of a block.
    pub fn feed_forward(&self, layer: usize) -> FeedForward {
        self.model
            .feed_forward(layer, &self.experts, self.method.rule.k)
    }

    /// Sizes of the chosen experts.
    pub fn expert_shape(&self) -> Shape {
        self.shape(self.experts.count, self.experts.hidden)
    }

    fn shape(&self, experts: usize, hidden: usize) -> Shape {
        Shape {
            experts,
            width: self.model.width,
            hidden,
            kind: self.model.activation.hidden(),
        }
    }

    pub(super) fn plan(&self) -> (Plan, Vec<Spec>) {
        let (width, vocabulary) = (self.model.width, self.vocabulary);
        let mut list = List::default();
        let small = Start::Normal(SMALL);
        let table = |list: &mut List, name: &str, rows| {
            list.add(name.into(), [rows, width], Role::Matrix, small)
        };
        let embedding = table(&mut list, "embedding.weight", vocabulary);
        let positions = (self.model.position == Position::Learned)
            .then(|| table(&mut list, "positions.weight", self.length));
        let mut sparse_layers = 0;
        let blocks = (0..self.model.layers)
            .map(|layer| self.block(&mut list, layer, &mut sparse_layers))
            .collect();
        let final_norm = self.norm(&mut list, "final_norm");
        let head = (self.model.head == Head::Untied).then(|| {
            let shape = [width, vocabulary];
            list.add("head.weight".into(), shape, Role::Matrix, small)
        });
        let plan = Plan {
            embedding,
            positions,
            blocks,
            final_norm,
            head,
        };
        (plan, list.into_specs())
    }

    fn norm(&self, list: &mut List, name: &str) -> Affine {
        let shape = [1, self.model.width];
        let gain = list.add(format!("{name}.gain"), shape, Role::Vector, Start::Ones);
        let shifted = self.model.norm == Norm::Layer && self.model.bias == Bias::Everywhere;
        let shift =
            shifted.then(|| list.add(format!("{name}.shift"), shape, Role::Vector, Start::Zeros));
        Affine {
            weight: gain,
            bias: shift,
        }
    }

    fn linear(&self, list: &mut List, name: &str, shape: [usize; 2], start: Start) -> Affine {
        let weight = list.add(format!("{name}.weight"), shape, Role::Matrix, start);
        let bias = (self.model.bias == Bias::Everywhere).then(|| {
            let name = format!("{name}.bias");
            list.add(name, [1, shape[1]], Role::Vector, Start::Zeros)
        });
        Affine { weight, bias }
    }

    /// Standard deviation of a matrix that writes to the residual stream.
    fn residual(&self, inputs: usize) -> Start {
        Start::Normal(1.0 / (inputs as f64 * 2.0 * self.model.layers as f64).sqrt())
    }

    fn block(&self, list: &mut List, layer: usize, sparse_layers: &mut usize) -> Block {
        let width = self.model.width;
        let name = |part: &str| format!("layers.{layer}.{part}");
        let into = Start::Normal(1.0 / (width as f64).sqrt());
        let attention_norm = self.norm(list, &name("attention_norm"));
        let qkv = self.linear(list, &name("attention.qkv"), [width, 3 * width], into);
        let residual = self.residual(width);
        let out = self.linear(list, &name("attention.out"), [width, width], residual);
        let feed_forward_norm = self.norm(list, &name("feed_forward_norm"));
        let feed_forward = match self.feed_forward(layer) {
            FeedForward::Dense { hidden } => {
                let shape = self.shape(1, hidden);
                Parts {
                    constant: Some((shape, self.feed_forwards(list, &name("dense"), shape))),
                    sparse: None,
                }
            }
            FeedForward::Sparse => {
                let router = self.router(list, &name("router"));
                let shape = self.expert_shape();
                let experts = self.feed_forwards(list, &name("experts"), shape);
                let shared = self.shape(self.experts.shared, self.experts.hidden);
                let constant = (self.experts.shared > 0)
                    .then(|| (shared, self.feed_forwards(list, &name("shared"), shared)));
                let index = *sparse_layers;
                *sparse_layers += 1;
                Parts {
                    constant,
                    sparse: Some(Sparse {
                        index,
                        shape,
                        experts,
                        router,
                    }),
                }
            }
        };
        Block {
            attention_norm,
            qkv,
            out,
            feed_forward_norm,
            feed_forward,
        }
    }

    fn feed_forwards(&self, list: &mut List, name: &str, shape: Shape) -> Weights<Id> {
        let Shape {
            experts,
            width,
            hidden,
            kind,
        } = shape;
        let into = Start::Normal(1.0 / (width as f64).sqrt());
        let mut matrix = |part: &str, rows, columns, start| {
            let name = format!("{name}.{part}.weight");
            list.add(name, [experts * rows, columns], Role::Matrix, start)
        };
        let up = matrix("up", width, hidden, into);
        let gate = (kind == Hidden::Gated).then(|| matrix("gate", width, hidden, into));
        let down = matrix("down", hidden, width, self.residual(hidden));
        let mut bias = |part: &str, columns| {
            (self.model.bias == Bias::Everywhere).then(|| {
                let name = format!("{name}.{part}.bias");
                list.add(name, [experts, columns], Role::Vector, Start::Zeros)
            })
        };
        Weights {
            up,
            gate,
            down,
            up_bias: bias("up", hidden),
            down_bias: bias("down", width),
        }
    }

    fn router(&self, list: &mut List, name: &str) -> Option<Router> {
        let (width, experts) = (self.model.width, self.experts.count);
        let small = Start::Normal(SMALL);
        let mut add =
            |part: &str, shape, role, start| list.add(format!("{name}.{part}"), shape, role, start);
        let shape = [width, experts];
        let plain = |weight| Router {
            weight,
            noise: None,
            embeddings: None,
            bias: None,
        };
        let router = match self.method.scores {
            _ if self.method.kind == Kind::Competition => return None,
            Scores::Linear => plain(add("weight", shape, Role::Router, small)),
            Scores::Frozen => {
                let start = Start::Uniform(1.0 / (width as f64).sqrt());
                plain(add("weight", shape, Role::Frozen, start))
            }
            Scores::Noisy => Router {
                noise: Some(add("noise.weight", shape, Role::Router, Start::Zeros)),
                ..plain(add("weight", shape, Role::Router, small))
            },
            Scores::Cosine { cosine, .. } => {
                let into = Start::Normal(1.0 / (width as f64).sqrt());
                let projection = add(
                    "projection.weight",
                    [width, cosine.width],
                    Role::Router,
                    into,
                );
                let shape = [experts, cosine.width];
                let start = Start::Normal(1.0 / (cosine.width as f64).sqrt());
                Router {
                    embeddings: Some(add("embeddings", shape, Role::Router, start)),
                    ..plain(projection)
                }
            }
        };
        let bias = (self.method.selection.bias_rate > 0.0)
            .then(|| add("bias", [1, experts], Role::SelectionBias, Start::Zeros));
        Some(Router { bias, ..router })
    }
}
