//! What is minimised.

use serde::{Deserialize, Serialize};

/// The distance of a nearby mixture from the truth, as a root of a mean square
/// over the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// sqrt(E_X h^2), h the Hellinger distance of the conditional densities.
    #[default]
    Hellinger,
    /// sqrt(E_X (f_G - f_G*)^2), f_G(x) = sum_i w_i(x) m_i(x) the regression
    /// function: the loss of least squares (arXiv 2402.02952). Variances drop out.
    Regression,
}

impl Distance {
    /// True for the distance that study files need not name.
    pub fn is_default(&self) -> bool {
        *self == Distance::default()
    }

    /// The name in study files and records.
    pub fn name(self) -> &'static str {
        match self {
            Distance::Hellinger => "hellinger",
            Distance::Regression => "regression",
        }
    }

    /// In the heading of a column.
    pub fn symbol(self) -> &'static str {
        match self {
            Distance::Hellinger => "h",
            Distance::Regression => "f",
        }
    }

    /// As a formula.
    pub fn formula(self) -> &'static str {
        match self {
            Distance::Hellinger => "(E h²)^(1/2)",
            Distance::Regression => "(E (f − f*)²)^(1/2)",
        }
    }
}
