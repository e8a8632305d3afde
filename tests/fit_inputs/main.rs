//! Bad and odd tables end in one clear line or in a sound design, never in a panic.

mod cases;
mod draft;
mod files;
mod names;
mod program;
mod values;

use cases::{Case, Expected, cases};
use smoe_lab::analysis::{Design, Formula, Table};
use smoe_lab::error::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const SEED: u64 = 7;
const CASES: usize = 1000;

#[test]
fn odd_tables_end_in_one_clear_line_or_in_a_sound_design() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("people's data.csv");
    // Designs and errors by kind: a generator gone wrong would show here.
    let mut wrong = Vec::new();
    let mut tally: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (index, case) in cases(SEED, CASES).enumerate() {
        std::fs::write(&path, &case.bytes).unwrap();
        let before = Instant::now();
        let found = designed(&path, &case);
        let took = before.elapsed();
        let about = format!("case {index}, {}", case.kind);
        assert!(took < Duration::from_secs(2), "{about}: {took:?}");
        let counts = tally.entry(case.kind).or_default();
        let ended = match &found {
            Ok(design) => {
                counts[0] += 1;
                design
                    .warnings
                    .iter()
                    .for_each(|line| check_line(&about, line));
                match design.warnings.is_empty() {
                    true => Expected::Design,
                    false => Expected::Warning,
                }
            }
            Err(error) => {
                counts[1] += 1;
                let text = error.to_string();
                check_line(&about, &text);
                let names = text.starts_with(&path.display().to_string());
                assert!(
                    names || text.starts_with("formula: term "),
                    "{about}: {text}"
                );
                Expected::Error
            }
        };
        let fine = match case.expected {
            Expected::Either => true,
            Expected::Design => ended != Expected::Error,
            other => ended == other,
        };
        let warnings = found.as_ref().map(|design| &design.warnings);
        if !fine {
            wrong.push(format!(
                "{about}: expected {:?}, got {warnings:?}",
                case.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (designs, errors) = tally
        .values()
        .fold((0, 0), |(d, e), c| (d + c[0], e + c[1]));
    assert_eq!(designs + errors, CASES);
    assert!(designs > CASES / 5 && errors > CASES / 5, "{tally:?}");
}

/// The design of a case; checks that it is sound.
fn designed(path: &Path, case: &Case) -> Result<Design> {
    let table = Table::read(path)?;
    let (expert, gate) = (Formula::parse(&case.expert)?, Formula::parse(&case.gate)?);
    let design = Design::new(&table, &case.response, &expert, &gate)?;
    let data = &design.data;
    assert!(
        data.inputs()
            .iter()
            .chain(data.responses())
            .all(|v| v.is_finite())
    );
    assert!(design.response.deviation > 0.0 && design.response.mean.is_finite());
    assert_eq!(data.len(), design.rows.len());
    for side in [&design.expert, &design.gate] {
        assert!(side.terms.len() < data.len(), "{:?}", side.terms);
        assert_eq!(side.to_raw.dim(), (side.terms.len(), 1 + data.dimension()));
        assert!(side.to_raw.iter().all(|v| v.is_finite()), "{}", side.to_raw);
    }
    // The same rows as new ones are the same.
    let new = design.features_of(&table)?;
    let responses = design
        .standardised_response_of(&table, &new)?
        .expect("a response");
    let new = new
        .inputs
        .rows()
        .into_iter()
        .zip(new.rows.iter().zip(responses));
    let fitted = new.filter(|(_, (row, _))| design.rows.binary_search(row).is_ok());
    let mut seen = 0;
    for (i, (row, (_, response))) in fitted.enumerate() {
        assert_eq!(row, data.inputs().row(i));
        assert_eq!(response, Some(data.responses()[i]));
        seen += 1;
    }
    assert_eq!(seen, data.len());
    Ok(design)
}

/// One line that a terminal shows as it is, and that somebody would read.
fn check_line(about: &str, line: &str) {
    assert!(!line.chars().any(char::is_control), "{about}: {line:?}");
    assert!(
        line.len() < 1500,
        "{about}: {} bytes: {:.300}",
        line.len(),
        line
    );
}
