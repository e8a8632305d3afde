//! Weights, responsibilities and log-densities at the rows of a tile.

// One index walks many columns at once.
#![allow(clippy::needless_range_loop)]

use super::mixture::{DrivenBy, MAX_EXPERTS, Mixture};
use super::tile::{Column, OCTETS, Tile};
use crate::model::{GateKind, Response, Selection, Weights};
use crate::num::lanes::{Kernel, Lanes, Octet, Simd, affine};
use crate::num::vector_math::{exp_below, ln_normal};

/// Whether a pass needs derivatives, or the log-likelihood alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    LogDensity,
    Derivatives,
}

/// Observes the rows of a tile: fills its atoms and adds the counted
/// log-densities to `log_likelihood`, lane by lane.
pub(super) struct Observe<'a> {
    pub mixture: &'a Mixture,
    pub tile: &'a mut Tile,
    pub keep: Keep,
    pub log_likelihood: &'a mut Octet,
}

impl Kernel for Observe<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Observe {
            mixture,
            tile,
            keep,
            log_likelihood,
        } = self;
        drive(simd, mixture, tile);
        if mixture.bent {
            bend(simd, mixture, tile);
        }
        if mixture.active < mixture.experts.len() {
            select(simd, mixture, tile);
        }
        if let GateKind::Competition {
            weights: Weights::Normalised,
            ..
        } = mixture.gate.kind
        {
            revive(simd, mixture, tile);
        }
        let sum = simd.load(log_likelihood);
        // A known number of experts lets loops over them unroll and their values
        // stay in registers.
        let sum = match mixture.experts.len() {
            2 => normalise::<S, 2>(simd, mixture, 2, tile, keep, sum),
            3 => normalise::<S, 3>(simd, mixture, 3, tile, keep, sum),
            4 => normalise::<S, 4>(simd, mixture, 4, tile, keep, sum),
            count => normalise::<S, MAX_EXPERTS>(simd, mixture, count, tile, keep, sum),
        };
        sum.store(log_likelihood);
    }
}

/// Octet v of each input; the constant stands before them.
#[inline(always)]
fn inputs(features: &[Column], v: usize) -> impl Iterator<Item = &Octet> {
    features[1..].iter().map(move |x| &x[v])
}

/// Residuals, and what drives the log-weights.
#[inline(always)]
fn drive<S: Simd>(simd: S, mixture: &Mixture, tile: &mut Tile) {
    let sparse = mixture.active < mixture.experts.len();
    let Tile {
        atoms,
        features,
        response,
        ..
    } = tile;
    for (expert, atoms) in mixture.experts.iter().zip(atoms) {
        for v in 0..OCTETS {
            let mean = affine(simd, &expert.slope, expert.intercept, inputs(features, v));
            (simd.load(&response[v]) - mean).store(&mut atoms.residual[v]);
            let driver = match mixture.driven_by {
                DrivenBy::Mean => mean,
                DrivenBy::Router => affine(
                    simd,
                    &expert.gate_slope,
                    expert.gate_intercept,
                    inputs(features, v),
                ),
                DrivenBy::Nothing => simd.splat(expert.bias),
            };
            driver.store(&mut atoms.log_weight[v]);
            if sparse {
                let selection = match (mixture.driven_by, mixture.gate.selection) {
                    (DrivenBy::Router, Selection::Slope) => {
                        affine(simd, &expert.gate_slope, 0.0, inputs(features, v))
                    }
                    _ => driver,
                };
                selection.store(&mut atoms.selection[v]);
            }
        }
    }
}

/// Replaces the drivers by log-weights and their derivatives, and the selection
/// scores of a sparse gate by responses in the same order.
#[inline(always)]
fn bend<S: Simd>(simd: S, mixture: &Mixture, tile: &mut Tile) {
    let by_size = matches!(
        mixture.gate.kind,
        GateKind::Competition {
            response: Response::Absolute | Response::Square,
            ..
        }
    );
    for (expert, atoms) in mixture.experts.iter().zip(&mut tile.atoms) {
        let bias = simd.splat(expert.bias);
        for v in 0..OCTETS {
            let driver = simd.load(&atoms.log_weight[v]);
            let (value, first, second) = mixture.gate.kind.log_weight_lanes(simd, driver, bias);
            value.store(&mut atoms.log_weight[v]);
            first.store(&mut atoms.first[v]);
            second.store(&mut atoms.second[v]);
            if by_size {
                driver.abs().store(&mut atoms.selection[v]);
            }
        }
    }
}

