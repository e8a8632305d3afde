use super::profile::{End, profile_interval};
use super::tests::{
    QUANTILE, box_of, close, crossing, least_squares, line, maximum, sample, unit, value,
};
use crate::backend::{Backend, Cpu};
use crate::fit::{Bounds, NewtonOptions, polish};
use crate::model::{Data, ExpertGate, Parameters};

#[test]
fn the_profile_intervals_of_one_expert_have_their_closed_form() {
    let data = sample(&line(), 50, 0.4, 2);
    let bounds = box_of(3, 30.0);
    let fitted = maximum(&data, &line(), &bounds);
    let (_, sxx, residuals) = least_squares(&data);
    let n = residuals.len() as f64;
    let squares: f64 = residuals.iter().map(|e| e * e).sum();
    let of = |j: usize| {
        profile_interval(&Cpu::new(), &data, &fitted, &bounds, &unit(3, j), 0.95).unwrap()
    };
    // n log(1 + (b - b')^2 Sxx / RSS) = quantile
    let half = (squares / sxx * ((QUANTILE / n).exp() - 1.0)).sqrt();
    let slope = of(0);
    let centre = fitted.experts[0].slope[0];
    close(centre - value(&slope.low), half, 1e-6);
    close(value(&slope.high) - centre, half, 1e-6);
    assert!(slope.passes <= 40, "{} passes", slope.passes);
    // n (u + e^-u - 1) = quantile, u the log of the ratio of variances.
    let spread = of(2);
    for end in [&spread.low, &spread.high] {
        let u = value(end) - (squares / n).ln();
        close(n * (u + (-u).exp() - 1.0), QUANTILE, 1e-6);
    }
    assert!(value(&spread.low) < value(&spread.high));
}

#[test]
fn the_profile_of_a_linear_form_is_that_of_a_coordinate_after_a_change_of_origin() {
    let shift = 2.5;
    let at = |shift: f64| {
        let data = sample(&crossing(), 300, shift, 1);
        let mut start = crossing();
        for expert in &mut start.experts {
            expert.intercept -= expert.slope[0] * shift;
            if let ExpertGate::Router { slope, intercept } = &mut expert.gate {
                *intercept -= slope[0] * shift;
            }
        }
        let bounds = box_of(8, 60.0);
        let fitted = maximum(&data, &start, &bounds);
        (data, fitted, bounds)
    };
    let (plain, shifted) = (at(0.0), at(shift));
    // Slope and intercept of both experts, then of the gate.
    for [slope, intercept] in [[0, 1], [2, 3], [6, 7]] {
        let mut form = unit(8, intercept);
        form[slope] = shift;
        let interval = |(data, fitted, bounds): &(Data, Parameters, Bounds), w: &[f64]| {
            profile_interval(&Cpu::new(), data, fitted, bounds, w, 0.95).unwrap()
        };
        let coordinate = interval(&plain, &unit(8, intercept));
        let form = interval(&shifted, &form);
        let width = value(&coordinate.high) - value(&coordinate.low);
        for (a, b) in [(&coordinate.low, &form.low), (&coordinate.high, &form.high)] {
            assert!((value(a) - value(b)).abs() <= 1e-6 * width, "{a:?} {b:?}");
        }
    }
}

