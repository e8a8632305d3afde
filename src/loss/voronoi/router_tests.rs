use super::tests::{biased, experts, minimum_over_interval, parameters, truth_of};
use super::*;
use crate::rng::{Purpose, Stream};
use proptest::prelude::*;

fn router(gate_slope: f64, gate_intercept: f64, slope: f64, intercept: f64) -> Expert {
    Expert {
        gate: ExpertGate::Router {
            slope: vec![gate_slope],
            intercept: gate_intercept,
        },
        ..biased(slope, intercept, 1.0, 0.0)
    }
}

/// The papers' loss at one translation t and the best t0, divided by the sum of
/// the fitted masses, written from the definition alone.
fn by_definition(loss: VoronoiLoss, fitted: &Parameters, truth: &Parameters, t: &[f64]) -> f64 {
    let router = |e: &Expert| match &e.gate {
        ExpertGate::Router { slope, intercept } => (slope.clone(), intercept.exp()),
        _ => unreachable!(),
    };
    let d = t.len();
    // Blocks: gate slope, slope, intercept, variance.
    let atom = |e: &Expert, t: &[f64]| -> Vec<f64> {
        let gate = router(e).0.into_iter().zip(t).map(|(g, t)| g - t);
        let mut all: Vec<f64> = gate.collect();
        all.extend(&e.slope);
        all.extend([e.intercept, e.variance]);
        all
    };
    let zero = vec![0.0; d];
    let true_atoms: Vec<Vec<f64>> = truth.experts.iter().map(|e| atom(e, &zero)).collect();
    let total: f64 = fitted.experts.iter().map(|e| router(e).1).sum();
    let mut groups = vec![Vec::new(); true_atoms.len()];
    for expert in &fitted.experts {
        let moved = atom(expert, t);
        let differences = true_atoms
            .iter()
            .map(|a| -> Vec<f64> { moved.iter().zip(a).map(|(m, a)| m - a).collect() });
        let square = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
        let (j, difference) = differences
            .enumerate()
            .min_by(|a, b| square(&a.1).total_cmp(&square(&b.1)))
            .unwrap();
        groups[j].push((router(expert).1, difference));
    }
    let spread = |group: &[(f64, Vec<f64>)]| -> f64 {
        let power = match group.len() {
            _ if loss == VoronoiLoss::Softmax => 1.0,
            0 | 1 => 1.0,
            2 => 4.0,
            3 => 6.0,
            _ => 7.0,
        };
        let norm = |v: &mut dyn Iterator<Item = &f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let one = |v: &[f64]| {
            if power == 1.0 {
                return norm(&mut v.iter());
            }
            let slow = norm(&mut v[..d].iter().chain([&v[2 * d]]));
            let fast = norm(&mut v[d..2 * d].iter().chain([&v[2 * d + 1]]));
            slow.powf(power) + fast.powf(0.5 * power)
        };
        group.iter().map(|(mass, v)| mass * one(v)).sum()
    };
    let cells: Vec<(f64, f64, f64)> = std::iter::zip(&groups, &truth.experts)
        .map(|(group, expert)| {
            let mass = group.iter().map(|(mass, _)| mass).sum();
            (mass, router(expert).1, spread(group))
        })
        .collect();
    let paper = minimum_over_interval(0.0, 40.0, |factor| {
        let mut terms: Vec<f64> = cells
            .iter()
            .map(|(mass, true_mass, spread)| (mass - factor * true_mass).abs() + spread)
            .collect();
        terms.sort_by(|a, b| b.total_cmp(a));
        terms.iter().take(truth.active_experts()).sum()
    });
    paper / total
}

#[test]
fn d1_and_d2_agree_with_values_by_hand() {
    let true_atoms = vec![router(0.0, 0.0, 3.0, 0.0), router(1.0, 0.0, -3.0, 0.0)];
    let truth = truth_of(&parameters(GateKind::Softmax, None, true_atoms));
    // Both gate slopes shifted by 5; the second atom is split in two, at
    // intercepts +-0.1 about the truth; masses agree up to the factor e^2.
    let half = 2.0 + 0.5f64.ln();
    let fitted = vec![
        router(6.0, half, -3.0, 0.1),
        router(5.0, 2.0, 3.0, 0.0),
        router(6.0, half, -3.0, -0.1),
    ];
    let fitted = parameters(GateKind::Softmax, None, fitted);
    let value = |loss| voronoi_loss(loss, &fitted, &truth).unwrap();
    assert!((value(VoronoiLoss::Softmax) - 0.5 * 0.1).abs() < 1e-14);
    assert!((value(VoronoiLoss::SoftmaxOverspecified) - 0.5 * 1e-4).abs() < 1e-14);
    let found = cells(VoronoiLoss::Softmax, &fitted, &truth).unwrap();
    assert_eq!(found, [1, 0, 1]);
    // One atom only: its cell is exact wherever it is put; the other is empty.
    // With f = e^t0, |1 - f/2| + f/2 is 1 on [0, 2].
    let fitted = parameters(GateKind::Softmax, None, vec![router(9.0, 1.0, -3.0, 0.0)]);
    assert!((voronoi_loss(VoronoiLoss::Softmax, &fitted, &truth).unwrap() - 1.0).abs() < 1e-14);
}

