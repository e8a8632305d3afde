//! The studies that the project ships.

use smoe_lab::sim::Plan;
use smoe_lab::sim::study::read_study;
use std::path::{Path, PathBuf};

fn sims() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sims")
}

fn plan(name: &str) -> Plan {
    Plan::new(read_study(&sims().join(name)).unwrap()).unwrap()
}

#[test]
fn every_shipped_study_has_a_plan() {
    let mut studies = 0;
    for entry in std::fs::read_dir(sims()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let study = read_study(&path).unwrap_or_else(|e| panic!("{e}"));
            let plan = Plan::new(study).unwrap_or_else(|e| panic!("{e}"));
            assert!(!plan.cells.is_empty() && !plan.study.claim.is_empty());
            studies += 1;
        }
    }
    assert!(studies >= 4, "{studies} studies");
}

/// The reference, -851.3149274117585, is the best of 500 careful starts of an
/// independent fitter.
#[test]
fn the_fit_to_old_faithful_reaches_the_best_known_log_likelihood() {
    let plan = plan("faithful.toml");
    let fitted = plan.fitted.expect("a truth from data");
    assert_eq!(fitted.rows, 272);
    let gap = fitted.outcome.log_likelihood + 851.3149274117585;
    assert!(gap.abs() < 1e-6, "{gap:e}");
    assert!(
        fitted.hits > 1,
        "{} of {} starts",
        fitted.hits,
        fitted.starts
    );
}

#[test]
fn the_headline_study_keeps_its_promises() {
    let plan = plan("competition-exact.toml");
    assert!(plan.first_replicates() >= 200);
    let sizes: Vec<u64> = plan.study.grid.n.values();
    assert!(sizes[0] <= 317 && *sizes.last().unwrap() >= 100_000);
    assert_eq!(plan.series(), ["gate=softplus", "gate=absolute"]);
    for truth in &plan.truths {
        assert_eq!(truth.regularity.parameters, 7);
    }
}

/// Replicates by precision: the pilot decides, the same way at every run.
#[test]
fn a_target_standard_error_decides_the_replicates() {
    use smoe_lab::sim::row::RowFile;
    use smoe_lab::sim::run::{Request, run, target_replicates};
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(sims().join("calibration.toml")).unwrap();
    let truth = sims().join("truths/normal-mean.toml");
    let text = text
        .replace(
            "replicates = 20000",
            "replicates = { target_slope_se = 0.02, pilot = 40, at_most = 500 }",
        )
        .replace("truths/normal-mean.toml", truth.to_str().unwrap());
    let path = folder.path().join("precision.toml");
    std::fs::write(&path, text).unwrap();
    let plan = Plan::new(read_study(&path).unwrap()).unwrap();
    let mut file = RowFile::open(&folder.path().join("rows"), &plan).unwrap();
    run(&plan, &mut file, &Request::default(), |_, _, _| {}).unwrap();
    let wanted = target_replicates(&plan, &file.rows);
    assert!((41..500).contains(&wanted), "{wanted}");
    assert_eq!(file.rows.len() as u64, 3 * wanted);
    // The coefficient of variation of a half-normal is 0.756: with n = 10, 100,
    // 1000 the slope's standard error is 0.756 / sqrt(R * 10.6).
    let expected = (0.756f64 / 0.02).powi(2) / 10.6;
    assert!(
        (wanted as f64 / expected - 1.0).abs() < 0.6,
        "{wanted} {expected}"
    );
    let summary = smoe_lab::sim::Summary::new(&plan, &file.rows);
    assert_eq!(summary.failures, 0);
}

/// Experts of different kinds, several inputs, sparse and dense: a replicate is
/// a row however it ends.
#[test]
fn a_study_of_mixed_experts_in_two_dimensions_runs() {
    use smoe_lab::sim::row::RowFile;
    use smoe_lab::sim::run::{Request, run};
    let folder = tempfile::tempdir().unwrap();
    let expert = |kind: &str, slope: &str, scale: &str| {
        format!(
            "[[expert]]\nkind = \"{kind}\"\nslope = {slope}\nintercept = 0.5\n{scale}variance = 0.3\n"
        )
    };
    let model = format!(
        "[input]\nlaw = \"normal\"\nmean = [0.0, 0.5]\nsd = [1.0, 0.5]\ntruncation = 2.5\n\
         [gate]\nkind = \"competition\"\nresponse = \"softplus\"\nweights = \"normalised\"\n{}{}{}",
        expert("linear", "[1.0, -1.0]", ""),
        expert("tanh", "[1.5, 0.7]", "scale = 2.0\n"),
        expert("gelu", "[-1.5, 0.3]", "scale = 1.2\n"),
    );
    std::fs::write(folder.path().join("model.toml"), model).unwrap();
    let study = r#"
title = "Mixed experts"
aim = "none"
reference = "none"
seed = 1
replicates = 2
losses = ["hellinger_mean", "tv_mean", "kl_mean", "voronoi"]
[truth]
file = "model.toml"
[grid]
n = [200]
[[grid.gate]]
name = "dense"
[[grid.gate]]
name = "sparse"
top_k = 2
[fit]
method = "gradient"
max_iterations = 200
gain = 0.01
starts = [{ kind = "perturbed-truth", radius = 0.05 }, { kind = "k-means" }, { kind = "random" }]
limits = { coefficient = 10.0, bias = 5.0, gate_slope = 10.0, variance = [0.01, 10.0] }
"#;
    let path = folder.path().join("mixed.toml");
    std::fs::write(&path, study).unwrap();
    let plan = Plan::new(read_study(&path).unwrap()).unwrap();
    let mut file = RowFile::open(&folder.path().join("rows"), &plan).unwrap();
    run(&plan, &mut file, &Request::default(), |_, _, _| {}).unwrap();
    assert_eq!(file.rows.len(), 4);
    for row in &file.rows {
        assert!(!row.stop.is_empty());
        assert!(
            row.losses.iter().all(|v| v.is_finite() && *v > 0.0),
            "{row:?}"
        );
        assert_eq!(row.parameters.len(), plan.truths[0].regularity.parameters);
    }
}
