//! Increments of activations that keep their digits.

use crate::model::ExpertKind;

/// Steps below this are integrated, longer ones subtracted: at least three of
/// sixteen digits of a difference over a longer step are kept, near all of most.
const SHORT: f64 = 1.0;

/// Nodes and weights of the ten-point Gauss-Legendre rule on [-1, 1], positive half.
const RULE: [(f64, f64); 5] = [
    (0.148_874_338_981_631_22, 0.295_524_224_714_752_87),
    (0.433_395_394_129_247_2, 0.269_266_719_309_996_35),
    (0.679_409_568_299_024_4, 0.219_086_362_515_982_04),
    (0.865_063_366_688_984_5, 0.149_451_349_150_580_6),
    (0.973_906_528_517_171_7, 0.066_671_344_308_688_14),
];

/// activation(t + step) - activation(t), to full relative accuracy however small
/// the step:
///
/// ```text
/// tanh     sinh(step) / (cosh(t) cosh(t + step))
/// sigmoid  (e^step - 1) sigmoid(t) sigmoid(-t - step)
/// gelu     step Phi(t + step) + t (Phi(t + step) - Phi(t)),
///          the last bracket as int_0^step phi(t + u) du
/// ```
pub(super) fn increment(kind: ExpertKind, t: f64, step: f64) -> f64 {
    let sigmoid = |t: f64| ExpertKind::Sigmoid.activation(t).value;
    match kind {
        ExpertKind::Linear => step,
        ExpertKind::Relu if t > 0.0 && t + step > 0.0 => step,
        ExpertKind::Relu => (t + step).max(0.0) - t.max(0.0),
        ExpertKind::Tanh => step.sinh() / t.cosh() / (t + step).cosh(),
        ExpertKind::Sigmoid => step.exp_m1() * sigmoid(t) * sigmoid(-t - step),
        ExpertKind::Gelu if step.abs() < SHORT => {
            let below = 0.5 * libm::erfc(-(t + step) * std::f64::consts::FRAC_1_SQRT_2);
            step * below + t * normal_mass(t, step)
        }
        ExpertKind::Gelu => kind.activation(t + step).value - kind.activation(t).value,
    }
}

/// Phi(t + step) - Phi(t) for a short step.
fn normal_mass(t: f64, step: f64) -> f64 {
    let density = |u: f64| (-0.5 * u * u).exp() / std::f64::consts::TAU.sqrt();
    let half = 0.5 * step;
    let sum: f64 = RULE
        .iter()
        .map(|(node, weight)| {
            weight * (density(t + half * (1.0 - node)) + density(t + half * (1.0 + node)))
        })
        .sum();
    half * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn increments_are_differences_of_activations_and_exact_for_small_steps(
            t in -4.0f64..4.0, step in -1.5f64..1.5,
        ) {
            prop_assume!(t.abs() > 1e-5);
            for kind in [
                ExpertKind::Linear, ExpertKind::Tanh, ExpertKind::Sigmoid,
                ExpertKind::Relu, ExpertKind::Gelu,
            ] {
                let value = |u: f64| kind.activation(u).value;
                let difference = value(t + step) - value(t);
                prop_assert!((increment(kind, t, step) - difference).abs() < 1e-13, "{kind:?}");
                // Two terms of the series leave the third: small^3 times at most 1.
                let small = 1e-6 * step;
                let at = kind.activation(t);
                let series = small * (at.first + 0.5 * small * at.second);
                let error = (increment(kind, t, small) - series).abs();
                prop_assert!(error <= 1e-11 * small.abs(), "{kind:?} {t} {step} {error}");
            }
        }
    }
}
