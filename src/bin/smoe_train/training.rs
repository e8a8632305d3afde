//! `smoe_train run`.

use crate::arguments::Run as Arguments;
use crate::describe;
use crate::output::{Progress, print};
use crate::profile;
use smoe_lab::error::{Error, Result};
use smoe_lab::report::{peak_memory, processor};
use smoe_lab::train::config;
use smoe_lab::train::data::Corpus;
use smoe_lab::train::device::Cpu;
use smoe_lab::train::run::session::{Ending, Session};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Trains, or describes; false if the run diverged.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let run = config::read(&arguments.file, &arguments.overrides)?;
    let corpus = Corpus::open(&run.data.source)?;
    if arguments.dry_run {
        print(&describe::run(&run, &corpus)?);
        return Ok(true);
    }
    if arguments.profile {
        print(&profile::profile(&run, &corpus)?);
        return Ok(true);
    }
    let stop = stop_on_signals()?;
    let folder = arguments.out.join(&run.name);
    let mut session = Session::open(&run, Cpu::<f32>::new(), &corpus, &folder)?;
    let done = session.steps_done();
    if done > 0 {
        eprintln!("{}: going on after step {done}", folder.display());
    }
    let mut progress = Progress::new(done, run.steps);
    let ending = session.run(&stop, &mut progress);
    progress.close();
    let ending = ending?;
    session.page(device(), peak_memory())?;
    let page = folder.join("index.html");
    match ending {
        Ending::Finished => print(&format!("{}\n", page.display())),
        Ending::Stopped(step) => eprintln!(
            "stopped after step {step}: the same command goes on; {}",
            page.display()
        ),
        Ending::Diverged(step) => eprintln!(
            "smoe_train: step {step}: the gradient is not finite; try a lower optimiser.rate; {}",
            page.display()
        ),
    }
    Ok(!matches!(ending, Ending::Diverged(_)))
}

/// A flag that SIGTERM and SIGINT set; a second SIGINT ends at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal only sets the flag.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| Error::value("signals", e.to_string()))?;
    }
    Ok(stop)
}

fn device() -> String {
    let name = processor().unwrap_or_else(|| std::env::consts::ARCH.to_string());
    format!("{name}, {} threads", rayon::current_num_threads())
}
