//! Text as tokens: prepared once, read in windows.
//!
//! ```text
//! text --prepare--> folder of tokens --Corpus::open--> Tokens of a split
//!   training: Loader          windows as a function of (seed, step, sequence)
//!   evaluation: EvaluationWindows   every token but the first predicted once
//! ```
//!
//! | module | what is inside |
//! |---|---|
//! | [`vocabulary`] | bytes, characters, tokenizers |
//! | [`prepare`](mod@prepare) | a text becomes a folder |
//! | [`description`] | what the folder says about itself |
//! | [`corpus`] | the folder opened |
//! | [`tokens`] | the tokens of a split |
//! | [`loader`] | windows of training steps |
//! | [`evaluation`] | windows of an evaluation |

mod bpe;
pub mod corpus;
pub mod description;
pub mod evaluation;
pub mod loader;
mod memory;
mod permutation;
pub mod prepare;
mod text;
pub mod tokens;
pub mod vocabulary;

pub use corpus::Corpus;
pub use description::{Description, Split};
pub use evaluation::EvaluationWindows;
pub use loader::Loader;
pub use prepare::{Choice, Preparation, prepare};
pub use text::{Splits, TINYSHAKESPEARE};
pub use tokens::Tokens;
pub use vocabulary::Vocabulary;

#[cfg(test)]
mod tests;
