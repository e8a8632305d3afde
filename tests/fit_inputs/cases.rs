//! Tables as people really have them: bad and odd files, by seed.

use super::draft::Draft;
use super::{files, names, values};
use rand::RngExt;
use rand_philox::Philox;
use smoe_lab::rng::{Purpose, Stream};

/// A file and how it is used.
pub struct Case {
    /// What is odd about it.
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    pub response: String,
    pub expert: String,
    pub gate: String,
    pub expected: Expected,
}

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One clear line.
    Error,
    /// A design with a warning.
    Warning,
    /// A design.
    Design,
    /// An error or a design.
    Either,
}

/// The first `count` cases of a seed: every kind in turn; from the second turn on, one
/// in three has a second oddity.
pub fn cases(seed: u64, count: usize) -> impl Iterator<Item = Case> {
    let kinds = [values::KINDS, names::KINDS, files::KINDS].concat();
    (0..count).map(move |index| {
        let stream = Stream::named(seed, "odd tables", index as u64, Purpose::Data);
        let mut rng = stream.generator();
        let mut draft = Draft::sound(&mut rng);
        let (kind, mut expected, change) = kinds[index % kinds.len()];
        let mut bytes_changes = Vec::new();
        let mut apply = |change: Change, draft: &mut Draft, rng: &mut Philox| match change {
            Change::Table(change) => change(draft, rng),
            Change::Bytes(change) => bytes_changes.push(change),
        };
        apply(change, &mut draft, &mut rng);
        if index >= kinds.len() && rng.random_bool(1.0 / 3.0) {
            let (_, _, second) = kinds[rng.random_range(0..kinds.len())];
            apply(second, &mut draft, &mut rng);
            expected = Expected::Either;
        }
        let mut bytes = draft.written();
        for change in bytes_changes {
            change(&mut bytes, &mut rng);
        }
        Case {
            kind,
            bytes,
            response: draft.response,
            expert: draft.expert,
            gate: draft.gate,
            expected,
        }
    })
}

/// How a sound table is made odd.
#[derive(Clone, Copy)]
pub enum Change {
    Table(fn(&mut Draft, &mut Philox)),
    Bytes(fn(&mut Vec<u8>, &mut Philox)),
}

/// Its name, what must come of it, and how it is made.
pub type Kind = (&'static str, Expected, Change);
