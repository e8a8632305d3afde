//! Projected Newton to a certified maximum.
//!
//! With M the observed information on the free coordinates (minus the Hessian
//! where that is positive definite, the outer product of scores otherwise) the
//! step is M^-1 s, projected to the box, halved until the likelihood rises
//! enough. Coordinates on a bound whose score points outwards are held.
//!
//! The likelihood of an absolute-value gate (or of ReLU experts) has a kink in
//! the parameters for every row, and the maximum may sit on one, where no score
//! is zero. There the score is replaced by the shortest vector, in the metric
//! M^-1, of the convex hull of scores gathered around the point: its length is
//! the certificate and it is the direction of ascent that all of them agree on
//! (the bundle idea of Lemarechal 1975).

use super::bounds::Bounds;
use super::outcome::{Effort, Outcome, Stop};
use crate::backend::{Backend, Derivatives};
use crate::model::{Data, ExpertKind, GateKind, Layout, Parameters, Response};
use crate::num::dense::Factor;
use ndarray::{Array1, Array2};

/// When the polish is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewtonOptions {
    /// Most iterations.
    pub max_iterations: usize,
    /// Largest scaled score sqrt(s' M^-1 s) at a certified maximum.
    pub scaled_score: f64,
    /// Largest last gain in log-likelihood (n times the mean gain).
    pub gain: f64,
}

impl Default for NewtonOptions {
    fn default() -> Self {
        NewtonOptions {
            max_iterations: 100,
            scaled_score: 1e-3,
            gain: 1e-6,
        }
    }
}

/// Share of the gain promised by the slope that a step must deliver; a quadratic
/// delivers half. Small enough for any bend, large enough that rounding on the
/// far side of a kink does not pass for progress.
const SUFFICIENT: f64 = 0.1;
/// Halvings of one step.
const MAX_HALVINGS: usize = 30;
/// A step shorter than this fraction, at a kinked likelihood, means that a kink
/// is in the way.
const SHORT_STEP: f64 = 0.3;
/// Scores kept around a kink.
const BUNDLE: usize = 12;

/// Runs Newton from `start`.
///
/// Stops with [`Stop::Converged`], [`Stop::ConvergedAtKink`],
/// [`Stop::Saddle`], [`Stop::MaxIterations`], [`Stop::NoAscent`],
/// [`Stop::Singular`] or [`Stop::NonFinite`].
pub fn polish(
    backend: &dyn Backend,
    data: &Data,
    start: &Parameters,
    bounds: &Bounds,
    options: NewtonOptions,
) -> Outcome {
    let layout = start.layout();
    let mut packed = layout.pack(start);
    bounds.project(&mut packed);
    let mut climb = Climb {
        backend,
        data,
        layout: &layout,
        bounds,
        template: start,
        effort: Effort::default(),
        has_kinks: has_kinks(start),
    };
    let mut state = climb.state(packed);
    let (stop, scaled_score) = climb.run(&mut state, options);
    Outcome {
        parameters: climb.parameters(&state.packed),
        log_likelihood: state.derivatives.log_likelihood,
        stop,
        scaled_score,
        on_bound: bounds.at_bound(&layout, &state.packed),
        effort: climb.effort,
    }
}

/// True if the likelihood has kinks in the parameters.
fn has_kinks(parameters: &Parameters) -> bool {
    let by_gate = matches!(
        parameters.gate.kind,
        GateKind::Competition {
            response: Response::Absolute,
            ..
        }
    );
    by_gate
        || parameters
            .experts
            .iter()
            .any(|e| e.kind == ExpertKind::Relu)
}

struct State {
    packed: Vec<f64>,
    derivatives: Derivatives,
}

/// A score gathered near a kink, and where.
struct Gathered {
    packed: Vec<f64>,
    log_likelihood: f64,
    score: Array1<f64>,
}

struct Climb<'a> {
    backend: &'a dyn Backend,
    data: &'a Data,
    layout: &'a Layout,
    bounds: &'a Bounds,
    template: &'a Parameters,
    effort: Effort,
    has_kinks: bool,
}

/// The information on the free coordinates, factored.
struct Metric {
    free: Vec<usize>,
    factor: Factor,
    /// False where minus the Hessian is not positive definite: such a point is
    /// no certified maximum, however small its score.
    concave: bool,
}

