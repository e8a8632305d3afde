//! The entry of an inverse-bound study.

use super::entry::{Effort, IndexClaim, IndexEntry, IndexResult, Kind, duration, failures};
use crate::report::Environment;
use crate::report::format::{counted, decimal, thousands};
use crate::report::inverse::{by_case, case_text, exponent_text};
use crate::sim::inverse::finding::{Finding, Quantity};
use crate::sim::inverse::study::InversePlan;

impl IndexEntry {
    /// An inverse-bound study with the findings and the environment of its
    /// record. `place`: where it stands, relative to the index, ending in `/`.
    pub fn of_inverse_study(
        plan: &InversePlan,
        findings: Option<&[Finding]>,
        environment: Option<&Environment>,
        place: &str,
    ) -> Self {
        let study = &plan.study;
        IndexEntry {
            kind: Kind::InverseBounds,
            part: study.part.clone(),
            name: study.name.clone(),
            title: study.title.clone(),
            place: place.to_string(),
            reference: study.reference.clone(),
            claims: findings.map_or(Vec::new(), |found| inverse_claims(plan, found)),
            effort: findings.map(|found| inverse_effort(found, environment)),
        }
    }
}

fn inverse_claims(plan: &InversePlan, findings: &[Finding]) -> Vec<IndexClaim> {
    let groups = by_case(plan, findings);
    groups
        .iter()
        .map(|group| IndexClaim {
            text: case_text(plan, &group[0].0.case),
            theorem: String::new(),
            unit: "exponents",
            results: group
                .iter()
                .map(|(cell, finding)| {
                    let distance = finding.exponents.first();
                    let value = distance.and_then(|e| e.value).unwrap_or(f64::NAN);
                    IndexResult {
                        series: cell.gate.clone(),
                        value,
                        estimate: decimal(value, 2),
                        measured: claimed_exponents(finding),
                        accepted: String::new(),
                        verdict: finding.verdict(),
                    }
                })
                .collect(),
        })
        .collect()
}

/// The exponent of the distance, and those of the masses that are claimed.
fn claimed_exponents(finding: &Finding) -> String {
    let claimed = finding.exponents.iter().filter(|e| e.claimed.is_some());
    let texts: Vec<String> = claimed
        .map(|exponent| {
            let value = exponent_text(finding, exponent.quantity);
            match exponent.quantity {
                Quantity::Distance(_) => value,
                Quantity::RawMass => format!("raw {value}"),
                Quantity::TiltedMass => format!("tilted {value}"),
            }
        })
        .collect();
    texts.join(", ")
}

fn inverse_effort(findings: &[Finding], environment: Option<&Environment>) -> Effort {
    let minima: usize = findings.iter().map(|f| f.minima.len()).sum();
    let plural = if minima == 1 { "minimum" } else { "minima" };
    let unsure = findings.iter().flat_map(|f| &f.minima);
    let unsure = unsure.filter(|m| !m.is_certified()).count();
    Effort {
        amount: format!(
            "{} {plural} in {}",
            thousands(minima as u64),
            counted(findings.len(), "cell")
        ),
        failed: failures(unsure),
        time: environment.map(|e| duration(e.seconds * e.threads as f64)),
        constants: String::new(),
    }
}
