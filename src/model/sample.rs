//! Independent samples of a mixture.

use super::data::Data;
use super::file::Model;
use super::input_law::InputLaw;
use super::lattice::draw_counts;
use super::parameters::{Expert, ExpertGate, Parameters};
use crate::error::{Error, Result};
use crate::num::lanes::{Kernel, Lanes, Octet, Simd, WIDTH, affine, dispatch};
use crate::num::vector_math::{cos_turn, exp, ln_normal};
use crate::rng::Stream;
use ndarray::{Array1, Array2};

/// Draws `rows` independent pairs (x, y) from the model: samples `first`,
/// `first + 1`, ... of the stream.
///
/// Sample i is a function of (stream, i) alone. It reads, at address i: draw 0
/// the label and the first input coordinate, draw 1 the response's normal, draws
/// 2, 3, ... the other coordinates two by two. A lattice instead draws the counts
/// of its cells (`first` has no meaning there).
pub fn draw_sample(model: &Model, first: usize, rows: usize, stream: &Stream) -> Data {
    let dimension = model.input.dimension();
    if let InputLaw::Grid {
        points,
        lattice: Some(step),
    } = &model.input
    {
        return draw_counts(&model.parameters, points, *step, rows as u64, stream);
    }
    let mut columns = Array2::zeros((dimension, rows));
    let mut responses = Array1::zeros(rows);
    let draw = Draw {
        model,
        first: first as u64,
        stream,
        columns: columns.as_slice_mut().expect("contiguous"),
        responses: responses.as_slice_mut().expect("contiguous"),
    };
    let parameters = &model.parameters;
    if !parameters.is_sparse() && parameters.experts.iter().all(Expert::is_linear) {
        dispatch(draw);
    } else {
        draw.one_by_one();
    }
    Data::from_parts(columns, responses, None)
}

/// [`draw_sample`], bit for bit, and the label of each row: the expert that made it.
///
/// The label is read from the same address as the row; where the uniform falls on
/// the border between two experts up to rounding, the response decides.
///
/// # Errors
/// [`Error::Value`] for a lattice, whose cells have counts and no labels.
pub fn draw_labelled_sample(
    model: &Model,
    first: usize,
    rows: usize,
    stream: &Stream,
) -> Result<(Data, Vec<usize>)> {
    if model.input.is_lattice() {
        return Err(Error::value(
            "input.lattice",
            "a sample of counts has no labels",
        ));
    }
    let data = draw_sample(model, first, rows, stream);
    let mut x = vec![0.0; data.dimension()];
    let mut law = model.parameters.conditional(&x);
    let labels = (0..rows).map(|i| {
        let y = data.read_row(i, &mut x);
        model.parameters.conditional_into(&x, &mut law);
        let address = (first + i) as u64;
        let noise = stream.standard_normal(address, 1);
        let miss = |k: usize| (law.means[k] + law.variances[k].sqrt() * noise - y).abs();
        let chosen = choose(&law.log_weights, stream.uniform_pair(address, 0)[0]);
        match miss(chosen) <= 1e-9 * (1.0 + y.abs()) {
            true => chosen,
            false => (0..law.means.len())
                .min_by(|&a, &b| miss(a).total_cmp(&miss(b)))
                .expect("at least one expert"),
        }
    });
    let labels = labels.collect();
    Ok((data, labels))
}

/// New responses at the inputs of `data`: y_i from p(. | x_i), row i from address i of the
/// stream (draw 0 the label, draw 1 the normal).
///
/// # Errors
/// [`Error::Value`] if rows have counts: a row seen twice would need two responses.
pub fn draw_responses(parameters: &Parameters, data: &Data, stream: &Stream) -> Result<Data> {
    if data.counts().is_some() {
        return Err(Error::value(
            "data",
            "responses are drawn for rows seen once each, not for counts",
        ));
    }
    let mut x = vec![0.0; data.dimension()];
    let mut law = parameters.conditional(&x);
    let responses = (0..data.len()).map(|i| {
        data.read_row(i, &mut x);
        parameters.conditional_into(&x, &mut law);
        let label = stream.uniform_pair(i as u64, 0)[0];
        let expert = choose(&law.log_weights, label);
        law.means[expert] + law.variances[expert].sqrt() * stream.standard_normal(i as u64, 1)
    });
    let responses = responses.collect();
    Ok(Data::from_parts(
        data.inputs().t().to_owned(),
        responses,
        None,
    ))
}

