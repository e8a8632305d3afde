//! How claims, losses and series are named, the same in text, page and figures.

use super::format::{
    counted, decimal, interval, percent, rounded, size, stated, stated_interval, thousands, wilson,
};
use crate::sim::claim::{Claim, Constant};
use crate::sim::column::{Loss, Quantity};
use crate::sim::statistic::Statistic;
use crate::sim::summary::{ClaimResult, Finding, SizeRatio, Summary};
use crate::sim::{Plan, Verdict};

/// A series as readers see it: the levels without their factors.
pub(super) fn series_label(series: &str) -> String {
    if series.is_empty() {
        return "all".to_string();
    }
    let level = |part: &str| {
        part.split_once('=')
            .map_or(part, |(_, level)| level)
            .to_string()
    };
    series.split(',').map(level).collect::<Vec<_>>().join(", ")
}

/// A loss in words.
pub(super) fn loss_name(loss: Loss) -> String {
    let name = match loss {
        Loss::HellingerMean => "Hellinger distance",
        Loss::HellingerSqMean => "Squared Hellinger distance",
        Loss::TvMean => "Total variation distance",
        Loss::KlMean => "Kullback–Leibler divergence",
        Loss::Voronoi => "Voronoi loss",
        Loss::VoronoiTilted => "Tilted Voronoi loss",
        Loss::VoronoiSoftmaxD2 => "Voronoi loss D₂",
        Loss::Selection => "Selection error",
        Loss::Cell(quantity, expert) => {
            return format!("{} of expert {expert}", quantity_name(quantity));
        }
    };
    name.to_string()
}

fn quantity_name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Slope => "Slope",
        Quantity::Intercept => "Intercept",
        Quantity::Scale => "Output weight",
        Quantity::LogVariance => "Log variance",
        Quantity::GateSlope => "Router slope",
        Quantity::LogMass => "Log mass",
    }
}

/// A statistic of a loss, as a formula.
pub(super) fn statistic_symbol(statistic: Statistic, loss: Loss) -> String {
    let symbol = loss.symbol();
    match statistic {
        Statistic::Mean => symbol,
        Statistic::Quantile(50) => format!("median of {symbol}"),
        Statistic::Quantile(percent) => format!("{percent} % quantile of {symbol}"),
        Statistic::Moment(power) => format!("(mean of power {power})^(1/{power}) of {symbol}"),
    }
}

/// What a loss measures.
pub(super) fn loss_definition(loss: Loss) -> &'static str {
    match loss {
        Loss::Selection => {
            "probability that fit and truth select different experts at X: how far the \
             boundaries between selections are apart"
        }
        Loss::Cell(Quantity::LogMass, _) => {
            "error of the logarithm of the cell’s mass, relative to the cell of the last expert"
        }
        Loss::Cell(..) => {
            "root mean square, weighted by mass, of fitted minus true over the fitted experts in \
             the Voronoi cell of the true one"
        }
        Loss::HellingerMean => {
            "E h = mean over X of h(p*(·|X), p̂(·|X)), with h² = ½ ∫ (√p − √q)² dy"
        }
        Loss::HellingerSqMean => "E h² = mean over X of h²(p*(·|X), p̂(·|X))",
        Loss::TvMean => "E V = mean over X of ½ ∫ |p*(y|X) − p̂(y|X)| dy",
        Loss::KlMean => "E KL = mean over X of ∫ p* log(p*/p̂) dy",
        Loss::Voronoi => {
            "distance between the mixing measures over the Voronoi cells of the true atoms, \
             in the form that belongs to the truth's gate"
        }
        Loss::VoronoiTilted => {
            "Voronoi loss with masses tilted by the variances, for competition gates"
        }
        Loss::VoronoiSoftmaxD2 => "Voronoi loss D₂ of softmax gates, for too many experts",
    }
}

