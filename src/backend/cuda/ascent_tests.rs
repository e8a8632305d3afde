//! The device's climbs against the processor's estimators. The sums come from the
//! reference backend, so that nothing but the control is tested.

use super::*;
use crate::backend::cuda::machine::emulated::{Emulated, Order};
use crate::backend::{Backend, Reference};
use crate::fit::{
    Bounds, EmOptions, GainMeasure, GateStep, Method, NewtonOptions, Options, Outcome, Polish,
    Stop, expectation_maximisation, maximise, polish,
};
use crate::model::{
    Data, Expert, ExpertGate, ExpertKind, Gate, InputLaw, Model, Response, Selection, Weights,
    draw_sample,
};
use crate::num::dense;
use crate::rng::{Purpose, Stream};
use ndarray::{Array1, Array2};
use std::cell::RefCell;

const ROWS: usize = 300;

fn device(order: Order) -> Device {
    Device::new(Emulated::with_order(1 << 30, order).unwrap())
}

/// Sums by the reference backend on the host. The Hessian's outputs are its lower
/// triangle, and the log-likelihood is in two halves: to be gathered.
struct OnHost<'a> {
    template: &'a Parameters,
    data: &'a Data,
    layout: Layout,
    expectation: Decoding,
    derivatives: Decoding,
    /// Active fits at each launch.
    seen: RefCell<Vec<Vec<u32>>>,
}

fn decoding(entries: &[Vec<u32>]) -> Decoding {
    let mut starts = vec![0];
    for entry in entries {
        starts.push(starts[starts.len() - 1] + entry.len() as u32);
    }
    let terms = entries.concat();
    Decoding {
        outputs: terms.iter().max().map_or(0, |t| *t as usize + 1),
        starts,
        terms,
    }
}

impl<'a> OnHost<'a> {
    fn new(template: &'a Parameters, data: &'a Data) -> Self {
        let layout = template.layout();
        let size = layout.len() as u32;
        let gates = gate_coordinates(template, &layout) as u32;
        let length = *expert_offsets(template).last().unwrap() as u32 + gates + gates * gates;
        let plain: Vec<Vec<u32>> = (0..length).map(|p| vec![p]).collect();
        let mut halves = vec![vec![0, 1]];
        halves.extend((0..size).map(|j| vec![2 + j]));
        for i in 0..size {
            for j in 0..size {
                let (row, column) = (i.max(j), i.min(j));
                halves.push(vec![2 + size + row * (row + 1) / 2 + column]);
            }
        }
        OnHost {
            template,
            data,
            layout,
            expectation: decoding(&plain),
            derivatives: decoding(&halves),
            seen: RefCell::default(),
        }
    }

    fn launch(
        &self,
        at: &AscentBuffers,
        kind: i32,
        totals: &Buffer<f64>,
        outputs: impl Fn(&Parameters) -> Vec<f64>,
    ) -> Result<()> {
        let active = at.active_fits()?;
        assert!(active.len() <= at.slots);
        let wanted = at.wanted.all()?;
        for &fit in &active {
            let fit = fit as usize;
            if wanted[fit] != kind {
                continue;
            }
            let size = self.layout.len();
            let packed = at.trial.read(fit * size, size)?;
            let parameters = self.layout.unpack(self.template, &packed);
            let expected = table(&parameters);
            let found = at.tables.read(fit * expected.len(), expected.len())?;
            for (found, expected) in found.iter().zip(&expected) {
                let near = (found - expected).abs() <= 1e-14 * (1.0 + expected.abs());
                assert!(near || !expected.is_finite(), "{found} {expected}");
            }
            let sums = outputs(&parameters);
            totals.write(fit * sums.len(), &sums)?;
        }
        self.seen.borrow_mut().push(active);
        Ok(())
    }
}

impl Sums for OnHost<'_> {
    fn expectation(&self) -> &Decoding {
        &self.expectation
    }

    fn derivatives(&self) -> &Decoding {
        &self.derivatives
    }

    fn launch_expectation(&self, at: &AscentBuffers) -> Result<()> {
        self.launch(
            at,
            WANTS_EXPECTATION,
            &at.expectation_totals,
            |parameters| {
                let s = Reference.em_statistics(parameters, self.data);
                let mut sums = vec![s.log_likelihood];
                for expert in &s.experts {
                    sums.extend([expert.responsibility, expert.squares]);
                    sums.extend(&expert.score);
                    sums.extend(&expert.moment);
                    sums.extend(&expert.curvature);
                    sums.extend(&expert.gram);
                }
                sums.extend(&s.gate_score);
                sums.extend(&s.gate_information);
                sums
            },
        )
    }

    fn launch_derivatives(&self, at: &AscentBuffers) -> Result<()> {
        self.launch(at, WANTS_DERIVATIVES, &at.derivative_totals, |parameters| {
            let d = Reference.derivatives(parameters, self.data);
            let mut sums = vec![0.5 * d.log_likelihood; 2];
            sums.extend(&d.gradient);
            for i in 0..d.gradient.len() {
                sums.extend((0..=i).map(|j| d.hessian[[i, j]]));
            }
            sums
        })
    }
}

