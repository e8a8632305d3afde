//! The estimator of a study and its variants.

use super::is_default;
use crate::error::{Error, Result};
pub use crate::fit::{Centre, DistillationLoss, GainMeasure, GateStep, Method, Schedule};
use crate::fit::{DistillationOptions, Limits, NewtonOptions, Options, Polish, Start};
use serde::{Deserialize, Serialize};

/// The estimator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// What is fitted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub family: Family,
    /// The method before the polish.
    pub method: Method,
    /// Its iteration limit.
    pub max_iterations: usize,
    /// It stops when an iteration gains less log-likelihood.
    pub gain: f64,
    /// The unit of `gain`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gain_measure: GainMeasure,
    /// How far the gate goes in one iteration of expectation maximisation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gate_step: GateStep,
    /// What follows the method.
    #[serde(default, skip_serializing_if = "is_default")]
    pub polish: PolishKind,
    /// Most iterations of the polish; absent: [`NewtonOptions::default`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polish_iterations: Option<usize>,
    /// What the estimator is told of the experts that made the rows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Labels,
    /// Trains a router in one stochastic pass instead of maximising a likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// See [`Options::pilot_rows`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pilot_rows: Option<usize>,
    /// How many experts are fitted for each expert of the truth; absent: one. The
    /// truth of the fit is then [`crate::model::Parameters::split`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<usize>,
    /// How many experts the fitted gate keeps; absent: as many as the truth's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Starting points, where the grid has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<Start>,
    /// The compact parameter set.
    pub limits: Limits,
}

/// A named variant of the estimator: any keys of `fit`, which replace its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitVariant {
    /// The level's name in cell names.
    pub name: String,
    /// Keys of [`Fit`].
    #[serde(flatten)]
    pub replaced: toml::Table,
}

/// The family of mixtures that is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// The truth's own.
    #[default]
    Own,
    /// Softmax routers, for a truth that is one of them
    /// ([`crate::model::Parameters::as_router`]).
    Router,
}

/// What follows the method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolishKind {
    /// Newton to a certified maximum.
    #[default]
    Newton,
    /// Nothing: the estimate is where the method's own rule stops it, and such a
    /// stop is a success.
    None,
}

/// Whether the estimator sees which expert made each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// As in life.
    #[default]
    Hidden,
    /// The oracle of `docs/theory.md`, 3.
    Known,
}

/// Router distillation: one pass over the rows, from the first start
/// ([`crate::fit::distil`]); its estimate is the router-gated mixture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// When experts compete.
    pub schedule: Schedule,
    /// What the router learns from.
    pub loss: DistillationLoss,
}

impl FitVariant {
    /// `base` with the keys of this variant.
    ///
    /// # Errors
    /// [`Error::Value`] for an unknown key or a wrong value.
    pub fn apply(&self, base: &Fit) -> Result<Fit> {
        let with = |replaced: toml::Table| {
            let mut table = toml::Table::try_from(base).expect("read from TOML");
            table.extend(replaced);
            table.try_into::<Fit>()
        };
        with(self.replaced.clone()).map_err(|e| {
            // The message quotes no key for a wrong value: look for the one that
            // is wrong by itself.
            let is_wrong = |(key, value): &(&String, &toml::Value)| {
                let alone = [((*key).clone(), (*value).clone())];
                with(alone.into_iter().collect()).is_err()
            };
            let wrong = self.replaced.iter().find(is_wrong);
            let key = wrong.map_or("name", |(key, _)| key.as_str());
            Error::value(key, e.message().trim().replace('\n', " "))
        })
    }
}

impl Fit {
    /// The estimator's options; the certificate's tolerances are not a choice.
    pub fn options(&self) -> Options {
        Options {
            method: self.method,
            max_iterations: self.max_iterations,
            gain: self.gain,
            gain_measure: self.gain_measure,
            gate_step: self.gate_step,
            pilot_rows: self.pilot_rows,
            polish: match self.polish {
                PolishKind::Newton => Polish::Newton(self.newton()),
                PolishKind::None => Polish::None,
            },
        }
    }

    /// True if a fit succeeds without a certificate: where the method's own rule
    /// ends it, or one pass over the rows.
    pub fn ends_by_its_own_rule(&self) -> bool {
        self.polish == PolishKind::None || self.distillation.is_some()
    }

    /// The estimator's options where it distils a router.
    pub fn distillation_options(&self) -> Option<DistillationOptions> {
        let distillation = self.distillation?;
        Some(DistillationOptions::new(
            distillation.schedule,
            distillation.loss,
        ))
    }

    /// The polish, where there is one.
    pub fn newton(&self) -> NewtonOptions {
        let standard = NewtonOptions::default();
        NewtonOptions {
            max_iterations: self.polish_iterations.unwrap_or(standard.max_iterations),
            ..standard
        }
    }
}
