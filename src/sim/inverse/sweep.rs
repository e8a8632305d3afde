//! The smallest distance at each spread.

use super::minimum::Minimum;
use super::neighbourhood::Tilt;
use super::split::Part;
use super::study::{InverseCell, InversePlan};
use crate::error::{Error, Result};
use crate::num::least_squares::{LeastSquares, Stopping, minimise};
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;

/// Least-squares searches end at this promise, ten times what rounding lets them
/// reach, or after so many steps: where the residuals' curvature matters, Gauss
/// and Newton's steps approach a minimum linearly.
const STOPPING: Stopping = Stopping {
    promise: 1e-7,
    iterations: 2000,
};
/// Powers of the ratio of two spreads by which a minimum is carried from one to
/// the other: coordinates of an asymptotic minimum go with these powers.
const POWERS: [f64; 4] = [0.0, 0.5, 1.0, 2.0];
/// Starts whose distance is within this share of the smallest found the same minimum.
const SAME: f64 = 1e-3;

/// Minimises the distance at every spread of every cell, cells in parallel.
///
/// `jobs`: threads; `None` takes all cores. The result does not depend on it.
/// `progress` is called after each cell, from any thread.
///
/// # Errors
/// [`Error::Value`] if the thread pool cannot be built.
pub fn minima(
    plan: &InversePlan,
    jobs: Option<usize>,
    progress: impl Fn(&InverseCell) + Sync,
) -> Result<Vec<Minimum>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.unwrap_or(0))
        .build()
        .map_err(|e| Error::value("--jobs", e.to_string()))?;
    let of_cells: Vec<Vec<Minimum>> = pool.install(|| {
        let cells = plan.cells.par_iter().with_max_len(1);
        cells
            .map(|cell| {
                let found = sweep(plan, cell);
                progress(cell);
                found
            })
            .collect()
    });
    Ok(of_cells.concat())
}

/// The best minimum so far at one spread, and how often it was found.
struct Best {
    delta: f64,
    found: LeastSquares,
    distance: Vec<f64>,
}

/// One cell: every spread from random starts, then downwards and upwards from
/// the minimum of the neighbouring spread.
fn sweep(plan: &InversePlan, cell: &InverseCell) -> Vec<Minimum> {
    let spreads = cell.case.delta.values();
    let bounds = cell.split.bounds();
    let low: Vec<f64> = bounds.iter().map(|b| -b).collect();
    let search =
        |start: &[f64], delta: f64| minimise(&cell.split.at(delta), start, &low, &bounds, STOPPING);
    let mut best: Vec<Best> = spreads
        .iter()
        .map(|&delta| {
            let mut best = Best {
                delta,
                found: search(&vec![0.0; cell.split.len()], delta),
                distance: Vec::new(),
            };
            best.distance.push(best.found.sum.sqrt());
            for k in 0..plan.study.starts {
                best.offer(search(&random_start(plan, cell, delta, k, &bounds), delta));
            }
            best
        })
        .collect();
    let down = (1..best.len()).map(|k| (k - 1, k));
    let up = (1..best.len()).rev().map(|k| (k, k - 1));
    for (from, to) in down.chain(up) {
        let ratio = best[to].delta / best[from].delta;
        let point = best[from].found.point.clone();
        for power in POWERS {
            let scale = ratio.powf(power);
            let start: Vec<f64> = point.iter().map(|v| scale * v).collect();
            let found = search(&start, best[to].delta);
            best[to].offer(found);
        }
    }
    best.into_iter()
        .map(|b| b.minimum(plan, cell, &bounds))
        .collect()
}

/// Copies moved against each other by normal amounts of order delta^(1/2), delta
/// or delta^2 in turn; everything else at the truth.
fn random_start(
    plan: &InversePlan,
    cell: &InverseCell,
    delta: f64,
    k: usize,
    bounds: &[f64],
) -> Vec<f64> {
    let case = &cell.case;
    let name = format!("{},{},{}", cell.gate, case.coordinate.name(), case.copies);
    let stream = Stream::named(
        plan.study.seed,
        &name,
        delta.to_bits(),
        Purpose::Start(k as u32),
    );
    let size = delta.powf([0.5, 1.0, 2.0][k % 3]);
    (0..bounds.len())
        .map(|u| {
            let draw = stream.standard_normal(0, u as u64);
            match cell.split.part(u) {
                Part::Shares => draw * bounds[u],
                Part::Contrast => draw * size,
                Part::Centre | Part::Other => 0.0,
            }
        })
        .collect()
}

impl Best {
    fn offer(&mut self, found: LeastSquares) {
        self.distance.push(found.sum.sqrt());
        if found.sum < self.found.sum {
            self.found = found;
        }
    }

    fn minimum(&self, plan: &InversePlan, cell: &InverseCell, bounds: &[f64]) -> Minimum {
        let split = &cell.split;
        let point = &self.found.point;
        let distance = self.found.sum.sqrt();
        let agreeing = self
            .distance
            .iter()
            .filter(|h| **h <= (1.0 + SAME) * distance);
        let parameters = split.parameters(point, self.delta);
        let on_bound = point.iter().zip(bounds);
        Minimum {
            study: plan.hash.clone(),
            gate: cell.gate.clone(),
            coordinate: cell.case.coordinate,
            copies: cell.case.copies,
            delta: self.delta,
            distance,
            rounding: split.compare(point, self.delta).rounding,
            promise: self.found.promise,
            agreeing: agreeing.count(),
            starts: self.distance.len(),
            on_bound: on_bound
                .filter(|(v, b)| **b > 0.0 && v.abs() >= **b)
                .count(),
            raw_mass: split.mass_error(point, self.delta, Tilt::None),
            tilted_mass: split.mass_error(point, self.delta, Tilt::Variance),
            parameters: parameters.layout().pack(&parameters),
        }
    }
}
