//! The summary as CSV, so that a stored report can be compared with its rows.

use super::format::{six_digits, wilson};
use super::wording::{claims, constant_key, worst_ratio};
use crate::sim::Plan;
use crate::sim::claim::Claim;
use crate::sim::statistic::Statistic;
use crate::sim::summary::{CellSummary, ClaimResult, Estimate, Finding, Summary};

/// One line per (series, n, measure): value, standard error, 95 % interval,
/// replicates and failures of the cell. Six significant digits; no timings, so
/// that equal rows give equal bytes.
pub fn summary_csv(_plan: &Plan, summary: &Summary) -> String {
    let header = [
        "series",
        "n",
        "measure",
        "value",
        "se",
        "low",
        "high",
        "replicates",
        "failures",
    ];
    let mut lines = vec![header.map(String::from).to_vec()];
    for series in &summary.series {
        for cell in &series.cells {
            for (measure, estimate) in measures(cell) {
                lines.push(vec![
                    series.name.clone(),
                    cell.n.to_string(),
                    measure,
                    six_digits(Some(estimate.value)),
                    six_digits(estimate.error),
                    six_digits(estimate.interval.map(|i| i[0])),
                    six_digits(estimate.interval.map(|i| i[1])),
                    cell.rows.to_string(),
                    cell.failures.to_string(),
                ]);
            }
        }
    }
    encode(&lines)
}

/// One line per claim and series: what was measured, its 95 % interval, the
/// accepted range and the verdict. Six significant digits.
pub fn claims_csv(plan: &Plan, summary: &Summary) -> String {
    let header = [
        "claim",
        "theorem",
        "series",
        "value",
        "low",
        "high",
        "accept_low",
        "accept_high",
        "verdict",
    ];
    let mut lines = vec![header.map(String::from).to_vec()];
    for (claim, results) in claims(plan, summary) {
        for result in results {
            let (value, interval) = numbers(result);
            lines.push(vec![
                claim_key(claim),
                result.theorem.clone(),
                result.series.clone(),
                six_digits(value),
                six_digits(interval.map(|i| i[0])),
                six_digits(interval.map(|i| i[1])),
                six_digits(result.accept.map(|a| a[0])),
                six_digits(result.accept.map(|a| a[1])),
                result.verdict.name().to_string(),
            ]);
        }
    }
    encode(&lines)
}

/// A number with what is known about its error.
struct Measure {
    value: f64,
    error: Option<f64>,
    interval: Option<[f64; 2]>,
}

impl From<Estimate> for Measure {
    fn from(estimate: Estimate) -> Self {
        Measure {
            value: estimate.value,
            error: Some(estimate.error),
            interval: Some(estimate.interval),
        }
    }
}

fn measures(cell: &CellSummary) -> Vec<(String, Measure)> {
    let exact = |value| Measure {
        value,
        error: None,
        interval: None,
    };
    let mut found = Vec::new();
    for loss in &cell.losses {
        let name = loss.loss;
        found.push((name.to_string(), loss.mean.into()));
        found.push((format!("{name}_median"), exact(loss.median)));
        for (statistic, estimate) in &loss.statistics {
            found.push((format!("{name}_{statistic}"), (*estimate).into()));
        }
    }
    for (constant, estimate) in &cell.constants {
        found.push((constant_key(*constant).to_string(), (*estimate).into()));
    }
    for coordinate in &cell.coordinates {
        let name = coordinate.coordinate;
        found.push((format!("bias {name}"), coordinate.bias.into()));
        let ratio = coordinate.scaled_mse;
        if ratio.value.is_finite() {
            found.push((format!("ratio_mse {name}"), ratio.into()));
        }
        if coordinate.intervals > 0 {
            let covered = share(coordinate.covered, coordinate.intervals);
            found.push((format!("covered {name}"), covered));
        }
    }
    if cell.rows > 0 {
        found.push(("failure_rate".to_string(), share(cell.failures, cell.rows)));
    }
    found.push(("on_bound".to_string(), exact(cell.on_bound as f64)));
    found.push(("below_truth".to_string(), exact(cell.below_truth as f64)));
    found
}

fn share(hits: usize, trials: usize) -> Measure {
    let value = hits as f64 / trials as f64;
    Measure {
        value,
        error: Some((value * (1.0 - value) / trials as f64).sqrt()),
        interval: Some(wilson(hits, trials)),
    }
}

fn claim_key(claim: &Claim) -> String {
    match claim {
        Claim::Slope {
            loss, statistic, ..
        } => match statistic {
            Statistic::Mean => format!("slope {loss}"),
            other => format!("slope {loss} {other}"),
        },
        Claim::Level { loss, .. } => format!("level {loss}"),
        Claim::ChiSquare { constant, .. } => format!("chi_square {}", constant_key(*constant)),
        Claim::Intervals { .. } => "intervals".to_string(),
        Claim::Efficiency { of, reference, .. } => format!("efficiency {of}/{reference}"),
        Claim::Constant { constant, .. } => constant_key(*constant).to_string(),
        Claim::Coverage { loss, .. } => format!("coverage {loss}"),
        Claim::Passes { .. } => "passes".to_string(),
        Claim::SampleSize { loss, accuracy, .. } => {
            format!("sample_size {loss} {accuracy}")
        }
    }
}

fn numbers(result: &ClaimResult) -> (Option<f64>, Option<[f64; 2]>) {
    match &result.finding {
        Finding::Slope { rate, .. } => (rate.map(|r| r.line.slope), rate.map(|r| r.interval)),
        Finding::Constant { estimate, .. }
        | Finding::Level { estimate, .. }
        | Finding::Efficiency { estimate, .. }
        | Finding::Intervals {
            coverage: estimate, ..
        } => (estimate.map(|e| e.value), estimate.map(|e| e.interval)),
        Finding::ChiSquare { ratios, .. } => {
            let worst = worst_ratio(ratios);
            (worst.map(|w| w.ratio), worst.map(|w| w.interval))
        }
        Finding::Coverage { groups: 0, .. } => (None, None),
        Finding::Coverage { covered, groups } => {
            let found = share(*covered as usize, *groups as usize);
            (Some(found.value), found.interval)
        }
        Finding::Passes(found) => (found.map(|p| p.median), None),
        Finding::SampleSize { size, .. } => (size.map(|s| s.n), size.map(|s| s.interval)),
    }
}

pub(super) fn encode(lines: &[Vec<String>]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        writer.write_record(line).expect("writing to memory");
    }
    let bytes = writer.into_inner().expect("writing to memory");
    String::from_utf8(bytes).expect("made of strings")
}
