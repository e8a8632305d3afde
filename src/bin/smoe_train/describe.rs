//! What a run would cost.

use smoe_lab::error::Result;
use smoe_lab::train::config::Run;
use smoe_lab::train::config::router::Judge;
use smoe_lab::train::cost::Cost;
use smoe_lab::train::data::{Corpus, Split};
use smoe_lab::train::model::Architecture;

/// A table of sizes, operations, memory and losses.
pub fn run(run: &Run, corpus: &Corpus) -> Result<String> {
    let architecture = Architecture::new(run, corpus.vocabulary().size())?;
    let cost = Cost::of(run, &architecture);
    let method = &architecture.method;
    let (batch, model) = (run.batch, &run.model);
    let tokens = corpus.split(Split::Train)?.len();
    let step_tokens = batch.step_tokens();
    let mut lines = vec![
        ("vocabulary", architecture.vocabulary.to_string()),
        (
            "text",
            format!(
                "{tokens} training tokens, {:.2} epochs",
                (run.steps as f64 * step_tokens as f64) / tokens as f64
            ),
        ),
        (
            "parameters",
            format!(
                "{} in all, {} active per token, {} of them in embeddings and head",
                cost.parameters, cost.active_parameters, cost.embedding_parameters
            ),
        ),
        (
            "sparse layers",
            format!(
                "{} of {}, {} experts, {} per token",
                model.sparse_layers(),
                model.layers,
                architecture.experts.count,
                method.rule.k
            ),
        ),
        (
            "operations per token",
            format!(
                "{} forward, {} in training without competition",
                count(cost.forward),
                count(3.0 * cost.forward)
            ),
        ),
        (
            "memory",
            format!(
                "{} for parameters, gradients and optimiser, {} for activations of {} tokens",
                bytes(cost.state_bytes),
                bytes(cost.activation_bytes),
                batch.tokens()
            ),
        ),
    ];
    let rate = method.competition_rate(run.steps);
    if method.competing.is_some() {
        lines.push((
            "competition",
            format!(
                "a layer competes on {:.1} % of the steps: {:.2} times the operations of a run without",
                100.0 * rate,
                cost.overhead(rate)
            ),
        ));
        if method.judge == Judge::Experts {
            lines.push(("evaluation", "by the experts' responses".to_string()));
        }
    }
    let total = run.steps as f64 * step_tokens as f64 * cost.training(rate);
    lines.push((
        "training",
        format!(
            "{} steps of {step_tokens} tokens, {} operations",
            run.steps,
            count(total)
        ),
    ));
    let coefficient = |name: &'static str, value: f64| {
        (value > 0.0).then(|| (name, format!("{value} in each sparse layer")))
    };
    let balance = method.balance.map_or(0.0, |b| b.coefficient);
    lines.extend(coefficient("balance loss", balance));
    lines.extend(coefficient("z-loss", method.z_loss));
    if let Some(c) = &method.competing {
        lines.extend(coefficient("distillation", c.coefficient));
        lines.extend(coefficient("diversity", c.diversity.map_or(0.0, |d| d.1)));
        let balance = c.balance.map_or(0.0, |b| b.coefficient);
        lines.extend(coefficient("balance of responses", balance));
    }
    Ok(lines
        .iter()
        .map(|(name, value)| format!("{name:<22}{value}\n"))
        .collect())
}

/// With a unit of thousands.
fn count(value: f64) -> String {
    let units = [
        "",
        " thousand",
        " million",
        " billion",
        " trillion",
        " quadrillion",
    ];
    let thousands = (value.max(1.0).log10() / 3.0).floor() as usize;
    let unit = thousands.min(units.len() - 1);
    format!("{:.3}{}", value / 1000_f64.powi(unit as i32), units[unit])
}

fn bytes(value: usize) -> String {
    format!("{:.1} MiB", value as f64 / (1 << 20) as f64)
}
