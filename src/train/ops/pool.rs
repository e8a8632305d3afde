//! Memory that tasks of any thread borrow one after another, kept from step to step.

use std::sync::{Mutex, PoisonError};

/// As many pieces of memory as tasks ran at the same time.
#[derive(Debug, Default)]
pub struct Pool<M>(Mutex<Vec<M>>);

impl<M: Default> Pool<M> {
    /// Runs `work` with a piece that nobody else holds; its content is what the task before
    /// has left.
    pub fn lend<R>(&self, work: impl FnOnce(&mut M) -> R) -> R {
        // The lock is held for a push or a pop, which leave the list whole.
        let free = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = free().pop();
        let mut piece = piece.unwrap_or_default();
        let result = work(&mut piece);
        free().push(piece);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_lent_again_and_two_at_a_time_are_not_the_same() {
        let pool = Pool::<Vec<u32>>::default();
        pool.lend(|first| {
            first.push(1);
            pool.lend(|second| assert!(second.is_empty()));
        });
        let lengths = pool.lend(|a| pool.lend(|b| [a.len(), b.len()]));
        assert_eq!(lengths, [1, 0]);
    }
}
