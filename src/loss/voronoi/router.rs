//! The infimum over translations of a softmax router.
//!
//! Translating all fitted gate slopes by t changes the cells. For one
//! arrangement of the cells the translations that yield it form a polyhedron
//! (squared distances to two true atoms differ by an affine function of t), and
//! on it the loss is convex: in t when dense, where the masses do not matter,
//! and jointly in (e^t0, t) when sparse. So each arrangement is minimised
//! exactly, first without its constraints, which mostly shows that it loses.

use super::arrangement::{Arrangement, Constraint, Term};
use super::difference::{Difference, distance_sq, nearest, norm_sq, subtract};
use super::mass::Cell;
use super::{cell_sizes, overspecified_power};
use std::collections::BTreeSet;

/// The powers in cells that several fitted atoms share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Powers {
    /// First powers everywhere: D_1.
    Exact,
    /// rbar and rbar / 2: D_2.
    Overspecified,
}

/// Up to this many conceivable arrangements are all tried.
const EXHAUSTIVE: usize = 1024;

/// The loss, and where it is attained (or approached: on a border of its cells).
pub(super) struct Infimum {
    pub loss: f64,
    pub cells: Vec<usize>,
    /// t. Shape: d.
    pub translation: Vec<f64>,
}

/// The infimum of the loss over t0 and t.
///
/// Exhaustive for d = 1 and for k_true^k_fit up to [`EXHAUSTIVE`]; beyond, a
/// search among neighbouring arrangements from every translation that puts one
/// fitted atom's gate slope on a true one's.
pub(super) fn infimum(
    differences: &[Vec<Difference>],
    omega: &[f64],
    omega_true: &[f64],
    kept: usize,
    powers: Powers,
) -> Infimum {
    let problem = Problem {
        differences,
        omega,
        omega_true,
        kept,
        powers,
    };
    let mut search = Search {
        problem: &problem,
        best: Infimum {
            loss: f64::INFINITY,
            cells: Vec::new(),
            translation: Vec::new(),
        },
        seen: BTreeSet::new(),
        waiting: Vec::new(),
    };
    for translation in problem.coincidences() {
        search.visit(&translation);
    }
    if differences[0][0].gate_slope.len() == 1 {
        for translation in problem.one_in_each_interval() {
            search.visit(&[translation]);
        }
    } else {
        problem
            .all_arrangements()
            .into_iter()
            .for_each(|cells| search.push(cells));
    }
    search.run();
    search.best
}

/// The best so far, and the arrangements still to be minimised.
struct Search<'a> {
    problem: &'a Problem<'a>,
    best: Infimum,
    seen: BTreeSet<Vec<usize>>,
    waiting: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn record(&mut self, loss: f64, cells: &[usize], translation: &[f64]) {
        if loss < self.best.loss {
            self.best = Infimum {
                loss,
                cells: cells.to_vec(),
                translation: translation.to_vec(),
            };
        }
    }

    fn push(&mut self, cells: Vec<usize>) {
        if self.seen.insert(cells.clone()) {
            self.waiting.push(cells);
        }
    }

    /// Takes the loss at a translation, and queues its arrangement.
    fn visit(&mut self, translation: &[f64]) {
        let cells = self.problem.cells_at(translation);
        let loss = self.problem.arranged(&cells).loss_at(translation);
        self.record(loss, &cells, translation);
        self.push(cells);
    }

    fn run(&mut self) {
        while let Some(cells) = self.waiting.pop() {
            let arrangement = self.problem.arranged(&cells);
            let Some((at, bound)) = arrangement.minimum(&[], self.best.loss) else {
                continue;
            };
            // If `at` yields these cells, this settles the arrangement.
            self.visit(&at);
            if bound >= self.best.loss {
                continue;
            }
            let constraints = self.problem.constraints(&cells);
            let Some((at, loss)) = arrangement.minimum(&constraints, self.best.loss) else {
                continue;
            };
            self.record(loss, &cells, &at);
            for constraint in constraints.iter().filter(|c| c.is_tight(&at)) {
                let mut neighbour = cells.clone();
                neighbour[constraint.atom] = constraint.rival;
                self.push(neighbour);
            }
        }
    }
}

struct Problem<'a> {
    differences: &'a [Vec<Difference>],
    omega: &'a [f64],
    omega_true: &'a [f64],
    kept: usize,
    powers: Powers,
}

