//! The command line, run as users run it: what goes to which stream, exit
//! codes, and one line for every kind of bad input with nothing lost.

mod workplace;

use serde_json::Value;
use smoe_lab::backend::cuda::{DeviceChoice, Opened, open};
use smoe_lab::loss::density::{Effort, density_distance};
use smoe_lab::loss::divergence::Wanted;
use smoe_lab::model::read_model;
use std::fs;
use std::io::Read;
use workplace::{MODEL, ROWS, STUDY, Workplace, timeless};

const CELLS: [&str; 4] = [
    "gate=softplus,n=50",
    "gate=softplus,n=100",
    "gate=absolute,n=50",
    "gate=absolute,n=100",
];

const SOFTMAX: &str = r#"[input]
law = "uniform"
low = [-1.0]
high = [1.0]
[gate]
kind = "softmax"
[[expert]]
kind = "linear"
slope = [2.0]
intercept = 1.0
variance = 0.3
gate_slope = [1.5]
gate_intercept = 0.3
[[expert]]
kind = "linear"
slope = [-1.5]
intercept = 0.5
variance = 0.4
gate_slope = [0.0]
gate_intercept = 0.0
"#;

/// True if this computer has a GPU that can be used.
fn has_gpu() -> bool {
    matches!(open(DeviceChoice::Auto), Ok(Opened::Gpu(_)))
}

/// Number of rows in a row file, its header not counted.
fn count(rows: &str) -> usize {
    rows.lines().count() - 1
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// True if every number in JSON text is written with 17 significant digits.
fn has_17_digits(text: &str) -> bool {
    let numbers = text
        .split(['[', ']', '{', '}', ',', ':', ' ', '\n'])
        .filter(|t| t.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
    let mut seen = 0;
    let all = numbers.inspect(|_| seen += 1).all(|number| {
        let digits = number.split('e').next().unwrap_or("");
        digits.chars().filter(char::is_ascii_digit).count() == 17
    });
    all && seen > 0
}

// ---- what works ----

#[test]
fn plan_lists_the_cells_on_standard_output_and_runs_nothing() {
    let place = Workplace::new();
    let plan = place.run("plan tiny.toml");
    assert_eq!((plan.code, plan.err.as_str()), (Some(0), ""));
    for cell in CELLS {
        assert!(plan.out.contains(cell), "{}", plan.out);
    }
    assert!(plan.out.contains("4 cells, 48 fits"), "{}", plan.out);
    assert!(!place.path("results").exists());
}

#[test]
fn run_leaves_rows_tables_figures_and_a_page_and_talks_on_standard_error() {
    let place = Workplace::new();
    let run = place.run("run tiny.toml");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("48 rows computed"), "{}", run.out);
    assert!(run.out.contains("results/tiny/index.html"), "{}", run.out);
    // One line per finished cell, none of them in the data.
    assert_eq!(run.err.lines().count(), 4, "{}", run.err);
    assert!(run.err.lines().all(|line| line.contains(" done, ")));
    assert!(!run.out.contains(" done, "));
    for file in [
        "rows.csv",
        "summary.csv",
        "claims.csv",
        "rates.svg",
        "rates.png",
        "constants.svg",
        "constants.png",
        "index.html",
        "environment.toml",
    ] {
        // and `.lock`, which is empty
        let size = fs::metadata(place.path("results/tiny").join(file)).map(|m| m.len());
        assert!(size.is_ok_and(|bytes| bytes > 0), "{file}");
    }
    assert_eq!(
        fs::read_dir(place.path("results/tiny")).unwrap().count(),
        10
    );
    assert_eq!(count(&place.read(ROWS)), 48);
}

#[test]
fn a_second_run_computes_nothing_and_changes_no_row() {
    let place = Workplace::with_rows();
    let before = place.read(ROWS);
    let again = place.run("run tiny.toml");
    assert!(again.out.contains("0 rows computed"), "{}", again.out);
    assert_eq!(again.err, "");
    assert_eq!(place.read(ROWS), before);
}

#[test]
fn report_rebuilds_the_same_files_from_rows_alone() {
    let place = Workplace::with_rows();
    let kept = ["summary.csv", "claims.csv", "rates.svg", "environment.toml"];
    let read = || kept.map(|file| place.read(&format!("results/tiny/{file}")));
    let before = read();
    for file in ["summary.csv", "claims.csv", "rates.svg"] {
        fs::remove_file(place.path("results/tiny").join(file)).unwrap();
    }
    let report = place.run("report tiny.toml --accuracy 0.05");
    assert_eq!((report.code, report.err.as_str()), (Some(0), ""));
    assert_eq!(read(), before);
    for series in ["gate=softplus", "gate=absolute"] {
        let line = format!("E h = 0.05: {series} n = ");
        assert!(report.out.contains(&line), "{}", report.out);
    }
}

#[test]
fn replay_computes_the_recorded_row_again_and_shows_every_start() {
    let place = Workplace::with_rows();
    let replay = place.run("replay tiny.toml gate=absolute,n=100/5");
    assert_eq!((replay.code, replay.err.as_str()), (Some(0), ""));
    assert!(
        replay.out.contains("equals the recorded row"),
        "{}",
        replay.out
    );
    for start in ["start perturbed-truth(0.05)", "start k-means"] {
        assert!(replay.out.contains(start), "{}", replay.out);
    }
    // Not recorded: beyond the replicates, or no folder at all.
    let beyond = place.succeed("replay tiny.toml gate=absolute,n=100/12");
    assert!(beyond.contains("no such row is recorded"), "{beyond}");
    let nowhere = place.succeed("replay tiny.toml gate=absolute,n=100/5 --out nowhere");
    assert!(!nowhere.contains("recorded row"), "{nowhere}");
}

#[test]
fn replay_says_so_when_a_recorded_number_was_changed() {
    let place = Workplace::with_rows();
    let rows = place.read(ROWS);
    let row = rows
        .lines()
        .find(|l| l.contains("\"gate=softplus,n=50\",2,"));
    let row = row.unwrap();
    place.edit(
        ROWS,
        row,
        &row.replacen(",50,Converged,true,", ",50,Converged,false,", 1),
    );
    assert_ne!(place.read(ROWS), rows);
    let replay = place.run("replay tiny.toml gate=softplus,n=50/2");
    assert_eq!(replay.code, Some(1));
    let replay = replay.out;
    assert!(replay.contains("DIFFERS from the recorded row"), "{replay}");
}

#[test]
fn only_runs_the_cells_whose_name_contains_the_text() {
    let place = Workplace::new();
    place.run("run tiny.toml --only absolute,n=50");
    let rows = place.read(ROWS);
    assert_eq!(count(&rows), 12);
    assert!(
        rows.lines()
            .skip(1)
            .all(|l| l.contains("gate=absolute,n=50"))
    );
    place.succeed("run tiny.toml");
    assert_eq!(count(&place.read(ROWS)), 48);
}

#[test]
fn a_smoke_run_makes_two_real_rows_per_cell_that_a_full_run_keeps() {
    let place = Workplace::new();
    // Two replicates decide nothing: even an impossible claim passes.
    place.edit(
        "tiny.toml",
        "accept = [-90.0, 90.0]",
        "accept = [98.0, 99.0]",
    );
    place.succeed("run tiny.toml --smoke");
    let smoke = place.read(ROWS);
    assert_eq!(count(&smoke), 8);
    let full = place.run("run tiny.toml");
    assert!(full.out.contains("40 rows computed"), "{}", full.out);
    let all = place.read(ROWS);
    assert!(smoke.lines().all(|row| all.lines().any(|l| l == row)));
}

#[test]
fn a_folder_means_all_studies_in_it() {
    let place = Workplace::new();
    place.write("two/model.toml.txt", "not a study");
    place.write("model/model.toml", MODEL);
    for name in ["a", "b"] {
        let study = STUDY.replace("model.toml", "../model/model.toml");
        place.write(&format!("two/{name}.toml"), &study);
    }
    place.succeed("run two --smoke");
    for name in ["a", "b"] {
        assert_eq!(count(&place.read(&format!("results/{name}/rows.csv"))), 8);
    }
}

#[test]
fn a_sample_is_reproducible_and_its_first_rows_do_not_depend_on_its_length() {
    let place = Workplace::new();
    let ten = place.run("sample model.toml -n 10 --seed 3");
    assert_eq!((ten.code, ten.err.as_str()), (Some(0), ""));
    assert_eq!(ten.out, place.succeed("sample model.toml -n 10 --seed 3"));
    assert_ne!(ten.out, place.succeed("sample model.toml -n 10 --seed 4"));
    let five = place.succeed("sample model.toml -n 5 --seed 3");
    assert!(ten.out.starts_with(&five));
    assert_eq!(five.lines().next(), Some("x1,y"));
    assert_eq!((five.lines().count(), ten.out.lines().count()), (6, 11));
}

#[test]
fn a_sample_on_a_lattice_is_the_counts_of_its_cells_at_any_size() {
    let place = Workplace::new();
    let law = "law = \"uniform\"\nlow = [-1.0]\nhigh = [1.0]";
    assert!(MODEL.contains(law));
    let lattice = "law = \"grid\"\npoints = [[-1.0], [0.25]]\nlattice = 0.5";
    place.write("lattice.toml", &MODEL.replace(law, lattice));
    let out = place.succeed("sample lattice.toml -n 10000000000 --seed 3");
    assert_eq!(out.lines().next(), Some("x1,y,count"));
    assert!(out.lines().count() < 500);
    let counts = out.lines().skip(1).map(|line| line.rsplit(',').next());
    let total: f64 = counts.map(|c| c.unwrap().parse::<f64>().unwrap()).sum();
    assert_eq!(total, 1e10);
    let coarse = lattice.replace("lattice = 0.5", "lattice = 1.5");
    place.write("coarse.toml", &MODEL.replace(law, &coarse));
    let error = place.run("sample coarse.toml -n 10 --seed 3");
    assert_eq!(error.code, Some(2));
    assert!(error.err.contains("input.lattice"), "{}", error.err);
}

#[test]
fn a_study_may_fit_more_experts_than_the_truth_has_and_count_passes() {
    let place = Workplace::new();
    let study = STUDY
        .replace("gain = 0.5", "gain = 0.5\ncopies = [2, 1]")
        .replace(
            "coefficient = 10.0",
            "coefficient = 1.0\ncentre = \"truth\"",
        )
        .replace("variance = [0.01, 10.0]", "variance = [0.25, 4.0]")
        + "[[claim]]\nkind = \"passes\"\nmedian = 100\npercentile_99 = 500\n";
    place.write("tiny.toml", &study);
    let out = place.succeed("run tiny.toml --smoke");
    assert!(out.contains("at most 100 in the median"), "{out}");
    assert!(out.contains("11 free parameters"), "{out}");
    assert!(!out.contains("tr(I n Cov)"), "{out}");
    let constant = "[[claim]]\nkind = \"constant\"\ntheorem = \"Wilks\"\n\
                    constant = \"likelihood_ratio\"\ntolerance = 0.1\n";
    place.write("tiny.toml", &(study + constant));
    let refused = place.run("plan tiny.toml");
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.err.contains("own number of experts"),
        "{}",
        refused.err
    );
}

