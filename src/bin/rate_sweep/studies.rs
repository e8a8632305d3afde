//! Commands on studies.

use crate::arguments::{OnDevice, Run};
use crate::inverse::{self, Size};
use crate::judged::Judged;
use crate::output::{Progress, print};
use crate::shard;
use smoe_lab::backend::cuda::{self, Opened, Precision};
use smoe_lab::backend::{Backend, Cpu};
use smoe_lab::error::{Error, Result};
use smoe_lab::model::draw_sample;
use smoe_lab::report::{self, Environment, IndexEntry};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::batch::Engine;
use smoe_lab::sim::column::Loss;
use smoe_lab::sim::row::{RowFile, read_rows};
use smoe_lab::sim::run::{self, Request};
use smoe_lab::sim::series::sample_sizes;
use smoe_lab::sim::study::Replicates;
use smoe_lab::sim::study::read_study;
use smoe_lab::sim::{Cell, Plan, Row, Shard, Summary};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

const HEADLINE: &str = "sims/competition-exact.toml";
const RESULTS: &str = "results";

/// The headline study, from the folder of the project or from anywhere.
pub fn headline(on: OnDevice) -> Result<bool> {
    let here = PathBuf::from(HEADLINE);
    let study = if here.exists() {
        here
    } else {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(HEADLINE)
    };
    run(&Run {
        study,
        jobs: None,
        only: None,
        smoke: false,
        shard: None,
        on,
        out: PathBuf::from(RESULTS),
    })
}

/// The study files meant by a path: itself, or all in the folder.
fn study_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let files = toml_files(path)?;
    if files.is_empty() {
        return Err(Error::input(path, "", "the folder holds no study (*.toml)"));
    }
    Ok(files)
}

/// The TOML files of a folder, in the order of their names.
pub fn toml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::file(folder, "read", &e))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

pub fn plans(path: &Path) -> Result<Vec<Plan>> {
    study_files(path)?
        .iter()
        .map(|file| Plan::new(read_study(file)?))
        .collect()
}

