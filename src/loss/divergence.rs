//! Divergences between two Gaussian mixtures on the line.
//!
//! ```text
//! h^2 = 1/2 int (sqrt p - sqrt q)^2 dy      V  = 1/2 int |p - q| dy
//! h   = sqrt(h^2)                           KL = int p log(p / q) dy
//! ```
//!
//! Everything is computed from D = log p - log q, so that nothing is lost when
//! the two are close: (sqrt p - sqrt q)^2 = max(p, q) (1 - e^(-|D|/2))^2, and
//! p log(p/q) is integrated as p (D + e^(-D) - 1) >= 0, which has the same
//! integral.

use crate::model::Conditional;
use crate::num::lanes::{Kernel, Lanes, Octet, Simd, WIDTH, dispatch};
use crate::num::quadrature::integrate;
use crate::num::vector_math::{exp_below, exp_m1, ln_normal};

/// Half-width of the integration range in standard deviations; the mass beyond
/// is 2e-19.
pub const RANGE: f64 = 9.0;
/// Nodes per smallest standard deviation. The trapezoidal rule's error on
/// Gaussian integrands is exp(-2 pi^2 (sd / step)^2), far below rounding here;
/// the square-root integrand costs most of that (relative error 1e-11).
pub const NODES_PER_DEVIATION: f64 = 6.0;
/// Above this the mixture's scales are so different that an adaptive rule is
/// cheaper than equal steps.
pub const MAX_NODES: f64 = 4096.0;

/// Divergences at one input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// h^2, at most 1.
    pub hellinger_sq: f64,
    /// V, at most 1; NaN where it was not asked for.
    pub total_variation: f64,
    /// KL(p || q)
    pub kullback_leibler: f64,
}

/// Which divergences to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    All,
    /// All but total variation, whose root finding costs as much as the rest.
    Smooth,
}

/// The divergences between two mixtures.
pub fn divergence(p: &Conditional, q: &Conditional, wanted: Wanted) -> Divergence {
    let atoms: Vec<(f64, f64)> = [p, q].iter().flat_map(|c| atoms(c)).collect();
    let (low, high, count) = range(&atoms);
    let (p, q) = (Terms::new(p), Terms::new(q));
    let (nodes, smooth) = if count <= MAX_NODES {
        dispatch(EqualSteps {
            p: &p,
            q: &q,
            low,
            high,
            count: count as usize,
            wanted,
        })
    } else {
        adaptive(&p, &q, &atoms, wanted)
    };
    Divergence {
        hellinger_sq: smooth[0],
        kullback_leibler: smooth[1],
        total_variation: match wanted {
            Wanted::All => total_variation(&p, &q, &nodes),
            Wanted::Smooth => f64::NAN,
        },
    }
}

/// (mean, standard deviation) of every active expert.
pub fn atoms(law: &Conditional) -> impl Iterator<Item = (f64, f64)> + '_ {
    law.active()
        .map(|i| (law.means[i], law.variances[i].sqrt()))
}

/// Ends of the range of y that holds all but 2e-19 of each atom's mass, and the
/// number of equal steps that resolve the narrowest one.
pub fn range(atoms: &[(f64, f64)]) -> (f64, f64, f64) {
    let low = fold_min(atoms.iter().map(|(m, s)| m - RANGE * s));
    let high = -fold_min(atoms.iter().map(|(m, s)| -(m + RANGE * s)));
    let step = fold_min(atoms.iter().map(|(_, s)| *s)) / NODES_PER_DEVIATION;
    (low, high, ((high - low) / step).ceil())
}