#[test]
fn a_sample_ends_when_its_reader_goes_away() {
    let place = Workplace::new();
    let mut child = place
        .command("sample model.toml -n 1000000000000 --seed 3")
        .spawn()
        .unwrap();
    let mut header = [0; 5];
    let mut reader = child.stdout.take().unwrap();
    reader.read_exact(&mut header).unwrap();
    assert_eq!(&header, b"x1,y\n");
    drop(reader);
    assert!(child.wait().unwrap().success());
}

#[test]
fn density_prints_the_librarys_numbers_with_17_digits() {
    let place = Workplace::new();
    let points = place.succeed("sample model.toml -n 20 --seed 3");
    place.write("points.csv", &points);
    let density = place.run("density model.toml points.csv --json");
    assert_eq!((density.code, density.err.as_str()), (Some(0), ""));
    assert!(has_17_digits(&density.out), "{}", density.out);
    let model = read_model(&place.path("model.toml")).unwrap();
    let expected: Vec<f64> = points
        .lines()
        .skip(1)
        .map(|line| {
            let (x, y) = line.split_once(',').unwrap();
            let parameters = &model.parameters;
            parameters.log_density(&[x.parse().unwrap()], y.parse().unwrap())
        })
        .collect();
    let list = &json(&density.out)["log_density"];
    let printed: Vec<f64> = serde_json::from_value(list.clone()).unwrap();
    assert_eq!(printed, expected);
    // Without --json: a CSV column of the same numbers.
    let column = place.succeed("density model.toml points.csv");
    let numbers = column.lines().skip(1).map(|l| l.parse::<f64>().unwrap());
    assert_eq!(numbers.collect::<Vec<_>>(), expected);
}

#[test]
fn distance_prints_the_librarys_numbers_under_the_promised_keys() {
    let place = Workplace::new();
    place.write(
        "other.toml",
        &MODEL.replace("slope = [2.0]", "slope = [1.8]"),
    );
    let distance = place.run("distance model.toml other.toml --json");
    assert_eq!((distance.code, distance.err.as_str()), (Some(0), ""));
    assert!(has_17_digits(&distance.out), "{}", distance.out);
    let (p, q) = ("model.toml", "other.toml");
    let [p, q] = [p, q].map(|name| read_model(&place.path(name)).unwrap());
    let library = density_distance(&p, &q.parameters, Wanted::All, Effort::default()).unwrap();
    let found = json(&distance.out);
    for (key, mean) in [
        ("hellinger_mean", library.hellinger),
        ("hellinger_sq_mean", library.hellinger_sq),
        ("tv_mean", library.total_variation),
        ("kl_mean", library.kullback_leibler),
    ] {
        assert_eq!(found[key].as_f64(), Some(mean.value), "{key}");
        assert!(mean.value > 1e-4, "{key}");
    }
    // Equal masses normalised to one; the slopes differ by 0.2.
    let mass = 0.3f64.exp() / (1.0 + 0.3f64.exp());
    let voronoi = found["voronoi"]["competition"].as_f64().unwrap();
    assert!((voronoi - 0.2 * mass).abs() < 1e-12, "{voronoi}");
    let text = place.succeed("distance model.toml other.toml");
    assert!(text.contains("voronoi competition"), "{text}");
}

