use super::*;
use crate::backend::cuda::examples::{gates, laws, mixture};
use crate::backend::cuda::{Cuda, Emulation};
use crate::loss::density::{DensityDistance, Effort, density_distance, density_distances};
use crate::model::{GateKind, Model};

/// Relative error of a divergence between mixtures at Hellinger distance h that
/// rounding of their means and log-weights allows: they differ by about h, of which
/// rounding is a part 1e-16 / h.
fn allowed(hellinger_sq: f64) -> f64 {
    1e-11 + 1e-16 / hellinger_sq.sqrt()
}

/// The mixture with every number of its experts a little larger.
fn moved(parameters: &Parameters, by: f64) -> Parameters {
    let mut moved = parameters.clone();
    for (i, expert) in moved.experts.iter_mut().enumerate() {
        let by = by * (1.0 + 0.3 * i as f64);
        expert.intercept += by;
        expert.variance *= 1.0 + by;
        expert.slope.iter_mut().for_each(|s| *s -= by);
    }
    moved
}

fn evaluator() -> DeviceDivergences {
    let device = Cuda::emulated(Emulation::default()).unwrap();
    DeviceDivergences(device.comparer())
}

#[test]
fn divergences_agree_with_the_processor() {
    let mut mixtures = Vec::new();
    for d in 0..=2 {
        for gate in gates() {
            for top_k in [None, Some(1), Some(2)] {
                let p = mixture(gate, top_k, d, 4, false);
                for by in [1e-6, 1e-4, 0.05, 2.0] {
                    mixtures.push((p.clone(), moved(&p, by)));
                }
                // Another number of experts, and another gate.
                mixtures.push((p.clone(), mixture(gate, None, d, 6, false)));
                mixtures.push((p, mixture(GateKind::Constant, Some(2), d, 3, true)));
            }
        }
    }
    let pairs: Vec<Pair> = mixtures.iter().map(|(p, q)| Pair { p, q }).collect();
    let inputs = [[0.0, 0.0], [-0.9, 0.3], [0.33, -0.71], [1.4, 1.1]];
    let requests: Vec<Request> = inputs
        .iter()
        .flat_map(|x| {
            let each = pairs.iter().enumerate();
            each.map(move |(pair, of)| Request {
                pair,
                input: &x[..of.p.dimension()],
            })
        })
        .collect();
    let found = evaluator().divergences(&pairs, &requests, Wanted::Smooth);
    let expected = Processor.divergences(&pairs, &requests, Wanted::Smooth);
    let (found, expected) = (found.unwrap(), expected.unwrap());
    assert_eq!(found.len(), requests.len());
    let (mut nearest, mut farthest) = (f64::INFINITY, 0.0f64);
    for ((a, b), request) in found.iter().zip(&expected).zip(&requests) {
        let allowed = allowed(b.hellinger_sq);
        let same = |a: f64, b: f64| (a - b).abs() <= allowed * b;
        assert!(
            same(a.hellinger_sq, b.hellinger_sq) && same(a.kullback_leibler, b.kullback_leibler),
            "{a:?} {b:?} {:?} {:?}",
            pairs[request.pair],
            request.input
        );
        assert!(a.total_variation.is_nan());
        nearest = nearest.min(b.hellinger_sq.sqrt());
        farthest = farthest.max(b.hellinger_sq.sqrt());
    }
    assert!(nearest < 1e-6 && farthest > 0.9, "{nearest} {farthest}");
}

#[test]
fn very_different_scales_and_total_variation_are_the_processors() {
    let wide = mixture(GateKind::Constant, None, 1, 1, true);
    let mut narrow = wide.clone();
    narrow.experts[0].variance = 1e-10;
    let pairs = [
        Pair {
            p: &wide,
            q: &narrow,
        },
        Pair { p: &wide, q: &wide },
    ];
    let input: &[f64] = &[0.2];
    let requests = [0, 1, 0].map(|pair| Request { pair, input });
    for wanted in [Wanted::Smooth, Wanted::All] {
        let found = evaluator().divergences(&pairs, &requests, wanted).unwrap();
        let expected = Processor.divergences(&pairs, &requests, wanted).unwrap();
        for (a, b) in found.iter().zip(&expected) {
            assert_eq!(a.hellinger_sq, b.hellinger_sq);
            assert_eq!(a.kullback_leibler, b.kullback_leibler);
            assert_eq!(a.total_variation.is_nan(), wanted == Wanted::Smooth);
        }
        assert!(found[0].hellinger_sq > 0.9 && found[1].hellinger_sq == 0.0);
    }
}

#[test]
fn distances_agree_with_the_processor() {
    let effort = Effort {
        relative_error: 1e-2,
        max_points: 256,
    };
    let mut mixtures = Vec::new();
    for d in 0..=2 {
        for (k, gate) in gates().into_iter().enumerate() {
            let top_k = [None, Some(1), Some(2)][k % 3];
            let parameters = mixture(gate, top_k, d, 3, k % 2 == 0);
            let close = moved(&parameters, [1e-6, 1e-3, 0.05, 0.8][(k + d) % 4]);
            let input = laws(d).remove((k / 3 + d) % 3);
            let truth = Model { input, parameters };
            let larger = mixture(gate, None, d, 5, false);
            mixtures.push((truth.clone(), larger));
            mixtures.push((truth, close));
        }
    }
    let pairs: Vec<(&Model, &Parameters)> = mixtures.iter().map(|(p, q)| (p, q)).collect();
    let found = density_distances(&pairs, Wanted::Smooth, effort, &evaluator()).unwrap();
    for ((p, q), found) in pairs.iter().zip(&found) {
        let expected = density_distance(p, q, Wanted::Smooth, effort).unwrap();
        let parts = |d: &DensityDistance| {
            [
                d.hellinger.value,
                d.hellinger_sq.value,
                d.kullback_leibler.value,
            ]
        };
        for (a, b) in parts(found).into_iter().zip(parts(&expected)) {
            assert!((a - b).abs() <= 1e-10 * b, "{a} {b} {p:?} {q:?}");
        }
        assert!(found.total_variation.value.is_nan());
    }
}