/// A problem: a sample of `truth`, a box, starts near the truth.
struct Case {
    name: &'static str,
    truth: Parameters,
    data: Data,
    bounds: Bounds,
    starts: Vec<Parameters>,
}

fn competition(response: Response, weights: Weights) -> GateKind {
    let kappa = match weights {
        Weights::Softmax => 0.7,
        Weights::Normalised => 1.0,
    };
    GateKind::Competition {
        response,
        weights,
        kappa,
    }
}

/// Which gate parameters an expert gets, from its intercept `c`.
#[derive(Clone, Copy)]
enum Own {
    Nothing,
    Bias,
    Router,
}

/// Experts with separated means: no two are nearly equal.
fn mixture(kind: GateKind, own: Own, of: ExpertKind, count: usize, d: usize) -> Parameters {
    let expert = |i: usize| {
        let sign = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let spread = 1.0 + 0.7 * i as f64;
        Expert {
            kind: of,
            slope: (0..d).map(|k| sign * (1.2 - 0.5 * k as f64)).collect(),
            intercept: sign * spread,
            scale: (of != ExpertKind::Linear).then_some(2.0 + i as f64),
            variance: 0.2 + 0.1 * i as f64,
            gate: match own {
                Own::Nothing => ExpertGate::None,
                Own::Bias => ExpertGate::Bias(0.3 - 0.3 * i as f64),
                Own::Router => ExpertGate::Router {
                    slope: vec![0.8 * sign; d],
                    intercept: 0.2 * sign,
                },
            },
        }
    };
    Parameters {
        gate: Gate {
            kind,
            top_k: None,
            selection: Selection::Score,
        },
        variance_structure: VarianceStructure::PerExpert,
        experts: (0..count).map(expert).collect(),
    }
}

/// The same under a sigmoid router. Two experts would leave its scores all but
/// undetermined, and where a climb goes then to rounding.
fn sigmoid() -> Parameters {
    let mut truth = mixture(GateKind::Sigmoid, Own::Router, ExpertKind::Linear, 3, 1);
    let scores = [[3.0, -0.5], [-1.0, 1.0], [0.5, 2.0]];
    for (expert, [slope, intercept]) in truth.experts.iter_mut().zip(scores) {
        expert.gate = ExpertGate::Router {
            slope: vec![slope],
            intercept,
        };
    }
    truth
}

fn sample(truth: &Parameters, rows: usize, seed: u64) -> Data {
    let d = truth.dimension();
    let model = Model {
        input: InputLaw::Uniform {
            low: vec![-1.0; d],
            high: vec![1.0; d],
        },
        parameters: truth.clone(),
    };
    draw_sample(
        &model,
        0,
        rows,
        &Stream::named(seed, "ascent", 0, Purpose::Data),
    )
}

/// The truth with every coordinate moved by up to `by`.
fn moved(truth: &Parameters, by: f64, seed: u64) -> Parameters {
    let layout = truth.layout();
    let stream = Stream::named(seed, "ascent", 0, Purpose::Start(0));
    let mut packed = layout.pack(truth);
    for (j, value) in packed.iter_mut().enumerate() {
        *value += by * (2.0 * stream.uniform_pair(j as u64, 0)[0] - 1.0);
    }
    layout.unpack(truth, &packed)
}

fn wide(truth: &Parameters) -> Bounds {
    let size = truth.layout().len();
    Bounds {
        low: vec![-20.0; size],
        high: vec![20.0; size],
    }
}

fn case(name: &'static str, truth: Parameters) -> Case {
    let bounds = wide(&truth);
    Case {
        name,
        data: sample(&truth, ROWS, 7),
        starts: (0..3).map(|k| moved(&truth, 0.35, k)).collect(),
        bounds,
        truth,
    }
}

