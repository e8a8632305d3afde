//! Projected Newton to a certified maximum.
//!
//! Where minus the Hessian M is positive definite on the free coordinates the
//! step is M^-1 s, elsewhere that of a trust region, which leaves a saddle along
//! the direction of negative curvature ([`super::quadratic`]). Near-equal experts
//! are moved along the curved ridge that they make ([`super::chart`]).
//! Coordinates on a bound whose score points outwards are held.
//!
//! The likelihood of an absolute-value gate (or of ReLU experts) has a kink in
//! the parameters for every row, and the maximum may sit on one, where no score
//! is zero. There the score is replaced by the shortest vector, in the metric
//! M^-1, of the convex hull of scores gathered around the point: its length is
//! the certificate and it is the direction of ascent that all of them agree on
//! (the bundle idea of Lemarechal 1975).

use super::boundary::has_jumps;
use super::bounds::Bounds;
use super::chart::{Atlas, Chart, Motion};
use super::outcome::{Effort, Outcome, Stop};
use super::quadratic::{Quadratic, Step};
use crate::backend::{Backend, Derivatives};
use crate::model::{Data, Expert, ExpertKind, GateKind, Layout, Parameters, Response};
use ndarray::Array1;

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
            max_iterations: 200,
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
/// Least and largest first radius in units of n^(1/2), where the model is not
/// concave: |D d| is then the distance in units of one row's information.
const FIRST_RADIUS: [f64; 2] = [0.1, 1.0];
/// A step shorter than this fraction, at a kinked likelihood, means that a kink
/// is in the way.
const SHORT_STEP: f64 = 0.3;
/// Promise of a failed step below which a jump, not a bend, is in the way.
const LITTLE: f64 = 1e-6;
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
        kinks: Kinks::new(start, data),
        past_jumps: match has_jumps(start) {
            true => PastJumps::BoundarySearch,
            false => PastJumps::Newton,
        },
        atlas: Atlas::new(start, &layout, bounds, data),
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

/// Where the likelihood has kinks in the parameters: where a mean is zero under
/// the absolute response, or a ReLU's predictor is, at a row.
struct Kinks<'a> {
    data: &'a Data,
    at_zero_means: bool,
    experts: Vec<usize>,
}

impl<'a> Kinks<'a> {
    fn new(parameters: &Parameters, data: &'a Data) -> Self {
        // A kept mean is zero only where all dropped ones are: top-K has no such
        // kinks, they lie behind jumps.
        let at_zero_means = !parameters.is_sparse()
            && matches!(
                parameters.gate.kind,
                GateKind::Competition {
                    response: Response::Absolute,
                    ..
                }
            );
        let experts = parameters.experts.iter().enumerate();
        let kinked = experts.filter(|(_, e)| at_zero_means || e.kind == ExpertKind::Relu);
        Kinks {
            data,
            at_zero_means,
            experts: kinked.map(|(i, _)| i).collect(),
        }
    }

    fn any(&self) -> bool {
        !self.experts.is_empty()
    }

    /// True if one lies between two points.
    fn between(&self, from: &Parameters, to: &Parameters) -> bool {
        let mut x = vec![0.0; self.data.dimension()];
        self.any()
            && (0..self.data.len()).any(|row| {
                self.data.read_row(row, &mut x);
                self.experts.iter().any(|&i| {
                    let [from, to] = [from, to].map(|p| &p.experts[i]);
                    let differ =
                        |of: fn(&Expert, &[f64]) -> f64| (of(from, &x) > 0.0) != (of(to, &x) > 0.0);
                    (self.at_zero_means && differ(Expert::mean))
                        || (from.kind == ExpertKind::Relu && differ(Expert::predictor))
                })
            })
    }
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
    kinks: Kinks<'a>,
    past_jumps: PastJumps,
    atlas: Atlas<'a>,
}

