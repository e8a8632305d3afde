//! What the index says about one study.

use super::condensed::{Line, lines};
use crate::report::format::{rounded, thousands};
use crate::sim::Verdict;

/// Kinds of studies, for what their records hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    MonteCarlo,
    InverseBounds,
    TopK,
}

/// One study of the index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    pub(super) kind: Kind,
    /// The part of the theory that it belongs to; empty if none is named.
    pub(super) part: String,
    pub(super) name: String,
    pub(super) title: String,
    /// Where the study stands, relative to the index; empty or ending in `/`.
    pub(super) place: String,
    /// The paper and theorem.
    pub(super) reference: String,
    pub(super) claims: Vec<IndexClaim>,
    /// Fits, failures and time; `None` without a record.
    pub(super) effort: Option<Effort>,
}

/// A claim with what was found, series by series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IndexClaim {
    pub(super) text: String,
    pub(super) theorem: String,
    /// What the numbers are, many of them: "slopes".
    pub(super) unit: &'static str,
    pub(super) results: Vec<IndexResult>,
}

/// What was found for one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IndexResult {
    /// Empty if the study has one series only.
    pub(super) series: String,
    /// The estimate alone; NaN if there is none.
    pub(super) value: f64,
    /// The estimate alone, written.
    pub(super) estimate: String,
    /// With its interval and all else that is to be said.
    pub(super) measured: String,
    /// The range in which it is to lie; empty if the claim says it.
    pub(super) accepted: String,
    pub(super) verdict: Verdict,
}

/// What a study took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Effort {
    /// Such as "2400 fits, 200 in each of 12 cells".
    pub(super) amount: String,
    pub(super) failed: String,
    /// Such as "12 min".
    pub(super) time: Option<String>,
    /// Such as "E LR / P 0.996 to 1.004"; empty if the study claims none.
    pub(super) constants: String,
}

impl IndexEntry {
    /// What it stands under.
    pub(super) fn heading(&self) -> &str {
        match (self.part.as_str(), self.kind) {
            ("", Kind::MonteCarlo) => "Monte Carlo studies",
            ("", Kind::InverseBounds | Kind::TopK) => "Inverse bounds, without Monte Carlo",
            (part, _) => part,
        }
    }

    pub(super) fn design(&self) -> String {
        format!("{}{}.toml", self.place, self.name)
    }

    pub(super) fn page(&self) -> String {
        self.record("index.html")
    }

    pub(super) fn thumbnail(&self) -> String {
        self.record(match self.kind {
            Kind::MonteCarlo => "rates.svg",
            Kind::InverseBounds => "exponents.svg",
            Kind::TopK => "infima.svg",
        })
    }

    fn record(&self, file: &str) -> String {
        format!("{}records/{}/{file}", self.place, self.name)
    }
}

impl IndexClaim {
    /// What it says, with the accepted range if all series have the same.
    pub(super) fn statement(&self) -> String {
        match self.common_range() {
            None | Some("") => self.text.clone(),
            Some(range) => format!("{}, accepted {range}", self.text),
        }
    }

    fn common_range(&self) -> Option<&str> {
        let mut ranges = self.results.iter().map(|r| r.accepted.as_str());
        let first = ranges.next()?;
        ranges.all(|range| range == first).then_some(first)
    }

    /// What was found: a line per series, or few lines for many series.
    pub(super) fn lines(&self) -> Vec<Line> {
        lines(self)
    }

    /// What was found for one series, with the accepted range if it is its own.
    pub(super) fn found(&self, result: &IndexResult) -> String {
        match (self.common_range(), result.accepted.as_str()) {
            (Some(_), _) | (None, "") => result.measured.clone(),
            (None, range) => format!("{}, accepted {range}", result.measured),
        }
    }
}

/// How many failed, in words.
pub(super) fn failures(count: usize) -> String {
    match count {
        0 => "none".to_string(),
        count => thousands(count as u64),
    }
}

/// Computing time in the unit that suits it, with two digits.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{} s", rounded(s, 2)),
        s if s < 7200.0 => format!("{} min", rounded(s / 60.0, 2)),
        s => format!("{} h", rounded(s / 3600.0, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_suits_them() {
        assert_eq!(duration(1.23), "1.2 s");
        assert_eq!(duration(754.0), "13 min");
        assert_eq!(duration(7300.0), "2.0 h");
    }
}
