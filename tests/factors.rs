//! The factors of a design: what shares data with what, what changes nothing else,
//! and what the estimators that they name are known to do.

mod workplace;

use smoe_lab::sim::row::Row;
use smoe_lab::sim::run::{Request, run};
use smoe_lab::sim::study::read_study;
use smoe_lab::sim::{Plan, RowFile, Summary};
use workplace::{SIGNS, Workplace};

const HEAD: &str = r#"title = "Factors"
aim = "none"
reference = "none"
seed = 11
losses = ["hellinger_mean", "slope[0]", "log_mass[0]"]
record_standard_errors = true
"#;

const FIT: &str = r#"
[fit]
method = "em"
max_iterations = 20
gain = 0.1
limits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, variance = [0.01, 10.0] }
"#;

const STARTS: &str = "starts = [{ kind = \"perturbed-truth\", radius = 0.02 }]\n";

/// Competition, the router of the same law, and the oracle.
const FITS: &str = r#"
[[grid.fit]]
name = "own"
[[grid.fit]]
name = "router"
family = "router"
[[grid.fit]]
name = "oracle"
labels = "known"
"#;

fn planned(place: &Workplace, study: &str) -> Plan {
    place.write("signs.toml", SIGNS);
    place.write("model.toml", workplace::MODEL);
    place.write("study.toml", study);
    Plan::new(read_study(&place.path("study.toml")).unwrap()).unwrap()
}

/// The rows of a study, in plan order, by so many threads.
fn rows(study: &str, jobs: usize) -> (Plan, Vec<Row>) {
    let place = Workplace::new();
    let plan = planned(&place, study);
    let mut file = RowFile::open(&place.path("rows"), &plan).unwrap();
    let request = Request {
        jobs: Some(jobs),
        ..Request::default()
    };
    run(&plan, &mut file, &request, |_, _, _| ()).unwrap();
    (plan, file.rows)
}

/// The study of [`SIGNS`] at one n, with the fits given.
fn study(replicates: u64, n: u64, fits: &str) -> String {
    let truth = "[truth]\nfile = \"signs.toml\"\n";
    let grid = format!("[grid]\nn = [{n}]\n");
    let fit = FIT.replace("limits", &format!("{STARTS}limits"));
    format!("{HEAD}replicates = {replicates}\n{truth}{grid}{fits}{fit}")
}

/// The rows of the cells whose name contains `part`.
fn of<'a>(rows: &'a [Row], part: &str) -> Vec<&'a Row> {
    rows.iter().filter(|r| r.cell.contains(part)).collect()
}

#[test]
fn cells_are_named_and_ordered_by_truth_gate_fit_start_and_size() {
    let truth = r#"
[truth]
files = [{ name = "signs", file = "signs.toml" }, { name = "soft", file = "model.toml" }]
[grid]
n = [100, 50]
[[grid.gate]]
name = "bias"
[[grid.gate]]
name = "plain"
biases = "none"
[[grid.fit]]
name = "own"
[[grid.fit]]
name = "oracle"
labels = "known"
[[grid.start]]
name = "near"
starts = [{ kind = "perturbed-truth", radius = 0.02 }]
[[grid.start]]
name = "far"
starts = [{ kind = "k-means" }]
"#;
    let place = Workplace::new();
    let plan = planned(&place, &format!("{HEAD}replicates = 1\n{truth}{FIT}"));
    let mut expected = Vec::new();
    for truth in ["signs", "soft"] {
        for gate in ["bias", "plain"] {
            for fit in ["own", "oracle"] {
                for start in ["near", "far"] {
                    for n in [100, 50] {
                        expected.push((
                            format!("truth={truth},gate={gate},fit={fit},start={start},n={n}"),
                            format!("truth={truth},gate={gate},n={n}"),
                        ));
                    }
                }
            }
        }
    }
    let names = plan.cells.iter();
    let names: Vec<_> = names
        .map(|c| (c.name.clone(), c.data_name.clone()))
        .collect();
    assert_eq!(names, expected);
    // One planned truth per truth, gate and estimator, without biases where asked.
    assert_eq!(plan.truths.len(), 8);
    for cell in &plan.cells {
        let truth = &plan.truths[cell.truth];
        let parameters = if cell.name.contains("gate=plain") {
            6
        } else {
            7
        };
        assert_eq!(truth.regularity.parameters, parameters, "{}", cell.name);
    }
}

#[test]
fn cells_that_differ_only_in_fit_or_start_see_the_same_data() {
    let starts = r#"
[[grid.start]]
name = "near"
starts = [{ kind = "perturbed-truth", radius = 0.02 }]
[[grid.start]]
name = "far"
starts = [{ kind = "k-means" }]
"#;
    let fits = FITS
        .split("[[grid.fit]]\nname = \"oracle\"")
        .next()
        .unwrap();
    let grid = "[truth]\nfile = \"signs.toml\"\n[grid]\nn = [60, 80]\n";
    let text = format!("{HEAD}replicates = 3\n{grid}{fits}{starts}{FIT}");
    let (_, rows) = rows(&text, 2);
    assert_eq!(rows.len(), 2 * 2 * 2 * 3);
    for row in &rows {
        let like = |r: &&Row| r.n == row.n && r.replicate == row.replicate;
        for twin in rows.iter().filter(like) {
            // The same law in another family: equal but for rounding.
            let difference = (twin.log_likelihood_truth - row.log_likelihood_truth).abs();
            assert!(difference < 1e-9, "{} {}", twin.cell, row.cell);
        }
    }
}

