use super::{Limit, Missing, Profiles, Uncertainty, UncertaintyOptions, uncertainty};
use crate::analysis::{
    Attainment, Design, INTERCEPT, Optimum, Part, Scaled, Side, Specification, quantities,
};
use crate::backend::Cpu;
use crate::fit::inference::Bootstrap;
use crate::fit::{Bounds, NewtonOptions, Stop, polish};
use crate::model::{Coordinate, Data, ExpertGate, Parameters};
use ndarray::{Array1, Array2};

/// A model of powers of one column, in raw units.
pub(super) struct Raw<'a> {
    /// Coefficients of 1, x, x^2, ... and standard deviation, expert by expert.
    pub experts: &'a [(&'a [f64], f64)],
    /// Those of every expert's score but the last's.
    pub gate: &'a [&'a [f64]],
}

fn mean_and_scale(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / n).sqrt())
}

/// The standardised design of powers of x up to `expert`, in the gate up to `gate`.
pub(super) fn design(x: &[f64], y: &[f64], expert: usize, gate: usize) -> Design {
    let count = expert.max(gate);
    let mut columns = Array2::zeros((count, x.len()));
    let mut scales = Vec::new();
    for j in 0..count {
        let raw: Vec<f64> = x.iter().map(|x| x.powi(j as i32 + 1)).collect();
        let (mean, scale) = mean_and_scale(&raw);
        for (i, value) in raw.iter().enumerate() {
            columns[[j, i]] = (value - mean) / scale;
        }
        scales.push((mean, scale));
    }
    let side = |degree: usize| {
        let mut to_raw = Array2::zeros((1 + degree, 1 + count));
        to_raw[[0, 0]] = 1.0;
        for (j, (mean, scale)) in scales.iter().enumerate().take(degree) {
            to_raw[[0, 1 + j]] = -mean / scale;
            to_raw[[1 + j, 1 + j]] = 1.0 / scale;
        }
        let powers = (1..=degree).map(|k| format!("x^{k}"));
        Side {
            terms: std::iter::once(INTERCEPT.to_string())
                .chain(powers)
                .collect(),
            features: (0..degree).collect(),
            to_raw,
        }
    };
    let (mean, deviation) = mean_and_scale(y);
    let responses: Array1<f64> = y.iter().map(|y| (y - mean) / deviation).collect();
    let response = Scaled {
        name: "y".to_string(),
        mean,
        deviation,
    };
    let data = Data::from_columns(columns, responses).unwrap();
    Design::by_hand(data, response, side(expert), side(gate))
}

/// The standardised parameters of a raw model.
pub(super) fn standardised(
    design: &Design,
    specification: &Specification,
    raw: &Raw,
) -> Parameters {
    let mut parameters = specification.template(design, raw.experts.len());
    // Intercept and slopes in features: the inverse of `to_raw`, which is triangular.
    let back = |side: &Side, raw: &[f64]| {
        let slope = |t: usize| raw[t] / side.to_raw[[t, t]];
        let mut slopes = vec![0.0; design.data.dimension()];
        let mut intercept = raw[0];
        for t in 1..raw.len() {
            slopes[t - 1] = slope(t);
            intercept -= side.to_raw[[0, t]] * slope(t);
        }
        (slopes, intercept)
    };
    let unit = design.response.deviation;
    for (i, (expert, (coefficients, sigma))) in
        parameters.experts.iter_mut().zip(raw.experts).enumerate()
    {
        let (slopes, intercept) = back(&design.expert, coefficients);
        expert.slope = slopes.into_iter().map(|s| s / unit).collect();
        expert.intercept = (intercept - design.response.mean) / unit;
        expert.variance = (sigma / unit).powi(2);
        if let Some(own) = raw.gate.get(i) {
            let (slopes, intercept) = back(&design.gate, own);
            expert.gate = match expert.gate {
                ExpertGate::Router { .. } => ExpertGate::Router {
                    slope: slopes,
                    intercept,
                },
                _ => ExpertGate::Bias(own[0]),
            };
        }
    }
    parameters
}

