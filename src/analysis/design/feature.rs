//! Standardised columns of the model matrix.

use super::base::{Base, Values};
use super::monomial::Monomial;
use super::standard::moments;

/// How a monomial becomes a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Of u = (x - mean) / deviation: all divisors are in the model, so that the
    /// model stays the same and shifts of x do no harm.
    Centred,
    /// Of x itself.
    Raw,
}

/// A monomial and its standardisation: (monomial of u or x / size - mean) / deviation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Feature {
    pub(super) monomial: Monomial,
    pub(super) coding: Coding,
    /// Of the coded monomial.
    pub(super) mean: f64,
    /// Of the coded monomial; 0 if it is constant.
    pub(super) deviation: f64,
}

impl Feature {
    /// The feature over the rows of `columns`, and its values. A constant feature is
    /// 0.
    pub(super) fn learned(
        monomial: Monomial,
        coding: Coding,
        bases: &[Base],
        columns: &[Values],
    ) -> (Self, Vec<f64>) {
        let mut feature = Feature {
            monomial,
            coding,
            mean: 0.0,
            deviation: 1.0,
        };
        let coded = feature.values(bases, columns);
        (feature.mean, feature.deviation) = moments(&coded);
        let values = feature.values(bases, columns);
        (feature, values)
    }

    /// Its values for any rows.
    pub(super) fn values(&self, bases: &[Base], columns: &[Values]) -> Vec<f64> {
        let mut values = self.monomial.values(columns, |base, x| match &bases[base] {
            Base::Number {
                mean,
                deviation,
                size,
                ..
            } => match self.coding {
                // Halves, so that the difference of huge numbers does not overflow.
                Coding::Centred => (0.5 * x - 0.5 * mean) / deviation * 2.0,
                Coding::Raw => x / size,
            },
            Base::Factor { .. } => unreachable!("powers belong to numbers"),
        });
        for value in &mut values {
            *value = match self.deviation > 0.0 {
                true => (*value - self.mean) / self.deviation,
                false => 0.0,
            };
        }
        values
    }

    /// The feature as a polynomial in raw monomials: monomials with coefficients, its
    /// own monomial last. A constant feature is taken as not scaled.
    pub(super) fn expansion(&self, bases: &[Base]) -> Vec<(Monomial, f64)> {
        let deviation = match self.deviation > 0.0 {
            true => self.deviation,
            false => 1.0,
        };
        let constant = (Monomial::default(), -self.mean / deviation);
        let own = self.monomial.powers.iter().map(|&(base, exponent)| {
            let Base::Number { size, .. } = &bases[base] else {
                unreachable!("powers belong to numbers");
            };
            size.powi(-(exponent as i32))
        });
        let terms: Vec<(Monomial, f64)> = match self.coding {
            Coding::Raw => vec![(self.monomial.clone(), own.product::<f64>() / deviation)],
            Coding::Centred => self
                .monomial
                .divisors()
                .map(|divisor| {
                    let factors = self.monomial.powers.iter().map(|&(base, exponent)| {
                        binomial_term(&bases[base], exponent, divisor.exponent(base))
                    });
                    let coefficient = factors.product::<f64>() / deviation;
                    (divisor, coefficient)
                })
                .collect(),
        };
        std::iter::once(constant).chain(terms).collect()
    }
}

/// The coefficient of x^power in ((x - mean) / deviation)^exponent.
fn binomial_term(base: &Base, exponent: u32, power: u32) -> f64 {
    let Base::Number {
        mean, deviation, ..
    } = base
    else {
        unreachable!("powers belong to numbers");
    };
    let chosen = (0..power).fold(1.0, |c, i| c * f64::from(exponent - i) / f64::from(i + 1));
    let shift = (-mean / deviation).powi((exponent - power) as i32);
    chosen * shift * deviation.powi(-(power as i32))
}
