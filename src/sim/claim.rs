//! What a study claims, fixed before it runs.

use super::column::Loss;
use super::statistic::Statistic;
use serde::{Deserialize, Serialize};

/// A statement that the rows decide.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Claim {
    /// log E(loss) is linear in log n with a slope in the accepted range.
    Slope {
        /// The theorem, for the table.
        theorem: String,
        /// The loss.
        loss: Loss,
        /// What of the loss; its mean unless stated.
        #[serde(default, skip_serializing_if = "Statistic::is_mean")]
        statistic: Statistic,
        /// Judged for series whose name contains this; all if absent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        series: String,
        /// The curve claimed, drawn in the plot.
        curve: Curve,
        /// Smallest and largest n of the regression.
        window: [f64; 2],
        /// Parts of the names of series whose rows refute the claim: it stays, says
        /// so, and is no news. Not part of the design.
        #[serde(default, skip_serializing)]
        known_failures: Vec<String>,
        /// Accepted slopes.
        accept: [f64; 2],
    },
    /// The loss at the largest n lies in the accepted range: what remains where a
    /// loss does not fall.
    Level {
        /// The theorem, for the table.
        theorem: String,
        /// The loss.
        loss: Loss,
        /// Judged for series whose name contains this; all if absent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        series: String,
        /// Accepted means.
        accept: [f64; 2],
    },
    /// The same constants against the law of their limit: at every n of at least
    /// `from`, the mean over R fits lies in the interval that holds the mean of R
    /// chi^2_P / P variables with probability `confidence`.
    ChiSquare {
        /// The theorem, for the table.
        theorem: String,
        /// Which constant.
        constant: Constant,
        /// Judged for series whose name contains this; all if absent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        series: String,
        /// Smallest n.
        from: f64,
        /// Probability of the interval, such as 0.99.
        confidence: f64,
    },
    /// 95 % intervals from the observed information cover the true parameters:
    /// the mean coverage over all coordinates and over n of at least `from`.
    Intervals {
        /// The theorem, for the table.
        theorem: String,
        /// Judged for series whose name contains this; all if absent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        series: String,
        /// Smallest n.
        from: f64,
        /// Accepted coverage.
        accept: [f64; 2],
    },
    /// The ratio of two estimators' mean squared errors on the same data, averaged
    /// over the experts' coordinates, against the ratio of their bounds.
    Efficiency {
        /// The theorem, for the table.
        theorem: String,
        /// Judged for series whose name contains this; all if absent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        series: String,
        /// Level of `grid.fit` in the numerator.
        of: String,
        /// Level of `grid.fit` in the denominator.
        reference: String,
        /// Smallest n.
        from: f64,
        /// Accepted relative deviation from the ratio of the bounds.
        tolerance: f64,
    },
    /// A limit constant at the largest n, as a ratio to its theoretical value.
    Constant {
        /// The theorem, for the table.
        theorem: String,
        /// Which constant.
        constant: Constant,
        /// Accepted relative deviation from 1.
        tolerance: f64,
    },
    /// The slope's 95 % interval, computed from groups of replicates, covers the
    /// true slope about 95 % of the time.
    Coverage {
        /// The loss.
        loss: Loss,
        /// The slope that is known to be true.
        slope: f64,
        /// Replicates per group: what one study of this size would have.
        group: u64,
    },
    /// How much work a fit from one start is, over all fits of all rows; a fit
    /// without certificate counts as endless.
    Passes {
        /// Half of the fits need at most so many passes over the data.
        median: f64,
        /// 99 of 100 fits need at most so many.
        percentile_99: f64,
    },
    /// The sample size at which the mean loss falls to an accuracy.
    SampleSize {
        /// The loss.
        loss: Loss,
        /// The mean loss wanted.
        accuracy: f64,
        /// Smallest and largest n of the regression.
        window: [f64; 2],
    },
}

impl Claim {
    /// True if a failure of this claim about this series is on record.
    pub fn is_known_to_fail(&self, series: &str) -> bool {
        match self {
            Claim::Slope { known_failures, .. } => {
                known_failures.iter().any(|part| series.contains(part))
            }
            _ => false,
        }
    }