/// Gives log-weight -inf to all but the active experts with the largest
/// selection scores; ties go to the lower index.
#[inline(always)]
fn select<S: Simd>(simd: S, mixture: &Mixture, tile: &mut Tile) {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let active = simd.splat(mixture.active as f64);
    for i in 0..tile.atoms.len() {
        for v in 0..OCTETS {
            let own = simd.load(&tile.atoms[i].selection[v]);
            let mut ahead = zero;
            for (j, other) in tile.atoms.iter().enumerate() {
                let score = simd.load(&other.selection[v]);
                if j < i {
                    // Not less: larger, or equal and of lower index.
                    ahead = ahead + S::V::select(score.less(own), zero, one);
                } else if j > i {
                    ahead = ahead + S::V::select(own.less(score), one, zero);
                }
            }
            let log_weight = &mut tile.atoms[i].log_weight[v];
            let dropped = simd.splat(f64::NEG_INFINITY);
            S::V::select(ahead.less(active), simd.load(log_weight), dropped).store(log_weight);
        }
    }
}

/// Where every kept expert has response 0 under normalised weights, the kept
/// experts weigh exp(bias). Rare, so row by row.
#[inline(always)]
fn revive<S: Simd>(simd: S, mixture: &Mixture, tile: &mut Tile) {
    let lowest = simd.splat(f64::NEG_INFINITY);
    for v in 0..OCTETS {
        let mut top = lowest;
        for atoms in &tile.atoms {
            top = top.max(simd.load(&atoms.log_weight[v]));
        }
        if S::V::any(top.equal(lowest)) {
            revive_octet(mixture, tile, v);
        }
    }
}

#[cold]
fn revive_octet(mixture: &Mixture, tile: &mut Tile, v: usize) {
    use crate::num::top_k::select_top_k;
    let count = mixture.experts.len();
    let mut kept = [true; MAX_EXPERTS];
    for row in 0..crate::num::lanes::WIDTH {
        let dead = |a: &super::tile::Atoms| a.log_weight[v].0[row] == f64::NEG_INFINITY;
        if !tile.atoms.iter().all(dead) {
            continue;
        }
        if mixture.active < count {
            let mut scores = [0.0; MAX_EXPERTS];
            for (score, atoms) in scores.iter_mut().zip(&tile.atoms) {
                *score = atoms.selection[v].0[row];
            }
            select_top_k(&scores[..count], mixture.active, &mut kept[..count]);
        }
        for (i, atoms) in tile.atoms.iter_mut().enumerate() {
            if kept[i] {
                atoms.log_weight[v].0[row] = mixture.experts[i].bias;
            }
        }
    }
}

/// Weights and responsibilities from log-weights and residuals; returns `sum`
/// plus the counted log-densities. `MAX` is `count`, or more.
#[inline(always)]
fn normalise<S: Simd, const MAX: usize>(
    simd: S,
    mixture: &Mixture,
    count: usize,
    tile: &mut Tile,
    keep: Keep,
    mut sum: S::V,
) -> S::V {
    let Tile {
        atoms,
        count: rows,
        counted,
        ..
    } = tile;
    let (experts, atoms) = (&mixture.experts[..count], &mut atoms[..count]);
    for v in 0..OCTETS {
        let mut weights = [simd.splat(0.0); MAX];
        let mut joints = [simd.splat(0.0); MAX];
        for i in 0..count {
            let residual = simd.load(&atoms[i].residual[v]);
            weights[i] = simd.load(&atoms[i].log_weight[v]);
            let constant = weights[i] + simd.splat(experts[i].log_normaliser);
            let half_precision = simd.splat(-0.5 * experts[i].precision);
            joints[i] = (residual * residual).mul_add(half_precision, constant);
        }
        let (top, total) = exponentials::<S, MAX>(simd, &mut weights, count);
        let (best, evidence) = exponentials::<S, MAX>(simd, &mut joints, count);
        // One division for all that is needed of two.
        let reciprocal = simd.splat(1.0) / (total * evidence);
        let per_total = reciprocal * evidence;
        if keep == Keep::Derivatives {
            let per_evidence = reciprocal * total;
            for i in 0..count {
                (weights[i] * per_total).store(&mut atoms[i].weight[v]);
                (joints[i] * per_evidence).store(&mut atoms[i].responsibility[v]);
            }
        }
        let log_density = (best - top) + ln_normal(simd, evidence * per_total);
        sum = match *counted {
            true => simd.load(&rows[v]).mul_add(log_density, sum),
            false => sum + log_density,
        };
    }
    sum
}

/// Replaces values by exp(value - largest); returns the largest and the sum.
#[inline(always)]
fn exponentials<S: Simd, const MAX: usize>(
    simd: S,
    values: &mut [S::V; MAX],
    count: usize,
) -> (S::V, S::V) {
    let one = simd.splat(1.0);
    if MAX == 2 {
        // One exponential for two values: the larger has 1.
        let difference = values[0] - values[1];
        let top = values[0].max(values[1]);
        let below = exp_below(simd, -difference.abs());
        let second_is_larger = difference.less(simd.splat(0.0));
        values[0] = S::V::select(second_is_larger, below, one);
        values[1] = S::V::select(second_is_larger, one, below);
        return (top, one + below);
    }
    let mut top = values[0];
    for value in &values[1..count] {
        top = top.max(*value);
    }
    let mut total = simd.splat(0.0);
    for value in &mut values[..count] {
        *value = exp_below(simd, *value - top);
        total = total + *value;
    }
    (top, total)
}
