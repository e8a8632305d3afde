//! Which array of ours is which of theirs; `tests/reference/export.py` says the same
//! in Python.
//!
//! Ours computes y = x W with W of shape (in, out); theirs keeps (out, in). T is the
//! transpose, w the width, E an expert's own rows of a matrix of all experts. The
//! names are those of checkpoints of transformers 4, which version 5 fuses while it
//! loads, and which other programs read too.
//!
//! | ours | Mixtral | Qwen2-MoE and GLM-4-MoE |
//! |---|---|---|
//! | embedding.weight | model.embed_tokens.weight | same |
//! | layers.L.attention_norm.gain | model.layers.L.input_layernorm.weight | same |
//! | attention.qkv.weight T, rows 0..w, w..2w, 2w..3w | self_attn.q_proj, k_proj, v_proj.weight | same |
//! | attention.out.weight T | self_attn.o_proj.weight | same |
//! | feed_forward_norm.gain | post_attention_layernorm.weight | same |
//! | router.weight T | block_sparse_moe.gate.weight | mlp.gate.weight |
//! | router.bias, or zeros | | mlp.gate.e_score_correction_bias (GLM) |
//! | experts.gate, down, up .weight E T | block_sparse_moe.experts.E.w1, w2, w3.weight | mlp.experts.E.gate_proj, down_proj, up_proj.weight |
//! | shared.gate, down, up | | one expert as wide as all: mlp.shared_expert (Qwen), shared_experts (GLM) |
//! | dense.gate, down, up .weight T | | mlp.gate_proj, down_proj, up_proj.weight |
//! | final_norm.gain | model.norm.weight | same |
//! | head.weight T, absent if tied | lm_head.weight | same |
//!
//! Qwen2-MoE gates its shared expert by a sigmoid: a gate of weight 0 is 1/2, so that
//! down-projections are written twice as large. Both always have a shared expert; a
//! model without gets one of zeros.

use crate::train::config::FeedForward;
use crate::train::config::model::Head;
use crate::train::export::array::Array;
use crate::train::export::family::Family;
use crate::train::model::Architecture;
use std::collections::BTreeMap;

type Arrays = BTreeMap<String, Array>;

/// The parts of a gated feed-forward: ours, Mixtral's, the others'.
const PARTS: [(&str, &str, &str); 3] = [
    ("gate", "w1", "gate_proj"),
    ("down", "w2", "down_proj"),
    ("up", "w3", "up_proj"),
];

/// Their names and arrays, for a model that the family can stand for.
pub(super) fn arrays(architecture: &Architecture, family: Family, ours: &Arrays) -> Arrays {
    let mut layers = Mapping {
        architecture,
        family,
        ours,
        theirs: Arrays::new(),
    };
    layers.map();
    layers.theirs
}

struct Mapping<'a> {
    architecture: &'a Architecture,
    family: Family,
    ours: &'a Arrays,
    theirs: Arrays,
}

impl Mapping<'_> {
    fn map(&mut self) {
        let embedding = self.ours["embedding.weight"].clone();
        self.put("model.embed_tokens.weight", embedding);
        self.put("model.norm.weight", self.ours["final_norm.gain"].vector());
        if self.architecture.model.head == Head::Untied {
            self.put("lm_head.weight", self.ours["head.weight"].transposed());
        }
        for layer in 0..self.architecture.model.layers {
            self.attention(layer);
            match self.architecture.feed_forward(layer) {
                FeedForward::Dense { .. } => self.dense(layer),
                FeedForward::Sparse => self.sparse(layer),
            }
        }
    }

    fn put(&mut self, name: impl Into<String>, array: Array) {
        self.theirs.insert(name.into(), array);
    }

    fn own(&self, layer: usize, name: &str) -> &Array {
        &self.ours[&format!("layers.{layer}.{name}")]
    }

    fn attention(&mut self, layer: usize) {
        let prefix = format!("model.layers.{layer}.");
        for (ours, theirs) in [
            ("attention_norm.gain", "input_layernorm"),
            ("feed_forward_norm.gain", "post_attention_layernorm"),
        ] {
            let gain = self.own(layer, ours).vector();
            self.put(format!("{prefix}{theirs}.weight"), gain);
        }
        let width = self.architecture.model.width;
        let qkv = self.own(layer, "attention.qkv.weight").transposed();
        for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
            let rows = qkv.rows(part * width..(part + 1) * width);
            self.put(format!("{prefix}self_attn.{name}_proj.weight"), rows);
        }
        let out = self.own(layer, "attention.out.weight").transposed();
        self.put(format!("{prefix}self_attn.o_proj.weight"), out);
    }

    fn dense(&mut self, layer: usize) {
        for (part, _, theirs) in PARTS {
            let weight = self.own(layer, &format!("dense.{part}.weight"));
            let weight = weight.transposed();
            self.put(format!("model.layers.{layer}.mlp.{theirs}.weight"), weight);
        }
    }

    fn sparse(&mut self, layer: usize) {
        let prefix = match self.family {
            Family::Mixtral => format!("model.layers.{layer}.block_sparse_moe."),
            Family::Qwen2Moe | Family::Glm4Moe => format!("model.layers.{layer}.mlp."),
        };
        let router = self.own(layer, "router.weight").transposed();
        self.put(format!("{prefix}gate.weight"), router);
        let count = self.architecture.experts.count;
        for (part, mixtral, other) in PARTS {
            let name = match self.family {
                Family::Mixtral => mixtral,
                Family::Qwen2Moe | Family::Glm4Moe => other,
            };
            for (expert, weight) in self.each(layer, "experts", part, count).enumerate() {
                let weight = weight.transposed();
                self.put(format!("{prefix}experts.{expert}.{name}.weight"), weight);
            }
        }
        match self.family {
            Family::Mixtral => {}
            Family::Qwen2Moe => {
                let gate = Array::zeros([1, self.architecture.model.width]);
                self.put(format!("{prefix}shared_expert_gate.weight"), gate);
                self.shared(layer, &format!("{prefix}shared_expert."), 2.0);
            }
            Family::Glm4Moe => {
                let bias = self.ours.get(&format!("layers.{layer}.router.bias"));
                let bias = bias.map_or(Array::zeros([1, count]), Array::clone).vector();
                self.put(format!("{prefix}gate.e_score_correction_bias"), bias);
                self.shared(layer, &format!("{prefix}shared_experts."), 1.0);
            }
        }
    }

    /// The matrices of every expert.
    fn each(
        &self,
        layer: usize,
        group: &str,
        part: &str,
        count: usize,
    ) -> impl Iterator<Item = Array> + use<> {
        let all = self.own(layer, &format!("{group}.{part}.weight")).clone();
        let rows = all.shape()[0] / count.max(1);
        (0..count).map(move |expert| all.rows(expert * rows..(expert + 1) * rows))
    }

    /// All shared experts as one: hidden units side by side.
    fn shared(&mut self, layer: usize, prefix: &str, scale: f32) {
        let experts = self.architecture.experts;
        let (width, hidden) = (self.architecture.model.width, experts.hidden);
        for (part, _, theirs) in PARTS {
            let array = match (experts.shared, part) {
                (0, "down") => Array::zeros([width, hidden]),
                (0, _) => Array::zeros([hidden, width]),
                (_, "down") => {
                    let all = self.own(layer, "shared.down.weight");
                    all.times(scale).transposed()
                }
                (count, _) => {
                    let each = self.each(layer, "shared", part, count);
                    Array::stacked(&each.map(|w| w.transposed()).collect::<Vec<_>>())
                }
            };
            self.put(format!("{prefix}{theirs}.weight"), array);
        }
    }
}