#[test]
fn the_distance_of_a_model_to_itself_is_zero_in_every_measure() {
    let place = Workplace::new();
    place.write("softmax.toml", SOFTMAX);
    for (model, loss) in [
        ("model.toml", "competition"),
        ("softmax.toml", "softmax_d2"),
    ] {
        let found = json(&place.succeed(&format!("distance {model} {model} --json")));
        for key in ["hellinger_mean", "hellinger_sq_mean", "tv_mean", "kl_mean"] {
            assert!(found[key].as_f64().unwrap().abs() < 1e-12, "{key}: {found}");
        }
        assert!(found["voronoi"][loss].as_f64().unwrap().abs() < 1e-12);
    }
    // Across gates the densities compare, the Voronoi losses do not.
    let across = json(&place.succeed("distance model.toml softmax.toml --json"));
    assert!(across["hellinger_mean"].as_f64().unwrap() > 0.01);
    assert_eq!(across["voronoi"].as_object().map(|o| o.len()), Some(0));
}

#[test]
fn check_passes_when_records_hold_and_fails_when_a_claim_does() {
    let place = Workplace::new();
    assert!(
        place
            .succeed("check tiny.toml")
            .contains("no recorded rows")
    );
    place.succeed("run tiny.toml --out records");
    let good = place.run("check tiny.toml");
    assert_eq!((good.code, good.err.as_str()), (Some(0), ""));
    assert!(good.out.contains("holds"), "{}", good.out);

    place.edit(
        "tiny.toml",
        "accept = [-90.0, 90.0]",
        "accept = [98.0, 99.0]",
    );
    let run = place.run("run tiny.toml --out other");
    assert_eq!(run.code, Some(1), "{run:?}");
    fs::remove_dir_all(place.path("records")).unwrap();
    fs::rename(place.path("other"), place.path("records")).unwrap();
    let bad = place.run("check tiny.toml");
    assert_eq!((bad.code, bad.err.as_str()), (Some(1), ""), "{bad:?}");
    assert!(bad.out.contains("fails"), "{}", bad.out);
    assert!(!bad.out.contains("stale"), "{}", bad.out);
}

#[test]
fn check_fails_and_says_where_when_a_report_is_stale() {
    for file in ["summary.csv", "claims.csv"] {
        let place = Workplace::new();
        place.succeed("run tiny.toml --out records");
        let name = format!("records/tiny/{file}");
        let text = place.read(&name);
        let digit = text.rfind(|c: char| c.is_ascii_digit()).unwrap();
        let other = if &text[digit..=digit] == "1" {
            "2"
        } else {
            "1"
        };
        let line = text[..digit].matches('\n').count() + 1;
        place.write(
            &name,
            &format!("{}{other}{}", &text[..digit], &text[digit + 1..]),
        );
        let check = place.run("check tiny.toml");
        assert_eq!(check.code, Some(1), "{check:?}");
        let message = format!("the report is stale: {file}, line {line}: stored `");
        assert!(check.out.contains(&message), "{}", check.out);
        fs::remove_file(place.path(&name)).unwrap();
        let check = place.run("check tiny.toml");
        assert_eq!(check.code, Some(1), "{check:?}");
        let message = format!("stale: {file} cannot be read");
        assert!(check.out.contains(&message), "{}", check.out);
    }
}

// ---- what is refused ----

/// Edits a file, expects every command to be refused with one line that holds
/// `parts`, and puts the file back; the rows stay as they are, byte for byte.
fn refuse_edit(place: &Workplace, file: &str, from: &str, to: &str, parts: &[&str]) {
    let rows = place.read(ROWS);
    let old = place.edit(file, from, to);
    for command in ["plan", "run", "report", "check"] {
        place.refuse(&format!("{command} tiny.toml"), parts);
    }
    place.write(file, &old);
    assert_eq!(place.read(ROWS), rows, "{to}");
}

#[test]
fn a_bad_study_is_refused_with_file_line_and_key() {
    let place = Workplace::with_rows();
    for (from, to, parts) in [
        ("seed = 7", "sede = 7", ["tiny.toml:4:", "sede"]),
        ("n = [50", "m = [50", ["tiny.toml:10:", "`m`"]),
        ("seed = 7", "seed = ", ["tiny.toml:4:", "seed"]),
        ("[grid]", "[grid", ["tiny.toml:9:", "unclosed"]),
        ("seed = 7", "seed = -7", ["tiny.toml:4:", "seed"]),
        ("seed = 7", "seed = \"7\"", ["tiny.toml:4:", "seed"]),
        ("seed = 7\n", "", ["tiny.toml", "seed"]),
        (
            "replicates = 12",
            "replicates = 0",
            ["tiny.toml:5:", "replicates"],
        ),
        (
            "replicates = 12",
            "replicates = -12",
            ["tiny.toml:5:", "replicates"],
        ),
        ("n = [50, 100]", "n = [0, 100]", ["tiny.toml:10:", "grid.n"]),
        ("n = [50, 100]", "n = [50, 50]", ["tiny.toml:10:", "grid.n"]),
        ("n = [50, 100]", "n = []", ["tiny.toml:10:", "grid.n"]),
        (
            "n = [50, 100]",
            "n = [50, 100, 2000000000]",
            ["tiny.toml:10:", "but on a lattice"],
        ),
        (
            "n = [50, 100]",
            "n = [50, 100, 2000000000000]",
            ["tiny.toml:10:", "10^12"],
        ),
        (
            "gain = 0.5",
            "gain = 0.5\ncopies = [2]",
            ["tiny.toml:21:", "fit.copies"],
        ),
        (
            "gain = 0.5",
            "gain = 0.5\ncopies = [2, 0]",
            ["tiny.toml:21:", "fit.copies"],
        ),
        (
            "gain = 0.5",
            "gain = 0.5\ncopies = 3",
            ["tiny.toml:21:", "copies"],
        ),
        (
            "coefficient = 10.0",
            "coefficient = 10.0\ncentre = \"zero\"",
            ["tiny.toml:24:", "zero"],
        ),
        (
            "variance = [0.01, 10.0]",
            "variance = [2.0, 10.0]\ncentre = \"truth\"",
            ["tiny.toml", "fit.limits.variance"],
        ),
        (
            "kind = \"slope\"",
            "kind = \"passes\"",
            ["tiny.toml:27:", "median"],
        ),
        ("n = [50, 100]", "n = \"many\"", ["tiny.toml:10:", "`n`"]),
        (
            "n = [50, 100]",
            "n = { from = 50, to = 100, point = 2 }",
            ["tiny.toml:10:", "`n`"],
        ),
        (
            "\"tv_mean\", ",
            "\"tv\", ",
            ["tiny.toml:6:", "\"tv\" is no loss"],
        ),
        ("\"tv_mean\", ", "\"voronoi\", ", ["tiny.toml:6:", "losses"]),
        (
            "\"tv_mean\", ",
            "\"voronoi_tilted\", ",
            ["tiny.toml:6:", "losses"],
        ),
        ("file = ", "fiel = ", ["tiny.toml:7:", "`fiel`"]),
        (
            "name = \"absolute\"",
            "name = \"softplus\"",
            ["tiny.toml", "grid.gate"],
        ),
        (
            "name = \"absolute\"",
            "name = \"a,b\"",
            ["tiny.toml", "grid.gate"],
        ),
        (
            "response = \"absolute\"",
            "top_k = 3",
            ["tiny.toml", "top_k"],
        ),
        (
            "method = \"em\"",
            "method = \"guess\"",
            ["tiny.toml:18:", "`guess`"],
        ),
        ("gain = 0.5", "gain = nan", ["tiny.toml:20:", "fit.gain"]),
        (
            "starts = [{ kind = \"perturbed-truth\", radius = 0.05 }, { kind = \"k-means\" }]",
            "starts = []",
            ["tiny.toml:21:", "fit.starts"],
        ),
        (
            "variance = [0.01, 10.0]",
            "variance = [0.0, 10.0]",
            ["tiny.toml:26:", "fit.limits.variance"],
        ),
        (
            "coefficient = 10.0",
            "coefficient = 1.0",
            ["tiny.toml:22:", "slope[0][0] = 2 is not in [-1, 1]"],
        ),
        (
            "window = [50, 100]",
            "window = [60, 100]",
            ["tiny.toml:32:", "claim[0].window"],
        ),
        (
            "window = [50, 100]",
            "window = [100, 50]",
            ["tiny.toml:32:", "claim[0].window"],
        ),
        (
            "window = [50, 100]",
            "window = [50]",
            ["tiny.toml:27:", "`claim`: invalid length 1"],
        ),
        (
            "accept = [-90.0, 90.0]",
            "accept = [1.0, 1.0]",
            ["tiny.toml:33:", "claim[0].accept"],
        ),
        (
            "loss = \"hellinger_mean\"",
            "loss = \"kl_mean\"",
            ["tiny.toml:30:", "claim[0].loss"],
        ),
        ("theorem =", "theory =", ["tiny.toml:", "theory"]),
    ] {
        refuse_edit(&place, "tiny.toml", from, to, &parts);
    }
}

