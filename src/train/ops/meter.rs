//! Time inside matrix products, on all threads together.
//!
//! One meter for the whole process, off until it is started; off, it costs a product
//! one relaxed load. Times of threads add up: with n threads, products can spend n
//! seconds per second.

use serde::{Deserialize, Serialize};
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

static ON: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: AtomicU64 = AtomicU64::new(0);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// What products cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Summed over threads.
    pub seconds: f64,
    /// Multiplications and additions: 2 m k n of a product.
    pub operations: f64,
}

impl Spent {
    /// Operations per second of one thread, while it was inside a product.
    pub fn rate(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.operations / self.seconds,
            false => 0.0,
        }
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent {
            seconds: self.seconds - before.seconds,
            operations: self.operations - before.operations,
        }
    }
}

/// Starts metering.
pub fn start() {
    ON.store(true, Relaxed);
}

/// Ends metering.
pub fn stop() {
    ON.store(false, Relaxed);
}

/// All that was metered so far.
pub fn spent() -> Spent {
    Spent {
        seconds: NANOSECONDS.load(Relaxed) as f64 * 1e-9,
        operations: OPERATIONS.load(Relaxed) as f64,
    }
}

/// Runs a product of this many operations.
#[inline]
pub(super) fn product(operations: usize, work: impl FnOnce()) {
    if !ON.load(Relaxed) {
        return work();
    }
    let start = Instant::now();
    work();
    NANOSECONDS.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    OPERATIONS.fetch_add(operations as u64, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::matmul::{self, Into, View, ViewMut};

    #[test]
    fn a_product_is_metered_with_its_operations_and_time() {
        // Other tests' products may be metered too: bounds from below.
        let (m, k, n) = (130, 40, 300);
        let (a, b) = (vec![1.0_f32; m * k], vec![1.0_f32; k * n]);
        let mut c = vec![0.0; m * n];
        start();
        let before = spent();
        let view = ViewMut::rows(&mut c, m, n);
        matmul::product(
            View::rows(&a, m, k),
            View::rows(&b, k, n),
            view,
            Into::Written,
        );
        let spent = spent() - before;
        assert!(spent.operations >= (2 * m * k * n) as f64);
        assert!(spent.seconds > 0.0 && spent.rate() > 0.0);
        assert_eq!(c[0], k as f32);
    }
}