/// Samples to be drawn, and where to.
struct Draw<'a> {
    model: &'a Model,
    first: u64,
    stream: &'a Stream,
    /// Shape: d, n.
    columns: &'a mut [f64],
    /// Shape: n.
    responses: &'a mut [f64],
}

impl Draw<'_> {
    /// Any mixture.
    fn one_by_one(self) {
        let Model { input, parameters } = self.model;
        let d = input.dimension();
        let n = self.responses.len();
        let mut x = vec![0.0; d];
        let mut uniforms = vec![0.0; d.max(1)];
        let mut law = parameters.conditional(&x);
        for i in 0..n {
            let address = self.first + i as u64;
            let [label, uniform] = self.stream.uniform_pair(address, 0);
            uniforms[0] = uniform;
            for (draw, pair) in uniforms[1..].chunks_mut(2).enumerate() {
                let values = self.stream.uniform_pair(address, 2 + draw as u64);
                pair.copy_from_slice(&values[..pair.len()]);
            }
            input.at_uniforms(&uniforms, &mut x);
            for (j, x) in x.iter().enumerate() {
                self.columns[j * n + i] = *x;
            }
            parameters.conditional_into(&x, &mut law);
            let expert = choose(&law.log_weights, label);
            let noise = self.stream.standard_normal(address, 1);
            self.responses[i] = law.means[expert] + law.variances[expert].sqrt() * noise;
        }
    }
}

/// Dense mixtures of linear experts, eight samples at a time: the same samples as
/// one by one, up to rounding.
impl Kernel for Draw<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Model { input, parameters } = self.model;
        let (d, n) = (input.dimension(), self.responses.len());
        let count = parameters.experts.len();
        let zero = simd.splat(0.0);
        let mut uniforms = vec![[0.0; WIDTH]; d.max(1) + 1];
        let mut one = vec![0.0; d.max(1)];
        let mut point = vec![0.0; d];
        let mut x = vec![Octet::default(); d];
        let mut means = vec![Octet::default(); count];
        let mut weights = vec![Octet::default(); count];
        for start in (0..n).step_by(WIDTH) {
            let used = WIDTH.min(n - start);
            let address = self.first + start as u64;
            let [label, uniform] = self.stream.uniform_pairs(address, 0);
            uniforms[0] = uniform;
            for (draw, pair) in uniforms[1..d.max(1)].chunks_mut(2).enumerate() {
                let values = self.stream.uniform_pairs(address, 2 + draw as u64);
                pair.copy_from_slice(&values[..pair.len()]);
            }
            for lane in 0..used {
                for (one, uniforms) in one.iter_mut().zip(&uniforms) {
                    *one = uniforms[lane];
                }
                input.at_uniforms(&one, &mut point);
                for (j, value) in point.iter().enumerate() {
                    x[j].0[lane] = *value;
                    self.columns[j * n + start + lane] = *value;
                }
            }
            // Means and log-weights, then weights up to a factor.
            let mut top = simd.splat(f64::NEG_INFINITY);
            for (i, expert) in parameters.experts.iter().enumerate() {
                let mean = affine(simd, &expert.slope, expert.intercept, x.iter());
                let driver = match &expert.gate {
                    ExpertGate::Router { slope, intercept } => {
                        affine(simd, slope, *intercept, x.iter())
                    }
                    _ => mean,
                };
                let bias = simd.splat(expert.bias());
                let kind = parameters.gate.kind;
                let (log_weight, _, _) = kind.log_weight_lanes(simd, driver, bias);
                mean.store(&mut means[i]);
                log_weight.store(&mut weights[i]);
                top = top.max(log_weight);
            }
            // Where every response is 0, exp(bias) is the weight.
            let dead = top.equal(simd.splat(f64::NEG_INFINITY));
            let mut total = zero;
            for (expert, weight) in parameters.experts.iter().zip(&mut weights) {
                let relative = simd.load(weight) - top;
                let relative = S::V::select(dead, simd.splat(expert.bias()), relative);
                total = total + exp(simd, relative);
                total.store(weight);
            }
            // The first expert at which the cumulated weights exceed the uniform.
            let wanted = simd.load(&Octet(label)) * total;
            let last = &parameters.experts[count - 1];
            let mut mean = simd.load(&means[count - 1]);
            let mut deviation = simd.splat(last.variance.sqrt());
            for i in (0..count - 1).rev() {
                let here = wanted.less(simd.load(&weights[i]));
                mean = S::V::select(here, simd.load(&means[i]), mean);
                let own = simd.splat(parameters.experts[i].variance.sqrt());
                deviation = S::V::select(here, own, deviation);
            }
            // Box and Muller, as `Stream::standard_normal`.
            let [u1, u2] = self.stream.uniform_pairs(address, 1);
            let radius = (simd.splat(-2.0) * ln_normal(simd, simd.load(&Octet(u1)))).sqrt();
            let noise = radius * cos_turn(simd, simd.load(&Octet(u2)));
            let mut y = Octet::default();
            deviation.mul_add(noise, mean).store(&mut y);
            self.responses[start..start + used].copy_from_slice(&y.0[..used]);
        }
    }
}