#[test]
fn a_bad_estimator_or_truth_factor_is_refused_with_file_line_and_key() {
    let place = Workplace::with_rows();
    place.write("softmax.toml", SOFTMAX);
    let fits =
        |second: &str| format!("[[grid.fit]]\nname = \"own\"\n[[grid.fit]]\n{second}\n[fit]");
    let with = |second: &str| ("[fit]", fits(second));
    let after_gain = |key: &str| ("gain = 0.5", format!("gain = 0.5\n{key}"));
    let truths = |list: &str| ("file = \"model.toml\"", format!("files = [{list}]"));
    let loss = |name: &str| ("\"tv_mean\", ", format!("\"{name}\", "));
    for ((from, to), parts) in [
        (
            loss("slope"),
            ["tiny.toml:6:", "`losses`: \"slope\" is no loss"],
        ),
        (loss("slope[2]"), ["tiny.toml:6:", "no such expert"]),
        (
            loss("weight[0]"),
            ["tiny.toml:6:", "\"weight[0]\" is no loss"],
        ),
        (
            truths(""),
            ["tiny.toml:8:", "`truth.files`: needs at least one"],
        ),
        (
            truths(
                "{ name = \"a\", file = \"model.toml\" }, { name = \"a\", file = \"model.toml\" }",
            ),
            ["tiny.toml:8:", "`truth.files`: names must be distinct"],
        ),
        (
            truths("{ name = \"a\", fiel = \"model.toml\" }"),
            ["tiny.toml", "fiel"],
        ),
        (
            truths("{ name = \"a\", file = \"none.toml\" }"),
            ["none.toml", "cannot read"],
        ),
        (
            truths(
                "{ name = \"a\", file = \"model.toml\" }, { name = \"b\", file = \"softmax.toml\" }",
            ),
            [
                "tiny.toml:11:",
                "`grid.gate`: variants need a truth with a competition gate",
            ],
        ),
        (
            with("name = \"own\""),
            ["tiny.toml", "`grid.fit`: names must be distinct"],
        ),
        (
            with("name = \"a=b\""),
            ["tiny.toml", "`grid.fit`: names must be distinct"],
        ),
        (with("gain = 0.1"), ["tiny.toml", "missing field `name`"]),
        (
            with("name = \"b\"\nmethod = \"em\"\ngian = 0.1"),
            ["tiny.toml:22:", "`grid.fit[1].gian`: unknown field `gian`"],
        ),
        (
            with("name = \"b\"\ngain = \"small\""),
            ["tiny.toml:21:", "`grid.fit[1].gain`: invalid type"],
        ),
        (
            with("name = \"b\"\ngain = -1.0"),
            ["tiny.toml:21:", "`grid.fit[1].gain`"],
        ),
        (
            with(
                "name = \"b\"\nlimits = { coefficient = 10.0, bias = 5.0, gate_slope = 1.0, variance = [0.0, 1.0] }",
            ),
            ["tiny.toml:21:", "`grid.fit[1].limits.variance`"],
        ),
        (
            with("name = \"b\"\nstarts = []"),
            ["tiny.toml", "at least one start"],
        ),
        (
            with("name = \"b\"\nfamily = \"router\""),
            [
                "tiny.toml:21:",
                "`grid.fit[1].family`: a softmax router has the truth's law only",
            ],
        ),
        (
            with("name = \"b\"\ntop_k = 3"),
            ["tiny.toml:21:", "`grid.fit[1].top_k`: must be between 1"],
        ),
        (
            with("name = \"b\"\ncopies = [2]"),
            ["tiny.toml:21:", "`grid.fit[1].copies`"],
        ),
        (
            with("name = \"b\"\ncopies = [2, 1]\nlabels = \"known\""),
            ["tiny.toml:22:", "`grid.fit[1].labels`: known labels need"],
        ),
        (after_gain("top_k = 3"), ["tiny.toml:21:", "`fit.top_k`"]),
        (after_gain("top_k = 0"), ["tiny.toml:21:", "`fit.top_k`"]),
        (
            after_gain("family = \"router\""),
            [
                "tiny.toml:21:",
                "`fit.family`: a softmax router has the truth's law only",
            ],
        ),
        (
            after_gain("family = \"other\""),
            ["tiny.toml:21:", "`other`"],
        ),
        (
            after_gain("polish = \"maybe\""),
            ["tiny.toml:21:", "`maybe`"],
        ),
        (after_gain("labels = \"seen\""), ["tiny.toml:21:", "`seen`"]),
        (
            after_gain("gain_measure = \"per\""),
            ["tiny.toml:21:", "`per`"],
        ),
        (
            after_gain("gate_step = \"two\""),
            ["tiny.toml:21:", "`two`"],
        ),
        (
            after_gain("polish_iterations = -1"),
            ["tiny.toml:21:", "polish_iterations"],
        ),
        (
            ("seed = 7", "seed = 7\nadmit = \"all\"".to_string()),
            ["tiny.toml:5:", "`all`"],
        ),
        (
            ("response = \"absolute\"", "biases = \"some\"".to_string()),
            ["tiny.toml:16:", "`some`"],
        ),
    ] {
        refuse_edit(&place, "tiny.toml", from, &to, &parts);
    }
    let law = "law = \"uniform\"\nlow = [-1.0]\nhigh = [1.0]";
    let lattice = MODEL.replace(
        law,
        "law = \"grid\"\npoints = [[-1.0], [0.25]]\nlattice = 0.5",
    );
    place.write("model.toml", &lattice);
    let (from, to) = after_gain("labels = \"known\"");
    let parts = ["tiny.toml:21:", "`fit.labels`: a sample of counts"];
    refuse_edit(&place, "tiny.toml", from, &to, &parts);
}