fn fold_min(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

/// The active terms of a mixture with what does not depend on y worked out.
struct Terms {
    /// (log weight - log sqrt(2 pi variance), mean, 1 / sd)
    terms: Vec<(f64, f64, f64)>,
    weights: Vec<f64>,
}

impl Terms {
    fn new(law: &Conditional) -> Self {
        let half_log_two_pi = 0.5 * crate::num::log_space::LOG_TWO_PI;
        Terms {
            terms: law
                .active()
                .map(|i| {
                    let deviation = law.variances[i].sqrt();
                    let log_scale = law.log_weights[i] - half_log_two_pi - deviation.ln();
                    (log_scale, law.means[i], 1.0 / deviation)
                })
                .collect(),
            weights: law.active().map(|i| law.log_weights[i].exp()).collect(),
        }
    }

    #[inline]
    fn log_density(&self, y: f64) -> f64 {
        let term = |&(log_scale, mean, inverse): &(f64, f64, f64)| {
            let z = (y - mean) * inverse;
            log_scale - 0.5 * z * z
        };
        let max = self
            .terms
            .iter()
            .map(term)
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.terms.iter().map(|t| (term(t) - max).exp()).sum();
        max + sum.ln()
    }

    /// P(Y <= y)
    fn distribution(&self, y: f64) -> f64 {
        self.terms
            .iter()
            .zip(&self.weights)
            .map(|(&(_, mean, inverse), weight)| {
                let z = (y - mean) * inverse;
                weight * 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
            })
            .sum()
    }
}

/// A node y with D = log p - log q.
type Node = (f64, f64);

/// Integrands of h^2 and KL from log p and log q.
#[inline]
fn integrands(log_p: f64, log_q: f64) -> [f64; 2] {
    let difference = log_p - log_q;
    let gap = (-0.5 * difference.abs()).exp_m1();
    let hellinger = 0.5 * log_p.max(log_q).exp() * gap * gap;
    // D + e^-D - 1, by its series where the closed form would cancel.
    let excess = if difference.abs() < 1e-2 {
        let d = difference;
        d * d * (0.5 - d * (1.0 / 6.0 - d * (1.0 / 24.0 - d * (1.0 / 120.0 - d / 720.0))))
    } else {
        difference + (-difference).exp_m1()
    };
    // Far out log p + log(excess) may be finite although e^-D overflows.
    let kullback = if excess.is_finite() {
        log_p.exp() * excess
    } else {
        log_q.exp()
    };
    [hellinger, kullback]
}

/// Sums over equal steps, eight nodes at a time; the nodes only if `wanted`.
struct EqualSteps<'a> {
    p: &'a Terms,
    q: &'a Terms,
    low: f64,
    high: f64,
    count: usize,
    wanted: Wanted,
}

impl Kernel for EqualSteps<'_> {
    type Output = (Vec<Node>, [f64; 2]);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let step = (self.high - self.low) / self.count as f64;
        let zero = simd.splat(0.0);
        let mut sums = [zero; 2];
        let mut nodes = Vec::new();
        for first in (0..=self.count).step_by(WIDTH) {
            let index = Octet(std::array::from_fn(|lane| (first + lane) as f64));
            let index = simd.load(&index);
            let y = simd.splat(step).mul_add(index, simd.splat(self.low));
            let (log_p, log_q) = (
                log_density_lanes(simd, self.p, y),
                log_density_lanes(simd, self.q, y),
            );
            let values = integrands_lanes(simd, log_p, log_q);
            // Lanes beyond the last node.
            let beyond = simd.splat(self.count as f64).less(index);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = *sum + S::V::select(beyond, zero, value);
            }
            if self.wanted == Wanted::All {
                let (mut at, mut difference) = (Octet::default(), Octet::default());
                y.store(&mut at);
                (log_p - log_q).store(&mut difference);
                let used = WIDTH.min(self.count + 1 - first);
                nodes.extend(at.0.into_iter().zip(difference.0).take(used));
            }
        }
        let mut lanes = [Octet::default(); 2];
        sums[0].store(&mut lanes[0]);
        sums[1].store(&mut lanes[1]);
        (nodes, [step * lanes[0].sum(), step * lanes[1].sum()])
    }
}

/// [`Terms::log_density`] at eight nodes.
#[inline(always)]
fn log_density_lanes<S: Simd>(simd: S, law: &Terms, y: S::V) -> S::V {
    let mut top = simd.splat(f64::NEG_INFINITY);
    for &term in &law.terms {
        top = log_term_lanes(simd, term, y).max(top);
    }
    let mut sum = simd.splat(0.0);
    for &term in &law.terms {
        sum = sum + exp_below(simd, log_term_lanes(simd, term, y) - top);
    }
    top + ln_normal(simd, sum)
}

#[inline(always)]
fn log_term_lanes<S: Simd>(simd: S, term: (f64, f64, f64), y: S::V) -> S::V {
    let (log_scale, mean, inverse) = term;
    let z = (y - simd.splat(mean)) * simd.splat(inverse);
    (simd.splat(-0.5) * z).mul_add(z, simd.splat(log_scale))
}

/// [`integrands`] at eight nodes.
#[inline(always)]
fn integrands_lanes<S: Simd>(simd: S, log_p: S::V, log_q: S::V) -> [S::V; 2] {
    let (half, one) = (simd.splat(0.5), simd.splat(1.0));
    let difference = log_p - log_q;
    let gap = exp_m1(simd, -(half * difference.abs()));
    let hellinger = half * exp_below(simd, log_p.max(log_q)) * gap * gap;
    let mut series = simd.splat(-1.0 / 720.0);
    for factor in [1.0 / 120.0, -1.0 / 24.0, 1.0 / 6.0, -0.5] {
        series = series.mul_add(difference, simd.splat(factor));
    }
    let small = difference.abs().less(simd.splat(1e-2));
    let closed = difference + exp_m1(simd, -difference);
    let excess = S::V::select(small, -(difference * difference * series), closed);
    // Far out log p + log(excess) may be finite although e^-D overflows.
    let far = difference.less(simd.splat(-600.0));
    let base = exp_below(simd, S::V::select(far, log_q, log_p));
    [hellinger, base * S::V::select(far, one, excess)]
}

