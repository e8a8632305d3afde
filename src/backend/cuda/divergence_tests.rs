use super::*;
use crate::backend::cuda::examples::{gates, mixture};
use crate::backend::cuda::machine::emulated::{Emulated, Order};
use crate::model::GateKind;

const STEPS: Steps = Steps {
    range: 9.0,
    nodes_per_deviation: 6.0,
    most_nodes: 4096.0,
};

fn emulated(order: Order) -> Comparer {
    Comparer::new(&Device::new(Emulated::with_order(1 << 28, order).unwrap()))
}

/// N(mean, variance) at every input.
fn gaussian(mean: f64, variance: f64) -> Parameters {
    let mut parameters = mixture(GateKind::Constant, None, 1, 1, true);
    parameters.experts[0].slope = vec![0.0];
    parameters.experts[0].intercept = mean;
    parameters.experts[0].variance = variance;
    parameters
}

fn bits(values: &[Option<SmoothDivergences>]) -> Vec<Option<[u64; 2]>> {
    let bits = |v: SmoothDivergences| [v.hellinger_sq.to_bits(), v.kullback_leibler.to_bits()];
    values.iter().map(|value| value.map(bits)).collect()
}

#[test]
fn two_gaussians_agree_with_the_closed_forms() {
    let comparer = emulated(Order::Forward);
    for (m, v1, v2) in [
        (0.0, 1.0, 1.5),
        (2.0, 0.3, 0.7),
        (-1.0, 4.0, 0.2),
        (60.0, 1.0, 1.0),
    ] {
        let (p, q) = (gaussian(0.0, v1), gaussian(m, v2));
        let found = comparer.divergences(&[(&p, &q)], &[(0, &[0.4])], STEPS);
        let found = found.unwrap()[0].unwrap();
        let log_ratio = 0.5 * (2.0 * f64::sqrt(v1 * v2) / (v1 + v2)).ln();
        let hellinger_sq = -f64::exp_m1(log_ratio - m * m / (4.0 * (v1 + v2)));
        let kullback = 0.5 * (f64::ln(v2 / v1) + (v1 + m * m) / v2 - 1.0);
        assert!(
            (found.hellinger_sq / hellinger_sq - 1.0).abs() < 1e-11,
            "{found:?}"
        );
        assert!(
            (found.kullback_leibler / kullback - 1.0).abs() < 1e-11,
            "{found:?}"
        );
    }
}

#[test]
fn a_mixture_is_at_distance_zero_from_itself() {
    let comparer = emulated(Order::Forward);
    for gate in gates() {
        let p = mixture(gate, Some(2), 2, 4, false);
        let found = comparer.divergences(&[(&p, &p)], &[(0, &[0.4, -0.2])], STEPS);
        let found = found.unwrap()[0].unwrap();
        assert_eq!((found.hellinger_sq, found.kullback_leibler), (0.0, 0.0));
    }
}

#[test]
fn a_request_that_needs_too_many_nodes_comes_back_without_a_number() {
    let comparer = emulated(Order::Forward);
    let (wide, narrow) = (gaussian(0.0, 1.0), gaussian(0.5, 1e-10));
    let pairs = [(&wide, &narrow), (&wide, &wide), (&narrow, &wide)];
    let requests: Vec<(usize, &[f64])> = vec![(0, &[0.0]), (1, &[0.0]), (2, &[0.0])];
    let found = comparer.divergences(&pairs, &requests, STEPS).unwrap();
    assert_eq!(found[0], None);
    assert!(found[1].is_some());
    assert_eq!(found[2], None);
}

#[test]
fn results_do_not_depend_on_company_or_on_the_order_of_threads() {
    let inputs: Vec<[f64; 2]> = (0..50).map(|k| [0.05 * f64::from(k) - 1.2, 0.3]).collect();
    let mixtures: Vec<Parameters> = gates()
        .into_iter()
        .enumerate()
        .map(|(k, gate)| mixture(gate, Some(2), k % 3, 3 + k % 3, false))
        .collect();
    // Pairs of different gates and sizes, but one dimension.
    let pairs: Vec<(&Parameters, &Parameters)> = (0..mixtures.len() - 3)
        .map(|k| (&mixtures[k], &mixtures[k + 3]))
        .collect();
    let mut requests: Vec<(usize, &[f64])> = Vec::new();
    for x in &inputs {
        for (pair, (p, _)) in pairs.iter().enumerate() {
            requests.push((pair, &x[..p.dimension()]));
        }
    }
    let comparer = emulated(Order::Forward);
    let together = comparer.divergences(&pairs, &requests, STEPS).unwrap();
    assert!(together.iter().all(Option::is_some));
    for k in [0, 17, requests.len() - 1] {
        let (pair, x) = requests[k];
        let alone = comparer.divergences(&pairs[pair..=pair], &[(0, x)], STEPS);
        assert_eq!(bits(&alone.unwrap()), bits(&together[k..=k]));
    }
    let again = emulated(Order::Reversed)
        .divergences(&pairs, &requests, STEPS)
        .unwrap();
    assert_eq!(bits(&again), bits(&together));
}

#[test]
fn more_experts_than_the_generic_program_holds_have_one_of_their_own() {
    let large = mixture(GateKind::Softmax, None, 9, GENERIC_EXPERTS + 1, true);
    let small = mixture(GateKind::Softmax, None, 9, 2, true);
    let x = [0.01; 9];
    let comparer = emulated(Order::Forward);
    let found = comparer.divergences(&[(&small, &large)], &[(0, &x)], STEPS);
    let found = found.unwrap()[0].unwrap();
    assert!(found.hellinger_sq > 0.0 && found.hellinger_sq < 1.0);
}

#[test]
fn no_requests_have_no_results() {
    let found = emulated(Order::Forward).divergences(&[], &[], STEPS);
    assert!(found.unwrap().is_empty());
}
