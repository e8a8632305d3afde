//! From rows to the summary: a pure function of plan and rows.

use super::claim::{Claim, Constant, Curve};
use super::column::Loss;
use super::plan::Plan;
use super::rate::{Sample, SampleSize, local_slope, rate, sample_size};
use super::row::Row;
use super::summary::{
    CellSummary, ClaimResult, Estimate, Finding, LossSummary, PassQuantiles, SeriesSummary,
    Summary, Verdict, coverage_p_value, estimate, wilson_interval,
};
use crate::num::sum::{mean_and_deviation, quantile};
use crate::rng::{Purpose, Stream};
use std::collections::BTreeMap;

impl Summary {
    /// Summarises `rows`.
    pub fn new(plan: &Plan, rows: &[Row]) -> Self {
        let series: Vec<SeriesRows> = plan
            .series()
            .into_iter()
            .map(|name| SeriesRows::new(plan, rows, name))
            .collect();
        let claims = plan
            .study
            .claim
            .iter()
            .flat_map(|claim| series.iter().map(move |s| s.judge(plan, claim)))
            .collect();
        let series: Vec<SeriesSummary> = series.iter().map(|s| s.summary(plan)).collect();
        let cells = || series.iter().flat_map(|s| &s.cells);
        Summary {
            rows: cells().map(|c| c.rows).sum(),
            failures: cells().map(|c| c.failures).sum(),
            claims,
            series,
        }
    }
}

/// The sample size for a mean loss of `accuracy`, one per series, over all n.
pub fn sample_sizes(
    plan: &Plan,
    rows: &[Row],
    loss: Loss,
    accuracy: f64,
) -> Vec<(String, Option<SampleSize>)> {
    plan.series()
        .into_iter()
        .map(|name| {
            let series = SeriesRows::new(plan, rows, name);
            let size = series.sample_size(plan, loss, accuracy, [0.0, f64::INFINITY]);
            (name.to_string(), size)
        })
        .collect()
}

/// The rows of one series, cell by cell, in replicate order.
struct SeriesRows<'a> {
    name: &'a str,
    truth: usize,
    cells: Vec<(u64, Vec<&'a Row>)>,
}

