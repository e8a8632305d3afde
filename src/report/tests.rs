//! Reports of hand-made rows.

use super::*;
use crate::sim::study::read_study;
use std::time::UNIX_EPOCH;

const TRUTH: &str = r#"
[input]
law = "uniform"
low = [-1.0]
high = [1.0]
[gate]
kind = "competition"
response = "softplus"
[[expert]]
kind = "linear"
slope = [2.0]
intercept = 1.0
variance = 0.3
bias = 0.3
[[expert]]
kind = "linear"
slope = [-1.5]
intercept = 0.5
variance = 0.4
bias = 0.0
"#;

const HEAD: &str = r#"
title = "Rates <script>alert(1)</script> & constants"
aim = "To see <b>whether</b> it works."
reference = "A & B, Theorem 1"
limits = "Small samples <only>."
seed = 1
replicates = 30
"#;

const REST: &str = r#"
[grid]
n = [100, 1000, 10000]
[fit]
method = "em"
max_iterations = 100
gain = 0.5
starts = [{ kind = "perturbed-truth", radius = 0.1 }, { kind = "random" }, { kind = "random" }]
limits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, variance = [0.01, 10.0] }
[[claim]]
kind = "slope"
theorem = "Theorem <1>"
loss = "hellinger_mean"
curve = "n^-0.5"
window = [100, 10000]
accept = [-0.55, -0.45]
[[claim]]
kind = "constant"
theorem = "Wilks"
constant = "likelihood_ratio"
tolerance = 0.1
[[claim]]
kind = "coverage"
loss = "hellinger_mean"
slope = -0.5
group = 10
[[claim]]
kind = "sample-size"
loss = "hellinger_mean"
accuracy = 0.02
window = [100, 10000]
"#;

const GATES: &str = r#"
[[grid.gate]]
name = "softplus"
[[grid.gate]]
name = "absolute"
response = "absolute"
"#;

struct Case {
    folder: tempfile::TempDir,
    plan: Plan,
    rows: Vec<Row>,
}

impl Case {
    /// A study with two gates and `failed` failures in the first cell.
    fn new(failed: u64) -> Self {
        let losses = "losses = [\"hellinger_mean\", \"hellinger_sq_mean\"]\n";
        let truth = "[truth]\nfile = \"truth.toml\"\n";
        Case::of(&[HEAD, losses, truth, REST, GATES].concat(), failed)
    }

    fn of(study: &str, failed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("truth.toml"), TRUTH).unwrap();
        let path = folder.path().join("study.toml");
        std::fs::write(&path, study).unwrap();
        let plan = Plan::new(read_study(&path).unwrap()).unwrap();
        let rows = rows(&plan, failed);
        Case { folder, plan, rows }
    }

    fn summary(&self) -> Summary {
        Summary::new(&self.plan, &self.rows)
    }

    fn page(&self) -> String {
        let out = self.folder.path().join("out");
        let environment = Environment::capture(&self.plan.hash, 2, UNIX_EPOCH);
        write(&out, &self.plan, &self.rows, &self.summary(), &environment).unwrap();
        std::fs::read_to_string(out.join("index.html")).unwrap()
    }
}

/// Thirty rows per cell with losses near n^(-1/2); the last `failed` of the
/// first cell have none.
fn rows(plan: &Plan, failed: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (k, cell) in plan.cells.iter().enumerate() {
        for replicate in 0..30 {
            let fails = k == 0 && replicate >= 30 - failed;
            // A low-discrepancy sequence in [0.5, 1.5).
            let noise = 0.5 + (0.618_034 * (replicate + 7 * k as u64) as f64).fract();
            let loss = noise * (cell.n as f64).powf(-0.5);
            let stop = if fails { "MaxIterations" } else { "Converged" };
            rows.push(Row {
                study: plan.hash.clone(),
                cell: cell.name.clone(),
                replicate,
                n: cell.n,
                stop: stop.to_string(),
                converged: !fails,
                detail: String::new(),
                starts: format!(
                    "perturbed-truth(0.1) -10 {stop} 9.00; random -10 {stop} 9.00; random -11 NoAscent 9.00"
                ),
                em: 5,
                gradient: 0,
                newton: 3,
                passes: 12.0,
                scaled_score: 1e-9,
                on_bound: String::new(),
                log_likelihood: -10.0,
                log_likelihood_truth: -10.0 - 3.5 * noise,
                losses: match fails {
                    true => vec![f64::NAN; plan.study.losses.len()],
                    false => vec![loss, loss * loss][..plan.study.losses.len()].to_vec(),
                },
                information_distance: 7.0 * noise,
                parameters: Vec::new(),
                standard_errors: None,
                seconds: 0.01,
            });
        }
    }
    rows
}