#[test]
fn a_bad_claim_is_refused_with_file_line_and_key() {
    let place = Workplace::with_rows();
    place.write(
        "signs.toml",
        &MODEL
            .replace("softplus", "absolute")
            .replace("intercept = 1.0", "intercept = 3.0")
            .replace("intercept = 0.5", "intercept = -3.0"),
    );
    // Line 21 opens [fit], line 34 the first claim, whose kind stands in line 35.
    let fits = "[[grid.fit]]\nname = \"own\"\n[[grid.fit]]\nname = \"more\"\n\
                copies = [2, 1]\n[[grid.fit]]\nname = \"known\"\nlabels = \"known\"\n[fit]";
    let variants = &STUDY[STUDY.find("[[grid.gate]]").unwrap()..STUDY.find("[fit]").unwrap()];
    let head = &STUDY[..STUDY.find("[[claim]]").unwrap()];
    let head = head
        .replace(variants, "")
        .replace("model.toml", "signs.toml")
        .replace("[fit]\n", &format!("{fits}\n"))
        .replace("seed = 7", "record_parameters = false\nseed = 7");
    let recorded = head.replace("record_parameters = false", "record_standard_errors = true");
    assert_eq!(head.lines().count(), 29);
    let claim = |kind: &str, keys: &str| {
        format!("[[claim]]\nkind = \"{kind}\"\ntheorem = \"none\"\n{keys}\n")
    };
    let slope = |more: &str| {
        let keys =
            "loss = \"tv_mean\"\ncurve = \"n^-0.5\"\nwindow = [50, 100]\naccept = [-1.0, 0.0]";
        claim("slope", &format!("{keys}\n{more}"))
    };
    let efficiency = |of: &str, reference: &str, more: &str| {
        let keys = "of = \"OF\"\nreference = \"REFERENCE\"\nfrom = 50.0\ntolerance = 0.1";
        let keys = keys.replace("OF", of).replace("REFERENCE", reference);
        claim("efficiency", &format!("{keys}\n{more}"))
    };
    let intervals = claim(
        "intervals",
        "from = 50.0\naccept = [0.9, 1.0]\nseries = \"own\"",
    );
    let constant = |name: &str| {
        claim(
            "constant",
            &format!("constant = \"{name}\"\ntolerance = 0.1"),
        )
    };
    let chi_square = |keys: &str| {
        claim(
            "chi-square",
            &format!("series = \"own\"\n{keys}\nconfidence = 0.99"),
        )
    };
    for (head, claim, parts) in [
        (
            &head,
            slope("statistic = \"average\""),
            ["tiny.toml:30:", "\"average\" is no statistic"],
        ),
        (
            &head,
            slope("statistic = \"q100\""),
            ["tiny.toml:30:", "\"q100\" is no statistic"],
        ),
        (
            &head,
            slope("series = \"router\""),
            ["tiny.toml:37:", "`claim[0].series`: is part of no series"],
        ),
        (
            &head,
            slope("").replace("n^-0.5", "n^-3"),
            ["tiny.toml:30:", "`n^-3`"],
        ),
        (
            &head,
            claim("level", "loss = \"tv_mean\"\naccept = [1.0, 0.0]"),
            ["tiny.toml:34:", "`claim[0].accept`"],
        ),
        (
            &head,
            claim("level", "loss = \"kl_mean\"\naccept = [0.0, 1.0]"),
            ["tiny.toml:33:", "`claim[0].loss`"],
        ),
        (
            &head,
            intervals.clone(),
            ["tiny.toml:31:", "needs record_parameters = true"],
        ),
        (
            &head.replace("record_parameters = false\n", "\n"),
            intervals.clone(),
            ["tiny.toml:31:", "needs record_standard_errors = true"],
        ),
        (
            &recorded,
            intervals.replace("\"own\"", "\"more\""),
            ["tiny.toml:31:", "own number of experts"],
        ),
        (
            &recorded,
            intervals.replace("50.0", "500.0"),
            ["tiny.toml:33:", "`claim[0].from`: is larger than every n"],
        ),
        (
            &head,
            constant("coordinates"),
            ["tiny.toml:31:", "needs record_parameters = true"],
        ),
        (
            &recorded,
            constant("coordinates"),
            ["tiny.toml:31:", "own number of experts"],
        ),
        (&recorded, constant("fisher"), ["tiny.toml:30:", "`fisher`"]),
        (
            &recorded,
            chi_square("constant = \"coordinates\"\nfrom = 50.0"),
            [
                "tiny.toml:34:",
                "`claim[0].constant`: the mean over coordinates",
            ],
        ),
        (
            &recorded,
            chi_square("constant = \"likelihood_ratio\"\nfrom = 50.0").replace("0.99", "1.0"),
            ["tiny.toml:36:", "`claim[0].confidence`"],
        ),
        (
            &recorded,
            chi_square("constant = \"likelihood_ratio\"\nfrom = 50.0").replace("\"own\"", "\"\""),
            ["tiny.toml:31:", "own number of experts"],
        ),
        (
            &recorded,
            chi_square("constant = \"hellinger_sq\"\nfrom = 50.0").replace("\"own\"", "\"known\""),
            ["tiny.toml:34:", "where the labels are hidden"],
        ),
        (
            &recorded,
            efficiency("none", "own", ""),
            ["tiny.toml:33:", "\"none\" is no level of grid.fit"],
        ),
        (
            &recorded,
            efficiency("own", "none", ""),
            ["tiny.toml:34:", "\"none\" is no level of grid.fit"],
        ),
        (
            &recorded,
            efficiency("own", "own", ""),
            ["tiny.toml:34:", "must differ"],
        ),
        (
            &recorded,
            efficiency("own", "more", ""),
            ["tiny.toml:31:", "own number of experts"],
        ),
        (
            &recorded,
            efficiency("own", "known", "series = \"known\""),
            ["tiny.toml:37:", "`claim[0].series`: is part of no series"],
        ),
        (
            &head,
            efficiency("own", "known", ""),
            ["tiny.toml:31:", "needs record_parameters = true"],
        ),
    ] {
        place.write("tiny.toml", &format!("{head}{claim}"));
        for command in ["plan", "run", "report", "check"] {
            place.refuse(&format!("{command} tiny.toml"), &parts);
        }
    }
    place.write(
        "tiny.toml",
        &format!("{recorded}{intervals}{}", efficiency("own", "known", "")),
    );
    place.succeed("plan tiny.toml");
}

