//! Data sets.

use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView2};
use std::sync::atomic::{AtomicU64, Ordering};

/// A data set: inputs and responses, and how often each row was seen.
///
/// Inputs are stored column by column, so that a pass reads every column as one
/// contiguous array.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Shape: d, n.
    columns: Array2<f64>,
    responses: Array1<f64>,
    counts: Option<Array1<f64>>,
    identity: Identity,
}

/// Tells data sets apart without looking at them: what holds a copy of one (a GPU)
/// asks it whether the copy is of this one. Clones share it, as they are equal;
/// equality does not ask it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity(u64);

impl Identity {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Identity(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// True if both name one data set.
    pub(crate) fn is(self, other: Identity) -> bool {
        self.0 == other.0
    }
}

impl PartialEq for Identity {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Data {
    /// # Shapes
    /// `inputs`: n, d; `responses`: n.
    ///
    /// # Errors
    /// [`Error::Dimension`] if the row numbers differ; [`Error::Value`] if a
    /// value is not finite.
    pub fn new(inputs: Array2<f64>, responses: Array1<f64>) -> Result<Self> {
        let columns = inputs.reversed_axes().as_standard_layout().into_owned();
        Data::from_columns(columns, responses)
    }

    /// As [`Data::new`], without a copy.
    ///
    /// # Shapes
    /// `columns`: d, n, in row-major order; `responses`: n.
    ///
    /// # Errors
    /// As [`Data::new`].
    pub fn from_columns(columns: Array2<f64>, responses: Array1<f64>) -> Result<Self> {
        if columns.ncols() != responses.len() {
            return Err(Error::Dimension {
                what: "rows of the inputs",
                expected: responses.len(),
                got: columns.ncols(),
            });
        }
        if columns.iter().chain(&responses).any(|v| !v.is_finite()) {
            return Err(Error::value("data", "all values must be finite"));
        }
        let columns = match columns.is_standard_layout() {
            true => columns,
            false => columns.as_standard_layout().into_owned(),
        };
        Ok(Data {
            columns,
            responses,
            counts: None,
            identity: Identity::fresh(),
        })
    }

    /// Data known to be sound.
    pub(super) fn from_parts(
        columns: Array2<f64>,
        responses: Array1<f64>,
        counts: Option<Array1<f64>>,
    ) -> Self {
        Data {
            columns,
            responses,
            counts,
            identity: Identity::fresh(),
        }
    }

    /// The same rows, row i seen `counts[i]` times.
    ///
    /// # Shapes
    /// `counts`: n.
    ///
    /// # Errors
    /// [`Error::Dimension`] if there is not one count per row; [`Error::Value`]
    /// if a count is negative or not finite.
    pub fn with_counts(self, counts: Array1<f64>) -> Result<Self> {
        if counts.len() != self.len() {
            return Err(Error::Dimension {
                what: "counts",
                expected: self.len(),
                got: counts.len(),
            });
        }
        if counts.iter().any(|c| !(*c >= 0.0 && c.is_finite())) {
            return Err(Error::value("data", "counts must be finite, not negative"));
        }
        Ok(Data {
            counts: Some(counts),
            identity: Identity::fresh(),
            ..self
        })
    }

    /// Number of stored rows: the work of one pass.
    pub fn len(&self) -> usize {
        self.responses.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    /// The sample size n: the number of rows, each as often as it was seen.
    pub fn sample_size(&self) -> f64 {
        match &self.counts {
            None => self.len() as f64,
            Some(counts) => counts.sum(),
        }
    }

    /// Input dimension d.
    pub fn dimension(&self) -> usize {
        self.columns.nrows()
    }

    /// All inputs. Shape: n, d.
    pub fn inputs(&self) -> ArrayView2<'_, f64> {
        self.columns.t()
    }

    /// Input j of all rows. Shape: n.
    #[inline]
    pub fn column(&self, j: usize) -> &[f64] {
        let n = self.len();
        let flat = self.columns.as_slice().expect("contiguous by construction");
        &flat[j * n..(j + 1) * n]
    }

    /// All responses. Shape: n.
    pub fn responses(&self) -> &[f64] {
        self.responses
            .as_slice()
            .expect("contiguous by construction")
    }

    /// How often each row was seen; `None` if once each. Shape: n.
    pub fn counts(&self) -> Option<&[f64]> {
        let counts = self.counts.as_ref()?;
        Some(counts.as_slice().expect("contiguous by construction"))
    }

    /// How often row i was seen.
    #[inline]
    pub fn count(&self, i: usize) -> f64 {
        self.counts.as_ref().map_or(1.0, |counts| counts[i])
    }

    /// Row i as (x, y).
    pub fn row(&self, i: usize) -> (Vec<f64>, f64) {
        let mut x = vec![0.0; self.dimension()];
        let y = self.read_row(i, &mut x);
        (x, y)
    }

    /// Writes the input of row i to `x` and returns its response.
    ///
    /// # Shapes
    /// `x`: d.
    #[inline]
    pub fn read_row(&self, i: usize, x: &mut [f64]) -> f64 {
        for (x, column) in x.iter_mut().zip(self.columns.rows()) {
            *x = column[i];
        }
        self.responses[i]
    }

    /// Tells this data set from others; see [`Identity`].
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The first `rows` rows.
    pub fn head(&self, rows: usize) -> Data {
        let rows = rows.min(self.len());
        let first = ndarray::s![..rows];
        Data {
            columns: self
                .columns
                .slice(ndarray::s![.., ..rows])
                .as_standard_layout()
                .into_owned(),
            responses: self.responses.slice(first).to_owned(),
            counts: self.counts.as_ref().map(|c| c.slice(first).to_owned()),
            identity: Identity::fresh(),
        }
    }
}