/// What a constant compares.
pub(super) fn constant_definition(constant: Constant) -> &'static str {
    match constant {
        Constant::HellingerSq => "8 n E h² tends in law to χ² with P degrees of freedom",
        Constant::LikelihoodRatio => {
            "LR = 2 (log-likelihood of the fit − log-likelihood of the truth) tends to χ² with P \
             degrees of freedom (Wilks)"
        }
        Constant::Information => {
            "I is the Fisher information at the truth, Cov the covariance of the estimate about \
             the truth (Cramér–Rao)"
        }
        Constant::Coordinates => {
            "n times the mean squared error over its Cramér–Rao bound, averaged over the experts’ \
             coordinates"
        }
    }
}

/// The key of a constant in files.
pub(super) fn constant_key(constant: Constant) -> &'static str {
    match constant {
        Constant::HellingerSq => "ratio_hellinger_sq",
        Constant::LikelihoodRatio => "ratio_likelihood",
        Constant::Information => "ratio_information",
        Constant::Coordinates => "ratio_coordinates",
    }
}

/// The claims, each with its results series by series.
pub(super) fn claims<'a>(
    plan: &'a Plan,
    summary: &'a Summary,
) -> impl Iterator<Item = (&'a Claim, &'a [ClaimResult])> {
    let results = summary.claims.chunk_by(|a, b| a.claim == b.claim);
    results.map(|results| (&plan.study.claim[results[0].claim], results))
}

/// What a claim says.
pub(super) fn claim_text(plan: &Plan, claim: &Claim) -> String {
    let largest = || plan.cells.iter().map(|c| c.n).max().unwrap_or(0);
    match claim {
        Claim::Slope {
            loss,
            statistic,
            curve,
            window,
            ..
        } => format!(
            "{} falls like {}: slope over {}",
            statistic_symbol(*statistic, *loss),
            curve.symbol(),
            window_text(*window)
        )
        .replace("falls like a constant", "does not fall"),
        Claim::Level { loss, .. } => {
            format!("Mean {} at n = {}", loss.symbol(), thousands(largest()))
        }
        Claim::ChiSquare {
            constant,
            from,
            confidence,
            ..
        } => format!(
            "{} → 1: within the {} interval of its limit law at every n ≥ {}",
            constant.symbol(),
            percent(*confidence),
            size(*from)
        ),
        Claim::Intervals { from, .. } => format!(
            "95 % intervals from the observed information cover the truth, n ≥ {}",
            size(*from)
        ),
        Claim::Efficiency {
            of,
            reference,
            from,
            ..
        } => format!(
            "Mean squared error of {of} over that of {reference}, n ≥ {}: the ratio of the bounds",
            size(*from)
        ),
        Claim::Constant { constant, .. } => format!(
            "{} → 1: ratio at n = {}",
            constant.symbol(),
            thousands(largest())
        ),
        Claim::Coverage { loss, slope, group } => format!(
            "The 95 % interval of the slope of {} covers {} (groups of {group} replicates)",
            loss.symbol(),
            stated(*slope)
        ),
        Claim::Passes {
            median,
            percentile_99,
        } => format!(
            "Passes over the data of a fit from one start: at most {} in the median, {} in 99 %",
            stated(*median),
            stated(*percentile_99)
        ),
        Claim::SampleSize { loss, accuracy, .. } => {
            format!("n needed for {} ≤ {}", loss.symbol(), stated(*accuracy))
        }
    }
}

/// The theorem that a claim names; empty for none.
pub(super) fn claim_theorem(claim: &Claim) -> &str {
    match claim {
        Claim::Slope { theorem, .. }
        | Claim::Level { theorem, .. }
        | Claim::ChiSquare { theorem, .. }
        | Claim::Intervals { theorem, .. }
        | Claim::Efficiency { theorem, .. }
        | Claim::Constant { theorem, .. } => theorem,
        Claim::Coverage { .. } | Claim::Passes { .. } | Claim::SampleSize { .. } => "",
    }
}