pub fn plan(path: &Path) -> Result<bool> {
    for plan in plans(path)? {
        let mut text = format!("{}: {}\n", plan.study.name, plan.study.title);
        let replicates = plan.first_replicates();
        let mut total = 0.0;
        for cell in &plan.cells {
            let seconds = replicates as f64 * expected_seconds(&plan, cell);
            total += seconds;
            let _ = writeln!(text, "  {:<40} {replicates:>7} replicates", cell.name);
        }
        let cores = cores();
        let _ = writeln!(
            text,
            "  {} cells, {} fits at least, about {:.0} s on {cores} cores; design {}",
            plan.cells.len(),
            plan.cells.len() as u64 * replicates,
            total / cores as f64,
            plan.hash
        );
        print(&text);
    }
    Ok(true)
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Expected seconds of one replicate: a measured second-order pass over a few
/// rows, times the passes that a fit typically takes.
fn expected_seconds(plan: &Plan, cell: &Cell) -> f64 {
    const ROWS: usize = 2000;
    const PASSES: f64 = 10.0;
    const LOSSES: f64 = 0.003;
    let truth = &plan.truths[cell.truth].model;
    let stream = Stream::named(plan.study.seed, "plan", 0, Purpose::Data);
    let data = draw_sample(truth, 0, ROWS, &stream);
    let clock = Instant::now();
    std::hint::black_box(Cpu::new().derivatives(&plan.truths[cell.truth].template, &data));
    // A lattice has as many cells at any sample size.
    let samples = match truth.input.is_lattice() {
        true => 1.0,
        false => cell.n as f64 / ROWS as f64,
    };
    LOSSES + PASSES * clock.elapsed().as_secs_f64() * samples
}

pub fn run(request: &Run) -> Result<bool> {
    let shard = shard::chosen(request.shard.as_deref())?;
    let plans = plans(&request.study)?;
    let engine = engine(request.on)?;
    // Cells and shards belong to Monte Carlo.
    let designs = match request.only.is_none() && shard.is_none() {
        true => inverse::designs(&request.study)?,
        false => Vec::new(),
    };
    let mut holds = true;
    for plan in &plans {
        holds &= run_one(plan, request, shard, &engine)?;
    }
    let size = Size::of(request.smoke);
    for design in designs {
        // As rows are: what is there is not computed again.
        if size == Size::Full && design.is_done(&request.out) {
            print(&format!("{}: nothing is missing\n", design.name()));
            continue;
        }
        holds &= design.run(request.jobs.map(usize::from), &request.out, size)?;
    }
    Ok(holds)
}

/// The device that was chosen; says so if it is not the one that was hoped for.
fn engine(on: OnDevice) -> Result<Engine> {
    if on.precision == Precision::Single {
        let message = "no fit can be certified in f32: expected double or mixed";
        return Err(Error::value("--precision", message));
    }
    match cuda::open(on.device)? {
        Opened::Gpu(cuda) => {
            let cuda = cuda.with_precision(on.precision);
            eprintln!("rate_sweep: fits run on {}", cuda.description());
            Ok(Engine::Gpu(cuda))
        }
        Opened::Processor(reason) => {
            if let Some(reason) = reason {
                eprintln!("rate_sweep: fits run on the processor; {reason}");
            }
            Ok(Engine::Processor)
        }
    }
}

fn run_one(plan: &Plan, arguments: &Run, shard: Option<Shard>, engine: &Engine) -> Result<bool> {
    let folder = arguments.out.join(&plan.study.name);
    let request = Request {
        jobs: arguments.jobs.map(usize::from),
        only: arguments.only.clone(),
        smoke: arguments.smoke,
        shard,
    };
    // Before anything is created on disk.
    request.cells(plan)?;
    let mut file = RowFile::open_part(&folder, plan, shard)?;
    let mut progress = Progress::new(rows_left(plan, &file.rows, &request));
    let started = SystemTime::now();
    let before = file.rows.len();
    run::run_on(engine, plan, &mut file, &request, |done, total, row| {
        progress.row(done, total, row);
    })?;
    progress.finish();
    let computed = file.rows.len() - before;
    if let Some(shard) = shard {
        print_shard(plan, arguments, shard, computed, &file.rows, started);
        return Ok(true);
    }
    let threads = request.jobs.unwrap_or_else(cores);
    let environment = if computed > 0 {
        let environment = Environment::capture(&plan.hash, threads, started);
        match engine {
            Engine::Processor => environment,
            Engine::Gpu(cuda) => environment.on_device(cuda.description()),
        }
    } else {
        Environment::read_or_capture(&folder, &plan.hash, threads, started)?
    };
    let summary = Summary::new(plan, &file.rows);
    report::write(&folder, plan, &file.rows, &summary, &environment)?;
    print(&report::text_table(plan, &summary));
    print(&format!(
        "{computed} rows computed in {:.1} s, {before} were there; page: {}\n",
        started.elapsed().unwrap_or_default().as_secs_f64(),
        folder.join("index.html").display()
    ));
    // Two replicates decide nothing, and claims that a part of a run has no
    // rows for have not failed.
    let failed = summary.claims.iter().any(|c| c.is_news());
    Ok(arguments.smoke || !failed)
}

/// What a shard did and what is to be done next: it judges nothing and writes no
/// report, since other shards may be at work.
fn print_shard(
    plan: &Plan,
    arguments: &Run,
    shard: Shard,
    computed: usize,
    rows: &[Row],
    started: SystemTime,
) {
    let has_pilot = run::has_pilot(plan, rows);
    let each = match has_pilot {
        true => run::target_replicates(plan, rows),
        false => plan.first_replicates(),
    };
    let of_plan =
        |row: &&Row| row.replicate < each && plan.cells.iter().any(|cell| cell.name == row.cell);
    let there = rows.iter().filter(of_plan).count() as u64;
    let wanted = plan.cells.len() as u64 * each;
    let words = |command: &str| {
        let out = match arguments.out.as_os_str() == RESULTS {
            true => String::new(),
            false => format!(" --out {}", arguments.out.display()),
        };
        format!("rate_sweep {command} {}{out}", plan.study.path.display())
    };
    let is_pilot = matches!(plan.study.replicates, Replicates::Precision(_));
    let next = match (has_pilot, there >= wanted) {
        (false, _) if is_pilot => {
            "the pilot is not complete: repeat every shard when all have ended".to_string()
        }
        (true, true) => format!("all rows are there; next: {}", words("report")),
        _ => format!(
            "when all shards have ended: {}, or {} --shard none to add what is missing",
            words("report"),
            words("run")
        ),
    };
    print(&format!(
        "{}, shard {shard}: {computed} rows computed in {:.1} s; {there} of {wanted} rows are there\n{next}\n",
        plan.study.name,
        started.elapsed().unwrap_or_default().as_secs_f64(),
    ));
}

/// How many rows each requested cell still needs before it counts as done.
fn rows_left(plan: &Plan, rows: &[Row], request: &Request) -> HashMap<String, u64> {
    let is_ours = |cell: &Cell, replicate: u64| {
        let shard = request.shard;
        shard.is_none_or(|shard| shard.holds(plan, cell, replicate))
    };
    let each = request.first_replicates(plan);
    let mut left = HashMap::new();
    for cell in &plan.cells {
        let wanted = (0..each).filter(|&r| is_ours(cell, r)).count() as u64;
        let of_cell = rows.iter().filter(|row| row.cell == cell.name);
        let done = of_cell.filter(|row| is_ours(cell, row.replicate)).count() as u64;
        left.insert(cell.name.clone(), wanted.saturating_sub(done));
    }
    left
}

pub fn replay(study: &Path, name: &str, out: &Path) -> Result<bool> {
    let plan = Plan::new(read_study(study)?)?;
    let (cell_name, replicate) = name
        .rsplit_once('/')
        .and_then(|(cell, replicate)| Some((cell, replicate.parse::<u64>().ok()?)))
        .ok_or_else(|| Error::value(name, "expected CELL/REPLICATE, such as n=1000/17"))?;
    let cell = plan
        .cells
        .iter()
        .find(|c| c.name == cell_name)
        .ok_or_else(|| {
            let known: Vec<&str> = plan.cells.iter().map(|c| c.name.as_str()).collect();
            Error::value(
                cell_name,
                format!("no such cell; the study has {}", known.join(" ")),
            )
        })?;
    let replayed = run::replay(&plan, cell, replicate)?;
    let mut text = String::new();
    for (start, outcome) in cell.starts.iter().zip(&replayed.outcomes.outcomes) {
        let effort = outcome.effort;
        let _ = writeln!(
            text,
            "start {:<22} log-likelihood {:.9}  {}  scaled score {:.1e}  {} EM, {} L-BFGS, {} Newton",
            start.name(),
            outcome.log_likelihood,
            outcome.stop,
            outcome.scaled_score,
            effort.em,
            effort.gradient,
            effort.newton
        );
    }
    let truth = &plan.truths[cell.truth].model.parameters;
    let layout = truth.layout();
    let packed = layout.pack(truth);
    for (k, coordinate) in layout.coordinates().iter().enumerate() {
        if let Some(fitted) = replayed.row.parameters.get(k) {
            let _ = writeln!(
                text,
                "{:<16} fitted {fitted:>20.12}  truth {:>20.12}",
                coordinate.to_string(),
                packed[k]
            );
        }
    }
    for (column, field) in Row::header(&plan.study).iter().zip(replayed.row.fields()) {
        let _ = writeln!(text, "{column:<22} {field}");
    }
    let folder = out.join(&plan.study.name);
    let on_device = Environment::read(&folder, &plan.hash)?.is_some_and(|e| e.device.is_some());
    let mut differs = false;
    if let Ok(rows) = read_rows(&folder, &plan) {
        let recorded = rows
            .iter()
            .find(|r| r.cell == cell_name && r.replicate == replicate);
        let verdict = match recorded {
            None => "no such row is recorded",
            Some(row) if row.equals_but_for_time(&replayed.row) => "equals the recorded row",
            Some(row) if on_device && row.found_the_maximum_of(&replayed.row) => {
                "has the maximum of the recorded row, which a device computed"
            }
            Some(_) => {
                differs = true;
                "DIFFERS from the recorded row"
            }
        };
        let _ = writeln!(text, "{}: {verdict}", folder.display());
    }
    print(&text);
    Ok(!differs)
}

pub fn report(path: &Path, out: &Path, accuracy: Option<f64>) -> Result<bool> {
    if let Some(accuracy) = accuracy
        && !(accuracy > 0.0 && accuracy < 1.0)
    {
        return Err(Error::value("--accuracy", "must lie between 0 and 1"));
    }
    for plan in plans(path)? {
        let folder = out.join(&plan.study.name);
        let rows = read_rows(&folder, &plan)?;
        let summary = Summary::new(&plan, &rows);
        let environment =
            Environment::read_or_capture(&folder, &plan.hash, cores(), SystemTime::now())?;
        report::write(&folder, &plan, &rows, &summary, &environment)?;
        print(&report::text_table(&plan, &summary));
        if let Some(accuracy) = accuracy {
            print_sample_sizes(&plan, &rows, accuracy);
        }
        print(&format!("page: {}\n", folder.join("index.html").display()));
    }
    Ok(true)
}

fn print_sample_sizes(plan: &Plan, rows: &[Row], accuracy: f64) {
    for (series, size) in sample_sizes(plan, rows, Loss::HellingerMean, accuracy) {
        let text = size.map_or("not enough rows".to_string(), |s| {
            format!(
                "n = {:.0}  95 % [{:.0}, {:.0}]",
                s.n, s.interval[0], s.interval[1]
            )
        });
        print(&format!("E h = {accuracy}: {series} {text}\n"));
    }
}

/// What the recorded rows say: `records/STUDY` beside the study file.
pub fn judged(plan: &Plan) -> Result<Judged> {
    let name = &plan.study.name;
    let folder = plan.study.relative(Path::new("records")).join(name);
    if !folder.exists() {
        return Ok(Judged {
            text: format!("{name}: no recorded rows\n"),
            good: true,
            entry: IndexEntry::of_study(plan, None),
        });
    }
    let rows = read_rows(&folder, plan)?;
    let summary = Summary::new(plan, &rows);
    let wanted = run::target_replicates(plan, &rows);
    let mut cells = summary.series.iter().flat_map(|s| &s.cells);
    let complete = cells.all(|c| c.rows as u64 >= wanted);
    let stale = report::is_stale(&folder, plan, &summary);
    let good = complete && stale.is_none() && summary.holds();
    let mut text = match complete {
        true => String::new(),
        false => {
            format!("{name}: the record is incomplete: a cell has fewer than {wanted} replicates\n")
        }
    };
    text += &report::claims_table(plan, &summary);
    text += &inverse::stale_text(name, stale);
    Ok(Judged {
        text,
        good,
        entry: IndexEntry::of_study(plan, Some(&summary)),
    })
}
