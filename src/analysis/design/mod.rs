//! What a model sees of a table: standardised features, and the way back to raw units.

mod base;
mod feature;
mod monomial;
mod new_rows;
#[cfg(test)]
mod random_tests;
mod side;
mod standard;
#[cfg(test)]
mod tests;

pub use new_rows::NewRows;

use crate::analysis::formula::Formula;
use crate::analysis::table::{Table, quoted, shortened};
use crate::error::Result;
use crate::model::Data;
use base::{Base, Values};
use feature::{Coding, Feature};
use monomial::Product;
use ndarray::{Array1, Array2};
use side::{Candidate, Reduced};

/// Standardised data of one response, one set of expert terms and one of gate terms.
///
/// A feature is a column of mean 0 and standard deviation 1; experts and gate use some
/// of the features each, the others' slopes are held at 0.
#[derive(Clone, Debug)]
pub struct Design {
    /// The features and the standardised response, rows with missing values left out.
    pub data: Data,
    /// The response y = mean + deviation * standardised.
    pub response: Scaled,
    /// The experts' terms.
    pub expert: Side,
    /// The gate's terms.
    pub gate: Side,
    /// The row of the table, from 0, of every row of `data`.
    pub rows: Vec<usize>,
    /// What the user should know: rows left out, terms dropped.
    pub warnings: Vec<String>,
    bases: Vec<Base>,
    features: Vec<Feature>,
}

/// A column and its scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// Name of the column.
    pub name: String,
    /// Its mean over the rows used.
    pub mean: f64,
    /// Its standard deviation over them (divisor n).
    pub deviation: f64,
}

/// The terms of an affine predictor.
///
/// predictor = intercept + slope . features = sum over terms of raw_t * term_t, with
/// raw = `to_raw` (intercept, slope).
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Names of the raw terms; the first is `(Intercept)`.
    pub terms: Vec<String>,
    /// The features it uses, in order.
    pub features: Vec<usize>,
    /// Shape: terms, 1 + features of the design.
    pub to_raw: Array2<f64>,
}

/// The most columns a predictor may have: fits take their number cubed.
const MOST_TERMS: usize = 200;

#[cfg(test)]
impl Design {
    /// A design made by hand: every row of a table is used, and nothing is known of
    /// new rows.
    pub(crate) fn by_hand(data: Data, response: Scaled, expert: Side, gate: Side) -> Self {
        Design {
            rows: (0..data.len()).collect(),
            data,
            response,
            expert,
            gate,
            warnings: Vec::new(),
            bases: Vec::new(),
            features: Vec::new(),
        }
    }
}

impl Design {
    /// The log-likelihood of the responses in raw units from that of the standardised
    /// ones: l - n log deviation.
    pub fn raw_log_likelihood(&self, standardised: f64) -> f64 {
        standardised - self.data.sample_size() * self.response.deviation.ln()
    }

    /// The rows of `table` without missing values in the response and the columns of
    /// the formulas, standardised.
    ///
    /// A term all of whose divisors are terms too (x^2 with x) is computed from the
    /// standardised columns, so that neither units nor origin of a column matter. A
    /// term without them (x^2 without x) is the standardised raw product: such a model
    /// is another one when the origin of x is moved. Factors are coded by treatment
    /// contrasts, `name=level` for each level but the first. Constant terms and linear
    /// combinations of earlier terms are dropped with a warning; terms are in order of
    /// their degree.
    ///
    /// # Errors
    /// [`crate::error::Error::Input`] with the line, where there is one: columns that
    /// are missing or not finite numbers, a constant response, too many terms for the
    /// rows, a factor with one level per row.
    pub fn new(table: &Table, response: &str, expert: &Formula, gate: &Formula) -> Result<Self> {
        table.numbers(response)?;
        let mut uses = Vec::new();
        base::add_uses(table, expert, &mut uses)?;
        base::add_uses(table, gate, &mut uses)?;
        if uses.iter().any(|used| used.column == response) {
            let name = quoted(response);
            return Err(table.error(format!("{name} is the response: it cannot be a term")));
        }
        let mut columns = vec![response];
        columns.extend(uses.iter().map(|used| used.column.as_str()));
        let (rows, note) = base::complete_rows(table, &columns)?;
        let mut warnings = table.warnings.clone();
        warnings.extend(note);

        let learned = uses.iter().map(|used| Base::learned(table, used, &rows));
        let bases: Vec<Base> = learned.collect::<Result<_>>()?;
        let values = bases.iter().map(|base| base.values(table, &rows));
        let values: Vec<Values> = values.collect::<Result<_>>()?;
        let (response, responses) = standardised_response(table, response, &rows)?;

        let mut features: Vec<Candidate> = Vec::new();
        let mut sides = Vec::new();
        for (name, formula) in [("expert", expert), ("gate", gate)] {
            let say = |text: String| format!("{name} terms: {text}");
            warnings.extend(formula.warnings.iter().cloned().map(say));
            let (products, notes) = monomial::products(table, formula, &uses, &bases)?;
            warnings.extend(notes.into_iter().map(say));
            check_width(table, name, &products, &bases, rows.len())?;
            let narrow = products.iter().filter(|p| p.width(&bases) == 0);
            let dropped = |p: &Product| {
                let name = shortened(&p.name(&bases));
                format!("{name} is dropped: a factor has one level only")
            };
            warnings.extend(narrow.map(dropped).map(say));
            let candidates = candidates(&products, &bases, &values);
            let reduced = side::reduced(&candidates, &bases)?;
            warnings.extend(reduced.warnings.iter().cloned().map(say));
            let scale = match name {
                "expert" => response.deviation,
                _ => 1.0,
            };
            check_range(table, &reduced, scale)?;
            let mut candidates: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
            let used: Vec<usize> = reduced
                .kept
                .iter()
                .map(|&k| {
                    let candidate = candidates[k].take().expect("each is kept once");
                    let shared = features.iter().position(|f| f.feature == candidate.feature);
                    shared.unwrap_or_else(|| {
                        features.push(candidate);
                        features.len() - 1
                    })
                })
                .collect();
            sides.push((used, reduced));
        }
        let dimension = features.len();
        let mut columns = Array2::zeros((dimension, rows.len()));
        for (mut column, feature) in columns.rows_mut().into_iter().zip(&features) {
            column.assign(&Array1::from(feature.values.clone()));
        }
        let mut sides = sides.into_iter().map(|side| Side::new(side, dimension));
        Ok(Design {
            data: Data::from_columns(columns, Array1::from(responses))?,
            response,
            expert: sides.next().expect("two sides"),
            gate: sides.next().expect("two sides"),
            rows,
            warnings,
            bases,
            features: features.into_iter().map(|f| f.feature).collect(),
        })
    }
}

