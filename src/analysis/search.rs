//! Every optimum that many starts lead to.
//!
//! ```text
//! starts of four kinds -> EM, Newton (certified) -> distinct optima, hits counted
//!     -> two experts merged and one split, from the best of them -> likewise
//!     -> experts in canonical order -> run-away gates followed outwards -> set apart, sorted
//! ```

use super::fitted::{Attainment, Fitted, Optimum, Spurious};
use super::responsibility::{effective_rows, responsibilities};
use super::{Design, Specification};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::fit::{
    Bounds, Effort, NewtonOptions, Options, Outcome, Start, StartContext, Stop, maximise,
    partition_start,
};
use crate::model::{Coordinate, Data, Parameters};
use crate::num::dense::SymmetricEigen;
use crate::rng::{Purpose, Stream};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use rand::RngExt;
use rand::seq::index;
use rand_philox::Philox;
use rayon::prelude::*;

/// The kinds of start, taken in turn.
const KINDS: [Start; 4] = [
    Start::KMeans,
    Start::Random,
    Start::RandomLabels,
    Start::Slices,
];
/// Log-likelihoods that differ by less are those of one optimum. At the bound of a
/// run-away gate the likelihood is nearly flat and the certificate leaves more.
const SAME: f64 = 1e-6;
const NEARLY_SAME: f64 = 1e-5;
/// Best optima that are rearranged.
const REARRANGED: usize = 5;
/// A gate is followed outwards by this factor at a time, so often at most.
const OUTWARDS: f64 = 4.0;
const MOST_STEPS_OUTWARDS: usize = 12;
/// A step outwards that gains less leads nowhere: what is left of a supremum falls
/// exponentially with the gate's slope.
const LAST_GAIN: f64 = 1e-9;
/// A direction of the gate in which its own length costs less log-likelihood than this,
/// to second order, has no information.
const FLAT: f64 = 1e-2;
/// And in which the log-likelihood falls by less than this over three times the length.
const NOTHING: f64 = 1e-7;
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
}

/// An end of starts and how many led there, by kind.
struct End {
    outcome: Outcome,
    hits: Vec<usize>,
}

/// All ends.
#[derive(Default)]
struct Ends {
    ends: Vec<End>,
    failures: Vec<(Stop, f64)>,
    effort: Effort,
}

impl Ends {
    /// Counts where a start of a kind ended.
    fn take(&mut self, outcome: Outcome, kind: usize) {
        self.effort += outcome.effort;
        if !outcome.stop.is_converged() {
            self.failures.push((outcome.stop, outcome.log_likelihood));
            return;
        }
        let tolerance = match outcome.on_bound.is_empty() {
            true => SAME,
            false => NEARLY_SAME,
        };
        let same = |end: &&mut End| {
            (end.outcome.log_likelihood - outcome.log_likelihood).abs() < tolerance
        };
        let end = match self.ends.iter_mut().position(|mut end| same(&mut end)) {
            Some(known) => &mut self.ends[known],
            None => {
                let hits = vec![0; KINDS.len() + 1];
                self.ends.push(End { outcome, hits });
                self.ends.last_mut().expect("just pushed")
            }
        };
        end.hits[kind] += 1;
    }
}

