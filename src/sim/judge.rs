//! What the rows of a series say about the study's claims.

use super::claim::{Claim, Constant, Curve};
use super::column::Loss;
use super::plan::Plan;
use super::rate::{local_slope, rate};
use super::row::Row;
use super::series::{SeriesRows, covered, scaled_error};
use super::statistic::Statistic;
use super::summary::{
    ClaimResult, Estimate, Finding, PassQuantiles, SizeRatio, Verdict, coverage_p_value, estimate,
    wilson_interval,
};
use crate::num::sum::mean_and_deviation;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, Normal};

/// Every claim about every series that it concerns.
pub(super) fn judge(plan: &Plan, series: &[SeriesRows]) -> Vec<ClaimResult> {
    let claims = plan.study.claim.iter().enumerate();
    let pairs: Vec<(usize, &Claim, &SeriesRows)> = claims
        .flat_map(|(k, claim)| {
            let concerned = series.iter().filter(|s| claim.concerns(s.name));
            concerned.map(move |rows| (k, claim, rows))
        })
        .collect();
    let judged = |(k, claim, rows): (usize, &Claim, &SeriesRows)| {
        let (theorem, finding, accept) = find(plan, claim, rows, series);
        ClaimResult {
            claim: k,
            series: rows.name.to_string(),
            theorem: theorem.to_string(),
            verdict: verdict(&finding, accept),
            known_to_fail: claim.is_known_to_fail(rows.name),
            finding,
            accept,
        }
    };
    pairs.into_par_iter().map(judged).collect()
}

fn find<'a>(
    plan: &Plan,
    claim: &'a Claim,
    rows: &SeriesRows,
    series: &[SeriesRows],
) -> (&'a str, Finding, Option<[f64; 2]>) {
    match claim {
        Claim::Slope {
            theorem,
            loss,
            statistic,
            curve,
            window,
            accept,
            ..
        } => {
            let samples = rows.samples(plan, *loss, *window, |_| true);
            let purpose = match statistic {
                Statistic::Mean => loss.to_string(),
                other => format!("{loss} {other}"),
            };
            let log_corrected = |n: f64| Curve::LogParametric.at(n);
            let finding = Finding::Slope {
                loss: *loss,
                statistic: *statistic,
                curve: *curve,
                rate: rate(&samples, *statistic, &rows.stream(plan, &purpose)),
                log_corrected: local_slope(&samples, *statistic, log_corrected),
                window: *window,
            };
            (theorem, finding, Some(*accept))
        }
        Claim::Level {
            theorem,
            loss,
            accept,
            ..
        } => {
            let (n, _) = rows.cells.last().expect("a series has cells");
            let window = [*n as f64, f64::INFINITY];
            let samples = rows.samples(plan, *loss, window, |_| true);
            let finding = Finding::Level {
                loss: *loss,
                estimate: estimate(&samples[0].losses),
                n: *n,
            };
            (theorem, finding, Some(*accept))
        }
        Claim::Constant {
            theorem,
            constant,
            tolerance,
        } => {
            let (n, cell) = rows.cells.last().expect("a series has cells");
            let finding = Finding::Constant {
                constant: *constant,
                estimate: estimate(&rows.constant_values(plan, *constant, cell)),
                n: *n,
            };
            let accept = [1.0 - tolerance, 1.0 + tolerance];
            (theorem, finding, Some(accept))
        }
        Claim::ChiSquare {
            theorem,
            constant,
            from,
            confidence,
            ..
        } => {
            let finding = Finding::ChiSquare {
                constant: *constant,
                confidence: *confidence,
                ratios: chi_square(plan, rows, *constant, *from, *confidence),
            };
            (theorem, finding, None)
        }
        Claim::Intervals {
            theorem,
            from,
            accept,
            ..
        } => {
            let finding = Finding::Intervals {
                coverage: interval_coverage(plan, rows, *from),
                from: *from,
            };
            (theorem, finding, Some(*accept))
        }
        Claim::Efficiency {
            theorem,
            of,
            reference,
            from,
            tolerance,
            ..
        } => {
            let twin = rows
                .name
                .replace(&format!("fit={of}"), &format!("fit={reference}"));
            let twin = series.iter().find(|s| s.name == twin);
            let found = twin.map(|twin| efficiency(plan, rows, twin, *from));
            let (estimate, bound) = found.unwrap_or((None, f64::NAN));
            let accept = [bound * (1.0 - tolerance), bound * (1.0 + tolerance)];
            let finding = Finding::Efficiency { estimate, bound };
            (theorem, finding, Some(accept))
        }
        Claim::Coverage { loss, slope, group } => {
            let (covered, groups) = slope_coverage(plan, rows, *loss, *slope, *group);
            let finding = Finding::Coverage { covered, groups };
            ("", finding, Some([0.95, 0.95]))
        }
        Claim::Passes {
            median,
            percentile_99,
        } => {
            let finding = Finding::Passes(passes(rows, *median, *percentile_99));
            ("", finding, Some([*median, *percentile_99]))
        }
        Claim::SampleSize {
            loss,
            accuracy,
            window,
        } => {
            let finding = Finding::SampleSize {
                loss: *loss,
                accuracy: *accuracy,
                size: rows.sample_size(plan, *loss, *accuracy, *window),
            };
            ("", finding, None)
        }
    }
}

