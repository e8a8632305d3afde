//! Quantiles of a mixture.

use super::tails::{log_normal_cdf, log_normal_density, normal_quantile_of_log};
use crate::model::Conditional;
use crate::num::log_space::log_sum_exp;

/// The y with F(y) = `level`, F the distribution function of the mixture, to rounding:
/// in the tails, and between components so far apart that F is flat there.
///
/// `level` lies in (0, 1).
pub(super) fn mixture_quantile(law: &Conditional, level: f64) -> f64 {
    // The upper half is the lower half of the mirror image; 1 - level is exact there.
    let sign = if level > 0.5 { -1.0 } else { 1.0 };
    let level = if level > 0.5 { 1.0 - level } else { level };
    let normal = normal_quantile_of_log(level.ln());
    let components: Vec<Component> = law
        .active()
        .map(|i| Component {
            log_weight: law.log_weights[i],
            mean: sign * law.means[i],
            deviation: law.variances[i].sqrt(),
        })
        .collect();
    // The mixture's quantile lies between those of its components.
    let own = components.iter().map(|c| c.mean + c.deviation * normal);
    let low = own.clone().fold(f64::INFINITY, f64::min);
    let high = own.fold(f64::NEG_INFINITY, f64::max);
    sign * root(low, high, |y| balance(&components, level, y))
}

struct Component {
    log_weight: f64,
    mean: f64,
    deviation: f64,
}

/// Where a point stands on the way to the quantile.
struct Balance {
    /// log A - log B
    value: f64,
    /// Its derivative.
    slope: f64,
    /// Rounding of the value.
    rounding: f64,
}

/// log A - log B, where F(y) - level = A - B with A, B >= 0.
///
/// The components below y enter B by their upper tails, w (1 - Phi), and the sum of
/// their weights is compared with the level once: where F is flat, the level equals
/// that sum and the tails alone decide.
fn balance(components: &[Component], level: f64, y: f64) -> Balance {
    let (mut tails, mut densities) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut passed = 0.0;
    for c in components {
        let z = (y - c.mean) / c.deviation;
        let side = usize::from(z > 0.0);
        passed += if z > 0.0 { c.log_weight.exp() } else { 0.0 };
        tails[side].push(c.log_weight + log_normal_cdf(-z.abs()));
        densities[side].push(c.log_weight + log_normal_density(z) - c.deviation.ln());
    }
    let surplus = passed - level;
    match surplus {
        s if s > 0.0 => tails[0].push(s.ln()),
        s if s < 0.0 => tails[1].push((-s).ln()),
        _ => {}
    }
    let [a, b] = [log_sum_exp(&tails[0]), log_sum_exp(&tails[1])];
    let slope = |side: usize, total: f64| match densities[side].is_empty() {
        true => 0.0,
        false => (log_sum_exp(&densities[side]) - total).exp(),
    };
    Balance {
        value: a - b,
        slope: slope(0, a) + slope(1, b),
        rounding: 2.0 * f64::EPSILON * (1.0 + a.abs()),
    }
}

/// The zero of an increasing function between `low` and `high`: Newton, and bisection
/// where Newton leaves the bracket or does not halve its steps.
fn root(mut low: f64, mut high: f64, f: impl Fn(f64) -> Balance) -> f64 {
    let mut y = 0.5 * (low + high);
    let mut last = high - low;
    for _ in 0..300 {
        let Balance {
            value,
            slope,
            rounding,
        } = f(y);
        if value.abs() <= rounding {
            return y;
        }
        if value < 0.0 {
            low = y;
        } else {
            high = y;
        }
        let newton = y - value / slope;
        let inside = newton > low && newton < high;
        let next = match inside && (newton - y).abs() < 0.5 * last {
            true => newton,
            false => 0.5 * (low + high),
        };
        last = (next - y).abs();
        y = next;
        if last <= 1e-14 * (1.0 + y.abs()) {
            break;
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tails::log_tails;
    use proptest::prelude::*;

    fn law(components: &[(f64, f64, f64)]) -> Conditional {
        Conditional {
            log_weights: components.iter().map(|c| c.0.ln()).collect(),
            means: components.iter().map(|c| c.1).collect(),
            variances: components.iter().map(|c| c.2 * c.2).collect(),
        }
    }

    #[test]
    fn one_component_has_the_normal_quantiles() {
        let one = law(&[(1.0, 0.7, 0.2)]);
        for (level, z) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.05, -1.644_853_626_951_472_2),
            (1e-12, -7.034_483_825_301_132),
            (1e-300, -37.047_096_299_361_2),
        ] {
            let error = mixture_quantile(&one, level) - (0.7 + 0.2 * z);
            assert!(error.abs() < 1e-13, "{level}: {error:e}");
        }
    }

    /// Two components a hundred deviations apart, level = the weight of the first: F is
    /// level to the last bit of a double all along, and yet its exact quantile is where
    /// the tails are equal: 50 of the first's deviations from it, by symmetry.
    #[test]
    fn between_far_components_the_tails_decide() {
        let far = law(&[(0.5, 0.0, 0.1), (0.5, 10.0, 0.1)]);
        assert!((mixture_quantile(&far, 0.5) - 5.0).abs() < 1e-12);
        let off = mixture_quantile(&far, 0.5 - 1e-9);
        assert!((off - 0.1 * 5.884_193_35).abs() < 1e-6, "{off}");
    }

    #[test]
    fn an_expert_without_weight_has_no_say() {
        let dropped = Conditional {
            log_weights: vec![0.0, f64::NEG_INFINITY],
            means: vec![1.0, 50.0],
            variances: vec![1.0, 1.0],
        };
        assert!((mixture_quantile(&dropped, 0.5) - 1.0).abs() < 1e-14);
    }

    proptest! {
        #[test]
        fn the_quantile_of_the_distribution_function_is_the_identity(
            weights in prop::array::uniform3(0.01f64..1.0),
            means in prop::array::uniform3(-3.0f64..3.0),
            deviations in prop::array::uniform3(0.02f64..1.5),
            chosen in 0usize..3, z in -7.5f64..7.5,
        ) {
            let total: f64 = weights.iter().sum();
            let law = law(&[0, 1, 2].map(|i| (weights[i] / total, means[i], deviations[i])));
            let y = means[chosen] + deviations[chosen] * z;
            let (below, above) = log_tails(&law, y);
            // A level near 1 holds its distance to 1 to an absolute 1e-16 only.
            prop_assume!(above > -20.0);
            let level = below.exp();
            let back = mixture_quantile(&law, level);
            // Rounding of the level moves the quantile by that over the density.
            let density = law.log_density(y).exp();
            let rounding = 4.0 * f64::EPSILON * (level + 1e-300) / density;
            let other = 4.0 * f64::EPSILON / density * f64::from(u8::from(level > 1e-3));
            prop_assert!((back - y).abs() < 1e-12 + rounding + other, "{back} {y} {level:e}");
        }
    }
}