impl Problem<'_> {
    /// Every translation that puts one fitted atom's gate slope on a true one's:
    /// where D_1 can have its kinks, and the exact answer for equal measures.
    fn coincidences(&self) -> Vec<Vec<f64>> {
        let pairs = self.differences.iter().flatten();
        let comparable = pairs.filter(|difference| difference.slope_sq.is_finite());
        comparable.map(|d| d.gate_slope.clone()).collect()
    }

    /// For d = 1, a point of every interval on which the cells stay the same.
    fn one_in_each_interval(&self) -> Vec<f64> {
        let mut borders = Vec::new();
        for atom in 0..self.differences.len() {
            for own in 0..self.omega_true.len() {
                let constraints = self.constraints_of(atom, own);
                borders.extend(constraints.iter().map(|c| c.bound / c.normal[0]));
            }
        }
        borders.retain(|border| border.is_finite());
        borders.sort_by(f64::total_cmp);
        let middles = borders.windows(2).map(|pair| 0.5 * (pair[0] + pair[1]));
        let mut points: Vec<f64> = middles.collect();
        if let (Some(first), Some(last)) = (borders.first(), borders.last()) {
            points.extend([first - 1.0, last + 1.0]);
        }
        points
    }

    /// Every assignment of fitted to true atoms of the same kind; none if there
    /// are more than [`EXHAUSTIVE`].
    fn all_arrangements(&self) -> Vec<Vec<usize>> {
        let mut partial = vec![Vec::new()];
        for row in self.differences {
            let extended = |cells: &Vec<usize>, j: usize| [cells.as_slice(), &[j]].concat();
            let possible = |j: &usize| row[*j].slope_sq.is_finite();
            partial = partial
                .iter()
                .flat_map(|cells| {
                    let targets = (0..row.len()).filter(possible);
                    targets.map(move |j| extended(cells, j))
                })
                .collect();
            if partial.len() > EXHAUSTIVE {
                return Vec::new();
            }
        }
        partial
    }

    fn cells_at(&self, translation: &[f64]) -> Vec<usize> {
        nearest(self.differences, |difference| {
            distance_sq(&difference.gate_slope, translation) + difference.expert_sq()
        })
    }

    fn constraints(&self, cells: &[usize]) -> Vec<Constraint> {
        let atoms = cells.iter().enumerate();
        atoms
            .flat_map(|(i, &j)| self.constraints_of(i, j))
            .collect()
    }

    fn constraints_of(&self, atom: usize, own: usize) -> Vec<Constraint> {
        let row = &self.differences[atom];
        let near = &row[own];
        let squared = |d: &Difference| norm_sq(&d.gate_slope) + d.expert_sq();
        let rivals = row.iter().enumerate().filter(|(rival, far)| {
            *rival != own && far.slope_sq.is_finite() && near.slope_sq.is_finite()
        });
        rivals
            .map(|(rival, far)| {
                let normal = subtract(&far.gate_slope, &near.gate_slope);
                let mut bound = 0.5 * (squared(far) - squared(near));
                // A tie that no translation breaks goes to the lower index.
                if bound == 0.0 && rival < own && norm_sq(&normal) == 0.0 {
                    bound = f64::NEG_INFINITY;
                }
                Constraint {
                    atom,
                    rival,
                    normal,
                    bound,
                }
            })
            .collect()
    }

    fn arranged(&self, cells: &[usize]) -> Arrangement<'_> {
        let sizes = cell_sizes(cells, self.omega_true.len());
        let mut empty: Vec<Cell> = self.omega_true.iter().map(|&m| Cell::empty(m)).collect();
        let mut terms = Vec::with_capacity(cells.len());
        for (i, &cell) in cells.iter().enumerate() {
            empty[cell].add(self.omega[i], 0.0);
            let difference = &self.differences[i][cell];
            let (offset_sq, power, constant) = match self.powers {
                Powers::Overspecified if sizes[cell] > 1 => {
                    let power = overspecified_power(sizes[cell]);
                    let fast_sq = difference.slope_sq + difference.variance.powi(2);
                    let constant = fast_sq.powf(0.25 * f64::from(power));
                    (difference.intercept.powi(2), power, constant)
                }
                _ => (difference.expert_sq(), 1, 0.0),
            };
            terms.push(Term {
                cell,
                mass: self.omega[i],
                centre: &difference.gate_slope,
                offset_sq,
                power,
                constant,
            });
        }
        Arrangement {
            cells: empty,
            terms,
            kept: self.kept,
        }
    }
}
