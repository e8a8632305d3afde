use super::bootstrap::{Bootstrap, Ending, parametric_bootstrap};
use super::information::Information;
use super::label::keeps_labels;
use super::missing::Missing;
use super::profile::{End, profile_interval};
use crate::backend::{Backend, Cpu};
use crate::fit::{Bounds, NewtonOptions, polish};
use crate::model::{
    Coordinate, Data, Expert, ExpertGate, ExpertKind, Gate, GateKind, Parameters, Selection,
    VarianceStructure, draw_responses,
};
use crate::num::dense::Factor;
use crate::rng::{Purpose, Stream};
use ndarray::{Array1, Array2};

/// The 0.95 quantile of chi2_1 and its root.
pub(super) const QUANTILE: f64 = 3.841458820694124;
pub(super) const ROOT: f64 = 1.959963984540054;

pub(super) fn linear(slope: &[f64], intercept: f64, variance: f64, gate: ExpertGate) -> Expert {
    Expert {
        kind: ExpertKind::Linear,
        slope: slope.to_vec(),
        intercept,
        scale: None,
        variance,
        gate,
    }
}

pub(super) fn mixture(kind: GateKind, experts: Vec<Expert>) -> Parameters {
    Parameters {
        gate: Gate {
            kind,
            top_k: None,
            selection: Selection::Score,
        },
        variance_structure: VarianceStructure::PerExpert,
        experts,
    }
}

/// Two crossing lines and a softmax gate.
pub(super) fn crossing() -> Parameters {
    let router = |slope: f64, intercept: f64| ExpertGate::Router {
        slope: vec![slope],
        intercept,
    };
    let experts = vec![
        linear(&[1.0], 0.5, 0.16, router(1.0, -0.3)),
        linear(&[-0.5], -0.5, 0.25, router(0.0, 0.0)),
    ];
    mixture(GateKind::Softmax, experts)
}

/// Rows at the grid from -1 to 1, shifted, with responses of `truth` at the grid itself.
pub(super) fn sample(truth: &Parameters, rows: usize, shift: f64, seed: u64) -> Data {
    let grid = |i: usize| -1.0 + 2.0 * i as f64 / (rows as f64 - 1.0);
    let column = Array2::from_shape_fn((1, rows), |(_, i)| grid(i));
    let data = Data::from_columns(column.clone(), Array1::zeros(rows)).unwrap();
    let stream = Stream::named(seed, "inference", 0, Purpose::Data);
    let drawn = draw_responses(truth, &data, &stream).unwrap();
    let responses = Array1::from(drawn.responses().to_vec());
    Data::from_columns(column + shift, responses).unwrap()
}

pub(super) fn box_of(size: usize, reach: f64) -> Bounds {
    Bounds {
        low: vec![-reach; size],
        high: vec![reach; size],
    }
}

pub(super) fn maximum(data: &Data, start: &Parameters, bounds: &Bounds) -> Parameters {
    let outcome = polish(&Cpu::new(), data, start, bounds, NewtonOptions::default());
    assert!(outcome.stop.is_converged(), "{:?}", outcome.stop);
    outcome.parameters
}

pub(super) fn unit(size: usize, j: usize) -> Vec<f64> {
    let mut unit = vec![0.0; size];
    unit[j] = 1.0;
    unit
}

pub(super) fn value(end: &End) -> f64 {
    match end {
        End::Quantile(at) => at.value,
        other => panic!("no quantile: {other:?}"),
    }
}

pub(super) fn close(a: f64, b: f64, relative: f64) {
    assert!((a - b).abs() <= relative * b.abs(), "{a} is not {b}");
}

#[test]
fn the_information_is_that_of_finite_differences_of_the_score() {
    let data = sample(&crossing(), 300, 0.0, 1);
    let bounds = box_of(8, 30.0);
    let fitted = maximum(&data, &crossing(), &bounds);
    let information = Information::new(&Cpu::new(), &data, &fitted, &bounds).unwrap();
    let layout = fitted.layout();
    let packed = layout.pack(&fitted);
    let score = |j: usize, step: f64| {
        let mut moved = packed.clone();
        moved[j] += step;
        Cpu::new()
            .gradient(&layout.unpack(&fitted, &moved), &data)
            .1
    };
    let h = 1e-5;
    let columns: Vec<Array1<f64>> = (0..8)
        .map(|j| (score(j, -h) - score(j, h)) / (2.0 * h))
        .collect();
    let matrix = Array2::from_shape_fn((8, 8), |(a, b)| 0.5 * (columns[a][b] + columns[b][a]));
    let factor = Factor::new(&matrix).unwrap();
    let wave: Vec<f64> = (0..8).map(|j| (1.0 + 2.0 * j as f64).sin()).collect();
    for weights in (0..8).map(|j| unit(8, j)).chain([wave]) {
        let white = factor.whiten(&Array1::from(weights.clone()));
        let expected = white.dot(&white).sqrt();
        close(
            information.standard_error(&weights).unwrap(),
            expected,
            1e-6,
        );
    }
}