    /// True if the claim is about this series.
    pub fn concerns(&self, name: &str) -> bool {
        match self {
            Claim::Slope { series, .. }
            | Claim::Level { series, .. }
            | Claim::ChiSquare { series, .. }
            | Claim::Intervals { series, .. } => name.contains(series),
            Claim::Efficiency { series, of, .. } => {
                name.contains(series) && fit_level(name) == Some(of)
            }
            _ => true,
        }
    }
}

impl Claim {
    /// The constant that it is about.
    pub fn constant(&self) -> Option<Constant> {
        match self {
            Claim::Constant { constant, .. } | Claim::ChiSquare { constant, .. } => Some(*constant),
            _ => None,
        }
    }

    /// True if it is about single parameters, which rows must then hold.
    pub fn needs_parameters(&self) -> bool {
        matches!(self, Claim::Efficiency { .. } | Claim::Intervals { .. })
            || self.constant() == Some(Constant::Coordinates)
    }

    /// True if it makes sense only for fits with the truth's own number of experts.
    pub fn needs_exact_fit(&self) -> bool {
        matches!(self, Claim::Efficiency { .. } | Claim::Intervals { .. })
            || self.constant().is_some()
    }
}

/// The level of the factor `fit` in a series' name.
pub(super) fn fit_level(series: &str) -> Option<&str> {
    let mut factors = series.split(',');
    factors.find_map(|factor| factor.strip_prefix("fit="))
}

/// A claimed curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// n^(-1/2)
    #[serde(rename = "n^-0.5")]
    Parametric,
    /// n^(-1/4)
    #[serde(rename = "n^-0.25")]
    Quartic,
    /// n^(-1/6)
    #[serde(rename = "n^-(1/6)")]
    Sixth,
    /// n^(-1/8)
    #[serde(rename = "n^-0.125")]
    Eighth,
    /// n^(-1/12)
    #[serde(rename = "n^-(1/12)")]
    Twelfth,
    /// n^(-1)
    #[serde(rename = "n^-1")]
    Linear,
    /// 1: it does not fall.
    #[serde(rename = "constant")]
    Constant,
    /// (log n / n)^(1/2)
    #[serde(rename = "(log n / n)^0.5")]
    LogParametric,
}

impl Curve {
    /// The curve at n, up to a constant.
    pub fn at(self, n: f64) -> f64 {
        match self {
            Curve::Parametric => n.powf(-0.5),
            Curve::Quartic => n.powf(-0.25),
            Curve::Sixth => n.powf(-1.0 / 6.0),
            Curve::Eighth => n.powf(-0.125),
            Curve::Twelfth => n.powf(-1.0 / 12.0),
            Curve::Linear => 1.0 / n,
            Curve::Constant => 1.0,
            Curve::LogParametric => (n.ln() / n).sqrt(),
        }
    }

    /// How a page writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Curve::Parametric => "n^(−1/2)",
            Curve::Quartic => "n^(−1/4)",
            Curve::Sixth => "n^(−1/6)",
            Curve::Eighth => "n^(−1/8)",
            Curve::Twelfth => "n^(−1/12)",
            Curve::Linear => "n^(−1)",
            Curve::Constant => "a constant",
            Curve::LogParametric => "(log n / n)^(1/2)",
        }
    }
}

/// The sharp constants of regular maximum likelihood; P parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// 8 n E h^2 / P -> 1
    HellingerSq,
    /// 2 (loglik(fit) - loglik(truth)) / P -> 1 in mean (Wilks)
    LikelihoodRatio,
    /// tr(I n Cov) / P -> 1 (Cramer-Rao), I the Fisher information at the truth
    Information,
    /// Mean over the experts' coordinates of n MSE over its Cramer-Rao bound -> 1
    Coordinates,
}

impl Constant {
    /// All of them.
    pub const ALL: [Constant; 4] = [
        Constant::HellingerSq,
        Constant::LikelihoodRatio,
        Constant::Information,
        Constant::Coordinates,
    ];

    /// How a page writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Constant::HellingerSq => "8 n E h² / P",
            Constant::LikelihoodRatio => "E LR / P",
            Constant::Information => "tr(I n Cov) / P",
            Constant::Coordinates => "n MSE / bound",
        }
    }
}