/// The mean ratio at every n of at least `from`, with the interval that holds the
/// mean of R chi^2_P / P variables with this probability.
fn chi_square(
    plan: &Plan,
    series: &SeriesRows,
    constant: Constant,
    from: f64,
    confidence: f64,
) -> Vec<SizeRatio> {
    let normal = Normal::standard().inverse_cdf(0.5 + 0.5 * confidence);
    let parameters = plan.truths[series.truth].regularity.parameters as f64;
    let large = series.cells.iter().filter(|(n, _)| *n as f64 >= from);
    large
        .filter_map(|(n, rows)| {
            let values = series.constant_values(plan, constant, rows);
            let mean = estimate(&values)?;
            // chi^2_P / P has variance 2 / P.
            let reach = normal * (2.0 / (parameters * values.len() as f64)).sqrt();
            Some(SizeRatio {
                n: *n,
                ratio: mean.value,
                interval: [1.0 - reach, 1.0 + reach],
            })
        })
        .collect()
}

/// Mean over replicates of the share of coordinates whose interval covers.
fn interval_coverage(plan: &Plan, series: &SeriesRows, from: f64) -> Option<Estimate> {
    let truth = &plan.truths[series.truth];
    if !truth.is_exact() {
        return None;
    }
    let packed = truth.regularity.packed();
    let free = truth.regularity.free();
    let share = |row: &Row| {
        let covers: Option<Vec<bool>> = free.iter().map(|&j| covered(row, &packed, j)).collect();
        let covers = covers?;
        Some(covers.iter().filter(|c| **c).count() as f64 / covers.len() as f64)
    };
    let large = series.cells.iter().filter(|(n, _)| *n as f64 >= from);
    let rows = large.flat_map(|(_, rows)| rows);
    let shares: Vec<f64> = rows
        .filter(|r| r.counts(&plan.study))
        .filter_map(|r| share(r))
        .collect();
    estimate(&shares)
}

/// The ratio of the mean scaled squared errors of two estimators over the
/// replicates in which both count, with its interval by the delta method on
/// paired values, and the ratio of their bounds.
fn efficiency(
    plan: &Plan,
    of: &SeriesRows,
    reference: &SeriesRows,
    from: f64,
) -> (Option<Estimate>, f64) {
    let above = &plan.truths[of.truth].regularity;
    let below = &plan.truths[reference.truth].regularity;
    let ratios: Vec<f64> = below
        .expert_coordinates()
        .map(|j| above.bounds()[j] / below.bounds()[j])
        .collect();
    let bound = mean_and_deviation(&ratios).0;
    let mut pairs = Vec::new();
    for ((n, rows), (_, others)) in of.cells.iter().zip(&reference.cells) {
        if (*n as f64) < from {
            continue;
        }
        for row in rows.iter().filter(|r| r.counts(&plan.study)) {
            let twin = others.binary_search_by_key(&row.replicate, |r| r.replicate);
            if let Ok(k) = twin
                && others[k].counts(&plan.study)
            {
                let a = scaled_error(above, below, row);
                let b = scaled_error(below, below, others[k]);
                pairs.push((a, b));
            }
        }
    }
    pairs.retain(|(a, b)| a.is_finite() && b.is_finite());
    let column = |f: fn(&(f64, f64)) -> f64| pairs.iter().map(f).collect::<Vec<f64>>();
    let (top, bottom) = (
        mean_and_deviation(&column(|p| p.0)).0,
        mean_and_deviation(&column(|p| p.1)).0,
    );
    // log(mean a / mean b) has the influence values a / mean a - b / mean b.
    let influence: Vec<f64> = pairs.iter().map(|(a, b)| a / top - b / bottom).collect();
    let found = estimate(&influence).map(|e| {
        let ratio = top / bottom;
        Estimate {
            value: ratio,
            error: ratio * e.error,
            interval: e.interval.map(|end| ratio * end.exp()),
        }
    });
    (found, bound)
}

