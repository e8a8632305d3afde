//! Steps: micro-batches, resumption.

use super::checkpoint::{self, State};
use super::trainer::{Step, Trainer};
use crate::error::Result;
use crate::train::config::Run;
use crate::train::device::{Cpu, Device};
use crate::train::model::tests::{METHODS, VOCABULARY, run, text};
use crate::train::ops::real::Real;

fn step<T: Real>(trainer: &mut Trainer<Cpu<T>>) -> Step {
    let at = trainer.steps_done();
    let mut read = |sequences, ids: &mut Vec<u32>, targets: &mut Vec<u32>| -> Result<()> {
        let (i, t) = text(at, sequences);
        ids.extend(i);
        targets.extend(t);
        Ok(())
    };
    trainer.step(&mut read).unwrap()
}

fn values<T: Real>(trainer: &Trainer<Cpu<T>>) -> Vec<Vec<T>> {
    let tensors = trainer.transformer.parameters.all().iter();
    tensors
        .map(|t| trainer.device.download(t).unwrap())
        .collect()
}

fn trainer<T: Real>(run: &Run) -> Trainer<Cpu<T>> {
    Trainer::new(run.clone(), Cpu::new(), VOCABULARY).unwrap()
}

#[test]
fn a_step_in_four_micro_batches_is_the_step_in_one_whatever_the_method() {
    for (kind, router) in METHODS {
        // Scopes that are a micro-batch are what their name says.
        if router.contains("micro-batch") || kind == "noisy" {
            continue;
        }
        let mut whole = run(kind, router, "dropout = 0.2");
        whole.experts.capacity_factor = None;
        if kind == "switch" {
            // Capacities are those of a micro-batch.
            whole.experts.capacity_factor = Some(4.0);
        }
        let mut parts = whole.clone();
        parts.batch.sequences = 1;
        parts.batch.micro_batches = 4;
        let (mut a, mut b) = (trainer::<f64>(&whole), trainer::<f64>(&parts));
        for _ in 0..3 {
            let (one, four) = (step(&mut a), step(&mut b));
            assert_eq!(one.load, four.load, "{kind}");
            for (x, y) in [
                (one.losses.nats, four.losses.nats),
                (one.losses.auxiliary(), four.losses.auxiliary()),
                (one.gradient_norm, four.gradient_norm),
            ] {
                assert!((x - y).abs() < 1e-9 * (1.0 + x.abs()), "{kind}: {x}, {y}");
            }
        }
        for (x, y) in values(&a).iter().flatten().zip(values(&b).iter().flatten()) {
            assert!((x - y).abs() < 1e-6, "{kind}: {x}, {y}");
        }
    }
}

#[test]
fn a_run_that_goes_on_from_a_checkpoint_is_the_run_to_the_bit() {
    for (kind, router) in METHODS {
        let run = run(kind, router, "dropout = 0.1");
        let mut whole = trainer::<f32>(&run);
        let steps: Vec<Step> = (0..6).map(|_| step(&mut whole)).collect();
        let mut first = trainer::<f32>(&run);
        (0..3).for_each(|_| drop(step(&mut first)));
        let folder = tempfile::tempdir().unwrap();
        let state = State::of(&first, "text", 1.5, Some(2.0));
        checkpoint::save(folder.path(), &first, &state, &[], 2).unwrap();
        let (at, path) = checkpoint::list(folder.path()).unwrap().pop().unwrap();
        assert_eq!(at, 3);
        let mut second = trainer::<f32>(&run);
        let state = checkpoint::load(&path, &mut second, "text").unwrap();
        assert_eq!((state.step, state.best), (3, Some(2.0)));
        let rest: Vec<Step> = (3..6).map(|_| step(&mut second)).collect();
        assert_eq!(rest, steps[3..], "{kind}");
        assert!(values(&whole) == values(&second), "{kind}");
    }
}

#[test]
fn a_checkpoint_of_another_run_or_text_is_refused_in_one_line() {
    let run_a = run("smoe", "", "");
    let folder = tempfile::tempdir().unwrap();
    let a = trainer::<f32>(&run_a);
    checkpoint::save(folder.path(), &a, &State::of(&a, "text", 0.0, None), &[], 1).unwrap();
    let path = checkpoint::list(folder.path()).unwrap().pop().unwrap().1;
    let refusal = |run: &Run, data: &str| {
        let error = checkpoint::load(&path, &mut trainer::<f32>(run), data).unwrap_err();
        error.to_string()
    };
    let mut other = run_a.clone();
    other.optimiser.rate = 0.02;
    assert!(refusal(&other, "text").contains("key `run`: the checkpoint is of a run with other"));
    assert!(refusal(&run_a, "poem").contains("key `data`: the checkpoint is of another text"));
    let mut renamed = run_a.clone();
    renamed.name = "b".into();
    renamed.checkpoints.keep = 5;
    assert!(checkpoint::load(&path, &mut trainer::<f32>(&renamed), "text").is_ok());
    let weights = path.join("weights.safetensors");
    std::fs::write(&weights, b"not tensors").unwrap();
    assert!(refusal(&run_a, "text").contains("weights.safetensors: is no safetensors file"));
}

#[test]
fn only_the_latest_checkpoints_are_kept() {
    let mut trainer = trainer::<f32>(&run("smoe", "", ""));
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        step(&mut trainer);
        let state = State::of(&trainer, "text", 0.0, None);
        checkpoint::save(folder.path(), &trainer, &state, &[], 2).unwrap();
    }
    let kept: Vec<u64> = checkpoint::list(folder.path())
        .unwrap()
        .iter()
        .map(|(step, _)| *step)
        .collect();
    assert_eq!(kept, [3, 4]);
}
