//! The operations: what each pass adds up, in terms of drivers.
//!
//! A driver u (an expert's mean, log-variance or gate driver) is affine in the
//! packed coordinates, so a derivative is that in the drivers times features:
//! the gradient sums g_u times the features of u, the Hessian sums h_uv times
//! the products of the features of u and v, and both are sums of columns times
//! the monomials of x. With a_u and s_u the derivatives of a log-joint and of a
//! log-weight (the notation of [`crate::model`]'s `score`), rho_u = r a_u and
//! omega_u = w s_u,
//!
//! ```text
//! g_u  = rho_u - omega_u
//! h_uv = omega_u omega_v - rho_u rho_v                              (two experts)
//!      + r (a_u a_v + a_uv) - w (s_u s_v + s_uv)                     (one expert)
//! ```

use super::mixture::{DrivenBy, Driver, Mixture, Part};
use super::tile::{Column, OCTETS, Tile, triangle_index};
use crate::num::lanes::{Lanes, Simd};

/// What a pass sums up at each row: columns of numbers, each against the features
/// up to a degree.
pub(super) trait Operation: Sync {
    /// The degree of each column, in the order of the sums.
    fn degrees(&self) -> Vec<usize>;
    /// Columns that it needs for itself.
    fn scratch(&self) -> usize;
    /// Writes the columns from the atoms of a tile. Must be `#[inline(always)]`.
    fn fill<S: Simd>(&self, simd: S, tile: &Tile, scratch: &mut [Column], columns: &mut [Column]);
}

/// The log-likelihood alone.
pub(super) struct LogLikelihood;

impl Operation for LogLikelihood {
    fn degrees(&self) -> Vec<usize> {
        Vec::new()
    }
    fn scratch(&self) -> usize {
        0
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, _: S, _: &Tile, _: &mut [Column], _: &mut [Column]) {}
}

/// One expert at an octet of rows, with the derivatives in its drivers.
struct Local<V> {
    r: V,
    w: V,
    /// residual / variance
    scaled: V,
    /// residual^2 / variance
    square: V,
    /// First and second derivative of the log-weight in the mean.
    by_mean: (V, V),
    /// The same in the gate driver.
    by_gate: (V, V),
}

#[inline(always)]
fn local<S: Simd>(simd: S, mixture: &Mixture, tile: &Tile, i: usize, v: usize) -> Local<S::V> {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let atoms = &tile.atoms[i];
    let residual = simd.load(&atoms.residual[v]);
    let scaled = residual * simd.splat(mixture.experts[i].precision);
    let (by_mean, by_gate) = if mixture.bent {
        let slopes = (simd.load(&atoms.first[v]), simd.load(&atoms.second[v]));
        match mixture.driven_by {
            DrivenBy::Mean => (slopes, (one, zero)),
            _ => ((zero, zero), slopes),
        }
    } else {
        ((zero, zero), (one, zero))
    };
    Local {
        r: simd.load(&atoms.responsibility[v]),
        w: simd.load(&atoms.weight[v]),
        scaled,
        square: residual * scaled,
        by_mean,
        by_gate,
    }
}

impl<V: Lanes> Local<V> {
    /// g_u of the mean.
    #[inline(always)]
    fn mean_score(&self) -> V {
        self.r
            .mul_add(self.scaled, (self.r - self.w) * self.by_mean.0)
    }

    /// g_u of the log-variance.
    #[inline(always)]
    fn log_variance_score<S: Simd<V = V>>(&self, simd: S) -> V {
        simd.splat(0.5) * self.r * (self.square - simd.splat(1.0))
    }

    /// g_u of the gate driver.
    #[inline(always)]
    fn gate_score(&self) -> V {
        (self.r - self.w) * self.by_gate.0
    }
}

