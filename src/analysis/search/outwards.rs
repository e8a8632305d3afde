//! From an end of starts to an optimum: experts in order, gates followed to where they
//! lead.

use super::Search;
use super::ends::End;
use crate::analysis::fitted::{Attainment, Optimum, Spurious};
use crate::analysis::responsibility::{effective_rows, responsibilities};
use crate::fit::{Bounds, Effort, NewtonOptions, Outcome, polish};
use crate::model::{Coordinate, Parameters};
use crate::num::dense::SymmetricEigen;
use ndarray::{Array1, Axis};

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

impl Search<'_> {
    /// The end in canonical order, its gate followed outwards if it runs away.
    pub(super) fn settled(&self, end: End) -> (Optimum, Effort) {
        let ordered = canonical(&end.outcome.parameters);
        let mut reach = self.reach_of(&ordered);
        let mut bounds = self.specification.bounds(self.design, self.template, reach);
        let mut effort = Effort::default();
        // Another expert may be the reference now: the same point, other bounds.
        let mut outcome = self.polished(&ordered, &bounds, &end.outcome, &mut effort);
        // The scale of a top-1 router means nothing.
        let scale_free = self.template.gate.top_k == Some(1);
        for _ in 0..MOST_STEPS_OUTWARDS {
            if scale_free || routers(&outcome.on_bound).is_empty() {
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
        let on_routers = routers(&outcome.on_bound);
        let mut runaway = match scale_free || (reach == 1.0 && on_routers.is_empty()) {
            true => Vec::new(),
            false => self.recession(&outcome),
        };
        if runaway.is_empty() && !scale_free {
            runaway = on_routers;
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
            log_likelihood: self.design.raw_log_likelihood(outcome.log_likelihood),
            hits: end.hits,
            stop: outcome.stop,
            attainment,
            bounds,
            spurious: Spurious::of(
                self.specification,
                self.design,
                &parameters,
                &effective_rows,
            ),
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
        let free: Vec<usize> = (0..packed.len())
            .filter(|&j| layout.coordinates()[j].is_of_router() && !self.bounds.is_pinned(j))
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

    /// The climb from a point that is nearly a maximum, or the better of start and end
    /// if it is not certified: on the flat way out of a run-away gate. The reason to stop
    /// is then that of the certified point known before.
    fn polished(
        &self,
        from: &Parameters,
        bounds: &Bounds,
        known: &Outcome,
        effort: &mut Effort,
    ) -> Outcome {
        let data = &self.design.data;
        let newton = NewtonOptions::default();
        let outcome = polish(self.backend, data, from, bounds, newton);
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

/// The router's coordinates among those on a bound.
fn routers(on_bound: &[Coordinate]) -> Vec<Coordinate> {
    let own = on_bound.iter().filter(|c| c.is_of_router());
    own.copied().collect()
}

/// The parameters with their gates scaled up until one meets its bound in the wider box:
/// the same step of the weights, steeper.
fn scaled_gates(parameters: &Parameters, bounds: &Bounds, wider: &Bounds) -> Parameters {
    let layout = parameters.layout();
    let mut packed = layout.pack(parameters);
    for (j, coordinate) in layout.coordinates().iter().enumerate() {
        if coordinate.is_of_router() && bounds.high[j] > 0.0 {
            packed[j] *= wider.high[j] / bounds.high[j];
        }
    }
    layout.unpack(parameters, &packed)
}
