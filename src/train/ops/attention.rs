//! Causal attention of many heads, exact.
//!
//! Per sequence and head: S = Q K^T / sqrt(width) for keys not after the query,
//! P = softmax(S) by rows, O = P V. With D_i = sum_c dO_ic O_ic:
//! dV = P^T dO, dS = P * (dO V^T - D), dQ = dS K / sqrt(width), dK = dS^T Q / sqrt(width).
//!
//! Queries are taken in blocks of [`BLOCK`] rows with all keys up to the block's
//! last, so the largest array is one (BLOCK, length) tile per thread. What is kept
//! for the backward pass: the inputs, the output, and one log-sum-exp per query
//! and head, from which the probabilities are computed again (Dao et al. 2022).

use crate::train::ops::matmul::{Into, Product, View, ViewMut};
use crate::train::ops::real::{Real, dot, vectorised};
use crate::train::ops::softmax;
use rayon::prelude::*;

/// Query rows handled at a time.
pub const BLOCK: usize = 32;

/// The sizes of an attention operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Independent sequences.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
}

impl Shape {
    /// Columns of Q, K, V or O: heads times width.
    pub fn columns(&self) -> usize {
        self.heads * self.width
    }

    /// Where the heads of Q and of K start in a row of `qkv`.
    pub fn query_and_key_starts(&self) -> Vec<usize> {
        (0..2 * self.heads).map(|h| h * self.width).collect()
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences * self.length
    }

    fn scale(&self) -> f64 {
        1.0 / (self.width as f64).sqrt()
    }
}

/// Which of the three parts of a row of `qkv`.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

/// Rows `from..to` of one head's part of `qkv`, within its sequence.
fn part<T>(
    shape: Shape,
    sequence: &[T],
    part: Part,
    head: usize,
    from: usize,
    to: usize,
) -> View<'_, T> {
    let stride = 3 * shape.columns();
    let start = from * stride + part as usize * shape.columns() + head * shape.width;
    View::strided(&sequence[start..], [to - from, shape.width], [stride, 1])
}

fn run<T: Real>(left: View<T>, right: View<T>, result: ViewMut<T>, into: Into<T>) {
    let product = Product {
        left,
        right,
        result,
        into,
    };
    product.run();
}

/// Writes O and, for the backward pass, log sum_j exp(S_ij).
///
/// # Shapes
/// qkv: sequences * length, 3 * heads * width (all heads of Q, then K, then V).
/// o: sequences * length, heads * width. log_sums: sequences, heads, length.
pub fn forward<T: Real>(shape: Shape, qkv: &[T], o: &mut [T], log_sums: &mut [T]) {
    let Shape {
        length,
        heads,
        width,
        ..
    } = shape;
    let columns = shape.columns();
    assert_eq!(qkv.len(), 3 * shape.tokens() * columns, "attention: qkv");
    assert_eq!(o.len(), shape.tokens() * columns, "attention: output");
    assert_eq!(
        log_sums.len(),
        shape.tokens() * heads,
        "attention: log sums"
    );
    if o.is_empty() {
        return;
    }
    let scale = T::of(shape.scale());
    // A task is a sequence; below, a head: heads of one sequence interleave in
    // memory, so each computes into its own block and copies it out.
    let heads_out: Vec<Vec<T>> = log_sums
        .par_chunks_mut(length)
        .enumerate()
        .with_max_len(1)
        .map(|(index, log_sums)| {
            let (s, head) = (index / heads, index % heads);
            let sequence = &qkv[s * length * 3 * columns..][..length * 3 * columns];
            let mut scores = vec![T::ZERO; BLOCK.min(length) * length];
            let mut out = vec![T::ZERO; length * width];
            for from in (0..length).step_by(BLOCK) {
                let to = (from + BLOCK).min(length);
                let rows = to - from;
                let scores = &mut scores[..rows * to];
                run(
                    part(shape, sequence, Part::Query, head, from, to),
                    part(shape, sequence, Part::Key, head, 0, to).transposed(),
                    ViewMut::rows(scores, rows, to),
                    Into::Written,
                );
                vectorised!(|| scores.iter_mut().for_each(|s| *s *= scale));
                for (i, row) in scores.chunks_exact_mut(to).enumerate() {
                    // The future with weight zero: whole rows are faster than parts.
                    row[from + i + 1..].fill(T::LOWEST);
                }
                softmax::forward_rows(scores, to, &mut log_sums[from..to]);
                run(
                    View::rows(scores, rows, to),
                    part(shape, sequence, Part::Value, head, 0, to),
                    ViewMut::rows(&mut out[from * width..to * width], rows, width),
                    Into::Written,
                );
            }
            out
        })
        .collect();
    o.par_chunks_mut(columns)
        .enumerate()
        .for_each(|(token, o)| {
            let (s, t) = (token / length, token % length);
            for (head, o) in o.chunks_exact_mut(width).enumerate() {
                o.copy_from_slice(&heads_out[s * heads + head][t * width..][..width]);
            }
        });
}

