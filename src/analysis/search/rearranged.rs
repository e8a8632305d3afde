//! New starts from the best optima.

use super::Search;
use super::ends::{End, Ends};
use crate::analysis::fitted::Spurious;
use crate::analysis::responsibility::{effective_rows, responsibilities};
use crate::fit::{Outcome, partition_start};
use crate::model::Data;
use crate::rng::{Purpose, Stream};
use ndarray::{Array2, ArrayView1};
use rand::RngExt;
use rand::seq::index;
use rand_philox::Philox;

/// Best optima that are rearranged.
const REARRANGED: usize = 5;

impl Search<'_> {
    /// Where new starts from the best optima end, in which two experts are merged and
    /// one is split (the moves of Ueda, Nakano, Ghahramani and Hinton 2000): what is
    /// right in an optimum stays, what is wrong is tried anew.
    pub(super) fn rearranged(&self, ends: &Ends, count: usize) -> Vec<Outcome> {
        let all = &self.design.data;
        let counts = |end: &&End| {
            let parameters = &end.outcome.parameters;
            let rows = effective_rows(&responsibilities(parameters, all), all);
            Spurious::of(self.specification, self.design, parameters, &rows).is_none()
        };
        let mut best: Vec<&End> = ends.ends.iter().collect();
        let value = |end: &End| end.outcome.log_likelihood;
        best.sort_by(|a, b| value(b).total_cmp(&value(a)));
        // Lazily: only as many are looked at as are needed.
        let best: Vec<&End> = best.into_iter().filter(counts).take(REARRANGED).collect();
        if best.is_empty() {
            return Vec::new();
        }
        let labels: Vec<Vec<usize>> = best
            .iter()
            .map(|end| hard_labels(&responsibilities(&end.outcome.parameters, &self.sample)))
            .collect();
        let experts = self.template.experts.len();
        let cell = format!("rearranged experts={experts}");
        self.climbs(count, |k| {
            let purpose = Purpose::Start(k as u32);
            let stream = Stream::named(self.specification.seed, &cell, 0, purpose);
            let mut rng = stream.generator();
            let mut labels = labels[k % labels.len()].clone();
            let pair = index::sample(&mut rng, experts, 2);
            let (kept, emptied) = (pair.index(0), pair.index(1));
            let moved = labels.iter_mut().filter(|label| **label == emptied);
            moved.for_each(|label| *label = kept);
            let victim = match rng.random_range(0..experts) {
                drawn if drawn == emptied => kept,
                drawn => drawn,
            };
            split(&self.sample, &mut labels, victim, emptied, &mut rng);
            partition_start(self.context(), &labels, &stream)
        })
    }
}

/// Gives part of an expert's rows to an expert without rows: those on one side of a
/// random place along a random feature, or those above a random line through two of
/// them.
fn split(data: &Data, labels: &mut [usize], from: usize, to: usize, rng: &mut Philox) {
    let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == from).collect();
    if rows.len() < 2 {
        return;
    }
    let pair = index::sample(rng, rows.len(), 2);
    let (a, b) = (rows[pair.index(0)], rows[pair.index(1)]);
    let y = data.responses();
    let feature = match data.dimension() {
        0 => None,
        d => Some(data.column(rng.random_range(0..d))),
    };
    let goes: Box<dyn Fn(usize) -> bool> = match feature {
        Some(x) if rng.random_bool(0.5) => Box::new(move |i| x[i] > x[a]),
        Some(x) if x[a] != x[b] => {
            let slope = (y[b] - y[a]) / (x[b] - x[a]);
            Box::new(move |i| y[i] - y[a] > slope * (x[i] - x[a]))
        }
        _ => Box::new(move |i| y[i] > y[a]),
    };
    let moved = rows.into_iter().filter(|&i| goes(i));
    moved.for_each(|i| labels[i] = to);
}

/// The most responsible expert of every row.
fn hard_labels(responsibilities: &Array2<f64>) -> Vec<usize> {
    let most = |row: ArrayView1<f64>| {
        (0..row.len())
            .max_by(|&a, &b| row[a].total_cmp(&row[b]))
            .unwrap_or(0)
    };
    responsibilities.rows().into_iter().map(most).collect()
}
