//! Inverse bounds against closed forms, other code and themselves.

mod workplace;

use smoe_lab::loss::density::{Effort, density_distance};
use smoe_lab::loss::divergence::Wanted;
use smoe_lab::model::read_model;
use smoe_lab::sim::Verdict;
use smoe_lab::sim::inverse::distance::Distance;
use smoe_lab::sim::inverse::finding::{Finding, Quantity, findings};
use smoe_lab::sim::inverse::minimum::{Minimum, read_minima, to_csv};
use smoe_lab::sim::inverse::split::Spread;
use smoe_lab::sim::inverse::study::{InversePlan, read_inverse_study};
use smoe_lab::sim::inverse::sweep::minima;
use smoe_lab::sim::inverse::top_k::duplicate::duplicate;
use smoe_lab::sim::inverse::top_k::record;
use smoe_lab::sim::inverse::top_k::study::read_top_k_study;
use std::path::Path;
use workplace::Workplace;

const NORMAL: &str = r#"[input]
law = "grid"
points = [[]]
[gate]
kind = "constant"
[[expert]]
kind = "linear"
slope = []
intercept = 0.7
variance = 1.7
bias = 0.0
"#;

const SOFTMAX: &str = r#"[input]
law = "grid"
points = [[-1.0], [-0.2], [0.5], [1.0]]
[gate]
kind = "softmax"
[[expert]]
kind = "linear"
slope = [0.7]
intercept = 1.0
variance = 0.3
gate_slope = [0.8]
gate_intercept = 0.2
[[expert]]
kind = "linear"
slope = [-0.9]
intercept = -1.0
variance = 0.4
gate_slope = [0.0]
gate_intercept = 0.0
"#;

const STUDY: &str = r#"title = "Two copies"
aim = "Whether the command works."
reference = "none"
seed = 3
starts = 3
[bounds]
coefficient = 1.0
log_variance = 1.0
gate = 1.0
log_share = 0.0
[[gate]]
name = "softmax"
truth = "truth.toml"
expert = 0
[[case]]
gates = ["softmax"]
copies = 2
coordinate = "intercept"
delta = { from = 0.1, to = 0.01, points = 4 }
window = [0.01, 0.1]
exponent = 4.0
tilted_mass = 2.0
tolerance = 0.1
[[case]]
gates = ["softmax"]
copies = 2
coordinate = "slope"
delta = { from = 0.1, to = 0.01, points = 3 }
window = [0.01, 0.1]
exponent = 2.0
tolerance = 0.1
"#;

/// A folder with `study.toml` and `truth.toml`.
fn place(truth: &str, study: &str) -> Workplace {
    let place = Workplace::new();
    place.write("truth.toml", truth);
    place.write("study.toml", study);
    place
}

fn solved(place: &Workplace) -> (InversePlan, Vec<Finding>) {
    let plan = read_inverse_study(&place.path("study.toml")).unwrap();
    let found = findings(&plan, &minima(&plan, Some(2), |_| ()).unwrap());
    (plan, found)
}

/// The minima of a normal truth of variance 1.7 with two equal copies held apart.
fn normal(coordinate: Spread, log_variance: f64) -> Vec<Minimum> {
    let (head, _) = STUDY.split_once("[[case]]").unwrap();
    let head = head.replace(
        "log_variance = 1.0",
        &format!("log_variance = {log_variance:?}"),
    );
    let case = format!(
        "[[case]]\ngates = [\"softmax\"]\ncopies = 2\ncoordinate = \"{}\"\n\
         delta = {{ from = 0.02, to = 0.01, points = 2 }}\nwindow = [0.01, 0.02]\n\
         exponent = 2.0\ntolerance = 0.1\n",
        coordinate.name()
    );
    let (_, found) = solved(&place(NORMAL, &(head + &case)));
    found[0].minima.clone()
}

/// With D the derivative in y, N(y; m -+ delta, v + s) = e^(-+ delta D + s D^2 / 2) N.
/// At s = -delta^2 the mean of the two is N - delta^4 / 12 D^4 N + ..., and the
/// Hermite functions D^k N / sqrt N are orthogonal with squared lengths k! / v^k:
/// h^2 = 1/8 (delta^4 / 12)^2 24 / v^4.
#[test]
fn two_copies_of_a_normal_leave_it_by_delta_to_the_fourth_with_the_constant_of_hermite() {
    for minimum in normal(Spread::Intercept, 1.0) {
        let ratio = minimum.distance * 48f64.sqrt() * 1.7 * 1.7 / minimum.delta.powi(4);
        assert!((ratio - 1.0).abs() < 1e-3, "{ratio} {minimum:?}");
    }
}

