//! `[competition]`: what experts decide themselves, and what the router learns from it.
//!
//! | key | `compete-v1` | `compete-v2` | `competition` |
//! |---|---|---|---|
//! | `response` | `norm` | `softplus-mean` | `softplus-mean` |
//! | `combine` | `top-k-softmax` | `linear-top-k-renormalised` | `linear-top-k-renormalised` |
//! | `target` | `winners` | `all` | |
//! | `distillation` | `full` | `hybrid`, theta 0.2 | |
//! | `coefficient` | 0.05 | 0.001 | 0 |
//! | `diversity` | 0 | 0.005 | 0 |
//! | `balance` | none | none | none |
//! | `schedule` | 2 / (2 + sqrt(t + 1)), t of 1000 steps | omega 0.07, A_max 3 | always |
//!
//! The algorithms as their papers describe them, without the faults of the published
//! code. Its habits can be asked for by name in `compatibility`.

use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use crate::train::config::router::{BalanceRule, BalanceTable, Kind, Scope};
use crate::train::config::{Run, within};
use crate::train::router::balance::Balance;
use crate::train::router::combine::{Combine, TopK};
use crate::train::router::competition::Competition;
use crate::train::router::distillation::{Loss, Sharpening, Spread, Target};
use crate::train::router::distribution::Distribution;
use crate::train::router::diversity::Pairs;
use crate::train::router::response::Response;
use crate::train::router::schedule::{self, Schedule};
use serde::{Deserialize, Serialize};

/// `[competition]` as written: absent values are the method's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// How an output is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// Winners' weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// What the router should say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Responses are divided by it before the target's softmax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Whether responses are standardised before the target's softmax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
    /// How the router is compared with the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// Weight of the extra terms of hybrid and tribrid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theta: Option<f64>,
    /// Multiplies the distillation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coefficient: Option<f64>,
    /// Multiplies the diversity loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diversity: Option<f64>,
    /// What the diversity loss divides by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diversity_pairs: Option<Pairs>,
    /// A balance loss of the responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<BalanceTable>,
    /// Who learns from the balance loss of the responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance_gradient: Option<Learners>,
    /// What the choice on a competing step is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// Whether the router's own losses apply on competing steps too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_losses: Option<RouterLosses>,
    /// When layers compete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Habits of the published code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compatibility: Vec<Compatibility>,
}

/// How the router is compared with the target, see
/// [`crate::train::router::distillation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Distillation {
    Full,
    Winners,
    Hybrid,
    Tribrid,
    Divergence,
}

/// Who learns from the balance loss of the responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learners {
    /// Winners only: losers need no backward pass.
    Winners,
    /// All experts, the exact gradient; losers are computed again for it.
    All,
}

/// What the choice on a competing step is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Responses.
    Responses,
    /// Half responses, half the router's scores: v1's `combine_gate`.
    ResponsesAndScores,
}

/// Whether the router's own losses apply on competing steps too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterLosses {
    /// On steps that the router decides.
    RoutedSteps,
    /// On all.
    AllSteps,
}

/// Habits of the published code that change results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compatibility {
    /// The target is not detached: distillation teaches experts too (v1). With the
    /// target `all` that is every expert, as with `balance_gradient = "all"`.
    TargetGradient,
    /// The balance loss of responses takes their softmax twice (v2's language code):
    /// [`Distribution::SoftmaxTwice`].
    DoubleSoftmax,
}

/// Whom the distillation teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pupils {
    /// The router; the target is a constant, as published.
    Router,
    /// The router, and through the target all experts: v1's code.
    RouterAndExperts,
}

/// A competition with every value filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Competing {
    /// Responses, winners, lesson.
    pub rule: Competition,
    /// Multiplies the distillation, the reduction over layers included.
    pub coefficient: f64,
    /// The diversity loss, the reduction over layers included.
    pub diversity: Option<(Pairs, f64)>,
    /// A balance loss of the responses.
    pub balance: Option<BalanceRule>,
    /// Who learns from it.
    pub learners: Learners,
    /// Whom the distillation teaches.
    pub pupils: Pupils,
    /// What the choice is made of.
    pub choice: Choice,
    /// Whether the router's own losses apply too.
    pub router_losses: RouterLosses,
    /// When layers compete.
    pub schedule: Schedule,
}

impl Competing {
    /// When which layers of a run compete.
    ///
    /// # Errors
    /// As [`Schedule::table`].
    pub fn table(&self, seed: u64, layers: usize, steps: u64) -> Result<schedule::Table> {
        let stream = Stream::named(seed, "competition", 0, Purpose::Schedule);
        self.schedule.table(&stream, layers, steps)
    }

    /// Probability that a layer competes at a step, averaged over `steps`.
    pub fn mean_rate(&self, steps: u64) -> f64 {
        match self.schedule {
            Schedule::Constant { rate } => rate,
            Schedule::InverseRoot {
                steps_per_iteration,
            } => {
                let iterations = steps.div_ceil(steps_per_iteration.max(1)).max(1);
                let rate = |t: u64| 2.0 / (2.0 + (t as f64 + 1.0).sqrt());
                (0..iterations).map(rate).sum::<f64>() / iterations as f64
            }
            Schedule::Budgeted { rate, warm_up, .. } => rate * (1.0 - warm_up),
        }
    }
}