fn cases() -> Vec<Case> {
    use ExpertKind::{Linear, Tanh};
    use Own::{Bias, Nothing, Router};
    let softplus = |weights| competition(Response::Softplus, weights);
    let square = |weights| competition(Response::Square, weights);
    let (soft, normal) = (Weights::Softmax, Weights::Normalised);
    let mut shared = mixture(GateKind::Softmax, Router, Linear, 3, 2);
    shared.variance_structure = VarianceStructure::Shared;
    shared.experts.iter_mut().for_each(|e| e.variance = 0.25);
    let mut cases = vec![
        case(
            "softmax router",
            mixture(GateKind::Softmax, Router, Linear, 2, 1),
        ),
        case("shared variance", shared),
        case("sigmoid router", sigmoid()),
        case("softplus", mixture(softplus(soft), Bias, Linear, 2, 1)),
        case(
            "softplus, normalised",
            mixture(softplus(normal), Bias, Linear, 2, 2),
        ),
        case("square", mixture(square(soft), Bias, Linear, 2, 1)),
        case(
            "square, normalised",
            mixture(square(normal), Bias, Linear, 2, 1),
        ),
        case(
            "without bias",
            mixture(softplus(soft), Nothing, Linear, 2, 1),
        ),
        case(
            "constant gate",
            mixture(GateKind::Constant, Bias, Linear, 3, 0),
        ),
        case(
            "constant gate, lines",
            mixture(GateKind::Constant, Bias, Linear, 2, 1),
        ),
        case("tanh", mixture(GateKind::Softmax, Router, Tanh, 2, 1)),
        case(
            "one expert",
            mixture(GateKind::Softmax, Router, Linear, 1, 2),
        ),
    ];
    // Bounds that hold at the maximum, and a coordinate without freedom.
    for (name, of) in [
        ("bounds", 0),
        ("bounds of softplus", 3),
        ("bounds of tanh", 10),
    ] {
        let mut bounded = case(name, cases[of].truth.clone());
        let truth = bounded.truth.layout().pack(&bounded.truth);
        let bounds = &mut bounded.bounds;
        (bounds.low[0], bounds.high[0]) = (truth[0] - 1.0, truth[0] - 0.2);
        (bounds.low[2], bounds.high[2]) = (truth[2] + 0.1, truth[2] + 0.1);
        let last = truth.len() - 1;
        (bounds.low[last], bounds.high[last]) = (truth[last] + 0.3, truth[last] + 2.0);
        cases.push(bounded);
    }
    cases
}

fn newton_rule() -> NewtonRule {
    let options = NewtonOptions::default();
    NewtonRule {
        max_iterations: options.max_iterations,
        scaled_score: options.scaled_score,
        gain: options.gain,
        past_jumps: PastJumps::Newton,
    }
}

fn expectation_rule(max_iterations: usize, gain: f64) -> ExpectationRule {
    ExpectationRule {
        max_iterations,
        gain,
        measure: GainUnit::Total,
    }
}

fn em_options(max_iterations: usize, gain: f64) -> EmOptions {
    EmOptions {
        max_iterations,
        gain,
        gain_measure: GainMeasure::Total,
        gate_step: GateStep::OneStep,
    }
}

/// The case's climbs on the device, all at once.
fn climb(
    case: &Case,
    starts: &[Parameters],
    expectation: Option<ExpectationRule>,
    newton: Option<NewtonRule>,
) -> Vec<Ascended> {
    climb_on(&device(Order::Forward), case, starts, expectation, newton)
}

fn climb_on(
    device: &Device,
    case: &Case,
    starts: &[Parameters],
    expectation: Option<ExpectationRule>,
    newton: Option<NewtonRule>,
) -> Vec<Ascended> {
    let layout = case.truth.layout();
    let packed: Vec<Vec<f64>> = starts.iter().map(|s| layout.pack(s)).collect();
    let options = AscentOptions {
        expectation,
        newton,
        sample_size: case.data.sample_size(),
    };
    let sums = OnHost::new(&case.truth, &case.data);
    let (low, high) = (&case.bounds.low, &case.bounds.high);
    let found = ascend(device, &case.truth, low, high, &packed, &options, &sums).unwrap();
    for active in sums.seen.borrow().iter() {
        assert!(active.is_sorted());
    }
    found
}

/// The same end; the size of a fall that ended a climb is little but rounding.
fn assert_halt(found: Halt, expected: &Stop, what: &str) {
    let without_size = |halt: Halt| match halt {
        Halt::Decreased { iteration, .. } => Halt::Decreased {
            iteration,
            size: 0.0,
        },
        other => other,
    };
    assert_eq!(
        without_size(found),
        without_size(halt_of(expected)),
        "{what}"
    );
}

fn halt_of(stop: &Stop) -> Halt {
    match *stop {
        Stop::Converged => Halt::Converged,
        Stop::Saddle => Halt::Saddle,
        Stop::NoAscent => Halt::NoAscent,
        Stop::SmallGain => Halt::SmallGain,
        Stop::MaxIterations => Halt::MaxIterations,
        Stop::Singular { iteration } => Halt::Singular { iteration },
        Stop::NonFinite { iteration } => Halt::NonFinite { iteration },
        Stop::Decreased { iteration, size } => Halt::Decreased { iteration, size },
        ref other => panic!("{other}"),
    }
}

