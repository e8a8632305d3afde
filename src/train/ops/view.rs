//! Matrices where they lie.

use crate::train::ops::real::Real;

/// A matrix to read: element (i, j) lies at `i * strides[0] + j * strides[1]`, or with
/// `order[j]` for j.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    values: &'a [T],
    shape: [usize; 2],
    strides: [usize; 2],
    order: Option<&'a [u32]>,
}

impl<'a, T> View<'a, T> {
    /// Rows one after another. `values.len() == rows * columns`.
    pub fn rows(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a view covers its slice");
        View::strided(values, [rows, columns], [columns, 1])
    }

    /// Any layout inside `values`.
    pub fn strided(values: &'a [T], shape: [usize; 2], strides: [usize; 2]) -> Self {
        assert!(
            reach(shape, strides) <= values.len(),
            "a view fits its slice"
        );
        View {
            values,
            shape,
            strides,
            order: None,
        }
    }

    /// The transpose of the rows `order` of a matrix with `columns` columns: a product's
    /// left matrix, taken where its rows lie.
    ///
    /// Shape: columns, length of the order.
    pub fn transposed_rows(values: &'a [T], columns: usize, order: &'a [u32]) -> Self {
        let rows = order.iter().max().map_or(0, |&last| last as usize + 1);
        assert!(rows * columns <= values.len(), "a view fits its slice");
        View {
            values,
            shape: [columns, order.len()],
            strides: [1, columns],
            order: Some(order),
        }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    pub(super) fn strides(&self) -> [usize; 2] {
        self.strides
    }

    /// Where the column `first` starts.
    pub(super) fn columns_from(&self, first: usize) -> *const T {
        self.values.as_ptr().wrapping_add(first * self.strides[1])
    }

    /// Rows and columns exchanged.
    pub fn transposed(self) -> Self {
        assert!(self.order.is_none(), "only columns have an order");
        View {
            shape: [self.shape[1], self.shape[0]],
            strides: [self.strides[1], self.strides[0]],
            ..self
        }
    }

    pub(super) fn order(&self) -> Option<&'a [u32]> {
        self.order
    }

    /// For operands whose columns must lie one after another.
    pub(super) fn assert_unordered(&self) {
        assert!(self.order.is_none(), "only a product's left matrix");
    }
}

impl<T: Real> View<'_, T> {
    /// Element (i, j).
    pub(super) fn at(&self, i: usize, j: usize) -> T {
        self.values[i * self.strides[0] + j * self.strides[1]]
    }
}

/// A matrix to write.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    values: &'a mut [T],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a, T> ViewMut<'a, T> {
    /// Rows one after another. `values.len() == rows * columns`.
    pub fn rows(values: &'a mut [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a view covers its slice");
        ViewMut::strided(values, [rows, columns], columns)
    }

    /// Rows that start `row_stride` apart.
    pub fn strided(values: &'a mut [T], shape: [usize; 2], row_stride: usize) -> Self {
        let strides = [row_stride, 1];
        assert!(shape[1] <= row_stride || shape[0] <= 1, "rows are disjoint");
        assert!(
            reach(shape, strides) <= values.len(),
            "a view fits its slice"
        );
        ViewMut {
            values,
            shape,
            strides,
        }
    }
}

impl<T> ViewMut<'_, T> {
    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Between the starts of two rows.
    pub(super) fn stride(&self) -> usize {
        self.strides[0]
    }

    pub(super) fn start(self) -> *mut T {
        self.values.as_mut_ptr()
    }

    /// The same for a while.
    pub(super) fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut {
            values: self.values,
            shape: self.shape,
            strides: self.strides,
        }
    }

    /// Row after row.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let [rows, columns] = self.shape;
        let chunks = self.values.chunks_mut(self.strides[0].max(1));
        chunks.take(rows).map(move |row| &mut row[..columns])
    }
}

/// One past the last element of a view.
fn reach(shape: [usize; 2], strides: [usize; 2]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1] + 1
}