#[test]
fn a_report_has_all_files_and_nothing_temporary() {
    let case = Case::new(0);
    case.page();
    let mut names: Vec<String> = std::fs::read_dir(case.folder.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "claims.csv",
            "constants.png",
            "constants.svg",
            "environment.toml",
            "index.html",
            "rates.png",
            "rates.svg",
            "summary.csv"
        ]
    );
}

#[test]
fn text_fits_in_a_hundred_columns_and_shows_no_colour_codes() {
    for failed in [0, 3] {
        let case = Case::new(failed);
        let text = text_table(&case.plan, &case.summary());
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(text.contains("gate=absolute: 7 free parameters"));
        assert!(text.contains("accepted [-0.55, -0.45]"), "{text}");
    }
}

#[test]
fn failures_are_quantified_even_if_there_are_none() {
    let none = Case::new(0);
    let text = text_table(&none.plan, &none.summary());
    assert!(text.contains("Failures: none of 180 fits"), "{text}");
    assert!(none.page().contains("none of 180 fits"));
    let some = Case::new(3);
    let text = text_table(&some.plan, &some.summary());
    assert!(text.contains("Failures: 3 of 180 fits (1.7 % "), "{text}");
    assert!(text.contains("MaxIterations 3"), "{text}");
    assert!(
        some.page()
            .contains("gate=softplus,n=100/27  MaxIterations")
    );
}

#[test]
fn a_study_without_rows_still_has_a_report() {
    let mut case = Case::new(0);
    case.rows.clear();
    let text = text_table(&case.plan, &case.summary());
    assert!(text.contains("no rows yet"), "{text}");
    let page = case.page();
    assert!(page.contains("no rows") && !page.contains("NaN"));
}

#[test]
fn an_incomplete_run_says_so() {
    let mut case = Case::new(0);
    case.rows.pop();
    let sentence = "cells have 29 to 30 of 30 replicates";
    assert!(text_table(&case.plan, &case.summary()).contains(sentence));
    assert!(case.page().contains(sentence));
}

#[test]
fn the_page_escapes_the_study_and_loads_nothing() {
    let page = Case::new(1).page();
    assert!(!page.contains("<script") && !page.contains("<b>"));
    assert!(page.contains("Theorem &lt;1&gt;"));
    for attribute in ["src=", "@import", "url(", "<link", "href=\"http"] {
        assert!(!page.contains(attribute), "{attribute}");
    }
}

#[test]
fn the_page_has_the_results_first_and_then_the_design_in_ademp_order() {
    let page = Case::new(0).page();
    let places: Vec<usize> = [
        "aim",
        "results",
        "rates",
        "constants",
        "failures",
        "data",
        "estimands",
        "methods",
        "measures",
        "limits",
        "environment",
        "reproduce",
    ]
    .iter()
    .map(|id| page.find(&format!("<section id=\"{id}\"")).expect(id))
    .collect();
    assert!(places.is_sorted());
}

#[test]
fn the_page_counts_how_often_each_start_reached_the_best() {
    let page = Case::new(0).page();
    // Per series 90 rows, hence 180 random starts, of which half reach it.
    let row = "<td class=\"words\">random</td><td>180</td><td>50\u{a0}%</td>";
    assert!(page.replace("50 %", "50\u{a0}%").contains(row));
}

#[test]
fn a_report_goes_stale_when_rows_or_files_change() {
    let mut case = Case::new(0);
    case.page();
    let out = case.folder.path().join("out");
    assert_eq!(is_stale(&out, &case.plan, &case.summary()), None);
    case.rows[0].losses[0] *= 1.5;
    let reason = is_stale(&out, &case.plan, &case.summary()).unwrap();
    assert!(
        reason.starts_with("summary.csv, line 2: stored"),
        "{reason}"
    );
    std::fs::remove_file(out.join("summary.csv")).unwrap();
    let reason = is_stale(&out, &case.plan, &case.summary()).unwrap();
    assert!(reason.contains("cannot be read"), "{reason}");
}

#[test]
fn equal_rows_give_equal_tables_whatever_the_timings_and_the_order() {
    let mut case = Case::new(2);
    let tables = |case: &Case| {
        let summary = case.summary();
        (
            summary_csv(&case.plan, &summary),
            claims_csv(&case.plan, &summary),
        )
    };
    let before = tables(&case);
    case.rows.reverse();
    case.rows.iter_mut().for_each(|row| row.seconds *= 3.0);
    assert_eq!(tables(&case), before);
}

