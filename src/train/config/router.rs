//! `[router]`: the method, and what the user changes of it.
//!
//! A method is a name for a set of choices; every choice can be overridden. f is the
//! share of assignments, see [`crate::train::router::balance`].
//!
//! | kind | scores | choice and weights | losses beside the task |
//! |---|---|---|---|
//! | `smoe` | x W | top K, softmax over the chosen | balance 0.01 `switch`, z 0.001 |
//! | `switch` | x W, input jittered by 1 % | top 1, its probability; capacity 1.25 | balance 0.01 `switch` |
//! | `noisy` | x W + normal * softplus(x V) | top K, softmax over the chosen | balance 0.01 `importance` |
//! | `smoe-dropout` | x W, W random and fixed | top K, K grows | none |
//! | `xmoe` | cosine of x W and embeddings, over 0.3 | top K, softmax of probabilities | balance 0.01 `switch` |
//! | `perturbed-cosine` | as `xmoe`, lengths + 0.1 | as `xmoe` | as `xmoe` |
//! | `sigma-moe` | x W | top K of sigmoids, renormalised | balance 0.01 `negative-entropy` |
//! | `deepseek-v3` | x W | top K of sigmoids + bias, renormalised, times 2.5 | balance 0.0001 `switch` per sequence; the bias moves by 0.001 |
//! | `unified` | x W | top K of the unified score (USMoE) | balance 0.01 `switch` |
//! | `competition` | experts' responses, at evaluation too | top K, in proportion | none |
//! | `compete-v1` | x W, taught by competition | top K, softmax over the chosen | [`super::competition`] |
//! | `compete-v2` | x W, taught by competition | top K, softmax over the chosen | [`super::competition`], z 0.001 |
//!
//! `switch` overrides the capacity only where `[experts]` gives none.

use crate::error::{Error, Result};
use crate::train::config::competition::{self, Competing};
use crate::train::config::{Layout, Run, positive, within};
use crate::train::router::balance::Balance;
use crate::train::router::combine::{Combine, TopK};
use crate::train::router::cosine::{Cosine, Normalised};
use crate::train::router::distribution::Distribution;
use crate::train::router::frozen::{ActiveExperts, Curve};
use crate::train::router::selection::Groups;
use serde::{Deserialize, Serialize};

/// `[router]` as written: absent values are the method's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// The method.
    #[serde(default)]
    pub kind: Kind,
    /// K, experts per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// How chosen experts are weighed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// Multiplies all weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Training multiplies every element of the router's input by a uniform number
    /// within this of 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// K over the steps of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k_schedule: Option<KSchedule>,
    /// Cosine scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<CosineTable>,
    /// Groups and biases of the choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// The router's balance loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceTable>,
    /// Coefficient of the z-loss; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub z_loss: Option<f64>,
    /// What becomes of the losses of several layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerReduction>,
}

/// The methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the module's table says what they are
pub enum Kind {
    #[default]
    Smoe,
    Switch,
    Noisy,
    SmoeDropout,
    Xmoe,
    PerturbedCosine,
    SigmaMoe,
    DeepseekV3,
    Unified,
    Competition,
    CompeteV1,
    CompeteV2,
}

/// K from the first to the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KSchedule {
    /// K at the first step.
    pub first: usize,
    /// K at the last step.
    pub last: usize,
    /// The way between.
    pub curve: Curve,
}

/// `[router.cosine]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CosineTable {
    /// Width of the space of embeddings; half the number of experts if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Whose length is divided out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalised: Option<Normalised>,
    /// Temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Added to lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theta: Option<f64>,
}

/// How experts are chosen other than by their scores alone (DeepSeek-V3).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Each step moves an expert's bias by this towards balance; 0 for no bias. The
    /// bias enters the choice, never the weights.
    #[serde(default)]
    pub bias_rate: f64,
    /// Groups that experts form, in order.
    #[serde(default = "one_group")]
    pub groups: usize,
    /// Groups a token may choose from: those with the largest sums of their two best
    /// scores.
    #[serde(default = "one_group")]
    pub kept_groups: usize,
}

fn one_group() -> usize {
    1
}

impl Selection {
    /// By scores alone.
    pub const PLAIN: Selection = Selection {
        bias_rate: 0.0,
        groups: 1,
        kept_groups: 1,
    };

    /// The groups alone.
    pub fn groups(&self) -> Groups {
        Groups {
            count: self.groups,
            kept: self.kept_groups,
        }
    }
}

/// `[router.balance]` and `[competition.balance]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceTable {
    /// Which loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Balance>,
    /// What it averages over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// How scores become probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Multiplies it; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coefficient: Option<f64>,
}

/// What a balance loss averages over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All micro-batches of the step. With more than one, counts are taken by a forward
    /// pass beforehand.
    Step,
    /// Each micro-batch by itself.
    MicroBatch,
    /// Each sequence by itself.
    Sequence,
}

