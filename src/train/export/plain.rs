//! Our own description, flat, as `tests/reference/model.py` reads it.

use crate::train::config::competition::{Competing, Learners, Pupils, RouterLosses};
use crate::train::config::model::DenseHidden;
use crate::train::config::router::{BalanceRule, Judge};
use crate::train::config::{FeedForward, Scores};
use crate::train::export::family::table;
use crate::train::model::Architecture;
use crate::train::router::combine::UNIFIED_SIGMOID_SHARE;
use crate::train::router::distillation::Loss;
use crate::train::router::distribution::Distribution;
use serde_json::{Map, Value, json};

/// `config.json`: the model as it evaluates, with the coefficients it was trained by.
pub fn config(architecture: &Architecture) -> Value {
    let (model, experts) = (&architecture.model, &architecture.experts);
    let method = &architecture.method;
    let layers = 0..model.layers;
    let sparse = |l| architecture.feed_forward(l) == FeedForward::Sparse;
    let dense_hidden = match model.dense_hidden {
        DenseHidden::Width(width) => Some(width),
        DenseHidden::Equal(_) => layers
            .clone()
            .find_map(|l| match architecture.feed_forward(l) {
                FeedForward::Dense { hidden } => Some(hidden),
                FeedForward::Sparse => None,
            }),
    };
    let layout = |l| if sparse(l) { "sparse" } else { "dense" };
    let competes = |l| sparse(l) && method.judge == Judge::Experts;
    let mut config = Map::new();
    let mut put = |part: Value| config.extend(table(part));
    put(json!({
        "vocabulary": architecture.vocabulary,
        "layers": model.layers,
        "width": model.width,
        "heads": model.heads,
        "position": model.position,
        "norm": model.norm,
        "activation": model.activation,
        "bias": model.bias,
        "head": model.head,
        "layout": layers.clone().map(layout).collect::<Vec<_>>(),
        "dense_hidden": dense_hidden,
        "experts": experts.count,
        "hidden": experts.hidden,
        "shared": experts.shared,
        "router": method.kind,
        "top_k": method.rule.k,
        "combine": method.rule.combine,
        "scale": method.rule.scale,
    }));
    if let Scores::Cosine {
        cosine,
        temperature,
    } = method.scores
    {
        put(json!({
            "cosine_width": cosine.width,
            "cosine_normalised": cosine.normalised,
            "cosine_temperature": temperature,
            "cosine_theta": cosine.theta,
        }));
    }
    put(json!({
        "unified_share": UNIFIED_SIGMOID_SHARE,
        "selection_bias": method.selection.bias_rate > 0.0,
        "groups": method.selection.groups,
        "kept_groups": method.selection.kept_groups,
        "capacity_factor": method.evaluation_capacity_factor,
        "drop": experts.drop,
    }));
    put(balance("balance", method.balance.as_ref()));
    put(json!({
        "z_loss": method.z_loss,
        "competing": layers.map(competes).collect::<Vec<_>>(),
    }));
    put(match &method.competing {
        Some(competing) => competition(competing),
        None => json!({ "coefficient": 0.0, "diversity": 0.0 }),
    });
    let responses = method.competing.and_then(|c| c.balance);
    put(balance("competition_balance", responses.as_ref()));
    Value::Object(config)
}

/// The keys of a balance loss, which start alike.
fn balance(key: &str, rule: Option<&BalanceRule>) -> Value {
    let name = |part: &str| format!("{key}{part}");
    let distribution = rule.map(|rule| match rule.distribution {
        // See `compatibility`.
        Distribution::SoftmaxTwice => Distribution::Softmax,
        other => other,
    });
    json!({
        (name("")): rule.map(|rule| rule.kind),
        (name("_scope")): rule.map(|rule| rule.scope),
        (name("_distribution")): distribution,
        (name("_coefficient")): rule.map_or(0.0, |rule| rule.coefficient),
    })
}

fn competition(competing: &Competing) -> Value {
    let rule = &competing.rule;
    let (distillation, theta) = match rule.distillation {
        Loss::Full => ("full", None),
        Loss::Winners => ("winners", None),
        Loss::Hybrid { theta } => ("hybrid", Some(theta)),
        Loss::Tribrid { theta } => ("tribrid", Some(theta)),
        Loss::Divergence => ("divergence", None),
    };
    let twice = |rule: BalanceRule| rule.distribution == Distribution::SoftmaxTwice;
    let habits = [
        (
            "target-gradient",
            competing.pupils == Pupils::RouterAndExperts,
        ),
        ("double-softmax", competing.balance.is_some_and(twice)),
    ];
    let habits = habits.iter().filter(|(_, is)| *is).map(|(name, _)| *name);
    json!({
        "response": rule.response,
        "competition_combine": rule.winners.combine,
        "target": rule.target,
        "temperature": rule.sharpening.temperature,
        "spread": rule.sharpening.spread,
        "distillation": distillation,
        "theta": theta,
        "coefficient": competing.coefficient,
        "diversity": competing.diversity.map_or(0.0, |(_, coefficient)| coefficient),
        "diversity_pairs": competing.diversity.map(|(pairs, _)| pairs),
        "balance_gradient": match competing.learners {
            Learners::Winners => "winners",
            Learners::All => "all",
        },
        "router_losses": match competing.router_losses {
            RouterLosses::RoutedSteps => "routed-steps",
            RouterLosses::AllSteps => "all-steps",
        },
        "compatibility": habits.collect::<Vec<_>>(),
    })
}
