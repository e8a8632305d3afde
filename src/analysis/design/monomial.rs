//! Products of powers of columns and indicators of levels.

use super::base::{Base, Use, Values, use_of};
use crate::analysis::formula::{Component, Formula, spelled};
use crate::analysis::table::Table;
use crate::error::Result;

/// A term of a formula: powers of number columns times factors, by index of their base
/// columns, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) powers: Vec<(usize, u32)>,
    pub(super) factors: Vec<usize>,
}

/// One column of the model matrix: powers of number columns times indicators of
/// levels (base column, level), ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Monomial {
    pub(super) powers: Vec<(usize, u32)>,
    pub(super) levels: Vec<(usize, usize)>,
}

impl Product {
    fn degree(&self) -> usize {
        let powers = self.powers.iter().map(|p| p.1 as usize);
        powers.sum::<usize>() + self.factors.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.powers.is_empty() && self.factors.is_empty()
    }

    /// How its term is called, levels left open.
    pub(super) fn name(&self, bases: &[Base]) -> String {
        let factors = self.factors.iter().map(|&b| (b, spelled(bases[b].name())));
        let powers = self
            .powers
            .iter()
            .map(|&(b, e)| (b, power_name(bases, b, e)));
        joined(powers.chain(factors))
    }

    /// Its columns: one per combination of levels other than the references.
    pub(super) fn monomials(&self, bases: &[Base]) -> Vec<Monomial> {
        let mut all = vec![Monomial {
            powers: self.powers.clone(),
            levels: Vec::new(),
        }];
        for &factor in &self.factors {
            let with = |level: usize| {
                let with = |monomial: &Monomial| {
                    let mut monomial = monomial.clone();
                    monomial.levels.push((factor, level));
                    monomial
                };
                all.iter().map(with).collect::<Vec<_>>()
            };
            all = (1..level_count(&bases[factor])).flat_map(with).collect();
        }
        all
    }

    /// How many columns it has.
    pub(super) fn width(&self, bases: &[Base]) -> usize {
        let levels = self.factors.iter().map(|&f| level_count(&bases[f]) - 1);
        levels.fold(1, usize::saturating_mul)
    }

    /// True if all its proper divisors of the same factors are among `products`: then
    /// its span with them does not change when a column is shifted.
    pub(super) fn is_hierarchical(&self, products: &[Product]) -> bool {
        let divisors = divisors(&self.powers).filter(|powers| *powers != self.powers);
        let product = |powers| Product {
            powers,
            factors: self.factors.clone(),
        };
        divisors
            .map(product)
            .all(|divisor| divisor.is_empty() || products.contains(&divisor))
    }
}

impl Monomial {
    pub(super) fn is_empty(&self) -> bool {
        self.powers.is_empty() && self.levels.is_empty()
    }

    /// Such as `x^2:sex=male`.
    pub(super) fn name(&self, bases: &[Base]) -> String {
        let levels = self.levels.iter().map(|&(b, level)| {
            let Base::Factor { name, levels } = &bases[b] else {
                unreachable!("levels belong to factors");
            };
            (b, format!("{}={}", spelled(name), spelled(&levels[level])))
        });
        let powers = self
            .powers
            .iter()
            .map(|&(b, e)| (b, power_name(bases, b, e)));
        joined(powers.chain(levels))
    }

    /// Its values, its number columns mapped by `map` (base column, value).
    pub(super) fn values(&self, columns: &[Values], map: impl Fn(usize, f64) -> f64) -> Vec<f64> {
        let rows = columns.first().map_or(0, |column| match column {
            Values::Number(values) => values.len(),
            Values::Levels(levels) => levels.len(),
        });
        let mut product = vec![1.0; rows];
        for &(base, exponent) in &self.powers {
            if let Values::Number(values) = &columns[base] {
                let power = |v: f64| map(base, v).powi(exponent as i32);
                product
                    .iter_mut()
                    .zip(values)
                    .for_each(|(p, &v)| *p *= power(v));
            }
        }
        for &(base, level) in &self.levels {
            if let Values::Levels(levels) = &columns[base] {
                let zip = product.iter_mut().zip(levels);
                zip.filter(|(_, l)| **l != level)
                    .for_each(|(p, _)| *p = 0.0);
            }
        }
        product
    }

