//! The result at one spread, one line of CSV each.

use super::distance::Distance;
use super::finding::Finding;
use super::split::Spread;
use super::study::InversePlan;
use crate::error::{Error, Result, read_text};
use std::path::Path;

/// The name of the file in a study's folder.
pub const FILE: &str = "minima.csv";

/// The smallest distance found at one spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimum {
    /// The design hash of the study.
    pub study: String,
    /// The gate's name.
    pub gate: String,
    /// The coordinate held.
    pub coordinate: Spread,
    /// Copies of the split expert.
    pub copies: usize,
    /// The spread: the outer copies are 2 delta apart.
    pub delta: f64,
    /// What was minimised: sqrt(E_X h^2) or sqrt(E_X (f_G - f_G*)^2).
    pub distance: f64,
    /// Bound on its rounding error.
    pub rounding: f64,
    /// See [`crate::num::least_squares::LeastSquares::promise`].
    pub promise: f64,
    /// Starts that found this minimum to 1e-3.
    pub agreeing: usize,
    /// Starts in all.
    pub starts: usize,
    /// Unknowns on the boundary of the compact set.
    pub on_bound: usize,
    /// Error of the masses e^bias.
    pub raw_mass: f64,
    /// Error of the masses e^(bias + kappa^2 variance / 2).
    pub tilted_mass: f64,
    /// Packed parameters, copies first.
    pub parameters: Vec<f64>,
}

const COLUMNS: usize = 15;

/// The first line: the distance has the name of what was minimised.
fn header(distance: Distance) -> [&'static str; COLUMNS] {
    [
        "study",
        "gate",
        "coordinate",
        "copies",
        "delta",
        distance.name(),
        "exponent",
        "rounding",
        "promise",
        "agreeing",
        "starts",
        "on_bound",
        "raw_mass",
        "tilted_mass",
        "parameters",
    ]
}

impl Minimum {
    /// The fields in the order of the header, with the local exponent that leads
    /// here from the spread above; numbers in the shortest form that reads back
    /// to the same value.
    fn fields(&self, local: Option<f64>) -> Vec<String> {
        let parameters: Vec<String> = self.parameters.iter().map(f64::to_string).collect();
        vec![
            self.study.clone(),
            self.gate.clone(),
            self.coordinate.name().to_string(),
            self.copies.to_string(),
            format!("{:e}", self.delta),
            format!("{:e}", self.distance),
            local.map_or(String::new(), |e| e.to_string()),
            format!("{:e}", self.rounding),
            format!("{:e}", self.promise),
            self.agreeing.to_string(),
            self.starts.to_string(),
            self.on_bound.to_string(),
            format!("{:e}", self.raw_mass),
            format!("{:e}", self.tilted_mass),
            parameters.join(" "),
        ]
    }

    /// Reads a record back; `None` if a field does not parse. The local exponent is
    /// for readers of the file: findings compute it again.
    fn from_record(record: &csv::StringRecord) -> Option<Self> {
        let number = |k: usize| record.get(k)?.parse::<f64>().ok();
        let count = |k: usize| record.get(k)?.parse::<usize>().ok();
        if record.len() != COLUMNS {
            return None;
        }
        let coordinate = Spread::ALL
            .into_iter()
            .find(|c| Some(c.name()) == record.get(2))?;
        Some(Minimum {
            study: record.get(0)?.to_string(),
            gate: record.get(1)?.to_string(),
            coordinate,
            copies: count(3)?,
            delta: number(4)?,
            distance: number(5)?,
            rounding: number(7)?,
            promise: number(8)?,
            agreeing: count(9)?,
            starts: count(10)?,
            on_bound: count(11)?,
            raw_mass: number(12)?,
            tilted_mass: number(13)?,
            parameters: record
                .get(14)?
                .split_whitespace()
                .map(|v| v.parse().ok())
                .collect::<Option<_>>()?,
        })
    }
}

/// The text of `minima.csv`: the minima of every finding with their local
/// exponents.
pub fn to_csv(distance: Distance, findings: &[Finding]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(header(distance))
        .expect("writing to memory");
    for finding in findings {
        let local = std::iter::once(None).chain(finding.local.iter().copied().map(Some));
        for (minimum, local) in finding.minima.iter().zip(local) {
            let fields = minimum.fields(local);
            writer.write_record(fields).expect("writing to memory");
        }
    }
    let bytes = writer.into_inner().expect("writing to memory");
    String::from_utf8(bytes).expect("made of strings")
}

/// Reads the minima of a study from `folder`.
///
/// # Errors
/// [`Error::File`]; [`Error::Input`] if a line does not parse or belongs to
/// another study.
pub fn read_minima(folder: &Path, plan: &InversePlan) -> Result<Vec<Minimum>> {
    let path = folder.join(FILE);
    let text = read_text(&path)?;
    let at = |line: Option<usize>, key: &str, message: String| Error::Input {
        path: path.clone(),
        line,
        key: key.to_string(),
        message,
    };
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    let found = reader
        .headers()
        .map_err(|e| at(Some(1), "", e.to_string()))?;
    if found.iter().ne(header(plan.study.distance)) {
        return Err(at(Some(1), "", "is not a file of minima".to_string()));
    }
    let mut minima = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| at(None, "", e.to_string()))?;
        let line = record.position().map(|p| p.line() as usize);
        let minimum = Minimum::from_record(&record)
            .ok_or_else(|| at(line, "", "not a line of this format".to_string()))?;
        if minimum.study != plan.hash {
            let message = format!(
                "minima of another study or of an older version of this one ({}, now {}); run \
                 `rate_sweep inverse` again",
                minimum.study, plan.hash
            );
            return Err(at(line, "study", message));
        }
        minima.push(minimum);
    }
    Ok(minima)
}
