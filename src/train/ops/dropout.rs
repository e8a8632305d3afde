//! Dropout (Srivastava et al. 2014): y = x m / (1 - p), m = 0 with probability p,
//! else 1.
//!
//! m is a function of the stream and of (token, channel), so the backward pass is the
//! same call on the gradient, and a forward pass that is run again gives the same y.

use crate::num::lanes::WIDTH;
use crate::rng::Stream;
use crate::train::ops::real::{Real, vectorised};
use crate::train::ops::rows;

/// Multiplies every element by 0 or 1 / (1 - share).
///
/// Channel c of a token takes word c mod 4 of block (token, c / 4) of the stream; it
/// is dropped if the word is below share 2^32.
///
/// # Shapes
/// x: tokens, width; its first row is token `first_token` of the stream. share: in
/// [0, 1).
pub fn apply<T: Real>(stream: &Stream, share: f64, first_token: u64, width: usize, x: &mut [T]) {
    let limit = (share * 4_294_967_296.0) as u64;
    let scale = T::of(1.0 / (1.0 - share));
    rows::for_each(x, width, |row, x| {
        let token = first_token + row as u64;
        vectorised!(|| {
            for (eight, x) in x.chunks_mut(4 * WIDTH).enumerate() {
                let words = stream.words_of_draws(token, (eight * WIDTH) as u64);
                let mut factors = [T::ZERO; 4 * WIDTH];
                for (i, factor) in factors.iter_mut().enumerate() {
                    let dropped = words[i % 4][i / 4] < limit;
                    *factor = if dropped { T::ZERO } else { scale };
                }
                for (x, &factor) in x.iter_mut().zip(&factors) {
                    *x *= factor;
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    fn stream() -> Stream {
        Stream::named(1, "dropout", 0, Purpose::Dropout(0))
    }

    #[test]
    fn dropout_of_the_gradient_is_the_gradient_of_dropout() {
        let (x, c) = (normals(1, 21), normals(2, 21));
        let mut gradient = c.clone();
        apply(&stream(), 0.4, 3, 7, &mut gradient);
        assert!(gradient.contains(&0.0));
        assert_gradient("x", &x, &gradient, |x| {
            let mut x = x.to_vec();
            apply(&stream(), 0.4, 3, 7, &mut x);
            inner(&x, &c)
        });
    }

    #[test]
    fn the_share_is_dropped_everywhere_alike_and_the_mean_is_kept() {
        let (tokens, width) = (20_000, 6);
        let mut x = vec![1.0_f32; tokens * width];
        apply(&stream(), 0.3, 0, width, &mut x);
        let kept = 1.0 / 0.7_f32;
        assert!(x.iter().all(|&x| x == 0.0 || x == kept));
        for channel in 0..width {
            let column = x.iter().skip(channel).step_by(width);
            let dropped = column.filter(|x| **x == 0.0).count() as f64 / tokens as f64;
            // Five standard errors of a share of 0.3.
            assert!((dropped - 0.3).abs() < 5.0 * (0.21 / tokens as f64).sqrt());
        }
    }

    #[test]
    fn a_token_keeps_its_mask_in_any_batch_and_a_share_of_zero_changes_nothing() {
        let (mut all, mut later) = (vec![1.0_f32; 60], vec![1.0_f32; 30]);
        apply(&stream(), 0.5, 0, 6, &mut all);
        apply(&stream(), 0.5, 5, 6, &mut later);
        assert_eq!(later, all[30..]);
        let mut same = normals(1, 60);
        apply(&stream(), 0.0, 0, 6, &mut same);
        assert_eq!(same, normals(1, 60));
    }
}
