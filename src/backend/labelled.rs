//! The likelihood of a sample whose labels are known.

use super::reference::Observe;
use crate::error::{Error, Result};
use crate::model::{Data, Parameters, Point};

/// All operations on the complete data (x, y, z): the same sums with labels in
/// place of responsibilities, row by row.
///
/// ```text
/// sum_n count_n [ log w_{z_n}(x_n) + log N(y_n; m_{z_n}(x_n), v_{z_n}) ]
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    labels: &'a [usize],
}

impl<'a> Labelled<'a> {
    /// Labels of the rows of `data`, the only data that it may be given then, of
    /// mixtures of `experts` experts. Shape: n.
    ///
    /// # Errors
    /// [`Error::Dimension`] if there is not one label per row; [`Error::Value`] if
    /// a label is not below `experts`.
    pub fn new(data: &Data, labels: &'a [usize], experts: usize) -> Result<Self> {
        if labels.len() != data.len() {
            return Err(Error::Dimension {
                what: "labels",
                expected: data.len(),
                got: labels.len(),
            });
        }
        match labels.iter().find(|&&label| label >= experts) {
            None => Ok(Labelled { labels }),
            Some(label) => Err(Error::value(
                "labels",
                format!("must be below the number of experts ({experts}), got {label}"),
            )),
        }
    }
}

impl Observe for Labelled<'_> {
    #[inline]
    fn observe(
        &self,
        point: &mut Point,
        parameters: &Parameters,
        n: usize,
        x: &[f64],
        y: f64,
    ) -> f64 {
        point.observe_labelled(parameters, x, y, self.labels[n])
    }
}