/// sqrt(d' M d) of two points that differ by d, M minus the Hessian there: their
/// distance in standard errors.
fn standard_errors(case: &Case, a: &[f64], b: &[f64]) -> f64 {
    let layout = case.truth.layout();
    let there = Reference.derivatives(&layout.unpack(&case.truth, b), &case.data);
    let apart: Array1<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    apart.dot(&there.hessian.dot(&apart)).abs().sqrt()
}

fn assert_same(case: &Case, what: &str, found: &Ascended, expected: &Outcome) {
    let name = format!("{}, {what}: {found:?} {expected:?}", case.name);
    assert_halt(found.halt, &expected.stop, &name);
    let apart = (found.log_likelihood - expected.log_likelihood).abs();
    assert!(apart <= 1e-10 * expected.log_likelihood.abs(), "{name}");
    assert_eq!(found.em, expected.effort.em, "{name}");
    let iterations = found.newton.abs_diff(expected.effort.newton);
    assert!(iterations <= 1, "{name}");
    let packed = case.truth.layout().pack(&expected.parameters);
    let distance = standard_errors(case, &found.packed, &packed);
    assert!(distance <= 1e-8, "{name}: {distance}");
}

#[test]
fn expectation_maximisation_goes_through_the_same_points() {
    for case in cases() {
        for iterations in [1, 2, 5] {
            let gain = f64::NEG_INFINITY;
            let rule = expectation_rule(iterations, gain);
            let found = climb(&case, &case.starts, Some(rule), None);
            for (start, found) in case.starts.iter().zip(&found) {
                let options = em_options(iterations, gain);
                let expected =
                    expectation_maximisation(&Reference, &case.data, start, &case.bounds, options);
                let name = format!("{} {iterations}: {found:?} {expected:?}", case.name);
                assert_halt(found.halt, &expected.stop, &name);
                let apart = (found.log_likelihood - expected.log_likelihood).abs();
                assert!(apart <= 1e-9, "{name}");
                let packed = case.truth.layout().pack(&expected.parameters);
                for (a, b) in found.packed.iter().zip(&packed) {
                    assert!((a - b).abs() <= 1e-9, "{name}");
                }
                assert_eq!(found.passes * ROWS, expected.effort.rows, "{name}");
                assert!(found.scaled_score.is_nan());
            }
        }
    }
}

#[test]
fn expectation_maximisation_stops_by_the_same_rule() {
    let units = [
        (GainUnit::Total, GainMeasure::Total, 1e-2),
        (GainUnit::Relative, GainMeasure::Relative, 1e-5),
        (GainUnit::Mean, GainMeasure::Mean, 1e-5),
    ];
    for case in cases().iter().take(4) {
        for (unit, gain_measure, gain) in units {
            let rule = ExpectationRule {
                measure: unit,
                ..expectation_rule(500, gain)
            };
            let options = EmOptions {
                gain_measure,
                ..em_options(500, gain)
            };
            let found = climb(case, &case.starts, Some(rule), None);
            for (start, found) in case.starts.iter().zip(&found) {
                let (data, bounds) = (&case.data, &case.bounds);
                let expected = expectation_maximisation(&Reference, data, start, bounds, options);
                assert_halt(found.halt, &expected.stop, case.name);
                assert_eq!(found.em, expected.effort.em, "{}", case.name);
            }
        }
    }
}

#[test]
fn newton_ends_at_the_same_maximum_after_as_many_iterations() {
    for case in cases() {
        let found = climb(&case, &case.starts, None, Some(newton_rule()));
        for (start, found) in case.starts.iter().zip(&found) {
            let options = NewtonOptions::default();
            let expected = polish(&Reference, &case.data, start, &case.bounds, options);
            assert_same(&case, "polish", found, &expected);
            let scores = found.scaled_score - expected.scaled_score;
            assert!(scores.abs() <= 1e-8, "{}", case.name);
            // The derivatives at the last step's end are not computed twice.
            assert!(found.passes * ROWS <= expected.effort.rows);
        }
    }
}

#[test]
fn expectation_maximisation_hands_over_to_newton() {
    for case in cases() {
        let rule = expectation_rule(2, 0.1);
        let found = climb(&case, &case.starts, Some(rule), Some(newton_rule()));
        for (start, found) in case.starts.iter().zip(&found) {
            let options = Options {
                method: Method::Em,
                max_iterations: 2,
                gain: 0.1,
                pilot_rows: None,
                polish: Polish::Newton(NewtonOptions::default()),
                ..Options::default()
            };
            let expected = maximise(&Reference, &case.data, start, &case.bounds, &options);
            assert_same(&case, "both", found, &expected);
        }
    }
}

