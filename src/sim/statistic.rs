//! What of a loss over replicates is set against n: its mean, or a quantile or
//! moment where the mean hides two regimes.

use crate::num::sum::{mean_and_deviation, quantile};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A statistic of the losses of one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Statistic {
    /// The average.
    #[default]
    Mean,
    /// The quantile at so many per cent, written `q80`; `q50` is the median.
    Quantile(u8),
    /// (average of loss^r)^(1/r), written `moment4`.
    Moment(u8),
}

/// A positive statistic on the logarithmic scale, with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogValue {
    /// The natural logarithm of the statistic.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
}

impl Statistic {
    /// True for what a study takes unless it says otherwise.
    pub fn is_mean(&self) -> bool {
        *self == Statistic::Mean
    }

    /// The statistic and its error; `None` where the logarithm or its error is
    /// undefined.
    ///
    /// Mean and moment: delta method. Quantile p: half the logarithmic distance of
    /// the quantiles at p +- sqrt(p (1 - p) / R), one binomial standard error of
    /// the rank each.
    pub fn log_value(self, losses: &[f64]) -> Option<LogValue> {
        let count = losses.len() as f64;
        let of_power = |values: &[f64], power: f64| {
            let (mean, deviation) = mean_and_deviation(values);
            LogValue {
                value: mean.ln() / power,
                error: deviation / (mean * count.sqrt() * power),
            }
        };
        let found = match self {
            Statistic::Mean => of_power(losses, 1.0),
            Statistic::Moment(power) => {
                let raised: Vec<f64> = losses.iter().map(|v| v.powi(power.into())).collect();
                of_power(&raised, power.into())
            }
            Statistic::Quantile(percent) => {
                let mut sorted = losses.to_vec();
                sorted.sort_by(f64::total_cmp);
                if sorted.is_empty() {
                    return None;
                }
                let p = 0.01 * f64::from(percent);
                let reach = (p * (1.0 - p) / count).sqrt();
                let at = |p: f64| quantile(&sorted, p.clamp(0.0, 1.0)).ln();
                LogValue {
                    value: at(p),
                    error: 0.5 * (at(p + reach) - at(p - reach)),
                }
            }
        };
        let usable = found.value.is_finite() && found.error > 0.0 && found.error.is_finite();
        usable.then_some(found)
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Statistic::Mean => f.write_str("mean"),
            Statistic::Quantile(percent) => write!(f, "q{percent}"),
            Statistic::Moment(power) => write!(f, "moment{power}"),
        }
    }
}

impl From<Statistic> for String {
    fn from(statistic: Statistic) -> String {
        statistic.to_string()
    }
}

impl TryFrom<String> for Statistic {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |prefix: &str, range: std::ops::RangeInclusive<u8>| {
            let digits = text.strip_prefix(prefix)?;
            digits.parse().ok().filter(|v| range.contains(v))
        };
        let quantile = || number("q", 1..=99).map(Statistic::Quantile);
        let moment = || number("moment", 2..=12).map(Statistic::Moment);
        match text.as_str() {
            "mean" => Some(Statistic::Mean),
            "median" => Some(Statistic::Quantile(50)),
            _ => quantile().or_else(moment),
        }
        .ok_or_else(|| {
            format!("\"{text}\" is no statistic: mean, median, q1 to q99 or moment2 to moment12")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_refused() {
        for statistic in [
            Statistic::Mean,
            Statistic::Quantile(80),
            Statistic::Moment(4),
        ] {
            let text = statistic.to_string();
            assert_eq!(Statistic::try_from(text), Ok(statistic));
        }
        assert_eq!(
            Statistic::try_from("median".to_string()),
            Ok(Statistic::Quantile(50))
        );
        for bad in ["q0", "q100", "moment1", "moment", "80"] {
            assert!(Statistic::try_from(bad.to_string()).is_err());
        }
    }

    #[test]
    fn a_power_law_has_the_same_logarithm_in_every_statistic() {
        let losses: Vec<f64> = (1..=1001).map(|k| f64::from(k) / 1001.0).collect();
        let value = |statistic: Statistic| statistic.log_value(&losses).unwrap().value.exp();
        assert!((value(Statistic::Mean) - 0.5).abs() < 1e-3);
        assert!((value(Statistic::Quantile(80)) - 0.8).abs() < 1e-3);
        assert!((value(Statistic::Moment(4)) - 0.2f64.powf(0.25)).abs() < 1e-3);
    }

    /// The error of the quantile of R uniform numbers is sqrt(p (1 - p) / R) / p on
    /// the logarithmic scale.
    #[test]
    fn the_error_of_a_quantile_is_that_of_its_rank() {
        let losses: Vec<f64> = (0..10_000).map(|k| (f64::from(k) + 0.5) / 1e4).collect();
        let found = Statistic::Quantile(80).log_value(&losses).unwrap();
        let expected = (0.16f64 / 1e4).sqrt() / 0.8;
        assert!((found.error / expected - 1.0).abs() < 1e-2, "{found:?}");
    }
}
