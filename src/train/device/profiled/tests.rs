//! The bookkeeping; not the times, which are the machine's.

use super::*;
use crate::train::device::Cpu;
use crate::train::model::tests::{VOCABULARY, run, text};
use crate::train::run::trainer::{Step, Trainer};

const STEPS: usize = 3;

fn steps<D: Device>(trainer: &mut Trainer<D>, count: usize) -> Vec<Step> {
    let mut step = || {
        let at = trainer.steps_done();
        let mut read = |sequences, ids: &mut Vec<u32>, targets: &mut Vec<u32>| -> Result<()> {
            (*ids, *targets) = text(at, sequences);
            Ok(())
        };
        trainer.step(&mut read).unwrap()
    };
    (0..count).map(|_| step()).collect()
}

fn competing() -> crate::train::config::Run {
    let always = "[competition]\nschedule = { kind = \"constant\", rate = 1.0 }";
    run("compete-v2", always, "dropout = 0.1")
}

fn profiled() -> (Vec<Step>, Profile) {
    let device = Profiled::new(Cpu::<f32>::new());
    let mut trainer = Trainer::new(competing(), device, VOCABULARY).unwrap();
    trainer.device.restart();
    let done = steps(&mut trainer, STEPS);
    (done, trainer.device.profile(STEPS, 2))
}

#[test]
fn a_profiled_device_computes_what_the_device_does() {
    let mut plain = Trainer::new(competing(), Cpu::<f32>::new(), VOCABULARY).unwrap();
    assert_eq!(profiled().0, steps(&mut plain, STEPS));
}

#[test]
fn every_call_is_counted_under_its_operation_and_pass() {
    let (_, profile) = profiled();
    let count = |operation, pass| {
        let mut lines = profile.lines.iter();
        let found = lines.find(|line| (line.operation, line.pass) == (operation, pass));
        found.map_or(0, |line| line.calls.count as usize)
    };
    // Two layers: two norms, three matrices each; one of both behind them.
    for pass in [Pass::Forward, Pass::Backward] {
        assert_eq!(count(Operation::Norm, pass), 5 * STEPS);
        assert_eq!(count(Operation::Linear, pass), 7 * STEPS);
        assert_eq!(count(Operation::Competition, pass), 2 * STEPS);
    }
    assert_eq!(count(Operation::Experts, Pass::Forward), 2 * STEPS);
    assert_eq!(count(Operation::CrossEntropy, Pass::Forward), STEPS);
    // Behind the embedding and both halves of both layers, forth and back.
    assert_eq!(count(Operation::Dropout, Pass::Forward), 10 * STEPS);
}

#[test]
fn operations_take_no_more_than_the_steps_and_the_table_names_them_all() {
    let (_, profile) = profiled();
    assert!(profile.in_operations() > 0.0 && profile.in_operations() <= profile.seconds);
    assert!(profile.products.operations > 0.0);
    let table = profile.clone().with_peak(1e9).to_string();
    for line in &profile.lines {
        assert!(table.contains(&line.operation.to_string()), "{table}");
    }
    assert!(table.contains("experts, backward") && table.contains("of 1 GFLOP/s"));
    let text = serde_json::to_string(&profile).unwrap();
    assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
}

#[test]
fn shares_of_products_are_of_all_threads() {
    let profile = Profile {
        steps: 2,
        threads: 2,
        seconds: 4.0,
        lines: Vec::new(),
        products: Spent {
            seconds: 6.0,
            operations: 60.0,
        },
        peak: Some(20.0),
    };
    assert_eq!(profile.share_of_products(), 0.75);
    assert_eq!(profile.share_of_peak(), Some(0.75));
    assert_eq!(profile.products.rate(), 10.0);
}