#[test]
fn accuracies_outside_their_range_are_refused() {
    let place = Workplace::with_rows();
    for accuracy in ["0", "1", "-0.1", "nan", "inf"] {
        place.refuse(
            &format!("report tiny.toml --accuracy={accuracy}"),
            &["--accuracy"],
        );
    }
    let claim = "[[claim]]\nkind = \"sample-size\"\nloss = \"hellinger_mean\"\naccuracy = 0.0\nwindow = [50, 100]\n[[claim]]";
    refuse_edit(
        &place,
        "tiny.toml",
        "[[claim]]",
        claim,
        &["tiny.toml:30:", "claim[0].accuracy"],
    );
}

#[test]
fn a_bad_model_is_refused_with_file_line_and_key() {
    let place = Workplace::with_rows();
    let cases = [
        ("top_k = 2", "top = 2", ["model.toml:9:", "top"]),
        (
            "variance = 0.4",
            "variance = -0.4",
            ["model.toml:20:", "expert[1].variance"],
        ),
        (
            "variance = 0.4",
            "variance = 0.0",
            ["model.toml:20:", "expert[1].variance"],
        ),
        ("top_k = 2", "top_k = 3", ["model.toml:9:", "gate.top_k"]),
        ("top_k = 2", "top_k = 0", ["model.toml:9:", "gate.top_k"]),
        (
            "slope = [-1.5]",
            "slope = [-1.5, 1.0]",
            ["model.toml:18:", "expert[1].slope"],
        ),
        (
            "low = [-1.0]\nhigh = [1.0]",
            "low = []\nhigh = []",
            ["model.toml:12:", "expert[0].slope"],
        ),
        (
            "high = [1.0]",
            "high = [1.0, 2.0]",
            ["model.toml:4:", "input.high"],
        ),
        (
            "high = [1.0]",
            "high = [inf]",
            ["model.toml:4:", "input.high"],
        ),
        (
            "intercept = 0.5",
            "intercept = nan",
            ["model.toml:19:", "expert[1].intercept"],
        ),
        (
            "intercept = 0.5",
            "intercept = \"half\"",
            ["model.toml:19:", "intercept"],
        ),
        ("intercept = 0.5\n", "", ["model.toml:", "intercept"]),
        (
            "bias = 0.0",
            "gate_intercept = 0.0",
            ["model.toml:21:", "gate_intercept"],
        ),
        (
            "law = \"uniform\"",
            "law = \"cauchy\"",
            ["model.toml:", "cauchy"],
        ),
        ("[gate]", "[gate", ["model.toml:5:", "unclosed"]),
    ];
    place.write("points.csv", "x1,y\n0.0,1.0\n");
    for (from, to, parts) in cases {
        refuse_edit(&place, "model.toml", from, to, &parts);
        let old = place.edit("model.toml", from, to);
        for command in [
            "sample model.toml -n 2 --seed 1",
            "density model.toml points.csv",
            "distance model.toml model.toml",
        ] {
            place.refuse(command, &parts);
        }
        place.write("model.toml", &old);
    }
}

#[test]
fn missing_files_are_named() {
    let place = Workplace::with_rows();
    for command in ["plan", "run", "report", "check"] {
        place.refuse(
            &format!("{command} none.toml"),
            &["none.toml", "cannot read"],
        );
    }
    place.refuse("replay none.toml n=50/1", &["none.toml", "cannot read"]);
    place.refuse(
        "sample none.toml -n 2 --seed 1",
        &["none.toml", "cannot read"],
    );
    place.refuse("density model.toml none.csv", &["none.csv", "cannot read"]);
    place.refuse(
        "distance model.toml none.toml",
        &["none.toml", "cannot read"],
    );
    let parts = ["none.toml", "cannot read"];
    refuse_edit(
        &place,
        "tiny.toml",
        "\"model.toml\"",
        "\"none.toml\"",
        &parts,
    );
    let data = DATA_TRUTH.replace("data.csv", "none.csv");
    refuse_edit(
        &place,
        "tiny.toml",
        FILE_TRUTH,
        &data,
        &["none.csv", "cannot read"],
    );
    place.refuse(
        "report tiny.toml --out nowhere",
        &["nowhere/tiny/rows.csv", "cannot read"],
    );
}

/// The study's truth, and one from data in its place (without gate variants).
const FILE_TRUTH: &str = "file = \"model.toml\"";
const DATA_TRUTH: &str = r#"data = "data.csv"
response = "y"
expert = ["x1"]
gate = ["x1"]
experts = 1
gate_kind = "softmax"
inputs = "resample"
units = "raw"
random_starts = 1
seed = 1
limits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, variance = [0.01, 10.0] }"#;

#[test]
fn a_bad_truth_from_data_is_refused_with_the_file_at_fault() {
    let place = Workplace::new();
    let variants = &STUDY[STUDY.find("[[grid.gate]]").unwrap()..STUDY.find("[fit]").unwrap()];
    let study = STUDY.replace(FILE_TRUTH, DATA_TRUTH).replace(variants, "");
    let data = place.succeed("sample model.toml -n 40 --seed 3");
    place.write("data.csv", &data);
    place.write("tiny.toml", &study);
    place.run("run tiny.toml");
    assert_eq!(count(&place.read(ROWS)), 24);
    for (from, to, parts) in [
        (
            "response = \"y\"",
            "response = \"z\"",
            ["data.csv:1:", "`z`"],
        ),
        (
            "experts = 1",
            "experts = 0",
            ["tiny.toml:12:", "truth.experts"],
        ),
        (
            "experts = 1",
            "expert_count = 1",
            ["tiny.toml:7:", "expert_count"],
        ),
        ("seed = 1\n", "", ["tiny.toml:7:", "seed"]),
        ("\"softmax\"", "\"sigmoid\"", ["tiny.toml:7:", "sigmoid"]),
    ] {
        refuse_edit(&place, "tiny.toml", from, to, &parts);
    }
    for (value, line) in [("inf", 2), ("NaN", 2), ("", 2), ("a lot", 2)] {
        let first = data.lines().nth(1).unwrap();
        let parts = [format!("data.csv:{line}:"), "`y`".to_string()];
        let parts = parts.each_ref().map(String::as_str);
        refuse_edit(&place, "data.csv", first, &format!("0.5,{value}"), &parts);
    }
}

