//! What a study file must satisfy beyond its types.

use super::{Fit, Labels, MOST_COUNTED, Replicates, Sizes, Study, Truth};
use crate::error::{Error, Result};
use crate::sim::claim::{Claim, Constant};
use crate::sim::column::Loss;
use std::collections::HashSet;

impl Study {
    pub(super) fn validate(&self) -> Result<()> {
        let unique = |key: &str, names: Vec<&str>| {
            let distinct: HashSet<_> = names.iter().collect();
            let plain = names.iter().all(|n| {
                !n.is_empty() && !n.contains([',', '/', '=', '"', '\n']) && n.trim() == *n
            });
            if distinct.len() == names.len() && plain {
                return Ok(());
            }
            Err(Error::value(
                key,
                "names must be distinct, not empty, and free of , / = and quotes",
            ))
        };
        unique(
            "grid.gate",
            self.grid.gate.iter().map(|g| g.name.as_str()).collect(),
        )?;
        unique(
            "grid.start",
            self.grid.start.iter().map(|s| s.name.as_str()).collect(),
        )?;
        unique(
            "grid.fit",
            self.grid.fit.iter().map(|f| f.name.as_str()).collect(),
        )?;
        if let Truth::Files(truth) = &self.truth {
            unique(
                "truth.files",
                truth.files.iter().map(|f| f.name.as_str()).collect(),
            )?;
            if truth.files.is_empty() {
                return Err(Error::value("truth.files", "needs at least one file"));
            }
        }
        let fits = self.fits()?;
        let losses: HashSet<_> = self.losses.iter().collect();
        if losses.len() != self.losses.len() {
            return Err(Error::value("losses", "must be distinct"));
        }
        if let Sizes::LogSpaced(spaced) = &self.grid.n
            && !(2..=1000).contains(&spaced.points)
        {
            return Err(Error::value("grid.n", "points must be between 2 and 1000"));
        }
        let sizes = self.grid.n.values();
        let distinct: HashSet<_> = sizes.iter().collect();
        if sizes.is_empty() || distinct.len() != sizes.len() || sizes.contains(&0) {
            return Err(Error::value(
                "grid.n",
                "must be distinct positive sizes, at least one",
            ));
        }
        if sizes.iter().any(|&n| n > MOST_COUNTED) {
            return Err(Error::value("grid.n", "must be at most 10^12"));
        }
        match &self.replicates {
            Replicates::Fixed(0) => {
                return Err(Error::value("replicates", "must be at least 1"));
            }
            Replicates::Fixed(_) => {}
            Replicates::Precision(p) => {
                if !(p.target_slope_se > 0.0 && p.pilot >= 10 && p.at_most >= p.pilot) {
                    return Err(Error::value(
                        "replicates",
                        "needs target_slope_se > 0, pilot >= 10 and at_most >= pilot",
                    ));
                }
                if self.first_slope().is_none() {
                    return Err(Error::value("replicates", "a target needs a slope claim"));
                }
            }
        }
        let without_starts = match self.grid.start.is_empty() {
            true => fits.iter().any(|(_, fit)| fit.starts.is_empty()),
            false => self.grid.start.iter().any(|s| s.starts.is_empty()),
        };
        if without_starts {
            return Err(Error::value(
                "fit.starts",
                "at least one start is needed: there is no default",
            ));
        }
        let with_starts = fits.iter().any(|(_, fit)| !fit.starts.is_empty());
        if !self.grid.start.is_empty() && with_starts {
            return Err(Error::value(
                "fit.starts",
                "is given twice: here and in [[grid.start]]",
            ));
        }
        for (k, (_, fit)) in fits.iter().enumerate() {
            if !(fit.gain >= 0.0 && fit.gain.is_finite()) {
                let error = Error::value("fit.gain", "must be finite and not negative");
                return Err(self.blame(k, error));
            }
            let limits = fit.limits.validate("fit.limits");
            limits.map_err(|e| self.blame(k, e))?;
            let plain = |loss: &Loss| loss.is_of_density();
            if fit.distillation.is_some() && !self.losses.iter().all(plain) {
                let message = "a distilled router has another gate than the truth: its losses are \
                               those of densities";
                return Err(Error::value("losses", message));
            }
        }
        self.validate_claims(&fits)
    }

    /// An error about a key of `[fit]`, with the key of the variant that replaced it.
    pub(in crate::sim) fn blame(&self, fit: usize, error: Error) -> Error {
        let Error::Value { key, message } = error else {
            return error;
        };
        let replaced = key.strip_prefix("fit.").filter(|path| {
            let name = path.split('.').next().unwrap_or_default();
            let variant = self.grid.fit.get(fit);
            variant.is_some_and(|v| v.replaced.contains_key(name))
        });
        let key = match replaced {
            Some(path) => format!("grid.fit[{fit}].{path}"),
            None => key,
        };
        Error::Value { key, message }
    }