impl<'a> SeriesRows<'a> {
    fn new(plan: &'a Plan, rows: &'a [Row], name: &'a str) -> Self {
        let mut by_cell: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            by_cell.entry(&row.cell).or_default().push(row);
        }
        let mut truth = 0;
        let mut cells = Vec::new();
        for cell in plan.cells.iter().filter(|c| c.series == name) {
            truth = cell.truth;
            let mut rows = by_cell.remove(cell.name.as_str()).unwrap_or_default();
            rows.sort_by_key(|r| r.replicate);
            cells.push((cell.n, rows));
        }
        cells.sort_by_key(|(n, _)| *n);
        SeriesRows { name, truth, cells }
    }

    fn stream(&self, plan: &Plan, what: &str) -> Stream {
        let name = format!("{}/{what}", self.name);
        Stream::named(plan.study.seed, &name, 0, Purpose::Bootstrap)
    }

    /// Losses of certified fits with n in `window`; `keep` filters replicates.
    fn samples(
        &self,
        plan: &Plan,
        loss: Loss,
        window: [f64; 2],
        keep: impl Fn(u64) -> bool,
    ) -> Vec<Sample> {
        self.cells
            .iter()
            .map(|(n, rows)| (*n as f64, rows))
            .filter(|(n, _)| (window[0]..=window[1]).contains(n))
            .map(|(n, rows)| Sample {
                n,
                losses: rows
                    .iter()
                    .filter(|r| r.converged && keep(r.replicate))
                    .map(|r| r.loss(&plan.study, loss))
                    .filter(|v| v.is_finite())
                    .collect(),
            })
            .collect()
    }

    fn sample_size(
        &self,
        plan: &Plan,
        loss: Loss,
        accuracy: f64,
        window: [f64; 2],
    ) -> Option<SampleSize> {
        let samples = self.samples(plan, loss, window, |_| true);
        sample_size(&samples, accuracy, &self.stream(plan, loss.name()))
    }

    fn judge(&self, plan: &Plan, claim: &Claim) -> ClaimResult {
        let (theorem, finding, accept) = match claim {
            Claim::Slope {
                theorem,
                loss,
                curve,
                window,
                accept,
            } => {
                let samples = self.samples(plan, *loss, *window, |_| true);
                let finding = Finding::Slope {
                    loss: *loss,
                    curve: *curve,
                    rate: rate(&samples, &self.stream(plan, loss.name())),
                    log_corrected: local_slope(&samples, |n| Curve::LogParametric.at(n)),
                    window: *window,
                };
                (theorem.clone(), finding, Some(*accept))
            }
            Claim::Constant {
                theorem,
                constant,
                tolerance,
            } => {
                let (n, rows) = self.cells.last().expect("a series has cells");
                let finding = Finding::Constant {
                    constant: *constant,
                    estimate: self.constant(plan, *constant, rows),
                    n: *n,
                };
                let accept = [1.0 - tolerance, 1.0 + tolerance];
                (theorem.clone(), finding, Some(accept))
            }
            Claim::Coverage { loss, slope, group } => {
                let (covered, groups) = self.coverage(plan, *loss, *slope, *group);
                let finding = Finding::Coverage { covered, groups };
                (String::new(), finding, Some([0.95, 0.95]))
            }
            Claim::Passes {
                median,
                percentile_99,
            } => {
                let finding = Finding::Passes(self.passes(*median, *percentile_99));
                (String::new(), finding, Some([*median, *percentile_99]))
            }
            Claim::SampleSize {
                loss,
                accuracy,
                window,
            } => {
                let finding = Finding::SampleSize {
                    loss: *loss,
                    accuracy: *accuracy,
                    size: self.sample_size(plan, *loss, *accuracy, *window),
                };
                (String::new(), finding, None)
            }
        };
        let verdict = verdict(&finding, accept);
        ClaimResult {
            series: self.name.to_string(),
            theorem,
            finding,
            accept,
            verdict,
        }
    }

    /// How many disjoint groups of replicates give an interval that covers.
    fn coverage(&self, plan: &Plan, loss: Loss, slope: f64, group: u64) -> (u64, u64) {
        let smallest = self.cells.iter().map(|(_, rows)| rows.len() as u64).min();
        let groups = smallest.unwrap_or(0) / group;
        let covered = (0..groups)
            .filter(|g| {
                let window = [0.0, f64::INFINITY];
                let inside = |r: u64| r / group == *g;
                let samples = self.samples(plan, loss, window, inside);
                let stream = self.stream(plan, &format!("group {g}"));
                rate(&samples, &stream)
                    .is_some_and(|r| r.interval[0] <= slope && slope <= r.interval[1])
            })
            .count();
        (covered as u64, groups)
    }

    /// The passes of all fits from one start each.
    fn passes(&self, median: f64, percentile_99: f64) -> Option<PassQuantiles> {
        let rows = self.cells.iter().flat_map(|(_, rows)| rows);
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

    /// Mean over certified rows of the statistic whose limit is chi^2_P, over P.
    fn constant(&self, plan: &Plan, constant: Constant, rows: &[&Row]) -> Option<Estimate> {
        if !plan.truths[self.truth].is_exact() {
            return None;
        }
        let parameters = plan.truths[self.truth].regularity.parameters as f64;
        let value = |row: &&Row| match constant {
            Constant::HellingerSq => {
                8.0 * row.n as f64 * row.loss(&plan.study, Loss::HellingerSqMean)
            }
            Constant::LikelihoodRatio => row.likelihood_ratio(),
            Constant::Information => row.information_distance,
        };
        let values: Vec<f64> = rows
            .iter()
            .filter(|r| r.converged)
            .map(|r| value(r) / parameters)
            .filter(|v| v.is_finite())
            .collect();
        estimate(&values)
    }

    fn summary(&self, plan: &Plan) -> SeriesSummary {
        let cells = self
            .cells
            .iter()
            .map(|(n, rows)| self.cell_summary(plan, *n, rows))
            .collect();
        SeriesSummary {
            name: self.name.to_string(),
            parameters: plan.truths[self.truth].bounds.dimension(),
            cells,
        }
    }

    fn cell_summary(&self, plan: &Plan, n: u64, rows: &[&Row]) -> CellSummary {
        let certified: Vec<&&Row> = rows.iter().filter(|r| r.converged).collect();
        let mut stops = BTreeMap::new();
        for row in rows {
            *stops.entry(row.stop.clone()).or_insert(0) += 1;
        }
        let losses = plan
            .study
            .losses
            .iter()
            .filter_map(|&loss| {
                let mut values: Vec<f64> = certified
                    .iter()
                    .map(|r| r.loss(&plan.study, loss))
                    .filter(|v| v.is_finite())
                    .collect();
                let mean = estimate(&values)?;
                values.sort_by(f64::total_cmp);
                Some(LossSummary {
                    loss,
                    mean,
                    median: quantile(&values, 0.5),
                })
            })
            .collect();
        let mean_of = |f: fn(&Row) -> f64| {
            let values: Vec<f64> = rows.iter().map(|r| f(r)).collect();
            mean_and_deviation(&values).0
        };
        CellSummary {
            n,
            rows: rows.len(),
            failures: rows.len() - certified.len(),
            stops,
            on_bound: certified.iter().filter(|r| !r.on_bound.is_empty()).count(),
            below_truth: certified
                .iter()
                .filter(|r| r.likelihood_ratio() < -1e-6)
                .count(),
            losses,
            constants: Constant::ALL
                .into_iter()
                .filter_map(|c| Some((c, self.constant(plan, c, rows)?)))
                .collect(),
            seconds: mean_of(|r| r.seconds),
            passes: mean_of(|r| r.passes),
        }
    }
}

fn verdict(finding: &Finding, accept: Option<[f64; 2]>) -> Verdict {
    match (finding, accept) {
        (Finding::Slope { rate: Some(r), .. }, Some(accept)) => Verdict::of(r.interval, accept),
        (
            Finding::Constant {
                estimate: Some(e), ..
            },
            Some(accept),
        ) => Verdict::of(e.interval, accept),
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