/// A regression window.
pub(super) fn window_text(window: [f64; 2]) -> String {
    format!("{} ≤ n ≤ {}", size(window[0]), size(window[1]))
}

/// What was measured: the number, and its 95 % interval where there is one.
pub(super) fn measured(finding: &Finding) -> (String, String) {
    let nothing = || ("–".to_string(), String::new());
    match finding {
        Finding::Slope { rate, .. } => rate.map_or_else(nothing, |rate| {
            (decimal(rate.line.slope, 3), interval(rate.interval, 3))
        }),
        Finding::Constant { estimate, .. }
        | Finding::Efficiency { estimate, .. }
        | Finding::Intervals {
            coverage: estimate, ..
        } => estimate.map_or_else(nothing, |e| (decimal(e.value, 3), interval(e.interval, 3))),
        Finding::Level { estimate, .. } => estimate.map_or_else(nothing, |e| {
            let [low, high] = e.interval.map(|end| rounded(end, 4));
            (rounded(e.value, 4), format!("[{low}, {high}]"))
        }),
        Finding::ChiSquare { ratios, .. } => worst_ratio(ratios).map_or_else(nothing, |worst| {
            let found = format!("{} at n = {}", decimal(worst.ratio, 3), thousands(worst.n));
            (found, String::new())
        }),
        Finding::Coverage { groups: 0, .. } => nothing(),
        Finding::Coverage { covered, groups } => {
            let ends = wilson(*covered as usize, *groups as usize);
            let share = *covered as f64 / *groups as f64;
            (
                format!("{} ({covered} of {groups})", decimal(share, 3)),
                interval(ends, 3),
            )
        }
        Finding::Passes(found) => found.map_or_else(nothing, |p| {
            let measured = format!(
                "{}; {} ({} of {} fits uncertified)",
                passes(p.median),
                passes(p.percentile_99),
                p.uncertified,
                thousands(p.fits as u64)
            );
            (measured, String::new())
        }),
        Finding::SampleSize { size: found, .. } => found.map_or_else(nothing, |s| {
            let ends = s.interval.map(size);
            (size(s.n), format!("[{}, {}]", ends[0], ends[1]))
        }),
    }
}

/// The accepted range.
pub(super) fn accepted(result: &ClaimResult) -> String {
    match (&result.finding, result.accept) {
        (Finding::Coverage { .. }, _) => "0.95".to_string(),
        (Finding::ChiSquare { ratios, .. }, _) => match worst_ratio(ratios) {
            Some(worst) => interval(worst.interval, 3),
            None => "–".to_string(),
        },
        (Finding::Efficiency { bound, .. }, Some(ends)) => {
            format!("{} {}", decimal(*bound, 3), interval(ends, 3))
        }
        (Finding::Passes(_), Some([median, percentile])) => {
            format!("≤ {}; ≤ {}", stated(median), stated(percentile))
        }
        (Finding::Constant { .. }, Some(ends)) => {
            // 1 ± tolerance carries the rounding of the sum.
            format!("[{}, {}]", tidy(ends[0]), tidy(ends[1]))
        }
        (_, Some(ends)) => stated_interval(ends),
        (_, None) => "–".to_string(),
    }
}

/// The ratio that lies farthest from 1 for its interval.
pub(super) fn worst_ratio(ratios: &[SizeRatio]) -> Option<SizeRatio> {
    let order =
        |a: &&SizeRatio, b: &&SizeRatio| a.deviation().abs().total_cmp(&b.deviation().abs());
    ratios.iter().max_by(order).copied()
}

fn passes(value: f64) -> String {
    match value.is_finite() {
        true => decimal(value, 0),
        false => "∞".to_string(),
    }
}

fn tidy(value: f64) -> String {
    stated((value * 1e9).round() / 1e9)
}

