//! The search along selection boundaries: maximum likelihood where it jumps.
//!
//! With K < N experts kept, the likelihood is smooth on cells of the parameter
//! set, on which every row keeps its selection ([`cell`]), and jumps between
//! them where the density jumps at a boundary. Newton stops at the first jump.
//! From there, on one input, two moves alternate:
//!
//! ```text
//! climb   to the maximum of the cell: Newton on a polyhedron     [`program`]
//! move    a boundary over one or more observations, or a new segment in from
//!         one: the log-likelihood of the rows that change their selection, and a
//!         quadratic model of all rows over the new cell, say which moves may be
//!         gains [`exchange`]; climb there, stay if the exact likelihood is higher
//! ```
//!
//! The likelihood of the change-point problem (Chernoff and Rubin 1956; Hinkley
//! 1970) is profiled in the same way over the observations; here the boundary is
//! tied to the experts. `docs/methods.md`, 4, has the certificate.

mod cell;
mod exchange;
mod program;

use super::bounds::Bounds;
use super::newton::NewtonOptions;
use super::outcome::{Outcome, Stop};
use crate::backend::{Backend, Derivatives};
use crate::model::{Data, Layout, Parameters};
pub use cell::has_jumps;
use cell::{Cell, Line, Regime};
use exchange::{Submixture, single};
use ndarray::Array1;
use program::{HalfSpace, Program, Solution, faces_of_the_box};
use std::ops::Range;

/// New segments, and two moves at once, are tried up to this many observations.
const NEAR: usize = 4;
/// Boundaries are tried over at least this many observations on either side, and
/// over the square root of the sample size.
const LEAST_WINDOW: usize = 16;
/// A walk ends where the rows passed lose more than this together.
const HOPELESS: f64 = 100.0;
/// Share of a step's squared length by which a prediction may err at most.
const WORST_ERROR: f64 = 0.25;
/// Most moves of boundaries.
const MAX_MOVES: usize = 60;
/// Most places climbed without success from one point.
const MAX_TRIES: usize = 64;
/// Most Newton steps in one cell, and halvings of one.
const MAX_STEPS: usize = 30;
const MAX_HALVINGS: usize = 30;
/// More segments than this are no order of the input.
const MAX_SEGMENTS: usize = 32;

/// Goes on from the end of a polish, which is returned as it is, but for the
/// work counted, where the search does not apply (dense models, several inputs,
/// selection by nonlinear experts) or finds nothing better than a certified
/// maximum.
///
/// Otherwise stops with [`Stop::ConvergedAtJump`], or [`Stop::Converged`] inside
/// a cell, or, uncertified, with the polish's own reason.
pub(super) fn search(
    backend: &dyn Backend,
    data: &Data,
    bounds: &Bounds,
    options: NewtonOptions,
    polished: Outcome,
) -> Outcome {
    let ended = matches!(polished.stop, Stop::NonFinite { .. } | Stop::TooFewRows);
    if ended
        || !polished.log_likelihood.is_finite()
        || data.is_empty()
        || !has_jumps(&polished.parameters)
    {
        return polished;
    }
    let layout = polished.parameters.layout();
    let line = Line::new(data);
    let mut search = Search {
        backend,
        data,
        bounds,
        options,
        layout: &layout,
        line: &line,
        outcome: polished,
    };
    search.run();
    search.outcome
}

struct Search<'a> {
    backend: &'a dyn Backend,
    data: &'a Data,
    bounds: &'a Bounds,
    options: NewtonOptions,
    layout: &'a Layout,
    line: &'a Line,
    /// The polish's end, and the search's in the end.
    outcome: Outcome,
}

/// The end of a climb in one cell.
struct Peak {
    cell: Cell,
    packed: Vec<f64>,
    derivatives: Derivatives,
    scaled_score: f64,
    end: PeakEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PeakEnd {
    /// A maximum with no selection about to change.
    Inside,
    /// A maximum where a boundary presses against an observation.
    OnFace,
    /// No maximum.
    Uncertified,
}

/// Neighbouring rows that change their selection.
struct Move {
    places: Range<usize>,
    regime: Regime,
    /// What changes in the log-likelihood of these rows.
    changed: Derivatives,
    /// The change of the score, whitened by the metric where the move starts.
    pull: Array1<f64>,
}

/// Where a walk over rows leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Left,
    Right,
}

/// Rows that are to take another regime one after the other.
struct Walk {
    /// The end of a segment at which it begins.
    end: usize,
    direction: Direction,
    /// Most rows.
    window: usize,
    regime: Regime,
}