/// The first index at which the cumulated weights exceed `uniform`.
fn choose(log_weights: &[f64], uniform: f64) -> usize {
    let mut cumulated = 0.0;
    let mut chosen = 0;
    for (i, weight) in log_weights.iter().enumerate() {
        if *weight == f64::NEG_INFINITY {
            continue;
        }
        chosen = i;
        cumulated += weight.exp();
        if uniform < cumulated {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gate::every_kind;
    use crate::model::{ExpertKind, Gate, GateKind, Selection, VarianceStructure};

    fn model(kind: GateKind, d: usize) -> Model {
        let expert = |k: f64| Expert {
            kind: ExpertKind::Linear,
            slope: (0..d).map(|j| 1.0 - k + 0.5 * j as f64).collect(),
            intercept: 0.4 * k,
            scale: None,
            variance: 0.3 + 0.2 * k,
            gate: match kind {
                GateKind::Softmax | GateKind::Sigmoid => ExpertGate::Router {
                    slope: vec![k - 0.5; d],
                    intercept: 0.1 * k,
                },
                _ => ExpertGate::Bias(0.3 * k),
            },
        };
        Model {
            input: InputLaw::Uniform {
                low: vec![-1.0; d],
                high: vec![1.0; d],
            },
            parameters: Parameters {
                gate: Gate {
                    kind,
                    top_k: None,
                    selection: Selection::Score,
                },
                variance_structure: VarianceStructure::PerExpert,
                experts: vec![expert(0.0), expert(1.0), expert(2.0)],
            },
        }
    }

    #[test]
    fn responses_at_the_inputs_of_a_sample_are_that_samples_own() {
        for (k, kind) in every_kind().into_iter().enumerate() {
            let model = model(kind, 2);
            let stream = Stream::named(k as u64, "responses", 0, crate::rng::Purpose::Data);
            let sample = draw_sample(&model, 0, 100, &stream);
            let again = draw_responses(&model.parameters, &sample, &stream).unwrap();
            assert_eq!(again.inputs(), sample.inputs());
            for (a, b) in again.responses().iter().zip(sample.responses()) {
                assert!((a - b).abs() < 1e-13, "{kind:?}: {a} {b}");
            }
            let counted = sample.with_counts(Array1::ones(100)).unwrap();
            assert!(draw_responses(&model.parameters, &counted, &stream).is_err());
        }
    }

    #[test]
    fn eight_at_a_time_are_the_samples_drawn_one_by_one() {
        for (k, kind) in every_kind().into_iter().enumerate() {
            for d in [0, 1, 2, 4] {
                let model = model(kind, d);
                let stream = Stream::named(k as u64, "octets", 0, crate::rng::Purpose::Data);
                let rows = 1000 + d;
                let fast = draw_sample(&model, 7, rows, &stream);
                let mut columns = vec![0.0; d * rows];
                let mut responses = vec![0.0; rows];
                Draw {
                    model: &model,
                    first: 7,
                    stream: &stream,
                    columns: &mut columns,
                    responses: &mut responses,
                }
                .one_by_one();
                for j in 0..d {
                    assert_eq!(fast.column(j), &columns[j * rows..(j + 1) * rows]);
                }
                for (a, b) in fast.responses().iter().zip(&responses) {
                    assert!((a - b).abs() < 1e-13, "{kind:?} d={d}: {a} {b}");
                }
            }
        }
    }
}