/// For scales so different that equal steps would need too many nodes.
fn adaptive(p: &Terms, q: &Terms, atoms: &[(f64, f64)], wanted: Wanted) -> (Vec<Node>, [f64; 2]) {
    let around = |offsets: &[f64]| {
        let mut points: Vec<f64> = atoms
            .iter()
            .flat_map(|(m, s)| offsets.iter().map(move |o| m + o * s))
            .collect();
        points.sort_by(f64::total_cmp);
        points.dedup();
        points
    };
    let breaks = around(&[-RANGE, -5.0, -2.5, 0.0, 2.5, 5.0, RANGE]);
    let integral = integrate(
        |y| integrands(p.log_density(y), q.log_density(y)),
        &breaks,
        1e-11,
        2000,
    );
    let nodes = match wanted {
        Wanted::Smooth => Vec::new(),
        Wanted::All => {
            let reach = (RANGE * NODES_PER_DEVIATION) as i32;
            let offsets: Vec<f64> = (-reach..=reach)
                .map(|k| f64::from(k) / NODES_PER_DEVIATION)
                .collect();
            around(&offsets)
                .into_iter()
                .map(|y| (y, p.log_density(y) - q.log_density(y)))
                .collect()
        }
    };
    (nodes, integral.value)
}

/// V = 1/2 sum over the intervals between sign changes of p - q of
/// |P(interval) - Q(interval)|, with exact distribution functions: an error in a
/// root enters to second order only.
fn total_variation(p: &Terms, q: &Terms, nodes: &[Node]) -> f64 {
    let difference = |y: f64| p.log_density(y) - q.log_density(y);
    let mut roots = Vec::new();
    for (k, pair) in nodes.windows(2).enumerate() {
        let touch = (k > 0)
            .then(|| hidden_touch(&difference, nodes[k - 1], nodes[k], nodes[k + 1]))
            .flatten();
        if let Some(touch) = touch {
            roots.push(root(&difference, nodes[k - 1], touch));
            roots.push(root(&difference, touch, nodes[k + 1]));
        }
        if pair[0].1 == 0.0 {
            roots.push(pair[0].0);
        } else if pair[0].1 * pair[1].1 < 0.0 {
            roots.push(root(&difference, pair[0], pair[1]));
        }
    }
    roots.sort_by(f64::total_cmp);
    let mut before = 0.0;
    let mut total = 0.0;
    for y in roots {
        let excess = p.distribution(y) - q.distribution(y);
        total += (excess - before).abs();
        before = excess;
    }
    0.5 * (total + before.abs())
}

/// Two sign changes may hide between nodes of one sign, where |D| dips: returns
/// a node of the opposite sign if the dip really crosses zero.
fn hidden_touch(
    difference: &impl Fn(f64) -> f64,
    left: Node,
    middle: Node,
    right: Node,
) -> Option<Node> {
    let sign = middle.1.signum();
    let (a, b, c) = (sign * left.1, sign * middle.1, sign * right.1);
    let dips = b > 0.0 && a >= b && c >= b && a + c > 2.0 * b;
    // The parabola through the three nodes; far from zero there is no crossing.
    let depth = b - (c - a) * (c - a) / (8.0 * (a + c - 2.0 * b));
    if !dips || depth > 0.5 * b {
        return None;
    }
    let ratio = 0.5 * (5f64.sqrt() - 1.0);
    let (mut low, mut high) = (left.0, right.0);
    for _ in 0..60 {
        let (y1, y2) = (high - ratio * (high - low), low + ratio * (high - low));
        let (d1, d2) = (sign * difference(y1), sign * difference(y2));
        let (y, d) = if d1 < d2 { (y1, d1) } else { (y2, d2) };
        if d < 0.0 {
            return Some((y, sign * d));
        }
        if d1 < d2 { high = y2 } else { low = y1 }
    }
    None
}