#[test]
fn one_more_estimator_changes_no_other_row() {
    let (_, few) = rows(
        &study(
            4,
            80,
            FITS.split("[[grid.fit]]\nname = \"oracle\"")
                .next()
                .unwrap(),
        ),
        2,
    );
    let (_, more) = rows(&study(4, 80, FITS), 2);
    assert_eq!((few.len(), more.len()), (8, 12));
    for old in &few {
        let is_same = |r: &&Row| r.cell == old.cell && r.replicate == old.replicate;
        let mut new = more.iter().find(is_same).unwrap().clone();
        // The design is another one, the number is not.
        new.study = old.study.clone();
        assert!(new.equals_but_for_time(old), "{new:?}\n{old:?}");
    }
}

#[test]
fn rows_with_errors_and_labels_do_not_depend_on_the_number_of_threads() {
    let text = study(5, 80, FITS);
    let [one, two, three] = [1, 2, 3].map(|jobs| rows(&text, jobs).1);
    assert_eq!(one.len(), 15);
    for others in [two, three] {
        let mut pairs = one.iter().zip(&others);
        assert!(pairs.all(|(a, b)| a.equals_but_for_time(b)));
    }
    for row in &one {
        let errors = row.standard_errors.as_ref().unwrap();
        assert_eq!(errors.len(), row.parameters.len());
        assert!(errors.iter().all(|e| *e > 0.0), "{errors:?}");
    }
}

/// The competition's mixtures near the truth are routers: the larger family cannot
/// have the smaller maximum.
#[test]
fn the_router_of_the_same_law_fits_at_least_as_well() {
    let (plan, rows) = rows(&study(20, 300, FITS), 2);
    let router = &plan.truths[1];
    assert_eq!(router.regularity.parameters, 8);
    for (x, y) in [(-1.0, 1.5), (-0.2, -2.0), (0.5, 2.2), (1.0, -3.1)] {
        let [own, law] = [&router.own, &router.model].map(|m| m.parameters.log_density(&[x], y));
        assert!((own - law).abs() < 1e-13, "{own} {law}");
    }
    for (own, router) in of(&rows, "fit=own").iter().zip(of(&rows, "fit=router")) {
        assert!(own.converged && router.converged);
        assert_eq!(own.replicate, router.replicate);
        let gain = router.log_likelihood - own.log_likelihood;
        assert!(gain > -1e-6, "replicate {}: {gain}", own.replicate);
    }
}

/// n d' I_c d / P over R = 400 replicates with P = 7 has mean 1 and standard error
/// (2 / (R P))^(1/2) = 0.027 in the limit: a correct program fails with
/// probability 1e-6 (4.89 standard errors, 0.131), and 0.03 more are allowed for
/// n = 1000 being finite. An error of the mean of 0.3 is found with the same
/// certainty.
///
/// Coverage: whatever the correlation of the seven intervals, the covered share of
/// one replicate has standard deviation at most (0.95 * 0.05)^(1/2), so its mean
/// over 400 lies within 4.89 * 0.0109 = 0.053 of 0.95; 0.01 more for n. A coverage
/// below 0.83, from errors 0.7 times too small, is found with the same certainty.
/// Errors that are too large show in the last lines: the oracle's are smaller by
/// what labels tell.
#[test]
fn the_estimators_have_the_variance_and_the_intervals_that_their_information_promises() {
    let fits = FITS.replace("[[grid.fit]]\nname = \"router\"\nfamily = \"router\"\n", "");
    let (plan, rows) = rows(&study(400, 1000, &fits), 2);
    let summary = Summary::new(&plan, &rows);
    assert_eq!(summary.failures, 0);
    for series in &summary.series {
        let distances = of(&rows, &series.name).into_iter();
        let distances: Vec<f64> = distances.map(|r| r.information_distance / 7.0).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        assert!((mean - 1.0).abs() < 0.131 + 0.03, "{}: {mean}", series.name);
        let coordinates = &series.cells[0].coordinates;
        assert_eq!(coordinates.len(), 7);
        let covered: usize = coordinates.iter().map(|c| c.covered).sum();
        let coverage = covered as f64 / (7.0 * 400.0);
        assert!(
            (coverage - 0.95).abs() < 0.063,
            "{}: {coverage}",
            series.name
        );
    }
    for row in of(&rows, "fit=oracle") {
        assert!(row.likelihood_ratio() >= 0.0, "{row:?}");
    }
    let mean_errors = |part: &str| {
        let rows = of(&rows, part);
        let total: f64 = rows
            .iter()
            .map(|r| r.standard_errors.as_ref().unwrap()[0])
            .sum();
        total / rows.len() as f64
    };
    let [own, oracle] = ["fit=own", "fit=oracle"].map(mean_errors);
    let bound = |k: usize| (plan.truths[k].regularity.bounds()[0] / 1000.0).sqrt();
    assert!((own / bound(0) - 1.0).abs() < 0.02, "{own}");
    assert!((oracle / bound(1) - 1.0).abs() < 0.02, "{oracle}");
    assert!(oracle < own);
}
