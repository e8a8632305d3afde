//! Rows are a function of (seed, cell, replicate): not of the number of
//! threads, of the rest of the grid, or of how often a run was killed.

mod workplace;

use std::collections::BTreeSet;
use std::process::Child;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use workplace::{ROWS, Workplace, timeless};

/// Replicates per cell of a study that lasts a few seconds; it has four cells.
const REPLICATES: usize = 100;

fn long() -> Workplace {
    let place = Workplace::new();
    place.edit("tiny.toml", "[50, 100]\n[[grid", "[500, 1000]\n[[grid");
    place.edit("tiny.toml", "window = [50, 100]", "window = [500, 1000]");
    let replicates = format!("replicates = {REPLICATES}");
    place.edit("tiny.toml", "replicates = 12", &replicates);
    place
}

/// The rows of an uninterrupted run of [`long`] by one thread.
fn uninterrupted() -> &'static str {
    static ROWS_TEXT: OnceLock<String> = OnceLock::new();
    ROWS_TEXT.get_or_init(|| {
        let place = long();
        place.succeed("run tiny.toml --jobs 1");
        let rows = place.read(ROWS);
        assert_eq!(rows.lines().count(), 1 + 4 * REPLICATES);
        rows
    })
}

/// Whole rows in the file now, its header not counted.
fn rows_so_far(place: &Workplace) -> usize {
    let bytes = std::fs::read(place.path(ROWS)).unwrap_or_default();
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    lines.saturating_sub(1)
}

/// Starts the study and waits until it has `rows` rows.
fn started(place: &Workplace, rows: usize) -> Child {
    let mut child = place.command("run tiny.toml --jobs 2").spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while rows_so_far(place) < rows {
        assert!(Instant::now() < patience, "no {rows} rows after a minute");
        assert_eq!(child.try_wait().unwrap(), None, "ended before {rows} rows");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn rows_do_not_depend_on_the_number_of_threads() {
    let rows = [1, 2, 7].map(|jobs| {
        let place = Workplace::new();
        place.succeed(&format!("run tiny.toml --jobs {jobs}"));
        place.read(ROWS)
    });
    assert_eq!(rows[0].lines().count(), 49);
    for other in &rows[1..] {
        assert_eq!(timeless(other), timeless(&rows[0]));
    }
}

#[test]
fn more_sizes_replicates_and_variants_of_prose_change_no_existing_row() {
    let place = Workplace::with_rows();
    let old = place.read(ROWS);
    place.edit("tiny.toml", "n = [50, 100]", "n = [200, 100, 50]");
    place.edit("tiny.toml", "replicates = 12", "replicates = 14");
    place.edit("tiny.toml", "none", "other prose");
    place.succeed("run tiny.toml");
    let grown = place.read(ROWS);
    assert_eq!(grown.lines().count(), 1 + 2 * 3 * 14);
    let lines: BTreeSet<&str> = grown.lines().collect();
    assert!(old.lines().all(|row| lines.contains(row)));
    // The same grid at once gives the same file.
    let at_once = Workplace::new();
    at_once.write("tiny.toml", &place.read("tiny.toml"));
    at_once.succeed("run tiny.toml");
    assert_eq!(timeless(&at_once.read(ROWS)), timeless(&grown));
    // A smaller grid keeps what it no longer uses.
    place.edit("tiny.toml", "n = [200, 100, 50]", "n = [100, 50]");
    place.succeed("run tiny.toml");
    let kept = place.read(ROWS);
    assert_eq!(kept.lines().collect::<BTreeSet<_>>(), lines);
}

#[test]
fn a_run_killed_at_three_moments_ends_with_the_rows_of_an_uninterrupted_one() {
    let all = 4 * REPLICATES;
    let place = long();
    for moment in [2, all / 3, 2 * all / 3] {
        let mut child = started(&place, moment);
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let left = rows_so_far(&place);
        assert!(
            (moment..all).contains(&left),
            "killed too late: {left} rows"
        );
        assert!(!place.path("results/tiny/index.html").exists());
    }
    place.succeed("run tiny.toml --jobs 2");
    let resumed = place.read(ROWS);
    // No row lost, none repeated, plan order, the same digits.
    assert_eq!(timeless(&resumed), timeless(uninterrupted()));
}

#[test]
fn a_second_writer_is_refused_and_the_first_is_unharmed() {
    let place = long();
    let mut first = started(&place, 2);
    place.refuse("run tiny.toml", &[ROWS, "another run is writing"]);
    place.refuse("run tiny.toml --smoke", &[ROWS, "another run is writing"]);
    assert_eq!(first.try_wait().unwrap(), None, "the first run is over");
    // Readers are welcome.
    place.succeed("report tiny.toml");
    let finished = first.wait_with_output().unwrap();
    assert!(finished.status.success());
    assert_eq!(timeless(&place.read(ROWS)), timeless(uninterrupted()));
}
