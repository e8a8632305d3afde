//! f64 instructions that a row of a pass needs: counted in the machine code for two
//! structures (`docs/gpu.md`), here for all that a bench asks for.

use smoe_lab::model::{GateKind, Parameters};

/// Instructions of an exponential, a logarithm, log(1 + e) with both its branches, as
/// rows of a warp take both, and an inverse.
const EXPONENTIAL: usize = 17;
const LOGARITHM: usize = 30;
const LOGARITHM_OF_ONE_AND: usize = 52;
const INVERSE: usize = 6;

/// Of a value, and of value, gradient and Hessian; linear experts without output
/// weights under a softmax or a softplus gate.
pub struct Operations {
    pub value: usize,
    pub derivatives: usize,
}

pub fn operations(parameters: &Parameters) -> Operations {
    let (k, d) = (parameters.experts.len(), parameters.dimension());
    let softmax = parameters.gate.kind == GateKind::Softmax;
    // Of two terms one exponential is enough.
    let normalised = if k == 2 { 1 } else { k };
    let responses = if softmax { 0 } else { k };
    let value = EXPONENTIAL * (2 * normalised + responses)
        + LOGARITHM * 2
        + LOGARITHM_OF_ONE_AND * responses
        + INVERSE * (2 + responses)
        + k * (2 * d + 13)
        + 1;
    // Degrees in x of what the density is differentiated in, expert by expert: mean,
    // variance, gate, which the last expert does not have.
    let degrees: Vec<(usize, usize)> = (0..k)
        .flat_map(|i| {
            let gate = (i + 1 < k).then_some(usize::from(softmax));
            [Some(1), Some(0), gate]
                .into_iter()
                .flatten()
                .map(move |degree| (i, degree))
        })
        .collect();
    let monomials = |degree: usize| match degree {
        0 => 1,
        1 => d + 1,
        _ => (d + 1) * (d + 2) / 2,
    };
    let drivers = degrees.len();
    let mut outputs = 1;
    let mut same_expert = 0;
    for (u, (i, degree)) in degrees.iter().enumerate() {
        outputs += monomials(*degree);
        for (j, other) in &degrees[u..] {
            outputs += monomials(degree + other);
            same_expert += usize::from(i == j);
        }
    }
    let derivatives =
        value + 12 * k + drivers * (drivers + 1) + 9 * same_expert + 6 * drivers + outputs - 1;
    Operations { value, derivatives }
}
