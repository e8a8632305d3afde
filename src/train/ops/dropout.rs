//! Dropout (Srivastava et al. 2014): y = x m / (1 - p), m = 0 with probability p,
//! else 1.
//!
//! m is a function of the stream and of (token, channel), so the backward pass is the
//! same call on the gradient, and a forward pass that is run again gives the same y.

use crate::rng::Stream;
use crate::train::ops::real::Real;
use crate::train::ops::rows;
use rand_philox::philox4x32_10;

/// Multiplies every element by 0 or 1 / (1 - share).
///
/// Channel c of a token takes word c mod 4 of block (token, c / 4) of the stream; it
/// is dropped if the word is below share 2^32.
///
/// # Shapes
/// x: tokens, width; its first row is token `first_token` of the stream. share: in
/// [0, 1).
pub fn apply<T: Real>(stream: &Stream, share: f64, first_token: u64, width: usize, x: &mut [T]) {
    let limit = (share * 4_294_967_296.0) as u32;
    let scale = T::of(1.0 / (1.0 - share));
    rows::for_each(x, width, |row, x| {
        let token = first_token + row as u64;
        for (block, x) in x.chunks_mut(4).enumerate() {
            let counter = [token as u32, (token >> 32) as u32, block as u32, 0];
            let words = philox4x32_10(counter, stream.key());
            for (x, word) in x.iter_mut().zip(words) {
                *x *= if word < limit { T::ZERO } else { scale };
            }
        }
    });
}
