//! Whole models: gradients, causality, threads, micro-batches.

use super::*;
use crate::rng::{Purpose, Stream};
use crate::train::config::Run;
use crate::train::device::{Cpu, Device};
use crate::train::ops::check::threads;
use crate::train::ops::cross_entropy::IGNORED;
use crate::train::ops::real::Real;
use crate::train::router::schedule::Table;

pub const VOCABULARY: usize = 7;
pub const LENGTH: usize = 6;

/// Methods with what makes all their parts take part.
pub const METHODS: [(&str, &str); 16] = [
    ("smoe", ""),
    ("switch", ""),
    ("noisy", ""),
    (
        "smoe-dropout",
        "k_schedule = { first = 2, last = 3, curve = \"linear\" }",
    ),
    ("xmoe", ""),
    (
        "perturbed-cosine",
        "cosine = { normalised = \"experts-only\" }",
    ),
    ("sigma-moe", ""),
    (
        "deepseek-v3",
        "selection = { bias_rate = 0.01, groups = 2, kept_groups = 1 }",
    ),
    ("unified", ""),
    (
        "smoe",
        "combine = \"softmax-top-k\"\nbalance = { kind = \"importance\", scope = \"micro-batch\" }",
    ),
    (
        "smoe",
        "combine = \"softmax-top-k-softmax\"\nlayers = \"mean\"\nbalance = { kind = \"switch-first\" }",
    ),
    (
        "smoe",
        "jitter = 0.1\nbalance = { kind = \"per-assignment\", scope = \"sequence\" }",
    ),
    ("competition", ""),
    (
        "compete-v1",
        "[competition]\nschedule = { kind = \"constant\", rate = 1.0 }",
    ),
    (
        "compete-v1",
        "[competition]\nchoice = \"responses-and-scores\"\nschedule = { kind = \"constant\", rate = 1.0 }",
    ),
    (
        "compete-v2",
        "[competition]\nrouter_losses = \"all-steps\"\nbalance = { coefficient = 0.1 }\nbalance_gradient = \"all\"\nschedule = { kind = \"constant\", rate = 1.0 }",
    ),
];