impl Search<'_> {
    fn run(&self) -> Result<Fitted> {
        let mut starts = match self.template.experts.len() {
            1 => 1,
            _ => self.specification.starts,
        };
        let mut ends = Ends::default();
        for (k, outcome) in self.outcomes(starts)?.into_iter().enumerate() {
            ends.take(outcome, k % KINDS.len());
        }
        // With two experts there is nothing to merge and split but everything.
        if self.template.experts.len() > 2 {
            for outcome in self.rearranged(&ends, starts.div_ceil(2))? {
                ends.take(outcome, KINDS.len());
                starts += 1;
            }
        }
        let Ends {
            ends,
            failures,
            mut effort,
        } = ends;
        let failures = failures.into_iter().map(|(stop, l)| (stop, self.raw(l)));
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

    /// In raw units of y.
    fn raw(&self, log_likelihood: f64) -> f64 {
        log_likelihood - self.design.data.sample_size() * self.design.response.deviation.ln()
    }

    /// Where each start ends on all rows. Starts that end at one optimum of the pilot
    /// share one climb on all rows.
    fn outcomes(&self, starts: usize) -> Result<Vec<Outcome>> {
        let data = &self.design.data;
        if data.len() <= PILOT_ROWS {
            return self.climbs(data, starts);
        }
        let pilots = self.climbs(&self.subset(PILOT_ROWS), starts)?;
        let first_of = |k: usize| {
            (0..k).find(|&j| {
                let [a, b] = [&pilots[j], &pilots[k]];
                let both = a.stop.is_converged() && b.stop.is_converged();
                both && (a.log_likelihood - b.log_likelihood).abs() < NEARLY_SAME
            })
        };
        let firsts: Vec<Option<usize>> = (0..starts).map(first_of).collect();
        let climbed: Vec<Option<Outcome>> = firsts
            .par_iter()
            .enumerate()
            .map(|(k, first)| match first {
                Some(_) => None,
                None => Some(self.climb(data, &pilots[k].parameters)),
            })
            .collect();
        let outcome = |k: usize| {
            let own = firsts[k].unwrap_or(k);
            climbed[own]
                .clone()
                .expect("the first of a pilot optimum is climbed")
        };
        Ok((0..starts).map(outcome).collect())
    }

    /// Where new starts from the best optima end, in which two experts are merged and
    /// one is split (the moves of Ueda, Nakano, Ghahramani and Hinton 2000): what is
    /// right in an optimum stays, what is wrong is tried anew.
    fn rearranged(&self, ends: &Ends, count: usize) -> Result<Vec<Outcome>> {
        let data = &self.design.data;
        let counts = |end: &&End| {
            let parameters = &end.outcome.parameters;
            self.spurious(
                parameters,
                &effective_rows(&responsibilities(parameters, data), data),
            )
            .is_none()
        };
        let mut best: Vec<&End> = ends.ends.iter().filter(counts).collect();
        best.sort_by(|a, b| {
            b.outcome
                .log_likelihood
                .total_cmp(&a.outcome.log_likelihood)
        });
        best.truncate(REARRANGED);
        if best.is_empty() {
            return Ok(Vec::new());
        }
        let labels: Vec<Vec<usize>> = best
            .iter()
            .map(|end| hard_labels(&responsibilities(&end.outcome.parameters, data)))
            .collect();
        let context = StartContext {
            template: self.template,
            truth: None,
            data,
            bounds: self.bounds,
        };
        let experts = self.template.experts.len();
        let cell = format!("rearranged experts={experts}");
        let outcomes = (0..count).into_par_iter().map(|k| {
            let purpose = Purpose::Start(k as u32);
            let stream = Stream::named(self.specification.seed, &cell, 0, purpose);
            let mut rng = stream.generator();
            let mut labels = labels[k % labels.len()].clone();
            let pair = index::sample(&mut rng, experts, 2);
            let (kept, emptied) = (pair.index(0), pair.index(1));
            labels
                .iter_mut()
                .filter(|l| **l == emptied)
                .for_each(|l| *l = kept);
            let victim = rng.random_range(0..experts);
            let victim = if victim == emptied { kept } else { victim };
            self.split(&mut labels, victim, emptied, &mut rng);
            let from = partition_start(context, &labels, &stream);
            self.climb(data, &from)
        });
        Ok(outcomes.collect())
    }

    /// Gives part of an expert's rows to an expert without rows: those on one side of a
    /// random place along a random feature, or those above a random line through two of
    /// them.
    fn split(&self, labels: &mut [usize], from: usize, to: usize, rng: &mut Philox) {
        let data = &self.design.data;
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
        rows.into_iter()
            .filter(|&i| goes(i))
            .for_each(|i| labels[i] = to);
    }

    /// Where each start ends on `data`.
    fn climbs(&self, data: &Data, starts: usize) -> Result<Vec<Outcome>> {
        let cell = format!("experts={}", self.template.experts.len());
        let context = StartContext {
            template: self.template,
            truth: None,
            data,
            bounds: self.bounds,
        };
        (0..starts)
            .into_par_iter()
            .map(|k| {
                let purpose = Purpose::Start(k as u32);
                let stream = Stream::named(self.specification.seed, &cell, 0, purpose);
                let from = KINDS[k % KINDS.len()].parameters(context, &stream)?;
                Ok(self.climb(data, &from))
            })
            .collect()
    }

    fn climb(&self, data: &Data, from: &Parameters) -> Outcome {
        let options = Options {
            pilot_rows: None,
            ..Options::default()
        };
        maximise(self.backend, data, from, self.bounds, &options)
    }

    /// Random rows of the data: people's rows come in an order.
    fn subset(&self, rows: usize) -> Data {
        let data = &self.design.data;
        let stream = Stream::named(self.specification.seed, "pilot rows", 0, Purpose::Start(0));
        let mut order = index::sample(&mut stream.generator(), data.len(), rows).into_vec();
        order.sort_unstable();
        let column = |j: usize| order.iter().map(move |&i| data.column(j)[i]);
        let inputs: Vec<f64> = (0..data.dimension()).flat_map(column).collect();
        let inputs = Array2::from_shape_vec((data.dimension(), rows), inputs);
        let responses: Array1<f64> = order.iter().map(|&i| data.responses()[i]).collect();
        Data::from_columns(inputs.expect("one entry per row and column"), responses)
            .expect("rows of sound data are sound")
    }

    /// The end in canonical order, its gate followed outwards if it runs away.
    fn settled(&self, end: End) -> (Optimum, Effort) {
        let ordered = canonical(&end.outcome.parameters);
        let mut reach = self.reach_of(&ordered);
        let mut bounds = self.specification.bounds(self.design, self.template, reach);
        let mut effort = Effort::default();
        // Another expert may be the reference now: the same point, other bounds.
        let mut outcome = self.polished(&ordered, &bounds, &end.outcome, &mut effort);
        // The scale of a top-1 router means nothing.
        let scale_free = self.template.gate.top_k == Some(1);
        for _ in 0..MOST_STEPS_OUTWARDS {
            if scale_free || gates(&outcome.on_bound).is_empty() {
                break;
            }
            let wider_reach = reach * OUTWARDS;
            let wider = self
                .specification
                .bounds(self.design, self.template, wider_reach);
            let from = scaled_gates(&outcome.parameters, &bounds, &wider);
            let better = [&outcome.parameters, &from]
                .map(|from| self.polished(from, &wider, &outcome, &mut effort))
                .into_iter()
                .max_by(|a, b| a.log_likelihood.total_cmp(&b.log_likelihood))
                .expect("two");
            let gain = better.log_likelihood - outcome.log_likelihood;
            reach = wider_reach;
            bounds = wider;
            outcome = better;
            if gain < LAST_GAIN {
                break;
            }
        }
        let on_gates = gates(&outcome.on_bound);
        let mut runaway = match scale_free || (reach == 1.0 && on_gates.is_empty()) {
            true => Vec::new(),
            false => self.recession(&outcome),
        };
        if runaway.is_empty() && !scale_free {
            runaway = on_gates;
        }
        let parameters = outcome.parameters;
        let data = &self.design.data;
        let attainment = match (runaway.is_empty(), outcome.on_bound.is_empty()) {
            (false, _) => Attainment::NotAttained(runaway),
            (true, false) => Attainment::OnBound(outcome.on_bound),
            (true, true) => Attainment::Interior,
        };
        let effective_rows = effective_rows(&responsibilities(&parameters, data), data);
        let optimum = Optimum {
            log_likelihood: self.raw(outcome.log_likelihood),
            hits: end.hits,
            stop: outcome.stop,
            attainment,
            bounds,
            spurious: self.spurious(&parameters, &effective_rows),
            effective_rows,
            parameters,
        };
        (optimum, effort)
    }

    /// The gate's coordinates that may grow for ever without lowering the likelihood.
    ///
    /// Far out the likelihood is flat to rounding and a climb may be certified short of
    /// the bound. The gate g then has a part v in the directions without information;
    /// it runs away if g + 3 v is as good as g.
    fn recession(&self, outcome: &Outcome) -> Vec<Coordinate> {
        let layout = outcome.parameters.layout();
        let packed = layout.pack(&outcome.parameters);
        let data = &self.design.data;
        let derivatives = self.backend.derivatives(&outcome.parameters, data);
        let own = |j: &usize| !gates(&[layout.coordinates()[*j]]).is_empty();
        let free: Vec<usize> = (0..packed.len())
            .filter(|&j| own(&j) && !self.bounds.is_pinned(j))
            .collect();
        let information = -derivatives
            .hessian
            .select(Axis(0), &free)
            .select(Axis(1), &free);
        let gate: Array1<f64> = free.iter().map(|&j| packed[j]).collect();
        let Some(eigen) = SymmetricEigen::new(&information) else {
            return Vec::new();
        };
        let mut along = Array1::<f64>::zeros(free.len());
        for (value, vector) in eigen.values.iter().zip(eigen.vectors.columns()) {
            if value.abs() * gate.dot(&gate) < FLAT {
                along.scaled_add(vector.dot(&gate), &vector);
            }
        }
        let mut farther = packed.clone();
        for (&j, step) in free.iter().zip(&along) {
            farther[j] += 3.0 * step;
        }
        let farther = layout.unpack(&outcome.parameters, &farther);
        let there = self.backend.log_likelihood(&farther, data);
        if there.is_nan() || there < outcome.log_likelihood - NOTHING {
            return Vec::new();
        }
        let length = along.dot(&along).sqrt();
        let moved = free.iter().zip(&along);
        moved
            .filter(|(_, step)| step.abs() > 1e-3 * length)
            .map(|(&j, _)| layout.coordinates()[j])
            .collect()
    }

    /// The climb from a point that is nearly a maximum; the point itself if that is
    /// not certified or not better.
    fn polished(
        &self,
        from: &Parameters,
        bounds: &Bounds,
        known: &Outcome,
        effort: &mut Effort,
    ) -> Outcome {
        let data = &self.design.data;
        let newton = NewtonOptions::default();
        let outcome = crate::fit::polish(self.backend, data, from, bounds, newton);
        *effort += outcome.effort;
        if outcome.stop.is_converged() {
            return outcome;
        }
        let layout = from.layout();
        let mut packed = layout.pack(from);
        bounds.project(&mut packed);
        let parameters = layout.unpack(from, &packed);
        let at_start = self.backend.log_likelihood(&parameters, data);
        if outcome.log_likelihood > at_start {
            return Outcome {
                stop: known.stop.clone(),
                ..outcome
            };
        }
        Outcome {
            log_likelihood: at_start,
            on_bound: bounds.at_bound(&layout, &packed),
            parameters,
            ..known.clone()
        }
    }

    /// The smallest power of [`OUTWARDS`] whose box holds a point.
    fn reach_of(&self, parameters: &Parameters) -> f64 {
        let packed = parameters.layout().pack(parameters);
        let mut reach = 1.0;
        for _ in 0..MOST_STEPS_OUTWARDS {
            let bounds = self.specification.bounds(self.design, self.template, reach);
            let mut inside = packed.clone();
            bounds.project(&mut inside);
            if inside == packed {
                break;
            }
            reach *= OUTWARDS;
        }
        reach
    }

    /// The rule that sets an optimum apart, if one does.
    fn spurious(&self, parameters: &Parameters, effective_rows: &[f64]) -> Option<Spurious> {
        let rule = &self.specification.spurious;
        let least = rule.share * self.design.data.sample_size();
        let least = least.max(self.design.expert.terms.len() as f64 + 1.0);
        if parameters.experts.len() == 1 {
            return None;
        }
        let few = effective_rows.iter().position(|rows| *rows < least);
        if let Some(expert) = few {
            return Some(Spurious::FewRows {
                expert,
                rows: effective_rows[expert],
                least,
            });
        }
        let deviations = parameters.experts.iter().map(|e| e.variance.sqrt());
        let small = deviations.enumerate().find(|(_, d)| *d < rule.deviation);
        small.map(|(expert, deviation)| Spurious::SmallDeviation {
            expert,
            deviation,
            least: rule.deviation,
        })
    }
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

/// Experts by rising mean at the centre of the data; slopes break ties.
fn canonical(parameters: &Parameters) -> Parameters {
    let key = |i: usize| {
        let expert = &parameters.experts[i];
        std::iter::once(expert.intercept).chain(expert.slope.iter().copied())
    };
    let mut order: Vec<usize> = (0..parameters.experts.len()).collect();
    order.sort_by(|&a, &b| {
        let pairs = key(a).zip(key(b));
        let mut unequal = pairs.map(|(a, b)| a.total_cmp(&b)).filter(|o| o.is_ne());
        unequal.next().unwrap_or(std::cmp::Ordering::Equal)
    });
    parameters.permuted(&order)
}

/// The gate's coordinates among those on a bound.
fn gates(on_bound: &[Coordinate]) -> Vec<Coordinate> {
    let gate =
        |c: &&Coordinate| matches!(c, Coordinate::GateSlope(..) | Coordinate::GateIntercept(_));
    on_bound.iter().filter(gate).copied().collect()
}

/// The parameters with their gates scaled up until one meets its bound in the wider box:
/// the same step of the weights, steeper.
fn scaled_gates(parameters: &Parameters, bounds: &Bounds, wider: &Bounds) -> Parameters {
    let layout = parameters.layout();
    let mut packed = layout.pack(parameters);
    for (j, coordinate) in layout.coordinates().iter().enumerate() {
        let is_gate = !gates(&[*coordinate]).is_empty();
        if is_gate && bounds.high[j] > 0.0 {
            packed[j] *= wider.high[j] / bounds.high[j];
        }
    }
    layout.unpack(parameters, &packed)
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
