//! What a run costs before it runs: parameters, operations, memory.
//!
//! Multiplications and additions of matrix products are counted, nothing else; a
//! backward pass counts as two forward passes. Attention counts the causal half:
//! 2 (L + 1) width per token forward for sequences of L.
//!
//! A layer that competes computes every expert forward for its response, then the
//! winners forth and back as on any step: per token E forward passes of one expert
//! more. Published code computes losers' backward passes too.

use crate::train::config::competition::Learners;
use crate::train::config::router::Kind;
use crate::train::config::{FeedForward, Run, Scores};
use crate::train::model::{Architecture, Role, Spec};
use crate::train::moe::experts::Shape;
use serde::Serialize;

/// The costs of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Numbers in all parameters.
    pub parameters: usize,
    /// Numbers that serve one token: all but the experts it is not sent to.
    pub active_parameters: usize,
    /// Numbers of embeddings and head.
    pub embedding_parameters: usize,
    /// Multiplications and additions per token, forward, with K experts.
    pub forward: f64,
    /// Of it, those of chosen experts in all layers.
    pub experts_forward: f64,
    /// More per token if all sparse layers compete: their losers.
    pub competition: f64,
    /// Bytes of parameters, gradients and the optimiser's state, in f32.
    pub state_bytes: usize,
    /// Bytes of activations of a micro-batch, in f32.
    pub activation_bytes: usize,
    /// Of one loser in all sparse layers.
    loser: f64,
    /// K, and E.
    active: usize,
    experts: usize,
    sparse_layers: usize,
}

impl Cost {
    /// Of a run's model.
    pub fn of(run: &Run, architecture: &Architecture) -> Self {
        let specs = architecture.specs();
        let parameters: usize = specs.iter().map(Spec::size).sum();
        let (model, experts) = (&architecture.model, &architecture.experts);
        let (width, active) = (model.width as f64, architecture.method.rule.k);
        let matrices = model.activation.matrices();
        let idle = (experts.count - active) as f64 / experts.count as f64;
        let of_experts = |spec: &&Spec| spec.name.contains(".experts.");
        let in_experts: usize = specs.iter().filter(of_experts).map(Spec::size).sum();
        let embeddings = |spec: &&Spec| {
            matches!(
                spec.name.as_str(),
                "embedding.weight" | "positions.weight" | "head.weight"
            )
        };
        let embedding_parameters = specs.iter().filter(embeddings).map(Spec::size).sum();

        let product = |inputs: f64, outputs: f64| 2.0 * inputs * outputs;
        let length = run.batch.length as f64;
        let one_expert = matrices as f64 * product(width, experts.hidden as f64);
        let router = match architecture.method.scores {
            _ if architecture.method.kind == Kind::Competition => 0.0,
            Scores::Linear | Scores::Frozen => product(width, experts.count as f64),
            Scores::Noisy => 2.0 * product(width, experts.count as f64),
            Scores::Cosine { cosine, .. } => {
                let inner = cosine.width as f64;
                product(width, inner) + product(inner, experts.count as f64)
            }
        };
        let (mut forward, mut experts_forward) =
            (product(width, architecture.vocabulary as f64), 0.0);
        for layer in 0..model.layers {
            forward += product(width, 4.0 * width) + 2.0 * (length + 1.0) * width;
            match architecture.feed_forward(layer) {
                FeedForward::Dense { hidden } => {
                    forward += matrices as f64 * product(width, hidden as f64);
                }
                FeedForward::Sparse => {
                    let chosen = active as f64 * one_expert;
                    forward += router + experts.shared as f64 * one_expert + chosen;
                    experts_forward += chosen;
                }
            }
        }
        let sparse_layers = model.sparse_layers();
        let learners = architecture.method.competing.map(|c| c.learners);
        // Exact balance gradients compute losers again, forth and back.
        let passes = match learners {
            Some(Learners::All) => 4.0,
            _ => 1.0,
        };
        let loser = sparse_layers as f64 * one_expert * passes;
        Cost {
            parameters,
            active_parameters: parameters - (idle * in_experts as f64).round() as usize,
            embedding_parameters,
            forward,
            experts_forward,
            competition: (experts.count - active) as f64 * loser,
            state_bytes: 4 * (4 * parameters - 3 * frozen(&specs)),
            activation_bytes: activations(run, architecture),
            loser,
            active,
            experts: experts.count,
            sparse_layers,
        }
    }

    /// Operations of a training step of `tokens` tokens, `active` experts each, in which
    /// `competing` layers compete.
    pub fn step(&self, tokens: usize, active: usize, competing: usize) -> f64 {
        let extra = self.experts_forward * (active as f64 / self.active as f64 - 1.0);
        let share = competing as f64 / self.sparse_layers.max(1) as f64;
        let losers = share * (self.experts - active) as f64 * self.loser;
        tokens as f64 * (3.0 * (self.forward + extra) + losers)
    }