/// Far from the maximum the likelihood is not concave: balls, eigenvalues, rejected
/// steps. No two experts under these gates are ever moved along a curve.
#[test]
fn far_starts_take_the_same_way_through_regions_that_are_not_concave() {
    let mut indefinite = 0;
    for case in cases() {
        if !["sigmoid router", "without bias"].contains(&case.name) {
            continue;
        }
        let starts: Vec<Parameters> = (0..12).map(|k| moved(&case.truth, 1.5, 100 + k)).collect();
        for iterations in [1, 2, 4] {
            let rule = NewtonRule {
                max_iterations: iterations,
                ..newton_rule()
            };
            let found = climb(&case, &starts, None, Some(rule));
            for (start, found) in starts.iter().zip(&found) {
                let options = NewtonOptions {
                    max_iterations: iterations,
                    ..NewtonOptions::default()
                };
                let expected = polish(&Reference, &case.data, start, &case.bounds, options);
                let name = format!("{} {iterations}: {found:?} {expected:?}", case.name);
                assert_halt(found.halt, &expected.stop, &name);
                let packed = case.truth.layout().pack(&expected.parameters);
                for (a, b) in found.packed.iter().zip(&packed) {
                    assert!((a - b).abs() <= 1e-7 * (1.0 + b.abs()), "{name}");
                }
                let hessian = Reference.derivatives(start, &case.data).hessian;
                indefinite += usize::from(dense::Factor::new(&-hessian).is_none());
            }
        }
        let found = climb(&case, &starts, None, Some(newton_rule()));
        for (start, found) in starts.iter().zip(&found) {
            let options = NewtonOptions::default();
            let expected = polish(&Reference, &case.data, start, &case.bounds, options);
            assert_halt(found.halt, &expected.stop, case.name);
            let apart = (found.log_likelihood - expected.log_likelihood).abs();
            assert!(
                apart <= 1e-8 * expected.log_likelihood.abs(),
                "{}: {found:?} {expected:?}",
                case.name
            );
        }
    }
    assert!(indefinite > 10, "{indefinite}");
}

/// A jump lies in every way: with one input the search along boundaries comes next.
#[test]
fn a_sparse_mixture_stops_before_the_same_jumps() {
    let softplus = competition(Response::Softplus, Weights::Softmax);
    let mut truths = [
        mixture(GateKind::Softmax, Own::Router, ExpertKind::Linear, 3, 1),
        mixture(softplus, Own::Bias, ExpertKind::Linear, 3, 1),
        mixture(GateKind::Softmax, Own::Router, ExpertKind::Linear, 3, 2),
    ];
    // Each is kept somewhere: of one that is not, nothing is known.
    let lines = [[2.0, 1.0], [-2.0, 1.0], [0.3, 1.5]];
    for (expert, [slope, intercept]) in truths[1].experts.iter_mut().zip(lines) {
        expert.slope = vec![slope];
        expert.intercept = intercept;
    }
    let mut ended = 0;
    for (truth, top_k) in truths.iter_mut().zip([1, 2, 2]) {
        truth.gate.top_k = Some(top_k);
        let case = case("sparse", truth.clone());
        let rule = NewtonRule {
            past_jumps: match truth.dimension() {
                1 => PastJumps::BoundarySearch,
                _ => PastJumps::Newton,
            },
            ..newton_rule()
        };
        let starts: Vec<Parameters> = (0..6).map(|k| moved(truth, 0.2, 30 + k)).collect();
        let found = climb(&case, &starts, None, Some(rule));
        for (start, found) in starts.iter().zip(&found) {
            let options = NewtonOptions::default();
            let expected = polish(&Reference, &case.data, start, &case.bounds, options);
            let name = format!("{found:?} {expected:?}");
            assert_halt(found.halt, &expected.stop, &name);
            // Ever shorter steps towards a jump end by rounding.
            if truth.dimension() == 1 {
                assert_eq!(found.newton, expected.effort.newton, "{name}");
            }
            let apart = (found.log_likelihood - expected.log_likelihood).abs();
            assert!(apart <= 1e-9 * expected.log_likelihood.abs(), "{name}");
            ended += usize::from(found.halt == Halt::NoAscent);
        }
    }
    assert!(ended > 0);
}