/// The optimum that Newton reaches from `start`.
pub(super) fn optimum(design: &Design, start: &Parameters, bounds: &Bounds) -> Optimum {
    let outcome = polish(
        &Cpu::new(),
        &design.data,
        start,
        bounds,
        NewtonOptions::default(),
    );
    let rows = design.data.len() as f64;
    Optimum {
        attainment: match outcome.on_bound {
            none if none.is_empty() => Attainment::Interior,
            gate if gate.iter().all(Coordinate::is_of_gate) => {
                let all = start.layout().coordinates().to_vec();
                Attainment::NotAttained(all.into_iter().filter(Coordinate::is_of_gate).collect())
            }
            some => Attainment::OnBound(some),
        },
        log_likelihood: outcome.log_likelihood - rows * design.response.deviation.ln(),
        parameters: outcome.parameters,
        hits: Vec::new(),
        stop: outcome.stop,
        bounds: bounds.clone(),
        effective_rows: Vec::new(),
        spurious: None,
    }
}

/// y = 5 x or 15 + 10 x - x^2, each half of the time, sigma 3: the artificial data of
/// Leisch (2004), with a gate that leans a little to the right.
pub(super) const PARABOLA: Raw = Raw {
    experts: &[(&[15.0, 10.0, -1.0], 3.0), (&[0.0, 5.0, 0.0], 3.0)],
    gate: &[&[-0.2, 0.05]],
};

/// A design at `rows` points of [0, 10] whose responses mean nothing but their scale.
pub(super) fn blank(rows: usize) -> Design {
    let x: Vec<f64> = (0..rows)
        .map(|i| 10.0 * (i as f64 + 0.5) / rows as f64)
        .collect();
    let y: Vec<f64> = (0..rows)
        .map(|i| if i % 2 == 0 { 7.0 } else { 33.0 })
        .collect();
    design(&x, &y, 2, 1)
}

/// The design with responses drawn from `truth`, and the fit from there.
pub(super) fn drawn(
    blank: &Design,
    truth: &Parameters,
    bounds: &Bounds,
    replicate: u64,
) -> (Design, Optimum) {
    use crate::rng::{Purpose, Stream};
    let stream = Stream::named(20_260_101, "coverage", replicate, Purpose::Data);
    let mut design = blank.clone();
    design.data = crate::model::draw_responses(truth, &blank.data, &stream).unwrap();
    let optimum = optimum(&design, truth, bounds);
    (design, optimum)
}

fn parabola() -> (Design, Optimum) {
    let (blank, specification) = (blank(200), Specification::default());
    let truth = standardised(&blank, &specification, &PARABOLA);
    let bounds = specification.bounds(&blank, &truth, 1.0);
    drawn(&blank, &truth, &bounds, 0)
}

fn every() -> UncertaintyOptions {
    UncertaintyOptions {
        profiles: Profiles::Every,
        ..UncertaintyOptions::default()
    }
}

