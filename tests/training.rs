//! `smoe_train` as users run it: what a run leaves, killed and resumed runs, and one
//! line for every kind of bad input.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A run of seconds.
const RUN: &str = r#"name = "small"
steps = 24

[data]
source = "tinyshakespeare"

[batch]
sequences = 4
length = 16
micro_batches = 2

[model]
layers = 2
width = 16
heads = 2
dropout = 0.1

[experts]
count = 4
hidden = 16

[router]
kind = "compete-v2"

[competition]
schedule = { kind = "budgeted", rate = 0.3, budget = 1, warm_up = 0.0 }

[evaluation]
every = 8
windows = 8

[optimiser]
warm_up = 4

[checkpoints]
every = 5

[log]
every = 1
statistics = 8
sample = 12
"#;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_smoe_train"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder with a run file.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(run: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.toml"), run).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &str, more: &[&str]) -> Output {
        let mut command = program();
        command.arg("run").arg(self.path("run.toml"));
        command.arg("--out").arg(self.path(out)).args(more);
        command.output().unwrap()
    }

    fn rows(&self, out: &str) -> Vec<Value> {
        rows(&self.path(out).join("small/log.jsonl"))
    }
}

/// The rows of a log without what depends on the clock.
fn rows(path: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(path).unwrap();
    log.lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).unwrap();
            let row_map = row.as_object_mut().unwrap();
            row_map.remove("seconds");
            row_map.remove("tokens_per_second");
            row
        })
        .collect()
}

fn kinds(rows: &[Value], kind: &str) -> usize {
    rows.iter().filter(|row| row["kind"] == kind).count()
}