/// The processor goes on from there.
#[test]
fn a_climb_among_kinks_ends_at_a_point_that_is_no_worse_than_its_start() {
    let absolute = competition(Response::Absolute, Weights::Softmax);
    let case = case(
        "absolute",
        mixture(absolute, Own::Bias, ExpertKind::Linear, 2, 1),
    );
    let found = climb(&case, &case.starts, None, Some(newton_rule()));
    for (start, found) in case.starts.iter().zip(&found) {
        let ends = [
            Halt::Converged,
            Halt::NoAscent,
            Halt::Saddle,
            Halt::MaxIterations,
        ];
        assert!(ends.contains(&found.halt), "{found:?}");
        let before = Reference.log_likelihood(start, &case.data);
        let layout = case.truth.layout();
        let end = layout.unpack(&case.truth, &found.packed);
        let value = Reference.log_likelihood(&end, &case.data);
        assert!((value - found.log_likelihood).abs() <= 1e-10 * value.abs());
        assert!(value >= before);
    }
}

#[test]
fn a_saddle_is_left_along_its_negative_curvature() {
    let case = cases()
        .into_iter()
        .find(|c| c.name == "without bias")
        .unwrap();
    let mut equal = case.truth.clone();
    equal.experts[1] = equal.experts[0].clone();
    equal.experts[0].slope[0] = 0.1;
    equal.experts[1].slope[0] = 0.1;
    let found = climb(
        &case,
        std::slice::from_ref(&equal),
        None,
        Some(newton_rule()),
    );
    let options = NewtonOptions::default();
    let expected = polish(&Reference, &case.data, &equal, &case.bounds, options);
    // Which of the two experts goes where is not determined.
    assert_halt(found[0].halt, &expected.stop, case.name);
    assert_eq!(found[0].halt, Halt::Converged);
    let apart = (found[0].log_likelihood - expected.log_likelihood).abs();
    assert!(apart <= 1e-9 * expected.log_likelihood.abs());
    let start = Reference.log_likelihood(&equal, &case.data);
    assert!(found[0].log_likelihood > start + 10.0);
}

#[test]
fn a_start_without_a_finite_likelihood_ends_there_and_disturbs_no_other() {
    let mut case = cases().swap_remove(0);
    case.bounds.high[1] = 1e300;
    let mut wild = case.truth.clone();
    wild.experts
        .iter_mut()
        .for_each(|e| e.variance = (-15.0f64).exp());
    wild.experts[0].intercept = 1e200;
    wild.experts[1].intercept = 1e200;
    case.bounds.high[3] = 1e300;
    let starts = [case.starts[0].clone(), wild, case.starts[1].clone()];
    for expectation in [None, Some(expectation_rule(2, 0.1))] {
        let found = climb(&case, &starts, expectation, Some(newton_rule()));
        assert_eq!(found[1].halt, Halt::NonFinite { iteration: 0 });
        assert_eq!(found[0].halt, Halt::Converged);
        assert_eq!(found[2].halt, Halt::Converged);
    }
}

#[test]
fn limits_end_a_climb_where_it_is() {
    let case = cases().swap_remove(0);
    let none = NewtonRule {
        max_iterations: 0,
        ..newton_rule()
    };
    let found = climb(
        &case,
        &case.starts,
        Some(expectation_rule(0, 0.1)),
        Some(none),
    );
    let layout = case.truth.layout();
    for (start, found) in case.starts.iter().zip(&found) {
        assert_eq!(found.halt, Halt::MaxIterations);
        assert_eq!(found.packed, layout.pack(start));
        let here = Reference.log_likelihood(start, &case.data);
        assert!((found.log_likelihood - here).abs() <= 1e-10 * here.abs());
        assert_eq!((found.em, found.newton, found.passes), (0, 0, 2));
    }
}

fn bits(found: &[Ascended]) -> Vec<(Vec<u64>, u64, Halt, usize)> {
    let of = |a: &Ascended| {
        let packed = a.packed.iter().map(|v| v.to_bits()).collect();
        (packed, a.log_likelihood.to_bits(), a.halt, a.passes)
    };
    found.iter().map(of).collect()
}

#[test]
fn a_fit_does_not_depend_on_its_batch_nor_on_the_order_of_threads() {
    let case = cases().swap_remove(1);
    let starts: Vec<Parameters> = (0..20).map(|k| moved(&case.truth, 0.8, 50 + k)).collect();
    let rules = (Some(expectation_rule(3, 0.1)), Some(newton_rule()));
    let together = bits(&climb(&case, &starts, rules.0, rules.1));
    for (start, expected) in starts.iter().zip(&together) {
        let alone = climb(&case, std::slice::from_ref(start), rules.0, rules.1);
        assert_eq!(&bits(&alone)[0], expected);
    }
    let backwards: Vec<Parameters> = starts.iter().rev().cloned().collect();
    let reversed = device(Order::Reversed);
    let mut found = bits(&climb_on(&reversed, &case, &backwards, rules.0, rules.1));
    found.reverse();
    assert_eq!(found, together);
}