struct Preset {
    rule: Competition,
    theta: f64,
    distillation: Distillation,
    coefficient: f64,
    diversity: f64,
    schedule: Schedule,
}

fn preset(kind: Kind, k: usize) -> Option<Preset> {
    match kind {
        Kind::CompeteV1 => Some(Preset {
            rule: Competition::first_version(k),
            theta: 0.2,
            distillation: Distillation::Full,
            coefficient: 0.05,
            diversity: 0.0,
            schedule: Schedule::InverseRoot {
                steps_per_iteration: 1000,
            },
        }),
        Kind::CompeteV2 => Some(Preset {
            rule: Competition::second_version(k),
            theta: 0.2,
            distillation: Distillation::Hybrid,
            coefficient: 0.001,
            diversity: 0.005,
            schedule: Schedule::Budgeted {
                rate: 0.07,
                budget: 3,
                warm_up: 0.0,
            },
        }),
        Kind::Competition => Some(Preset {
            rule: Competition::second_version(k),
            theta: 0.0,
            distillation: Distillation::Full,
            coefficient: 0.0,
            diversity: 0.0,
            schedule: Schedule::Constant { rate: 1.0 },
        }),
        _ => None,
    }
}

/// The competition of a run, checked; none for methods without.
pub(super) fn resolve(run: &Run, router: TopK, share: f64) -> Result<Option<Competing>> {
    let Some(preset) = preset(run.router.kind, router.k) else {
        return match run.competition {
            None => Ok(None),
            Some(_) => {
                let message = "is for the kinds competition, compete-v1 and compete-v2";
                Err(Error::value("competition", message))
            }
        };
    };
    let table = run.competition.clone().unwrap_or_default();
    let theta = table.theta.unwrap_or(preset.theta);
    within("competition.theta", theta, 0.0, 1e6)?;
    let temperature = table.temperature.unwrap_or(1.0);
    within("competition.temperature", temperature, 1e-6, 1e6)?;
    let coefficient = table.coefficient.unwrap_or(preset.coefficient);
    within("competition.coefficient", coefficient, 0.0, 1e6)?;
    let diversity = table.diversity.unwrap_or(preset.diversity);
    within("competition.diversity", diversity, 0.0, 1e6)?;
    let schedule = table.schedule.unwrap_or(preset.schedule);
    schedule.check(run.model.sparse_layers())?;
    let mut balance = table.balance.unwrap_or_default().over(
        "competition.balance",
        Some((Balance::Switch, Scope::Step, Distribution::Softmax, 0.0)),
        share,
        run.batch.micro_batches,
    )?;
    let response = table.response.unwrap_or(preset.rule.response);
    let combine = table.combine.unwrap_or(preset.rule.winners.combine);
    let choice = table.choice.unwrap_or(Choice::Responses);
    let negative = response == Response::SiluMean || choice == Choice::ResponsesAndScores;
    if combine == Combine::LinearTopKRenormalised && negative {
        let message = "linear-top-k-renormalised needs what is never negative, unlike silu-mean \
            and the router's scores";
        return Err(Error::value("competition.combine", message));
    }
    let target = table.target.unwrap_or(preset.rule.target);
    let habit = |habit| table.compatibility.contains(&habit);
    let pupils = match habit(Compatibility::TargetGradient) {
        true => Pupils::RouterAndExperts,
        false => Pupils::Router,
    };
    if habit(Compatibility::DoubleSoftmax) {
        let Some(balance) = &mut balance else {
            let message = "double-softmax is about competition.balance, which has no coefficient";
            return Err(Error::value("competition.compatibility", message));
        };
        balance.distribution = Distribution::SoftmaxTwice;
    }
    Ok(Some(Competing {
        rule: Competition {
            response,
            winners: TopK {
                combine,
                ..preset.rule.winners
            },
            target,
            sharpening: Sharpening {
                temperature,
                spread: table.spread.unwrap_or(Spread::Raw),
            },
            distillation: match table.distillation.unwrap_or(preset.distillation) {
                Distillation::Full => Loss::Full,
                Distillation::Winners => Loss::Winners,
                Distillation::Hybrid => Loss::Hybrid { theta },
                Distillation::Tribrid => Loss::Tribrid { theta },
                Distillation::Divergence => Loss::Divergence,
            },
        },
        coefficient: coefficient * share,
        diversity: (diversity > 0.0).then_some((
            table.diversity_pairs.unwrap_or(Pairs::WithDiagonal),
            diversity * share,
        )),
        balance,
        learners: table.balance_gradient.unwrap_or(match (pupils, target) {
            // A target of all responses teaches the losers too.
            (Pupils::RouterAndExperts, Target::All) => Learners::All,
            _ => Learners::Winners,
        }),
        pupils,
        choice,
        router_losses: table.router_losses.unwrap_or(RouterLosses::RoutedSteps),
        schedule,
    }))
}