/// "5 hold, 1 fails, 2 undecided" over the claims that are judged.
pub(super) fn verdict_counts(summary: &Summary) -> String {
    let count = |verdict| {
        summary
            .claims
            .iter()
            .filter(|c| c.verdict == verdict)
            .count()
    };
    let parts: Vec<String> = [
        (Verdict::Holds, "holds", "hold"),
        (Verdict::Fails, "fails", "fail"),
        (Verdict::Undecided, "undecided", "undecided"),
        (
            Verdict::Missing,
            "without enough rows",
            "without enough rows",
        ),
    ]
    .into_iter()
    .map(|(verdict, one, many)| (count(verdict), one, many))
    .filter(|(count, ..)| *count > 0)
    .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
    .collect();
    if parts.is_empty() {
        "nothing was claimed".to_string()
    } else {
        parts.join(", ")
    }
}

/// What a failed fit lacks.
pub(super) fn failed(plan: &Plan) -> &'static str {
    match plan.truths.iter().any(|t| t.fit.ends_by_its_own_rule()) {
        true => "failed",
        false => "without a certified maximum",
    }
}

/// How many fits failed and why, also if none did.
pub(super) fn failures(summary: &Summary) -> String {
    let fits = counted(summary.rows, "fit");
    if summary.rows == 0 {
        return "no rows yet".to_string();
    }
    if summary.failures == 0 {
        let [_, high] = wilson(0, summary.rows);
        return format!(
            "none of {fits} (95 % interval of the rate: 0 to {})",
            percent(high)
        );
    }
    let share = summary.failures as f64 / summary.rows as f64;
    let [low, high] = wilson(summary.failures, summary.rows);
    let reasons: Vec<String> = stop_counts(summary)
        .into_iter()
        .filter(|(stop, _)| !stop.starts_with("Converged"))
        .map(|(stop, count)| format!("{stop} {count}"))
        .collect();
    format!(
        "{} of {fits} ({} [{}, {}]): {}",
        summary.failures,
        percent(share),
        percent(low),
        percent(high),
        reasons.join(", ")
    )
}

/// Rows per stop reason over all cells.
pub(super) fn stop_counts(summary: &Summary) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for cell in summary.series.iter().flat_map(|s| &s.cells) {
        for (stop, count) in &cell.stops {
            *counts.entry(stop.clone()).or_insert(0) += count;
        }
    }
    counts.into_iter().collect()
}

/// A sentence if cells have fewer rows than the study asks for or than others.
pub(super) fn incompleteness(plan: &Plan, summary: &Summary) -> Option<String> {
    let rows = || summary.series.iter().flat_map(|s| &s.cells).map(|c| c.rows);
    let (fewest, most) = (rows().min()?, rows().max()?);
    let wanted = (plan.first_replicates() as usize).max(most);
    (fewest < wanted).then(|| {
        format!("The run is incomplete: cells have {fewest} to {most} of {wanted} replicates.")
    })
}

/// The slopes, or their range, that the regressions of the claims find for the
/// curve (log n / n)^(1/2).
pub(super) fn log_corrected_slopes(summary: &Summary) -> Option<String> {
    let slopes: Vec<f64> = summary
        .claims
        .iter()
        .filter_map(|c| match c.finding {
            Finding::Slope { log_corrected, .. } => log_corrected,
            _ => None,
        })
        .collect();
    let low = slopes.iter().copied().reduce(f64::min)?;
    let high = slopes.iter().copied().reduce(f64::max)?;
    let text = |v: f64| decimal(v, 3);
    Some(if text(low) == text(high) {
        text(low)
    } else {
        format!("{} to {}", text(low), text(high))
    })
}

/// A duration.
pub(super) fn seconds(value: f64) -> String {
    if value.is_nan() {
        return decimal(value, 0);
    }
    format!("{} s", rounded(value, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_named_by_its_levels() {
        assert_eq!(series_label("gate=softplus,start=near"), "softplus, near");
        assert_eq!(series_label(""), "all");
    }
}
