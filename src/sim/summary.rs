//! Rows to numbers and verdicts. A pure function of plan and rows.

use super::plan::Plan;
use super::rate::{Rate, Sample, SampleSize, local_slope, rate, sample_size};
use super::row::Row;
use super::study::{Claim, Constant, Curve, Loss};
use crate::num::sum::{mean_and_deviation, quantile};
use crate::rng::{Purpose, Stream};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};
use std::collections::BTreeMap;

/// An estimate with its standard error and 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its Monte-Carlo standard error.
    pub error: f64,
    /// Ends of its 95 % interval.
    pub interval: [f64; 2],
}

/// One loss at one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSummary {
    /// Which.
    pub loss: Loss,
    /// Mean over certified fits.
    pub mean: Estimate,
    /// Median over certified fits.
    pub median: f64,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct CellSummary {
    /// Sample size.
    pub n: u64,
    /// Rows.
    pub rows: usize,
    /// Rows whose fit is not certified; their losses are in no mean.
    pub failures: usize,
    /// Rows per stop reason.
    pub stops: BTreeMap<String, usize>,
    /// Certified fits on the boundary of the parameter set.
    pub on_bound: usize,
    /// Certified fits with a smaller likelihood than the truth: local optima.
    pub below_truth: usize,
    /// In the order of the study.
    pub losses: Vec<LossSummary>,
    /// Each constant as a ratio to its limit.
    pub constants: Vec<(Constant, Estimate)>,
    /// Mean seconds of a replicate.
    pub seconds: f64,
    /// Mean passes over the sample.
    pub passes: f64,
}

/// The cells of one combination of factors besides n.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesSummary {
    /// The combination; empty if n is the only factor.
    pub name: String,
    /// Number of free parameters P.
    pub parameters: usize,
    /// In ascending n.
    pub cells: Vec<CellSummary>,
}

/// What the rows say about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval lies in the accepted range.
    Holds,
    /// The whole interval lies outside it.
    Fails,
    /// The interval straddles its end: more replicates are needed.
    Undecided,
    /// Nothing was claimed: a measurement.
    Measured,
    /// There are not enough rows to say anything.
    Missing,
}

impl Verdict {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Fails => "fails",
            Verdict::Undecided => "undecided",
            Verdict::Measured => "measured",
            Verdict::Missing => "no rows",
        }
    }

    fn of(interval: [f64; 2], accept: [f64; 2]) -> Self {
        if !interval.iter().all(|v| v.is_finite()) {
            Verdict::Missing
        } else if accept[0] <= interval[0] && interval[1] <= accept[1] {
            Verdict::Holds
        } else if interval[1] < accept[0] || accept[1] < interval[0] {
            Verdict::Fails
        } else {
            Verdict::Undecided
        }
    }
}

/// What was found for a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// A slope, with the local slope of (log n / n)^(1/2) on the same window.
    Slope {
        /// The loss.
        loss: Loss,
        /// The claimed curve.
        curve: Curve,
        /// Line and interval.
        rate: Option<Rate>,
        /// Slope that a log-corrected rate would show here.
        log_corrected: Option<f64>,
        /// The regression window.
        window: [f64; 2],
    },
    /// A constant at the largest n.
    Constant {
        /// Which.
        constant: Constant,
        /// Ratio to its limit.
        estimate: Option<Estimate>,
        /// The largest n.
        n: u64,
    },
    /// Coverage of the slope's interval.
    Coverage {
        /// Groups whose interval covers.
        covered: u64,
        /// Groups.
        groups: u64,
    },
    /// A sample size.
    SampleSize {
        /// The loss.
        loss: Loss,
        /// The accuracy wanted.
        accuracy: f64,
        /// n and its interval.
        size: Option<SampleSize>,
    },
}

/// A claim about one series, with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimResult {
    /// The series.
    pub series: String,
    /// The theorem, where one is named.
    pub theorem: String,
    /// What was found.
    pub finding: Finding,
    /// The accepted range, where there is one.
    pub accept: Option<[f64; 2]>,
    /// The verdict.
    pub verdict: Verdict,
}

/// All that a report needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// In plan order.
    pub series: Vec<SeriesSummary>,
    /// Claim by claim, series by series.
    pub claims: Vec<ClaimResult>,
    /// Rows in all.
    pub rows: usize,
    /// Rows without a certified fit.
    pub failures: usize,
}

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
        Summary {
            series: series.iter().map(|s| s.summary(plan)).collect(),
            claims,
            rows: rows.len(),
            failures: rows.iter().filter(|r| !r.converged).count(),
        }
    }

    /// True if no claim failed.
    pub fn holds(&self) -> bool {
        self.claims.iter().all(|c| c.verdict != Verdict::Fails)
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

    /// Mean over certified rows of the statistic whose limit is chi^2_P, over P.
    fn constant(&self, plan: &Plan, constant: Constant, rows: &[&Row]) -> Option<Estimate> {
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
            parameters: plan.truths[self.truth].regularity.parameters,
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
        (Finding::SampleSize { size: Some(_), .. }, _) => Verdict::Measured,
        _ => Verdict::Missing,
    }
}

/// Twice the smaller tail of Binomial(groups, 0.95) at `covered`.
pub fn coverage_p_value(covered: u64, groups: u64) -> f64 {
    let law = Binomial::new(0.95, groups).expect("a probability and a count");
    let below = law.cdf(covered);
    let above = 1.0
        - if covered == 0 {
            0.0
        } else {
            law.cdf(covered - 1)
        };
    (2.0 * below.min(above)).min(1.0)
}

/// Mean with standard error and Student's 95 % interval; `None` for fewer than
/// two values.
fn estimate(values: &[f64]) -> Option<Estimate> {
    if values.len() < 2 {
        return None;
    }
    let (value, deviation) = mean_and_deviation(values);
    let count = values.len() as f64;
    let error = deviation / count.sqrt();
    let law = StudentsT::new(0.0, 1.0, count - 1.0).expect("at least one degree of freedom");
    let reach = law.inverse_cdf(0.975) * error;
    Some(Estimate {
        value,
        error,
        interval: [value - reach, value + reach],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_the_whole_interval() {
        let accept = [-0.52, -0.48];
        assert_eq!(Verdict::of([-0.51, -0.49], accept), Verdict::Holds);
        assert_eq!(Verdict::of([-0.53, -0.50], accept), Verdict::Undecided);
        assert_eq!(Verdict::of([-0.47, -0.40], accept), Verdict::Fails);
        assert_eq!(Verdict::of([f64::NAN, -0.4], accept), Verdict::Missing);
    }

    #[test]
    fn coverage_is_judged_by_its_binomial_law() {
        assert!(coverage_p_value(380, 400) > 0.9);
        assert!(coverage_p_value(360, 400) < 0.001);
        assert!(coverage_p_value(400, 400) < 0.001);
    }

    #[test]
    fn an_estimate_has_students_interval() {
        let e = estimate(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(e.value, 2.0);
        assert!((e.interval[1] - 2.0 - 4.302_652_73 / 3f64.sqrt()).abs() < 1e-6);
        assert!(estimate(&[1.0]).is_none());
    }
}
