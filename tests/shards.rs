//! Parts of a study, run by several processes into files of their own, give the
//! rows of one run.

mod workplace;

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use workplace::{ROWS, Workplace, timeless};

const FOLDER: &str = "results/tiny";

fn file_of(index: u32, count: u32) -> String {
    format!("{FOLDER}/rows.{index}-of-{count}.csv")
}

fn run_shards(place: &Workplace, count: u32) {
    for index in 1..=count {
        place.succeed(&format!("run tiny.toml --jobs 1 --shard {index}/{count}"));
    }
}

/// All rows of all files without their times, sorted; each once.
fn rows_anywhere(place: &Workplace) -> Vec<String> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(place.path(FOLDER)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("rows.") && name.ends_with(".csv") {
            let text = place.read(&format!("{FOLDER}/{name}"));
            rows.extend(timeless(&text).into_iter().skip(1).map(String::from));
        }
    }
    rows.sort();
    rows.dedup();
    rows
}

/// The rows of one run in one file.
fn single_run(place: &Workplace) -> Vec<String> {
    let alone = Workplace::new();
    alone.write("tiny.toml", &place.read("tiny.toml"));
    alone.succeed("run tiny.toml --jobs 2");
    rows_anywhere(&alone)
}

/// The report without what depends on time.
fn report_files(place: &Workplace) -> [String; 3] {
    ["summary.csv", "claims.csv", "rates.svg"].map(|name| place.read(&format!("{FOLDER}/{name}")))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn under(place: &Workplace, line: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = place.command(line);
    command.envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn four_shards_have_the_rows_and_the_report_of_a_single_run() {
    let place = Workplace::new();
    for index in 1..=4 {
        let out = place.succeed(&format!("run tiny.toml --jobs 1 --shard {index}/4"));
        let there = format!("shard {index} of 4: 12 rows computed");
        assert!(out.contains(&there), "{out}");
        assert!(out.contains(&format!("{} of 48 rows", 12 * index)), "{out}");
        assert_eq!(out.contains("all rows are there"), index == 4, "{out}");
        // A part decides nothing: no report, and no common file.
        assert!(!place.path(FOLDER).join("index.html").exists());
        assert!(!place.path(ROWS).exists());
    }
    assert_eq!(rows_anywhere(&place), single_run(&place));
    place.succeed("report tiny.toml");
    let alone = Workplace::with_rows();
    assert_eq!(report_files(&place), report_files(&alone));
    // Files that are read, not written, by a plain run with nothing to do.
    let before = place.read(&file_of(3, 4));
    assert!(place.succeed("run tiny.toml").contains("0 rows computed"));
    assert_eq!(place.read(&file_of(3, 4)), before);
    assert_eq!(place.read(ROWS).lines().count(), 1);
    assert_eq!(report_files(&place), report_files(&alone));
}

#[test]
fn every_shard_has_its_share_of_every_cell() {
    for count in [2, 3, 4, 8] {
        let place = Workplace::new();
        run_shards(&place, count);
        for index in 1..=count {
            let text = place.read(&file_of(index, count));
            let mut cells: BTreeMap<String, u32> = BTreeMap::new();
            for line in text.lines().skip(1) {
                // study,"cell",replicate,...
                *cells
                    .entry(line.split('"').nth(1).unwrap().into())
                    .or_default() += 1;
            }
            assert_eq!(cells.len(), 4, "{index} of {count}");
            let shares = [12 / count, 12_u32.div_ceil(count)];
            assert!(
                cells.values().all(|rows| shares.contains(rows)),
                "{cells:?}"
            );
            if 12 % count == 0 {
                assert_eq!(cells.values().sum::<u32>(), 48 / count);
            }
        }
    }
}

#[test]
fn a_shard_that_was_killed_and_is_repeated_completes_its_part() {
    let place = Workplace::new();
    run_shards(&place, 4);
    let whole = place.read(&file_of(2, 4));
    // As a kill leaves it: some rows, and a torn line.
    fs::write(place.path(&file_of(2, 4)), &whole[..whole.len() / 2]).unwrap();
    let report = place.succeed("report tiny.toml");
    assert!(report.contains("The run is incomplete"), "{report}");
    // While others read the torn file, nobody changes it but its own shard.
    place.succeed("run tiny.toml --shard 1/4");
    assert_eq!(place.read(&file_of(2, 4)), whole[..whole.len() / 2]);
    place.succeed("run tiny.toml --shard 2/4");
    assert_eq!(timeless(&place.read(&file_of(2, 4))), timeless(&whole));
    let again = place.succeed("run tiny.toml --shard 2/4");
    assert!(again.contains("0 rows computed"), "{again}");
}

#[test]
fn shards_of_another_number_do_no_harm() {
    let place = Workplace::new();
    // Side by side in two folders, then put together: every row stands twice.
    run_shards(&place, 3);
    let other = Workplace::new();
    run_shards(&other, 2);
    for index in 1..=2 {
        place.write(&file_of(index, 2), &other.read(&file_of(index, 2)));
    }
    assert_eq!(rows_anywhere(&place), single_run(&place));
    place.succeed("report tiny.toml");
    assert_eq!(report_files(&place), report_files(&Workplace::with_rows()));
    // In one folder the second set finds nothing to do.
    let none = place.succeed("run tiny.toml --shard 5/7");
    assert!(none.contains("0 rows computed"), "{none}");
}

#[test]
fn a_plain_run_adds_what_a_missing_shard_would_have() {
    let place = Workplace::new();
    for index in [1, 2, 4] {
        place.succeed(&format!("run tiny.toml --shard {index}/4"));
    }
    let run = place.succeed("run tiny.toml");
    assert!(run.contains("12 rows computed"), "{run}");
    assert!(run.contains("36 were there"), "{run}");
    assert_eq!(place.read(ROWS).lines().count(), 13);
    assert_eq!(rows_anywhere(&place), single_run(&place));
    assert_eq!(report_files(&place), report_files(&Workplace::with_rows()));
    let replay = place.succeed("replay tiny.toml gate=absolute,n=100/5");
    assert!(replay.contains("equals the recorded row"), "{replay}");
}

#[test]
fn a_row_that_differs_between_files_is_refused() {
    let place = Workplace::with_rows();
    let rows = place.read(ROWS);
    place.write(&file_of(1, 2), &rows);
    place.succeed("report tiny.toml");
    // A time is no difference.
    let line = rows.lines().nth(5).unwrap();
    let later = format!("{},9.000000", line.rsplit_once(',').unwrap().0);
    place.write(&file_of(1, 2), &rows.replace(line, &later));
    place.succeed("report tiny.toml");
    let other = line.replacen(",Converged", ",Iterations", 1);
    assert_ne!(other, line);
    place.write(&file_of(1, 2), &rows.replace(line, &other));
    let parts = ["rows.1-of-2.csv", "gate=softplus,n=50/4", "differs", ROWS];
    for command in ["report", "run", "run --shard 2/2"] {
        place.refuse(&format!("{command} tiny.toml"), &parts[..3]);
    }
    place.refuse("report tiny.toml", &parts);
}

#[test]
fn shards_of_another_design_are_refused() {
    let place = Workplace::new();
    place.succeed("run tiny.toml --shard 1/2");
    place.edit("tiny.toml", "seed = 7", "seed = 8");
    let parts = ["rows.1-of-2.csv", "key `study`", "rows of another study"];
    for command in ["run --shard 1/2", "run --shard 2/2", "run", "report"] {
        place.refuse(&format!("{command} tiny.toml"), &parts);
    }
}

#[test]
fn a_shard_that_does_not_exist_is_refused() {
    let place = Workplace::new();
    for wrong in ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "-1/2", "all"] {
        place.refuse(
            &format!("run tiny.toml --shard={wrong}"),
            &["--shard", "I/M", wrong],
        );
    }
    assert!(!place.path("results").exists());
}

#[test]
fn a_pilot_in_shards_waits_for_all_of_them() {
    let place = Workplace::new();
    let precision = "replicates = { target_slope_se = 0.2, pilot = 10, at_most = 60 }";
    place.edit("tiny.toml", "replicates = 12", precision);
    let first = place.succeed("run tiny.toml --shard 1/2");
    assert!(first.contains("20 rows computed"), "{first}");
    assert!(
        first.contains("the pilot is not complete: repeat"),
        "{first}"
    );
    // The last shard finds the pilot complete and goes on; the first one must be
    // repeated.
    place.succeed("run tiny.toml --shard 2/2");
    let last = place.succeed("run tiny.toml --shard 1/2");
    assert!(last.contains("all rows are there"), "{last}");
    let rows = rows_anywhere(&place);
    assert!((44..240).contains(&rows.len()), "{}", rows.len());
    assert_eq!(rows, single_run(&place));
}

#[test]
fn the_variables_of_a_slurm_array_choose_the_shard() {
    let place = Workplace::new();
    let array = |task| {
        [
            ("SLURM_ARRAY_TASK_ID", task),
            ("SLURM_ARRAY_TASK_MIN", "2"),
            ("SLURM_ARRAY_TASK_MAX", "4"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
        ]
    };
    let run = under(&place, "run tiny.toml", &array("4"));
    assert!(run.status.success(), "{run:?}");
    assert!(
        text(&run.stderr).contains("shard 2 of 2, from Slurm"),
        "{run:?}"
    );
    assert_eq!(place.read(&file_of(2, 2)).lines().count(), 25);
    let run = under(&place, "run tiny.toml --shard 1/2", &array("4"));
    assert!(!text(&run.stderr).contains("Slurm"), "{run:?}");
    assert_eq!(rows_anywhere(&place), single_run(&place));
    // All of the study, whatever the scheduler says.
    let run = under(&place, "run tiny.toml --shard none --out all", &array("4"));
    assert!(text(&run.stdout).contains("48 rows computed"), "{run:?}");
    let run = under(&place, "run tiny.toml", &array("3"));
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(text(&run.stderr).lines().count(), 1, "{run:?}");
}

#[test]
fn the_variables_of_an_indexed_kubernetes_job_choose_the_shard() {
    let place = Workplace::new();
    let index = ("JOB_COMPLETION_INDEX", "0");
    let run = under(&place, "run tiny.toml", &[index, ("SMOE_SHARDS", "3")]);
    assert!(run.status.success(), "{run:?}");
    assert!(
        text(&run.stderr).contains("shard 1 of 3, from Kubernetes"),
        "{run:?}"
    );
    assert_eq!(place.read(&file_of(1, 3)).lines().count(), 17);
    let run = under(&place, "run tiny.toml", &[index]);
    assert_eq!((run.status.code(), text(&run.stdout)), (Some(2), ""));
    assert_eq!(text(&run.stderr).lines().count(), 1, "{run:?}");
    assert!(text(&run.stderr).contains("SMOE_SHARDS"), "{run:?}");
}

#[test]
fn two_writers_of_one_shard_are_refused_and_of_two_are_not() {
    let place = Workplace::new();
    fs::create_dir_all(place.path(FOLDER)).unwrap();
    let lock = fs::File::create(place.path(FOLDER).join(".rows.1-of-2.lock")).unwrap();
    lock.try_lock().unwrap();
    place.refuse(
        "run tiny.toml --shard 1/2",
        &["rows.1-of-2.csv", "another run is writing"],
    );
    place.succeed("run tiny.toml --shard 2/2");
    place.succeed("run tiny.toml");
}
