//! What a loss of responses teaches the experts that did not win.
//!
//! A loss of all responses a_te = response(E_e(x_t)), such as their balance, has a
//! gradient in every expert on every token. Winners get theirs with their other
//! gradients ([`crate::train::router::competition::Competition::add_output_gradients`]);
//! losers kept no outputs and are computed again here, a block of tokens at a time, so
//! that memory grows with the block and not with the batch.

use crate::train::moe::experts::{self, Saved, Shape, Weights, Workspace};
use crate::train::moe::{Assignment, Dispatch};
use crate::train::ops::real::Real;
use crate::train::ops::rows;
use crate::train::router::response::Response;

/// Tokens of a block: one task per expert.
const TOKENS: usize = experts::BLOCK;

/// Adds the gradients of the losers of `winners`: to `dx` of the tokens, to
/// `gradients` of the experts' weights.
///
/// # Shapes
/// x, dx: tokens, width. d_affinities: tokens, experts. Weights are taken as checked
/// by [`Shape::check`].
#[allow(clippy::too_many_arguments)]
pub fn backward<T: Real>(
    shape: Shape,
    weights: &Weights<&[T]>,
    response: Response,
    x: &[T],
    winners: &Assignment<T>,
    d_affinities: &[T],
    dx: &mut [T],
    mut gradients: Weights<&mut [T]>,
) {
    let width = shape.width;
    let (mut saved, mut workspace) = (Saved::default(), Workspace::default());
    for (block, (x, dx)) in x
        .chunks(TOKENS * width)
        .zip(dx.chunks_mut(TOKENS * width))
        .enumerate()
    {
        let first = block * TOKENS;
        let losers = losers(winners, first..first + x.len() / width);
        let dispatch = Dispatch::new(&losers, None);
        experts::forward(shape, weights, x, &dispatch, &mut saved);
        let d_out = |slot: usize, d_out: &mut [T]| {
            let token = first + dispatch.tokens()[slot] as usize;
            let expert = losers.experts()[dispatch.pairs()[slot] as usize] as usize;
            let d_response = d_affinities[token * shape.experts + expert];
            let out = &saved.outputs()[slot * width..][..width];
            d_out.fill(T::ZERO);
            response.backward(out, d_response, d_out);
        };
        experts::backward(
            shape,
            weights,
            x,
            &dispatch,
            &saved,
            &mut workspace,
            d_out,
            gradients.each_mut().map(|g| &mut **g),
        );
        rows::for_each(dx, width, |token, dx| {
            for pair in losers.pairs_of(token) {
                let slot = dispatch.slots()[pair] as usize;
                for (dx, &from) in dx.iter_mut().zip(&workspace.dx[slot * width..][..width]) {
                    *dx += from;
                }
            }
        });
    }
}

