//! `smoe_train run --profile`.

use smoe_lab::error::Result;
use smoe_lab::train::config::Run;
use smoe_lab::train::data::{Corpus, Loader};
use smoe_lab::train::device::Cpu;
use smoe_lab::train::device::profiled::{Profiled, peak_of_products};
use smoe_lab::train::run::trainer::Trainer;
use std::time::{Duration, Instant};

/// Steps before the clock starts: the first ones allocate.
const WARM_UP: u64 = 2;
/// Timed steps.
const LEAST: usize = 8;
/// Steps are timed for at least so long.
const TIME: Duration = Duration::from_secs(4);

/// A table of where the time of a run's first steps goes.
pub fn profile(run: &Run, corpus: &Corpus) -> Result<String> {
    let vocabulary = corpus.vocabulary().size();
    let device = Profiled::new(Cpu::<f32>::new());
    let mut trainer = Trainer::new(run.clone(), device, vocabulary)?;
    let loader = Loader::of(run, corpus)?;
    let mut competed = 0;
    let mut step = |trainer: &mut Trainer<_>| {
        competed += trainer.step_on(&loader)?.competing;
        Ok(())
    };
    for _ in 0..WARM_UP {
        step(&mut trainer)?;
    }
    trainer.device.restart();
    let (start, mut steps) = (Instant::now(), 0);
    while (steps < LEAST || start.elapsed() < TIME) && trainer.steps_done() < run.steps {
        step(&mut trainer)?;
        steps += 1;
    }
    let threads = rayon::current_num_threads();
    let profile = trainer.device.profile(steps, threads);
    let profile = profile.with_peak(peak_of_products());
    Ok(format!(
        "{:<28} {:>7} {:>10} {:>8}\n{profile}\n{steps} steps of {} tokens, layers competed {competed} times\n",
        "operation",
        "calls",
        "ms a step",
        "share",
        run.batch.step_tokens(),
    ))
}