/// A small run of a method; `model` are lines of `[model]`.
pub fn run(kind: &str, router: &str, model: &str) -> Run {
    let text = format!(
        "name = \"t\"\nsteps = 8\n[data]\nsource = \"tinyshakespeare\"\n\
         [batch]\nsequences = 4\nlength = {LENGTH}\n\
         [model]\nlayers = 2\nwidth = 6\nheads = 1\n{model}\n\
         [experts]\ncount = 4\nhidden = 5\n[optimiser]\nrate = 0.01\nwarm_up = 2\n\
         [router]\nkind = \"{kind}\"\n{router}\n"
    );
    let run: Run = toml::from_str(&text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    run.check().unwrap();
    run
}

pub fn architecture(run: &Run) -> Architecture {
    Architecture::new(run, VOCABULARY).unwrap()
}

/// Tokens and targets of one step of a run; one token has no target.
pub fn text(step: u64, sequences: std::ops::Range<usize>) -> (Vec<u32>, Vec<u32>) {
    let stream = Stream::named(9, "text", step, Purpose::Data);
    let token = |i: usize| {
        let [u, _] = stream.uniform_pair(i as u64, 0);
        (u * VOCABULARY as f64) as u32
    };
    let tokens = sequences.start * LENGTH..sequences.end * LENGTH;
    let target = |i: usize| if i == 7 { IGNORED } else { token(i + 1) };
    (
        tokens.clone().map(token).collect(),
        tokens.map(target).collect(),
    )
}

fn table(run: &Run) -> Option<Table> {
    let competing = run.method().unwrap().competing?;
    Some(competing.table(run.seed, 2, run.steps).unwrap())
}

/// The total loss, gradients and logits at these parameters.
fn pass<T: Real>(
    run: &Run,
    ids: &[u32],
    targets: &[u32],
    parameters: &[Vec<T>],
) -> (f64, Vec<Vec<T>>, Vec<T>) {
    let device = Cpu::<T>::new();
    let architecture = architecture(run);
    let specs = architecture.specs();
    let parameters = Tensors::uploaded(&device, &specs, parameters).unwrap();
    let transformer = Transformer::with(architecture, parameters).unwrap();
    let batch = Batch::new(&device, ids, targets, LENGTH).unwrap();
    let mut tape = transformer
        .tape(&device, ids.len() / LENGTH, LENGTH)
        .unwrap();
    let table = table(run);
    let phase = Phase::Training(Training {
        seed: 1,
        step: 3,
        active: run.method().unwrap().active.at(3, run.steps),
        schedule: table.as_ref(),
        first_token: 0,
    });
    transformer
        .forward(&device, &batch, &phase, &mut tape)
        .unwrap();
    let logits = device.download(tape.logits()).unwrap();
    let mut gradients = Tensors::zeros(&device, &specs).unwrap();
    let mut meters = device.meters(Losses::METERS).unwrap();
    transformer
        .backward(
            &device,
            &batch,
            &phase,
            batch.counted(),
            None,
            &mut tape,
            &mut gradients,
            &mut meters,
        )
        .unwrap();
    let losses = Losses::of(&device.read(&mut meters).unwrap());
    let total = losses.nats / batch.counted().tokens as f64 + losses.auxiliary();
    let gradients = gradients.all().iter().map(|g| device.download(g).unwrap());
    (total, gradients.collect(), logits)
}

/// First values, moved away from the zeros and from small routers.
pub fn parameters(run: &Run) -> Vec<Vec<f64>> {
    let device = Cpu::<f64>::new();
    let specs = architecture(run).specs();
    let drawn = Tensors::drawn(&device, &specs, 5).unwrap();
    let moved = |(tensor, spec): (_, &Spec)| {
        let mut values = device.download(tensor).unwrap();
        let stream = Stream::named(6, &spec.name, 0, Purpose::Data);
        for (i, v) in values.iter_mut().enumerate() {
            let size = match spec.role {
                Role::SelectionBias => 0.02,
                _ => 0.3,
            };
            *v += size * stream.standard_normal(i as u64, 0);
        }
        values
    };
    drawn.all().iter().zip(&specs).map(moved).collect()
}

/// Compares gradients with central differences at some coordinates of every
/// parameter that `of` admits.
fn assert_gradients(name: &str, run: &Run, of: impl Fn(&Spec) -> bool) {
    const STEP: f64 = 1e-6;
    let (ids, targets) = text(0, 0..4);
    let at = parameters(run);
    let (_, gradients, _) = pass(run, &ids, &targets, &at);
    for (p, spec) in architecture(run).specs().iter().enumerate() {
        let trained = spec.role.is_trained();
        for i in (0..spec.size()).step_by(1 + spec.size() / 7) {
            if !trained {
                assert_eq!(gradients[p][i], 0.0, "{name}: {}", spec.name);
            }
            if !trained || !of(spec) {
                continue;
            }
            let moved = |by: f64| {
                let mut moved = at.clone();
                moved[p][i] += by;
                pass(run, &ids, &targets, &moved).0
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let error = (gradients[p][i] - expected).abs();
            assert!(
                error < 1e-8 + 1e-6 * expected.abs(),
                "{name}: {}[{i}]: gradient {}, differences {expected}",
                spec.name,
                gradients[p][i]
            );
        }
    }
}

/// Distillation takes its target as constant: its gradient is checked in the router,
/// which decides nothing while all layers compete, the rest without it.
fn without_distillation(mut run: Run) -> Run {
    if let Some(competition) = &mut run.competition {
        competition.coefficient = Some(0.0);
    }
    run
}

#[test]
fn gradients_of_every_method_match_finite_differences() {
    for (kind, router) in METHODS {
        let run = run(kind, router, "activation = \"swiglu\"");
        let mixes = router.contains("responses-and-scores");
        if run.competition.is_some() && !mixes {
            assert_gradients(kind, &run, |spec| spec.role == Role::Router);
        }
        assert_gradients(kind, &without_distillation(run), |_| true);
    }
}

#[test]
fn gradients_of_every_kind_of_model_match_finite_differences() {
    for model in [
        "position = \"learned\"\nbias = \"everywhere\"",
        "norm = \"root-mean-square\"\nhead = \"tied\"\nactivation = \"gelu\"",
        "layout = \"alternating\"\nactivation = \"silu\"\nbias = \"everywhere\"",
        "layout = \"dense\"\nactivation = \"swiglu\"\ndense_hidden = \"total\"",
        "dropout = 0.3\nposition = \"learned\"\nactivation = \"gelu\"",
    ] {
        assert_gradients(model, &run("smoe", "", model), |_| true);
    }
    let mut shared = run("smoe", "", "activation = \"gelu\"\nbias = \"everywhere\"");
    shared.experts.shared = 2;
    assert_gradients("shared", &shared, |_| true);
    shared.experts.capacity_factor = Some(0.6);
    assert_gradients("capacity", &shared, |_| true);
}

#[test]
fn a_later_token_changes_no_earlier_logits_whatever_the_method() {
    for (kind, router) in METHODS {
        let run = run(kind, router, "");
        let at = parameters(&run);
        let (mut ids, targets) = text(0, 0..4);
        let (_, _, before) = pass(&run, &ids, &targets, &at);
        ids[LENGTH + 3] = (ids[LENGTH + 3] + 1) % VOCABULARY as u32;
        let (_, _, after) = pass(&run, &ids, &targets, &at);
        let changed = (LENGTH + 3) * VOCABULARY;
        assert_eq!(before[..changed], after[..changed], "{kind}");
        let next = changed + VOCABULARY;
        assert_ne!(before[changed..next], after[changed..next], "{kind}");
    }
}

#[test]
fn gradients_are_the_same_bits_on_any_number_of_threads() {
    for (kind, router) in METHODS {
        let run = run(kind, router, "bias = \"everywhere\"");
        let at: Vec<Vec<f32>> = parameters(&run)
            .iter()
            .map(|p| p.iter().map(|&v| v as f32).collect())
            .collect();
        let (ids, targets) = text(0, 0..40);
        let on = |count| threads(count, || pass(&run, &ids, &targets, &at));
        let (one, three) = (on(1), on(3));
        assert!(one == three, "{kind}");
    }
}