/// Writes dL/dqkv.
///
/// # Shapes
/// As in [`forward`]; `d_o` as o, `dqkv` as qkv.
pub fn backward<T: Real>(
    shape: Shape,
    qkv: &[T],
    o: &[T],
    log_sums: &[T],
    d_o: &[T],
    dqkv: &mut [T],
) {
    let Shape {
        length,
        heads,
        width,
        ..
    } = shape;
    let columns = shape.columns();
    if o.is_empty() {
        return;
    }
    let scale = T::of(shape.scale());
    // Per sequence and head: dQ, dK, dV one after another.
    let heads_out: Vec<Vec<T>> = (0..shape.sequences * heads)
        .into_par_iter()
        .with_max_len(1)
        .map(|index| {
            let (s, head) = (index / heads, index % heads);
            let sequence = &qkv[s * length * 3 * columns..][..length * 3 * columns];
            let log_sums = &log_sums[index * length..][..length];
            let row_of = |t: usize| {
                let start = (s * length + t) * columns + head * width;
                start..start + width
            };
            let block = BLOCK.min(length);
            let mut probabilities = vec![T::ZERO; block * length];
            let mut gradient = vec![T::ZERO; block * length];
            let mut out = vec![T::ZERO; 3 * length * width];
            let (dq, rest) = out.split_at_mut(length * width);
            let (dk, dv) = rest.split_at_mut(length * width);
            // From the last block, which has all keys: it writes what others add to.
            for from in (0..length).step_by(BLOCK).rev() {
                let to = (from + BLOCK).min(length);
                let rows = to - from;
                let into = match to == length {
                    true => Into::Written,
                    false => Into::Added,
                };
                let probabilities = &mut probabilities[..rows * to];
                let gradient = &mut gradient[..rows * to];
                let query = part(shape, sequence, Part::Query, head, from, to);
                let key = part(shape, sequence, Part::Key, head, 0, to);
                let value = part(shape, sequence, Part::Value, head, 0, to);
                let start = row_of(from).start;
                let d_out = View::strided(&d_o[start..], [rows, width], [columns, 1]);
                let view = |values| ViewMut::rows(values, rows, to);
                run(query, key.transposed(), view(probabilities), Into::Written);
                run(d_out, value.transposed(), view(gradient), Into::Written);
                let pairs = probabilities.chunks_exact_mut(to);
                let pairs = pairs.zip(gradient.chunks_exact_mut(to));
                for (t, (p, g)) in (from..).zip(pairs) {
                    let (log_sum, at) = (log_sums[t], row_of(t));
                    vectorised!(|| {
                        let along = dot(&d_o[at.clone()], &o[at]);
                        // The future too, which whole rows are faster with.
                        for (p, g) in p.iter_mut().zip(&mut *g) {
                            *p = (*p * scale - log_sum).exp();
                            *g = *p * (*g - along) * scale;
                        }
                    });
                    p[t + 1..].fill(T::ZERO);
                    g[t + 1..].fill(T::ZERO);
                }
                let probabilities = View::rows(probabilities, rows, to);
                let gradient = View::rows(gradient, rows, to);
                let own = ViewMut::rows(&mut dq[from * width..to * width], rows, width);
                run(gradient, key, own, Into::Written);
                let past = ViewMut::rows(&mut dk[..to * width], to, width);
                run(gradient.transposed(), query, past, into);
                let past = ViewMut::rows(&mut dv[..to * width], to, width);
                run(probabilities.transposed(), d_out, past, into);
            }
            out
        })
        .collect();
    dqkv.par_chunks_mut(3 * columns)
        .enumerate()
        .for_each(|(token, row)| {
            let (s, t) = (token / length, token % length);
            for (piece, row) in row.chunks_exact_mut(width).enumerate() {
                let (part, head) = (piece / heads, piece % heads);
                let from = (part * length + t) * width;
                row.copy_from_slice(&heads_out[s * heads + head][from..][..width]);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{
        assert_gradient, distance, inner, narrow_normals, normals, threads,
    };

    fn output(shape: Shape, qkv: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let mut o = vec![f64::NAN; shape.tokens() * shape.columns()];
        let mut log_sums = vec![f64::NAN; shape.tokens() * shape.heads];
        forward(shape, qkv, &mut o, &mut log_sums);
        (o, log_sums)
    }

    /// Three loops over the definition.
    fn slow(shape: Shape, qkv: &[f64]) -> Vec<f64> {
        let c = shape.columns();
        let mut o = vec![0.0; shape.tokens() * c];
        for token in 0..shape.tokens() {
            let first = token / shape.length * shape.length;
            for head in 0..shape.heads {
                let at = |t: usize, part: usize| {
                    &qkv[t * 3 * c + part * c + head * shape.width..][..shape.width]
                };
                let weight = |j| (inner(at(token, 0), at(j, 1)) * shape.scale()).exp();
                let total: f64 = (first..=token).map(weight).sum();
                for j in first..=token {
                    for i in 0..shape.width {
                        o[token * c + head * shape.width + i] += weight(j) / total * at(j, 2)[i];
                    }
                }
            }
        }
        o
    }

    #[test]
    fn blocks_of_queries_give_what_three_loops_give() {
        for length in [1, 2, BLOCK, BLOCK + 1, 2 * BLOCK + 7] {
            let shape = Shape {
                sequences: 2,
                length,
                heads: 3,
                width: 4,
            };
            let qkv = normals(1, shape.tokens() * 3 * shape.columns());
            assert!(distance(&output(shape, &qkv).0, &slow(shape, &qkv)) < 1e-12);
        }
    }

    #[test]
    fn the_gradient_of_attention_matches_finite_differences_across_blocks() {
        for (length, width) in [(5, 3), (BLOCK + 3, 1)] {
            let shape = Shape {
                sequences: 2,
                length,
                heads: 2,
                width,
            };
            let qkv = normals(1, shape.tokens() * 3 * shape.columns());
            let c = normals(2, shape.tokens() * shape.columns());
            let (o, log_sums) = output(shape, &qkv);
            let mut gradient = vec![f64::NAN; qkv.len()];
            backward(shape, &qkv, &o, &log_sums, &c, &mut gradient);
            assert_gradient("qkv", &qkv, &gradient, |x| inner(&output(shape, x).0, &c));
        }
    }

    #[test]
    fn a_later_token_changes_no_earlier_output() {
        let shape = Shape {
            sequences: 1,
            length: 70,
            heads: 2,
            width: 4,
        };
        let mut qkv = normals(3, 70 * 24);
        let before = output(shape, &qkv).0;
        qkv[68 * 24..].iter_mut().for_each(|x| *x += 1.0);
        let after = output(shape, &qkv).0;
        assert_eq!(before[..68 * 8], after[..68 * 8]);
        assert!(distance(&before[68 * 8..], &after[68 * 8..]) > 0.1);
    }

    #[test]
    fn attention_does_not_depend_on_the_number_of_threads() {
        let shape = Shape {
            sequences: 3,
            length: 90,
            heads: 2,
            width: 8,
        };
        let qkv = narrow_normals(4, shape.tokens() * 48);
        let d_o = narrow_normals(5, shape.tokens() * 16);
        let run = || {
            let (mut o, mut log_sums) = (vec![0.0_f32; 270 * 16], vec![0.0_f32; 270 * 2]);
            forward(shape, &qkv, &mut o, &mut log_sums);
            let mut dqkv = vec![0.0_f32; 270 * 48];
            backward(shape, &qkv, &o, &log_sums, &d_o, &mut dqkv);
            (o, dqkv)
        };
        assert_eq!(threads(1, run), threads(4, run));
    }
}
