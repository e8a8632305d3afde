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
use super::tile::{Column, OCTETS, Tile};
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
    /// (a_u, s_u)
    #[inline(always)]
    fn first<S: Simd<V = V>>(&self, simd: S, part: Part) -> (V, V) {
        match part {
            Part::Mean => (self.scaled + self.by_mean.0, self.by_mean.0),
            Part::LogVariance => {
                let half = simd.splat(0.5);
                (half * (self.square - simd.splat(1.0)), simd.splat(0.0))
            }
            Part::Gate => (self.by_gate.0, self.by_gate.0),
        }
    }

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

    /// r a_uv - w s_uv
    #[inline(always)]
    fn second<S: Simd<V = V>>(&self, simd: S, precision: V, u: Part, v: Part) -> V {
        let surplus = self.r - self.w;
        match (u, v) {
            (Part::Mean, Part::Mean) => surplus * self.by_mean.1 - self.r * precision,
            (Part::Mean, Part::LogVariance) => -(self.r * self.scaled),
            (Part::LogVariance, Part::LogVariance) => simd.splat(-0.5) * self.r * self.square,
            (Part::Gate, Part::Gate) => surplus * self.by_gate.1,
            _ => simd.splat(0.0),
        }
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
    for (u, column) in drivers.iter().zip(scores) {
        match u.part {
            Part::Mean => fill!(column, v => {
                local(simd, mixture, tile, u.expert, v).mean_score()
            }),
            Part::LogVariance => fill!(column, v => {
                local(simd, mixture, tile, u.expert, v).log_variance_score(simd)
            }),
            Part::Gate => fill!(column, v => {
                local(simd, mixture, tile, u.expert, v).gate_score()
            }),
        }
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
        4 * self.drivers.len()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, tile: &Tile, scratch: &mut [Column], columns: &mut [Column]) {
        let drivers = self.drivers;
        let (gradient, hessian) = columns.split_at_mut(drivers.len());
        // Of each driver: a, s, rho = r a, omega = w s.
        let (firsts, _) = scratch.as_chunks_mut::<4>();
        for (u, [a, s, rho, omega]) in drivers.iter().zip(&mut *firsts) {
            for v in 0..OCTETS {
                let at = local(simd, self.mixture, tile, u.expert, v);
                let (joint, weight) = at.first(simd, u.part);
                joint.store(&mut a[v]);
                weight.store(&mut s[v]);
                (at.r * joint).store(&mut rho[v]);
                (at.w * weight).store(&mut omega[v]);
            }
        }
        scores(simd, self.mixture, drivers, tile, gradient);
        let mut hessian = hessian.iter_mut();
        for (k, u) in drivers.iter().enumerate() {
            for (l, w) in drivers.iter().enumerate().skip(k) {
                let column = hessian.next().expect("one column per pair");
                let ([_, _, rho_u, omega_u], [a_w, s_w, rho_w, omega_w]) = (&firsts[k], &firsts[l]);
                if u.expert != w.expert {
                    fill!(column, v => {
                        let joint = simd.load(&rho_u[v]) * simd.load(&rho_w[v]);
                        simd.load(&omega_u[v]) * simd.load(&omega_w[v]) - joint
                    });
                    continue;
                }
                // rho_u a_w (1 - r) - omega_u s_w (1 - w) + r a_uw - w s_uw
                let one = simd.splat(1.0);
                let precision = simd.splat(self.mixture.experts[u.expert].precision);
                fill!(column, v => {
                    let at = local(simd, self.mixture, tile, u.expert, v);
                    let joint = simd.load(&rho_u[v]) * simd.load(&a_w[v]) * (one - at.r);
                    let weight = simd.load(&omega_u[v]) * simd.load(&s_w[v]) * (one - at.w);
                    joint - weight + at.second(simd, precision, u.part, w.part)
                });
            }
        }
    }
}

/// The statistics of expectation maximisation: for each expert r, r z^2, the
/// mean's score, r z, L + r / v and r again, then the gate's scores, then the
/// information of its drivers.
pub(super) struct Expectation<'a> {
    pub mixture: &'a Mixture,
    /// The gate's drivers only.
    pub gates: &'a [Driver],
}

/// Degrees of one expert's columns.
const EXPERT_DEGREES: [usize; 6] = [0, 0, 1, 1, 2, 2];

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
        let (experts, _) = experts.as_chunks_mut::<6>();
        let bound = mixture.curvature_bound();
        let zero = simd.splat(0.0);
        for (i, [r, squares, score, moment, curvature, gram]) in experts.iter_mut().enumerate() {
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
                at.r.store(&mut r[v]);
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
