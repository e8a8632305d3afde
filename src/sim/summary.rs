//! What a report is made of: numbers with their errors, findings, verdicts.

use super::claim::{Constant, Curve};
use super::column::Loss;
use super::rate::{Rate, SampleSize};
use super::statistic::Statistic;
use crate::model::Coordinate;
use crate::num::sum::mean_and_deviation;
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
    /// Mean over counted fits.
    pub mean: Estimate,
    /// Median over counted fits.
    pub median: f64,
    /// Other statistics that claims name.
    pub statistics: Vec<(Statistic, Estimate)>,
}

impl LossSummary {
    /// The estimate of a statistic, where there is one.
    pub fn of(&self, statistic: Statistic) -> Option<Estimate> {
        if statistic.is_mean() {
            return Some(self.mean);
        }
        let found = self.statistics.iter().find(|(s, _)| *s == statistic);
        found.map(|(_, estimate)| *estimate)
    }
}

/// One coordinate of the parameters at one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct CoordinateSummary {
    /// Which.
    pub coordinate: Coordinate,
    /// Mean of fit minus truth.
    pub bias: Estimate,
    /// Mean of n (fit - truth)^2 over its Cramer-Rao bound.
    pub scaled_mse: Estimate,
    /// 95 % intervals that cover the truth.
    pub covered: usize,
    /// 95 % intervals; 0 if rows hold no standard errors.
    pub intervals: usize,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct CellSummary {
    /// Sample size.
    pub n: u64,
    /// Rows.
    pub rows: usize,
    /// Rows whose fit is not certified.
    pub failures: usize,
    /// Rows whose losses are in the means.
    pub counted: usize,
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
    /// The free coordinates of an exactly specified fit; empty if rows do not hold
    /// parameters.
    pub coordinates: Vec<CoordinateSummary>,
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

    pub(super) fn of(interval: [f64; 2], accept: [f64; 2]) -> Self {
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
        /// What of it.
        statistic: Statistic,
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
    /// A mean loss at the largest n.
    Level {
        /// The loss.
        loss: Loss,
        /// Its mean.
        estimate: Option<Estimate>,
        /// The largest n.
        n: u64,
    },
    /// Constants against the law of their limit.
    ChiSquare {
        /// Which.
        constant: Constant,
        /// Probability of each interval.
        confidence: f64,
        /// In ascending n.
        ratios: Vec<SizeRatio>,
    },
    /// Coverage of the intervals from the observed information.
    Intervals {
        /// Mean share of coordinates covered.
        coverage: Option<Estimate>,
        /// Smallest n.
        from: f64,
    },
    /// A ratio of mean squared errors.
    Efficiency {
        /// The ratio.
        estimate: Option<Estimate>,
        /// The ratio of the Cramer-Rao bounds.
        bound: f64,
    },
    /// Coverage of the slope's interval.
    Coverage {
        /// Groups whose interval covers.
        covered: u64,
        /// Groups.
        groups: u64,
    },
    /// The work of the fits from one start each.
    Passes(Option<PassQuantiles>),
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

/// The mean ratio of a constant to its limit at one n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeRatio {
    /// Sample size.
    pub n: u64,
    /// The mean.
    pub ratio: f64,
    /// Where it should lie.
    pub interval: [f64; 2],
}

impl SizeRatio {
    /// True if it lies where it should.
    pub fn is_inside(&self) -> bool {
        (self.interval[0]..=self.interval[1]).contains(&self.ratio)
    }

    /// Distance from 1 in half-widths of the interval.
    pub fn deviation(&self) -> f64 {
        (self.ratio - 1.0) / (self.interval[1] - 1.0)
    }
}

/// How many passes fits took, and how many kept to the limits of a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassQuantiles {
    /// Fits.
    pub fits: usize,
    /// Fits without certificate; they count as endless.
    pub uncertified: usize,
    /// Median of the passes.
    pub median: f64,
    /// Their 99th percentile.
    pub percentile_99: f64,
    /// Fits within the limit on the median.
    pub within_median: usize,
    /// Fits within the limit on the percentile.
    pub within_percentile: usize,
}

/// A claim about one series, with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimResult {
    /// The claim, by its place in the study.
    pub claim: usize,
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
    /// Whether a failure is on record, and so no news.
    pub known_to_fail: bool,
}

impl ClaimResult {
    /// True if the claim failed and was not known to.
    pub fn is_news(&self) -> bool {
        self.verdict == Verdict::Fails && !self.known_to_fail
    }
}

/// All that a report needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// In plan order.
    pub series: Vec<SeriesSummary>,
    /// Claim by claim, series by series.
    pub claims: Vec<ClaimResult>,
    /// Rows of the study's cells.
    pub rows: usize,
    /// Rows without a certified fit.
    pub failures: usize,
}

impl Summary {
    /// True if no claim lacks rows or failed, but for failures on record.
    pub fn holds(&self) -> bool {
        let bad = |c: &ClaimResult| c.is_news() || c.verdict == Verdict::Missing;
        !self.claims.iter().any(bad)
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

/// 97.5 % quantile of the standard normal law.
pub(super) const NORMAL: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a probability (Wilson 1927): it stays sensible
/// where no failure, or nothing but failures, was seen. NaN without trials.
pub fn wilson_interval(hits: usize, trials: usize) -> [f64; 2] {
    let (count, z2) = (trials as f64, NORMAL * NORMAL);
    let share = hits as f64 / count;
    let centre = (share + 0.5 * z2 / count) / (1.0 + z2 / count);
    let reach = NORMAL / (1.0 + z2 / count)
        * (share * (1.0 - share) / count + 0.25 * z2 / (count * count)).sqrt();
    let low = if hits == 0 { 0.0 } else { centre - reach };
    let high = if hits == trials { 1.0 } else { centre + reach };
    if trials == 0 {
        [f64::NAN, f64::NAN]
    } else {
        [low, high]
    }
}

/// Mean with standard error and Student's 95 % interval; `None` for fewer than
/// two values.
pub(super) fn estimate(values: &[f64]) -> Option<Estimate> {
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
    fn wilsons_interval_is_right_at_none_and_some() {
        // Exact: the roots of (p - share)^2 = z^2 p (1 - p) / n.
        let [low, high] = wilson_interval(0, 240);
        assert_eq!(low, 0.0);
        assert!((high - 0.015_754).abs() < 1e-5, "{high}");
        let [low, high] = wilson_interval(10, 100);
        assert!((low - 0.055_229).abs() < 1e-5 && (high - 0.174_366).abs() < 1e-5);
        assert!(wilson_interval(0, 0)[0].is_nan());
    }

    #[test]
    fn an_estimate_has_students_interval() {
        let e = estimate(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(e.value, 2.0);
        assert!((e.interval[1] - 2.0 - 4.302_652_73 / 3f64.sqrt()).abs() < 1e-6);
        assert!(estimate(&[1.0]).is_none());
    }
}
