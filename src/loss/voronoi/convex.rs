//! Minimisation of a convex function that need not be differentiable.

/// What is known of the function at one point; its vector is written by the
/// oracle into the slice it is given.
pub(super) enum Oracle {
    /// The point is feasible; the vector is a subgradient.
    Feasible(f64),
    /// The point violates a linear constraint; the vector is its outward normal.
    Infeasible,
}

/// The relative gap at which the search stops.
const TOLERANCE: f64 = 1e-14;

/// The best feasible point found, and the value there, of a convex function on
/// the ball around `centre`; `None` if no feasible point was met. Stops early
/// once the minimum is known not to lie below `cutoff`.
///
/// The ellipsoid method: every cut through the centre of an ellipsoid leaves a
/// half that lies in a smaller ellipsoid. It needs nothing but a subgradient,
/// treats kinks and constraints alike, and proves its gap: the minimum is at
/// least value - |B' subgradient| for the ellipsoid { centre + B z, |z| <= 1 }.
/// In one dimension it is bisection.
///
/// # Reference
/// Grötschel, Lovász and Schrijver (1988), chapter 3, in factored form.
pub(super) fn minimise(
    mut centre: Vec<f64>,
    radius: f64,
    cutoff: f64,
    mut oracle: impl FnMut(&[f64], &mut [f64]) -> Oracle,
) -> Option<(Vec<f64>, f64)> {
    let n = centre.len();
    let along = n as f64 / (n as f64 + 1.0);
    let across = if n == 1 {
        along
    } else {
        n as f64 / ((n * n) as f64 - 1.0).sqrt()
    };
    // Row-major B.
    let mut factor = vec![0.0; n * n];
    (0..n).for_each(|i| factor[i * n + i] = radius);
    let mut best: Option<(Vec<f64>, f64)> = None;
    let mut lower = f64::NEG_INFINITY;
    let (mut cut, mut direction, mut step) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);

    // Each cut shrinks the radius by exp(-1 / (2 n (n + 1))) on average: this
    // many shrink it by e^-50.
    for _ in 0..100 * n * (n + 1) {
        cut.fill(0.0);
        let value = oracle(&centre, &mut cut);
        for (c, entry) in direction.iter_mut().enumerate() {
            *entry = (0..n).map(|r| factor[r * n + c] * cut[r]).sum();
        }
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
        if let Oracle::Feasible(value) = value {
            lower = lower.max(value - length);
            if best.as_ref().is_none_or(|(_, least)| value < *least) {
                best = Some((centre.clone(), value));
            }
        }
        let gap = best.as_ref().map(|(_, least)| (least - lower, *least));
        let proved = gap.is_some_and(|(gap, least)| gap <= TOLERANCE * least);
        // A zero length is an exact minimum, or an ellipsoid gone to a point.
        if proved || lower >= cutoff || length == 0.0 || !length.is_finite() {
            break;
        }
        direction.iter_mut().for_each(|v| *v /= length);
        for (r, entry) in step.iter_mut().enumerate() {
            *entry = (0..n).map(|c| factor[r * n + c] * direction[c]).sum();
        }
        for r in 0..n {
            centre[r] -= step[r] / (n as f64 + 1.0);
            for c in 0..n {
                let entry = &mut factor[r * n + c];
                *entry = across * *entry + (along - across) * step[r] * direction[c];
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometric_median_of_an_equilateral_triangle_is_its_centre() {
        let height = 3.0f64.sqrt();
        let corners = [[-1.0, 0.0], [1.0, 0.0], [0.0, height]];
        let (at, value) = minimise(vec![0.3, 0.1], 3.0, f64::INFINITY, |x, gradient| {
            let mut value = 0.0;
            for corner in corners {
                let length = (x[0] - corner[0]).hypot(x[1] - corner[1]);
                value += length;
                gradient[0] += (x[0] - corner[0]) / length;
                gradient[1] += (x[1] - corner[1]) / length;
            }
            Oracle::Feasible(value)
        })
        .unwrap();
        assert!((value - 2.0 * height).abs() < 1e-13);
        assert!(at[0].abs() < 1e-6 && (at[1] - height / 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_constraint_moves_the_minimum_to_its_boundary() {
        // |x| + |y| subject to x >= 0.5: 0.5 at (0.5, 0).
        let (at, value) = minimise(vec![0.0, 0.2], 2.0, f64::INFINITY, |x, cut| {
            if x[0] < 0.5 {
                cut[0] = -1.0;
                return Oracle::Infeasible;
            }
            cut[0] = x[0].signum();
            cut[1] = x[1].signum();
            Oracle::Feasible(x[0].abs() + x[1].abs())
        })
        .unwrap();
        assert!((value - 0.5).abs() < 1e-12 && (at[0] - 0.5).abs() < 1e-12);
        assert!(
            minimise(vec![0.0], 1.0, f64::INFINITY, |_, cut| {
                cut[0] = 1.0;
                Oracle::Infeasible
            })
            .is_none()
        );
    }
}