/// Variances v e^(-+ delta): D^4 gets delta^2 v^2 / 8, D^2 is free.
#[test]
fn two_copies_apart_in_variance_leave_by_delta_squared_with_the_constant_of_hermite() {
    for minimum in normal(Spread::Variance, 1.0) {
        let ratio = minimum.distance * 8.0 / (3f64.sqrt() * minimum.delta.powi(2));
        assert!(
            (ratio - 1.0).abs() < 4.0 * minimum.delta.powi(2),
            "{ratio} {minimum:?}"
        );
    }
}

/// Nothing cancels delta^2 / 2 D^2.
#[test]
fn without_free_variances_the_exponent_in_the_mean_is_two() {
    for minimum in normal(Spread::Intercept, 0.0) {
        let ratio = minimum.distance * 4.0 * 1.7 / minimum.delta.powi(2);
        assert!((ratio - 1.0).abs() < 1e-3, "{ratio} {minimum:?}");
    }
}

#[test]
fn a_softmax_router_has_exponents_four_in_the_intercept_and_two_in_the_slope() {
    let (_, found) = solved(&place(SOFTMAX, STUDY));
    for (finding, expected) in found.iter().zip([4.0, 2.0]) {
        let hellinger = &finding.exponents[0];
        assert_eq!(hellinger.quantity, Quantity::Distance(Distance::Hellinger));
        assert!((hellinger.value.unwrap() - expected).abs() < 0.1);
        assert_eq!(finding.verdict(), Verdict::Holds, "{finding:?}");
        assert_eq!(finding.local.len(), finding.minima.len() - 1);
    }
}

#[test]
fn the_distance_at_a_minimum_is_the_one_that_other_code_computes() {
    let (plan, found) = solved(&place(SOFTMAX, STUDY));
    let truth = &plan.truths[0];
    for (cell, finding) in plan.cells.iter().zip(&found) {
        for minimum in finding.minima.iter().filter(|m| m.distance > 1e-6) {
            let mut fitted = cell.split.parameters(&vec![0.0; cell.split.len()], 0.0);
            fitted = fitted.layout().unpack(&fitted, &minimum.parameters);
            let distance =
                density_distance(truth, &fitted, Wanted::Smooth, Effort::default()).unwrap();
            let ratio = distance.hellinger_sq.value.sqrt() / minimum.distance;
            assert!((ratio - 1.0).abs() < 1e-6, "{ratio} {minimum:?}");
        }
    }
}

#[test]
fn minima_do_not_depend_on_the_number_of_threads() {
    let plan = read_inverse_study(&place(SOFTMAX, STUDY).path("study.toml")).unwrap();
    let one = minima(&plan, Some(1), |_| ()).unwrap();
    for jobs in [2, 7] {
        assert_eq!(minima(&plan, Some(jobs), |_| ()).unwrap(), one);
    }
}

#[test]
fn copies_of_free_weight_come_closer_with_the_same_exponent() {
    let equal = solved(&place(SOFTMAX, STUDY)).1;
    let study = STUDY.replace("log_share = 0.0", "log_share = 0.5");
    let free = solved(&place(SOFTMAX, &study)).1;
    for (equal, free) in equal.iter().zip(&free) {
        for (a, b) in equal.minima.iter().zip(&free.minima) {
            assert!(b.distance <= a.distance * (1.0 + 1e-9), "{a:?} {b:?}");
        }
        let value = |finding: &Finding| finding.exponents[0].value.unwrap();
        assert!((value(equal) - value(free)).abs() < 0.15);
    }
}

#[test]
fn the_shipped_studies_cover_the_table_of_exponents() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/inverse");
    let plan = read_inverse_study(&folder.join("equal-weights.toml")).unwrap();
    for coordinate in [Spread::Slope, Spread::Intercept, Spread::Variance] {
        let cells = plan.cells.iter().map(|cell| &cell.case);
        let two = cells.filter(|c| (c.coordinate, c.copies) == (coordinate, 2));
        assert!(two.count() >= 7);
    }
    let exponents: Vec<f64> = plan.study.case.iter().map(|c| c.exponent).collect();
    for exponent in [2.0, 4.0, 6.0] {
        assert!(exponents.contains(&exponent));
    }
}

