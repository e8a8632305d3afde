//! A random permutation, one place at a time.
//!
//! A Feistel network on numbers of 2 h bits, x = (l, r) -> (r, l xor f(r)), is a
//! bijection whatever f is (Luby and Rackoff 1988). Applied again until it lands below
//! n, it is one of 0..n (cycle walking: Black and Rogaway 2002). So a place is found
//! without a table, on any machine, in any order.

use crate::rng::Stream;

const ROUNDS: u64 = 8;

/// A permutation of 0..size, named by a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    stream: Stream,
    size: u64,
    half: u32,
}

impl Permutation {
    pub fn new(stream: Stream, size: u64) -> Permutation {
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        Permutation {
            stream,
            size,
            half: bits.div_ceil(2),
        }
    }

    /// What stands at `index`, which is below the size.
    pub fn at(&self, index: u64) -> u64 {
        let mut value = index;
        loop {
            value = self.network(value);
            if value < self.size {
                return value;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let values = (1u64 << self.half) as f64;
        let (mut left, mut right) = (value >> self.half, value & ((1 << self.half) - 1));
        for round in 0..ROUNDS {
            let [uniform, _] = self.stream.uniform_pair(right, round);
            (left, right) = (right, left ^ (uniform * values) as u64);
        }
        (left << self.half) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn permutation(seed: u64, size: u64) -> Permutation {
        Permutation::new(Stream::named(seed, "test", 0, Purpose::Windows), size)
    }

    #[test]
    fn every_value_stands_at_one_place() {
        for size in [1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097] {
            let permutation = permutation(1, size);
            let mut values: Vec<u64> = (0..size).map(|i| permutation.at(i)).collect();
            let in_order = values.is_sorted();
            values.sort_unstable();
            assert_eq!(values, (0..size).collect::<Vec<u64>>());
            assert!(size < 16 || !in_order);
        }
    }

    /// Pearson's chi-square of (place, value) over independent permutations of 7 has
    /// (7 - 1)^2 = 36 degrees of freedom: above 102 with probability 3e-8. Identity or a
    /// fixed permutation gives thousands.
    #[test]
    fn every_value_is_as_likely_at_every_place() {
        let (size, seeds) = (7usize, 7000);
        let mut counts = vec![0u32; size * size];
        for seed in 0..seeds {
            let permutation = permutation(seed, size as u64);
            for i in 0..size {
                counts[i * size + permutation.at(i as u64) as usize] += 1;
            }
        }
        let expected = seeds as f64 / size as f64;
        let square = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
        let statistic: f64 = counts.iter().map(square).sum();
        assert!(statistic < 102.0, "chi-square {statistic}");
    }
}
