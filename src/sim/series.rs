//! From rows to the summary: a pure function of plan and rows.

use super::claim::{Claim, Constant};
use super::column::Loss;
use super::constants::Regularity;
use super::judge::judge;
use super::plan::Plan;
use super::rate::{Sample, SampleSize, sample_size};
use super::row::Row;
use super::statistic::Statistic;
use super::study::Labels;
use super::summary::{
    CellSummary, CoordinateSummary, Estimate, LossSummary, NORMAL, SeriesSummary, Summary, estimate,
};
use crate::num::sum::{mean_and_deviation, quantile};
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;
use std::collections::BTreeMap;

impl Summary {
    /// Summarises `rows`, series by series on all cores: a number depends on its own
    /// series alone.
    pub fn new(plan: &Plan, rows: &[Row]) -> Self {
        let series = series_rows(plan, rows);
        let claims = judge(plan, &series);
        let series: Vec<SeriesSummary> = series.par_iter().map(|s| s.summary(plan)).collect();
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
    series_rows(plan, rows)
        .iter()
        .map(|series| {
            let size = series.sample_size(plan, loss, accuracy, [0.0, f64::INFINITY]);
            (series.name.to_string(), size)
        })
        .collect()
}

/// Every series in plan order; the rows are sorted into cells once for all.
fn series_rows<'a>(plan: &'a Plan, rows: &'a [Row]) -> Vec<SeriesRows<'a>> {
    let mut by_cell: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_cell.entry(&row.cell).or_default().push(row);
    }
    let series = plan.series().into_iter();
    series
        .map(|name| SeriesRows::new(plan, &mut by_cell, name))
        .collect()
}

/// The rows of one series, cell by cell, in replicate order.
pub(super) struct SeriesRows<'a> {
    pub(super) name: &'a str,
    pub(super) truth: usize,
    pub(super) cells: Vec<(u64, Vec<&'a Row>)>,
}