/// Writes an expression in octet v to every octet of a column. A macro, since a
/// closure cannot be told to be inlined, and not inlined it would be compiled
/// without the vector instructions.
macro_rules! fill {
    ($column:expr, $v:ident => $value:expr) => {
        for ($v, octet) in $column.iter_mut().enumerate() {
            $value.store(octet);
        }
    };
}

/// Degrees of the columns of a gradient.
fn single_degrees(drivers: &[Driver]) -> impl Iterator<Item = usize> {
    drivers.iter().map(Driver::degree)
}

/// Pairs of drivers, the second not before the first.
pub(super) fn pairs(drivers: &[Driver]) -> impl Iterator<Item = (&Driver, &Driver)> {
    let from = |k: usize| drivers[k..].iter();
    drivers
        .iter()
        .enumerate()
        .flat_map(move |(k, u)| from(k).map(move |w| (u, w)))
}

/// Degrees of the columns of a symmetric matrix.
fn pair_degrees(drivers: &[Driver]) -> impl Iterator<Item = usize> {
    pairs(drivers).map(|(u, w)| u.degree() + w.degree())
}

/// The score: g_u for every driver.
pub(super) struct Gradient<'a> {
    pub mixture: &'a Mixture,
    pub drivers: &'a [Driver],
}

impl Operation for Gradient<'_> {
    fn degrees(&self) -> Vec<usize> {
        single_degrees(self.drivers).collect()
    }
    fn scratch(&self) -> usize {
        0
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, tile: &Tile, _: &mut [Column], columns: &mut [Column]) {
        scores(simd, self.mixture, self.drivers, tile, columns);
    }
}

/// Writes g_u of every driver.
#[inline(always)]
fn scores<S: Simd>(
    simd: S,
    mixture: &Mixture,
    drivers: &[Driver],
    tile: &Tile,
    scores: &mut [Column],
) {
    let (mut drivers, mut scores) = (drivers, scores);
    while let [first, ..] = drivers {
        let expert = first.expert;
        let own = drivers.iter().take_while(|u| u.expert == expert).count();
        let (now, later) = scores.split_at_mut(own);
        // Mean, log-variance and perhaps gate, or the gate alone.
        match now {
            [mean, log_variance, gate @ ..] => {
                for v in 0..OCTETS {
                    let at = local(simd, mixture, tile, expert, v);
                    at.mean_score().store(&mut mean[v]);
                    at.log_variance_score(simd).store(&mut log_variance[v]);
                    if let [gate] = gate {
                        at.gate_score().store(&mut gate[v]);
                    }
                }
            }
            [gate] => fill!(gate, v => local(simd, mixture, tile, expert, v).gate_score()),
            [] => {}
        }
        (drivers, scores) = (&drivers[own..], later);
    }
}

/// The outer product of the score: g_u g_v for every pair of drivers.
pub(super) struct ScoreOuter<'a> {
    pub mixture: &'a Mixture,
    pub drivers: &'a [Driver],
}

impl Operation for ScoreOuter<'_> {
    fn degrees(&self) -> Vec<usize> {
        pair_degrees(self.drivers).collect()
    }
    fn scratch(&self) -> usize {
        self.drivers.len()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, tile: &Tile, scratch: &mut [Column], columns: &mut [Column]) {
        scores(simd, self.mixture, self.drivers, tile, scratch);
        let mut columns = columns.iter_mut();
        for k in 0..scratch.len() {
            for l in k..scratch.len() {
                let column = columns.next().expect("one column per pair");
                fill!(column, v => {
                    simd.load(&scratch[k][v]) * simd.load(&scratch[l][v])
                });
            }
        }
    }
}

/// The score, then the Hessian: h_uv for every pair of drivers.
pub(super) struct SecondOrder<'a> {
    pub mixture: &'a Mixture,
    pub drivers: &'a [Driver],
}