#[test]
fn recorded_minima_are_written_as_they_were_read_and_bear_their_claims() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/inverse");
    for name in ["equal-weights", "free-weights", "families", "regression"] {
        let plan = read_inverse_study(&folder.join(format!("{name}.toml"))).unwrap();
        let record = folder.join("records").join(name);
        let found = findings(&plan, &read_minima(&record, &plan).unwrap());
        assert!(found.iter().all(|f| f.verdict() == Verdict::Holds));
        let stored = std::fs::read_to_string(record.join("minima.csv")).unwrap();
        assert_eq!(to_csv(plan.study.distance, &found), stored);
    }
}

// ---- families of experts and the regression distance ----

/// SOFTMAX with hidden units c act(a x + b) on enough points for a regression.
fn units(kind: &str) -> String {
    let points: Vec<String> = (0..33)
        .map(|k| format!("[{:?}]", 0.125 * k as f64 - 2.03))
        .collect();
    SOFTMAX
        .replace(
            "[[-1.0], [-0.2], [0.5], [1.0]]",
            &format!("[{}]", points.join(", ")),
        )
        .replace(
            "kind = \"linear\"",
            &format!("kind = \"{kind}\"\nscale = 1.5"),
        )
        .replace("slope = [0.7]", "slope = [1.7]")
        .replace("slope = [-0.9]", "slope = [-1.4]")
}

/// STUDY with its second case alone, in another coordinate and with another claim.
fn one_case(distance: &str, coordinate: &str, exponent: &str) -> String {
    let (head, cases) = STUDY.split_once("[[case]]").unwrap();
    let (_, second) = cases.split_once("[[case]]").unwrap();
    let second = second
        .replace("\"slope\"", &format!("\"{coordinate}\""))
        .replace("window = [0.01, 0.1]", "window = [0.01, 0.04]")
        .replace("exponent = 2.0", &format!("exponent = {exponent}"));
    let head = head.replace("seed = 3", &format!("seed = 3\ndistance = \"{distance}\""));
    format!("{head}[[case]]{second}")
}

#[test]
fn hidden_units_have_exponent_two_in_the_intercept_where_linear_experts_have_four() {
    for kind in ["tanh", "sigmoid", "gelu"] {
        let study = one_case("hellinger", "intercept", "2.0");
        let (_, found) = solved(&place(&units(kind), &study));
        assert_eq!(
            found[0].verdict(),
            Verdict::Holds,
            "{kind} {:?}",
            found[0].exponents
        );
    }
}

#[test]
fn linear_copies_and_output_weights_average_to_the_regression_function() {
    let linear = units("linear").replace("scale = 1.5\n", "");
    for (truth, coordinate) in [
        (&linear, "intercept"),
        (&linear, "slope"),
        (&units("tanh"), "scale"),
    ] {
        let study = one_case("regression", coordinate, "inf");
        let (_, found) = solved(&place(truth, &study));
        assert_eq!(found[0].verdict(), Verdict::Holds, "{coordinate} {found:?}");
        assert_eq!(found[0].exponents[0].value, Some(f64::INFINITY));
    }
}

#[test]
fn hidden_units_leave_the_regression_function_by_the_square_of_the_spread() {
    for coordinate in ["intercept", "gate_slope"] {
        let study = one_case("regression", coordinate, "2.0").replace(
            "delta = { from = 0.1, to = 0.01, points = 3 }\nwindow = [0.01, 0.04]",
            "delta = { from = 0.01, to = 0.001, points = 3 }\nwindow = [0.001, 0.004]",
        );
        let (_, found) = solved(&place(&units("tanh"), &study));
        // The valley is narrow: what is tested is its depth, not its certificate.
        let value = found[0].exponents[0].value.unwrap();
        assert!((value - 2.0).abs() < 0.1, "{coordinate} {found:?}");
    }
}

