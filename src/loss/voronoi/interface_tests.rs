use super::tests::{ABSOLUTE, biased, parameters, quarter_and_rest, truth_of};
use super::*;
use crate::model::InputLaw;

#[test]
fn applicable_losses_follow_the_gate_and_the_signs_on_the_support() {
    use VoronoiLoss::*;
    let signs = |intercept: f64, input: InputLaw| {
        let experts = vec![biased(1.0, intercept, 1.0, 0.0)];
        let parameters = parameters(ABSOLUTE, None, experts);
        applicable(&Model { input, parameters })
    };
    let uniform = || InputLaw::Uniform {
        low: vec![-3.0],
        high: vec![1.0],
    };
    let normal = || InputLaw::Normal {
        mean: vec![0.5],
        sd: vec![0.5],
        truncation: 2.0,
    };
    let grid = || InputLaw::Grid {
        points: vec![vec![-1.0], vec![2.0]],
        lattice: None,
    };
    assert_eq!(signs(3.1, uniform()), [Competition, Tilted]);
    assert_eq!(signs(3.0, uniform()), [Competition]);
    assert_eq!(signs(-1.1, uniform()), [Competition, Tilted]);
    assert_eq!(signs(0.6, normal()), [Competition, Tilted]);
    assert_eq!(signs(0.4, normal()), [Competition]);
    assert_eq!(signs(-2.1, grid()), [Competition, Tilted]);
    assert_eq!(signs(0.0, grid()), [Competition]);

    let constant = vec![biased(1.0, 0.0, 1.0, 0.0)];
    let constant = truth_of(&parameters(GateKind::Constant, None, constant));
    assert_eq!(applicable(&constant), [Competition]);
}

#[test]
fn misuse_is_an_error_that_names_the_argument() {
    let truth = truth_of(&quarter_and_rest());
    let fitted = quarter_and_rest();
    let message = |loss, fitted: &Parameters| {
        let error = voronoi_loss(loss, fitted, &truth).unwrap_err();
        error.to_string()
    };
    assert!(message(VoronoiLoss::Tilted, &fitted).contains("`tilted` is not defined"));
    let mut other = fitted.clone();
    other.experts.iter_mut().for_each(|e| e.slope.push(0.0));
    assert!(message(VoronoiLoss::Competition, &other).contains("expected dimension 1, got 2"));
    let mut other = fitted.clone();
    other.gate.kind = GateKind::Constant;
    assert!(message(VoronoiLoss::Competition, &other).starts_with("gate.kind"));
    let mut other = fitted.clone();
    other.experts[1].kind = ExpertKind::Tanh;
    assert!(message(VoronoiLoss::Competition, &other).starts_with("expert[1].kind"));
}

#[test]
fn names_parse_back_and_agree_with_serde() {
    for loss in VoronoiLoss::ALL {
        assert_eq!(loss.name().parse::<VoronoiLoss>().unwrap(), loss);
        let quoted = format!("\"{}\"", loss.name());
        assert_eq!(serde_json::to_string(&loss).unwrap(), quoted);
    }
    assert!("softmax".parse::<VoronoiLoss>().is_err());
}