#[test]
fn matrices_too_large_for_shared_memory_give_the_same_climb() {
    let truth = mixture(GateKind::Softmax, Own::Router, ExpertKind::Linear, 4, 7);
    assert!(!scratch_is_shared(
        &device(Order::Forward),
        truth.layout().len()
    ));
    let case = Case {
        name: "large",
        data: sample(&truth, 600, 3),
        bounds: wide(&truth),
        starts: vec![moved(&truth, 0.2, 1), moved(&truth, 0.2, 2)],
        truth,
    };
    let rule = NewtonRule {
        max_iterations: 3,
        ..newton_rule()
    };
    let found = climb(
        &case,
        &case.starts,
        Some(expectation_rule(1, 0.1)),
        Some(rule),
    );
    for (start, found) in case.starts.iter().zip(&found) {
        let options = Options {
            max_iterations: 1,
            gain: 0.1,
            pilot_rows: None,
            polish: Polish::Newton(NewtonOptions {
                max_iterations: 3,
                ..NewtonOptions::default()
            }),
            ..Options::default()
        };
        let expected = maximise(&Reference, &case.data, start, &case.bounds, &options);
        assert_same(&case, "both", found, &expected);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_in_one_line() {
    let case = cases().swap_remove(0);
    let sums = OnHost::new(&case.truth, &case.data);
    let device = device(Order::Forward);
    let size = case.truth.layout().len();
    let mut options = AscentOptions {
        expectation: None,
        newton: Some(newton_rule()),
        sample_size: 300.0,
    };
    let start = [vec![0.0; size]];
    let refused = |low: &[f64], start: &[Vec<f64>], options: &AscentOptions| {
        let high = vec![1.0; size];
        let found = ascend(&device, &case.truth, low, &high, start, options, &sums);
        found.unwrap_err().to_string()
    };
    let low = vec![-1.0; size];
    let short = refused(&low, &[vec![0.0]], &options);
    assert!(short.starts_with("a start: expected dimension"), "{short}");
    let unbounded = refused(&vec![f64::NEG_INFINITY; size], &start, &options);
    assert_eq!(unbounded, "bounds: must be finite, low <= high");
    let crossed = refused(&vec![2.0; size], &start, &options);
    assert_eq!(crossed, unbounded);
    options.newton = None;
    let nothing = refused(&low, &start, &options);
    assert_eq!(nothing, "options: ask for no climb at all");
}

#[test]
fn active_fits_keep_their_order() {
    let device = device(Order::Forward);
    for count in [1usize, 255, 256, 1000] {
        let fits: Vec<u32> = (0..count as u32).map(|k| 2 * k + 1).collect();
        let wanted: Vec<i32> = (0..2 * count as i32 + 1).map(|k| (k * k / 3) % 3).collect();
        let active = device.upload(&fits).unwrap();
        let active_count = device.upload(&[count as u32]).unwrap();
        let wants = device.upload(&wanted).unwrap();
        let next = device.zeros::<u32>(count).unwrap();
        let counts = device.zeros::<u32>(3).unwrap();
        let arguments = CompactionArguments {
            active: active.address(),
            active_count: active_count.address(),
            wanted: wants.address(),
            next_active: next.address(),
            next_counts: counts.address(),
        };
        let shape = Shape {
            blocks: 1,
            threads: COMPACTING,
            shared: 2 * COMPACTING * 8,
        };
        let program = Program::new(&SOURCE, &[]);
        device
            .launch(&program, "compact", shape, &arguments)
            .unwrap();
        let goes_on = |fit: &&u32| wanted[**fit as usize] != 0;
        let expected: Vec<u32> = fits.iter().filter(goes_on).copied().collect();
        let of = |kind| {
            let wants = |fit: &&u32| wanted[**fit as usize] == kind;
            fits.iter().filter(wants).count() as u32
        };
        let counts = counts.all().unwrap();
        assert_eq!(counts, [expected.len() as u32, of(1), of(2)]);
        assert_eq!(next.read(0, expected.len()).unwrap(), expected);
    }
}

/// A kernel for the algebra alone: task 0 solves, 1 finds eigenvalues.
const ALGEBRA: &str = r"
struct Task { double* matrix; double* work; double* vector; double* solved; int size; int task; };
KERNEL(algebra, Task) {
  SHARED(shares);
  const Task& a = arguments;
  if (a.task == 1) {
    eigen(a.matrix, a.work, a.vector, a.size, shares);
  } else {
    const bool helped = solve_ridged(a.matrix, a.work, a.vector, a.size);
    if (threadIdx.x == 0) *a.solved = helped ? 1 : 0;
  }
}
";

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Task {
    matrix: Address,
    work: Address,
    vector: Address,
    solved: Address,
    size: i32,
    task: i32,
}

/// The matrix, the work matrix, the vector and the flag after a task.
fn algebra(task: i32, matrix: &Array2<f64>, vector: &[f64]) -> [Vec<f64>; 4] {
    let size = matrix.nrows();
    let device = device(Order::Forward);
    let source = Source {
        name: "algebra",
        parts: &[
            ("prelude.cuh", include_str!("prelude.cuh")),
            ("linear_algebra.cuh", include_str!("linear_algebra.cuh")),
            ("algebra.cu", ALGEBRA),
        ],
        kernels: &["algebra"],
    };
    let values: Vec<f64> = matrix.iter().copied().collect();
    let given = device.upload(&values).unwrap();
    let work = device.zeros::<f64>(size * size).unwrap();
    let mut vector = vector.to_vec();
    vector.resize(size + 2, 0.0);
    let vector = device.upload(&vector).unwrap();
    let solved = device.zeros::<f64>(1).unwrap();
    let arguments = Task {
        matrix: given.address(),
        work: work.address(),
        vector: vector.address(),
        solved: solved.address(),
        size: size as i32,
        task,
    };
    let shape = Shape {
        blocks: 1,
        threads: THREADS,
        shared: THREADS * 8,
    };
    let program = Program::new(&source, &[]);
    device
        .launch(&program, "algebra", shape, &arguments)
        .unwrap();
    [given, work, vector, solved].map(|buffer| buffer.all().unwrap())
}

fn noise(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let stream = Stream::named(seed, "algebra", 0, Purpose::Data);
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        stream.standard_normal(i as u64, j as u64)
    })
}