#[test]
fn bad_points_are_refused_with_file_line_and_column() {
    let place = Workplace::new();
    for (points, parts) in [
        ("x1,y\n0.5,1\n0.5,NaN\n", ["points.csv:3:", "`y`"]),
        ("x1,y\ninf,1\n", ["points.csv:2:", "`x1`"]),
        ("x1,y\n0.5,one\n", ["points.csv:2:", "\"one\""]),
        ("x1,y\n0.5,\n", ["points.csv:2:", "`y`"]),
        ("x1,y\n0.5,1\n0.5\n", ["points.csv:3:", "fields"]),
        ("x1,y\n0.5,1,2\n", ["points.csv:2:", "fields"]),
        ("x,y\n0.5,1\n", ["points.csv:1:", "`x1`"]),
        ("x1\n0.5\n", ["points.csv:1:", "`y`"]),
        ("x1,x2,y\n0.5,1,2\n", ["points.csv:1:", "`x2`"]),
        ("x1,y,x1\n0.5,1,2\n", ["points.csv:1:", "`x1`"]),
        ("x1,y\n", ["points.csv", "no rows"]),
        ("", ["points.csv:1:", "`x1`"]),
    ] {
        place.write("points.csv", points);
        for flag in ["", "--json"] {
            place.refuse(&format!("density model.toml points.csv {flag}"), &parts);
        }
    }
    fs::write(place.path("points.csv"), b"x1,y\n0.5,\xff\n").unwrap();
    place.refuse("density model.toml points.csv", &["points.csv", "UTF-8"]);
}

#[test]
fn models_of_different_dimensions_have_no_distance() {
    let place = Workplace::new();
    let plane = MODEL
        .replace("low = [-1.0]", "low = [-1.0, 0.0]")
        .replace("high = [1.0]", "high = [1.0, 1.0]")
        .replace("slope = [2.0]", "slope = [2.0, 0.5]")
        .replace("slope = [-1.5]", "slope = [-1.5, 0.5]");
    place.write("plane.toml", &plane);
    for line in [
        "distance model.toml plane.toml",
        "distance plane.toml model.toml",
    ] {
        let second = line.rsplit(' ').next().unwrap();
        place.refuse(line, &[second, "dimension"]);
    }
    place.write("points.csv", "x1,y\n0.5,1\n");
    place.refuse("density plane.toml points.csv", &["points.csv:1:", "`x2`"]);
}

#[test]
fn an_unwritable_folder_is_refused() {
    let place = Workplace::new();
    place.write("file", "in the way");
    place.refuse(
        "run tiny.toml --out file/sub",
        &["file/sub/tiny", "cannot create"],
    );
    assert_eq!(place.read("file"), "in the way");
    fs::create_dir_all(place.path("results/tiny/rows.csv")).unwrap();
    place.refuse("run tiny.toml", &["results/tiny/rows.csv", "cannot open"]);
}

#[test]
fn a_report_that_cannot_be_written_names_its_file_and_keeps_the_rows() {
    let place = Workplace::with_rows();
    let rows = place.read(ROWS);
    fs::remove_file(place.path("results/tiny/summary.csv")).unwrap();
    fs::create_dir(place.path("results/tiny/summary.csv")).unwrap();
    place.refuse(
        "report tiny.toml",
        &["results/tiny/summary.csv", "cannot write"],
    );
    assert_eq!(place.read(ROWS), rows);
    place.edit("results/tiny/environment.toml", "cores", "corse");
    place.refuse("report tiny.toml", &["environment.toml:", "corse"]);
}