/// Mean of x, sum of squared deviations, residuals of the line.
pub(super) fn least_squares(data: &Data) -> (f64, f64, Vec<f64>) {
    let (x, y) = (data.column(0), data.responses());
    let n = x.len() as f64;
    let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let sxx: f64 = x.iter().map(|x| (x - mx) * (x - mx)).sum();
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    let residual = |(x, y): (&f64, &f64)| y - my - sxy / sxx * (x - mx);
    (mx, sxx, x.iter().zip(y).map(residual).collect())
}

pub(super) fn line() -> Parameters {
    mixture(
        GateKind::Constant,
        vec![linear(&[0.7], 0.2, 0.3, ExpertGate::Bias(0.0))],
    )
}

#[test]
fn one_expert_has_the_standard_errors_of_least_squares_and_of_white() {
    let data = sample(&line(), 50, 0.4, 2);
    let bounds = box_of(3, 30.0);
    let fitted = maximum(&data, &line(), &bounds);
    let information = Information::new(&Cpu::new(), &data, &fitted, &bounds).unwrap();
    let (mean, sxx, residuals) = least_squares(&data);
    let n = residuals.len() as f64;
    let variance = residuals.iter().map(|e| e * e).sum::<f64>() / n;
    let expected = [
        (variance / sxx).sqrt(),
        (variance * (1.0 / n + mean * mean / sxx)).sqrt(),
        (2.0 / n).sqrt(),
    ];
    for (j, expected) in expected.into_iter().enumerate() {
        close(
            information.standard_error(&unit(3, j)).unwrap(),
            expected,
            1e-6,
        );
    }
    // The same over all samples with these inputs.
    let expected_information = Information::expected(&Cpu::new(), &data, &fitted, &bounds);
    let expected_information = expected_information.unwrap();
    for (j, expected) in expected.into_iter().enumerate() {
        let error = expected_information.standard_error(&unit(3, j)).unwrap();
        close(error, expected, 1e-6);
    }
    // White (1980): the sum of squared residuals, each with its leverage.
    let x = data.column(0).iter().zip(&residuals);
    let meat: f64 = x.map(|(x, e)| ((x - mean) * e).powi(2)).sum();
    close(
        information.sandwich(&unit(3, 0)).unwrap(),
        meat.sqrt() / sxx,
        1e-6,
    );
}

/// Each ratio's standard deviation is at most E(s^4)^(1/2) / (2 n^(1/2)) = 0.7 % for
/// scores with kurtosis up to 20: 5 % is seven of them (false failures far below 1e-6),
/// and the smallest error that is surely detected is 8.5 %.
#[test]
fn the_sandwich_is_the_observed_information_where_the_model_is_right() {
    let data = sample(&crossing(), 100_000, 0.0, 3);
    let bounds = box_of(8, 30.0);
    let fitted = maximum(&data, &crossing(), &bounds);
    let information = Information::new(&Cpu::new(), &data, &fitted, &bounds).unwrap();
    for j in 0..8 {
        let observed = information.standard_error(&unit(8, j)).unwrap();
        close(information.sandwich(&unit(8, j)).unwrap(), observed, 0.05);
    }
}

/// The information summed over 400 samples of 50 rows, over their number. With entries
/// scaled to a diagonal of ones the standard deviation of an entry of one sample is below
/// 3 / 50^(1/2) (scores with kurtosis up to 9), of the mean 0.021: the bound is five of
/// them, 36 entries fail by chance in one of 5e4 at that kurtosis, in far fewer than one of
/// 1e6 at the true one (about 3). An entry wrong by 0.2 is surely detected.
#[test]
fn the_expected_information_is_the_mean_of_score_products() {
    let truth = crossing();
    let data = sample(&truth, 50, 0.0, 1);
    let layout = truth.layout();
    let mut mean = Array2::zeros((8, 8));
    for seed in 0..400 {
        let own = sample(&truth, 50, 0.0, 100 + seed);
        mean += &(Cpu::new().score_outer(&truth, &own) / 400.0);
    }
    let expected = super::information::expected_products(&Cpu::new(), &data, &truth);
    for a in 0..8 {
        for b in 0..8 {
            let size = (expected[[a, a]] * expected[[b, b]]).sqrt();
            let error = (mean[[a, b]] - expected[[a, b]]).abs() / size;
            assert!(error < 0.105, "{} {}: {error}", layout.coordinates()[a], b);
        }
    }
    // The weights of each row's nodes sum to one: the scores have mean zero.
    let line = line();
    let exact = super::information::expected_products(&Cpu::new(), &data, &line);
    let n_over_v = 50.0 / 0.3;
    close(exact[[1, 1]], n_over_v, 1e-12);
    close(exact[[2, 2]], 25.0, 1e-12);
}