#[test]
fn eigenvalues_and_vectors_are_those_of_lapack() {
    for size in [1, 2, 3, 4, 7, 20, 33, 40] {
        for seed in 0..3 {
            let half = noise(size, size, seed);
            // Indefinite; of low rank; and with multiple eigenvalues.
            let matrix = match seed {
                0 => &half + &half.t(),
                1 => {
                    let thin = noise(size, size.div_ceil(3), 9);
                    thin.dot(&thin.t())
                }
                _ => Array2::eye(size) * -2.0,
            };
            let [left, vectors, ..] = algebra(1, &matrix, &[]);
            let vectors = Array2::from_shape_vec((size, size), vectors).unwrap();
            let values: Array1<f64> = (0..size).map(|k| left[k * (size + 1)]).collect();
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let expected = dense::SymmetricEigen::new(&matrix).unwrap().values;
            let scale = 1.0 + expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (found, expected) in sorted.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-13 * scale, "{size} {seed}");
            }
            let weighted = &vectors.t() * &values;
            let rest = weighted.dot(&vectors) - &matrix;
            assert!(
                rest.iter().all(|v| v.abs() <= 1e-13 * scale),
                "{size} {seed}"
            );
            let gram = vectors.dot(&vectors.t()) - Array2::<f64>::eye(size);
            assert!(gram.iter().all(|v| v.abs() <= 1e-13), "{size} {seed}");
        }
    }
}

#[test]
fn systems_are_solved_with_the_least_ridge_that_helps() {
    for size in [1, 2, 5, 20, 40] {
        let half = noise(size, size, 4);
        let rank = noise(size, size.div_ceil(2), 5);
        let zero = Array2::zeros((size, size));
        let wild = Array2::from_elem((size, size), f64::INFINITY);
        let matrices = [
            half.dot(&half.t()) + Array2::<f64>::eye(size),
            rank.dot(&rank.t()),
            zero,
            Array2::<f64>::eye(size) * -1.0,
            Array2::from_elem((size, size), f64::NAN),
        ];
        for (k, matrix) in matrices.iter().enumerate() {
            let mut right = noise(size, 1, 6).column(0).to_owned();
            if k == 1 {
                right = matrix.dot(&right);
            }
            let [_, _, found, flag] = algebra(0, matrix, &right.to_vec());
            let found: Array1<f64> = found[..size].iter().copied().collect();
            let expected = dense::solve_ridged(matrix, &right);
            assert_eq!(flag[0] == 1.0, expected.is_some(), "{size} {k}");
            if expected.is_some() {
                let rest = matrix.dot(&found) - &right;
                assert!(rest.iter().all(|v| v.abs() <= 1e-8), "{size} {k}: {rest}");
            }
        }
        assert_eq!(algebra(0, &wild, &vec![1.0; size])[3], [0.0]);
    }
}
