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
    /// Those that ended at a maximum with the labels of the fit: the ones summarised.
    pub used: usize,
    /// The others, counted by reason ([`Ending::name`]).
    pub left_out: BTreeMap<&'static str, usize>,
    /// The refits themselves, in the order of their replicates.
    pub refits: Vec<Refit>,
}

impl BootstrapFits {
    /// The share of replicates left out.
    pub fn failure_rate(&self) -> f64 {
        (self.replicates - self.used) as f64 / self.replicates as f64
    }
}

/// One quantity over the refits used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapEstimate {
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
    let mut left_out = BTreeMap::new();
    for refit in refits.iter().filter(|r| r.ending != Ending::Maximum) {
        *left_out.entry(refit.ending.name()).or_insert(0) += 1;
    }
    let fits = BootstrapFits {
        replicates: refits.len(),
        used: refits.len() - left_out.values().sum::<usize>(),
        left_out,
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
    if fits.used < 2 {
        return Err(Missing::TooFewRefits(fits.used));
    }
    let used = fits.refits.iter().filter(|r| r.ending == Ending::Maximum);
    let mut values: Vec<f64> = used.map(|r| quantity.value(&r.packed)).collect();
    let (mean, standard_deviation) = mean_and_deviation(&values);
    values.sort_by(f64::total_cmp);
    let level = context.options.level;
    Ok(BootstrapEstimate {
        bias: mean - quantity.value(&context.held.packed),
        standard_deviation,
        percentile: [0.5 - 0.5 * level, 0.5 + 0.5 * level].map(|p| quantile(&values, p)),
    })
}
