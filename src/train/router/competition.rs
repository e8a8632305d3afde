//! Competition: the experts' own responses decide.
//!
//! a_te = response(E_e(x_t)). Winners are the K largest raw responses; their weights
//! follow from the responses by a [`TopK`] rule, and gradients flow through the
//! weights into the winners' outputs. The router learns from the verdict
//! ([`crate::train::router::distillation`]) and decides alone at evaluation.

use crate::train::moe::{Assignment, Dispatch};
use crate::train::ops::real::Real;
use crate::train::ops::rows;
use crate::train::router::combine::{Combine, TopK};
use crate::train::router::distillation::{Loss, Sharpening, Target};
use crate::train::router::response::Response;

/// A competition and what the router learns from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Competition {
    /// How an output is judged.
    pub response: Response,
    /// K and the winners' weights.
    pub winners: TopK,
    /// What the router should say.
    pub target: Target,
    /// How the target is sharpened.
    pub sharpening: Sharpening,
    /// How the router is compared with it.
    pub distillation: Loss,
}

impl Competition {
    /// CompeteSMoE v1 as described, without the faults of its code: norms, softmax
    /// over the winners, target 0 for losers, mean square error.
    pub fn first_version(k: usize) -> Self {
        Competition {
            response: Response::Norm,
            winners: TopK {
                k,
                combine: Combine::TopKSoftmax,
                scale: 1.0,
            },
            target: Target::Winners,
            sharpening: Sharpening::NONE,
            distillation: Loss::Full,
        }
    }

    /// CompeteSMoE v2 as described: mean softplus, weights in proportion, target over
    /// all experts, hybrid loss with theta = 0.2.
    pub fn second_version(k: usize) -> Self {
        Competition {
            response: Response::SoftplusMean,
            winners: TopK {
                k,
                combine: Combine::LinearTopKRenormalised,
                scale: 1.0,
            },
            target: Target::All,
            sharpening: Sharpening::NONE,
            distillation: Loss::Hybrid { theta: 0.2 },
        }
    }

    /// Adds dL/da da/do of every winner to `d_outputs`. Losers get nothing.
    ///
    /// # Shapes
    /// d_responses: tokens, experts. outputs, d_outputs: slots, width.
    pub fn add_output_gradients<T: Real>(
        &self,
        d_responses: &[T],
        assignment: &Assignment<T>,
        dispatch: &Dispatch,
        width: usize,
        outputs: &[T],
        d_outputs: &mut [T],
    ) {
        let experts = assignment.expert_count();
        rows::for_each(d_outputs, width, |slot, d_out| {
            let expert = assignment.experts()[dispatch.pairs()[slot] as usize] as usize;
            let token = dispatch.tokens()[slot] as usize;
            let d_response = d_responses[token * experts + expert];
            let out = &outputs[slot * width..][..width];
            self.response.backward(out, d_response, d_out);
        });
    }
}