#[test]
fn the_tables_hold_what_the_summary_holds() {
    let case = Case::new(3);
    let summary = case.summary();
    let table = summary_csv(&case.plan, &summary);
    let cell = &summary.series[0].cells[0];
    let mean = cell.losses[0].mean;
    let line = table.lines().nth(1).unwrap();
    let fields: Vec<&str> = line.rsplitn(7, ',').collect();
    assert_eq!(fields[..2], ["3", "30"]);
    let value: f64 = fields[5].parse().unwrap();
    assert!((value / mean.value - 1.0).abs() < 1e-5);
    let claims = claims_csv(&case.plan, &summary);
    // A header, then four claims on two series.
    assert_eq!(claims.lines().count(), 9);
    let slope = claims.lines().nth(1).unwrap();
    assert!(slope.starts_with("slope hellinger_mean,Theorem <1>,gate=softplus,-0."));
    assert!(slope.contains(",-0.55,-0.45,"), "{slope}");
}

#[test]
fn a_figure_names_each_slope_with_its_interval() {
    let case = Case::new(0);
    case.page();
    let rate = match &case.summary().claims[0].finding {
        crate::sim::summary::Finding::Slope { rate, .. } => rate.unwrap(),
        other => panic!("{other:?}"),
    };
    let ends = format::interval(rate.interval, 3);
    let slope = format::decimal(rate.line.slope, 3);
    let label = format!("softplus: slope {slope} {ends}");
    let svg = std::fs::read_to_string(case.folder.path().join("out/rates.svg")).unwrap();
    assert!(svg.contains(&label), "{label}");
    assert!(svg.contains("theorem: n^(−1/2)"));
}

#[test]
fn a_truth_from_data_is_described_with_its_fit() {
    let data = "[truth]\ndata = \"data.csv\"\nresponse = \"y\"\nexpert = [\"x\"]\ngate = []\n\
                experts = 1\ngate_kind = \"constant\"\ninputs = \"resample\"\nunits = \"raw\"\nrandom_starts = 2\n\
                seed = 1\nlimits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, \
                variance = [0.001, 10.0] }\n";
    let folder = tempfile::tempdir().unwrap();
    let values = (0..40).map(|i| format!("{},{}\n", i as f64 / 40.0, (0.618 * i as f64).fract()));
    let csv = "x,y\n".to_string() + &values.collect::<String>();
    std::fs::write(folder.path().join("data.csv"), csv).unwrap();
    let path = folder.path().join("study.toml");
    let losses = "losses = [\"hellinger_mean\"]\n";
    let rest = REST.replace("likelihood_ratio", "information");
    std::fs::write(&path, [HEAD, losses, data, &rest].concat()).unwrap();
    let plan = Plan::new(read_study(&path).unwrap()).unwrap();
    let case = Case {
        rows: rows(&plan, 0),
        plan,
        folder,
    };
    let page = case.page();
    assert!(page.contains("<dt>File</dt><dd>data.csv</dd>"));
    assert!(page.contains("<dt>Rows</dt><dd>40</dd>"));
    assert!(page.contains("<dt>Starts that reached it</dt><dd>3 of 3</dd>"));
    // The resampled inputs are one long line of the truth.
    assert!(page.contains(" characters)\n"));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
    let case = Case::new(0);
    let path = case.folder.path().join("truth.toml/out");
    let environment = Environment::capture("", 1, UNIX_EPOCH);
    let result = write(&path, &case.plan, &case.rows, &case.summary(), &environment);
    assert!(matches!(result, Err(Error::File { path: named, .. }) if named == path));
}

#[test]
fn the_page_describes_every_estimator_and_which_fits_count() {
    let losses = "admit = \"above-truth\"\nlosses = [\"hellinger_mean\"]\n";
    let truth = "[truth]\nfile = \"truth.toml\"\n";
    let fits = "[[grid.fit]]\nname = \"maximum\"\n[[grid.fit]]\nname = \"oracle\"\n\
                labels = \"known\"\n[[grid.fit]]\nname = \"stopped\"\npolish = \"none\"\n\
                gain_measure = \"relative\"\n[[grid.fit]]\nname = \"more\"\ncopies = [2, 1]\n";
    let quantile = "[[claim]]\nkind = \"slope\"\ntheorem = \"none\"\nloss = \"hellinger_mean\"\n\
                    statistic = \"q80\"\ncurve = \"n^-0.5\"\nwindow = [100, 10000]\n\
                    accept = [-0.55, -0.45]\n";
    let rest = REST.split("[[claim]]").next().unwrap();
    let page = Case::of(&[HEAD, losses, truth, rest, fits, quantile].concat(), 0).page();
    for part in [
        "maximum: Maximum likelihood over a compact",
        "oracle: Maximum likelihood of the complete data",
        "stopped: Likelihood over a compact",
        "relative to its size",
        "more: Maximum likelihood over a compact parameter set, with 2, 1 experts",
        "or have at least the truth",
        "that its own rule did not stop",
        "interpolated order statistic",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("Limit law") && !page.contains("certified fits of a cell"));
}