#[test]
fn a_run_leaves_its_log_checkpoints_best_weights_figures_and_page() {
    let place = Place::new(RUN);
    let output = place.train("out", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folder = place.path("out/small");
    assert_eq!(
        text(&output.stdout).trim(),
        folder.join("index.html").display().to_string()
    );
    for file in [
        "run.toml",
        "summary.toml",
        "index.html",
        "curves.svg",
        "curves.png",
        "load.svg",
        "routing.svg",
        "competition.svg",
        "experts.svg",
        "best/weights.safetensors",
        "checkpoints/step-00000024/state.json",
        "checkpoints/step-00000020/mean.safetensors",
    ] {
        assert!(folder.join(file).exists(), "{file}");
    }
    assert!(!folder.join("checkpoints/step-00000015").exists());
    let rows = place.rows("out");
    assert_eq!(kinds(&rows, "step"), 24);
    // Before the first step, thrice, and at the end with 1 and 4 experts too.
    assert_eq!(kinds(&rows, "evaluation"), 6);
    assert_eq!(kinds(&rows, "statistics"), 4);
    assert_eq!(kinds(&rows, "text"), 2);
    let losses: Vec<f64> = rows
        .iter()
        .filter(|row| row["kind"] == "evaluation" && row["top_k"] == 2)
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[3] < losses[0], "{losses:?}");
    let competing = rows.iter().filter_map(|row| row["competing"].as_u64());
    assert!(competing.clone().any(|c| c == 1) && competing.clone().any(|c| c == 0));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let place = Place::new(RUN);
    for (out, threads) in [("one", "1"), ("three", "3")] {
        let output = place.train(out, &["--threads", threads]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(place.rows("one"), place.rows("three"));
    let weights = |out: &str| {
        let path = place.path(out).join("small/best/weights.safetensors");
        std::fs::read(path).unwrap()
    };
    assert!(weights("one") == weights("three"));
}

/// Starts a run, waits until it has logged some rows, and kills it.
fn start_and_kill(place: &Place, signal: Option<&str>) -> std::process::ExitStatus {
    let mut child = program()
        .arg("run")
        .arg(place.path("run.toml"))
        .arg("--out")
        .arg(place.path("killed"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = place.path("killed").join("small/log.jsonl");
    let start = Instant::now();
    let lines = || std::fs::read_to_string(&log).map_or(0, |log| log.lines().count());
    let before = lines();
    // A run that goes on first cuts rows off, then passes where it was.
    while lines() <= before.max(12) && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(2));
    }
    match signal {
        None => child.kill().unwrap(),
        Some(name) => {
            let id = child.id().to_string();
            let sent = Command::new("kill").args(["-s", name, &id]).status();
            assert!(sent.unwrap().success());
        }
    }
    child.wait().unwrap()
}

#[test]
fn a_killed_run_that_is_started_again_writes_the_rows_of_one_that_was_not() {
    // Long enough to be killed on its way.
    let run = RUN
        .replace("steps = 24", "steps = 400")
        .replace("every = 8\n", "every = 100\n")
        .replace("statistics = 8", "statistics = 50");
    let place = Place::new(&run);
    assert!(place.train("whole", &[]).status.success());
    start_and_kill(&place, None);
    let stopped = start_and_kill(&place, Some("TERM"));
    // It may have finished before the signal came; if not, it said goodbye properly.
    assert!(stopped.code() == Some(0), "{stopped:?}");
    let output = place.train("killed", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(place.rows("whole"), place.rows("killed"));
    for file in ["best/weights", "checkpoints/step-00000400/square"] {
        let read = |out: &str| {
            let path = place.path(out).join(format!("small/{file}.safetensors"));
            std::fs::read(path).unwrap()
        };
        assert!(read("whole") == read("killed"), "{file}");
    }
}

#[test]
fn a_term_signal_saves_where_the_run_is() {
    let run = RUN
        .replace("steps = 24", "steps = 100000")
        .replace("[checkpoints]\nevery = 5", "[checkpoints]\nevery = 50000");
    let place = Place::new(&run);
    let status = start_and_kill(&place, Some("TERM"));
    assert_eq!(status.code(), Some(0));
    let checkpoints = place.path("killed/small/checkpoints");
    assert_eq!(std::fs::read_dir(checkpoints).unwrap().count(), 1);
}

#[test]
fn a_dry_run_says_what_a_run_would_cost_and_writes_nothing() {
    let place = Place::new(RUN);
    let output = place.train("out", &["--dry-run"]);
    assert!(output.status.success());
    let said = text(&output.stdout);
    for words in [
        "parameters ",
        " active per token",
        "operations per token",
        "memory ",
        "a layer competes on 30.0 % of the steps",
        "distillation ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!place.path("out").exists());
}

#[test]
fn a_profile_shows_where_the_time_of_a_step_goes_and_writes_nothing() {
    let place = Place::new(RUN);
    let output = place.train("out", &["--profile"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for words in ["attention", "optimiser", "products"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!place.path("out").exists());
}

#[test]
fn an_override_is_the_value_in_the_file() {
    let place = Place::new(RUN);
    let output = place.train("out", &["--set", "steps=2", "--set", "optimiser.warm_up=1"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(kinds(&place.rows("out"), "step"), 2);
    let kept = std::fs::read_to_string(place.path("out/small/run.toml")).unwrap();
    assert!(kept.contains("steps = 2\n"));
}

#[test]
fn every_wrong_run_is_refused_in_one_line_that_names_the_place() {
    for (from, to, expected) in [
        (
            "width = 16",
            "widht = 16",
            "run.toml:14: unknown field `widht`",
        ),
        ("width = 16", "width = \"x\"", "run.toml:14: key `width`"),
        (
            "heads = 2",
            "heads = 3",
            "key `model.heads`: must divide the width, 16",
        ),
        (
            "rate = 0.3, budget = 1",
            "rate = 0.9, budget = 1",
            "key `competition.schedule.budget`: must be at least rate times layers, 1.8",
        ),
        (
            "kind = \"compete-v2\"",
            "kind = \"compete-v2\"\ntop_k = 5",
            "key `router.top_k`: must be 1 to 4, the number of experts",
        ),
        (
            "kind = \"compete-v2\"",
            "kind = \"competes\"",
            "run.toml:23: key `kind`: unknown variant `competes`",
        ),
        ("\"tinyshakespeare\"", "\"nowhere\"", "nowhere"),
        (
            "warm_up = 4",
            "warm_up = 40",
            "must be at most the 24 steps of the run",
        ),
        (
            "steps = 24",
            "steps = 0",
            "run.toml:2: key `steps`: must be at least 1",
        ),
        ("length = 16", "length = 2000000", "batch.length"),
        (
            "name = \"small\"",
            "name = \"a/b\"",
            "run.toml:1: key `name`",
        ),
    ] {
        assert!(RUN.contains(from), "{from}");
        let place = Place::new(&RUN.replacen(from, to, 1));
        let output = place.train("out", &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{to}: {said}");
        assert_eq!(said.lines().count(), 1, "{to}: {said}");
        assert!(said.contains(expected), "{to}: {said}");
        assert!(!place.path("out").exists(), "{to}");
    }
}

#[test]
fn a_wrong_override_is_refused_in_one_line() {
    let place = Place::new(RUN);
    for (setting, expected) in [
        ("steps", "must be table.key=value"),
        ("model.wide=3", "unknown field `wide`"),
        ("steps.x=3", "`steps` is not a table"),
    ] {
        let output = place.train("out", &["--set", setting]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.lines().count() == 1 && said.contains(expected),
            "{said}"
        );
    }
}

#[test]
fn a_folder_that_holds_another_run_is_left_as_it_is() {
    let place = Place::new(RUN);
    assert!(place.train("out", &[]).status.success());
    let log = place.path("out/small/log.jsonl");
    let before = std::fs::read(&log).unwrap();
    let output = place.train("out", &["--set", "optimiser.rate=0.5"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("state.json: key `run`: the checkpoint is of a run with other settings"));
    assert!(std::fs::read(&log).unwrap() == before);
    // A run that is done is done.
    assert!(place.train("out", &[]).status.success());
    assert!(std::fs::read(&log).unwrap() == before);
}

#[test]
fn a_trained_model_is_measured_at_any_number_of_experts() {
    let place = Place::new(RUN);
    assert!(place.train("out", &[]).status.success());
    let folder = place.path("out/small");
    let measure = |more: &[&str]| {
        let mut command = program();
        command.arg("eval").arg(&folder).args(more);
        command.output().unwrap()
    };
    let output = measure(&["--json", "--top-k", "1", "--top-k", "4"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["tokens"], 111_539);
    assert_ne!(lines[0]["loss"], lines[1]["loss"]);
    let bits = lines[0]["loss"].as_f64().unwrap() / std::f64::consts::LN_2;
    assert!((lines[0]["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-12);
    for (more, expected) in [
        (
            vec!["--top-k", "5"],
            "--top-k 5: must be 1 to 4, the number of experts",
        ),
        (
            vec!["--step", "7"],
            "--step 7: is not kept; kept are 20, 24",
        ),
        (vec!["--split", "test"], "test"),
    ] {
        let output = measure(&more);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.lines().count() == 1 && said.contains(expected),
            "{said}"
        );
    }
}

#[test]
fn runs_are_compared_on_one_page() {
    let place = Place::new(RUN);
    assert!(place.train("out", &[]).status.success());
    assert!(
        place
            .train("out", &["--set", "name=other", "--set", "seed=2"])
            .status
            .success()
    );
    let output = program()
        .arg("compare")
        .args([place.path("out/small"), place.path("out/other")])
        .arg("--out")
        .arg(place.path("comparison"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(place.path("comparison/index.html").exists());
}

#[test]
fn a_text_is_prepared_and_trained_on() {
    let place = Place::new(RUN);
    let words = "the quick brown fox jumps over the lazy dog, said the poet. ".repeat(80);
    std::fs::write(place.path("poem.txt"), words).unwrap();
    let output = program()
        .args(["data", place.path("poem.txt").to_str().unwrap()])
        .args(["--vocabulary", "bytes", "--out"])
        .arg(place.path("poem"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("train: 4320 tokens of 4320 bytes"));
    let source = format!("data.source={}", place.path("poem").display());
    let output = place.train("out", &["--set", &source, "--set", "steps=6"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let refused = program()
        .args(["data", "nowhere.txt", "--vocabulary", "bytes", "--out"])
        .arg(place.path("x"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(text(&refused.stderr).lines().count(), 1);
}

#[test]
fn every_run_file_of_the_project_is_a_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/train");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let run = smoe_lab::train::config::read(&path, &[]).unwrap();
            assert_eq!(Some(run.name.as_str()), path.file_stem().unwrap().to_str());
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen} run files");
}

#[test]
fn a_trained_model_writes_the_same_text_for_the_same_seed() {
    let place = Place::new(RUN);
    assert!(place.train("out", &[]).status.success());
    let write = |more: &[&str]| {
        let mut command = program();
        command.arg("generate").arg(place.path("out/small"));
        command.args(["--tokens", "40"]).args(more);
        let output = command.output().unwrap();
        (output.status.code(), output.stdout, text(&output.stderr))
    };
    let (code, first, said) = write(&["--prompt", "To be", "--seed", "3"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(text(&first).starts_with("To be"));
    assert!(text(&first).trim_end_matches('\n').chars().count() > 30);
    assert!(write(&["--prompt", "To be", "--seed", "3"]).1 == first);
    assert!(write(&["--prompt", "To be", "--seed", "4"]).1 != first);
    let (code, _, said) = write(&["--prompt", "€"]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let (code, _, said) = write(&["--temperature=-1"]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
}

#[test]
fn a_trained_model_is_exported_where_another_program_can_hold_it() {
    let mixtral = RUN.replace(
        "dropout = 0.1",
        "norm = \"root-mean-square\"\nactivation = \"swiglu\"",
    );
    for (run, family, expected) in [
        (mixtral.as_str(), "mixtral", None),
        (RUN, "plain", None),
        (RUN, "mixtral", Some("model.norm")),
    ] {
        let place = Place::new(run);
        assert!(place.train("out", &[]).status.success());
        let output = program()
            .arg("export")
            .arg(place.path("out/small"))
            .args(["--as", family, "--out"])
            .arg(place.path("exported"))
            .output()
            .unwrap();
        let said = text(&output.stderr);
        match expected {
            None => {
                assert!(output.status.success(), "{family}: {said}");
                assert!(place.path("exported/config.json").exists());
            }
            Some(key) => {
                assert_eq!(output.status.code(), Some(2), "{family}: {said}");
                assert!(said.lines().count() == 1 && said.contains(key), "{said}");
                assert!(!place.path("exported").exists());
            }
        }
    }
}