#[test]
fn packed_rows_are_read_but_not_added_to() {
    use std::io::Write;
    let place = Workplace::with_rows();
    let report = place.succeed("report tiny.toml");
    let packed = fs::File::create(place.path("results/tiny/rows.csv.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::best());
    encoder.write_all(place.read(ROWS).as_bytes()).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(place.path(ROWS)).unwrap();
    assert_eq!(place.succeed("report tiny.toml"), report);
    let run = place.run("run tiny.toml");
    assert_eq!((run.code, run.err.lines().count()), (Some(2), 1), "{run:?}");
    assert!(run.err.contains("rows.csv.gz"), "{}", run.err);
    assert!(!place.path(ROWS).exists());
}

#[test]
fn rows_of_another_design_are_refused_and_kept() {
    let place = Workplace::with_rows();
    let parts = [ROWS, "key `study`", "rows of another study", "--out"];
    for (from, to) in [
        ("seed = 7", "seed = 8"),
        ("accept = [-90.0, 90.0]", "accept = [-89.0, 90.0]"),
        ("theorem = \"Theorem 4.1\"", "theorem = \"Theorem 4.2\""),
        ("\"tv_mean\", ", ""),
        ("gain = 0.5", "gain = 0.25"),
        ("radius = 0.05", "radius = 0.06"),
        ("response = \"absolute\"", "response = \"square\""),
    ] {
        let rows = place.read(ROWS);
        let old = place.edit("tiny.toml", from, to);
        place.refuse("run tiny.toml", &parts);
        place.refuse("report tiny.toml", &parts);
        place.write("tiny.toml", &old);
        assert_eq!(place.read(ROWS), rows);
    }
    let old = place.edit("model.toml", "slope = [2.0]", "slope = [2.1]");
    place.refuse("run tiny.toml", &parts);
    place.write("model.toml", &old);
    // Prose and more sizes or replicates are the same design.
    place.edit("tiny.toml", "Two competing experts", "Two experts");
    place.edit("tiny.toml", "replicates = 12", "replicates = 13");
    place.succeed("run tiny.toml");
    assert_eq!(count(&place.read(ROWS)), 52);
}

#[test]
fn damaged_rows_are_refused_with_their_line_and_kept() {
    let place = Workplace::with_rows();
    let good = place.read(ROWS);
    let row = good.lines().nth(9).unwrap();
    let without_end = row.rsplit_once(',').unwrap().0;
    let cut = &row[..row.len() / 2];
    let twice = format!("{row}\n{row}");
    let joined = format!("{without_end},0.00{row}");
    let longer = format!("{row},0.001");
    let wrong_size = row
        .replacen(",50,", ",51,", 1)
        .replacen(",100,", ",101,", 1);
    let at = format!("{ROWS}:10:");
    for (damaged, part) in [
        (cut, "not a row"),
        (without_end, "not a row"),
        (joined.as_str(), "not a row"),
        (longer.as_str(), "not a row"),
        (wrong_size.as_str(), "not a row"),
        ("rubbish", "not a row"),
    ] {
        place.edit(ROWS, row, damaged);
        let before = place.read(ROWS);
        for command in ["run", "report", "run --smoke", "run --only n=100"] {
            place.refuse(&format!("{command} tiny.toml"), &[&at, part]);
        }
        assert_eq!(place.read(ROWS), before);
        place.write(ROWS, &good);
    }
    place.edit(ROWS, row, &twice);
    let before = place.read(ROWS);
    place.refuse(
        "run tiny.toml",
        &[":11:", "key `replicate`", "stands twice"],
    );
    assert_eq!(place.read(ROWS), before);
    // Something else than rows, without a line end that could be torn.
    for foreign in ["a file that is no row file", "a file\nof two lines\n"] {
        place.write(ROWS, foreign);
        place.refuse("run tiny.toml", &[ROWS]);
        assert_eq!(place.read(ROWS), foreign);
    }
}

#[test]
fn a_torn_last_line_is_dropped_and_its_row_computed_again() {
    let place = Workplace::with_rows();
    let good = place.read(ROWS);
    let last = good.trim_end().rfind('\n').unwrap() + 1;
    for torn in [last + 1, (last + good.len()) / 2, good.len() - 1] {
        place.write(ROWS, &good[..torn]);
        let report = place.run("report tiny.toml");
        assert_eq!(report.code, Some(0), "{report:?}");
        assert_eq!(place.read(ROWS), good[..torn], "a report changes no rows");
        let run = place.succeed("run tiny.toml");
        assert!(run.contains("1 rows computed"), "{run}");
        assert_eq!(timeless(&place.read(ROWS)), timeless(&good));
    }
    let in_header = "study,cell,repl";
    place.write(ROWS, in_header);
    assert!(place.succeed("run tiny.toml").contains("48 rows computed"));
    assert_eq!(timeless(&place.read(ROWS)), timeless(&good));
}

#[test]
fn a_line_torn_inside_a_letter_is_dropped_too() {
    let place = Workplace::new();
    place.edit("tiny.toml", "name = \"absolute\"", "name = \"größe\"");
    place.succeed("run tiny.toml");
    let good = place.read(ROWS);
    let inside = good.rfind('ß').unwrap() + 1;
    fs::write(place.path(ROWS), &good.as_bytes()[..inside]).unwrap();
    place.succeed("report tiny.toml");
    assert!(place.succeed("run tiny.toml").contains("1 rows computed"));
    assert_eq!(timeless(&place.read(ROWS)), timeless(&good));
}

#[test]
fn names_that_do_not_exist_are_refused_with_those_that_do() {
    let place = Workplace::with_rows();
    let rows = place.read(ROWS);
    for name in ["n=50/1", "gate=softplus,n=51/1", "gate=softplus,n=50/"] {
        place.refuse(
            &format!("replay tiny.toml {name}"),
            &[name.split('/').next().unwrap()],
        );
    }
    for name in [
        "gate=softplus,n=50",
        "gate=softplus,n=50/-1",
        "gate=softplus,n=50/x",
    ] {
        place.refuse(
            &format!("replay tiny.toml {name}"),
            &[name, "CELL/REPLICATE"],
        );
    }
    place.refuse("replay tiny.toml n=50/1", &CELLS);
    place.refuse("run tiny.toml --only sigmoid", &CELLS);
    assert_eq!(place.read(ROWS), rows);
    place.refuse("run tiny.toml --only sigmoid --out fresh", &["--only"]);
    assert!(!place.path("fresh").exists());
}

#[test]
fn gate_variants_need_a_competition_truth() {
    let place = Workplace::with_rows();
    place.write("softmax.toml", SOFTMAX);
    let parts = ["tiny.toml:", "grid.gate", "competition"];
    refuse_edit(&place, "tiny.toml", "model.toml", "softmax.toml", &parts);
}

#[test]
fn a_folder_without_studies_is_refused() {
    let place = Workplace::new();
    fs::create_dir(place.path("empty")).unwrap();
    for command in ["plan", "run", "report", "check"] {
        place.refuse(&format!("{command} empty"), &["empty", "no study"]);
    }
    // A folder that holds one bad study runs none of them.
    place.write(
        "mixed/good.toml",
        &STUDY.replace("model.toml", "../model.toml"),
    );
    place.write("mixed/worse.toml", "title = 1\n");
    place.refuse("run mixed", &["mixed/worse.toml:1:", "title"]);
    assert!(!place.path("results").exists());
}

#[test]
fn unknown_commands_and_flags_exit_with_2() {
    let place = Workplace::new();
    for line in [
        "rum tiny.toml",
        "run",
        "run tiny.toml --jobs 0",
        "run tiny.toml --fast",
    ] {
        let finished = place.run(line);
        assert_eq!(
            (finished.code, finished.out.as_str()),
            (Some(2), ""),
            "{line}"
        );
        assert!(finished.err.starts_with("error: "), "{}", finished.err);
    }
    assert!(!place.path("results").exists());
}

#[test]
fn a_gpu_that_is_asked_for_and_missing_is_one_line_and_nothing_is_created() {
    let place = Workplace::new();
    // No computer has so many.
    place.refuse("run tiny.toml --device cuda:99", &["cuda:99"]);
    place.refuse("--device cuda:99", &["cuda:99"]);
    if !has_gpu() {
        place.refuse("run tiny.toml --device cuda", &["device cuda:0", "driver"]);
    }
    assert!(!place.path("results").exists());
    let finished = place.run("run tiny.toml --device graphics");
    assert_eq!(finished.code, Some(2));
    assert!(finished.err.contains("auto, cpu, cuda"), "{finished:?}");
    place.refuse(
        "run tiny.toml --precision single",
        &["--precision", "certified"],
    );
}

#[test]
fn a_device_that_is_chosen_by_itself_says_which_it_is() {
    let place = Workplace::new();
    let finished = place.run("run tiny.toml --device auto");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let wanted = match has_gpu() {
        true => "fits run on cuda:0",
        false => "fits run on the processor; device cuda:0: ",
    };
    assert!(finished.err.contains(wanted), "{finished:?}");
    assert_eq!(count(&place.read(ROWS)), 48);
    if !has_gpu() {
        let plain = Workplace::with_rows();
        assert_eq!(timeless(&place.read(ROWS)), timeless(&plain.read(ROWS)));
    }
}

#[test]
fn rows_of_a_device_are_marked_resumed_and_replayed() {
    let place = Workplace::new();
    place.edit("tiny.toml", "replicates = 12", "replicates = 3");
    place.succeed("run tiny.toml --device emulated --only n=100");
    place.succeed("run tiny.toml --device emulated");
    let rows = place.read(ROWS);
    assert_eq!(count(&rows), 12);
    let environment = place.read("results/tiny/environment.toml");
    assert!(environment.contains("device = \"emulated"), "{environment}");
    let page = place.read("results/tiny/index.html");
    assert!(page.contains("emulated"));
    let replayed = place.run("replay tiny.toml gate=absolute,n=100/1");
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    let verdicts = [
        "has the maximum of the recorded row",
        "equals the recorded row",
    ];
    assert!(
        verdicts.iter().any(|v| replayed.out.contains(v)),
        "{replayed:?}"
    );
    // All at once, the rows are the same.
    let other = Workplace::new();
    other.edit("tiny.toml", "replicates = 12", "replicates = 3");
    other.succeed("run tiny.toml --device emulated --jobs 1");
    assert_eq!(timeless(&other.read(ROWS)), timeless(&rows));
}