    /// The monomials of the same levels whose powers divide its own, itself last.
    pub(super) fn divisors(&self) -> impl Iterator<Item = Monomial> {
        divisors(&self.powers).map(|powers| Monomial {
            powers,
            levels: self.levels.clone(),
        })
    }

    /// True if a base column is in it.
    pub(super) fn has(&self, base: usize) -> bool {
        self.exponent(base) > 0 || self.levels.iter().any(|level| level.0 == base)
    }

    /// The exponent of a base column.
    pub(super) fn exponent(&self, base: usize) -> u32 {
        let found = self.powers.iter().find(|power| power.0 == base);
        found.map_or(0, |power| power.1)
    }
}

/// The products of a formula by rising degree, each once, with all they need so that
/// contrasts lose nothing, and what the user should know.
///
/// A product with factors spans what R's coding does only if the products without
/// some of its factors are there too: those missing are added.
pub(super) fn products(
    table: &Table,
    formula: &Formula,
    uses: &[Use],
    bases: &[Base],
) -> Result<(Vec<Product>, Vec<String>)> {
    let mut all: Vec<Product> = Vec::new();
    let mut warnings = Vec::new();
    for term in &formula.terms {
        let mut product = Product::default();
        for component in &term.components {
            let used = use_of(table, component)?;
            let base = uses.iter().position(|other| *other == used);
            let base = base.expect("every use was collected");
            match component {
                Component::Power { exponent, .. } if !used.as_factor => {
                    product.powers.push((base, *exponent))
                }
                _ => product.factors.push(base),
            }
        }
        product.powers.sort();
        product.factors.sort();
        product.factors.dedup();
        match all.contains(&product) {
            true => warnings.push(format!("{term} is given twice: taken once")),
            false => all.push(product),
        }
    }
    for product in all.clone() {
        for margin in margins(&product) {
            if !margin.is_empty() && !all.contains(&margin) {
                let (margin_name, name) = (margin.name(bases), product.name(bases));
                warnings.push(format!("{margin_name} is added: {name} needs it"));
                all.push(margin);
            }
        }
    }
    all.sort_by_key(Product::degree);
    Ok((all, warnings))
}

/// The product without some of its factors.
fn margins(product: &Product) -> Vec<Product> {
    let mut all = vec![product.clone()];
    for factor in &product.factors {
        let without = |margin: &Product| {
            let mut margin = margin.clone();
            margin.factors.retain(|other| other != factor);
            margin
        };
        let more: Vec<Product> = all.iter().map(without).collect();
        all.extend(more);
    }
    all.split_off(1)
}

/// All vectors of exponents up to the given ones, ascending, themselves last; zero
/// exponents are left out.
fn divisors(powers: &[(usize, u32)]) -> impl Iterator<Item = Vec<(usize, u32)>> {
    let counts = powers.iter().map(|power| u64::from(power.1) + 1);
    let count = counts.fold(1, u64::saturating_mul);
    (0..count).map(move |mut index| {
        let mut exponents = Vec::new();
        for &(base, exponent) in powers {
            let choices = u64::from(exponent) + 1;
            if index % choices > 0 {
                exponents.push((base, (index % choices) as u32));
            }
            index /= choices;
        }
        exponents
    })
}

fn level_count(base: &Base) -> usize {
    match base {
        Base::Factor { levels, .. } => levels.len(),
        Base::Number { .. } => unreachable!("only factors have levels"),
    }
}

fn power_name(bases: &[Base], base: usize, exponent: u32) -> String {
    let component = Component::Power {
        column: bases[base].name().to_string(),
        exponent,
    };
    component.to_string()
}

/// Names in the order of their base columns.
fn joined(parts: impl Iterator<Item = (usize, String)>) -> String {
    let mut parts: Vec<(usize, String)> = parts.collect();
    parts.sort();
    let names: Vec<String> = parts.into_iter().map(|part| part.1).collect();
    names.join(":")
}