/// The experts of these tokens that are not among the winners, in order.
fn losers<T: Real>(winners: &Assignment<T>, tokens: std::ops::Range<usize>) -> Assignment<T> {
    let count = winners.expert_count();
    let mut offsets = vec![0];
    let mut experts = Vec::with_capacity(tokens.len() * count);
    for token in tokens {
        let won = &winners.experts()[winners.pairs_of(token)];
        experts.extend((0..count as u32).filter(|e| !won.contains(e)));
        offsets.push(experts.len() as u32);
    }
    // Weights mean nothing here: responses are of outputs without weights.
    let weights = vec![T::ONE; experts.len()];
    Assignment::new(offsets, experts, weights, count).expect("offsets and experts are in order")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::moe::competition;
    use crate::train::moe::experts::Hidden;
    use crate::train::ops::activation::Activation;
    use crate::train::ops::check::{assert_gradient, distance, inner, normals};
    use crate::train::router::competition::Competition;

    const SHAPE: Shape = Shape {
        experts: 5,
        width: 4,
        hidden: 6,
        kind: Hidden::Plain(Activation::Gelu),
    };

    fn weights() -> Weights<Vec<f64>> {
        Weights {
            up: normals(1, 5 * 4 * 6),
            gate: None,
            down: normals(2, 5 * 4 * 6),
            up_bias: Some(normals(3, 5 * 6)),
            down_bias: Some(normals(4, 5 * 4)),
        }
    }

    fn zeros() -> Weights<Vec<f64>> {
        weights().map(|w| vec![0.0; w.len()])
    }

    fn responses(response: Response, w: &Weights<Vec<f64>>, x: &[f64]) -> Vec<f64> {
        let mut a = vec![0.0; x.len() / 4 * 5];
        competition::affinities(SHAPE, &w.view(), response, x, &mut a);
        a
    }

    #[test]
    fn gradients_of_a_loss_of_the_losers_responses_match_finite_differences() {
        let (x, w, c) = (normals(5, 7 * 4), weights(), normals(6, 7 * 5));
        for competition in [
            Competition::first_version(2),
            Competition::second_version(2),
        ] {
            let response = competition.response;
            let a = responses(response, &w, &x);
            let winners = competition.winners.forward(&a, 5).unwrap();
            // What losers alone contribute: their entries of c.
            let mut own = c.clone();
            for token in 0..7 {
                for &expert in &winners.experts()[winners.pairs_of(token)] {
                    own[token * 5 + expert as usize] = 0.0;
                }
            }
            let (mut dx, mut gradients) = (vec![0.0; x.len()], zeros());
            let view = gradients.view_mut();
            backward(SHAPE, &w.view(), response, &x, &winners, &c, &mut dx, view);
            let value = |w: &Weights<Vec<f64>>, x: &[f64]| inner(&responses(response, w, x), &own);
            assert_gradient("x", &x, &dx, |x| value(&w, x));
            assert_gradient("up", &w.up, &gradients.up, |v| {
                let up = v.to_vec();
                value(&Weights { up, ..w.clone() }, &x)
            });
            assert_gradient("down", &w.down, &gradients.down, |v| {
                let down = v.to_vec();
                value(&Weights { down, ..w.clone() }, &x)
            });
            let (at, gradient) = (w.up_bias.as_ref(), gradients.up_bias.as_ref());
            assert_gradient("up bias", at.unwrap(), gradient.unwrap(), |v| {
                let up_bias = Some(v.to_vec());
                value(
                    &Weights {
                        up_bias,
                        ..w.clone()
                    },
                    &x,
                )
            });
        }
    }

    #[test]
    fn blocks_of_tokens_add_up_and_what_was_there_stays() {
        let tokens = 2 * TOKENS + 5;
        let (x, w, c) = (normals(5, tokens * 4), weights(), normals(6, tokens * 5));
        let response = Response::SoftplusMean;
        let rule = Competition::second_version(2).winners;
        let winners = |x: &[f64]| rule.forward(&responses(response, &w, x), 5).unwrap();
        let (mut dx, mut whole) = (vec![1.0; x.len()], zeros());
        let (view, out) = (w.view(), whole.view_mut());
        backward(SHAPE, &view, response, &x, &winners(&x), &c, &mut dx, out);
        let (mut expected_dx, mut parts) = (vec![1.0; x.len()], zeros());
        for token in 0..tokens {
            let x = &x[token * 4..][..4];
            let (dx, out) = (&mut expected_dx[token * 4..][..4], parts.view_mut());
            let c = &c[token * 5..][..5];
            backward(SHAPE, &view, response, x, &winners(x), c, dx, out);
        }
        assert!(distance(&dx, &expected_dx) < 1e-12);
        assert!(distance(&whole.up, &parts.up) < 1e-11);
        assert!(distance(&whole.down, &parts.down) < 1e-11);
    }

    #[test]
    fn where_all_experts_win_nobody_loses() {
        let (x, w) = (normals(5, 7 * 4), weights());
        let everyone = Assignment::everyone(7, 5).unwrap();
        let (mut dx, mut gradients) = (vec![0.0; x.len()], zeros());
        let (view, out) = (w.view(), gradients.view_mut());
        backward(
            SHAPE,
            &view,
            Response::Norm,
            &x,
            &everyone,
            &[1.0; 35],
            &mut dx,
            out,
        );
        assert!(dx.iter().chain(&gradients.up).all(|g| *g == 0.0));
    }
}
