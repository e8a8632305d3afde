use super::*;
use crate::backend::cuda::examples::{gates, laws, mixture};
use crate::backend::cuda::machine::emulated::Emulated;
use crate::model::{GateKind, draw_sample};
use crate::rng::Purpose;

fn device() -> Device {
    Device::new(Emulated::new(1 << 28).unwrap())
}

fn streams(count: u64) -> Vec<Stream> {
    let named = |r| Stream::named(3, "device", r, Purpose::Data);
    (0..count).map(named).collect()
}

fn model(input: InputLaw, parameters: crate::model::Parameters) -> Model {
    parameters.validate().unwrap();
    input.validate().unwrap();
    Model { input, parameters }
}

fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * (1.0 + expected.abs())
}

/// Fails unless `values` are the samples that the processor draws.
fn compare(model: &Model, n: usize, streams: &[Stream], values: &[f64]) {
    let d = model.parameters.dimension();
    assert_eq!(values.len(), streams.len() * (d + 1) * n);
    let exact = !matches!(model.input, InputLaw::Normal { .. });
    for (stream, own) in streams.iter().zip(values.chunks((d + 1) * n)) {
        let sample = draw_sample(model, 0, n, stream);
        for j in 0..d {
            for (a, b) in own[j * n..(j + 1) * n].iter().zip(sample.column(j)) {
                let same = if exact { a == b } else { close(*a, *b, 1e-13) };
                assert!(same, "input {j}: {a} {b} {model:?}");
            }
        }
        for (a, b) in own[d * n..].iter().zip(sample.responses()) {
            assert!(close(*a, *b, 1e-12), "response: {a} {b} {model:?}");
        }
    }
}

#[test]
fn every_mixture_has_the_samples_of_the_processor() {
    let device = device();
    let (n, streams) = (333, streams(2));
    for (k, gate) in gates().into_iter().enumerate() {
        for d in 0..=4 {
            for (count, top_k) in [(5, None), (5, Some(2)), (6, Some(1))] {
                for input in laws(d) {
                    let linear = (k + d) % 3 == 0;
                    let model = model(input, mixture(gate, top_k, d, count, linear));
                    let structure = Structure::of(&model.parameters);
                    let constants = structure.generic_constants().unwrap();
                    let values = draw(&device, &model, n, &streams, &constants).unwrap();
                    compare(&model, n, &streams, &values.all().unwrap());
                }
            }
        }
    }
}

#[test]
fn a_program_for_one_structure_and_few_blocks_give_the_same_bits() {
    let device = device();
    let (n, streams) = (1001, streams(3));
    for (d, top_k) in [(0, None), (2, Some(2))] {
        for input in laws(d) {
            let model = model(input, mixture(GateKind::Softmax, top_k, d, 4, false));
            let structure = Structure::of(&model.parameters);
            let generic = structure.generic_constants().unwrap();
            let expected = draw(&device, &model, n, &streams, &generic).unwrap();
            let expected = expected.all().unwrap();
            compare(&model, n, &streams, &expected);
            let own = draw(&device, &model, n, &streams, &structure.constants()).unwrap();
            assert_eq!(own.all().unwrap(), expected);
            // The precision of passes is not that of samples.
            let mut single = structure.constants();
            single.push(("SMOE_REAL", "float".to_string()));
            let same = draw(&device, &model, n, &streams, &single).unwrap();
            assert_eq!(same.all().unwrap(), expected);
            let program = Program::new(&SAMPLE, &generic);
            let few = draw_with_blocks(&device, &model, n, &streams, &program, 3).unwrap();
            assert_eq!(few.all().unwrap(), expected);
            // A sample does not depend on how many are drawn with it, or on n.
            let one = draw(&device, &model, 17, &streams[1..2], &generic).unwrap();
            for (column, one) in one.all().unwrap().chunks(17).enumerate() {
                let begin = ((d + 1) + column) * n;
                assert_eq!(one, &expected[begin..begin + 17]);
            }
        }
    }
}

#[test]
fn standard_normals_agree_to_1e_14() {
    let mut parameters = mixture(GateKind::Constant, None, 0, 1, true);
    parameters.experts[0].intercept = 0.0;
    parameters.experts[0].variance = 1.0;
    let model = model(laws(0).remove(0), parameters);
    let constants = Structure::of(&model.parameters).constants();
    let (n, streams) = (200_000, streams(1));
    let values = draw(&device(), &model, n, &streams, &constants).unwrap();
    for (row, y) in values.all().unwrap().iter().enumerate() {
        let expected = streams[0].standard_normal(row as u64, 1);
        assert!((y - expected).abs() <= 1e-14, "{row}: {y} {expected}");
    }
}

#[test]
fn truncated_normal_inputs_agree_to_1e_13_far_into_the_tails() {
    let input = InputLaw::Normal {
        mean: vec![0.0; 4],
        sd: vec![1.0; 4],
        truncation: 8.0,
    };
    let model = model(input, mixture(GateKind::Constant, None, 4, 2, true));
    let constants = Structure::of(&model.parameters).constants();
    let (n, streams) = (50_000, streams(1));
    let values = draw(&device(), &model, n, &streams, &constants).unwrap();
    let values = values.all().unwrap();
    let sample = draw_sample(&model, 0, n, &streams[0]);
    let mut largest = 0.0f64;
    for j in 0..4 {
        for (a, b) in values[j * n..(j + 1) * n].iter().zip(sample.column(j)) {
            assert!((a - b).abs() <= 1e-13 * b.abs(), "{a} {b}");
            largest = largest.max(b.abs());
        }
    }
    assert!(largest > 4.0);
}

#[test]
fn no_rows_or_no_streams_are_no_work() {
    let model = model(
        laws(1).remove(0),
        mixture(GateKind::Softmax, None, 1, 2, true),
    );
    let constants = Structure::of(&model.parameters).constants();
    let none = draw(&device(), &model, 0, &streams(2), &constants).unwrap();
    assert_eq!(none.len(), 0);
    let none = draw(&device(), &model, 10, &[], &constants).unwrap();
    assert_eq!(none.len(), 0);
}

#[test]
fn a_lattice_is_refused() {
    let input = InputLaw::Grid {
        points: vec![vec![0.5]],
        lattice: Some(0.5),
    };
    let model = model(input, mixture(GateKind::Softmax, None, 1, 2, true));
    let constants = Structure::of(&model.parameters).constants();
    let error = draw(&device(), &model, 10, &streams(1), &constants).unwrap_err();
    assert!(error.to_string().contains("lattice"), "{error}");
}
