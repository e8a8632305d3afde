//! A claim about many series in few lines: how many verdicts of each kind, the
//! range of the numbers, and by name every series that failed.

use super::entry::{IndexClaim, IndexResult};
use crate::sim::Verdict;

/// So many series have a line each; more are summarised.
const SERIES: usize = 6;

/// One line under a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Empty if the study has one series only.
    pub(super) series: String,
    pub(super) measured: String,
    pub(super) verdicts: Vec<Counted>,
}

/// A verdict as it stands in a line: "holds", or "24 hold".
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counted {
    pub(super) verdict: Verdict,
    pub(super) text: String,
}

/// What was found for a claim.
pub(super) fn lines(claim: &IndexClaim) -> Vec<Line> {
    let own_line = |result: &IndexResult| Line {
        series: result.series.clone(),
        measured: claim.found(result),
        verdicts: vec![Counted {
            verdict: result.verdict,
            text: result.verdict.name().to_string(),
        }],
    };
    if claim.results.len() <= SERIES {
        return claim.results.iter().map(own_line).collect();
    }
    let mut lines = vec![Line {
        series: format!("{} series", claim.results.len()),
        measured: range(claim.unit, &claim.results),
        verdicts: counted(claim.results.iter().map(|r| r.verdict)),
    }];
    let named = named(&claim.results);
    lines.extend(named.into_iter().map(own_line));
    lines
}

/// Every failure, and what else does not hold unless that were as many lines again.
fn named(results: &[IndexResult]) -> Vec<&IndexResult> {
    let of = |verdicts: &[Verdict]| -> Vec<&IndexResult> {
        let mut found: Vec<_> = results.iter().collect();
        found.retain(|r| verdicts.contains(&r.verdict));
        found
    };
    let mut named = of(&[Verdict::Fails]);
    let open = of(&[Verdict::Undecided, Verdict::Missing]);
    if named.len() + open.len() <= SERIES {
        named.extend(open);
    }
    named
}

/// "slopes −0.512 to −0.496"
pub(super) fn range(unit: &str, results: &[IndexResult]) -> String {
    let found = || results.iter().filter(|r| !r.value.is_nan());
    let order = |a: &&IndexResult, b: &&IndexResult| a.value.total_cmp(&b.value);
    let (Some(least), Some(most)) = (found().min_by(order), found().max_by(order)) else {
        return "–".to_string();
    };
    let text = match least.estimate == most.estimate {
        true => format!("{unit} {}", least.estimate),
        false => format!("{unit} {} to {}", least.estimate, most.estimate),
    };
    text.trim().to_string()
}

/// "5 hold", "1 fails", "2 undecided"
pub(super) fn counted(verdicts: impl Iterator<Item = Verdict>) -> Vec<Counted> {
    let verdicts: Vec<Verdict> = verdicts.collect();
    [
        Verdict::Holds,
        Verdict::Fails,
        Verdict::Undecided,
        Verdict::Measured,
        Verdict::Missing,
    ]
    .into_iter()
    .filter_map(|verdict| {
        let count = verdicts.iter().filter(|v| **v == verdict).count();
        let words = match (verdict, count) {
            (_, 0) => return None,
            (Verdict::Holds, 2..) => "hold",
            (Verdict::Fails, 2..) => "fail",
            (Verdict::Missing, _) => "without enough rows",
            (verdict, _) => verdict.name(),
        };
        let text = format!("{count} {words}");
        Some(Counted { verdict, text })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(verdicts: &[Verdict]) -> IndexClaim {
        let result = |(k, verdict): (usize, &Verdict)| {
            let value = -0.5 - 0.001 * k as f64;
            IndexResult {
                series: format!("gate {k}"),
                value,
                estimate: format!("{value:.3}"),
                measured: format!("{value:.3} [..]"),
                accepted: "[-0.54, -0.46]".to_string(),
                verdict: *verdict,
            }
        };
        IndexClaim {
            text: "E h falls".to_string(),
            theorem: String::new(),
            unit: "slopes",
            results: verdicts.iter().enumerate().map(result).collect(),
        }
    }

    fn texts(line: &Line) -> (&str, &str, Vec<&str>) {
        let verdicts = line.verdicts.iter().map(|v| v.text.as_str()).collect();
        (&line.series, &line.measured, verdicts)
    }

    #[test]
    fn few_series_have_a_line_each() {
        let claim = claim(&[Verdict::Holds; 6]);
        let lines = lines(&claim);
        assert_eq!(lines.len(), 6);
        assert_eq!(texts(&lines[1]), ("gate 1", "-0.501 [..]", vec!["holds"]));
        assert_eq!(claim.statement(), "E h falls, accepted [-0.54, -0.46]");
    }

    #[test]
    fn many_series_are_a_range_and_counts_with_every_failure_named() {
        let mut verdicts = [Verdict::Holds; 24];
        verdicts[3] = Verdict::Undecided;
        verdicts[7] = Verdict::Fails;
        verdicts[9] = Verdict::Fails;
        let found = lines(&claim(&verdicts));
        assert_eq!(
            texts(&found[0]),
            (
                "24 series",
                "slopes -0.523 to -0.500",
                vec!["21 hold", "2 fail", "1 undecided"]
            )
        );
        let named: Vec<&str> = found[1..].iter().map(|l| l.series.as_str()).collect();
        assert_eq!(named, ["gate 7", "gate 9", "gate 3"]);
        // Many that are undecided are counted, failures still named.
        let mut verdicts = [Verdict::Undecided; 24];
        verdicts[5] = Verdict::Fails;
        let found = lines(&claim(&verdicts));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].series, "gate 5");
    }

    #[test]
    fn ranges_of_their_own_stand_beside_the_numbers() {
        let mut claim = claim(&[Verdict::Holds; 2]);
        claim.results[1].accepted = "[-1, 0]".to_string();
        assert_eq!(claim.statement(), "E h falls");
        assert_eq!(lines(&claim)[1].measured, "-0.501 [..], accepted [-1, 0]");
    }
}
