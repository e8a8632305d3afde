//! What there is to report.

use crate::analysis::{Design, Fitted, Optimum, Part, Specification};
use ndarray::Array2;

/// Everything that a run of `smoe_fit` found out.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The table's file, as the user named it.
    pub source: String,
    /// The words of the command line.
    pub command: Vec<String>,
    /// What was fitted.
    pub design: Design,
    /// How.
    pub specification: Specification,
    /// Names of the kinds of start, in the order of [`Optimum::hits`].
    pub start_kinds: Vec<String>,
    /// One per number of experts, by rising number; at least one.
    pub models: Vec<FittedModel>,
    /// Index of the model that is reported in full.
    pub chosen: usize,
    /// By what it was chosen; `None` if there was nothing to choose.
    pub chosen_by: Option<Criterion>,
    /// The way along one covariate that the fit is drawn on; `None` draws no fit.
    pub slice: Option<Slice>,
    /// Of the chosen model.
    pub residuals: Option<Residuals>,
    /// What the user should know, beside the warnings of the design.
    pub warnings: Vec<String>,
    /// Wall clock of the whole run.
    pub seconds: f64,
}

/// The fit with one number of experts.
#[derive(Clone, Debug)]
pub struct FittedModel {
    /// Number of experts.
    pub experts: usize,
    /// Its optima.
    pub fitted: Fitted,
    /// Of the best optimum; `None` if there is none.
    pub criteria: Option<Criteria>,
    /// Of the best optimum, in the order of [`crate::analysis::quantities`].
    pub estimates: Vec<Estimated>,
}

/// Information criteria; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criteria {
    /// Free parameters.
    pub degrees_of_freedom: usize,
    /// -2 log-likelihood + 2 degrees of freedom
    pub aic: f64,
    /// -2 log-likelihood + log(rows) degrees of freedom
    pub bic: f64,
    /// BIC + twice the entropy of the responsibilities
    pub icl: f64,
    /// The dendrogram criterion (arXiv 2510.12744) of this number of experts.
    pub dendrogram: Option<f64>,
}

impl Criteria {
    /// AIC, BIC, ICL and the dendrogram's.
    pub(super) fn all(&self) -> [Option<f64>; 4] {
        [
            Some(self.aic),
            Some(self.bic),
            Some(self.icl),
            self.dendrogram,
        ]
    }
}

/// What a number of experts is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Akaike's.
    Aic,
    /// The Bayesian one.
    Bic,
    /// The integrated complete likelihood.
    Icl,
    /// The dendrogram's.
    Dendrogram,
}

impl Criterion {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Aic => "AIC",
            Criterion::Bic => "BIC",
            Criterion::Icl => "ICL",
            Criterion::Dendrogram => "dendrogram",
        }
    }
}

/// A quantity with how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimated {
    /// As in [`crate::analysis::Quantity`].
    pub name: String,
    /// What it belongs to.
    pub part: Part,
    /// In raw units.
    pub estimate: f64,
    /// From the observed information.
    pub standard_error: Option<f64>,
    /// Robust to a wrong model.
    pub sandwich_error: Option<f64>,
    /// 95 %, from the standard error.
    pub wald: Option<[f64; 2]>,
    /// 95 %, from the profile likelihood; an end may be infinite.
    pub profile: Option<[f64; 2]>,
    /// Why something is missing.
    pub reason: Option<String>,
}

/// A way through the covariates along one of them, the others held at their means.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The covariate's name.
    pub covariate: String,
    /// The other covariates, held at their means.
    pub held: Vec<String>,
    /// The covariate at every row of the design. Shape: n.
    pub observed: Vec<f64>,
    /// Ascending raw values of the covariate ([`Slice::grid`]). Shape: m.
    pub values: Vec<f64>,
    /// The features of the design there. Shape: m, d.
    pub inputs: Array2<f64>,
}

impl Slice {
    /// Values to draw curves on: equally spaced over the observed range, and close
    /// to both sides of every gap between neighbours if these are few, so that a
    /// step between two rows is drawn as one.
    pub fn grid(observed: &[f64]) -> Vec<f64> {
        const POINTS: usize = 300;
        let mut sorted: Vec<f64> = observed.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else {
            return Vec::new();
        };
        let step = (high - low) / POINTS as f64;
        let mut values: Vec<f64> = (0..=POINTS).map(|k| low + step * k as f64).collect();
        if sorted.len() <= POINTS {
            let gaps = sorted.windows(2);
            let within = |pair: &[f64]| {
                [0.35, 0.45, 0.5, 0.55, 0.65].map(|s| pair[0] + s * (pair[1] - pair[0]))
            };
            values.extend(gaps.flat_map(within));
        }
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    }
}

/// Residuals of a model, row by row of its design.
#[derive(Clone, Debug, PartialEq)]
pub struct Residuals {
    /// Mean of y given x, in raw units. Shape: n.
    pub fitted: Vec<f64>,
    /// Quantile residuals: standard normal if the model is right. Shape: n.
    pub quantile: Vec<f64>,
}

impl Analysis {
    /// The model that is reported in full.
    pub fn model(&self) -> &FittedModel {
        &self.models[self.chosen]
    }

    /// Number of rows used.
    pub fn rows(&self) -> usize {
        self.design.data.len()
    }

    /// Every warning, those of the design first.
    pub fn all_warnings(&self) -> impl Iterator<Item = &String> {
        self.design.warnings.iter().chain(&self.warnings)
    }
}

impl FittedModel {
    /// The best optimum, if there is one.
    pub fn best(&self) -> Option<&Optimum> {
        self.fitted.best()
    }
}
