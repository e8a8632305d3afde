//! A fitted model: every optimum that was found.

use super::{Design, Specification};
use crate::fit::{Bounds, Effort, Stop};
use crate::model::{Coordinate, Parameters};

/// The optima of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The parameter set of the starts, standardised.
    pub bounds: Bounds,
    /// Distinct optima: those that count by falling log-likelihood, then the
    /// spurious ones likewise.
    pub optima: Vec<Optimum>,
    /// Starts that ended without a certified optimum: reason and log-likelihood.
    pub failures: Vec<(Stop, f64)>,
    /// Starts, those from rearranged optima included.
    pub starts: usize,
    /// Work done.
    pub effort: Effort,
}

/// One optimum of the likelihood.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimum {
    /// Standardised; experts by rising mean at the centre of the data.
    pub parameters: Parameters,
    /// In raw units of y.
    pub log_likelihood: f64,
    /// How many starts ended here, by kind of start, in the order of
    /// [`Fitted::start_kinds`].
    pub hits: Vec<usize>,
    /// Why the fit stopped.
    pub stop: Stop,
    /// Whether it is a maximum, or what it stands for.
    pub attainment: Attainment,
    /// The bounds around it: wider than those of the starts where a gate ran away.
    pub bounds: Bounds,
    /// sum over rows of responsibilities. Shape: experts.
    pub effective_rows: Vec<f64>,
    /// Why it does not count, if it does not.
    pub spurious: Option<Spurious>,
}

/// Whether the likelihood has a maximum at an optimum.
#[derive(Clone, Debug, PartialEq)]
pub enum Attainment {
    /// A maximum inside the parameter set.
    Interior,
    /// The gate runs away: the likelihood rises for ever along these coordinates, the
    /// weights tend to a step, and the log-likelihood given is the supremum, not
    /// attained.
    NotAttained(Vec<Coordinate>),
    /// Coordinates other than a gate's on the boundary of the parameter set, such as
    /// the least variance.
    OnBound(Vec<Coordinate>),
}

/// Why an optimum is set apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spurious {
    /// An expert has too few rows.
    FewRows {
        /// From 0.
        expert: usize,
        /// Its effective rows.
        rows: f64,
        /// The fewest that count.
        least: f64,
    },
    /// An expert's standard deviation is too small.
    SmallDeviation {
        /// From 0.
        expert: usize,
        /// In standard deviations of y.
        deviation: f64,
        /// The smallest that counts.
        least: f64,
    },
}

impl Spurious {
    /// What the rule of `specification` says against an optimum, if anything; one
    /// expert alone is never spurious.
    pub(super) fn of(
        specification: &Specification,
        design: &Design,
        parameters: &Parameters,
        effective_rows: &[f64],
    ) -> Option<Self> {
        let rule = &specification.spurious;
        let least = rule.share * design.data.sample_size();
        let least = least.max(design.expert.terms.len() as f64 + 1.0);
        if parameters.experts.len() == 1 {
            return None;
        }
        let few = effective_rows.iter().position(|rows| *rows < least);
        if let Some(expert) = few {
            return Some(Spurious::FewRows {
                expert,
                rows: effective_rows[expert],
                least,
            });
        }
        let deviations = parameters.experts.iter().map(|e| e.variance.sqrt());
        let small = deviations.enumerate().find(|(_, d)| *d < rule.deviation);
        small.map(|(expert, deviation)| Spurious::SmallDeviation {
            expert,
            deviation,
            least: rule.deviation,
        })
    }
}

impl Fitted {
    /// The best optimum that counts, or the best of the others if none does.
    ///
    /// `None` if no start ended at a certified optimum.
    pub fn best(&self) -> Option<&Optimum> {
        self.optima.first()
    }
}
