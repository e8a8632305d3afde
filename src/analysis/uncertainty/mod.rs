//! How sure every quantity of an optimum is.
//!
//! A quantity is f(q), q = offset + w . packed ([`crate::analysis::Quantity`]). Standard
//! errors are those of q times |f'(q)| (delta method); intervals are those of q, ends
//! transformed by f, so that a standard deviation's stay positive. Formulas and sources:
//! [`crate::fit::inference`].
//!
//! A gate that runs away has no maximum: its own quantities have no standard error, and
//! the others' are those with the gate held where the search stopped. So it is with
//! coordinates of a gate along which the likelihood is flat, such as the scale of a top-1
//! router.

mod bootstrap;
mod missing;
mod profile;
#[cfg(test)]
mod study_tests;
#[cfg(test)]
mod tests;

pub use bootstrap::{BootstrapEstimate, BootstrapFits};
pub use missing::Missing;
pub use profile::{Limit, ProfileLimits};

use super::Design;
use super::fitted::{Attainment, Optimum};
use super::quantity::{Quantity, Scale, quantities};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fit::Bounds;
use crate::fit::inference::{self, Bootstrap, Information};
use crate::model::Coordinate;
use statrs::distribution::{ContinuousCDF, Normal};
use std::result::Result as Known;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UncertaintyOptions {
    /// Of all intervals; 0.95 by default.
    pub level: f64,
    /// Standard errors from the expected information too: 137 rows per row and expert.
    pub expected: Expected,
    /// Profile-likelihood intervals: tens of passes over the data each.
    pub profiles: Profiles,
    /// Parametric bootstrap: a refit for every replicate.
    pub bootstrap: Option<Bootstrap>,
}

/// Whether standard errors from the expected information are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// No.
    #[default]
    Skip,
    /// Of every quantity.
    Every,
}

/// Whether profile-likelihood intervals are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profiles {
    /// None.
    #[default]
    Skip,
    /// Of every quantity.
    Every,
}

impl Default for UncertaintyOptions {
    fn default() -> Self {
        UncertaintyOptions {
            level: 0.95,
            expected: Expected::default(),
            profiles: Profiles::default(),
            bootstrap: None,
        }
    }
}

/// The quantities of an optimum, each with what is known of its error.
#[derive(Clone, Debug, PartialEq)]
pub struct Uncertainty {
    /// Of all intervals.
    pub level: f64,
    /// One per quantity, in the order of [`quantities`].
    pub estimates: Vec<Estimate>,
    /// How the bootstrap's refits ended, if there was one.
    pub bootstrap: Option<BootstrapFits>,
}

/// One quantity; what is not known has its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Which.
    pub quantity: Quantity,
    /// In raw units.
    pub value: f64,
    /// |f'| (w' A^-1 w)^(1/2), A the observed information.
    pub standard_error: Known<f64, Missing>,
    /// The same with A the expected information of the model at these inputs, if asked for:
    /// what a parametric bootstrap tends to.
    pub expected_error: Option<Known<f64, Missing>>,
    /// |f'| (w' A^-1 (sum s s') A^-1 w)^(1/2)
    pub sandwich: Known<f64, Missing>,
    /// f(q - z e) and f(q + z e), e the standard error of q from the observed
    /// information.
    pub wald: Known<[f64; 2], Missing>,
    /// Profile-likelihood interval, if asked for.
    pub profile: Option<Known<ProfileLimits, Missing>>,
    /// Parametric bootstrap, if asked for.
    pub bootstrap: Option<Known<BootstrapEstimate, Missing>>,
}

/// Standard errors and intervals of every quantity of `optimum`.
///
/// # Errors
/// [`Error::Value`] if the level does not lie between 0 and 1, or the bootstrap has fewer
/// than 2 replicates. What cannot be computed is no error but a [`Missing`].
pub fn uncertainty(
    backend: &dyn Backend,
    design: &Design,
    optimum: &Optimum,
    options: UncertaintyOptions,
) -> Result<Uncertainty> {
    if !(options.level > 0.0 && options.level < 1.0) {
        let message = format!("must lie between 0 and 1, got {}", options.level);
        return Err(Error::value("level", message));
    }
    if let Some(bootstrap) = options.bootstrap
        && bootstrap.replicates < 2
    {
        let message = format!("needs at least 2 replicates, got {}", bootstrap.replicates);
        return Err(Error::value("bootstrap", message));
    }
    let mut held = Held::new(optimum);
    let observed =
        |bounds: &Bounds| Information::new(backend, &design.data, &optimum.parameters, bounds);
    let mut information = observed(&held.bounds);
    while let Err(inference::Missing::Singular(along)) = &information
        && along.iter().all(Coordinate::is_of_gate)
    {
        held.hold(along);
        information = observed(&held.bounds);
    }
    let context = Context {
        backend,
        design,
        optimum,
        options,
        information,
        expected: match options.expected {
            Expected::Skip => None,
            Expected::Every => Some(Information::expected(
                backend,
                &design.data,
                &optimum.parameters,
                &held.bounds,
            )),
        },
        held,
    };
    let quantities = quantities(design, &optimum.parameters);
    let resampled = options
        .bootstrap
        .map(|bootstrap| bootstrap::resample(&context, &quantities, bootstrap))
        .transpose()?;
    let (fits, resampled) = match resampled {
        None => (None, vec![None; quantities.len()]),
        Some((fits, each)) => (Some(fits), each.into_iter().map(Some).collect()),
    };
    let estimates = quantities.into_iter().zip(resampled);
    Ok(Uncertainty {
        level: options.level,
        estimates: estimates
            .map(|(quantity, bootstrap)| context.estimate(quantity, bootstrap))
            .collect(),
        bootstrap: fits,
    })
}

