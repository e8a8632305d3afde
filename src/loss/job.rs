//! The mean of divergences over the input, step by step.

use super::density::{DensityDistance, Effort, KroneckerLattice, Mean};
use super::density::{breaks_along_a_line, input_density};
use super::divergence::{Divergence, Wanted};
use crate::error::{Error, Result};
use crate::model::{InputLaw, Model, Parameters};
use crate::num::quadrature::Integration;
use crate::num::sum::mean_and_deviation;
use crate::rng::{Purpose, Stream};

/// Relative error aimed at by quadrature over a one-dimensional input.
const TOLERANCE: f64 = 1e-10;
/// Most intervals of that quadrature.
const INTERVALS: usize = 400;
/// Random shifts of the quasi-Monte-Carlo rule.
const SHIFTS: usize = 16;
/// Its points per shift in the first estimate.
const FIRST_POINTS: usize = 64;
/// Most points per shift that are asked for at a time: bounds the memory of a round
/// of many jobs.
const POINTS_AT_A_TIME: usize = 256;
/// Student's t with 15 degrees of freedom at two-sided level 1e-3.
const STUDENT: f64 = 4.073;

/// One [`super::density::density_distance`] whose divergences come from elsewhere.
#[derive(Debug)]
pub struct DistanceJob<'a> {
    law: &'a InputLaw,
    divergences: Wanted,
    rule: Rule,
    /// What is wanted next. Shape: number of inputs, d.
    inputs: Vec<f64>,
    /// Number of inputs.
    count: usize,
    means: Option<[Mean; 4]>,
}

/// How the mean is taken.
#[derive(Debug)]
enum Rule {
    /// Over finitely many inputs.
    Exact,
    /// Over an interval.
    Line(Integration<4>),
    /// Over the unit cube.
    Cube(Box<ShiftedLattice>),
}

impl<'a> DistanceJob<'a> {
    /// Arguments as those of [`super::density::density_distance`].
    ///
    /// # Errors
    /// [`Error::Dimension`] if the two have different input dimensions.
    pub fn new(p: &'a Model, q: &Parameters, divergences: Wanted, effort: Effort) -> Result<Self> {
        let law = &p.input;
        let dimension = law.dimension();
        if q.dimension() != dimension {
            return Err(Error::Dimension {
                what: "input of the second model",
                expected: dimension,
                got: q.dimension(),
            });
        }
        let (rule, inputs, count) = match law {
            InputLaw::Grid { points, .. } => (Rule::Exact, points.concat(), points.len()),
            _ if dimension == 0 => (Rule::Exact, Vec::new(), 1),
            _ if dimension == 1 => {
                let breaks = breaks_along_a_line(law, &[&p.parameters, q]);
                let integration = Integration::new(&breaks, TOLERANCE, INTERVALS);
                (Rule::Line(integration), Vec::new(), 0)
            }
            _ => {
                let lattice = ShiftedLattice::new(dimension, effort);
                (Rule::Cube(Box::new(lattice)), Vec::new(), 0)
            }
        };
        let mut job = DistanceJob {
            law,
            divergences,
            rule,
            inputs,
            count,
            means: None,
        };
        job.advance();
        Ok(job)
    }

    /// The inputs at which the divergences are needed next; none once there is a
    /// result.
    pub fn wanted(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        let d = self.law.dimension();
        (0..self.count).map(move |k| &self.inputs[k * d..(k + 1) * d])
    }

    /// Takes the divergences at the wanted inputs, in their order.
    pub fn supply(&mut self, divergences: &[Divergence]) {
        assert_eq!(divergences.len(), self.count, "one per wanted input");
        let values: Vec<[f64; 4]> = divergences.iter().map(as_integrands).collect();
        match &mut self.rule {
            Rule::Exact => self.means = Some(exact_mean(&values)),
            Rule::Line(integration) => {
                let weight = input_density(self.law);
                let nodes = values.iter().zip(&self.inputs);
                let weighted = nodes.map(|(value, &x)| value.map(|v| v * weight(x)));
                integration.supply(&weighted.collect::<Vec<_>>());
            }
            Rule::Cube(lattice) => lattice.supply(&values),
        }
        self.advance();
    }

    /// The distances, once they are known.
    pub fn result(&self) -> Option<DensityDistance> {
        let [hellinger, hellinger_sq, total_variation, kullback_leibler] = self.means?;
        let total_variation = match self.divergences {
            Wanted::All => total_variation,
            Wanted::Smooth => Mean {
                value: f64::NAN,
                error: f64::NAN,
            },
        };
        Some(DensityDistance {
            hellinger,
            hellinger_sq,
            total_variation,
            kullback_leibler,
        })
    }