#[test]
fn at_the_ends_of_a_profile_the_deviance_is_the_quantile_and_no_neighbour_is_better() {
    let data = sample(&crossing(), 272, 0.0, 4);
    let bounds = box_of(8, 60.0);
    let fitted = maximum(&data, &crossing(), &bounds);
    let best = Cpu::new().log_likelihood(&fitted, &data);
    let layout = fitted.layout();
    for j in 0..8 {
        let interval =
            profile_interval(&Cpu::new(), &data, &fitted, &bounds, &unit(8, j), 0.95).unwrap();
        assert!(interval.passes <= 60, "{} passes", interval.passes);
        for end in [&interval.low, &interval.high] {
            let End::Quantile(at) = end else {
                panic!("{end:?}")
            };
            let parameters = layout.unpack(&fitted, &at.packed);
            assert_eq!(at.packed[j], at.value);
            // By another way: the coordinate pinned, the others polished.
            let mut pinned = bounds.clone();
            pinned.low[j] = at.value;
            pinned.high[j] = at.value;
            let outcome = polish(
                &Cpu::new(),
                &data,
                &parameters,
                &pinned,
                NewtonOptions::default(),
            );
            for log_likelihood in [at.log_likelihood, outcome.log_likelihood] {
                assert!((best - log_likelihood - 0.5 * QUANTILE).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn a_bound_before_the_quantile_is_the_end_and_says_so() {
    let data = sample(&crossing(), 272, 0.0, 4);
    let mut bounds = box_of(8, 60.0);
    let fitted = maximum(&data, &crossing(), &bounds);
    let packed = fitted.layout().pack(&fitted);
    // A slope, and the log-variance on a bound from the start.
    bounds.high[0] = packed[0] + 0.01;
    let of = |bounds: &Bounds, fitted: &Parameters, weights: &[f64]| {
        profile_interval(&Cpu::new(), &data, fitted, bounds, weights, 0.95).unwrap()
    };
    let interval = of(&bounds, &fitted, &unit(8, 0));
    assert!(matches!(&interval.high, End::Bound(at) if at.value == bounds.high[0]));
    assert!(matches!(interval.low, End::Quantile(_)));
    bounds.low[4] = packed[4] + 0.1;
    let held = maximum(&data, &fitted, &bounds);
    let interval = of(&bounds, &held, &unit(8, 4));
    assert!(matches!(&interval.low, End::Bound(at) if at.value == bounds.low[4]));
    assert!(matches!(&interval.high, End::Quantile(at) if at.value > packed[4]));
    // A form whose coordinates meet their bounds one after the other.
    for j in [0, 1] {
        bounds.low[j] = packed[j] - 0.01;
        bounds.high[j] = packed[j] + 0.02;
    }
    let held = maximum(&data, &fitted, &bounds);
    let mut form = unit(8, 0);
    form[1] = -2.0;
    let interval = of(&bounds, &held, &form);
    let ends = [
        bounds.low[0] - 2.0 * bounds.high[1],
        bounds.high[0] - 2.0 * bounds.low[1],
    ];
    for (end, expected) in [&interval.low, &interval.high].into_iter().zip(ends) {
        let End::Bound(at) = end else {
            panic!("{end:?}")
        };
        assert!(
            (at.value - expected).abs() < 1e-12,
            "{} {expected}",
            at.value
        );
    }
}

/// Few rows with overlapping experts cannot exclude a step.
#[test]
fn a_gate_that_may_be_a_step_has_an_unbounded_slope() {
    let mut truth = crossing();
    for (expert, intercept) in truth.experts.iter_mut().zip([0.6, -0.6]) {
        expert.slope = vec![0.0];
        expert.intercept = intercept;
        expert.variance = 0.25;
    }
    truth.experts[0].gate = ExpertGate::Router {
        slope: vec![10.0],
        intercept: 0.0,
    };
    let data = sample(&truth, 60, 0.0, 7);
    let mut bounds = box_of(8, 50.0);
    let fitted = maximum(&data, &truth, &bounds);
    for j in [6, 7] {
        bounds.low[j] = f64::NEG_INFINITY;
        bounds.high[j] = f64::INFINITY;
    }
    let interval =
        profile_interval(&Cpu::new(), &data, &fitted, &bounds, &unit(8, 6), 0.95).unwrap();
    assert_eq!(interval.high, End::Unbounded);
    assert!(value(&interval.low) < fitted.layout().pack(&fitted)[6]);
    assert!(interval.passes < 150, "{} passes", interval.passes);
}