/// What one quantity's record is made from.
struct Context<'a> {
    backend: &'a dyn Backend,
    design: &'a Design,
    optimum: &'a Optimum,
    options: UncertaintyOptions,
    held: Held,
    information: Known<Information, inference::Missing>,
    expected: Option<Known<Information, inference::Missing>>,
}

/// What does not move: a gate that runs away or is flat is pinned where it is.
struct Held {
    bounds: Bounds,
    packed: Vec<f64>,
    coordinates: Vec<Coordinate>,
    runaway: Vec<Coordinate>,
    flat: Vec<Coordinate>,
}

impl Held {
    fn new(optimum: &Optimum) -> Self {
        let layout = optimum.parameters.layout();
        let packed = layout.pack(&optimum.parameters);
        let coordinates = layout.coordinates().to_vec();
        let runaway = match &optimum.attainment {
            Attainment::NotAttained(along) => along.clone(),
            Attainment::Interior | Attainment::OnBound(_) => Vec::new(),
        };
        let mut held = Held {
            bounds: optimum.bounds.clone(),
            packed,
            coordinates,
            runaway: Vec::new(),
            flat: Vec::new(),
        };
        held.pin(&runaway);
        held.runaway = runaway;
        held
    }

    /// Pins coordinates along which the likelihood is flat.
    fn hold(&mut self, along: &[Coordinate]) {
        self.pin(along);
        self.flat.extend(along);
    }

    fn pin(&mut self, coordinates: &[Coordinate]) {
        for (j, value) in self.packed.iter().enumerate() {
            if coordinates.contains(&self.coordinates[j]) {
                self.bounds.low[j] = *value;
                self.bounds.high[j] = *value;
            }
        }
    }

    /// True if `quantity` is made of one of these.
    fn touches(&self, quantity: &Quantity, coordinates: &[Coordinate]) -> bool {
        let own = self.coordinates.iter().zip(&quantity.weights);
        own.filter(|(_, w)| **w != 0.0)
            .any(|(c, _)| coordinates.contains(c))
    }

    /// The reason why `quantity` has no standard error, if it has none.
    fn check(&self, quantity: &Quantity) -> Known<(), Missing> {
        if self.touches(quantity, &self.runaway) {
            return Err(Missing::RunsAway);
        }
        if self.touches(quantity, &self.flat) {
            return Err(inference::Missing::Singular(self.flat.clone()).into());
        }
        let on = |j: &usize| quantity.weights[*j] != 0.0;
        let touched: Vec<usize> = (0..self.packed.len()).filter(on).collect();
        let free =
            |&j: &usize| !self.bounds.is_pinned(j) && !self.bounds.is_at_bound(&self.packed, j);
        match touched.iter().any(free) {
            true => Ok(()),
            false => Err(Missing::Held(
                touched.into_iter().map(|j| self.coordinates[j]).collect(),
            )),
        }
    }
}

impl Context<'_> {
    fn estimate(
        &self,
        quantity: Quantity,
        bootstrap: Option<Known<BootstrapEstimate, Missing>>,
    ) -> Estimate {
        let form = quantity.linear_form(&self.held.packed);
        let value = quantity.transformed(form);
        let slope = match quantity.scale {
            Scale::Linear => 1.0,
            Scale::Exponential => value,
        };
        let observed = &self.information;
        let error = self.error(&quantity, observed, Information::standard_error);
        let sandwich = self.error(&quantity, observed, Information::sandwich);
        let expected = self.expected.as_ref();
        let expected = expected.map(|e| self.error(&quantity, e, Information::standard_error));
        let wide = Normal::standard().inverse_cdf(0.5 + 0.5 * self.options.level);
        let wald = error
            .clone()
            .map(|error| [-wide, wide].map(|times| quantity.transformed(form + times * error)));
        let profile = match self.options.profiles {
            Profiles::Skip => None,
            Profiles::Every => Some(profile::limits(self, &quantity)),
        };
        Estimate {
            value,
            standard_error: error.map(|error| slope * error),
            expected_error: expected.map(|error| error.map(|error| slope * error)),
            sandwich: sandwich.map(|error| slope * error),
            wald,
            profile,
            bootstrap,
            quantity,
        }
    }

    /// A standard error of the linear form.
    fn error(
        &self,
        quantity: &Quantity,
        information: &Known<Information, inference::Missing>,
        of: fn(&Information, &[f64]) -> Known<f64, inference::Missing>,
    ) -> Known<f64, Missing> {
        self.held.check(quantity)?;
        let information = information.as_ref().map_err(|m| m.clone())?;
        Ok(of(information, &quantity.weights)?)
    }
}
