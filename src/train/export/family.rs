//! Whose models can stand for ours.
//!
//! All need rotary positions, RMS norm, `swiglu`, no biases, no capacity at
//! evaluation, and a router with linear scores. Heads may be tied or not.
//!
//! | | Mixtral | Qwen2-MoE | GLM-4-MoE |
//! |---|---|---|---|
//! | `router.combine` | `top-k-softmax`, `softmax-top-k-renormalised` | these, `softmax-top-k` | `sigmoid-top-k-renormalised` |
//! | `router.scale` | 1 | 1 | any |
//! | `router.selection` | none | none | any; groups of at least 2 experts |
//! | `experts.shared` | 0 | any | any |
//! | `model.layout` | `every-layer` | any | sparse layers after any number of dense ones |
//!
//! Nobody's models have cosine or unified scores, or experts that judge themselves.
//! OLMoE and Qwen3-MoE normalise queries and keys, and no weights undo that. A
//! GLM-4-MoE counts experts of other groups as 0 where ours leaves them out: the same
//! as long as scores with their bias are positive.

use crate::error::{Error, Result};
use crate::train::config::model::{Bias, Head, NORM_EPSILON, ROTARY_BASE, Unit};
use crate::train::config::router::Judge;
use crate::train::config::{FeedForward, Layout, Position, Scores};
use crate::train::model::Architecture;
use crate::train::ops::norm::Norm;
use crate::train::router::combine::Combine;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A model of Hugging Face transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Family {
    Mixtral,
    Qwen2Moe,
    Glm4Moe,
}

/// As it is spelled in a run's file.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(e) => e.to_string(),
    }
}

impl Family {
    /// All, in the order in which they are tried.
    pub const ALL: [Family; 3] = [Family::Mixtral, Family::Qwen2Moe, Family::Glm4Moe];

