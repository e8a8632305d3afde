//! The infimum over a box.
//!
//! Which experts are kept changes with the parameters, and E_X h^2 has kinks where
//! a boundary passes an input of the grid: the search uses values only.

use super::record::Infimum;
use super::study::{TopKCell, TopKPlan};
use crate::error::{Error, Result};
use crate::loss::density::{Effort, density_distance};
use crate::loss::divergence::{Wanted, divergence};
use crate::model::{Conditional, InputLaw, Parameters};
use crate::rng::{Purpose, Stream};
use rayon::prelude::*;

/// The search ends when its steps are this share of the radius.
const RESOLUTION: f64 = 1e-4;
/// Sweeps over the coordinates, at most.
const SWEEPS: usize = 2000;
/// Starts within this share of the smallest infimum found it too.
const SAME: f64 = 1e-2;

/// The infimum of every cell, cells in parallel. `jobs`: threads; `None` takes all
/// cores. The result does not depend on it.
///
/// # Errors
/// [`Error::Value`] if the thread pool cannot be built.
pub fn infima(plan: &TopKPlan, jobs: Option<usize>) -> Result<Vec<Infimum>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.unwrap_or(0))
        .build()
        .map_err(|e| Error::value("--jobs", e.to_string()))?;
    pool.install(|| {
        let cells = plan.cells.par_iter().with_max_len(1);
        cells.map(|cell| infimum(plan, cell)).collect()
    })
}

fn infimum(plan: &TopKPlan, cell: &TopKCell) -> Result<Infimum> {
    let objective = Objective::new(cell, plan.study.points);
    let radius = cell.case.radius;
    let centre = cell.centre.layout().pack(&cell.centre);
    let starts = match radius > 0.0 {
        true => plan.study.starts,
        false => 0,
    };
    let found: Vec<(Vec<f64>, f64)> = (0..=starts)
        .map(|k| match radius > 0.0 {
            true => compass(&objective, &centre, radius, &start(plan, cell, &centre, k)),
            false => (centre.clone(), objective.value(&centre)),
        })
        .collect();
    let best = found.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let (point, least) = best.expect("at least one start");
    let fitted = cell.centre.layout().unpack(&cell.centre, point);
    let distance = density_distance(&cell.truth, &fitted, Wanted::All, Effort::default())?;
    Ok(Infimum {
        study: plan.hash.clone(),
        case: cell.case.name.clone(),
        share: cell.share,
        hellinger_sq: distance.hellinger_sq.value,
        total_variation: distance.total_variation.value,
        agreeing: found
            .iter()
            .filter(|(_, value)| *value <= (1.0 + SAME) * least)
            .count(),
        starts: found.len(),
        parameters: point.clone(),
    })
}

/// The centre, then uniform points of the box.
fn start(plan: &TopKPlan, cell: &TopKCell, centre: &[f64], k: usize) -> Vec<f64> {
    let Some(index) = k.checked_sub(1) else {
        return centre.to_vec();
    };
    let stream = Stream::named(
        plan.study.seed,
        &cell.case.name,
        cell.share.to_bits(),
        Purpose::Start(index as u32),
    );
    let uniform = |c: usize| stream.uniform_pair(0, c as u64)[0];
    let coordinates = centre.iter().enumerate();
    coordinates
        .map(|(c, value)| value + cell.case.radius * (2.0 * uniform(c) - 1.0))
        .collect()
}

/// E_X h^2 as a function of packed coordinates, X on the middles of equal cells.
struct Objective<'a> {
    structure: &'a Parameters,
    inputs: Vec<(f64, Conditional)>,
}

impl<'a> Objective<'a> {
    fn new(cell: &'a TopKCell, points: usize) -> Self {
        let InputLaw::Uniform { low, high } = &cell.truth.input else {
            unreachable!("checked with the study: the input law is uniform")
        };
        let width = (high[0] - low[0]) / points as f64;
        let inputs = (0..points).map(|k| low[0] + width * (k as f64 + 0.5));
        Objective {
            structure: &cell.centre,
            inputs: inputs
                .map(|x| (x, cell.truth.parameters.conditional(&[x])))
                .collect(),
        }
    }

    fn value(&self, point: &[f64]) -> f64 {
        let fitted = self.structure.layout().unpack(self.structure, point);
        let mut law = fitted.conditional(&[self.inputs[0].0]);
        let terms = self.inputs.iter().map(|(x, truth)| {
            fitted.conditional_into(&[*x], &mut law);
            divergence(truth, &law, Wanted::Smooth).hellinger_sq
        });
        terms.sum::<f64>() / self.inputs.len() as f64
    }
}

/// Hooke and Jeeves' pattern search (1961) over |point - centre| <= radius: one
/// coordinate after the other by +- step, then the sum of the moves once more; the
/// step is halved when nothing helps.
fn compass(objective: &Objective, centre: &[f64], radius: f64, start: &[f64]) -> (Vec<f64>, f64) {
    let inside = |c: usize, value: f64| value.clamp(centre[c] - radius, centre[c] + radius);
    let mut point = start.to_vec();
    let mut value = objective.value(&point);
    let mut step = 0.5 * radius;
    for _ in 0..SWEEPS {
        if step < RESOLUTION * radius || value == 0.0 {
            break;
        }
        let before = point.clone();
        let mut improved = false;
        for c in 0..point.len() {
            for by in [step, -step] {
                let old = point[c];
                point[c] = inside(c, old + by);
                let trial = objective.value(&point);
                if trial < value {
                    (value, improved) = (trial, true);
                    break;
                }
                point[c] = old;
            }
        }
        if !improved {
            step *= 0.5;
            continue;
        }
        let further: Vec<f64> = (0..point.len())
            .map(|c| inside(c, 2.0 * point[c] - before[c]))
            .collect();
        let trial = objective.value(&further);
        if trial < value {
            (point, value) = (further, trial);
        }
    }
    (point, value)
}