/// The root of `difference` between two nodes of opposite sign, by the Illinois
/// variant of regula falsi (Dowell and Jarratt 1971).
fn root(difference: &impl Fn(f64) -> f64, left: Node, right: Node) -> f64 {
    let ((mut a, mut fa), (mut b, mut fb)) = (left, right);
    for _ in 0..100 {
        let y = b - fb * (b - a) / (fb - fa);
        if y == a || y == b || !y.is_finite() {
            break;
        }
        let fy = difference(y);
        if fy == 0.0 {
            return y;
        }
        if fy * fb < 0.0 {
            (a, fa) = (b, fb);
        } else {
            fa *= 0.5;
        }
        let moved = (y - b).abs();
        (b, fb) = (y, fy);
        if moved <= 1e-13 * (1.0 + y.abs()) {
            break;
        }
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gaussian(mean: f64, variance: f64) -> Conditional {
        Conditional {
            log_weights: vec![0.0],
            means: vec![mean],
            variances: vec![variance],
        }
    }

    fn closed_form(m1: f64, v1: f64, m2: f64, v2: f64) -> f64 {
        // 1 - exp(-t), by expm1 so that close pairs keep their digits.
        let log_ratio = 0.5 * (2.0 * (v1 * v2).sqrt() / (v1 + v2)).ln();
        -(log_ratio - (m1 - m2) * (m1 - m2) / (4.0 * (v1 + v2))).exp_m1()
    }

    proptest! {
        #[test]
        fn two_gaussians_agree_with_the_closed_form(
            m in -3.0f64..3.0, log_v1 in -2.0f64..2.0, log_v2 in -2.0f64..2.0,
        ) {
            let (v1, v2) = (log_v1.exp(), log_v2.exp());
            let d = divergence(&gaussian(0.0, v1), &gaussian(m, v2), Wanted::All);
            let exact = closed_form(0.0, v1, m, v2);
            prop_assert!((d.hellinger_sq / exact - 1.0).abs() < 1e-9, "{d:?} {exact}");
            let kl = 0.5 * ((v2 / v1).ln() + (v1 + m * m) / v2 - 1.0);
            prop_assert!((d.kullback_leibler / kl - 1.0).abs() < 1e-9, "{d:?} {kl}");
        }

        #[test]
        fn divergences_obey_their_inequalities(
            m in -4.0f64..4.0, w in 0.01f64..0.99, v in 0.01f64..9.0,
        ) {
            let p = Conditional {
                log_weights: vec![w.ln(), (1.0 - w).ln()],
                means: vec![0.0, m],
                variances: vec![1.0, v],
            };
            let d = divergence(&p, &gaussian(0.3, 1.1), Wanted::All);
            let h = d.hellinger_sq.sqrt();
            let slack = 1.0 + 1e-10;
            prop_assert!(d.hellinger_sq >= 0.0);
            prop_assert!(d.hellinger_sq <= d.total_variation * slack);
            prop_assert!(d.total_variation <= 2f64.sqrt() * h * slack && h <= slack);
            prop_assert!(2.0 * d.hellinger_sq <= d.kullback_leibler * slack);
        }
    }

    #[test]
    fn a_shift_has_the_known_total_variation() {
        // V = 2 Phi(delta / 2) - 1 for two unit normals delta apart.
        for delta in [1e-6, 0.1, 1.0, 12.0] {
            let d = divergence(&gaussian(0.0, 1.0), &gaussian(delta, 1.0), Wanted::All);
            let exact = libm::erf(delta / 8f64.sqrt());
            assert!(
                (d.total_variation / exact - 1.0).abs() < 1e-9,
                "{delta}: {d:?} {exact}"
            );
        }
    }

    #[test]
    fn very_different_scales_are_integrated_adaptively() {
        let (v1, v2) = (1e-10, 1.0);
        let d = divergence(&gaussian(0.0, v1), &gaussian(0.5, v2), Wanted::All);
        let exact = closed_form(0.0, v1, 0.5, v2);
        assert!((d.hellinger_sq / exact - 1.0).abs() < 1e-9, "{d:?} {exact}");
        assert!(d.total_variation > 0.99 && d.total_variation < 1.0);
    }

    #[test]
    fn close_pairs_keep_their_digits() {
        for shift in [1e-3, 1e-5] {
            let d = divergence(&gaussian(0.0, 1.0), &gaussian(shift, 1.0), Wanted::Smooth);
            let exact = closed_form(0.0, 1.0, shift, 1.0);
            assert!(
                (d.hellinger_sq / exact - 1.0).abs() < 1e-9,
                "{shift}: {d:?}"
            );
        }
    }

    #[test]
    fn a_double_crossing_between_two_nodes_is_found() {
        // D = 3e-4 - bump narrower than the node spacing allows two roots.
        let difference = |y: f64| (y - 0.03) * (y - 0.03) - 1e-4;
        let node = |y: f64| (y, difference(y));
        let touch = hidden_touch(&difference, node(-0.2), node(0.0), node(0.2)).unwrap();
        assert!(touch.1 < 0.0);
        assert!(hidden_touch(&|y| y * y + 1.0, (-1.0, 2.0), (0.0, 1.0), (1.0, 2.0)).is_none());
    }
}