    /// Takes over from the rule what it wants next, or its result.
    fn advance(&mut self) {
        match &self.rule {
            Rule::Exact => {}
            Rule::Line(integration) => {
                self.inputs = integration.wanted().to_vec();
                self.count = self.inputs.len();
                self.means = integration.result().map(|integral| {
                    std::array::from_fn(|m| Mean {
                        value: integral.value[m],
                        error: integral.error[m],
                    })
                });
            }
            Rule::Cube(lattice) => {
                self.inputs = lattice.wanted(self.law);
                self.count = self.inputs.len() / self.law.dimension();
                self.means = lattice.result;
            }
        }
        if self.means.is_some() {
            (self.inputs, self.count) = (Vec::new(), 0);
        }
    }
}

/// h, h^2, V, KL; total variation that was not asked for counts as 0.
fn as_integrands(d: &Divergence) -> [f64; 4] {
    let variation = if d.total_variation.is_nan() {
        0.0
    } else {
        d.total_variation
    };
    [
        d.hellinger_sq.sqrt(),
        d.hellinger_sq,
        variation,
        d.kullback_leibler,
    ]
}

fn exact_mean(values: &[[f64; 4]]) -> [Mean; 4] {
    std::array::from_fn(|m| {
        let column: Vec<f64> = values.iter().map(|v| v[m]).collect();
        let value = mean_and_deviation(&column).0;
        Mean {
            value,
            error: f64::EPSILON * value.abs(),
        }
    })
}

/// Randomly shifted Kronecker lattice, doubled until precise enough.
#[derive(Debug)]
struct ShiftedLattice {
    effort: Effort,
    lattice: KroneckerLattice,
    /// Shape: shifts, d.
    shifts: Vec<Vec<f64>>,
    sums: [[f64; 4]; SHIFTS],
    /// Points per shift that are in the sums.
    done: usize,
    /// Points per shift of the next estimate.
    target: usize,
    result: Option<[Mean; 4]>,
}

impl ShiftedLattice {
    fn new(dimension: usize, effort: Effort) -> Self {
        let stream = Stream::named(0, "density_distance", 0, Purpose::Quadrature);
        let shift = |s: usize| {
            let coordinate = |j: usize| stream.uniform_pair(s as u64, j as u64)[0];
            (0..dimension).map(coordinate).collect()
        };
        ShiftedLattice {
            effort,
            lattice: KroneckerLattice::new(dimension),
            shifts: (0..SHIFTS).map(shift).collect(),
            sums: [[0.0; 4]; SHIFTS],
            done: 0,
            target: FIRST_POINTS,
            result: None,
        }
    }

    /// Points per shift once the next values are in.
    fn next(&self) -> usize {
        self.target.min(self.done + POINTS_AT_A_TIME)
    }

    /// Inputs of the next points, shift by shift. Shape: their number, d.
    fn wanted(&self, law: &InputLaw) -> Vec<f64> {
        if self.result.is_some() {
            return Vec::new();
        }
        let mut u = vec![0.0; law.dimension()];
        let mut x = u.clone();
        let mut inputs = Vec::new();
        for shift in &self.shifts {
            for k in self.done..self.next() {
                self.lattice.point(k, shift, &mut u);
                law.at_uniforms(&u, &mut x);
                inputs.extend_from_slice(&x);
            }
        }
        inputs
    }

    fn supply(&mut self, values: &[[f64; 4]]) {
        let next = self.next();
        let of_shifts = values.chunks(next - self.done);
        for (sum, values) in self.sums.iter_mut().zip(of_shifts) {
            for value in values {
                (0..4).for_each(|m| sum[m] += value[m]);
            }
        }
        self.done = next;
        if self.done < self.target {
            return;
        }
        let means: [Mean; 4] = std::array::from_fn(|m| {
            let column: Vec<f64> = self.sums.iter().map(|s| s[m] / next as f64).collect();
            let (value, deviation) = mean_and_deviation(&column);
            Mean {
                value,
                error: STUDENT * deviation / (SHIFTS as f64).sqrt(),
            }
        });
        let precise = means
            .iter()
            .all(|m| m.error <= self.effort.relative_error * m.value.abs());
        if precise || self.done >= self.effort.max_points {
            self.result = Some(means);
        }
        self.target = 2 * self.done;
    }
}