#[test]
fn a_zero_is_not_taken_for_a_claimed_exponent() {
    let linear = units("linear").replace("scale = 1.5\n", "");
    let study = one_case("regression", "intercept", "4.0");
    let (_, found) = solved(&place(&linear, &study));
    assert_eq!(found[0].verdict(), Verdict::Undecided);
}

#[test]
fn variances_are_no_part_of_a_regression_function() {
    let study = one_case("regression", "variance", "2.0");
    let place = place(&units("tanh"), &study);
    place.refuse(
        "inverse study.toml",
        &["case[0].coordinate", "sees no variance"],
    );
}

// ---- a top-K fit that keeps too few experts ----

#[test]
fn two_kept_of_three_miss_the_truth_by_what_the_shares_say_and_three_of_three_are_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/inverse");
    let truth = read_model(&folder.join("truths/top-k.toml")).unwrap();
    let at = |kept: usize, share: f64, mass: f64| {
        let fitted = duplicate(&truth.parameters, 0, kept, share, mass).unwrap();
        let distance = density_distance(&truth, &fitted, Wanted::Smooth, Effort::default());
        distance.unwrap().hellinger_sq.value
    };
    for (share, expected) in [
        (0.5, "4.02e-2"),
        (0.7, "1.99e-2"),
        (0.9, "1.76e-4"),
        (0.97, "1.47e-5"),
        (0.999, "1.58e-8"),
    ] {
        assert_eq!(format!("{:.2e}", at(2, share, 1.0)), expected);
        assert!(at(3, share, 1.0) < 1e-30);
    }
    // A dead copy: the other one has the whole mass.
    let dead = (-5f64).exp();
    assert_eq!(at(2, 1.0 / (1.0 + dead), 1.0 + dead), 0.0);
}

#[test]
fn recorded_infima_are_written_as_they_were_read_and_bear_their_claims() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/inverse/top-k");
    let plan = read_top_k_study(&folder.join("too-few-kept.toml")).unwrap();
    let record = folder.join("records/too-few-kept");
    let infima = record::read_infima(&record, &plan).unwrap();
    let verdicts = record::verdicts(&plan, &infima);
    assert!(verdicts.iter().all(|v| *v == Verdict::Holds));
    let stored = std::fs::read_to_string(record.join("infima.csv")).unwrap();
    assert_eq!(record::to_csv(&infima), stored);
}

const TOP_K: &str = r#"title = "Too few kept"
aim = "Whether the command works."
reference = "none"
seed = 1
starts = 1
points = 20
[[case]]
name = "box"
truth = "truth.toml"
expert = 0
kept = 2
shares = [0.5]
radius = 0.05
accept = [[1e-3, 1.0]]
"#;

#[test]
fn the_infimum_over_a_small_box_is_positive_and_below_its_centre() {
    let place = Workplace::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sims/inverse");
    let truth = std::fs::read_to_string(folder.join("truths/top-k.toml")).unwrap();
    place.write("inverse/top-k/truth.toml", &truth);
    place.write("inverse/top-k/study.toml", TOP_K);
    let out = place.succeed("inverse inverse/top-k/study.toml --out out");
    assert!(out.contains("1 × holds"), "{out}");
    let plan = read_top_k_study(&place.path("inverse/top-k/study.toml")).unwrap();
    let infima = record::read_infima(&place.path("out/study"), &plan).unwrap();
    assert!(
        (1e-3..0.0402).contains(&infima[0].hellinger_sq),
        "{infima:?}"
    );
    place.edit("inverse/top-k/study.toml", "kept = 2", "kept = 4");
    place.refuse("inverse inverse/top-k/study.toml", &["case[0].kept"]);
}

// ---- the command ----

#[test]
fn a_smoke_run_decides_nothing_and_lies_beside_the_study() {
    let study = STUDY.replace("exponent = 2.0", "exponent = 3.0");
    let place = place(SOFTMAX, &study);
    let out = place.succeed("inverse study.toml --smoke");
    assert!(!out.contains("fails"), "{out}");
    assert!(place.path("results/study-smoke/minima.csv").exists());
    assert!(!place.path("results/study").exists());
}

