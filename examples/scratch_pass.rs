#[path = "../tests/common/mod.rs"]
mod common;
use smoe_lab::backend::*;
use smoe_lab::model::*;
use smoe_lab::rng::*;
use std::time::Instant;
fn main() {
    let noise = [0.7, -0.4, 1.1, -0.9, 0.3, -1.2, 0.5, 0.8, -0.6];
    for (name, kind) in [
        ("softmax", GateKind::Softmax),
        (
            "softplus",
            GateKind::Competition {
                response: Response::Softplus,
                weights: Weights::Softmax,
                kappa: 1.0,
            },
        ),
        (
            "abs",
            GateKind::Competition {
                response: Response::Absolute,
                weights: Weights::Softmax,
                kappa: 1.0,
            },
        ),
    ] {
        for (k, d) in [(2, 1), (3, 2), (4, 4)] {
            let p = common::mixture(
                common::dense(kind),
                ExpertKind::Linear,
                k,
                d,
                VarianceStructure::PerExpert,
                &noise,
            );
            let model = Model {
                input: InputLaw::Uniform {
                    low: vec![-1.0; d],
                    high: vec![1.0; d],
                },
                parameters: p.clone(),
            };
            let n = 100_000usize;
            let t = Instant::now();
            let data = draw_sample(&model, 0, n, &Stream::named(1, "a", 0, Purpose::Data));
            let ts = t.elapsed().as_secs_f64() * 1e9 / n as f64;
            let best = |f: &dyn Fn()| {
                (0..15)
                    .map(|_| {
                        let t = Instant::now();
                        f();
                        t.elapsed().as_secs_f64() * 1e9 / n as f64
                    })
                    .fold(f64::MAX, f64::min)
            };
            let levels = smoe_lab::num::lanes::Level::available();
            for l in levels {
                let c = Cpu::at_level(l);
                println!(
                    "{name} K={k} d={d} {l:?}: value {:.2} grad {:.2} hess {:.2} outer {:.2} em {:.2} sample {:.1}",
                    best(&|| {
                        std::hint::black_box(c.log_likelihood(&p, &data));
                    }),
                    best(&|| {
                        std::hint::black_box(c.gradient(&p, &data));
                    }),
                    best(&|| {
                        std::hint::black_box(c.derivatives(&p, &data));
                    }),
                    best(&|| {
                        std::hint::black_box(c.score_outer(&p, &data));
                    }),
                    best(&|| {
                        std::hint::black_box(c.em_statistics(&p, &data));
                    }),
                    ts
                );
            }
        }
    }
    let mut v: Vec<f64> = (0..65536).map(|i| -10.0 * (i as f64) / 65536.0).collect();
    let w = v.clone();
    let mut b = f64::MAX;
    for _ in 0..30 {
        v.copy_from_slice(&w);
        let t = Instant::now();
        smoe_lab::num::vector_math::exp_in_place(&mut v);
        b = b.min(t.elapsed().as_secs_f64() / 65536.0 * 1e9);
    }
    println!("exp {b:.3} ns");
    let w: Vec<f64> = w.iter().map(|x| 1.0 - x).collect();
    let mut b = f64::MAX;
    for _ in 0..30 {
        v.copy_from_slice(&w);
        let t = Instant::now();
        smoe_lab::num::vector_math::ln_in_place(&mut v);
        b = b.min(t.elapsed().as_secs_f64() / 65536.0 * 1e9);
    }
    println!("ln {b:.3} ns");
}
