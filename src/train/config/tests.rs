//! Presets, overrides, and what is refused.

use super::*;
use crate::train::router::balance::Balance;
use crate::train::router::combine::Combine;
use crate::train::router::distillation::Loss;
use crate::train::router::response::Response;
use crate::train::router::schedule::Schedule;
use std::path::Path;

fn run(text: &str) -> Result<Run> {
    let text = format!("name = \"t\"\nsteps = 100\n[data]\nsource = \"tinyshakespeare\"\n{text}");
    let run: Run = crate::error::parse_toml(Path::new("t.toml"), &text)?;
    run.check()?;
    Ok(run)
}

fn method(text: &str) -> Method {
    run(text).unwrap().method().unwrap()
}

fn refusal(text: &str) -> String {
    run(text).unwrap_err().to_string()
}

#[test]
fn methods_are_those_of_their_papers() {
    let v2 = method("[router]\nkind = \"compete-v2\"");
    let competing = v2.competing.unwrap();
    assert_eq!(competing.rule.response, Response::SoftplusMean);
    assert_eq!(
        competing.rule.winners.combine,
        Combine::LinearTopKRenormalised
    );
    assert_eq!(competing.rule.distillation, Loss::Hybrid { theta: 0.2 });
    assert_eq!(competing.coefficient, 0.001);
    let paper = Schedule::Budgeted {
        rate: 0.07,
        budget: 3,
        warm_up: 0.0,
    };
    assert_eq!(competing.schedule, paper);
    let v1 = method("[router]\nkind = \"compete-v1\"").competing.unwrap();
    assert_eq!(v1.rule.response, Response::Norm);
    assert_eq!(v1.coefficient, 0.05);
    let switch = method("[router]\nkind = \"switch\"");
    assert_eq!(
        (switch.rule.k, switch.rule.combine),
        (1, Combine::SoftmaxTopK)
    );
    assert_eq!((switch.jitter, switch.capacity_factor), (0.01, Some(1.25)));
    let deepseek = method("[router]\nkind = \"deepseek-v3\"");
    assert_eq!(
        (deepseek.rule.scale, deepseek.selection.bias_rate),
        (2.5, 0.001)
    );
    let dropout = method("[router]\nkind = \"smoe-dropout\"");
    assert!(dropout.balance.is_none() && dropout.competing.is_none());
    assert_eq!(
        (dropout.active.at(0, 100), dropout.active.at(99, 100)),
        (2, 8)
    );
}

#[test]
fn every_choice_of_a_method_can_be_changed() {
    let changed = method(
        "[router]\nkind = \"smoe\"\ntop_k = 3\ncombine = \"softmax-top-k\"\nz_loss = 0.0\nlayers = \"mean\"\n\
         balance = { kind = \"importance\", scope = \"micro-batch\", coefficient = 0.4 }",
    );
    assert_eq!(
        (changed.rule.k, changed.rule.combine),
        (3, Combine::SoftmaxTopK)
    );
    let balance = changed.balance.unwrap();
    assert_eq!((balance.kind, changed.z_loss), (Balance::Importance, 0.0));
    assert_eq!(balance.coefficient, 0.1, "the mean over four layers");
    let none = method("[router]\nbalance = { coefficient = 0.0 }");
    assert!(none.balance.is_none());
}

#[test]
fn what_cannot_be_is_refused_with_its_key() {
    for (text, expected) in [
        ("[router]\ntop_k = 9", "router.top_k: must be 1 to 8"),
        ("[competition]", "competition: is for the kinds"),
        (
            "[router]\ncosine = { width = 3 }",
            "router.cosine: is for xmoe",
        ),
        (
            "[router]\ncombine = \"linear-top-k-renormalised\"",
            "router.combine: is for responses",
        ),
        (
            "[router]\nselection = { groups = 3 }",
            "router.selection.groups: must divide the 8 experts",
        ),
        (
            "[router]\nselection = { groups = 4, kept_groups = 0 }",
            "router.selection.kept_groups: must be 1 to 4",
        ),
        (
            "[batch]\nmicro_batches = 2\n[router]\nbalance = { kind = \"importance\" }",
            "router.balance.scope: must be micro-batch or sequence",
        ),
        (
            "[router]\nkind = \"compete-v2\"\n[competition]\nschedule = { kind = \"budgeted\", rate = 0.5, budget = 1, warm_up = 0.0 }",
            "competition.schedule.budget: must be at least rate times layers, 2",
        ),
        (
            "[model]\nlayout = \"dense\"\n[router]\nkind = \"compete-v2\"\n[competition]\ntheta = 0.1",
            "competition: needs experts",
        ),
        (
            "[model]\nwidth = 12\nheads = 4",
            "model.heads: must leave an even number",
        ),
        ("[optimiser]\nmemory = [0.9, 1.0]", "optimiser.memory"),
        ("[router]\njitter = 1.5", "router.jitter: must be 0 to 0.99"),
        (
            "[model]\nlayers = 1\nlayout = \"alternating\"",
            "model.layers",
        ),
        (
            "[evaluation]\nevery = 0",
            "evaluation.every: must be at least 1",
        ),
    ] {
        let said = refusal(text);
        assert!(said.starts_with(expected), "{text}\n{said}");
    }
}

#[test]
fn overrides_replace_add_and_count_bare_words_as_text() {
    let path = Path::new("t.toml");
    let text = "name = \"a\"\n[model]\nwidth = 8\n";
    let set = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        with_overrides(path, text, &settings)
    };
    let changed: toml::Table =
        toml::from_str(&set(&["model.width=16", "name=b", "new.key=[1, 2]"]).unwrap()).unwrap();
    assert_eq!(changed["model"]["width"].as_integer(), Some(16));
    assert_eq!(changed["name"].as_str(), Some("b"));
    assert_eq!(changed["new"]["key"].as_array().unwrap().len(), 2);
    assert_eq!(
        set(&[]).unwrap(),
        text,
        "untouched, so that lines are the user's"
    );
    let refused = set(&["name.x=1"]).unwrap_err().to_string();
    assert_eq!(refused, "--set name.x=1: `name` is not a table");
}

#[test]
fn a_run_written_out_is_the_run_that_is_read_back() {
    for text in [
        "",
        "[router]\nkind = \"compete-v2\"\n[competition]\ncompatibility = [\"target-gradient\"]\nschedule = { kind = \"constant\", rate = 0.5 }",
        "[model]\nlayout = \"dense\"\ndense_hidden = \"total\"\n[optimiser]\nclip = inf",
        "[model]\nlayout = \"dense\"\ndense_hidden = 77\n[experts]\ncapacity_factor = 1.5",
    ] {
        let first = run(text).unwrap();
        let second: Run = toml::from_str(&toml::to_string(&first).unwrap()).unwrap();
        assert_eq!(first, second);
    }
}