impl Move {
    fn distance(&self) -> usize {
        self.places.len()
    }
}

/// A cell that may be better.
struct Place {
    cell: Cell,
    /// The maximum there according to the model.
    packed: Vec<f64>,
    /// Observations passed.
    distance: usize,
    /// The gain that the model expects, plus what it may err.
    hope: f64,
}

impl Search<'_> {
    /// A gain in log-likelihood below this is none.
    fn least_gain(&self) -> f64 {
        0.1 * self.options.gain
    }

    fn run(&mut self) {
        let was_certified = self.outcome.stop.is_converged();
        let packed = self.layout.pack(&self.outcome.parameters);
        let cell = self.cell(&packed);
        if cell.segments.len() > MAX_SEGMENTS {
            return;
        }
        let Some(mut peak) = self.climb(packed, cell, f64::NEG_INFINITY) else {
            return;
        };
        let least = LEAST_WINDOW.max(self.data.sample_size().sqrt().ceil() as usize);
        let mut window = least;
        let mut searched = false;
        for _ in 0..MAX_MOVES {
            let Some(program) = Program::new(self.bounds, &peak.derivatives) else {
                break;
            };
            let moves = self.moves(&peak, &program, window);
            let singles = self.places(&peak, moves.iter().map(|one| vec![one]));
            let mut found = self.first_better(&peak, &singles);
            let mut within_limit = singles.len() <= MAX_TRIES;
            if found.is_none() {
                let pairs = self.places(&peak, promising_pairs(&moves, &program));
                found = self.first_better(&peak, &pairs);
                within_limit &= pairs.len() <= MAX_TRIES;
            }
            match found {
                Some((better, distance)) => {
                    // The best place near the window's edge: look farther.
                    if 2 * distance > window {
                        window = (2 * window).min(self.line.len());
                    }
                    peak = better;
                }
                None => {
                    searched = within_limit;
                    break;
                }
            }
        }
        let gained = peak.derivatives.log_likelihood - self.outcome.log_likelihood;
        if was_certified && gained <= self.least_gain() {
            return;
        }
        // Rows that the segments do not describe would void the certificate.
        let described = self.cell(&peak.packed) == peak.cell;
        self.outcome.stop = match (searched && described, peak.end) {
            (true, PeakEnd::Inside) => Stop::Converged,
            (true, PeakEnd::OnFace) => Stop::ConvergedAtJump,
            _ if was_certified => Stop::NoAscent,
            _ => self.outcome.stop.clone(),
        };
        self.outcome.scaled_score = peak.scaled_score;
        if gained > 0.0 {
            self.outcome.parameters = self.parameters(&peak.packed);
            self.outcome.log_likelihood = peak.derivatives.log_likelihood;
            self.outcome.on_bound = self.bounds.at_bound(self.layout, &peak.packed);
        }
    }

    fn parameters(&self, packed: &[f64]) -> Parameters {
        self.layout.unpack(&self.outcome.parameters, packed)
    }

    fn cell(&mut self, packed: &[f64]) -> Cell {
        self.outcome.effort.rows += self.data.len();
        Cell::at(&self.parameters(packed), self.line)
    }

    fn derivatives(&mut self, packed: &[f64]) -> Derivatives {
        self.outcome.effort.rows += self.data.len();
        self.backend
            .derivatives(&self.parameters(packed), self.data)
    }

    /// All faces of a cell, those of the box last, and the number of its own.
    fn faces(&self, cell: &Cell) -> (Vec<HalfSpace>, usize) {
        let mut faces = cell.faces(&self.outcome.parameters, self.layout, self.line);
        let own = faces.len();
        faces.extend(faces_of_the_box(self.bounds));
        (faces, own)
    }

    /// Newton to the maximum of a cell; `None` if nothing there is finite, no
    /// parameters have these selections, or twice what the model promises is less
    /// than what is `needed`.
    fn climb(&mut self, mut packed: Vec<f64>, cell: Cell, needed: f64) -> Option<Peak> {
        let (faces, own) = self.faces(&cell);
        let mut derivatives = self.derivatives(&packed);
        let mut last_gain = f64::INFINITY;
        for _ in 0..MAX_STEPS {
            let program = Program::new(self.bounds, &derivatives)?;
            let found = program.maximum(&packed, &faces)?;
            if derivatives.log_likelihood + 2.0 * found.promise <= needed {
                return None;
            }
            let stationary = found.length <= self.options.scaled_score;
            let gained = last_gain.min(found.promise / 0.1) <= self.options.gain;
            let next = match stationary && gained {
                true => None,
                false => self.ascend(&packed, &derivatives, &found),
            };
            let Some((further, at, gain)) = next else {
                let concave = program.is_concave_along(&faces, &found.active);
                let end = match (stationary && concave, found.active.iter().any(|k| *k < own)) {
                    (false, _) => PeakEnd::Uncertified,
                    (true, false) => PeakEnd::Inside,
                    (true, true) => PeakEnd::OnFace,
                };
                return Some(Peak {
                    cell,
                    packed,
                    derivatives,
                    scaled_score: found.length,
                    end,
                });
            };
            (packed, derivatives, last_gain) = (further, at, gain);
        }
        Some(Peak {
            cell,
            packed,
            derivatives,
            scaled_score: f64::NAN,
            end: PeakEnd::Uncertified,
        })
    }

    /// Goes along a step as far as the exact likelihood rises.
    fn ascend(
        &mut self,
        from: &[f64],
        at: &Derivatives,
        found: &Solution,
    ) -> Option<(Vec<f64>, Derivatives, f64)> {
        self.outcome.effort.newton += 1;
        let rounding = 1e-13 * (1.0 + at.log_likelihood.abs());
        let mut fraction = 1.0;
        for _ in 0..MAX_HALVINGS {
            let moved = from.iter().zip(&found.step);
            let mut packed: Vec<f64> = moved.map(|(p, d)| p + fraction * d).collect();
            self.bounds.project(&mut packed);
            self.settle_on_bounds(&mut packed);
            let next = self.derivatives(&packed);
            let gain = next.log_likelihood - at.log_likelihood;
            let finite = next.gradient.iter().all(|v| v.is_finite());
            if finite && gain >= 0.1 * fraction * found.promise - rounding {
                return Some((packed, next, gain));
            }
            if fraction * found.promise < rounding {
                break;
            }
            fraction *= 0.5;
        }
        None
    }

    /// What ends on a bound up to rounding ends there exactly.
    fn settle_on_bounds(&self, packed: &mut [f64]) {
        for (j, value) in packed.iter_mut().enumerate() {
            for bound in [self.bounds.low[j], self.bounds.high[j]] {
                if (*value - bound).abs() <= 1e-12 * (1.0 + bound.abs()) {
                    *value = bound;
                }
            }
        }
    }

    /// Climbs in the cells of `places`, in turn, until one is higher.
    fn first_better(&mut self, peak: &Peak, places: &[Place]) -> Option<(Peak, usize)> {
        let needed = peak.derivatives.log_likelihood + self.least_gain();
        for place in places.iter().take(MAX_TRIES) {
            let there = self.climb(place.packed.clone(), place.cell.clone(), needed);
            let higher = there.filter(|there| there.derivatives.log_likelihood > needed);
            let higher = higher.filter(|there| {
                let parameters = self.parameters(&there.packed);
                there.cell.holds(&parameters, self.line)
            });
            if let Some(better) = higher {
                return Some((better, place.distance));
            }
        }
        None
    }

    /// The places to which sets of moves lead and that may be better, the most
    /// hopeful first.
    fn places<'m>(&self, peak: &Peak, sets: impl Iterator<Item = Vec<&'m Move>>) -> Vec<Place> {
        let mut places: Vec<Place> = sets.filter_map(|set| self.place(peak, &set)).collect();
        places.sort_by(|a, b| b.hope.total_cmp(&a.hope));
        places
    }

    /// Every move from the end of a segment: up to `window` observations under the
    /// selection beyond that end, and fewer under one with two experts exchanged.
    /// New segments begin there too: a difference of scores that is affine in x is
    /// least at an end.
    fn moves(&mut self, peak: &Peak, program: &Program, window: usize) -> Vec<Move> {
        let gate = self.outcome.parameters.gate;
        let count = self.line.len();
        let mut moves = Vec::new();
        for end in peak.cell.ends() {
            let sides = [end.checked_sub(1), Some(end).filter(|&e| e < count)];
            for direction in [Direction::Left, Direction::Right] {
                let (inside, beyond) = match direction {
                    Direction::Left => (sides[0], sides[1]),
                    Direction::Right => (sides[1], sides[0]),
                };
                let Some(inside) = inside else { continue };
                let beyond = beyond.map(|place| peak.cell.regime(place).clone());
                let mut new = peak.cell.regime(inside).exchanges(&gate);
                new.retain(|regime| Some(regime) != beyond.as_ref());
                let new = new.into_iter().map(|regime| (regime, NEAR));
                for (regime, window) in new.chain(beyond.map(|regime| (regime, window))) {
                    let walk = Walk {
                        end,
                        direction,
                        window,
                        regime,
                    };
                    self.walk(peak, program, &walk, &mut moves);
                }
            }
        }
        moves
    }

    /// Gives one row after the other another regime, beginning at an end.
    fn walk(&mut self, peak: &Peak, program: &Program, walk: &Walk, moves: &mut Vec<Move>) {
        let Walk {
            end,
            direction,
            window,
            ref regime,
        } = *walk;
        let parameters = self.parameters(&peak.packed);
        let under = |kept: &[bool]| Submixture::new(&parameters, self.layout, kept);
        let growing = under(&regime.kept);
        let mut shrinking: Option<(Regime, Submixture)> = None;
        let room = match direction {
            Direction::Left => end,
            Direction::Right => self.line.len() - end,
        };
        let mut changed = growing.nothing();
        for distance in 1..=room.min(window) {
            let (passed, front, places) = match direction {
                Direction::Left => (end - distance, end - distance, end - distance..end),
                Direction::Right => (end + distance - 1, end + distance, end..end + distance),
            };
            let own = peak.cell.regime(passed);
            if own.kept != regime.kept {
                let known = shrinking.take().filter(|(of, _)| of == own);
                let (of, less) = known.unwrap_or_else(|| (own.clone(), under(&own.kept)));
                let row = single(self.data, self.line.row(passed));
                self.outcome.effort.rows += 2;
                growing.add(self.backend, &row, 1.0, &mut changed);
                less.add(self.backend, &row, -1.0, &mut changed);
                shrinking = Some((of, less));
            }
            if changed.log_likelihood.is_nan() || changed.log_likelihood < -HOPELESS {
                break;
            }
            if self.line.separates(front) {
                moves.push(Move {
                    places,
                    regime: regime.clone(),
                    pull: program.whiten(&changed.gradient),
                    changed: changed.clone(),
                });
            }
        }
    }

    /// Where moves lead, if the quadratic model of the log-likelihood with the
    /// changed rows lets that be better.
    fn place(&self, peak: &Peak, moves: &[&Move]) -> Option<Place> {
        let mut there = peak.derivatives.clone();
        there.log_likelihood = 0.0;
        for one in moves {
            there.log_likelihood += one.changed.log_likelihood;
            there.gradient += &one.changed.gradient;
            there.hessian += &one.changed.hessian;
        }
        let program = Program::new(self.bounds, &there)?;
        let freely = program.unconstrained.dot(&program.unconstrained);
        if there.log_likelihood + freely <= self.least_gain() {
            return None;
        }
        let cell = moves.iter().fold(peak.cell.clone(), |cell, one| {
            cell.with_rows(one.places.clone(), &one.regime)
        });
        let (faces, _) = self.faces(&cell);
        let found = program.maximum(&peak.packed, &faces)?;
        // The third order, in units of one row's information.
        let error = (found.length / self.data.sample_size().sqrt()).min(WORST_ERROR);
        let hope = there.log_likelihood + found.promise + error * found.length.powi(2);
        if hope <= self.least_gain() {
            return None;
        }
        let moved = peak.packed.iter().zip(&found.step);
        let mut packed: Vec<f64> = moved.map(|(p, d)| p + d).collect();
        self.bounds.project(&mut packed);
        if !cell.holds(&self.parameters(&packed), self.line) {
            return None;
        }
        Some(Place {
            cell,
            packed,
            distance: moves.iter().map(|one| one.distance()).max()?,
            hope,
        })
    }
}

/// Pairs of short moves of different rows that the model without faces lets be
/// gains, with the curvature where they start.
fn promising_pairs<'m>(
    moves: &'m [Move],
    program: &'m Program,
) -> impl Iterator<Item = Vec<&'m Move>> {
    let short: Vec<&Move> = moves.iter().filter(|one| one.distance() <= NEAR).collect();
    let mut pairs = Vec::new();
    for (k, one) in short.iter().enumerate() {
        for other in &short[..k] {
            let apart =
                one.places.end <= other.places.start || other.places.end <= one.places.start;
            let pull = &program.unconstrained + &one.pull + &other.pull;
            let value = one.changed.log_likelihood + other.changed.log_likelihood;
            if apart && value + pull.dot(&pull) > 0.0 {
                pairs.push(vec![*one, *other]);
            }
        }
    }
    pairs.into_iter()
}
