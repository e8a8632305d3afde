//! `[model]` and `[experts]`: the transformer and its sparse layers.

use crate::error::{Error, Result};
use crate::train::config::{Batch, positive, within};
use crate::train::moe::Drop;
use crate::train::moe::experts::Hidden;
use crate::train::ops::activation::Activation;
use crate::train::ops::norm::Norm;
use serde::{Deserialize, Serialize};

/// `[model]`: a decoder-only transformer, norms before attention and feed-forward.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Blocks of attention and feed-forward.
    pub layers: usize,
    /// Width of a token.
    pub width: usize,
    /// Heads of attention; they divide the width.
    pub heads: usize,
    /// How positions enter.
    pub position: Position,
    /// Layer norm or RMS norm.
    pub norm: Norm,
    /// Inside experts and dense feed-forwards.
    pub activation: Unit,
    /// Whether linear maps and layer norms have biases; routers have none.
    pub bias: Bias,
    /// Whether the head is the embedding.
    pub head: Head,
    /// Which blocks have experts.
    pub layout: Layout,
    /// Hidden width of dense feed-forwards.
    pub dense_hidden: DenseHidden,
    /// Share of embeddings and of outputs of attention and feed-forward that training
    /// sets to 0.
    pub dropout: f64,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// Queries and keys turn (base 10 000).
    Rotary,
    /// A trained vector per position is added to the embedding.
    Learned,
}

/// The base of rotary positions.
pub const ROTARY_BASE: f64 = 10_000.0;

/// The epsilon of norms.
pub const NORM_EPSILON: f64 = 1e-5;

/// The hidden layer of a feed-forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// max(x, 0)
    Relu,
    /// x Phi(x)
    Gelu,
    /// x s(x)
    Silu,
    /// silu(x G) * (x U): a third matrix
    Swiglu,
}

impl Unit {
    /// As the sparse layer names it.
    pub fn hidden(self) -> Hidden {
        match self {
            Unit::Relu => Hidden::Plain(Activation::Relu),
            Unit::Gelu => Hidden::Plain(Activation::Gelu),
            Unit::Silu => Hidden::Plain(Activation::Silu),
            Unit::Swiglu => Hidden::Gated,
        }
    }

    /// Matrices of a feed-forward.
    pub fn matrices(self) -> usize {
        match self {
            Unit::Swiglu => 3,
            _ => 2,
        }
    }
}

/// Whether linear maps and layer norms have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bias {
    /// They do, down to the experts.
    Everywhere,
    /// None has.
    Nowhere,
}

/// Whether the head is the embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// One matrix for both.
    Tied,
    /// A matrix of its own.
    Untied,
}

/// Which blocks have experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// All (the papers' "Switch Transformer").
    EveryLayer,
    /// Every second, from the second on (GLaM).
    Alternating,
    /// None: the baseline.
    Dense,
}

/// Hidden width of dense feed-forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DenseHidden {
    /// As given.
    Width(usize),
    /// As many as a token's experts, or as all experts have.
    Equal(Equal),
}

/// What a dense feed-forward has as many of as a sparse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Equal {
    /// Parameters a token uses: K experts and the shared ones.
    Active,
    /// All parameters: all experts.
    Total,
}

/// The feed-forward of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// One, of this hidden width.
    Dense {
        /// Hidden width.
        hidden: usize,
    },
    /// Experts.
    Sparse,
}

/// `[experts]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Experts {
    /// Experts that the router chooses from.
    pub count: usize,
    /// Hidden width of one expert.
    pub hidden: usize,
    /// Experts that serve every token, added to the chosen ones.
    pub shared: usize,
    /// Slots of an expert in training as a multiple of pairs / experts; no limit if
    /// absent.
    pub capacity_factor: Option<f64>,
    /// The same at evaluation.
    pub evaluation_capacity_factor: Option<f64>,
    /// Which pairs of a full expert go.
    pub drop: Drop,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            layers: 4,
            width: 128,
            heads: 4,
            position: Position::Rotary,
            norm: Norm::Layer,
            activation: Unit::Relu,
            bias: Bias::Nowhere,
            head: Head::Untied,
            layout: Layout::EveryLayer,
            dense_hidden: DenseHidden::Equal(Equal::Active),
            dropout: 0.0,
        }
    }
}

impl Default for Experts {
    fn default() -> Self {
        Experts {
            count: 8,
            hidden: 256,
            shared: 0,
            capacity_factor: None,
            evaluation_capacity_factor: None,
            drop: Drop::Latest,
        }
    }
}

impl Model {
    /// Channels of a head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// The feed-forward of a block; `active` experts serve a token.
    pub fn feed_forward(&self, layer: usize, experts: &Experts, active: usize) -> FeedForward {
        let sparse = match self.layout {
            Layout::EveryLayer => true,
            Layout::Alternating => layer % 2 == 1,
            Layout::Dense => false,
        };
        let hidden = match self.dense_hidden {
            DenseHidden::Width(width) => width,
            DenseHidden::Equal(Equal::Active) => experts.hidden * (active + experts.shared),
            DenseHidden::Equal(Equal::Total) => experts.hidden * (experts.count + experts.shared),
        };
        match sparse {
            true => FeedForward::Sparse,
            false => FeedForward::Dense { hidden },
        }
    }

    /// Blocks with experts.
    pub fn sparse_layers(&self) -> usize {
        match self.layout {
            Layout::EveryLayer => self.layers,
            Layout::Alternating => self.layers / 2,
            Layout::Dense => 0,
        }
    }

    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self, batch: &Batch) -> Result<()> {
        positive("model.layers", self.layers as u64)?;
        positive("model.width", self.width as u64)?;
        positive("model.heads", self.heads as u64)?;
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("must divide the width, {}", self.width);
            return Err(Error::value("model.heads", message));
        }
        if self.position == Position::Rotary && !self.head_width().is_multiple_of(2) {
            let message = "must leave an even number of channels per head for rotary positions";
            return Err(Error::value("model.heads", message));
        }
        if self.layout == Layout::Alternating && self.layers < 2 {
            let message = "must be at least 2 for alternating layers";
            return Err(Error::value("model.layers", message));
        }
        if let DenseHidden::Width(hidden) = self.dense_hidden {
            positive("model.dense_hidden", hidden as u64)?;
        }
        within("model.dropout", self.dropout, 0.0, 0.95)?;
        positive("batch.length", batch.length as u64)
    }
}

impl Experts {
    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self) -> Result<()> {
        positive("experts.count", self.count as u64)?;
        positive("experts.hidden", self.hidden as u64)?;
        let factors = [
            ("experts.capacity_factor", self.capacity_factor),
            (
                "experts.evaluation_capacity_factor",
                self.evaluation_capacity_factor,
            ),
        ];
        for (key, factor) in factors {
            if let Some(factor) = factor {
                within(key, factor, 1e-3, 1e6)?;
            }
        }
        Ok(())
    }
}
