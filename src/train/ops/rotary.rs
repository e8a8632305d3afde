//! Rotary positions (Su et al. 2021).
//!
//! The first r channels of a head are r/2 pairs (j, j + r/2); at position t pair j
//! turns by t base^(-2j/r). Positions enter products of queries and keys only
//! through their difference. The backward pass turns back.

use crate::error::{Error, Result};
use crate::train::ops::real::{Real, vectorised};
use crate::train::ops::rows;

/// Sines and cosines of every position.
#[derive(Clone, Debug)]
pub struct Rotary<T> {
    /// [cosine, sine] of position and pair. Shape: positions, pairs.
    turns: Vec<[T; 2]>,
    pairs: usize,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The forward pass.
    Forth,
    /// The backward pass, on gradients.
    Back,
}

impl<T: Real> Rotary<T> {
    /// Turns of the first `channels` channels of a head.
    ///
    /// # Errors
    /// [`Error::Value`] if the number of channels is odd.
    pub fn new(positions: usize, channels: usize, base: f64) -> Result<Self> {
        if !channels.is_multiple_of(2) {
            return Err(Error::value("rotary.channels", "must be even"));
        }
        let pairs = channels / 2;
        let turn = |i: usize| {
            let rate = base.powf(-2.0 * (i % pairs) as f64 / channels as f64);
            let angle = (i / pairs) as f64 * rate;
            [T::of(angle.cos()), T::of(angle.sin())]
        };
        Ok(Rotary {
            turns: (0..positions * pairs).map(turn).collect(),
            pairs,
        })
    }

    /// Fails if sequences are longer than the table, or heads narrower.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check(&self, length: usize, width: usize) -> Result<()> {
        if self.turns.len() < length * self.pairs || width < 2 * self.pairs {
            let message = format!("cover no sequence of {length} with heads of {width}");
            return Err(Error::value("rotary positions", message));
        }
        Ok(())
    }

    /// Turns, in place, the heads that start at `starts` in every row. Row i is at
    /// position i mod `length`.
    ///
    /// # Shapes
    /// x: rows, columns.
    pub fn apply(&self, x: &mut [T], columns: usize, length: usize, starts: &[usize], turn: Turn) {
        let sign = match turn {
            Turn::Forth => T::ONE,
            Turn::Back => -T::ONE,
        };
        rows::for_each(x, columns, |row, x| {
            let turns = &self.turns[row % length * self.pairs..][..self.pairs];
            for &start in starts {
                let (first, second) = x[start..][..2 * self.pairs].split_at_mut(self.pairs);
                vectorised!(|| {
                    let turned = first.iter_mut().zip(second).zip(turns);
                    for ((a, b), &[cosine, sine]) in turned {
                        let sine = sine * sign;
                        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn turning_back_is_the_gradient_of_turning_forth() {
        let rotary = Rotary::new(3, 4, 100.0).unwrap();
        let (x, c) = (normals(1, 60), normals(2, 60));
        let value = |x: &[f64]| {
            let mut y = x.to_vec();
            rotary.apply(&mut y, 10, 3, &[0, 5], Turn::Forth);
            inner(&y, &c)
        };
        let mut gradient = c.clone();
        rotary.apply(&mut gradient, 10, 3, &[0, 5], Turn::Back);
        assert_gradient("x", &x, &gradient, value);
    }

    #[test]
    fn an_odd_number_of_channels_and_a_short_table_are_refused() {
        assert!(Rotary::<f32>::new(3, 5, 100.0).is_err());
        let rotary = Rotary::<f32>::new(3, 4, 100.0).unwrap();
        assert!(rotary.check(3, 4).is_ok());
        assert!(rotary.check(4, 4).is_err());
        assert!(rotary.check(3, 2).is_err());
    }

    #[test]
    fn products_depend_on_the_difference_of_positions_only() {
        let rotary = Rotary::new(9, 6, 10_000.0).unwrap();
        let (query, key) = (normals(1, 6), normals(2, 6));
        let product = |i: usize, j: usize| {
            let place = |x: &[f64], position: usize| {
                let mut rows = vec![0.0; 54];
                rows[position * 6..][..6].copy_from_slice(x);
                rotary.apply(&mut rows, 6, 9, &[0], Turn::Forth);
                rows[position * 6..][..6].to_vec()
            };
            inner(&place(&query, i), &place(&key, j))
        };
        assert!((product(3, 1) - product(8, 6)).abs() < 1e-13);
        assert!((product(3, 1) - product(3, 2)).abs() > 1e-3);
        assert_eq!(product(0, 0), inner(&query, &key));
    }
}