#[test]
fn what_cannot_be_known_has_its_reason() {
    let data = sample(&crossing(), 300, 0.0, 1);
    let bounds = box_of(8, 30.0);
    let fitted = maximum(&data, &crossing(), &bounds);
    let backend = Cpu::new();
    // Nothing free.
    let mut pinned = bounds.clone();
    let slope = fitted.experts[0].slope[0];
    pinned.low[0] = slope;
    pinned.high[0] = slope;
    let information = Information::new(&backend, &data, &fitted, &pinned).unwrap();
    assert_eq!(information.standard_error(&unit(8, 0)), Err(Missing::Held));
    let profile = profile_interval(&backend, &data, &fitted, &pinned, &unit(8, 0), 0.95);
    assert_eq!(profile, Err(Missing::Held));
    // No maximum.
    let mut off = fitted.clone();
    off.experts[0].slope[0] += 0.3;
    let profile = profile_interval(&backend, &data, &off, &bounds, &unit(8, 0), 0.95);
    match profile {
        Err(Missing::BetterMaximum { gain, parameters }) => {
            assert!(gain > 1e-3);
            assert!((parameters.experts[0].slope[0] - slope).abs() < 1e-4);
        }
        other => panic!("{other:?}"),
    }
    // Two columns that are one.
    let column = data.column(0);
    let twice = Array2::from_shape_fn((2, data.len()), |(_, i)| column[i]);
    let responses = Array1::from(data.responses().to_vec());
    let twice = Data::from_columns(twice, responses).unwrap();
    let line = mixture(
        GateKind::Constant,
        vec![linear(&[0.3, 0.2], 0.0, 0.5, ExpertGate::Bias(0.0))],
    );
    let singular = Information::new(&backend, &twice, &line, &box_of(4, 30.0)).unwrap_err();
    let slopes = vec![Coordinate::Slope(0, 0), Coordinate::Slope(0, 1)];
    assert_eq!(singular, Missing::Singular(slopes));
}

#[test]
fn a_refit_with_its_experts_exchanged_has_other_labels() {
    let data = sample(&crossing(), 100, 0.0, 1);
    let fitted = crossing();
    let mut near = fitted.clone();
    near.experts[0].slope[0] += 0.2;
    assert!(keeps_labels(&fitted, &near, &data));
    assert!(!keeps_labels(&fitted, &near.permuted(&[1, 0]), &data));
    // Three in a circle: no exchange of two alone.
    let mut three = fitted.clone();
    three.experts.push(three.experts[0].clone());
    three.experts[2].intercept = 3.0;
    assert!(keeps_labels(&three, &three, &data));
    assert!(!keeps_labels(&three, &three.permuted(&[1, 2, 0]), &data));
}

/// The bootstrap of a line: standard deviations of B draws are within 4.9 / (2 B)^(1/2)
/// of the truth but for one in 1e6; with B = 2000 that is 7.8 %, and an error of 15.5 % is
/// surely detected.
#[test]
fn the_bootstrap_of_a_line_has_the_standard_errors_of_least_squares() {
    let data = sample(&line(), 50, 0.4, 2);
    let bounds = box_of(3, 30.0);
    let fitted = maximum(&data, &line(), &bounds);
    let information = Information::new(&Cpu::new(), &data, &fitted, &bounds).unwrap();
    let bootstrap = Bootstrap {
        replicates: 2000,
        seed: 1,
    };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let refits =
            || parametric_bootstrap(&Cpu::new(), &data, &fitted, &bounds, bootstrap).unwrap();
        pool.unwrap().install(refits)
    };
    let refits = run(1);
    assert_eq!(refits, run(3));
    assert!(refits.iter().all(|r| r.ending == Ending::Maximum));
    for j in [0, 1] {
        let values: Vec<f64> = refits.iter().map(|r| r.packed[j]).collect();
        let (_, deviation) = crate::num::sum::mean_and_deviation(&values);
        let expected = information.standard_error(&unit(3, j)).unwrap();
        close(deviation, expected, 0.078);
    }
    let wald = ROOT * information.standard_error(&unit(3, 0)).unwrap();
    let profile =
        profile_interval(&Cpu::new(), &data, &fitted, &bounds, &unit(3, 0), 0.95).unwrap();
    close(
        0.5 * (value(&profile.high) - value(&profile.low)),
        wald,
        0.05,
    );
}
