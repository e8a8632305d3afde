//! The losses that a study can record, one column of rows each.

use crate::error::{Error, Result};
pub use crate::loss::coordinate::Quantity;
use crate::loss::voronoi::VoronoiLoss;
use crate::model::GateKind;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A column of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Loss {
    /// E_X h
    HellingerMean,
    /// E_X h^2
    HellingerSqMean,
    /// E_X V
    TvMean,
    /// E_X KL(truth || fit)
    KlMean,
    /// The Voronoi loss of the truth's gate: the first applicable one.
    Voronoi,
    /// The tilted Voronoi loss.
    VoronoiTilted,
    /// The softmax loss D_2.
    VoronoiSoftmaxD2,
    /// Error of one quantity in the cell of one true expert
    /// ([`crate::loss::coordinate::cell_error`]), written `slope[0]`.
    Cell(Quantity, usize),
    /// P(selection of the fit != selection of the truth)
    /// ([`crate::loss::selection::selection_error`]).
    Selection,
}

/// The columns that need no index.
const PLAIN: [(Loss, &str); 8] = [
    (Loss::HellingerMean, "hellinger_mean"),
    (Loss::HellingerSqMean, "hellinger_sq_mean"),
    (Loss::TvMean, "tv_mean"),
    (Loss::KlMean, "kl_mean"),
    (Loss::Voronoi, "voronoi"),
    (Loss::VoronoiTilted, "voronoi_tilted"),
    (Loss::VoronoiSoftmaxD2, "voronoi_softmax_d2"),
    (Loss::Selection, "selection"),
];

impl fmt::Display for Loss {
    /// The column's name.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self, PLAIN.iter().find(|(loss, _)| loss == self)) {
            (_, Some((_, name))) => f.write_str(name),
            (Loss::Cell(quantity, expert), _) => write!(f, "{}[{expert}]", quantity.name()),
            _ => unreachable!("every other column is plain"),
        }
    }
}

impl FromStr for Loss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((loss, _)) = PLAIN.iter().find(|(_, name)| *name == text) {
            return Ok(*loss);
        }
        let cell = || {
            let (name, expert) = text.strip_suffix(']')?.split_once('[')?;
            let quantity = Quantity::ALL.into_iter().find(|q| q.name() == name)?;
            Some(Loss::Cell(quantity, expert.parse().ok()?))
        };
        cell().ok_or_else(|| {
            let plain: Vec<&str> = PLAIN.iter().map(|(_, name)| *name).collect();
            let errors: Vec<&str> = Quantity::ALL.iter().map(|q| q.name()).collect();
            let message = format!(
                "\"{text}\" is no loss; known are {}, and the errors of true expert j: {}, \
                 followed by [j]",
                plain.join(", "),
                errors.join(", ")
            );
            Error::value("losses", message)
        })
    }
}

impl From<Loss> for String {
    fn from(loss: Loss) -> String {
        loss.to_string()
    }
}

impl TryFrom<String> for Loss {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse().map_err(|e: Error| match e {
            Error::Value { message, .. } => message,
            other => other.to_string(),
        })
    }
}

impl Loss {
    /// How a page writes it.
    pub fn symbol(self) -> String {
        let text = match self {
            Loss::HellingerMean => "E h",
            Loss::HellingerSqMean => "E h²",
            Loss::TvMean => "E V",
            Loss::KlMean => "E KL",
            Loss::Voronoi => "Voronoi loss",
            Loss::VoronoiTilted => "tilted Voronoi loss",
            Loss::VoronoiSoftmaxD2 => "Voronoi loss D₂",
            Loss::Selection => "P(T̂ ≠ T)",
            Loss::Cell(quantity, expert) => {
                let letter = match quantity {
                    Quantity::Slope => "slope",
                    Quantity::Intercept => "intercept",
                    Quantity::Scale => "scale",
                    Quantity::LogVariance => "log variance",
                    Quantity::GateSlope => "gate slope",
                    Quantity::LogMass => "log mass",
                };
                return format!("|Δ {letter}| of expert {expert}");
            }
        };
        text.to_string()
    }

    /// The Voronoi loss meant, for a truth with this gate.
    pub fn voronoi(self, gate: GateKind) -> Option<VoronoiLoss> {
        match (self, gate) {
            (Loss::Voronoi, GateKind::Softmax) => Some(VoronoiLoss::Softmax),
            (Loss::Voronoi, GateKind::Sigmoid) => Some(VoronoiLoss::Sigmoid),
            (Loss::Voronoi, _) => Some(VoronoiLoss::Competition),
            (Loss::VoronoiTilted, _) => Some(VoronoiLoss::Tilted),
            (Loss::VoronoiSoftmaxD2, _) => Some(VoronoiLoss::SoftmaxOverspecified),
            _ => None,
        }
    }

    /// True if it needs the distance between densities.
    pub fn is_of_density(self) -> bool {
        matches!(
            self,
            Loss::HellingerMean | Loss::HellingerSqMean | Loss::TvMean | Loss::KlMean
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        let cells = Quantity::ALL.map(|q| Loss::Cell(q, 12));
        let plain = PLAIN.iter().map(|(loss, _)| *loss);
        for loss in plain.chain(cells) {
            assert_eq!(loss.to_string().parse::<Loss>().unwrap(), loss);
        }
        for bad in ["hellinger", "slope", "slope[x]", "slope[1", "weight[0]"] {
            let error = bad.parse::<Loss>().unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("tv_mean"), "{error}");
        }
    }
}
