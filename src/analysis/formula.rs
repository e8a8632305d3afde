//! Formulas: which terms of the columns a predictor is made of.

use crate::analysis::table::{shortened, shown};
use crate::error::{Error, Result};
use std::fmt;

/// The terms of an affine predictor; the intercept is always there.
///
/// ```text
/// formula   = "" | "1" | term { "," term }
/// term      = component { ":" component }          a product
/// component = name | name "^" 1..9 | "factor(" name ")"
/// name      = text without , : ^ ( ) ` | "`" any text without ` "`"
/// ```
///
/// A factor stands for one indicator per level but the first (treatment contrasts). A
/// plain name of a column of text is a factor, too, unless more than half of its cells
/// are numbers: that is a column of numbers with mistakes, and an error where it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formula {
    /// In the order given, each once.
    pub terms: Vec<Term>,
    /// What the user should know: terms given twice.
    pub warnings: Vec<String>,
}

/// A product of components, each column once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// In the order given.
    pub components: Vec<Component>,
}

/// What a column brings to a product.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The column to a power.
    Power {
        /// Name of the column.
        column: String,
        /// From 1 to 9.
        exponent: u32,
    },
    /// The levels of the column.
    Levels {
        /// Name of the column.
        column: String,
    },
}

/// Characters with a meaning in formulas and in names of terms.
const SPECIAL: [char; 7] = [',', ':', '^', '(', ')', '=', '`'];
/// Largest exponent.
const LARGEST: u32 = 9;
/// Most columns in a product: what a product needs grows as two to their number.
const MOST_COLUMNS: usize = 8;

impl Formula {
    /// Reads a formula such as ``x,x^2,factor(sex),x:z,`odd, name` ``.
    ///
    /// # Errors
    /// [`Error::Value`] that says which term is wrong and what was expected.
    pub fn parse(text: &str) -> Result<Self> {
        let mut formula = Formula {
            terms: Vec::new(),
            warnings: Vec::new(),
        };
        if matches!(text.trim(), "" | "1") {
            return Ok(formula);
        }
        for (i, part) in split(text, ',').into_iter().enumerate() {
            let part = part.trim();
            let term = match part {
                "1" => continue,
                _ => Term::parse(part).map_err(|expected| {
                    let got = shown(part);
                    Error::value("formula", format!("term {}: {expected}, got {got}", i + 1))
                })?,
            };
            match formula.terms.iter().any(|other| other.is_same(&term)) {
                true => formula.warnings.push(format!(
                    "{} is given twice: taken once",
                    shortened(&term.to_string())
                )),
                false => formula.terms.push(term),
            }
        }
        Ok(formula)
    }
}

impl Term {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut components: Vec<Component> = Vec::new();
        let parts = split(text, ':');
        if parts.len() > MOST_COLUMNS {
            return Err(format!(
                "expected a product of at most {MOST_COLUMNS} columns"
            ));
        }
        for part in parts {
            let new = Component::parse(part.trim())?;
            let old = components.iter_mut().find(|old| old.is_like(&new));
            match (old, &new) {
                (None, _) => components.push(new),
                (Some(Component::Power { exponent, .. }), Component::Power { exponent: e, .. }) => {
                    *exponent += e;
                    if *exponent > LARGEST {
                        return Err(format!("expected powers up to {LARGEST}"));
                    }
                }
                (Some(_), _) => {}
            }
        }
        Ok(Term { components })
    }

    /// True if both are one product, whatever the order.
    fn is_same(&self, other: &Term) -> bool {
        let sorted = |term: &Term| {
            let mut components = term.components.clone();
            components.sort();
            components
        };
        sorted(self) == sorted(other)
    }
}

impl Component {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        if let Some(rest) = text.strip_prefix("factor(") {
            let inside = rest
                .strip_suffix(')')
                .ok_or("expected a closing parenthesis after factor(")?;
            return Ok(Component::Levels {
                column: name(inside)?,
            });
        }
        let parts = split(text, '^');
        let exponent = match parts[..] {
            [_] => 1,
            [_, exponent] => exponent
                .trim()
                .parse()
                .ok()
                .filter(|e| (1..=LARGEST).contains(e))
                .ok_or(format!("expected a whole power from 1 to {LARGEST}"))?,
            _ => return Err("expected one power".into()),
        };
        Ok(Component::Power {
            column: name(parts[0])?,
            exponent,
        })
    }

    /// Name of the column.
    pub fn column(&self) -> &str {
        match self {
            Component::Power { column, .. } | Component::Levels { column } => column,
        }
    }

    /// True if both bring the same column in the same way.
    fn is_like(&self, other: &Component) -> bool {
        self.column() == other.column()
            && std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, component) in self.components.iter().enumerate() {
            let separator = if i > 0 { ":" } else { "" };
            write!(f, "{separator}{component}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = spelled(self.column());
        match self {
            Component::Power { exponent: 1, .. } => write!(f, "{name}"),
            Component::Power { exponent, .. } => write!(f, "{name}^{exponent}"),
            Component::Levels { .. } => write!(f, "factor({name})"),
        }
    }
}

