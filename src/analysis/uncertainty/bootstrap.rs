//! Summaries of a parametric bootstrap.

use super::Context;
use super::missing::Missing;
use crate::analysis::quantity::Quantity;
use crate::error::Result;
use crate::fit::inference::{Bootstrap, Ending, Refit, parametric_bootstrap};
use crate::num::sum::{mean_and_deviation, quantile};
use std::collections::BTreeMap;
use std::result::Result as Known;

/// How the refits of a bootstrap ended.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapFits {
    /// Replicates drawn.
    pub replicates: usize,
    /// Those that ended at a maximum with the labels of the fit.
    pub maxima: usize,
    /// The others, counted by reason ([`Ending::name`]).
    pub others: BTreeMap<&'static str, usize>,
    /// The refits themselves, in the order of their replicates.
    pub refits: Vec<Refit>,
}

impl BootstrapFits {
    /// The share of replicates that ended elsewhere.
    pub fn failure_rate(&self) -> f64 {
        (self.replicates - self.maxima) as f64 / self.replicates as f64
    }
}

/// One quantity over the refits that tell it: those at a maximum, and those whose gate runs
/// away if it is not made of what runs away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapEstimate {
    /// How many refits.
    pub used: usize,
    /// Mean of the refits less the fit.
    pub bias: f64,
    /// Their standard deviation (divisor one less than their number).
    pub standard_deviation: f64,
    /// Percentile interval: quantiles (1 - level) / 2 and (1 + level) / 2 of the refits.
    pub percentile: [f64; 2],
}

/// Draws, refits and summarises.
pub(super) fn resample(
    context: &Context,
    quantities: &[Quantity],
    bootstrap: Bootstrap,
) -> Result<(BootstrapFits, Vec<Known<BootstrapEstimate, Missing>>)> {
    let refits = parametric_bootstrap(
        context.backend,
        &context.design.data,
        &context.optimum.parameters,
        &context.held.bounds,
        bootstrap,
    )?;
    let mut others = BTreeMap::new();
    for refit in refits.iter().filter(|r| r.ending != Ending::Maximum) {
        *others.entry(refit.ending.name()).or_insert(0) += 1;
    }
    let fits = BootstrapFits {
        replicates: refits.len(),
        maxima: refits.len() - others.values().sum::<usize>(),
        others,
        refits,
    };
    let each = quantities.iter().map(|q| summary(context, &fits, q));
    let each = each.collect();
    Ok((fits, each))
}

fn summary(
    context: &Context,
    fits: &BootstrapFits,
    quantity: &Quantity,
) -> Known<BootstrapEstimate, Missing> {
    context.held.check(quantity)?;
    let tells = |refit: &&Refit| match &refit.ending {
        Ending::Maximum => true,
        Ending::RunsAway(along) => !context.held.touches(quantity, along),
        _ => false,
    };
    let used = fits.refits.iter().filter(tells);
    let mut values: Vec<f64> = used.map(|r| quantity.value(&r.packed)).collect();
    if values.len() < 2 {
        return Err(Missing::TooFewRefits(values.len()));
    }
    let (mean, standard_deviation) = mean_and_deviation(&values);
    values.sort_by(f64::total_cmp);
    let level = context.options.level;
    Ok(BootstrapEstimate {
        used: values.len(),
        bias: mean - quantity.value(&context.held.packed),
        standard_deviation,
        percentile: [0.5 - 0.5 * level, 0.5 + 0.5 * level].map(|p| quantile(&values, p)),
    })
}
