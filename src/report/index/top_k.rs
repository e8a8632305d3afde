//! The entry of a top-K study.

use super::entry::{Effort, IndexClaim, IndexEntry, IndexResult, Kind, duration, failures};
use crate::report::Environment;
use crate::report::format::{counted, rounded, shortened, stated, thousands};
use crate::report::inverse::accepted_infimum;
use crate::sim::inverse::top_k::record::{Infimum, of_cells, verdicts};
use crate::sim::inverse::top_k::study::{TopKCase, TopKPlan};

impl IndexEntry {
    /// A top-K study with the infima and the environment of its record. `place`:
    /// where it stands, relative to the index, ending in `/`.
    pub fn of_top_k_study(
        plan: &TopKPlan,
        infima: Option<&[Infimum]>,
        environment: Option<&Environment>,
        place: &str,
    ) -> Self {
        let study = &plan.study;
        IndexEntry {
            kind: Kind::TopK,
            part: study.part.clone(),
            name: study.name.clone(),
            title: study.title.clone(),
            place: place.to_string(),
            reference: study.reference.clone(),
            claims: infima.map_or(Vec::new(), |infima| top_k_claims(plan, infima)),
            effort: infima.map(|infima| top_k_effort(plan, infima, environment)),
        }
    }
}

fn top_k_claims(plan: &TopKPlan, infima: &[Infimum]) -> Vec<IndexClaim> {
    let mut results = results(plan, infima).into_iter();
    let cases = plan.study.case.iter();
    cases
        .map(|case| IndexClaim {
            text: case_text(case),
            theorem: String::new(),
            unit: "E h²",
            results: results.by_ref().take(case.shares.len()).collect(),
        })
        .collect()
}

/// What a case is about.
fn case_text(case: &TopKCase) -> String {
    let what = match case.radius == 0.0 {
        true => "E h² of the fit as it is".to_string(),
        false => format!("inf E h² within {} of the fit", stated(case.radius)),
    };
    format!("{}: {what}", case.name)
}

/// Of all cells, in plan order.
fn results(plan: &TopKPlan, infima: &[Infimum]) -> Vec<IndexResult> {
    let found = of_cells(plan, infima)
        .into_iter()
        .zip(verdicts(plan, infima));
    let cells = plan.cells.iter().zip(found);
    cells
        .map(|(cell, (infimum, verdict))| {
            let value = infimum.map_or(f64::NAN, |i| i.hellinger_sq);
            let estimate = infimum.map_or("–".to_string(), |i| rounded(i.hellinger_sq, 3));
            IndexResult {
                series: format!("share {}", shortened(&rounded(cell.share, 4))),
                value,
                measured: estimate.clone(),
                estimate,
                accepted: accepted_infimum(cell),
                verdict,
            }
        })
        .collect()
}

/// An infimum claimed to be positive that no second start found is counted as
/// failed; one claimed to be small is proved by the point found.
fn top_k_effort(plan: &TopKPlan, infima: &[Infimum], environment: Option<&Environment>) -> Effort {
    let cells = of_cells(plan, infima).into_iter().zip(&plan.cells);
    let alone = cells.filter_map(|(infimum, cell)| {
        let infimum = infimum.filter(|_| cell.accept[0] > 0.0)?;
        (infimum.starts > 1 && infimum.agreeing < 2).then_some(())
    });
    let plural = if infima.len() == 1 {
        "infimum"
    } else {
        "infima"
    };
    Effort {
        amount: format!(
            "{} {plural} in {}",
            thousands(infima.len() as u64),
            counted(plan.study.case.len(), "case")
        ),
        failed: failures(alone.count()),
        time: environment.map(|e| duration(e.seconds * e.threads as f64)),
        constants: String::new(),
    }
}