    /// Mean operations per token of training, forth and back.
    pub fn training(&self, mean_rate: f64) -> f64 {
        3.0 * self.forward * self.overhead(mean_rate)
    }

    /// Mean operations of a step, over those of one without competition.
    pub fn overhead(&self, mean_rate: f64) -> f64 {
        1.0 + mean_rate * self.competition / (3.0 * self.forward)
    }
}

fn frozen(specs: &[Spec]) -> usize {
    let frozen = specs.iter().filter(|s| s.role == Role::Frozen);
    frozen.map(Spec::size).sum()
}

/// Bytes that a tape holds after a forward pass, and its backward pass's memory.
fn activations(run: &Run, architecture: &Architecture) -> usize {
    let (model, experts) = (&architecture.model, &architecture.experts);
    let (width, tokens) = (model.width, run.batch.tokens());
    let shape = |hidden| Shape {
        experts: 1,
        width,
        hidden,
        kind: model.activation.hidden(),
    };
    let per_slot = |hidden: usize| hidden + shape(hidden).gate() + width;
    let mut per_token = 0;
    let (mut most_slots, mut most_hidden) = (0, 0);
    for layer in 0..model.layers {
        // x, m, two norms, qkv, attention's output, log-sums and moments.
        per_token += 8 * width + model.heads + 4;
        let (slots, hidden, values) = match architecture.feed_forward(layer) {
            FeedForward::Dense { hidden } => (1, hidden, per_slot(hidden)),
            FeedForward::Sparse => {
                let slots = architecture.method.rule.k + experts.shared;
                let (hidden, scores) = (experts.hidden, experts.count * 2);
                (slots, hidden, slots * per_slot(hidden) + scores)
            }
        };
        per_token += values;
        most_slots = most_slots.max(slots);
        let shape = shape(hidden);
        most_hidden = most_hidden.max(slots * (hidden + shape.gate() + shape.activated()));
    }
    // Backward: two rows per slot, the hidden layer's gradients and h where it is not kept,
    // and eight or so rows per token; logits.
    per_token += 2 * most_slots * width + 10 * width + architecture.vocabulary;
    per_token += most_hidden;
    4 * tokens * per_token
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::model::tests::{architecture, run};

    #[test]
    fn the_cost_of_a_small_model_is_the_one_counted_by_hand() {
        // Width 6, two layers, 4 experts of 5, K = 2, sequences of 6, 7 characters.
        let run = run("smoe", "", "");
        let cost = Cost::of(&run, &architecture(&run));
        let block = 6 * 18 + 6 * 6 + 2 * 6;
        let (expert, router) = (2 * 6 * 5, 6 * 4);
        let ends = 2 * 7 * 6 + 6;
        assert_eq!(cost.parameters, 2 * (block + router + 4 * expert) + ends);
        let active = 2 * (block + router + 2 * expert) + ends;
        assert_eq!(cost.active_parameters, active);
        assert_eq!(cost.embedding_parameters, 2 * 42);
        let layer = 2 * (4 * 36) + 2 * 7 * 6 + 2 * 24 + 2 * 2 * expert;
        assert_eq!(cost.forward, (2 * layer + 2 * 42) as f64);
        assert_eq!(cost.competition, (2 * 2 * 2 * expert) as f64);
        assert_eq!(cost.step(10, 2, 0), 30.0 * cost.forward);
        let more = cost.step(10, 2, 1) - 30.0 * cost.forward;
        assert_eq!(more, 5.0 * cost.competition);
        // Where all are active nobody loses.
        let more = cost.step(10, 4, 1) - 30.0 * cost.forward;
        assert_eq!(more, 30.0 * (2 * 2 * 2 * expert) as f64);
    }

    #[test]
    fn a_competing_step_of_the_papers_model_costs_its_losers_forward_pass_more() {
        // E = 64, K = 8: (E / K + 2) / 3 of the feed-forward, no winner computed twice.
        let mut run = run("smoe", "", "");
        run.experts.count = 64;
        run.router.top_k = Some(8);
        let cost = Cost::of(&run, &architecture(&run));
        let ratio = 1.0 + cost.competition / (3.0 * cost.experts_forward);
        assert!((ratio - (64.0 / 8.0 + 2.0) / 3.0).abs() < 1e-12);
        assert_eq!(cost.overhead(0.0), 1.0);
    }

    #[test]
    fn a_dense_model_of_equal_active_size_has_as_many_active_parameters() {
        let sparse = run("smoe", "", "");
        let dense = run("smoe", "", "layout = \"dense\"");
        let total = run("smoe", "", "layout = \"dense\"\ndense_hidden = \"total\"");
        let of = |run: &Run| Cost::of(run, &architecture(run));
        let routers = 2 * 6 * 4;
        let active = of(&sparse).active_parameters - routers;
        assert_eq!(of(&dense).parameters, active);
        assert_eq!(of(&dense).active_parameters, active);
        assert_eq!(of(&total).parameters, of(&sparse).parameters - routers);
    }
}