impl Operation for SecondOrder<'_> {
    fn degrees(&self) -> Vec<usize> {
        single_degrees(self.drivers)
            .chain(pair_degrees(self.drivers))
            .collect()
    }
    fn scratch(&self) -> usize {
        2 * self.drivers.len()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, tile: &Tile, scratch: &mut [Column], columns: &mut [Column]) {
        let (gradient, hessian) = columns.split_at_mut(self.drivers.len());
        let (rho, omega) = scratch.split_at_mut(self.drivers.len());
        let mut first = 0;
        while first < self.drivers.len() {
            first = self.of_one_expert(simd, tile, first, gradient, hessian, rho, omega);
        }
        let mut hessian = hessian.iter_mut();
        for (k, u) in self.drivers.iter().enumerate() {
            for (l, w) in self.drivers.iter().enumerate().skip(k) {
                let column = hessian.next().expect("one column per pair");
                if u.expert == w.expert {
                    continue;
                }
                if self.has_weight(u.part) && self.has_weight(w.part) {
                    fill!(column, v => {
                        let joint = simd.load(&rho[k][v]) * simd.load(&rho[l][v]);
                        simd.load(&omega[k][v]) * simd.load(&omega[l][v]) - joint
                    });
                } else {
                    fill!(column, v => -(simd.load(&rho[k][v]) * simd.load(&rho[l][v])));
                }
            }
        }
    }
}

impl SecondOrder<'_> {
    /// Whether the log-weight depends on the driver: whether s_u can differ from 0.
    fn has_weight(&self, part: Part) -> bool {
        match part {
            Part::Mean => self.mixture.driven_by == DrivenBy::Mean,
            Part::LogVariance => false,
            Part::Gate => true,
        }
    }

    /// Everything that concerns one expert alone, whose drivers (mean,
    /// log-variance and perhaps gate) stand from `first` on: g_u, h_uv, rho_u and
    /// omega_u. Returns where the next expert's drivers stand.
    ///
    /// h_uv = r (1 - r) a_u a_v - w (1 - w) s_u s_v + r a_uv - w s_uv
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn of_one_expert<S: Simd>(
        &self,
        simd: S,
        tile: &Tile,
        first: usize,
        gradient: &mut [Column],
        hessian: &mut [Column],
        rho: &mut [Column],
        omega: &mut [Column],
    ) -> usize {
        let expert = self.drivers[first].expert;
        let (mean, log_variance, gate) = (first, first + 1, first + 2);
        let gated = self.drivers.get(gate).is_some_and(|u| u.expert == expert);
        let pair = |u: usize, w: usize| triangle_index(self.drivers.len(), u, w);
        let (one, half) = (simd.splat(1.0), simd.splat(0.5));
        let precision = simd.splat(self.mixture.experts[expert].precision);
        for v in 0..OCTETS {
            let at = local(simd, self.mixture, tile, expert, v);
            let (r, w, surplus) = (at.r, at.w, at.r - at.w);
            let (joint, weight) = (r * (one - r), w * (one - w));
            let (s_mean, s_gate) = (at.by_mean.0, at.by_gate.0);
            let a_mean = at.scaled + s_mean;
            let a_log_variance = half * (at.square - one);
            let (rho_mean, rho_log_variance) = (r * a_mean, r * a_log_variance);
            rho_mean.store(&mut rho[mean][v]);
            rho_log_variance.store(&mut rho[log_variance][v]);
            at.mean_score().store(&mut gradient[mean][v]);
            rho_log_variance.store(&mut gradient[log_variance][v]);
            (w * s_mean).store(&mut omega[mean][v]);

            let by_joint = joint * a_mean;
            let by_weight = weight * s_mean;
            let second = surplus * at.by_mean.1 - r * precision;
            let mean_mean = by_joint * a_mean - by_weight * s_mean + second;
            mean_mean.store(&mut hessian[pair(mean, mean)][v]);
            let second = r * at.scaled;
            let mean_log_variance = by_joint * a_log_variance - second;
            mean_log_variance.store(&mut hessian[pair(mean, log_variance)][v]);
            let by_log_variance = joint * a_log_variance;
            let second = half * (r * at.square);
            let both_log_variance = by_log_variance * a_log_variance - second;
            both_log_variance.store(&mut hessian[pair(log_variance, log_variance)][v]);
            if gated {
                (r * s_gate).store(&mut rho[gate][v]);
                (w * s_gate).store(&mut omega[gate][v]);
                (surplus * s_gate).store(&mut gradient[gate][v]);
                let mean_gate = (by_joint - by_weight) * s_gate;
                mean_gate.store(&mut hessian[pair(mean, gate)][v]);
                let log_variance_gate = by_log_variance * s_gate;
                log_variance_gate.store(&mut hessian[pair(log_variance, gate)][v]);
                let second = surplus * at.by_gate.1;
                let both_gate = (joint - weight) * s_gate * s_gate + second;
                both_gate.store(&mut hessian[pair(gate, gate)][v]);
            }
        }
        if gated { gate + 1 } else { gate }
    }
}

