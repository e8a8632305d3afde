//! The entry of a Monte-Carlo study.

use super::condensed::range;
use super::entry::{Effort, IndexClaim, IndexEntry, IndexResult, Kind, duration, failures};
use crate::report::format::{self, counted, decimal, rounded, thousands};
use crate::report::wording::{
    accepted, claim_text, claim_theorem, claims, measured, series_label, worst_ratio,
};
use crate::sim::claim::{Claim, Constant};
use crate::sim::summary::{ClaimResult, Finding};
use crate::sim::{Plan, Summary, Verdict};

impl IndexEntry {
    /// A study with its recorded rows' summary, if it has a record.
    pub fn of_study(plan: &Plan, summary: Option<&Summary>) -> Self {
        let study = &plan.study;
        IndexEntry {
            kind: Kind::MonteCarlo,
            part: study.part.clone(),
            name: study.name.clone(),
            title: study.title.clone(),
            place: String::new(),
            reference: study.reference.clone(),
            claims: summary.map_or(Vec::new(), |summary| study_claims(plan, summary)),
            effort: summary.map(|summary| study_effort(plan, summary)),
        }
    }
}

fn study_claims(plan: &Plan, summary: &Summary) -> Vec<IndexClaim> {
    claims(plan, summary)
        .map(|(claim, results)| IndexClaim {
            text: claim_text(plan, claim),
            theorem: claim_theorem(claim).to_string(),
            unit: unit(claim),
            results: results.iter().map(index_result).collect(),
        })
        .collect()
}

/// What the numbers of a claim are.
fn unit(claim: &Claim) -> &'static str {
    match claim {
        Claim::Slope { .. } => "slopes",
        Claim::Level { .. } => "means",
        Claim::ChiSquare { .. } => "farthest from 1:",
        Claim::Constant { .. } | Claim::Efficiency { .. } => "ratios",
        Claim::Intervals { .. } | Claim::Coverage { .. } => "coverage",
        Claim::Passes { .. } => "medians",
        Claim::SampleSize { .. } => "n =",
    }
}

fn index_result(result: &ClaimResult) -> IndexResult {
    let (value, estimate) = estimate(&result.finding);
    let (number, interval) = measured(&result.finding);
    let accepted = match (&result.finding, result.verdict) {
        (_, Verdict::Missing) => String::new(),
        // Their claims say it in words.
        (Finding::Coverage { .. } | Finding::Passes(_) | Finding::SampleSize { .. }, _) => {
            String::new()
        }
        _ => accepted(result),
    };
    let (interval, accepted) = match (&result.finding, result.accept) {
        (Finding::Efficiency { bound, .. }, Some(ends)) if !accepted.is_empty() => (
            format!("{interval}, bounds {}", decimal(*bound, 3)),
            format::interval(ends, 3),
        ),
        _ => (interval, accepted),
    };
    IndexResult {
        series: match result.series.as_str() {
            "" => String::new(),
            series => series_label(series),
        },
        value,
        estimate,
        measured: format!("{number} {interval}").trim_end().to_string(),
        accepted,
        verdict: result.verdict,
    }
}

/// The number of a finding, to be compared with those of other series.
fn estimate(finding: &Finding) -> (f64, String) {
    let plain = |value: f64| (value, decimal(value, 3));
    let found = match finding {
        Finding::Slope { rate, .. } => rate.map(|rate| plain(rate.line.slope)),
        Finding::Level { estimate, .. } => estimate.map(|e| (e.value, rounded(e.value, 4))),
        Finding::Constant { estimate, .. }
        | Finding::Efficiency { estimate, .. }
        | Finding::Intervals {
            coverage: estimate, ..
        } => estimate.map(|e| plain(e.value)),
        Finding::ChiSquare { ratios, .. } => worst_ratio(ratios).map(|worst| plain(worst.ratio)),
        Finding::Coverage { covered, groups } => {
            (*groups > 0).then(|| plain(*covered as f64 / *groups as f64))
        }
        Finding::Passes(passes) => passes.map(|p| (p.median, decimal(p.median, 0))),
        Finding::SampleSize { size, .. } => size.map(|s| (s.n, rounded(s.n, 4))),
    };
    found.unwrap_or((f64::NAN, String::new()))
}

fn study_effort(plan: &Plan, summary: &Summary) -> Effort {
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
        failed: failures(summary.failures),
        time: Some(duration(seconds)),
        constants: sharp_constants(plan, summary),
    }
}

/// The ratios to their limits of all constants that the study claims, each with
/// its range over series and sample sizes that are judged.
fn sharp_constants(plan: &Plan, summary: &Summary) -> String {
    let constants = Constant::ALL.into_iter().filter_map(|wanted| {
        let ratios: Vec<IndexResult> = claims(plan, summary)
            .flat_map(|(_, results)| results)
            .flat_map(|result| ratios(wanted, result))
            .collect();
        (!ratios.is_empty()).then(|| range(wanted.symbol(), &ratios))
    });
    constants.collect::<Vec<_>>().join("; ")
}

fn ratios(wanted: Constant, result: &ClaimResult) -> Vec<IndexResult> {
    let values: Vec<f64> = match &result.finding {
        Finding::Constant {
            constant,
            estimate: Some(estimate),
            ..
        } if *constant == wanted => vec![estimate.value],
        Finding::ChiSquare {
            constant, ratios, ..
        } if *constant == wanted => ratios.iter().map(|r| r.ratio).collect(),
        _ => Vec::new(),
    };
    let with_text = |value: f64| IndexResult {
        value,
        estimate: decimal(value, 3),
        ..index_result(result)
    };
    values.into_iter().map(with_text).collect()
}
