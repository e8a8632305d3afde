//! The transformer: decoder-only, norms before attention and feed-forward.
//!
//! ```text
//! x_0 = embedding (+ position)
//! m_l = x_l + attention(norm(x_l))
//! x_{l+1} = m_l + feed_forward(norm(m_l))
//! logits = head(norm(x_L))
//! ```
//!
//! | module | what is inside |
//! |---|---|
//! | [`architecture`] | which parameters there are, their names and sizes |
//! | [`parameters`] | a list of named tensors |
//! | [`attention`](self) | the first half of a block |
//! | [`feed_forward`](self) | the second: router, experts, their losses |
//! | [`transformer`](self) | all blocks, forth and back |
//!
//! Model code holds tensors of a [`crate::train::device::Device`] and calls its
//! operations; it never looks at a number. What the backward pass needs lies in a
//! [`Tape`], allocated once for a shape of batch and used again every step.

pub mod architecture;
mod attention;
mod feed_forward;
pub mod parameters;
mod transformer;

pub use architecture::Architecture;
pub use feed_forward::{Loads, SparseTape};
pub use parameters::{Role, Spec, Tensors};
pub use transformer::{Batch, Counted, Losses, Observe, Phase, Share, Tape, Training, Transformer};

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod reference_tests;
