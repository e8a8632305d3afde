//! Affine map of rows.
//!
//! y = x W + b; dx = dy W^T, dW += x^T dy, db += sum over rows of dy.

use crate::train::ops::matmul::{Into, Product, View, ViewMut, products};
use crate::train::ops::real::Real;
use crate::train::ops::rows;

/// The sizes of an affine map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of x and y.
    pub rows: usize,
    /// Columns of x, rows of W.
    pub inputs: usize,
    /// Columns of y and W.
    pub outputs: usize,
}

/// Writes y.
///
/// # Shapes
/// x: rows, inputs. weight: inputs, outputs. bias: outputs. y: rows, outputs.
pub fn forward<T: Real>(shape: Shape, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let Shape {
        rows,
        inputs,
        outputs,
    } = shape;
    products(vec![Product {
        left: View::rows(x, rows, inputs),
        right: View::rows(weight, inputs, outputs),
        result: ViewMut::rows(y, rows, outputs),
        into: Into::with(bias),
    }]);
}

/// Gradients of the parameters, added to; shapes as the parameters.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// dL/dW
    pub weight: &'a mut [T],
    /// dL/db, if there is a bias.
    pub bias: Option<&'a mut [T]>,
}

/// Writes dL/dx where asked for and adds the gradients of the parameters where
/// asked for: a frozen map has none, the first of a network needs no dL/dx.
///
/// # Shapes
/// As in [`forward`]; `dy` as y, `dx` as x.
pub fn backward<T: Real>(
    shape: Shape,
    x: &[T],
    weight: &[T],
    dy: &[T],
    dx: Option<&mut [T]>,
    gradients: Option<Gradients<T>>,
) {
    let Shape {
        rows,
        inputs,
        outputs,
    } = shape;
    let dy_view = View::rows(dy, rows, outputs);
    let mut all = Vec::new();
    if let Some(dx) = dx {
        all.push(Product {
            left: dy_view,
            right: View::rows(weight, inputs, outputs).transposed(),
            result: ViewMut::rows(dx, rows, inputs),
            into: Into::Written,
        });
    }
    if let Some(gradients) = gradients {
        if let Some(bias) = gradients.bias {
            add_bias_gradient(dy, outputs, bias);
        }
        all.push(Product {
            left: View::rows(x, rows, inputs).transposed(),
            right: dy_view,
            result: ViewMut::rows(gradients.weight, inputs, outputs),
            into: Into::Added,
        });
    }
    products(all);
}

/// db += sum over rows of dy.
pub fn add_bias_gradient<T: Real>(dy: &[T], outputs: usize, bias: &mut [T]) {
    rows::add_column_sums(bias, dy.len() / outputs, |row, first, sums| {
        let dy = &dy[row * outputs + first..][..sums.len()];
        for (sum, &dy) in sums.iter_mut().zip(dy) {
            *sum += dy;
        }
    });
}

/// Writes y = x W^T, W of shape (outputs, inputs): the head of a model that shares the
/// embedding's table.
///
/// # Shapes
/// x: rows, inputs. table: outputs, inputs. y: rows, outputs.
pub fn transposed_forward<T: Real>(shape: Shape, x: &[T], table: &[T], y: &mut [T]) {
    products(vec![Product {
        left: View::rows(x, shape.rows, shape.inputs),
        right: View::rows(table, shape.outputs, shape.inputs).transposed(),
        result: ViewMut::rows(y, shape.rows, shape.outputs),
        into: Into::Written,
    }]);
}

/// Writes dx = dy W and adds dy^T x to the table's gradient.
///
/// # Shapes
/// As in [`transposed_forward`]; `dy` as y, `dx` as x, `d_table` as the table.
pub fn transposed_backward<T: Real>(
    shape: Shape,
    x: &[T],
    table: &[T],
    dy: &[T],
    dx: &mut [T],
    d_table: &mut [T],
) {
    let Shape {
        rows,
        inputs,
        outputs,
    } = shape;
    let dy = View::rows(dy, rows, outputs);
    products(vec![
        Product {
            left: dy,
            right: View::rows(table, outputs, inputs),
            result: ViewMut::rows(dx, rows, inputs),
            into: Into::Written,
        },
        Product {
            left: dy.transposed(),
            right: View::rows(x, rows, inputs),
            result: ViewMut::rows(d_table, outputs, inputs),
            into: Into::Added,
        },
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::ops::check::{assert_gradient, inner, normals};

    #[test]
    fn the_gradients_of_an_affine_map_match_finite_differences() {
        let shape = Shape {
            rows: 5,
            inputs: 3,
            outputs: 4,
        };
        let (x, w, b, c) = (
            normals(1, 15),
            normals(2, 12),
            normals(3, 4),
            normals(4, 20),
        );
        let value = |x: &[f64], w: &[f64], b: &[f64]| {
            let mut y = vec![0.0; 20];
            forward(shape, x, w, Some(b), &mut y);
            inner(&y, &c)
        };
        let (mut dx, mut dw, mut db) = (vec![0.0; 15], vec![0.0; 12], vec![0.0; 4]);
        let gradients = Gradients {
            weight: &mut dw,
            bias: Some(&mut db),
        };
        backward(shape, &x, &w, &c, Some(&mut dx), Some(gradients));
        assert_gradient("x", &x, &dx, |x| value(x, &w, &b));
        assert_gradient("weight", &w, &dw, |w| value(&x, w, &b));
        assert_gradient("bias", &b, &db, |b| value(&x, &w, b));
    }

    #[test]
    fn gradients_of_parameters_accumulate_over_micro_batches() {
        let shape = Shape {
            rows: 2,
            inputs: 3,
            outputs: 2,
        };
        let (x, w, dy) = (normals(1, 6), normals(2, 6), normals(3, 4));
        let mut dw = vec![0.0; 6];
        let once = |dw: &mut [f64]| {
            let gradients = Gradients {
                weight: dw,
                bias: None,
            };
            backward(shape, &x, &w, &dy, None, Some(gradients));
        };
        once(&mut dw);
        let single = dw.clone();
        once(&mut dw);
        for (twice, single) in dw.iter().zip(&single) {
            assert!((twice - 2.0 * single).abs() < 1e-14);
        }
    }

    #[test]
    fn the_head_on_the_embeddings_table_is_the_linear_map_of_its_transpose() {
        let shape = Shape {
            rows: 3,
            inputs: 2,
            outputs: 4,
        };
        let (x, table, c) = (normals(1, 6), normals(2, 8), normals(3, 12));
        let transposed: Vec<f64> = (0..8).map(|i| table[i % 4 * 2 + i / 4]).collect();
        let logits = |x: &[f64], table: &[f64]| {
            let mut y = vec![f64::NAN; 12];
            transposed_forward(shape, x, table, &mut y);
            y
        };
        let mut y = vec![0.0; 12];
        forward(shape, &x, &transposed, None, &mut y);
        assert!(crate::train::ops::check::distance(&logits(&x, &table), &y) < 1e-14);
        let (mut dx, mut d_table) = (vec![f64::NAN; 6], vec![1.0; 8]);
        transposed_backward(shape, &x, &table, &c, &mut dx, &mut d_table);
        d_table.iter_mut().for_each(|d| *d -= 1.0);
        assert_gradient("x", &x, &dx, |x| inner(&logits(x, &table), &c));
        assert_gradient("table", &table, &d_table, |t| inner(&logits(&x, t), &c));
    }
}
