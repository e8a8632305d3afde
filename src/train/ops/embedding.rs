//! Rows of a table, by number.
//!
//! `y_t = table[id_t]`; `dtable[i] += sum over t with id_t = i of dy_t`.

use crate::train::ops::real::Real;
use crate::train::ops::rows;
use rayon::prelude::*;

/// Writes `y_t = table[id_t]`.
///
/// # Shapes
/// table: vocabulary, width. ids: tokens. y: tokens, width.
pub fn forward<T: Real>(table: &[T], width: usize, ids: &[u32], y: &mut [T]) {
    rows::for_each(y, width, |token, row| {
        row.copy_from_slice(&table[ids[token] as usize * width..][..width]);
    });
}

/// Adds the table's gradient, each row's tokens in their order.
///
/// # Shapes
/// As in [`forward`]; `dy` as y, `dtable` as the table.
pub fn backward<T: Real>(width: usize, ids: &[u32], dy: &[T], dtable: &mut [T]) {
    // Tokens sorted by id, stably, so that every row belongs to one task.
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&token| ids[token as usize]);
    let groups: Vec<&[u32]> = order
        .chunk_by(|&a, &b| ids[a as usize] == ids[b as usize])
        .collect();
    let mut rest = dtable;
    let mut next = 0;
    let mut tasks = Vec::with_capacity(groups.len());
    for group in groups {
        let id = ids[group[0] as usize] as usize;
        let (row, after) = std::mem::take(&mut rest)[(id - next) * width..].split_at_mut(width);
        tasks.push((row, group));
        rest = after;
        next = id + 1;
    }
    tasks.into_par_iter().for_each(|(row, group)| {
        for &token in group {
            let dy = &dy[token as usize * width..][..width];
            for (row, &dy) in row.iter_mut().zip(dy) {
                *row += dy;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_gradient_of_the_table_matches_finite_differences_also_for_repeated_ids() {
        let (width, ids) = (3, [4, 0, 4, 2, 4, 0]);
        let (table, c) = (normals(1, 15), normals(2, 18));
        let value = |table: &[f64]| {
            let mut y = vec![0.0; 18];
            forward(table, width, &ids, &mut y);
            inner(&y, &c)
        };
        let mut gradient = vec![0.0; 15];
        backward(width, &ids, &c, &mut gradient);
        assert_gradient("table", &table, &gradient, value);
    }
}
