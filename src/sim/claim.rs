//! What a study claims, fixed before it runs.

use super::column::Loss;
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
        /// The curve claimed, drawn in the plot.
        curve: Curve,
        /// Smallest and largest n of the regression.
        window: [f64; 2],
        /// Accepted slopes.
        accept: [f64; 2],
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

/// A claimed curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// n^(-1/2)
    #[serde(rename = "n^-0.5")]
    Parametric,
    /// n^(-1/4)
    #[serde(rename = "n^-0.25")]
    Quartic,
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
            Curve::LogParametric => (n.ln() / n).sqrt(),
        }
    }

    /// How a page writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Curve::Parametric => "n^(−1/2)",
            Curve::Quartic => "n^(−1/4)",
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
}

impl Constant {
    /// All of them.
    pub const ALL: [Constant; 3] = [
        Constant::HellingerSq,
        Constant::LikelihoodRatio,
        Constant::Information,
    ];

    /// How a page writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Constant::HellingerSq => "8 n E h² / P",
            Constant::LikelihoodRatio => "E LR / P",
            Constant::Information => "tr(I n Cov) / P",
        }
    }
}