#[test]
fn a_tie_that_no_translation_breaks_goes_to_the_lower_true_atom() {
    let atom = |slope: f64, mass: f64| Expert {
        slope: vec![slope, 0.0],
        gate: ExpertGate::Router {
            slope: vec![1.0, -1.0],
            intercept: mass.ln(),
        },
        ..biased(0.0, 0.0, 1.0, 0.0)
    };
    let truth = vec![atom(0.5, 0.25), atom(-0.5, 0.75)];
    let truth = truth_of(&parameters(GateKind::Softmax, None, truth));
    let fitted = parameters(GateKind::Softmax, None, vec![atom(0.0, 1.0)]);
    let found = matching(VoronoiLoss::Softmax, &fitted, &truth).unwrap();
    assert_eq!(found.cells, [0]);
    // |1 - 1/4 f| + 3/4 f at f = e^t0 = 0; the upper atom would have given 1/3 + 0.5.
    assert!((found.loss - (1.0 + 0.5)).abs() < 1e-14);
}

fn routers(d: usize) -> impl Strategy<Value = (VoronoiLoss, Parameters, Parameters)> {
    let counts = (2..4usize, 2..5usize, prop::bool::ANY, prop::bool::ANY);
    counts.prop_flat_map(move |(k_true, k_fit, exact, sparse)| {
        let kind = GateKind::Softmax;
        (experts(kind, d, k_true), experts(kind, d, k_fit)).prop_map(move |(truth, mut fitted)| {
            let loss = if exact {
                VoronoiLoss::Softmax
            } else {
                VoronoiLoss::SoftmaxOverspecified
            };
            // Half-way to the truth: fits that resemble it and share its cells.
            for (i, expert) in fitted.iter_mut().enumerate() {
                let near = &truth[i % k_true];
                expert.intercept = near.intercept + 0.3 * (expert.intercept - near.intercept);
                expert.variance = near.variance + 0.3 * (expert.variance - near.variance);
            }
            let kept = if sparse { k_true - 1 } else { k_true };
            let truth = parameters(kind, Some(kept), truth);
            (loss, truth, parameters(kind, None, fitted))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_one_dimension_the_infimum_is_that_of_a_grid((loss, truth, fitted) in routers(1)) {
        let found = matching(loss, &fitted, &truth_of(&truth)).unwrap();
        let at = |t: f64| by_definition(loss, &fitted, &truth, &[t]);
        let (mut centre, mut step) = (0.0, 0.01);
        let mut least = f64::INFINITY;
        for _ in 0..4 {
            let around = centre;
            for i in -400..=400 {
                let t = around + step * f64::from(i);
                let here = at(t);
                if here < least {
                    (least, centre) = (here, t);
                }
            }
            step *= 0.01;
        }
        prop_assert!(found.loss <= least + 1e-10, "{loss:?} {} {least}", found.loss);
        // The grid may miss a short interval of good translations; the reported
        // one, or one beside it, has the loss.
        let t = found.gate_translation[0];
        let attained = [t, t - 1e-9, t + 1e-9].map(at).into_iter().fold(f64::INFINITY, f64::min);
        prop_assert!((attained - found.loss).abs() < 1e-7, "{loss:?} {} {attained}", found.loss);
    }

    #[test]
    fn in_two_dimensions_no_random_search_beats_the_infimum(
        (loss, truth, fitted) in routers(2), seed in 0..u64::MAX,
    ) {
        let value = voronoi_loss(loss, &fitted, &truth_of(&truth)).unwrap();
        let stream = Stream::named(seed, "random search", 0, Purpose::Start(0));
        let at = |t: &[f64]| by_definition(loss, &fitted, &truth, t);
        let mut best = (at(&[0.0, 0.0]), [0.0, 0.0]);
        for sample in 0..3000u64 {
            let [u, v] = [0, 1].map(|draw| stream.standard_normal(sample, draw));
            // First everywhere, then ever closer to the best point.
            let radius = 1.2 * (-0.005 * sample.saturating_sub(1000) as f64).exp();
            let centre = if sample < 1000 { [0.0, 0.0] } else { best.1 };
            let t = [centre[0] + radius * u, centre[1] + radius * v];
            let here = at(&t);
            if here < best.0 {
                best = (here, t);
            }
        }
        prop_assert!(value <= best.0 + 1e-9, "{loss:?} {value} {}", best.0);
    }
}
