//! Exponents from minima, and what they say about the claims.

use super::distance::Distance;
use super::minimum::Minimum;
use super::study::{Case, InverseCell, InversePlan};
use crate::sim::Verdict;
use crate::sim::rate::unweighted_slope;

/// A minimum is used if a Gauss-Newton step promises at most this: h is then
/// known to a relative 5e-7 as far as the linearised problem tells.
const CERTIFIED: f64 = 1e-3;
/// And if rounding is at most this share of it: exponents then move by less than
/// 0.005 even over a window of half a decade.
const TRUSTED: f64 = 1e-3;

/// What is measured at a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// What was minimised.
    Distance(Distance),
    /// Error of the masses e^bias.
    RawMass,
    /// Error of the masses e^(bias + kappa^2 variance / 2).
    TiltedMass,
}

impl Quantity {
    /// Those that a study which minimises `distance` measures; the distance first.
    /// Tilted masses belong to densities.
    pub fn measured(distance: Distance) -> Vec<Quantity> {
        let mut all = vec![Quantity::Distance(distance), Quantity::RawMass];
        if distance == Distance::Hellinger {
            all.push(Quantity::TiltedMass);
        }
        all
    }

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Distance(distance) => distance.name(),
            Quantity::RawMass => "raw_mass",
            Quantity::TiltedMass => "tilted_mass",
        }
    }

    /// In the heading of a column.
    pub fn heading(self) -> &'static str {
        match self {
            Quantity::Distance(distance) => distance.symbol(),
            Quantity::RawMass => "raw",
            Quantity::TiltedMass => "tilted",
        }
    }

    /// Its value at a minimum.
    pub fn of(self, minimum: &Minimum) -> f64 {
        match self {
            Quantity::Distance(_) => minimum.distance,
            Quantity::RawMass => minimum.raw_mass,
            Quantity::TiltedMass => minimum.tilted_mass,
        }
    }

    /// What a case claims of it.
    pub fn claimed(self, case: &Case) -> Option<f64> {
        match self {
            Quantity::Distance(_) => Some(case.exponent),
            Quantity::RawMass => case.raw_mass,
            Quantity::TiltedMass => case.tilted_mass,
        }
    }
}

/// One exponent.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponent {
    /// Of what.
    pub quantity: Quantity,
    /// Least-squares slope of its logarithm on log delta over the window; infinite
    /// for a distance that is zero to rounding all over it; `None` without two
    /// positive values.
    pub value: Option<f64>,
    /// What is claimed, if anything is.
    pub claimed: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
}

/// What the minima of one cell say.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The minima, largest spread first.
    pub minima: Vec<Minimum>,
    /// Local exponents of the distance between neighbouring spreads, largest first; one
    /// fewer than minima.
    pub local: Vec<f64>,
    /// Of the distance first, then of the mass errors.
    pub exponents: Vec<Exponent>,
    /// Minima in the window that are not certified or drown in rounding, unless it
    /// is claimed that they do.
    pub untrusted: usize,
}

impl Minimum {
    /// True if the search closed in on a stationary point.
    pub fn is_certified(&self) -> bool {
        self.promise <= CERTIFIED
    }

    /// True if rounding is small beside the distance.
    pub fn is_above_rounding(&self) -> bool {
        self.rounding <= TRUSTED * self.distance
    }

    /// True if rounding alone can be the distance.
    pub fn is_zero(&self) -> bool {
        self.distance <= self.rounding
    }
}

impl Finding {
    /// The worst verdict on the cell's claims.
    pub fn verdict(&self) -> Verdict {
        let order = [Verdict::Missing, Verdict::Fails, Verdict::Undecided];
        let given = |verdict: &Verdict| self.exponents.iter().any(|e| e.verdict == *verdict);
        order.into_iter().find(given).unwrap_or(Verdict::Holds)
    }

    /// True if no claim failed or lacks minima.
    pub fn holds(&self) -> bool {
        !matches!(self.verdict(), Verdict::Missing | Verdict::Fails)
    }
}

/// The findings of all cells, in plan order.
pub fn findings(plan: &InversePlan, minima: &[Minimum]) -> Vec<Finding> {
    let of_cell = |cell: &InverseCell| finding(plan.study.distance, cell, minima);
    plan.cells.iter().map(of_cell).collect()
}

fn finding(distance: Distance, cell: &InverseCell, minima: &[Minimum]) -> Finding {
    let case = &cell.case;
    let mut minima: Vec<Minimum> = minima
        .iter()
        .filter(|m| {
            (m.gate.as_str(), m.coordinate, m.copies)
                == (cell.gate.as_str(), case.coordinate, case.copies)
        })
        .cloned()
        .collect();
    minima.sort_by(|a, b| b.delta.total_cmp(&a.delta));
    let local = minima
        .windows(2)
        .map(|pair| {
            if pair[1].is_zero() {
                return f64::INFINITY;
            }
            let ratio = pair[0].distance / pair[1].distance;
            ratio.ln() / (pair[0].delta / pair[1].delta).ln()
        })
        .collect();
    let window: Vec<&Minimum> = minima
        .iter()
        .filter(|m| case.is_in_window(m.delta))
        .collect();
    let vanishes = window.len() > 1 && window.iter().all(|m| m.is_zero());
    let trusted = |m: &&&Minimum| match m.is_zero() {
        true => case.exponent.is_infinite(),
        false => m.is_certified() && m.is_above_rounding(),
    };
    let untrusted = window.len() - window.iter().filter(trusted).count();
    let exponents = Quantity::measured(distance).into_iter().map(|quantity| {
        let points: Vec<(f64, f64)> = window.iter().map(|m| (m.delta, quantity.of(m))).collect();
        let value = match (quantity, vanishes) {
            (Quantity::Distance(_), true) => Some(f64::INFINITY),
            // Where the distance is zero the masses are anything.
            (_, true) => None,
            _ => exponent(&points),
        };
        let claimed = quantity.claimed(case);
        Exponent {
            quantity,
            value,
            claimed,
            verdict: verdict(case, value, claimed, untrusted),
        }
    });
    let exponents = exponents.collect();
    Finding {
        local,
        exponents,
        untrusted,
        minima,
    }
}

fn verdict(case: &Case, value: Option<f64>, claimed: Option<f64>, untrusted: usize) -> Verdict {
    match (value, claimed) {
        (_, None) => Verdict::Measured,
        (None, Some(_)) => Verdict::Missing,
        (Some(_), Some(_)) if untrusted > 0 => Verdict::Undecided,
        (Some(value), Some(claimed)) if value == claimed => Verdict::Holds,
        (Some(value), Some(claimed)) if (value - claimed).abs() <= case.tolerance => Verdict::Holds,
        _ => Verdict::Fails,
    }
}

/// Slope of log y on log x; `None` without two points or if a y is not positive.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    if points.len() < 2 || points.iter().any(|(_, y)| !(*y > 0.0 && y.is_finite())) {
        return None;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    unweighted_slope(&logs)
}
