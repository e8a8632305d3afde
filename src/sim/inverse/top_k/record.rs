//! The infimum of one cell, one line of CSV each, and what it says of the claim.

use super::study::{TopKCell, TopKPlan};
use crate::error::{Error, Result, read_text};
use crate::sim::Verdict;
use std::path::Path;

/// The name of the file in a study's folder.
pub const FILE: &str = "infima.csv";

/// The smallest distance found at one share.
#[derive(Clone, Debug, PartialEq)]
pub struct Infimum {
    /// The design hash of the study.
    pub study: String,
    /// The case's name.
    pub case: String,
    /// Share of the first copy at the centre of the box.
    pub share: f64,
    /// E_X h^2
    pub hellinger_sq: f64,
    /// E_X V at the same point, not its infimum.
    pub total_variation: f64,
    /// Starts that found this infimum to 1e-2.
    pub agreeing: usize,
    /// Starts in all.
    pub starts: usize,
    /// Packed parameters, copies first.
    pub parameters: Vec<f64>,
}

const HEADER: [&str; 8] = [
    "study",
    "case",
    "share",
    "hellinger_sq",
    "total_variation",
    "agreeing",
    "starts",
    "parameters",
];

impl Infimum {
    fn fields(&self) -> [String; HEADER.len()] {
        let parameters: Vec<String> = self.parameters.iter().map(f64::to_string).collect();
        [
            self.study.clone(),
            self.case.clone(),
            self.share.to_string(),
            format!("{:e}", self.hellinger_sq),
            format!("{:e}", self.total_variation),
            self.agreeing.to_string(),
            self.starts.to_string(),
            parameters.join(" "),
        ]
    }

    fn from_record(record: &csv::StringRecord) -> Option<Self> {
        let number = |k: usize| record.get(k)?.parse::<f64>().ok();
        let count = |k: usize| record.get(k)?.parse::<usize>().ok();
        let parameters = record.get(7)?.split_whitespace();
        Some(Infimum {
            study: record.get(0)?.to_string(),
            case: record.get(1)?.to_string(),
            share: number(2)?,
            hellinger_sq: number(3)?,
            total_variation: number(4)?,
            agreeing: count(5)?,
            starts: count(6)?,
            parameters: parameters.map(|v| v.parse().ok()).collect::<Option<_>>()?,
        })
    }

    /// Whether E_X h^2 lies in the claimed range.
    pub fn verdict(&self, cell: &TopKCell) -> Verdict {
        let [low, high] = cell.accept;
        match self.hellinger_sq >= low && self.hellinger_sq <= high {
            true => Verdict::Holds,
            false => Verdict::Fails,
        }
    }
}

/// The infimum of each cell, in plan order; `None` where there is none.
pub fn of_cells<'a>(plan: &TopKPlan, infima: &'a [Infimum]) -> Vec<Option<&'a Infimum>> {
    let of_cell = |cell: &TopKCell| {
        let fits = |i: &&Infimum| i.case == cell.case.name && i.share == cell.share;
        infima.iter().find(fits)
    };
    plan.cells.iter().map(of_cell).collect()
}

/// The verdicts of all cells, in plan order.
pub fn verdicts(plan: &TopKPlan, infima: &[Infimum]) -> Vec<Verdict> {
    let found = of_cells(plan, infima).into_iter().zip(&plan.cells);
    found
        .map(|(infimum, cell)| infimum.map_or(Verdict::Missing, |i| i.verdict(cell)))
        .collect()
}

/// The text of `infima.csv`.
pub fn to_csv(infima: &[Infimum]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER).expect("writing to memory");
    for infimum in infima {
        writer
            .write_record(infimum.fields())
            .expect("writing to memory");
    }
    let bytes = writer.into_inner().expect("writing to memory");
    String::from_utf8(bytes).expect("made of strings")
}

/// Reads the infima of a study from `folder`.
///
/// # Errors
/// [`Error::File`]; [`Error::Input`] if a line does not parse or belongs to
/// another study.
pub fn read_infima(folder: &Path, plan: &TopKPlan) -> Result<Vec<Infimum>> {
    let path = folder.join(FILE);
    let text = read_text(&path)?;
    let wrong = |line: Option<usize>, message: String| Error::Input {
        path: path.clone(),
        line,
        key: String::new(),
        message,
    };
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut infima = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| wrong(None, e.to_string()))?;
        let line = record.position().map(|p| p.line() as usize);
        let infimum = Infimum::from_record(&record)
            .ok_or_else(|| wrong(line, "not a line of this format".to_string()))?;
        if infimum.study != plan.hash {
            let message = format!(
                "infima of another study or of an older version of this one ({}, now {}); run \
                 `rate_sweep inverse` again",
                infimum.study, plan.hash
            );
            return Err(wrong(line, message));
        }
        infima.push(infimum);
    }
    Ok(infima)
}