/// A name as formulas and names of terms spell it: odd ones in backquotes.
pub(super) fn spelled(name: &str) -> String {
    match name.contains(SPECIAL) {
        true => format!("`{name}`"),
        false => name.to_string(),
    }
}

fn name(text: &str) -> std::result::Result<String, String> {
    let text = text.trim();
    let (bare, odd): (&str, &[char]) = match text.strip_prefix('`') {
        Some(rest) => (
            rest.strip_suffix('`')
                .ok_or("expected a closing backquote")?,
            &['`'],
        ),
        None => (text, &SPECIAL),
    };
    if bare.is_empty() {
        return Err("expected the name of a column".into());
    }
    if bare.contains(odd) {
        return Err(
            "expected a name, name^2, name:name or factor(name), odd names in \
                    backquotes"
                .into(),
        );
    }
    Ok(bare.to_string())
}

/// The parts between separators outside backquotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut outside = true;
    text.split(|c| {
        outside ^= c == '`';
        outside && c == separator
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        let formula = Formula::parse(text).unwrap();
        formula.terms.iter().map(Term::to_string).collect()
    }

    #[test]
    fn every_kind_of_term_is_read_and_spelled() {
        assert_eq!(
            terms("x, x^2,factor(sex),x:z^2:factor(a b),`5-YearMean`,`a:b`^3,1 2"),
            [
                "x",
                "x^2",
                "factor(sex)",
                "x:z^2:factor(a b)",
                "5-YearMean",
                "`a:b`^3",
                "1 2"
            ]
        );
        assert_eq!(terms(" "), [""; 0]);
        assert_eq!(terms("1"), [""; 0]);
        assert_eq!(terms("1,x"), ["x"]);
        assert_eq!(terms("`1`"), ["1"]);
    }

    #[test]
    fn what_is_spelled_reads_back() {
        for text in ["x", "x^2:`a,b`", "factor(`(`):x", "`^`^9", "`x=1`"] {
            assert_eq!(terms(text), [text]);
        }
    }

    #[test]
    fn powers_of_one_column_multiply() {
        assert_eq!(terms("x:x^2:z:x"), ["x^4:z"]);
        assert_eq!(terms("factor(a):factor(a)"), ["factor(a)"]);
    }

    #[test]
    fn terms_given_twice_are_taken_once_with_a_warning() {
        let formula = Formula::parse("x:z,x,z:x,x^1").unwrap();
        assert_eq!(formula.terms.len(), 2);
        assert_eq!(
            formula.warnings,
            [
                "z:x is given twice: taken once",
                "x is given twice: taken once"
            ]
        );
    }

    #[test]
    fn errors_name_the_term_and_what_was_expected() {
        let odd = "expected a name, name^2, name:name or factor(name), odd names in backquotes";
        let power = "expected a whole power from 1 to 9";
        for (text, term, expected, got) in [
            ("x,,z", 2, "expected the name of a column", ""),
            ("x,", 2, "expected the name of a column", ""),
            ("x^0", 1, power, "x^0"),
            ("x^10", 1, power, "x^10"),
            ("x^-1", 1, power, "x^-1"),
            ("x^", 1, power, "x^"),
            ("^2", 1, "expected the name of a column", "^2"),
            ("x^2^2", 1, "expected one power", "x^2^2"),
            ("x^5:x^5", 1, "expected powers up to 9", "x^5:x^5"),
            ("z,log(x)", 2, odd, "log(x)"),
            (
                "factor(x",
                1,
                "expected a closing parenthesis after factor(",
                "factor(x",
            ),
            ("`x", 1, "expected a closing backquote", "`x"),
            ("``", 1, "expected the name of a column", "``"),
            (
                "a:b:c:d:e:f:g:h:i",
                1,
                "expected a product of at most 8 columns",
                "a:b:c:d:e:f:g:h:i",
            ),
        ] {
            let error = Formula::parse(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("formula: term {term}: {expected}, got \"{got}\"")
            );
        }
    }
}