impl<'a> SeriesRows<'a> {
    /// Takes the rows of the series' cells out of `by_cell`.
    fn new(plan: &'a Plan, by_cell: &mut BTreeMap<&str, Vec<&'a Row>>, name: &'a str) -> Self {
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

    pub(super) fn stream(&self, plan: &Plan, what: &str) -> Stream {
        let name = format!("{}/{what}", self.name);
        Stream::named(plan.study.seed, &name, 0, Purpose::Bootstrap)
    }

    /// Losses of counted fits with n in `window`; `keep` filters replicates.
    pub(super) fn samples(
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
                    .filter(|r| r.counts(&plan.study) && keep(r.replicate))
                    .map(|r| r.loss(&plan.study, loss))
                    .filter(|v| v.is_finite())
                    .collect(),
            })
            .collect()
    }

    pub(super) fn sample_size(
        &self,
        plan: &Plan,
        loss: Loss,
        accuracy: f64,
        window: [f64; 2],
    ) -> Option<SampleSize> {
        let samples = self.samples(plan, loss, window, |_| true);
        sample_size(&samples, accuracy, &self.stream(plan, &loss.to_string()))
    }

    /// The counted rows' values of the statistic whose limit is chi^2_P, over P.
    pub(super) fn constant_values(
        &self,
        plan: &Plan,
        constant: Constant,
        rows: &[&Row],
    ) -> Vec<f64> {
        let truth = &plan.truths[self.truth];
        if !truth.is_exact() {
            return Vec::new();
        }
        let parameters = truth.regularity.parameters as f64;
        let value = |row: &&Row| match constant {
            // The density of an oracle is closer than its own information says.
            Constant::HellingerSq if truth.fit.labels == Labels::Known => f64::NAN,
            Constant::HellingerSq => {
                let loss = row.loss(&plan.study, Loss::HellingerSqMean);
                8.0 * row.n as f64 * loss / parameters
            }
            Constant::LikelihoodRatio => row.likelihood_ratio() / parameters,
            Constant::Information => row.information_distance / parameters,
            Constant::Coordinates => scaled_error(&truth.regularity, &truth.regularity, row),
        };
        rows.iter()
            .filter(|r| r.counts(&plan.study))
            .map(value)
            .filter(|v| v.is_finite())
            .collect()
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
        let counted: Vec<&Row> = rows
            .iter()
            .copied()
            .filter(|r| r.counts(&plan.study))
            .collect();
        let mut stops = BTreeMap::new();
        for row in rows {
            *stops.entry(row.stop.clone()).or_insert(0) += 1;
        }
        let losses = plan
            .study
            .losses
            .iter()
            .filter_map(|&loss| {
                let mut values: Vec<f64> = counted
                    .iter()
                    .map(|r| r.loss(&plan.study, loss))
                    .filter(|v| v.is_finite())
                    .collect();
                let mean = estimate(&values)?;
                values.sort_by(f64::total_cmp);
                let claimed = claimed_statistics(plan, loss).into_iter();
                Some(LossSummary {
                    loss,
                    mean,
                    statistics: claimed
                        .filter_map(|s| Some((s, statistic_estimate(s, &values)?)))
                        .collect(),
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
            counted: counted.len(),
            stops,
            on_bound: certified.iter().filter(|r| !r.on_bound.is_empty()).count(),
            below_truth: certified
                .iter()
                .filter(|r| r.likelihood_ratio() < -1e-6)
                .count(),
            losses,
            constants: Constant::ALL
                .into_iter()
                .filter_map(|c| Some((c, estimate(&self.constant_values(plan, c, rows))?)))
                .collect(),
            coordinates: self.coordinates(plan, n, &counted),
            seconds: mean_of(|r| r.seconds),
            passes: mean_of(|r| r.passes),
        }
    }

    /// Bias, error and coverage of every free coordinate, where the rows hold the
    /// parameters of an exactly specified fit.
    fn coordinates(&self, plan: &Plan, n: u64, counted: &[&Row]) -> Vec<CoordinateSummary> {
        let truth = &plan.truths[self.truth];
        if !truth.is_exact() || !plan.study.record_parameters {
            return Vec::new();
        }
        let packed = truth.regularity.packed();
        // A distilled router has coordinates of its own.
        let own = counted
            .iter()
            .filter(|r| r.parameters.len() == packed.len());
        let own: Vec<&Row> = own.copied().collect();
        let summary = |j: usize| {
            let errors = own.iter().map(|r| r.parameters[j] - packed[j]);
            let errors: Vec<f64> = errors.collect();
            let bound = truth.regularity.bounds()[j];
            let squares: Vec<f64> = errors.iter().map(|e| n as f64 * e * e / bound).collect();
            let covers = own.iter().filter_map(|r| covered(r, &packed, j));
            let covers: Vec<bool> = covers.collect();
            Some(CoordinateSummary {
                coordinate: truth.regularity.coordinates()[j],
                bias: estimate(&errors)?,
                scaled_mse: estimate(&squares)?,
                covered: covers.iter().filter(|c| **c).count(),
                intervals: covers.len(),
            })
        };
        truth
            .regularity
            .free()
            .iter()
            .filter_map(|&j| summary(j))
            .collect()
    }
}

/// Whether the 95 % interval of coordinate j holds the truth; `None` where the row
/// has no standard errors. A missing one covers nothing.
pub(super) fn covered(row: &Row, truth: &[f64], j: usize) -> Option<bool> {
    let error = row.standard_errors.as_ref()?.get(j)?;
    let deviation = (row.parameters.get(j)? - truth[j]).abs();
    Some(deviation <= NORMAL * error)
}

/// Mean over the experts' coordinates of n (fit - truth)^2 / bound, errors from
/// `own` and bounds from `reference`; NaN without parameters.
pub(super) fn scaled_error(own: &Regularity, reference: &Regularity, row: &Row) -> f64 {
    let truth = own.packed();
    if row.parameters.len() != truth.len() {
        return f64::NAN;
    }
    let terms: Vec<f64> = own
        .expert_coordinates()
        .map(|j| row.n as f64 * (row.parameters[j] - truth[j]).powi(2) / reference.bounds()[j])
        .collect();
    mean_and_deviation(&terms).0
}

/// The statistics besides the mean that claims name for a loss.
fn claimed_statistics(plan: &Plan, wanted: Loss) -> Vec<Statistic> {
    let mut statistics = Vec::new();
    for claim in &plan.study.claim {
        if let Claim::Slope {
            loss, statistic, ..
        } = claim
            && *loss == wanted
            && !statistic.is_mean()
            && !statistics.contains(statistic)
        {
            statistics.push(*statistic);
        }
    }
    statistics
}

/// A statistic with its 95 % interval, from the standard error of its logarithm.
fn statistic_estimate(statistic: Statistic, values: &[f64]) -> Option<Estimate> {
    let log = statistic.log_value(values)?;
    let value = log.value.exp();
    let end = |sign: f64| (log.value + sign * NORMAL * log.error).exp();
    Some(Estimate {
        value,
        error: value * log.error,
        interval: [end(-1.0), end(1.0)],
    })
}