/// The statistics of expectation maximisation: for each expert r z^2, the mean's
/// score, r z, L + r / v and r, then the gate's scores, then the information of
/// its drivers.
pub(super) struct Expectation<'a> {
    pub mixture: &'a Mixture,
    /// The gate's drivers only.
    pub gates: &'a [Driver],
}

/// Degrees of one expert's columns.
const EXPERT_DEGREES: [usize; 5] = [0, 1, 1, 2, 2];

impl Operation for Expectation<'_> {
    fn degrees(&self) -> Vec<usize> {
        let experts = self.mixture.experts.iter().flat_map(|_| EXPERT_DEGREES);
        experts
            .chain(single_degrees(self.gates))
            .chain(pair_degrees(self.gates))
            .collect()
    }
    fn scratch(&self) -> usize {
        0
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, tile: &Tile, _: &mut [Column], columns: &mut [Column]) {
        let mixture = self.mixture;
        let (experts, gates) = columns.split_at_mut(EXPERT_DEGREES.len() * mixture.experts.len());
        let (scores_of_gates, information) = gates.split_at_mut(self.gates.len());
        let (experts, _) = experts.as_chunks_mut::<{ EXPERT_DEGREES.len() }>();
        let bound = mixture.curvature_bound();
        let zero = simd.splat(0.0);
        for (i, [squares, score, moment, curvature, gram]) in experts.iter_mut().enumerate() {
            let precision = simd.splat(mixture.experts[i].precision);
            for v in 0..OCTETS {
                let at = local(simd, mixture, tile, i, v);
                let residual = simd.load(&tile.atoms[i].residual[v]);
                let bound = match bound {
                    // A dropped expert pulls at nothing.
                    Some(bound) => {
                        let kept = zero.less(at.r + at.w);
                        S::V::select(kept, simd.splat(bound), zero)
                    }
                    None => {
                        let (first, second) = at.by_mean;
                        at.w * first.mul_add(first, second.max(zero))
                    }
                };
                (at.r * residual * residual).store(&mut squares[v]);
                at.mean_score().store(&mut score[v]);
                (at.r * residual).store(&mut moment[v]);
                at.r.mul_add(precision, bound).store(&mut curvature[v]);
                at.r.store(&mut gram[v]);
            }
        }
        scores(simd, mixture, self.gates, tile, scores_of_gates);
        for ((u, w), column) in pairs(self.gates).zip(information) {
            let same = u.expert == w.expert;
            fill!(column, v => {
                let a = local(simd, mixture, tile, u.expert, v);
                let b = local(simd, mixture, tile, w.expert, v);
                let spread = match same {
                    true => a.w * (simd.splat(1.0) - a.w),
                    false => -(a.w * b.w),
                };
                a.by_gate.0 * b.by_gate.0 * spread
            });
        }
    }
}
