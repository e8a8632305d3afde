//! Tests of the dendrogram of a mixing measure.

use super::dendrogram::{Dendrogram, Undefined, dendrogram};
use super::example::{constant, design, line, softmax};
use super::{Design, Specification};
use crate::backend::{Backend, Cpu};
use crate::fit::{Options, Start, StartContext, fit};
use crate::model::{GateKind, InputLaw, Model, Parameters, Response, Weights, draw_sample};
use crate::rng::{Purpose, Stream};
use ndarray::{Array1, Array2};

fn some_design() -> Design {
    let inputs = Array2::from_shape_fn((30, 1), |(i, _)| (i as f64 - 14.5) / 8.7);
    let responses = Array1::from_shape_fn(30, |i| ((i * 7) % 11) as f64 / 5.0 - 1.0);
    design(inputs, responses, 3.0, 2.0)
}

fn tree(parameters: &Parameters) -> Dendrogram {
    dendrogram(&Cpu::new(), &some_design(), parameters).unwrap()
}

#[test]
fn near_experts_merge_first_and_heights_are_the_dissimilarity() {
    // Two pairs: intercepts 0.1 apart, and variances 0.05 apart; equal masses 1/4.
    let four = softmax(vec![
        line(1.0, 0.0, 0.5, [0.0, 0.0]),
        line(-1.0, 2.0, 0.2, [0.0, 0.0]),
        line(1.0, 0.1, 0.5, [0.0, 0.0]),
        line(-1.0, 2.0, 0.25, [0.0, 0.0]),
    ]);
    let tree = tree(&four);
    assert_eq!(tree.merges[0].nodes, [0, 2]);
    assert!((tree.merges[0].height - 0.125 * 0.01).abs() < 1e-15);
    assert_eq!(tree.merges[1].nodes, [1, 3]);
    assert!((tree.merges[1].height - 0.125 * 0.05).abs() < 1e-15);
    assert_eq!(tree.merges[2].nodes, [4, 5]);
    // (b: 0.05, a: 1, v: 0.5025), (2, -1, 0.225); masses 1/2.
    let last = 0.25 * (1.95f64.powi(2) + (4.0 + 0.2775f64.powi(2)).sqrt());
    assert!((tree.merges[2].height - last).abs() < 1e-14);
    assert_eq!(tree.levels.len(), 4);
    assert_eq!(tree.levels[2].nodes, [4, 5]);
}

#[test]
fn a_gate_slope_separates_experts_and_a_small_mass_brings_them_together() {
    let experts = |mass: f64| {
        softmax(vec![
            line(0.0, 0.0, 0.5, [0.0, 0.0]),
            line(0.0, 0.0, 0.5, [1.0, mass]),
            line(0.0, 0.9, 0.5, [0.0, 0.0]),
        ])
    };
    // d: 1 between the first two, 0.81 between first and last, but mass decides.
    assert_eq!(tree(&experts(0.0)).merges[0].nodes, [0, 2]);
    assert_eq!(tree(&experts(-2.0)).merges[0].nodes, [0, 1]);
}

#[test]
fn the_tree_does_not_depend_on_the_reference_expert_or_the_order() {
    let experts = vec![
        line(1.0, 0.0, 0.5, [0.4, -0.3]),
        line(-1.0, 2.0, 0.2, [-0.8, 0.2]),
        line(1.2, 0.3, 0.4, [0.1, 0.5]),
        line(0.0, 0.7, 0.3, [0.0, 0.0]),
    ];
    let mut shifted = experts.clone();
    for expert in &mut shifted {
        if let crate::model::ExpertGate::Router { slope, intercept } = &mut expert.gate {
            slope[0] += 3.0;
            *intercept -= 5.0;
        }
    }
    let first = tree(&softmax(experts.clone()));
    let second = tree(&softmax(shifted));
    let turned = tree(&softmax(experts).permuted(&[2, 0, 3, 1]));
    for other in [second, turned] {
        assert_eq!(first.selected, other.selected);
        for k in 0..3 {
            assert!((first.merges[k].height - other.merges[k].height).abs() < 1e-12);
            let [a, b] = [&first, &other].map(|t| t.levels[k].log_likelihood);
            assert!((a - b).abs() < 1e-9, "level {k}: {a} {b}");
        }
    }
}

/// A pair spread by delta along (gate slope, intercept) has the law of its merged atom
/// up to third order: the log-likelihood differs by delta^3, not delta^2.
#[test]
fn the_merged_atom_keeps_the_law_to_third_order() {
    let design = some_design();
    let loss = |delta: f64| {
        let pair = softmax(vec![
            line(0.5, 0.2 + delta, 0.4, [0.3 + delta, 0.1]),
            line(0.5, 0.2 - delta, 0.4, [0.3 - delta, -0.2]),
            line(-1.0, 1.0, 0.6, [0.0, 0.0]),
        ]);
        let tree = dendrogram(&Cpu::new(), &design, &pair).unwrap();
        assert_eq!(tree.merges[0].nodes, [0, 1]);
        let l = |k: usize| tree.levels[k].log_likelihood;
        // The gate's own second order in its slope remains: |u|^2 is not matched.
        (l(0) - l(1)).abs()
    };
    let only_intercepts = |delta: f64| {
        let pair = constant(vec![
            line(0.5, 0.2 + delta, 0.4, [0.0, 0.1]),
            line(0.5, 0.2 - delta, 0.4, [0.0, -0.2]),
            line(-1.0, 1.0, 0.6, [0.0, 0.0]),
        ]);
        let tree = dendrogram(&Cpu::new(), &design, &pair).unwrap();
        let l = |k: usize| tree.levels[k].log_likelihood;
        (l(0) - l(1)).abs()
    };
    assert!(only_intercepts(0.02) / only_intercepts(0.01) > 7.0);
    assert!(loss(0.01) < 30.0 * 0.01f64.powi(2));
}

#[test]
fn other_gates_have_no_dendrogram_and_say_why() {
    let reason = |p: &Parameters| dendrogram(&Cpu::new(), &some_design(), p).unwrap_err();
    let two = || {
        vec![
            line(1.0, 0.0, 0.5, [0.0, 0.0]),
            line(-1.0, 0.0, 0.5, [0.0, 0.0]),
        ]
    };
    let mut sigmoid = softmax(two());
    sigmoid.gate.kind = GateKind::Sigmoid;
    assert_eq!(reason(&sigmoid), Undefined::Gate);
    let mut competition = constant(two());
    competition.gate.kind = GateKind::Competition {
        response: Response::Softplus,
        weights: Weights::Softmax,
        kappa: 1.0,
    };
    assert_eq!(reason(&competition), Undefined::Gate);
    assert!(
        reason(&competition)
            .to_string()
            .contains("softmax and constant")
    );
    let mut sparse = softmax(two());
    sparse.gate.top_k = Some(1);
    assert_eq!(reason(&sparse), Undefined::TopK);
    assert_eq!(reason(&softmax(two()[..1].to_vec())), Undefined::OneExpert);
}