/// Who is to find a way past a jump of the likelihood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PastJumps {
    /// Smaller steps, as for any step that fails.
    Newton,
    /// The search along boundaries: a failed step that promised little ends the
    /// climb.
    BoundarySearch,
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
        let mut scale = vec![0.0; state.packed.len()];
        let mut radius = f64::INFINITY;
        let finite = |d: &Derivatives| {
            d.log_likelihood.is_finite() && d.gradient.iter().all(|v| v.is_finite())
        };
        if !finite(&state.derivatives) {
            return (Stop::NonFinite { iteration: 0 }, scaled_score);
        }
        for iteration in 1..=options.max_iterations {
            let chart = self.atlas.chart(&state.packed, &state.derivatives.gradient);
            let Some(observed) = self.quadratic(state, None, &mut scale) else {
                return (Stop::Singular { iteration }, scaled_score);
            };
            bundle.retain(|g| self.explains(g, state, &observed, 0.5 * options.gain));
            bundle.drain(..bundle.len().saturating_sub(BUNDLE));
            let score = shortest_in_hull(&observed, &state.derivatives.gradient, &bundle);
            scaled_score = observed.scaled_length(&score);
            let stationary = scaled_score <= options.scaled_score;
            let smooth =
                observed.scaled_length(&state.derivatives.gradient) <= options.scaled_score;
            if stationary && observed.concave && last_gain <= options.gain {
                let stop = match smooth {
                    true => Stop::Converged,
                    false => Stop::ConvergedAtKink,
                };
                return (stop, scaled_score);
            }
            self.effort.newton += 1;
            let curved = match chart.is_straight() {
                true => None,
                false => self.quadratic(state, Some(&chart), &mut scale),
            };
            let model = curved.as_ref().unwrap_or(&observed);
            if !model.concave && radius.is_infinite() {
                let unit = self.data.sample_size().sqrt();
                let natural = model.natural_radius(&score);
                radius = natural.clamp(FIRST_RADIUS[0] * unit, FIRST_RADIUS[1] * unit);
            }
            // Kinks, not bends, cut steps short where the model is concave.
            let reach = match self.kinks.any() && model.concave && chart.is_straight() {
                true => f64::INFINITY,
                false => radius,
            };
            let step = model.step(&score, reach);
            if smooth
                && observed.concave
                && chart.is_straight()
                && self.last_step(state, &step.direction, options.gain)
            {
                return (Stop::Converged, scaled_score);
            }
            let mut search = Search::default();
            if !self.kinks.any() || (!chart.is_straight() && bundle.is_empty()) {
                search = self.trust_region(state, &chart, model, &mut radius);
            }
            if self.kinks.any() && search.accepted.is_none() {
                search = self.line_search(state, &chart, &step, &mut radius);
            }
            // A short or fruitless step at a kinked likelihood: a kink is in the
            // way, and the scores on both sides of it say where to go.
            let gain = search.gain;
            let blocked = search.fraction < SHORT_STEP || gain <= options.gain;
            if !self.kinks.any() || !blocked {
                bundle.clear();
            } else {
                bundle.extend(search.rejected);
            }
            match search.accepted {
                Some(next) => {
                    last_gain = gain;
                    fruitless = 0;
                    if self.kinks.any() && blocked {
                        bundle.push(Gathered {
                            packed: state.packed.clone(),
                            log_likelihood: state.derivatives.log_likelihood,
                            score: state.derivatives.gradient.clone(),
                        });
                    }
                    *state = next;
                }
                // The scores of a kink are gathered one by one; a jump has none.
                None if self.kinks.any() && fruitless < BUNDLE => {
                    last_gain = 0.0;
                    fruitless += 1;
                }
                // Nothing is left to gain but rounding.
                None if stationary && observed.concave => return (Stop::Converged, scaled_score),
                None if stationary => return (Stop::Saddle, scaled_score),
                None => return (Stop::NoAscent, scaled_score),
            }
        }
        (Stop::MaxIterations, scaled_score)
    }

    /// The quadratic model in packed coordinates, or in those of a chart.
    fn quadratic(
        &self,
        state: &State,
        chart: Option<&Chart>,
        scale: &mut [f64],
    ) -> Option<Quadratic> {
        let Derivatives {
            gradient, hessian, ..
        } = &state.derivatives;
        let (bounds, packed) = (self.bounds, &state.packed);
        match chart {
            None => Quadratic::new(bounds, packed, gradient, hessian, scale),
            Some(chart) => {
                let bent = hessian + &chart.bend(packed, gradient);
                Quadratic::new(bounds, packed, gradient, &bent, scale)
            }
        }
    }

    /// Takes the step from a point whose score is below tolerance, if its gain is
    /// too; the likelihood alone tells, at less than half the cost of derivatives.
    fn last_step(&mut self, state: &mut State, direction: &Array1<f64>, gain: f64) -> bool {
        if rounding(state) > 0.1 * gain {
            return false;
        }
        let moved = state.packed.iter().zip(direction).map(|(p, d)| p + d);
        let mut packed: Vec<f64> = moved.collect();
        self.bounds.project(&mut packed);
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

    /// The point `fraction` of the way along a step, projected to the box.
    fn stepped(&self, state: &State, chart: &Chart, step: &Step, fraction: f64) -> Vec<f64> {
        let mut packed = chart.curve(&state.packed, &step.direction, fraction);
        self.bounds.project(&mut packed);
        // A step that ends on a bound ends there exactly, so that it holds.
        for (j, value) in packed.iter_mut().enumerate() {
            let end = state.packed[j] + fraction * step.direction[j];
            for bound in [self.bounds.low[j], self.bounds.high[j]] {
                if (end - bound).abs() <= 1e-12 * (1.0 + bound.abs()) {
                    *value = bound;
                }
            }
        }
        packed
    }

    /// True if the quadratic expansion at the gathered point explains the
    /// likelihood here: its score then belongs to the surroundings of this point
    /// as far as `gain` can tell (the linearisation error of bundle methods).
    fn explains(&self, gathered: &Gathered, state: &State, model: &Quadratic, gain: f64) -> bool {
        let step: Array1<f64> = state
            .packed
            .iter()
            .zip(&gathered.packed)
            .map(|(here, there)| here - there)
            .collect();
        let curvature = model.norm_sq(&step);
        let expected = gathered.log_likelihood + gathered.score.dot(&step) - 0.5 * curvature;
        (expected - state.derivatives.log_likelihood).abs() <= gain
    }

    /// The model's step in a ball that shrinks until the likelihood rises as
    /// promised, and grows while it does.
    fn trust_region(
        &mut self,
        state: &State,
        chart: &Chart,
        model: &Quadratic,
        radius: &mut f64,
    ) -> Search {
        for _ in 0..MAX_HALVINGS {
            let step = model.step(&state.derivatives.gradient, *radius);
            let packed = self.stepped(state, chart, &step, 1.0);
            if packed == state.packed {
                break;
            }
            let next = self.state(packed);
            let gain = self.gain(state, &next, chart, &step, 1.0);
            let promise = step.promise(1.0);
            let finite = next.derivatives.gradient.iter().all(|v| v.is_finite());
            if finite && gain >= SUFFICIENT * promise - rounding(state).min(1e-9) {
                let kept = gain / promise;
                if kept > 0.5 {
                    *radius = radius.max(2.0 * step.length);
                } else if kept < 0.25 {
                    *radius = 0.5 * step.length;
                }
                return Search {
                    accepted: Some(next),
                    gain,
                    rejected: None,
                    fraction: 1.0,
                };
            }
            if self.past_jumps == PastJumps::BoundarySearch && promise <= LITTLE {
                break;
            }
            // Near a kink no ball is small enough.
            if self.kinks.between(
                &self.parameters(&state.packed),
                &self.parameters(&next.packed),
            ) {
                break;
            }
            // The maximum of the parabola through both points.
            let fraction = 0.5 * step.slope / (step.slope - gain);
            *radius = step.length
                * if finite {
                    fraction.clamp(0.1, 0.5)
                } else {
                    0.1
                };
        }
        Search::default()
    }

    /// Halves a step until the likelihood rises enough.
    fn line_search(
        &mut self,
        state: &State,
        chart: &Chart,
        step: &Step,
        radius: &mut f64,
    ) -> Search {
        let mut fraction = 1.0;
        let mut rejected = None;
        for _ in 0..MAX_HALVINGS {
            let packed = self.stepped(state, chart, step, fraction);
            if packed == state.packed {
                break;
            }
            let rise = fraction * (step.slope - 0.5 * fraction * step.curvature.min(0.0));
            let next = self.state(packed);
            let gain = self.gain(state, &next, chart, step, fraction);
            let finite = next.derivatives.gradient.iter().all(|v| v.is_finite());
            if finite && gain >= SUFFICIENT * rise - rounding(state) {
                *radius = match fraction < 1.0 {
                    true => fraction * step.length,
                    false => radius.max(2.0 * step.length),
                };
                return Search {
                    accepted: Some(next),
                    gain,
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
            if fraction * step.slope < 1e-9 {
                break;
            }
            fraction *= 0.5;
        }
        Search {
            rejected,
            ..Search::default()
        }
    }

    /// The gain in log-likelihood along a curve. Where the difference of two sums
    /// drowns in their rounding, the integral of the slope (Hermite's rule, exact
    /// for polynomials of degree 4); but not across a kink.
    fn gain(&self, from: &State, to: &State, chart: &Chart, step: &Step, fraction: f64) -> f64 {
        let difference = to.derivatives.log_likelihood - from.derivatives.log_likelihood;
        let rounding = rounding(from);
        let told = difference.is_nan() || difference.abs() > rounding;
        let crossed = || {
            let ends = [from, to].map(|at| self.parameters(&at.packed));
            self.kinks.between(&ends[0], &ends[1])
        };
        if told || crossed() {
            return difference;
        }
        let motion = |time: f64| chart.motion(&from.packed, &step.direction, time);
        // Slope and bend of the log-likelihood in the curve's time.
        let along = |at: &State, motion: Motion| {
            let Motion {
                velocity,
                acceleration,
            } = motion;
            let Derivatives {
                gradient, hessian, ..
            } = &at.derivatives;
            let bend = gradient.dot(&acceleration) + velocity.dot(&hessian.dot(&velocity));
            (gradient.dot(&velocity), bend)
        };
        let (first, last) = (along(from, motion(0.0)), along(to, motion(fraction)));
        fraction * (0.5 * (first.0 + last.0) + fraction * (first.1 - last.1) / 12.0)
    }
}

/// Differences of log-likelihoods below this may be rounding.
fn rounding(state: &State) -> f64 {
    1e-13 * (1.0 + state.derivatives.log_likelihood.abs())
}

/// What became of a step.
#[derive(Default)]
struct Search {
    accepted: Option<State>,
    /// Gain in log-likelihood of the accepted step; 0 if there is none.
    gain: f64,
    /// The last point that did not raise the likelihood enough.
    rejected: Option<Gathered>,
    fraction: f64,
}

/// The shortest vector of the convex hull of `own` and the gathered scores, in
/// the metric M^-1, by pairwise exchange of weight (sequential minimal steps).
fn shortest_in_hull(model: &Quadratic, own: &Array1<f64>, bundle: &[Gathered]) -> Array1<f64> {
    if bundle.is_empty() {
        return own.clone();
    }
    let scores: Vec<&Array1<f64>> = std::iter::once(own)
        .chain(bundle.iter().map(|g| &g.score))
        .collect();
    let white: Vec<Array1<f64>> = scores.iter().map(|s| model.whiten(s)).collect();
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
