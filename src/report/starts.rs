//! How often each start led to the best likelihood: whether the estimates speak
//! for an algorithm or only for the neighbourhood of the truth.

use crate::sim::Row;

/// Two starts reached the same maximum if their log-likelihoods differ by less.
pub(super) const SAME_MAXIMUM: f64 = 1e-3;

/// What one kind of start achieved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StartRecord {
    /// The start's name in a row.
    pub(super) name: String,
    /// Fits from such a start.
    pub(super) fits: usize,
    /// Fits that reached the replicate's best log-likelihood.
    pub(super) best: usize,
    /// Fits that ended at a certified maximum.
    pub(super) certified: usize,
}

/// The records of the starts in `rows`, in the order of the study.
pub(super) fn start_records<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<StartRecord> {
    let mut records: Vec<StartRecord> = Vec::new();
    for row in rows {
        let likelihoods = row.start_outcomes().map(|f| f.log_likelihood);
        let best = likelihoods.fold(f64::NEG_INFINITY, f64::max);
        for fit in row.start_outcomes() {
            let name = fit.name;
            let position = records.iter().position(|r| r.name == name);
            let position = position.unwrap_or_else(|| {
                records.push(StartRecord {
                    name: name.to_string(),
                    fits: 0,
                    best: 0,
                    certified: 0,
                });
                records.len() - 1
            });
            let record = &mut records[position];
            record.fits += 1;
            record.best += usize::from(best - fit.log_likelihood < SAME_MAXIMUM);
            record.certified += usize::from(fit.is_certified());
        }
    }
    records
}

/// A start in words.
pub(super) fn describe(name: &str) -> String {
    match name.split_once('(') {
        Some(("perturbed-truth", radius)) => format!(
            "the truth plus independent normal noise of standard deviation {} on every free \
             coordinate: an oracle start, which no analysis of real data has",
            radius.trim_end_matches(')')
        ),
        _ if name == "k-means" => {
            "k-means clusters of the standardised (x, y), then least squares in each".to_string()
        }
        _ if name.starts_with("published") => {
            "each fitted expert at a true one plus noise that shrinks with n, as in the published \
             simulations: an oracle start, which no analysis of real data has"
                .to_string()
        }
        _ if name == "random" => "least squares through a few random rows per expert".to_string(),
        _ => String::new(),
    }
}

/// Whether a start looks at the truth.
pub(super) fn is_oracle(name: &str) -> bool {
    name.starts_with("perturbed-truth") || name.starts_with("published")
}
