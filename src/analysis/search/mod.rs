//! Every optimum that many starts lead to.
//!
//! ```text
//! starts of four kinds -> EM, Newton (certified) -> distinct optima, hits counted
//!     -> two experts merged and one split, from the best of them -> likewise
//!     -> experts in canonical order -> run-away gates followed outwards -> set apart, sorted
//! ```
//!
//! Of many rows a random subset is climbed first, then all of them from every distinct
//! optimum of the subset.

mod ends;
mod outwards;
mod rearranged;

use super::fitted::{Fitted, Optimum};
use super::{Design, Specification};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fit::{Bounds, Effort, Options, Outcome, Start, StartContext, Stop, maximise};
use crate::model::{Data, Parameters};
use crate::rng::{Purpose, Stream};
use ends::{Ends, NEARLY_SAME, SAME};
use ndarray::{Array1, Array2};
use rand::seq::index;
use rayon::prelude::*;
use std::borrow::Cow;

/// The kinds of start, taken in turn.
const KINDS: [Start; 4] = [
    Start::KMeans,
    Start::Random,
    Start::RandomLabels,
    Start::Slices,
];
/// More rows than this and the starts are tried on a random subset first.
const PILOT_ROWS: usize = 2_000;

/// Fits the model with `experts` experts.
///
/// # Errors
/// [`Error::Value`] if there are not more rows than free parameters.
pub fn search(
    backend: &dyn Backend,
    design: &Design,
    specification: &Specification,
    experts: usize,
) -> Result<Fitted> {
    let template = specification.template(design, experts);
    let bounds = specification.bounds(design, &template, 1.0);
    let (rows, free) = (design.data.len(), bounds.dimension());
    if rows <= free {
        return Err(Error::value(
            "experts",
            format!("{experts} experts have {free} free parameters, which {rows} rows cannot fix"),
        ));
    }
    let search = Search {
        sample: match rows > PILOT_ROWS {
            true => Cow::Owned(subset(&design.data, PILOT_ROWS, specification.seed)),
            false => Cow::Borrowed(&design.data),
        },
        backend,
        design,
        specification,
        template: &template,
        bounds: &bounds,
    };
    search.run()
}

struct Search<'a> {
    backend: &'a dyn Backend,
    design: &'a Design,
    specification: &'a Specification,
    template: &'a Parameters,
    bounds: &'a Bounds,
    /// The rows that starts are made from and climbed on first.
    sample: Cow<'a, Data>,
}