    /// What a claim needs of the rows and of the estimators that it is about.
    fn validate_needs(&self, claim: &Claim, fits: &[(Option<String>, Fit)]) -> Result<()> {
        if claim.needs_parameters() && !self.record_parameters {
            return Err(Error::value("kind", "needs record_parameters = true"));
        }
        if matches!(claim, Claim::Intervals { .. }) && !self.record_standard_errors {
            return Err(Error::value("kind", "needs record_standard_errors = true"));
        }
        let combinations = self.combinations();
        let concerned = combinations.iter().filter(|c| claim.concerns(&c.series));
        let mut judged: Vec<&Fit> = concerned.map(|c| &fits[c.fit].1).collect();
        if let Claim::Efficiency { reference, .. } = claim {
            let is_reference =
                |(name, _): &&(Option<String>, Fit)| name.as_ref() == Some(reference);
            judged.extend(fits.iter().filter(is_reference).map(|(_, fit)| fit));
        }
        let is_exact = |fit: &&Fit| fit.copies.iter().all(|&c| c == 1);
        if claim.needs_exact_fit() && !judged.iter().all(is_exact) {
            let message = "needs fits with the truth's own number of experts, not copies: sharp \
                           constants exist for them alone";
            return Err(Error::value("kind", message));
        }
        let is_hidden = |fit: &&Fit| fit.labels == Labels::Hidden;
        if claim.constant() == Some(Constant::HellingerSq) && !judged.iter().all(is_hidden) {
            let message = "tends to 1 only where the labels are hidden";
            return Err(Error::value("constant", message));
        }
        Ok(())
    }

    fn validate_claims(&self, fits: &[(Option<String>, Fit)]) -> Result<()> {
        for (i, claim) in self.claim.iter().enumerate() {
            let table = format!("claim[{i}]");
            let key = |name: &str| format!("{table}.{name}");
            self.validate_needs(claim, fits)
                .map_err(|e| e.under(&table))?;
            let (loss, window) = match claim {
                Claim::Slope {
                    loss,
                    window,
                    accept,
                    ..
                } => {
                    if !is_positive(accept[1] - accept[0]) {
                        return Err(Error::value(key("accept"), "must be [low, high]"));
                    }
                    (Some(*loss), Some(*window))
                }
                Claim::SampleSize {
                    loss,
                    window,
                    accuracy,
                } => {
                    if !is_positive(*accuracy) {
                        return Err(Error::value(key("accuracy"), "must be positive"));
                    }
                    (Some(*loss), Some(*window))
                }
                Claim::Coverage { loss, group, .. } => {
                    if *group < 2 {
                        return Err(Error::value(key("group"), "must be at least 2"));
                    }
                    (Some(*loss), None)
                }
                Claim::Passes {
                    median,
                    percentile_99,
                } => {
                    if !(is_positive(*median) && is_positive(*percentile_99)) {
                        return Err(Error::value(key("median"), "limits must be positive"));
                    }
                    (None, None)
                }
                Claim::Level { loss, accept, .. } => {
                    if !is_positive(accept[1] - accept[0]) {
                        return Err(Error::value(key("accept"), "must be [low, high]"));
                    }
                    (Some(*loss), None)
                }
                Claim::Intervals { accept, from, .. } => {
                    if !is_positive(accept[1] - accept[0]) {
                        return Err(Error::value(key("accept"), "must be [low, high]"));
                    }
                    (None, Some([*from, f64::INFINITY]))
                }
                Claim::Efficiency {
                    of,
                    reference,
                    from,
                    tolerance,
                    ..
                } => {
                    for (name, level) in [("of", of), ("reference", reference)] {
                        if !self.grid.fit.iter().any(|f| f.name == *level) {
                            let message = format!("\"{level}\" is no level of grid.fit");
                            return Err(Error::value(key(name), message));
                        }
                    }
                    if of == reference {
                        return Err(Error::value(key("reference"), "must differ from `of`"));
                    }
                    if !is_positive(*tolerance) {
                        return Err(Error::value(key("tolerance"), "must be positive"));
                    }
                    (None, Some([*from, f64::INFINITY]))
                }
                Claim::ChiSquare {
                    constant: Constant::Coordinates,
                    ..
                } => {
                    let message = "the mean over coordinates has no chi-square law";
                    return Err(Error::value(key("constant"), message));
                }
                Claim::ChiSquare {
                    constant,
                    from,
                    confidence,
                    ..
                } => {
                    if !(*confidence > 0.0 && *confidence < 1.0) {
                        let message = "must lie between 0 and 1";
                        return Err(Error::value(key("confidence"), message));
                    }
                    let needs = *constant == Constant::HellingerSq;
                    let window = [*from, f64::INFINITY];
                    (needs.then_some(Loss::HellingerSqMean), Some(window))
                }
                Claim::Constant {
                    constant,
                    tolerance,
                    ..
                } => {
                    if !is_positive(*tolerance) {
                        return Err(Error::value(key("tolerance"), "must be positive"));
                    }
                    let needs = *constant == Constant::HellingerSq;
                    (needs.then_some(Loss::HellingerSqMean), None)
                }
            };
            if let Some(loss) = loss
                && !self.losses.contains(&loss)
            {
                return Err(Error::value(
                    key("loss"),
                    format!("needs \"{loss}\" among the study's losses"),
                ));
            }
            let inside = |window: [f64; 2]| {
                let sizes = self.grid.n.values();
                sizes
                    .iter()
                    .filter(|&&n| (window[0]..=window[1]).contains(&(n as f64)))
                    .count()
            };
            let fewest = match claim {
                Claim::Slope { .. } | Claim::SampleSize { .. } => 2,
                _ => 1,
            };
            if let Some(window) = window
                && inside(window) < fewest
            {
                return Err(match fewest {
                    2 => Error::value(key("window"), "must hold at least two of grid.n"),
                    _ => Error::value(key("from"), "is larger than every n"),
                });
            }
            let combinations = self.combinations();
            if !combinations.iter().any(|c| claim.concerns(&c.series)) {
                return Err(Error::value(key("series"), "is part of no series' name"));
            }
        }
        Ok(())
    }
}

/// False for NaN too.
fn is_positive(value: f64) -> bool {
    value > 0.0
}
