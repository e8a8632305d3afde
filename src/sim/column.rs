//! The losses that a study can record, one column of rows each.

use crate::loss::voronoi::VoronoiLoss;
use crate::model::GateKind;
use serde::{Deserialize, Serialize};

/// A column of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
}

impl Loss {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Loss::HellingerMean => "hellinger_mean",
            Loss::HellingerSqMean => "hellinger_sq_mean",
            Loss::TvMean => "tv_mean",
            Loss::KlMean => "kl_mean",
            Loss::Voronoi => "voronoi",
            Loss::VoronoiTilted => "voronoi_tilted",
            Loss::VoronoiSoftmaxD2 => "voronoi_softmax_d2",
        }
    }

    /// How a page writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Loss::HellingerMean => "E h",
            Loss::HellingerSqMean => "E h²",
            Loss::TvMean => "E V",
            Loss::KlMean => "E KL",
            Loss::Voronoi => "Voronoi loss",
            Loss::VoronoiTilted => "tilted Voronoi loss",
            Loss::VoronoiSoftmaxD2 => "Voronoi loss D₂",
        }
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
}