    /// Its name in their files.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Mixtral => "mixtral",
            Family::Qwen2Moe => "qwen2_moe",
            Family::Glm4Moe => "glm4_moe",
        }
    }

    /// The first that can stand for this model.
    ///
    /// # Errors
    /// [`Error::Value`] with a key that none of them has.
    pub fn of(architecture: &Architecture) -> Result<Family> {
        let sigmoid = architecture.method.rule.combine == Combine::SigmoidTopKRenormalised;
        let last = match sigmoid && architecture.model.layout != Layout::Dense {
            true => Family::Glm4Moe,
            false => Family::Qwen2Moe,
        };
        let mut all = Family::ALL.into_iter();
        match all.find(|family| family.check(architecture).is_ok()) {
            Some(family) => Ok(family),
            // Its reason is the one that no other family has an answer to.
            None => last.check(architecture).map(|()| last),
        }
    }

    /// Fails unless it can stand for this model.
    ///
    /// # Errors
    /// [`Error::Value`] with the key that it has not.
    pub fn check(self, architecture: &Architecture) -> Result<()> {
        if architecture.model.layout != Layout::Dense {
            self.check_method(architecture)?;
        }
        self.check_layout(architecture)?;
        let model = &architecture.model;
        if model.position != Position::Rotary {
            return self.refuse("model.position", "rotary", word(model.position));
        }
        if model.norm != Norm::RootMeanSquare {
            return self.refuse("model.norm", "root-mean-square", word(model.norm));
        }
        if model.activation != Unit::Swiglu {
            return self.refuse("model.activation", "swiglu", word(model.activation));
        }
        match model.bias {
            Bias::Nowhere => Ok(()),
            Bias::Everywhere => self.refuse("model.bias", "nowhere", word(model.bias)),
        }
    }

    fn refuse(self, key: &str, needed: &str, is: impl std::fmt::Display) -> Result<()> {
        let message = format!("must be {needed} for {}, is {is}", self.model_type());
        Err(Error::value(key, message))
    }

    fn check_layout(self, architecture: &Architecture) -> Result<()> {
        let layout = architecture.model.layout;
        let (sparse, dense) = (
            architecture.model.sparse_layers(),
            first_dense(architecture),
        );
        let fits = match self {
            Family::Mixtral => layout == Layout::EveryLayer,
            Family::Qwen2Moe => true,
            Family::Glm4Moe => dense + sparse == architecture.model.layers && sparse > 0,
        };
        let needed = match self {
            Family::Glm4Moe => "sparse layers after dense ones",
            Family::Mixtral | Family::Qwen2Moe => "every-layer",
        };
        match fits {
            true => Ok(()),
            false => self.refuse("model.layout", needed, word(layout)),
        }
    }

    fn check_method(self, architecture: &Architecture) -> Result<()> {
        let (experts, method) = (&architecture.experts, &architecture.method);
        let linear = matches!(
            method.scores,
            Scores::Linear | Scores::Frozen | Scores::Noisy
        );
        if !linear || method.judge == Judge::Experts {
            return self.refuse("router.kind", "one with linear scores", word(method.kind));
        }
        let rule = &method.rule;
        let combines: &[Combine] = match self {
            Family::Mixtral => &[Combine::TopKSoftmax, Combine::SoftmaxTopKRenormalised],
            Family::Qwen2Moe => &[
                Combine::TopKSoftmax,
                Combine::SoftmaxTopKRenormalised,
                Combine::SoftmaxTopK,
            ],
            Family::Glm4Moe => &[Combine::SigmoidTopKRenormalised],
        };
        if !combines.contains(&rule.combine) {
            let words: Vec<String> = combines.iter().map(word).collect();
            return self.refuse("router.combine", &words.join(" or "), word(rule.combine));
        }
        if let Some(factor) = method.evaluation_capacity_factor {
            return self.refuse("experts.evaluation_capacity_factor", "absent", factor);
        }
        let (groups, kept) = (method.selection.groups, method.selection.kept_groups);
        let grouped = kept < groups;
        if self == Family::Glm4Moe {
            return match grouped && experts.count / groups < 2 {
                true => {
                    let needed = "of at least 2 experts each";
                    self.refuse("router.selection.groups", needed, groups)
                }
                false => Ok(()),
            };
        }
        if rule.scale != 1.0 {
            return self.refuse("router.scale", "1", rule.scale);
        }
        if grouped {
            return self.refuse("router.selection.groups", "1", groups);
        }
        if method.selection.bias_rate > 0.0 {
            let rate = method.selection.bias_rate;
            return self.refuse("router.selection.bias_rate", "0", rate);
        }
        if self == Family::Mixtral && experts.shared > 0 {
            return self.refuse("experts.shared", "0", experts.shared);
        }
        Ok(())
    }

    /// Their `config.json`, for a model that it can stand for.
    pub fn config(self, architecture: &Architecture) -> Value {
        let (model, experts) = (&architecture.model, &architecture.experts);
        let method = &architecture.method;
        let mut config = table(json!({
            "model_type": self.model_type(),
            "vocab_size": architecture.vocabulary,
            "hidden_size": model.width,
            "num_hidden_layers": model.layers,
            "num_attention_heads": model.heads,
            "num_key_value_heads": model.heads,
            "head_dim": model.head_width(),
            "hidden_act": "silu",
            "rms_norm_eps": NORM_EPSILON,
            "rope_theta": ROTARY_BASE,
            "max_position_embeddings": architecture.length,
            "tie_word_embeddings": model.head == Head::Tied,
            "num_experts_per_tok": method.rule.k,
            "bos_token_id": null,
            "eos_token_id": null,
            "torch_dtype": "float32",
        }));
        let dense = (0..model.layers).find_map(|l| match architecture.feed_forward(l) {
            FeedForward::Dense { hidden } => Some(hidden),
            FeedForward::Sparse => None,
        });
        let own = match self {
            Family::Mixtral => json!({
                "architectures": ["MixtralForCausalLM"],
                "intermediate_size": experts.hidden,
                "num_local_experts": experts.count,
                "sliding_window": null,
            }),
            Family::Qwen2Moe => {
                let is_dense = |l: &usize| architecture.feed_forward(*l) != FeedForward::Sparse;
                json!({
                    "architectures": ["Qwen2MoeForCausalLM"],
                    "intermediate_size": dense.unwrap_or(experts.hidden),
                    "moe_intermediate_size": experts.hidden,
                    "num_experts": experts.count,
                    "norm_topk_prob": method.rule.combine != Combine::SoftmaxTopK,
                    "shared_expert_intermediate_size": experts.shared.max(1) * experts.hidden,
                    "mlp_only_layers": (0..model.layers).filter(is_dense).collect::<Vec<_>>(),
                    "decoder_sparse_step": 1,
                    "qkv_bias": false,
                    "use_sliding_window": false,
                })
            }
            Family::Glm4Moe => json!({
                "architectures": ["Glm4MoeForCausalLM"],
                "intermediate_size": dense.unwrap_or(experts.hidden),
                "moe_intermediate_size": experts.hidden,
                "n_routed_experts": experts.count,
                "n_shared_experts": experts.shared.max(1),
                "n_group": groups(architecture)[0],
                "topk_group": groups(architecture)[1],
                "norm_topk_prob": true,
                "routed_scaling_factor": method.rule.scale,
                "first_k_dense_replace": first_dense(architecture),
                "partial_rotary_factor": 1.0,
                "use_qk_norm": false,
                "attention_bias": false,
            }),
        };
        config.extend(table(own));
        Value::Object(config)
    }
}

/// The keys of a table.
pub(super) fn table(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(table) => table,
        _ => Map::new(),
    }
}

/// Groups and kept groups; one where all are kept.
fn groups(architecture: &Architecture) -> [usize; 2] {
    let selection = architecture.method.selection;
    match selection.kept_groups < selection.groups {
        true => [selection.groups, selection.kept_groups],
        false => [1, 1],
    }
}

/// Dense layers before the first sparse one.
fn first_dense(architecture: &Architecture) -> usize {
    let is_dense = |l: &usize| architecture.feed_forward(*l) != FeedForward::Sparse;
    (0..architecture.model.layers).take_while(is_dense).count()
}
