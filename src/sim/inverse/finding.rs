//! Exponents from minima, and what they say about the claims.

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
    /// sqrt(E_X h^2)
    Hellinger,
    /// Error of the masses e^bias.
    RawMass,
    /// Error of the masses e^(bias + kappa^2 variance / 2).
    TiltedMass,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 3] = [Quantity::Hellinger, Quantity::RawMass, Quantity::TiltedMass];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Hellinger => "hellinger",
            Quantity::RawMass => "raw_mass",
            Quantity::TiltedMass => "tilted_mass",
        }
    }

    /// Its value at a minimum.
    pub fn of(self, minimum: &Minimum) -> f64 {
        match self {
            Quantity::Hellinger => minimum.hellinger,
            Quantity::RawMass => minimum.raw_mass,
            Quantity::TiltedMass => minimum.tilted_mass,
        }
    }
}

/// One exponent.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponent {
    /// Of what.
    pub quantity: Quantity,
    /// Least-squares slope of its logarithm on log delta over the window; `None`
    /// without two positive values.
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
    /// Local exponents of h between neighbouring spreads, largest first; one
    /// fewer than minima.
    pub local: Vec<f64>,
    /// Of h first, then of the mass errors.
    pub exponents: Vec<Exponent>,
    /// Minima in the window that are not certified or drown in rounding.
    pub untrusted: usize,
}

impl Minimum {
    /// True if the search closed in on a stationary point.
    pub fn is_certified(&self) -> bool {
        self.promise <= CERTIFIED
    }

    /// True if rounding is small beside the distance.
    pub fn is_above_rounding(&self) -> bool {
        self.rounding <= TRUSTED * self.hellinger
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
    let of_cell = |cell: &InverseCell| finding(cell, minima);
    plan.cells.iter().map(of_cell).collect()
}

fn finding(cell: &InverseCell, minima: &[Minimum]) -> Finding {
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
            let ratio = pair[0].hellinger / pair[1].hellinger;
            ratio.ln() / (pair[0].delta / pair[1].delta).ln()
        })
        .collect();
    let window: Vec<&Minimum> = minima
        .iter()
        .filter(|m| case.is_in_window(m.delta))
        .collect();
    let trusted = |m: &&&Minimum| m.is_certified() && m.is_above_rounding();
    let untrusted = window.len() - window.iter().filter(trusted).count();
    let claims = [
        (Quantity::Hellinger, Some(case.exponent)),
        (Quantity::RawMass, case.raw_mass),
        (Quantity::TiltedMass, case.tilted_mass),
    ];
    let exponents = claims.map(|(quantity, claimed)| {
        let points: Vec<(f64, f64)> = window.iter().map(|m| (m.delta, quantity.of(m))).collect();
        let value = exponent(&points);
        Exponent {
            quantity,
            value,
            claimed,
            verdict: verdict(case, value, claimed, untrusted),
        }
    });
    Finding {
        local,
        exponents: exponents.to_vec(),
        untrusted,
        minima,
    }
}

fn verdict(case: &Case, value: Option<f64>, claimed: Option<f64>, untrusted: usize) -> Verdict {
    match (value, claimed) {
        (_, None) => Verdict::Measured,
        (None, Some(_)) => Verdict::Missing,
        (Some(_), Some(_)) if untrusted > 0 => Verdict::Undecided,
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
