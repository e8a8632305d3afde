//! Parametric bootstrap: refits of samples drawn from the fit.

use super::information::Information;
use super::label::keeps_labels;
use super::missing::Missing;
use crate::backend::Backend;
use crate::error::Result;
use crate::fit::bounds::Bounds;
use crate::fit::newton::{NewtonOptions, polish};
use crate::fit::outcome::{Outcome, Stop};
use crate::model::{Coordinate, Data, Parameters, draw_responses};
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;

/// How many samples, and from which random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// B
    pub replicates: usize,
    /// Names the streams (seed, "bootstrap", replicate, [`Purpose::Data`]).
    pub seed: u64,
}

/// How a refit ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// At a maximum inside the parameter set, with the labels of the fit.
    Maximum,
    /// At a maximum that another order of its experts brings nearer to the fit: its
    /// coordinates are not those of the fit's.
    OtherLabels,
    /// With coordinates on a bound that the fit's are not on, some of them not a gate's.
    OnBound(Vec<Coordinate>),
    /// With these coordinates of the gate on a bound or no farther than one standard error
    /// from it, which is a number of the search, not of the model: the gate tends to a
    /// step, or an expert to weight 0, and the likelihood has no maximum. The other
    /// coordinates tend to limits and are those where the search stopped.
    RunsAway(Vec<Coordinate>),
    /// At a point without standard errors.
    Singular(Missing),
    /// Without a certified maximum.
    Failed(Stop),
}

impl Ending {
    /// The reason in a few words, for counting.
    pub fn name(&self) -> &'static str {
        match self {
            Ending::Maximum => "maximum",
            Ending::OtherLabels => "other labels",
            Ending::OnBound(_) => "on a bound",
            Ending::RunsAway(_) => "gate runs away",
            Ending::Singular(_) => "singular information",
            Ending::Failed(stop) => stop.name(),
        }
    }
}

/// One refit.
#[derive(Clone, Debug, PartialEq)]
pub struct Refit {
    /// How it ended.
    pub ending: Ending,
    /// Where. Shape: P.
    pub packed: Vec<f64>,
    /// Its log-likelihood on its own sample.
    pub log_likelihood: f64,
}

/// Refits of `bootstrap.replicates` samples, in order: responses drawn from `fitted` at
/// the inputs of `data`, the likelihood maximised up from `fitted`.
///
/// Nothing is drawn again: a refit that fails is in the list with its reason. Replicates
/// run in parallel; the result has the same bits for any number of threads.
///
/// # Errors
/// [`crate::error::Error::Value`] if rows have counts.
pub fn parametric_bootstrap(
    backend: &dyn Backend,
    data: &Data,
    fitted: &Parameters,
    bounds: &Bounds,
    bootstrap: Bootstrap,
) -> Result<Vec<Refit>> {
    let replicate = |index: usize| {
        let stream = Stream::named(bootstrap.seed, "bootstrap", index as u64, Purpose::Data);
        let sample = draw_responses(fitted, data, &stream)?;
        let outcome = polish(backend, &sample, fitted, bounds, NewtonOptions::default());
        Ok(Refit {
            ending: ending(backend, &sample, fitted, bounds, &outcome),
            packed: outcome.parameters.layout().pack(&outcome.parameters),
            log_likelihood: outcome.log_likelihood,
        })
    };
    (0..bootstrap.replicates)
        .into_par_iter()
        .map(replicate)
        .collect()
}

fn ending(
    backend: &dyn Backend,
    sample: &Data,
    fitted: &Parameters,
    bounds: &Bounds,
    outcome: &Outcome,
) -> Ending {
    if !outcome.stop.is_converged() {
        return Ending::Failed(outcome.stop.clone());
    }
    let before = bounds.at_bound(&fitted.layout(), &fitted.layout().pack(fitted));
    let new = |c: &&Coordinate| !before.contains(c);
    let on_bound: Vec<Coordinate> = outcome.on_bound.iter().filter(new).copied().collect();
    if !on_bound.iter().all(Coordinate::is_of_gate) {
        return Ending::OnBound(on_bound);
    }
    if !keeps_labels(fitted, &outcome.parameters, sample) {
        return Ending::OtherLabels;
    }
    let mut away = on_bound;
    match Information::new(backend, sample, &outcome.parameters, bounds) {
        Ok(information) => away.extend(near_bounds(&information, &outcome.parameters, bounds)),
        // A step's information vanishes altogether.
        Err(Missing::Singular(of)) if of.iter().all(Coordinate::is_of_gate) => away.extend(of),
        Err(missing) => return Ending::Singular(missing),
    };
    match away.is_empty() {
        true => Ending::Maximum,
        false => Ending::RunsAway(away),
    }
}

/// Coordinates of the gate within one standard error of a bound.
fn near_bounds(
    information: &Information,
    parameters: &Parameters,
    bounds: &Bounds,
) -> Vec<Coordinate> {
    let layout = parameters.layout();
    let packed = layout.pack(parameters);
    let near = |j: &usize| {
        let mut unit = vec![0.0; packed.len()];
        unit[*j] = 1.0;
        let room = (packed[*j] - bounds.low[*j]).min(bounds.high[*j] - packed[*j]);
        let error = information.standard_error(&unit);
        layout.coordinates()[*j].is_of_gate() && error.is_ok_and(|error| error >= room)
    };
    let near = information.free().iter().copied().filter(|j| near(j));
    near.map(|j| layout.coordinates()[j]).collect()
}