/// What becomes of the losses of several layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerReduction {
    /// They are added up.
    Sum,
    /// Their mean is taken.
    Mean,
}

/// A balance loss with its coefficient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BalanceRule {
    /// Which loss.
    pub kind: Balance,
    /// What it averages over.
    pub scope: Scope,
    /// How scores become probabilities.
    pub distribution: Distribution,
    /// Multiplies it, the reduction over layers included.
    pub coefficient: f64,
}

/// Where scores come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// x W
    Linear,
    /// x W, W never trained
    Frozen,
    /// x W + normal * softplus(x V) in training
    Noisy,
    /// Cosine of x W with embeddings.
    Cosine {
        /// Its constants.
        cosine: Cosine,
        /// The temperature.
        temperature: f64,
    },
}

/// What evaluation routes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judge {
    /// The router.
    Router,
    /// The experts' responses.
    Experts,
}

/// A method with every value filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// Its name.
    pub kind: Kind,
    /// Where scores come from.
    pub scores: Scores,
    /// K at the end of training, and the weights.
    pub rule: TopK,
    /// K over training.
    pub active: ActiveExperts,
    /// Groups and biases.
    pub selection: Selection,
    /// Amplitude of the jitter.
    pub jitter: f64,
    /// Capacity in training.
    pub capacity_factor: Option<f64>,
    /// Capacity at evaluation.
    pub evaluation_capacity_factor: Option<f64>,
    /// The router's balance loss.
    pub balance: Option<BalanceRule>,
    /// Coefficient of the z-loss, the reduction over layers included.
    pub z_loss: f64,
    /// The competition.
    pub competing: Option<Competing>,
    /// What evaluation routes by.
    pub judge: Judge,
}

impl Method {
    /// Share of `steps` steps on which a layer competes.
    pub fn competition_rate(&self, steps: u64) -> f64 {
        self.competing.map_or(0.0, |c| c.mean_rate(steps))
    }
}

/// What a kind means before overrides.
struct Preset {
    top_k: usize,
    combine: Combine,
    scale: f64,
    jitter: f64,
    balance: Option<(Balance, Scope, Distribution, f64)>,
    z_loss: f64,
    bias_rate: f64,
    capacity_factor: Option<f64>,
}

impl Kind {
    fn preset(self) -> Preset {
        use Distribution::{Sigmoid, Softmax};
        let switch = Some((Balance::Switch, Scope::Step, Softmax, 0.01));
        let plain = Preset {
            top_k: 2,
            combine: Combine::TopKSoftmax,
            scale: 1.0,
            jitter: 0.0,
            balance: switch,
            z_loss: 0.0,
            bias_rate: 0.0,
            capacity_factor: None,
        };
        match self {
            Kind::Smoe => Preset {
                z_loss: 0.001,
                ..plain
            },
            Kind::Switch => Preset {
                top_k: 1,
                combine: Combine::SoftmaxTopK,
                jitter: 0.01,
                capacity_factor: Some(1.25),
                ..plain
            },
            Kind::Noisy => Preset {
                balance: Some((Balance::Importance, Scope::MicroBatch, Softmax, 0.01)),
                ..plain
            },
            Kind::SmoeDropout | Kind::Competition => Preset {
                balance: None,
                ..plain
            },
            Kind::Xmoe | Kind::PerturbedCosine => Preset {
                combine: Combine::SoftmaxTopKSoftmax,
                ..plain
            },
            Kind::SigmaMoe => Preset {
                combine: Combine::SigmoidTopKRenormalised,
                balance: Some((Balance::NegativeEntropy, Scope::Sequence, Softmax, 0.01)),
                ..plain
            },
            Kind::DeepseekV3 => Preset {
                combine: Combine::SigmoidTopKRenormalised,
                scale: 2.5,
                balance: Some((Balance::Switch, Scope::Sequence, Sigmoid, 0.0001)),
                bias_rate: 0.001,
                ..plain
            },
            Kind::Unified => Preset {
                combine: Combine::Unified,
                ..plain
            },
            Kind::CompeteV1 => plain,
            Kind::CompeteV2 => Preset {
                z_loss: 0.001,
                ..plain
            },
        }
    }
}

