//! What there is to report.

use super::slice::Slice;
use crate::analysis::{
    Criteria, Dendrogram, Design, Fitted, Optimum, Residuals, Specification, Uncertainty,
};

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
    /// One per number of experts, by rising number; at least one.
    pub models: Vec<FittedModel>,
    /// Index of the model that is reported in full.
    pub chosen: usize,
    /// By what it was chosen; `None` if there was nothing to choose.
    pub chosen_by: Option<Criterion>,
    /// Of the largest model, if there are several.
    pub dendrogram: Option<Dendrogram>,
    /// The way along one covariate that the fit is drawn on; `None` draws no fit.
    pub slice: Option<Slice>,
    /// Of the chosen model.
    pub residuals: Option<Residuals>,
    /// What the user should know, beside the warnings of the design and what the
    /// report finds itself ([`Analysis::all_warnings`]).
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
    /// Of the best optimum; `None` shows estimates alone.
    pub uncertainty: Option<Uncertainty>,
}

/// What a number of experts is chosen by; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Akaike's.
    Aic,
    /// The Bayesian one.
    Bic,
    /// The integrated completed likelihood.
    Icl,
    /// The dendrogram's.
    Dendrogram,
}

impl Criterion {
    /// All of them, in the order of tables.
    pub(super) const ALL: [Criterion; 4] = [
        Criterion::Aic,
        Criterion::Bic,
        Criterion::Icl,
        Criterion::Dendrogram,
    ];

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Aic => "AIC",
            Criterion::Bic => "BIC",
            Criterion::Icl => "ICL",
            Criterion::Dendrogram => "Dendrogram",
        }
    }
}

impl Analysis {
    /// The model that is reported in full.
    pub fn model(&self) -> &FittedModel {
        &self.models[self.chosen]
    }

    /// The value of a criterion for one of the models, where it is defined.
    pub fn criterion(&self, model: &FittedModel, criterion: Criterion) -> Option<f64> {
        let own = model.criteria.as_ref();
        let value = match criterion {
            Criterion::Aic => own?.aic,
            Criterion::Bic => own?.bic,
            Criterion::Icl => own?.icl,
            Criterion::Dendrogram => {
                let levels = &self.dendrogram.as_ref()?.levels;
                let level = levels
                    .iter()
                    .find(|level| level.nodes.len() == model.experts);
                level?.criterion?
            }
        };
        value.is_finite().then_some(value)
    }

    /// Index of the model with the least value of a criterion, among those whose best
    /// optimum counts, if any does.
    pub fn least(&self, criterion: Criterion) -> Option<usize> {
        let any = self.models.iter().any(FittedModel::counts);
        let admitted = self.models.iter().enumerate();
        admitted
            .filter(|(_, model)| !any || model.counts())
            .filter_map(|(k, model)| Some((k, self.criterion(model, criterion)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(k, _)| k)
    }

    /// Means of y given x at the rows of the design by the best optimum, in raw units;
    /// none without one. Shape: n.
    pub fn means(&self) -> Vec<f64> {
        let Some(best) = self.model().best() else {
            return Vec::new();
        };
        let response = &self.design.response;
        let mean = |row: usize| {
            let law = best.parameters.conditional(&self.design.data.row(row).0);
            response.raw(law.mean())
        };
        (0..self.rows()).map(mean).collect()
    }

    /// Number of rows used.
    pub fn rows(&self) -> usize {
        self.design.data.len()
    }
}

impl FittedModel {
    /// True if the best optimum is there and not spurious.
    pub fn counts(&self) -> bool {
        self.best()
            .is_some_and(|optimum| optimum.spurious.is_none())
    }

    /// The best optimum, if there is one.
    pub fn best(&self) -> Option<&Optimum> {
        self.fitted.best()
    }
}