impl Search<'_> {
    fn run(&self) -> Result<Fitted> {
        let mut starts = match self.template.experts.len() {
            1 => 1,
            _ => self.specification.starts,
        };
        let mut ends = Ends::default();
        for (k, outcome) in self.started(starts)?.into_iter().enumerate() {
            ends.take(outcome, k % KINDS.len());
        }
        // With two experts there is nothing to merge and split but everything.
        if self.template.experts.len() > 2 {
            for outcome in self.rearranged(&ends, starts.div_ceil(2)) {
                ends.take(outcome, KINDS.len());
                starts += 1;
            }
        }
        let Ends {
            ends,
            failures,
            mut effort,
        } = ends;
        let failures = failures
            .into_iter()
            .map(|(stop, l)| (stop, self.design.raw_log_likelihood(l)));
        let failures = failures.collect();
        let followed: Vec<(Optimum, Effort)> =
            ends.into_par_iter().map(|end| self.settled(end)).collect();
        let mut optima: Vec<Optimum> = Vec::new();
        for (optimum, spent) in followed {
            effort += spent;
            let same =
                |other: &&mut Optimum| (other.log_likelihood - optimum.log_likelihood).abs() < SAME;
            match optima.iter_mut().find(same) {
                Some(other) => {
                    let both = other.hits.iter_mut().zip(&optimum.hits);
                    both.for_each(|(a, b)| *a += b);
                }
                None => optima.push(optimum),
            }
        }
        optima.sort_by(|a, b| {
            let apart = a.spurious.is_some().cmp(&b.spurious.is_some());
            apart.then(b.log_likelihood.total_cmp(&a.log_likelihood))
        });
        Ok(Fitted {
            bounds: self.bounds.clone(),
            optima,
            failures,
            starts,
            effort,
        })
    }

    fn context(&self) -> StartContext<'_> {
        StartContext {
            template: self.template,
            truth: None,
            data: &self.sample,
            bounds: self.bounds,
        }
    }

    /// Where the starts of four kinds end.
    fn started(&self, count: usize) -> Result<Vec<Outcome>> {
        let cell = format!("experts={}", self.template.experts.len());
        let starts: Vec<Parameters> = (0..count)
            .into_par_iter()
            .map(|k| {
                let purpose = Purpose::Start(k as u32);
                let stream = Stream::named(self.specification.seed, &cell, 0, purpose);
                KINDS[k % KINDS.len()].parameters(self.context(), &stream)
            })
            .collect::<Result<_>>()?;
        Ok(self.climbs(count, |k| starts[k].clone()))
    }

    /// Where climbs from `count` points end on all rows. Those that meet on the sample
    /// share one climb on all rows.
    fn climbs(&self, count: usize, from: impl Fn(usize) -> Parameters + Sync) -> Vec<Outcome> {
        let pilots: Vec<Outcome> = (0..count)
            .into_par_iter()
            .map(|k| self.climb(&self.sample, &from(k)))
            .collect();
        if let Cow::Borrowed(_) = self.sample {
            return pilots;
        }
        let first_of = |k: usize| {
            let same = |j: &usize| {
                let [a, b] = [&pilots[*j], &pilots[k]];
                let both = a.stop.is_converged() && b.stop.is_converged();
                both && (a.log_likelihood - b.log_likelihood).abs() < NEARLY_SAME
            };
            (0..k).find(same)
        };
        let firsts: Vec<Option<usize>> = (0..count).map(first_of).collect();
        let climbed: Vec<Option<Outcome>> = firsts
            .par_iter()
            .enumerate()
            .map(|(k, first)| match first {
                Some(_) => None,
                None => Some(self.climb(&self.design.data, &pilots[k].parameters)),
            })
            .collect();
        let outcome = |k: usize| {
            let own = &climbed[firsts[k].unwrap_or(k)];
            own.clone()
                .expect("the first of a pilot optimum is climbed")
        };
        (0..count).map(outcome).collect()
    }

    fn climb(&self, data: &Data, from: &Parameters) -> Outcome {
        let options = Options {
            pilot_rows: None,
            ..Options::default()
        };
        maximise(self.backend, data, from, self.bounds, &options)
    }
}

/// Random rows of the data: people's rows come in an order.
fn subset(data: &Data, rows: usize, seed: u64) -> Data {
    let stream = Stream::named(seed, "pilot rows", 0, Purpose::Start(0));
    let mut order = index::sample(&mut stream.generator(), data.len(), rows).into_vec();
    order.sort_unstable();
    let column = |j: usize| order.iter().map(move |&i| data.column(j)[i]);
    let inputs: Vec<f64> = (0..data.dimension()).flat_map(column).collect();
    let inputs = Array2::from_shape_vec((data.dimension(), rows), inputs);
    let responses: Array1<f64> = order.iter().map(|&i| data.responses()[i]).collect();
    Data::from_columns(inputs.expect("one entry per row and column"), responses)
        .expect("rows of sound data are sound")
}

impl Fitted {
    /// Names of the kinds of start, in the order of [`Optimum::hits`].
    pub fn start_kinds() -> Vec<String> {
        let kinds = KINDS.iter().map(Start::name);
        kinds.chain(["rearranged".to_string()]).collect()
    }

    /// True if a start that was not certified ended higher than the best optimum.
    pub fn has_better_failure(&self) -> bool {
        let best = self.best().map_or(f64::NEG_INFINITY, |o| o.log_likelihood);
        let better = |(stop, value): &(Stop, f64)| {
            !matches!(stop, Stop::NonFinite { .. }) && *value > best + SAME
        };
        self.failures.iter().any(better)
    }
}