#[test]
fn the_command_prints_a_table_leaves_its_files_and_its_record_is_judged() {
    let place = place(SOFTMAX, STUDY);
    let study = STUDY.replace("truth.toml", "truths/truth.toml");
    place.write("sims/inverse/two.toml", &study);
    place.write("sims/inverse/truths/truth.toml", SOFTMAX);
    place.write(
        "sims/tiny.toml",
        &workplace::STUDY.replace("model.toml", "../model.toml"),
    );
    assert!(place.succeed("check sims").contains("no recorded minima"));
    let out = place.succeed("inverse sims/inverse/two.toml --out sims/inverse/records");
    assert!(out.contains("2 × holds") && out.contains("intercept, 2 copies"));
    assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    for file in [
        "minima.csv",
        "claims.csv",
        "exponents.svg",
        "exponents.png",
        "index.html",
        "environment.toml",
    ] {
        assert!(place.path("sims/inverse/records/two").join(file).exists());
    }
    assert!(place.succeed("check sims").contains("2 × holds"));
    // A changed claim is another study; a changed verdict is stale.
    let claims = "sims/inverse/records/two/claims.csv";
    let old = place.edit(claims, "holds", "fails");
    let stale = place.run("check sims");
    assert_eq!(stale.code, Some(1));
    assert!(stale.out.contains("stale: claims.csv, line 2"), "{stale:?}");
    place.write(claims, &old);
    place.edit("sims/inverse/two.toml", "exponent = 4.0", "exponent = 3.0");
    let other = place.run("check sims");
    assert_eq!(other.code, Some(2));
    assert!(other.err.contains("minima.csv:2: key `study`"), "{other:?}");
}

#[test]
fn a_claim_that_fails_ends_with_exit_code_one() {
    let study = STUDY.replace("exponent = 2.0", "exponent = 3.0");
    let place = place(SOFTMAX, &study);
    let run = place.run("inverse study.toml");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.out.contains("1 × fails"), "{}", run.out);
}

#[test]
fn bad_inverse_studies_are_refused_in_one_line_with_file_line_and_key() {
    let cases = [
        (
            "copies = 2",
            "copies = 4",
            "study.toml:17: key `case[0].copies`",
        ),
        ("from = 0.1", "from = 0.001", "case[0].delta"),
        (
            "window = [0.01, 0.1]",
            "window = [0.5, 1.0]",
            "case[0].window",
        ),
        ("tolerance = 0.1", "tolerance = 0.0", "case[0].tolerance"),
        (
            "gates = [\"softmax\"]",
            "gates = [\"relu\"]",
            "no gate `relu`",
        ),
        ("\"slope\"", "\"intercept\"", "case[1].gates"),
        ("\"slope\"", "\"bias\"", "unknown variant"),
        (
            "expert = 0",
            "expert = 2",
            "study.toml:14: key `gate[0].expert`",
        ),
        (
            "expert = 0",
            "expert = 0\nresponse = \"square\"",
            "competition gate",
        ),
        ("log_share = 0.0", "log_share = -1.0", "bounds.log_share"),
        ("truth.toml", "nowhere.toml", "nowhere.toml: cannot read"),
        ("seed = 3", "sead = 3", "unknown field"),
    ];
    let place = place(SOFTMAX, STUDY);
    for (from, to, expected) in cases {
        let old = place.edit("study.toml", from, to);
        place.refuse("inverse study.toml", &[expected]);
        place.write("study.toml", &old);
    }
}

#[test]
fn truths_outside_what_is_computed_are_refused() {
    let cases = [
        (
            "law = \"grid\"\npoints = [[-1.0], [-0.2], [0.5], [1.0]]",
            "law = \"uniform\"\nlow = [-1.0]\nhigh = [1.0]",
            "on a grid",
        ),
        ("kind = \"softmax\"", "kind = \"sigmoid\"", "sigmoid weight"),
        (
            "kind = \"softmax\"",
            "kind = \"softmax\"\ntop_k = 1",
            "dense gate",
        ),
        (
            "kind = \"linear\"",
            "kind = \"tanh\"\nscale = 2.0",
            "scales for all experts or for none",
        ),
    ];
    let place = place(SOFTMAX, STUDY);
    for (from, to, expected) in cases {
        let old = place.edit("truth.toml", from, to);
        place.refuse("inverse study.toml", &["gate[0].truth", expected]);
        place.write("truth.toml", &old);
    }
    place.write("truth.toml", &workplace::MODEL.replace("top_k = 2\n", ""));
    place.refuse("inverse study.toml", &["on a grid"]);
}