fn of<'a>(all: &'a Uncertainty, name: &str) -> &'a super::Estimate {
    let found = all.estimates.iter().find(|e| e.quantity.name == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_standardised_form_of_a_raw_model_has_its_raw_quantities() {
    let (blank, specification) = (blank(50), Specification::default());
    let truth = standardised(&blank, &specification, &PARABOLA);
    let packed = truth.layout().pack(&truth);
    let all = quantities(&blank, &truth);
    let values = all.iter().map(|q| q.value(&packed));
    let expected = [15.0, 10.0, -1.0, 0.0, 5.0, 0.0, 3.0, 3.0, -0.2, 0.05];
    assert_eq!(all.len(), expected.len());
    for (value, expected) in values.zip(expected) {
        assert!((value - expected).abs() < 1e-12, "{value} {expected}");
    }
}

#[test]
fn every_quantity_has_its_errors_and_intervals_around_its_estimate() {
    let (design, optimum) = parabola();
    let options = UncertaintyOptions {
        bootstrap: Some(Bootstrap {
            replicates: 50,
            seed: 1,
        }),
        ..every()
    };
    let all = uncertainty(&Cpu::new(), &design, &optimum, options).unwrap();
    assert_eq!(all.estimates.len(), 10);
    for estimate in &all.estimates {
        let error = estimate.standard_error.clone().unwrap();
        let [low, high] = estimate.wald.clone().unwrap();
        assert!(low < estimate.value && estimate.value < high);
        let sandwich = estimate.sandwich.clone().unwrap();
        assert!((0.5..2.0).contains(&(sandwich / error)));
        let profile = estimate.profile.clone().unwrap().unwrap();
        let (Limit::At(below), Limit::At(above)) = (profile.low, profile.high) else {
            panic!("{profile:?}")
        };
        assert!(profile.contains(estimate.value));
        // Likelihoods of 200 rows are nearly quadratic.
        assert!((below - low).abs() < 0.5 * error && (above - high).abs() < 0.5 * error);
        let bootstrap = estimate.bootstrap.clone().unwrap().unwrap();
        assert!((0.5..2.0).contains(&(bootstrap.standard_deviation / error)));
        let [below, above] = bootstrap.percentile;
        assert!(below < above && (below - low).abs() < 1.5 * error);
        if estimate.quantity.part == Part::Deviation {
            // Multiplicative: the estimate is the geometric mean of the ends.
            assert!(((low * high).sqrt() / estimate.value - 1.0).abs() < 1e-12);
        }
    }
    let fits = all.bootstrap.unwrap();
    let others: usize = fits.others.values().sum();
    assert_eq!((fits.replicates, fits.maxima), (50, 50 - others));
    assert_eq!(fits.refits.len(), 50);
}

#[test]
fn a_line_has_its_textbook_errors_in_raw_units() {
    let x: Vec<f64> = (0..40).map(|i| 1000.0 + f64::from(i)).collect();
    let y: Vec<f64> = (0..40)
        .map(|i| 3.0 * f64::from(i) + f64::from(i * i % 7))
        .collect();
    let design = design(&x, &y, 1, 1);
    let specification = Specification::default();
    let template = specification.template(&design, 1);
    let bounds = specification.bounds(&design, &template, 1.0);
    let optimum = optimum(&design, &template, &bounds);
    let all = uncertainty(&Cpu::new(), &design, &optimum, every()).unwrap();
    let (mean, scale) = mean_and_scale(&x);
    let sxx = 40.0 * scale * scale;
    let slope = of(&all, "expert[1].x^1");
    let intercept = of(&all, "expert[1].(Intercept)");
    let residual = |(x, y): (&f64, &f64)| (y - intercept.value - slope.value * x).powi(2);
    let variance = x.iter().zip(&y).map(residual).sum::<f64>() / 40.0;
    let sigma = of(&all, "expert[1].sigma");
    let expected = [
        (slope, (variance / sxx).sqrt()),
        (
            intercept,
            (variance * (1.0 / 40.0 + mean * mean / sxx)).sqrt(),
        ),
        (sigma, variance.sqrt() / 80f64.sqrt()),
    ];
    assert!((sigma.value / variance.sqrt() - 1.0).abs() < 1e-9);
    for (estimate, expected) in expected {
        let error = estimate.standard_error.clone().unwrap();
        assert!((error / expected - 1.0).abs() < 1e-6, "{error} {expected}");
    }
    // n log(1 + t^2 / n) = quantile, t in these errors.
    let half = (40.0 * ((3.841458820694124f64 / 40.0).exp() - 1.0)).sqrt();
    for estimate in [slope, intercept] {
        let error = estimate.standard_error.clone().unwrap();
        let profile = estimate.profile.clone().unwrap().unwrap();
        let (Limit::At(low), Limit::At(high)) = (profile.low, profile.high) else {
            panic!("{profile:?}")
        };
        assert!(((high - estimate.value) / error / half - 1.0).abs() < 1e-5);
        assert!(((estimate.value - low) / error / half - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_gate_that_runs_away_has_no_errors_and_the_others_are_those_with_it_held() {
    let (design, optimum) = parabola();
    let runaway = Optimum {
        attainment: Attainment::NotAttained(vec![
            Coordinate::GateSlope(0, 0),
            Coordinate::GateIntercept(0),
        ]),
        ..optimum.clone()
    };
    let options = UncertaintyOptions {
        bootstrap: Some(Bootstrap {
            replicates: 3,
            seed: 1,
        }),
        ..every()
    };
    let free = uncertainty(&Cpu::new(), &design, &optimum, options).unwrap();
    let held = uncertainty(&Cpu::new(), &design, &runaway, options).unwrap();
    for (free, held) in free.estimates.iter().zip(&held.estimates) {
        if held.quantity.part == Part::Gate {
            assert_eq!(held.standard_error, Err(Missing::RunsAway));
            assert_eq!(held.sandwich, Err(Missing::RunsAway));
            assert_eq!(held.wald, Err(Missing::RunsAway));
            assert_eq!(held.profile, Some(Err(Missing::RunsAway)));
            assert_eq!(held.bootstrap, Some(Err(Missing::RunsAway)));
            assert_eq!(
                Missing::RunsAway.to_string(),
                "the gate runs away: no maximum"
            );
        } else {
            // Less is unknown.
            let [free, held] = [free, held].map(|e| e.standard_error.clone().unwrap());
            assert!(held < free && held > 0.9 * free, "{held} {free}");
        }
    }
    let gate = optimum.parameters.layout().gate_offset(0).unwrap();
    let packed = optimum.parameters.layout().pack(&optimum.parameters);
    for refit in held.bootstrap.unwrap().refits {
        assert_eq!(refit.packed[gate], packed[gate]);
    }
}

/// The scale of a top-1 router changes nothing, nor does a small move of its threshold; the
/// experts' errors are those of their own rows.
#[test]
fn a_flat_gate_has_no_errors_and_the_others_are_those_with_it_held() {
    let x: Vec<f64> = (0..60).map(|i| f64::from(i) / 10.0).collect();
    let wave = |i: usize| f64::from((i * i % 11) as u32) / 11.0;
    let line = |i: usize| if i < 25 { 20.0 - x[i] } else { x[i] };
    let y: Vec<f64> = (0..60).map(|i| line(i) + wave(i)).collect();
    let design = design(&x, &y, 1, 1);
    let specification = Specification {
        top_k: Some(1),
        ..Specification::default()
    };
    let raw = Raw {
        experts: &[(&[20.5, -1.0], 0.3), (&[0.5, 1.0], 0.3)],
        gate: &[&[24.5, -10.0]],
    };
    let start = standardised(&design, &specification, &raw);
    let bounds = specification.bounds(&design, &start, 1.0);
    let mut optimum = optimum(&design, &start, &bounds);
    optimum.attainment = Attainment::Interior;
    let all = uncertainty(&Cpu::new(), &design, &optimum, every()).unwrap();
    for estimate in &all.estimates {
        if estimate.quantity.part == Part::Gate {
            let reason = estimate.standard_error.clone().unwrap_err().to_string();
            let flat = "the information is singular along gate_slope[0][0], gate_intercept[0]";
            assert_eq!(reason, flat);
        } else {
            assert!(estimate.profile.clone().unwrap().is_ok());
        }
    }
    let (_, scale) = mean_and_scale(&x[..25]);
    let sigma = of(&all, "expert[1].sigma").value;
    let error = of(&all, "expert[1].x^1").standard_error.clone().unwrap();
    assert!((error / (sigma / (25f64.sqrt() * scale)) - 1.0).abs() < 1e-6);
}

#[test]
fn a_deviation_on_its_bound_has_no_error_but_a_profile_with_a_reason() {
    let (design, mut optimum) = parabola();
    let j = optimum.parameters.layout().variance_offset(1);
    let packed = optimum.parameters.layout().pack(&optimum.parameters);
    optimum.bounds.low[j] = packed[j] + 0.2;
    let optimum = super::tests::optimum(&design, &optimum.parameters, &optimum.bounds);
    assert_eq!(optimum.stop, Stop::Converged);
    let all = uncertainty(&Cpu::new(), &design, &optimum, every()).unwrap();
    let sigma = of(&all, "expert[2].sigma");
    let reason = Missing::Held(vec![Coordinate::LogVariance(1)]);
    assert_eq!(
        reason.to_string(),
        "on the boundary of the parameter set: log_variance[1]"
    );
    assert_eq!(sigma.standard_error, Err(reason));
    let other = of(&all, "expert[1].sigma");
    assert!(other.standard_error.is_ok() && other.profile.clone().unwrap().is_ok());
}

#[test]
fn a_level_or_a_number_of_replicates_that_means_nothing_is_refused() {
    let (design, optimum) = parabola();
    for level in [0.0, 1.0, f64::NAN] {
        let options = UncertaintyOptions {
            level,
            ..UncertaintyOptions::default()
        };
        assert!(uncertainty(&Cpu::new(), &design, &optimum, options).is_err());
    }
    let options = UncertaintyOptions {
        bootstrap: Some(Bootstrap {
            replicates: 1,
            seed: 1,
        }),
        ..UncertaintyOptions::default()
    };
    assert!(uncertainty(&Cpu::new(), &design, &optimum, options).is_err());
}