impl Metric {
    fn restrict(&self, v: &Array1<f64>) -> Array1<f64> {
        self.free.iter().map(|&j| v[j]).collect()
    }

    /// sqrt(v' M^-1 v)
    fn length(&self, v: &Array1<f64>) -> f64 {
        let white = self.factor.whiten(&self.restrict(v));
        white.dot(&white).sqrt()
    }

    /// M^-1 v on all coordinates, 0 on those held.
    fn step(&self, v: &Array1<f64>) -> Array1<f64> {
        let mut step = Array1::zeros(v.len());
        let solved = self.factor.solve(&self.restrict(v));
        for (&j, value) in self.free.iter().zip(&solved) {
            step[j] = *value;
        }
        step
    }
}

impl Climb<'_> {
    fn parameters(&self, packed: &[f64]) -> Parameters {
        self.layout.unpack(self.template, packed)
    }

    fn state(&mut self, packed: Vec<f64>) -> State {
        self.effort.rows += self.data.len();
        let derivatives = self
            .backend
            .derivatives(&self.parameters(&packed), self.data);
        State {
            packed,
            derivatives,
        }
    }

    fn run(&mut self, state: &mut State, options: NewtonOptions) -> (Stop, f64) {
        let mut last_gain = f64::INFINITY;
        let mut bundle: Vec<Gathered> = Vec::new();
        let mut scaled_score = f64::NAN;
        let mut fruitless = 0;
        let finite = |d: &Derivatives| {
            d.log_likelihood.is_finite() && d.gradient.iter().all(|v| v.is_finite())
        };
        if !finite(&state.derivatives) {
            return (Stop::NonFinite { iteration: 0 }, scaled_score);
        }
        for iteration in 1..=options.max_iterations {
            let Some(metric) = self.metric(state) else {
                return (Stop::Singular { iteration }, scaled_score);
            };
            bundle.retain(|g| self.explains(g, state, &metric, 0.5 * options.gain));
            bundle.drain(..bundle.len().saturating_sub(BUNDLE));
            let score = shortest_in_hull(&metric, &state.derivatives.gradient, &bundle);
            scaled_score = metric.length(&score);
            let stationary = scaled_score <= options.scaled_score;
            let smooth = metric.length(&state.derivatives.gradient) <= options.scaled_score;
            if stationary && last_gain <= options.gain {
                let stop = match (metric.concave, smooth) {
                    (false, _) => Stop::Saddle,
                    (true, true) => Stop::Converged,
                    (true, false) => Stop::ConvergedAtKink,
                };
                return (stop, scaled_score);
            }
            self.effort.newton += 1;
            let direction = metric.step(&score);
            if smooth && metric.concave && self.last_step(state, &direction, options.gain) {
                return (Stop::Converged, scaled_score);
            }
            let search = self.line_search(state, &direction, scaled_score);
            // A short or fruitless step at a kinked likelihood: a kink is in the
            // way, and the scores on both sides of it say where to go.
            let gain = search.gain(state);
            let blocked = search.fraction < SHORT_STEP || gain <= options.gain;
            if !self.has_kinks || !blocked {
                bundle.clear();
            } else {
                bundle.extend(search.rejected);
            }
            match search.accepted {
                Some(next) => {
                    last_gain = gain;
                    fruitless = 0;
                    if self.has_kinks && blocked {
                        bundle.push(Gathered {
                            packed: state.packed.clone(),
                            log_likelihood: state.derivatives.log_likelihood,
                            score: state.derivatives.gradient.clone(),
                        });
                    }
                    *state = next;
                }
                // The scores of a kink are gathered one by one; a jump has none.
                None if self.has_kinks && fruitless < BUNDLE => {
                    last_gain = 0.0;
                    fruitless += 1;
                }
                // Nothing is left to gain but rounding.
                None if stationary && metric.concave => return (Stop::Converged, scaled_score),
                None if stationary => return (Stop::Saddle, scaled_score),
                None => return (Stop::NoAscent, scaled_score),
            }
        }
        (Stop::MaxIterations, scaled_score)
    }

    /// Takes the step from a point whose score is below tolerance, if its gain is
    /// too; the likelihood alone tells, at less than half the cost of derivatives.
    fn last_step(&mut self, state: &mut State, direction: &Array1<f64>, gain: f64) -> bool {
        let packed = self.stepped(state, direction, 1.0);
        self.effort.rows += self.data.len();
        let value = self
            .backend
            .log_likelihood(&self.parameters(&packed), self.data);
        let gained = value - state.derivatives.log_likelihood;
        let small = (0.0..=gain).contains(&gained);
        if small {
            state.packed = packed;
            state.derivatives.log_likelihood = value;
        }
        small
    }

    /// The point `fraction` of the way along `direction`, projected to the box.
    fn stepped(&self, state: &State, direction: &Array1<f64>, fraction: f64) -> Vec<f64> {
        let moved = state.packed.iter().zip(direction);
        let mut packed: Vec<f64> = moved.map(|(p, d)| p + fraction * d).collect();
        self.bounds.project(&mut packed);
        packed
    }

    /// The point where `direction` first leaves the box, if it does so before
    /// its end. Projection bends a step, and close to a bound the bent step may
    /// not ascend; the straight one does.
    fn first_bound(&self, state: &State, direction: &Array1<f64>) -> Option<Vec<f64>> {
        let bound = |j: usize| match direction[j] > 0.0 {
            true => self.bounds.high[j],
            false => self.bounds.low[j],
        };
        let (hit, fraction) = (0..direction.len())
            .filter(|&j| direction[j] != 0.0)
            .map(|j| (j, (bound(j) - state.packed[j]) / direction[j]))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, fraction)| *fraction < 1.0)?;
        let mut packed = self.stepped(state, direction, fraction);
        packed[hit] = bound(hit);
        Some(packed)
    }

    /// The information on the coordinates that may move.
    fn metric(&mut self, state: &State) -> Option<Metric> {
        let derivatives = &state.derivatives;
        let gradient = &derivatives.gradient;
        let free: Vec<usize> = (0..gradient.len())
            .filter(|&j| !self.bounds.blocks(&state.packed, j, gradient[j]))
            .collect();
        let restrict = |m: &Array2<f64>, sign: f64| {
            Array2::from_shape_fn((free.len(), free.len()), |(a, b)| {
                sign * m[[free[a], free[b]]]
            })
        };
        let observed = restrict(&derivatives.hessian, -1.0);
        // A singular information (an over-specified fit on its ridge) is concave
        // up to rounding: as much ridge as rounding explains.
        for ridge in [0.0, 1e-9] {
            let mut repaired = observed.clone();
            repaired.diag_mut().map_inplace(|v| *v += ridge * v.abs());
            if let Some(factor) = Factor::new(&repaired) {
                return Some(Metric {
                    free,
                    factor,
                    concave: true,
                });
            }
        }
        // Not concave here: the outer product, with as little ridge as it takes.
        self.effort.rows += self.data.len();
        let parameters = self.parameters(&state.packed);
        let outer = restrict(&self.backend.score_outer(&parameters, self.data), 1.0);
        let largest = outer.diag().iter().fold(0.0f64, |m, v| m.max(*v));
        let mut ridge = 1e-10;
        while ridge <= 1.0 {
            let mut repaired = outer.clone();
            repaired
                .diag_mut()
                .map_inplace(|v| *v += ridge * v.max(1e-8 * largest));
            if let Some(factor) = Factor::new(&repaired) {
                return Some(Metric {
                    free,
                    factor,
                    concave: false,
                });
            }
            ridge *= 100.0;
        }
        None
    }

    /// True if the quadratic expansion at the gathered point explains the
    /// likelihood here: its score then belongs to the surroundings of this point
    /// as far as `gain` can tell (the linearisation error of bundle methods).
    fn explains(&self, gathered: &Gathered, state: &State, metric: &Metric, gain: f64) -> bool {
        let step: Array1<f64> = state
            .packed
            .iter()
            .zip(&gathered.packed)
            .map(|(here, there)| here - there)
            .collect();
        let curvature = metric.factor.norm_sq(&metric.restrict(&step));
        let expected = gathered.log_likelihood + gathered.score.dot(&step) - 0.5 * curvature;
        (expected - state.derivatives.log_likelihood).abs() <= gain
    }

    fn line_search(&mut self, state: &State, direction: &Array1<f64>, scaled: f64) -> Search {
        let start = state.derivatives.log_likelihood;
        let rounding = 1e-13 * (1.0 + start.abs());
        let mut fraction = 1.0;
        let mut rejected = None;
        for halving in 0..MAX_HALVINGS {
            let packed = self.stepped(state, direction, fraction);
            if packed == state.packed {
                break;
            }
            let enough = SUFFICIENT * fraction * scaled * scaled;
            // The first trial is nearly always taken: compute its derivatives
            // at once. Later ones are judged by the likelihood alone.
            if halving > 0 && !self.has_kinks {
                self.effort.rows += self.data.len();
                let value = self
                    .backend
                    .log_likelihood(&self.parameters(&packed), self.data);
                if value.is_nan() || value - start < enough - rounding {
                    fraction *= 0.5;
                    continue;
                }
            }
            let next = self.state(packed);
            let gain = next.derivatives.log_likelihood - start;
            let finite = next.derivatives.gradient.iter().all(|v| v.is_finite());
            if finite && gain >= enough - rounding {
                return Search {
                    accepted: Some(next),
                    rejected,
                    fraction,
                };
            }
            if finite {
                rejected = Some(Gathered {
                    packed: next.packed,
                    log_likelihood: next.derivatives.log_likelihood,
                    score: next.derivatives.gradient,
                });
            }
            if self.has_kinks && fraction * scaled * scaled < 1e-9 {
                break;
            }
            fraction *= 0.5;
        }
        // A bound within rounding of the point: go there, and hold it next time.
        let accepted = self
            .first_bound(state, direction)
            .filter(|packed| *packed != state.packed)
            .map(|packed| self.state(packed))
            .filter(|next| next.derivatives.log_likelihood >= start - rounding);
        Search {
            accepted,
            rejected,
            fraction: 0.0,
        }
    }
}

