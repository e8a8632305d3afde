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
