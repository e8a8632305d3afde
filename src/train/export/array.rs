//! A matrix or a vector on the host.

use std::ops::Range;

/// Row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    pub(super) fn new([rows, columns]: [usize; 2], values: Vec<f32>) -> Self {
        debug_assert_eq!(rows * columns, values.len());
        Array {
            shape: vec![rows, columns],
            values,
        }
    }

    pub(super) fn zeros(shape: [usize; 2]) -> Self {
        Array::new(shape, vec![0.0; shape[0] * shape[1]])
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    fn matrix(&self) -> [usize; 2] {
        match self.shape[..] {
            [rows, columns] => [rows, columns],
            _ => [1, self.values.len()],
        }
    }

    /// As one dimension.
    pub(super) fn vector(&self) -> Self {
        Array {
            shape: vec![self.values.len()],
            values: self.values.clone(),
        }
    }

    pub(super) fn transposed(&self) -> Self {
        let [rows, columns] = self.matrix();
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            values.extend((0..rows).map(|row| self.values[row * columns + column]));
        }
        Array::new([columns, rows], values)
    }

    pub(super) fn rows(&self, rows: Range<usize>) -> Self {
        let [_, columns] = self.matrix();
        let values = &self.values[rows.start * columns..rows.end * columns];
        Array::new([rows.len(), columns], values.to_vec())
    }

    /// One below the other.
    pub(super) fn stacked(parts: &[Array]) -> Self {
        let columns = parts.first().map_or(0, |part| part.matrix()[1]);
        let values: Vec<f32> = parts.iter().flat_map(|p| p.values.clone()).collect();
        let rows = parts.iter().map(|part| part.matrix()[0]).sum();
        Array::new([rows, columns], values)
    }

    pub(super) fn times(&self, factor: f32) -> Self {
        Array {
            shape: self.shape.clone(),
            values: self.values.iter().map(|v| factor * v).collect(),
        }
    }
}