impl Side {
    fn new((features, reduced): (Vec<usize>, Reduced), dimension: usize) -> Self {
        let mut to_raw = Array2::zeros((reduced.terms.len(), 1 + dimension));
        let places = std::iter::once(0).chain(features.iter().map(|j| 1 + j));
        for (from, to) in places.enumerate() {
            to_raw.column_mut(to).assign(&reduced.to_raw.column(from));
        }
        Side {
            terms: reduced.terms,
            features,
            to_raw,
        }
    }
}

/// The columns of the model matrix before any is dropped, divisors first.
fn candidates(products: &[Product], bases: &[Base], values: &[Values]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for product in products {
        let coding = match product.is_hierarchical(products) {
            true => Coding::Centred,
            false => Coding::Raw,
        };
        for monomial in product.monomials(bases) {
            let (feature, values) = Feature::learned(monomial, coding, bases, values);
            all.push(Candidate { feature, values });
        }
    }
    all
}

/// The scale of the response and its standardised values in `rows`.
fn standardised_response(table: &Table, name: &str, rows: &[usize]) -> Result<(Scaled, Vec<f64>)> {
    let raw = base::numbers(table, name, rows)?;
    let (mean, deviation) = standard::moments(&raw);
    if deviation == 0.0 {
        let (name, value) = (quoted(name), raw[0]);
        return Err(table.error(format!(
            "the response {name} is constant: all {} values are {value:?}",
            raw.len()
        )));
    }
    let response = Scaled {
        name: name.to_string(),
        mean,
        deviation,
    };
    let values = raw.iter().map(|&y| response.standardised(y)).collect();
    Ok((response, values))
}

impl Scaled {
    /// (value - mean) / deviation
    pub fn standardised(&self, value: f64) -> f64 {
        // Halves, so that the difference of huge numbers does not overflow.
        (0.5 * value - 0.5 * self.mean) / self.deviation * 2.0
    }

    /// mean + deviation * standardised
    pub fn raw(&self, standardised: f64) -> f64 {
        self.mean + self.deviation * standardised
    }
}

/// Fewer columns than rows, and no factor that has one level per row.
fn check_width(
    table: &Table,
    side: &str,
    products: &[Product],
    bases: &[Base],
    rows: usize,
) -> Result<()> {
    for product in products {
        for &factor in &product.factors {
            if let Base::Factor { name, levels } = &bases[factor]
                && levels.len() == rows
                && rows > 1
            {
                let name = quoted(name);
                return Err(table.error(format!(
                    "the factor {name} has a level of its own in each of the {rows} rows"
                )));
            }
        }
    }
    let widths = products.iter().map(|product| product.width(bases));
    let width = widths.fold(1, usize::saturating_add);
    let (limit, reason) = match width >= rows {
        true => (rows, format!("fewer than the {rows} rows")),
        false => (MOST_TERMS, format!("at most {MOST_TERMS}")),
    };
    match width >= rows || width > limit {
        false => Ok(()),
        true => Err(table.error(format!(
            "{side} terms: expected {reason}, got {width} with the intercept and the levels of \
             factors"
        ))),
    }
}

/// Raw coefficients that floating point can hold.
fn check_range(table: &Table, reduced: &Reduced, scale: f64) -> Result<()> {
    const RANGE: std::ops::RangeInclusive<f64> = 1e-300..=1e300;
    for k in 1..reduced.terms.len() {
        let column = reduced.to_raw.column(k);
        let own = column[k].abs();
        let held = RANGE.contains(&own) && RANGE.contains(&(own * scale));
        if !held || column.iter().any(|v| !(v * scale).is_finite()) {
            let term = shortened(&reduced.terms[k]);
            return Err(table.error(format!(
                "the coefficient of {term} in raw units is beyond floating-point numbers: \
                 rescale its columns or the response"
            )));
        }
    }
    Ok(())
}
