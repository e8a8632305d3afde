//! Routers: pure functions on scores of shape (tokens, experts).
//!
//! A router is scores (from a linear map, [`cosine`], [`noisy`], or the experts'
//! own [`response`]) and a rule that turns scores into an
//! [`crate::train::moe::Assignment`] ([`combine`]). Losses act on scores
//! ([`balance`], [`distillation`]) or on experts' outputs ([`diversity`]).
//!
//! Conventions. Scores are f32 whatever the model's precision. Higher score wins,
//! among equals the lower expert, and not-a-number never wins against a number.
//! Backward passes and losses *add* to gradients of scores. A loss returns its value
//! without its coefficient, and adds its gradient times the coefficient. Tokens that
//! are not `counted` (padding) are routed, but enter no loss.
//!
//! To add a router: one file with its formula, forward, backward and a test by
//! finite differences, and a line here.

pub mod balance;
pub mod combine;
pub mod competition;
pub mod cosine;
pub mod distillation;
pub mod distribution;
pub mod diversity;
pub mod frozen;
pub mod noisy;
pub mod response;
pub mod schedule;
pub mod selection;
pub mod switch;
pub mod top_k;

#[cfg(test)]
mod acceptance_tests;

/// Tokens that enter losses.
pub(crate) fn counted_tokens(counted: Option<&[bool]>, tokens: usize) -> usize {
    match counted {
        Some(counted) => {
            assert_eq!(counted.len(), tokens, "one flag per token");
            counted.iter().filter(|&&c| c).count()
        }
        None => tokens,
    }
}

/// True if the token enters losses.
pub(crate) fn counts(counted: Option<&[bool]>, token: usize) -> bool {
    counted.is_none_or(|counted| counted[token])
}