struct Search {
    accepted: Option<State>,
    /// The last point that did not raise the likelihood enough.
    rejected: Option<Gathered>,
    fraction: f64,
}

impl Search {
    /// Gain in log-likelihood of the accepted step; 0 if there is none.
    fn gain(&self, from: &State) -> f64 {
        self.accepted.as_ref().map_or(0.0, |next| {
            next.derivatives.log_likelihood - from.derivatives.log_likelihood
        })
    }
}

/// The shortest vector of the convex hull of `own` and the gathered scores, in
/// the metric M^-1, by pairwise exchange of weight (sequential minimal steps).
fn shortest_in_hull(metric: &Metric, own: &Array1<f64>, bundle: &[Gathered]) -> Array1<f64> {
    if bundle.is_empty() {
        return own.clone();
    }
    let scores: Vec<&Array1<f64>> = std::iter::once(own)
        .chain(bundle.iter().map(|g| &g.score))
        .collect();
    let white: Vec<Array1<f64>> = scores
        .iter()
        .map(|s| metric.factor.whiten(&metric.restrict(s)))
        .collect();
    let mut share = vec![0.0; scores.len()];
    share[0] = 1.0;
    let mut sum = white[0].clone();
    for _ in 0..2000 {
        // Move weight from the score that agrees most with the sum to the one
        // that agrees least.
        let along: Vec<f64> = white.iter().map(|w| w.dot(&sum)).collect();
        let to = (0..along.len())
            .min_by(|&a, &b| along[a].total_cmp(&along[b]))
            .expect("not empty");
        let from = (0..along.len())
            .filter(|&k| share[k] > 0.0)
            .max_by(|&a, &b| along[a].total_cmp(&along[b]))
            .expect("shares sum to one");
        let gap = along[from] - along[to];
        let difference = &white[from] - &white[to];
        let length_sq = difference.dot(&difference);
        if gap <= 1e-12 * (1.0 + sum.dot(&sum)) || length_sq == 0.0 {
            break;
        }
        let moved = (gap / length_sq).min(share[from]);
        share[from] -= moved;
        share[to] += moved;
        sum.scaled_add(-moved, &difference);
    }
    let mut shortest = Array1::zeros(own.len());
    for (score, share) in scores.iter().zip(&share) {
        shortest.scaled_add(*share, *score);
    }
    shortest
}