impl BalanceTable {
    /// The rule, from what is absent here; none if its coefficient is 0.
    pub(super) fn over(
        &self,
        key: &str,
        preset: Option<(Balance, Scope, Distribution, f64)>,
        share: f64,
        micro_batches: usize,
    ) -> Result<Option<BalanceRule>> {
        let (kind, scope, distribution, coefficient) =
            preset.unwrap_or((Balance::Switch, Scope::Step, Distribution::Softmax, 0.0));
        let kind = self.kind.unwrap_or(kind);
        let scope = self.scope.unwrap_or(scope);
        let coefficient = self.coefficient.unwrap_or(coefficient);
        within(&format!("{key}.coefficient"), coefficient, 0.0, 1e6)?;
        let linear = !matches!(kind, Balance::NegativeEntropy | Balance::Importance);
        if scope == Scope::Step && !linear && micro_batches > 1 {
            let message =
                "must be micro-batch or sequence: this loss is not a sum over micro-batches";
            return Err(Error::value(format!("{key}.scope"), message));
        }
        Ok((coefficient > 0.0).then_some(BalanceRule {
            kind,
            scope,
            distribution: self.distribution.unwrap_or(distribution),
            coefficient: coefficient * share,
        }))
    }
}

/// The method of a run, checked.
pub(super) fn resolve(run: &Run) -> Result<Method> {
    let (router, experts) = (&run.router, run.experts.count);
    let preset = router.kind.preset();
    let share = match router.layers.unwrap_or(LayerReduction::Sum) {
        LayerReduction::Sum => 1.0,
        LayerReduction::Mean => 1.0 / run.model.sparse_layers().max(1) as f64,
    };
    let k = router.top_k.unwrap_or(preset.top_k);
    if k == 0 || k > experts {
        let message = format!("must be 1 to {experts}, the number of experts");
        return Err(Error::value("router.top_k", message));
    }
    let active = match (router.k_schedule, router.kind) {
        (Some(s), _) => ActiveExperts::new(s.first, s.last, s.curve, experts)?,
        (None, Kind::SmoeDropout) => ActiveExperts::new(k, experts, Curve::Linear, experts)?,
        (None, _) => ActiveExperts::new(k, k, Curve::Linear, experts)?,
    };
    let rule = TopK {
        k,
        combine: router.combine.unwrap_or(preset.combine),
        scale: router.scale.unwrap_or(preset.scale),
    };
    if rule.combine == Combine::LinearTopKRenormalised {
        let message = "is for responses, which are not negative, not for a router's scores";
        return Err(Error::value("router.combine", message));
    }
    within("router.scale", rule.scale, 1e-6, 1e6)?;
    let jitter = router.jitter.unwrap_or(preset.jitter);
    within("router.jitter", jitter, 0.0, 0.99)?;
    let selection = router.selection.unwrap_or(Selection {
        bias_rate: preset.bias_rate,
        ..Selection::PLAIN
    });
    within("router.selection.bias_rate", selection.bias_rate, 0.0, 1.0)?;
    selection.groups().check(k, experts)?;
    let micro_batches = run.batch.micro_batches;
    let table = router.balance.unwrap_or_default();
    let z_loss = router.z_loss.unwrap_or(preset.z_loss);
    within("router.z_loss", z_loss, 0.0, 1e6)?;
    let competing = competition::resolve(run, rule, share)?;
    if run.model.layout == Layout::Dense && run.competition.is_some() {
        let message = "needs experts, and model.layout is dense";
        return Err(Error::value("competition", message));
    }
    Ok(Method {
        kind: router.kind,
        scores: scores(router, experts)?,
        rule,
        active,
        selection,
        jitter,
        capacity_factor: run.experts.capacity_factor.or(preset.capacity_factor),
        evaluation_capacity_factor: run.experts.evaluation_capacity_factor,
        balance: table.over("router.balance", preset.balance, share, micro_batches)?,
        z_loss: z_loss * share,
        judge: match router.kind {
            Kind::Competition => Judge::Experts,
            _ => Judge::Router,
        },
        competing,
    })
}

fn scores(router: &Router, experts: usize) -> Result<Scores> {
    let cosine = matches!(router.kind, Kind::Xmoe | Kind::PerturbedCosine);
    if router.cosine.is_some() && !cosine {
        let message = "is for xmoe and perturbed-cosine";
        return Err(Error::value("router.cosine", message));
    }
    let table = router.cosine.unwrap_or_default();
    let theta = match router.kind {
        Kind::PerturbedCosine => 0.1,
        _ => 0.0,
    };
    Ok(match router.kind {
        Kind::SmoeDropout => Scores::Frozen,
        Kind::Noisy => Scores::Noisy,
        Kind::Xmoe | Kind::PerturbedCosine => {
            let width = table.width.unwrap_or((experts / 2).max(2));
            positive("router.cosine.width", width as u64)?;
            let temperature = table.temperature.unwrap_or(0.3);
            within("router.cosine.temperature", temperature, 1e-4, 1e4)?;
            let theta = table.theta.unwrap_or(theta);
            within("router.cosine.theta", theta, 0.0, 1e4)?;
            Scores::Cosine {
                cosine: Cosine {
                    normalised: table.normalised.unwrap_or(Normalised::Both),
                    theta,
                    width,
                },
                temperature,
            }
        }
        _ => Scores::Linear,
    })
}
