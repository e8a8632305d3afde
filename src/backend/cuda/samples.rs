//! Samples on a device.

use super::machine::{Buffer, Device};
use super::structure::Rows;
use crate::error::{Error, Result};
use crate::model::Data;
use ndarray::{Array1, Array2};

/// Samples of one size, each of one replicate, that stay on the device.
///
/// Sample s is `width * capacity` numbers from `s * width * capacity` on: inputs
/// column by column, responses, and counts if there are any.
#[derive(Debug)]
pub(super) struct Samples {
    values: Buffer<f64>,
    /// How many samples there are.
    pub count: usize,
    /// Stored rows of each.
    pub capacity: usize,
    dimension: usize,
    /// Whether rows have counts.
    pub counted: bool,
}

impl Samples {
    /// Bytes of `count` samples of `rows` rows in d inputs.
    pub fn bytes(count: usize, rows: usize, dimension: usize, counted: bool) -> usize {
        count * rows * (dimension + 1 + usize::from(counted)) * size_of::<f64>()
    }

    /// Samples that a kernel wrote in this layout, without counts.
    pub fn drawn(values: Buffer<f64>, count: usize, rows: usize, dimension: usize) -> Self {
        Samples {
            values,
            count,
            capacity: rows,
            dimension,
            counted: false,
        }
    }

    /// A copy of one sample on the host, without its counts.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn download(&self, sample: usize) -> Result<Data> {
        let (rows, d) = (self.capacity, self.dimension);
        let width = d + 1 + usize::from(self.counted);
        let own = self.values.read(sample * width * rows, (d + 1) * rows)?;
        let (inputs, responses) = own.split_at(d * rows);
        let columns = Array2::from_shape_vec((d, rows), inputs.to_vec());
        let columns = columns.expect("d columns of all rows");
        Data::from_columns(columns, Array1::from(responses.to_vec()))
    }

    /// As kernels see them.
    pub fn rows(&self) -> Rows {
        Rows {
            values: self.values.address(),
            capacity: self.capacity as u64,
            counted: i32::from(self.counted),
            dimension: self.dimension as i32,
        }
    }

    /// Copies of samples of one dimension, with counts or all without. A smaller one
    /// is filled up with rows of count 0, for which all need counts.
    ///
    /// # Errors
    /// [`Error::Dimension`] if they differ in what they must agree in; as
    /// [`super::machine::Machine::allocate`].
    pub fn upload(device: &Device, samples: &[&Data]) -> Result<Self> {
        let first = samples
            .first()
            .ok_or_else(|| Error::value("samples", "at least one is needed"))?;
        let dimension = first.dimension();
        let counted = first.counts().is_some();
        let capacity = samples.iter().map(|d| d.len()).max().unwrap_or(0);
        let width = dimension + 1 + usize::from(counted);
        let values = device.zeros::<f64>(samples.len() * width * capacity)?;
        for (s, data) in samples.iter().enumerate() {
            let agrees = |what, expected: usize, got: usize| match expected == got {
                true => Ok(()),
                false => Err(Error::Dimension {
                    what,
                    expected,
                    got,
                }),
            };
            agrees("inputs of a sample", dimension, data.dimension())?;
            agrees(
                "counts of a sample",
                usize::from(counted),
                usize::from(data.counts().is_some()),
            )?;
            if !counted {
                agrees("rows of a sample", capacity, data.len())?;
            }
            let at = |column: usize| (s * width + column) * capacity;
            for j in 0..dimension {
                values.write(at(j), data.column(j))?;
            }
            values.write(at(dimension), data.responses())?;
            if let Some(counts) = data.counts() {
                values.write(at(dimension + 1), counts)?;
            }
        }
        Ok(Samples {
            values,
            count: samples.len(),
            capacity,
            dimension,
            counted,
        })
    }
}
