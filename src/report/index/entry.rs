//! What the index says about one study.

use crate::report::Environment;
use crate::report::format::{counted, rounded, thousands};
use crate::report::inverse::{by_case, case_text, exponent_text};
use crate::report::wording::{claim_text, claim_theorem, claims, measured, series_label};
use crate::sim::inverse::finding::{Finding, Quantity};
use crate::sim::inverse::study::InversePlan;
use crate::sim::{Plan, Study, Summary, Verdict};

/// Kinds of studies, in the order of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    MonteCarlo,
    InverseBounds,
}

/// One study of the index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    pub(super) kind: Kind,
    /// The part of the theory that it belongs to; empty if none is named.
    pub(super) part: String,
    pub(super) name: String,
    pub(super) title: String,
    /// Where the study stands, relative to the index; empty or ending in `/`.
    pub(super) place: String,
    /// The paper and theorem.
    pub(super) reference: String,
    pub(super) claims: Vec<IndexClaim>,
    /// Fits, failures and time; `None` without a record.
    pub(super) effort: Option<Effort>,
}

/// A claim with what was found, series by series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IndexClaim {
    pub(super) text: String,
    pub(super) theorem: String,
    pub(super) results: Vec<IndexResult>,
}

/// What was found for one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IndexResult {
    /// Empty if the study has one series only.
    pub(super) series: String,
    pub(super) measured: String,
    pub(super) verdict: Verdict,
}

/// What a study took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Effort {
    /// Such as "2400 fits, 200 in each of 12 cells".
    pub(super) amount: String,
    pub(super) failed: String,
    /// Such as "12 min".
    pub(super) time: Option<String>,
}

/// The part of the theory that a study belongs to, the heading it stands under;
/// empty: none is named.
fn part_of(study: &Study) -> &str {
    &study.part
}

impl IndexEntry {
    /// A study with its recorded rows' summary, if it has a record.
    pub fn of_study(plan: &Plan, summary: Option<&Summary>) -> Self {
        let study = &plan.study;
        IndexEntry {
            kind: Kind::MonteCarlo,
            part: part_of(study).to_string(),
            name: study.name.clone(),
            title: study.title.clone(),
            place: String::new(),
            reference: study.reference.clone(),
            claims: summary.map_or(Vec::new(), |summary| study_claims(plan, summary)),
            effort: summary.map(study_effort),
        }
    }

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
            part: String::new(),
            name: study.name.clone(),
            title: study.title.clone(),
            place: place.to_string(),
            reference: study.reference.clone(),
            claims: findings.map_or(Vec::new(), |found| inverse_claims(plan, found)),
            effort: findings.map(|found| inverse_effort(found, environment)),
        }
    }

    /// What it stands under.
    pub(super) fn heading(&self) -> String {
        match (self.part.as_str(), self.kind) {
            ("", Kind::MonteCarlo) => "Monte Carlo studies".to_string(),
            ("", Kind::InverseBounds) => "Inverse bounds, without Monte Carlo".to_string(),
            (part, _) => part.to_string(),
        }
    }

    pub(super) fn design(&self) -> String {
        format!("{}{}.toml", self.place, self.name)
    }

    pub(super) fn page(&self) -> String {
        self.record("index.html")
    }

    pub(super) fn thumbnail(&self) -> String {
        self.record(match self.kind {
            Kind::MonteCarlo => "rates.svg",
            Kind::InverseBounds => "exponents.svg",
        })
    }

    fn record(&self, file: &str) -> String {
        format!("{}records/{}/{file}", self.place, self.name)
    }
}

fn study_claims(plan: &Plan, summary: &Summary) -> Vec<IndexClaim> {
    claims(plan, summary)
        .map(|(claim, results)| IndexClaim {
            text: claim_text(plan, claim),
            theorem: claim_theorem(claim).to_string(),
            results: results
                .iter()
                .map(|result| {
                    let (value, interval) = measured(&result.finding);
                    IndexResult {
                        series: match result.series.as_str() {
                            "" => String::new(),
                            series => series_label(series),
                        },
                        measured: format!("{value} {interval}").trim_end().to_string(),
                        verdict: result.verdict,
                    }
                })
                .collect(),
        })
        .collect()
}

fn study_effort(summary: &Summary) -> Effort {
    let cells = || summary.series.iter().flat_map(|s| &s.cells);
    let (fewest, most) = (
        cells().map(|c| c.rows).min().unwrap_or(0),
        cells().map(|c| c.rows).max().unwrap_or(0),
    );
    let each = match fewest == most {
        true => thousands(most as u64),
        false => format!("{} to {}", thousands(fewest as u64), thousands(most as u64)),
    };
    let with_rows = cells().filter(|c| c.rows > 0);
    let seconds: f64 = with_rows.map(|c| c.seconds * c.rows as f64).sum();
    Effort {
        amount: format!(
            "{}, {each} in each of {}",
            counted(summary.rows, "fit"),
            counted(cells().count(), "cell")
        ),
        failed: share(summary.failures),
        time: Some(duration(seconds)),
    }
}

fn inverse_claims(plan: &InversePlan, findings: &[Finding]) -> Vec<IndexClaim> {
    let groups = by_case(plan, findings);
    groups
        .iter()
        .map(|group| IndexClaim {
            text: case_text(plan, &group[0].0.case),
            theorem: String::new(),
            results: group
                .iter()
                .map(|(cell, finding)| IndexResult {
                    series: cell.gate.clone(),
                    measured: claimed_exponents(finding),
                    verdict: finding.verdict(),
                })
                .collect(),
        })
        .collect()
}

/// The exponent of h, and those of the masses that are claimed.
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
        failed: share(unsure),
        time: environment.map(|e| duration(e.seconds * e.threads as f64)),
    }
}

fn share(failed: usize) -> String {
    match failed {
        0 => "none".to_string(),
        count => thousands(count as u64),
    }
}

/// Computing time in the unit that suits it, with two digits.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{} s", rounded(s, 2)),
        s if s < 7200.0 => format!("{} min", rounded(s / 60.0, 2)),
        s => format!("{} h", rounded(s / 3600.0, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_suits_them() {
        assert_eq!(duration(1.23), "1.2 s");
        assert_eq!(duration(754.0), "13 min");
        assert_eq!(duration(7300.0), "2.0 h");
    }
}