/// How many disjoint groups of replicates give an interval that covers.
fn slope_coverage(
    plan: &Plan,
    series: &SeriesRows,
    loss: Loss,
    slope: f64,
    group: u64,
) -> (u64, u64) {
    let smallest = series.cells.iter().map(|(_, rows)| rows.len() as u64).min();
    let groups = smallest.unwrap_or(0) / group;
    let covered = (0..groups)
        .into_par_iter()
        .filter(|g| {
            let window = [0.0, f64::INFINITY];
            let inside = |r: u64| r / group == *g;
            let samples = series.samples(plan, loss, window, inside);
            let stream = series.stream(plan, &format!("group {g}"));
            rate(&samples, Statistic::Mean, &stream)
                .is_some_and(|r| r.interval[0] <= slope && slope <= r.interval[1])
        })
        .count();
    (covered as u64, groups)
}

/// The passes of all fits from one start each.
fn passes(series: &SeriesRows, median: f64, percentile_99: f64) -> Option<PassQuantiles> {
    let rows = series.cells.iter().flat_map(|(_, rows)| rows);
    let fits = rows.flat_map(|row| row.start_outcomes());
    let mut passes: Vec<f64> = fits
        .map(|fit| match fit.is_certified() {
            true => fit.passes,
            false => f64::INFINITY,
        })
        .collect();
    if passes.is_empty() {
        return None;
    }
    passes.sort_by(f64::total_cmp);
    let within = |limit: f64| passes.iter().filter(|p| **p <= limit).count();
    // The smallest number that the share of fits keeps to: no interpolation,
    // which endless fits do not allow.
    let at = |share: f64| passes[(share * passes.len() as f64).ceil() as usize - 1];
    Some(PassQuantiles {
        fits: passes.len(),
        uncertified: passes.iter().filter(|p| p.is_infinite()).count(),
        median: at(0.5),
        percentile_99: at(0.99),
        within_median: within(median),
        within_percentile: within(percentile_99),
    })
}

fn verdict(finding: &Finding, accept: Option<[f64; 2]>) -> Verdict {
    match (finding, accept) {
        (Finding::Slope { rate: Some(r), .. }, Some(accept)) => Verdict::of(r.interval, accept),
        (
            Finding::Constant {
                estimate: Some(e), ..
            }
            | Finding::Level {
                estimate: Some(e), ..
            }
            | Finding::Efficiency {
                estimate: Some(e), ..
            }
            | Finding::Intervals {
                coverage: Some(e), ..
            },
            Some(accept),
        ) => Verdict::of(e.interval, accept),
        (Finding::ChiSquare { ratios, .. }, _) if !ratios.is_empty() => {
            match ratios.iter().all(SizeRatio::is_inside) {
                true => Verdict::Holds,
                false => Verdict::Fails,
            }
        }
        (Finding::Coverage { covered, groups }, _) if *groups > 0 => {
            // Two-sided binomial p-value of nominal coverage.
            let p = coverage_p_value(*covered, *groups);
            if p >= 0.05 {
                Verdict::Holds
            } else if p < 0.001 {
                Verdict::Fails
            } else {
                Verdict::Undecided
            }
        }
        (Finding::Passes(Some(passes)), _) => {
            let share = |within: usize| wilson_interval(within, passes.fits);
            let half = Verdict::of(share(passes.within_median), [0.5, 1.0]);
            let nearly_all = Verdict::of(share(passes.within_percentile), [0.99, 1.0]);
            match (half, nearly_all) {
                (Verdict::Holds, Verdict::Holds) => Verdict::Holds,
                (Verdict::Fails, _) | (_, Verdict::Fails) => Verdict::Fails,
                _ => Verdict::Undecided,
            }
        }
        (Finding::SampleSize { size: Some(_), .. }, _) => Verdict::Measured,
        _ => Verdict::Missing,
    }
}
