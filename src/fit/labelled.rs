//! The oracle: maximum likelihood by somebody who has seen the labels.
//!
//! With z_n the expert that made row n, the complete-data log-likelihood is
//!
//! ```text
//! sum_n [ log w_{z_n}(x_n) + log N(y_n; m_{z_n}(x_n), v_{z_n}) ]
//! ```
//!
//! Under a router it falls into a multinomial and a linear regression; under
//! competition the means are in both parts, and what is learned of one expert's
//! mean from its own rows is joined by what the labels of all rows say. No
//! estimator that sees (x, y) alone has a smaller variance in the limit: its
//! information is the complete data's less what the labels would add.

use super::bounds::Bounds;
use super::multistart::too_few_rows;
use super::newton::{NewtonOptions, polish};
use super::outcome::Outcome;
use crate::backend::Labelled;
use crate::error::Result;
use crate::model::{Data, Parameters};

/// Maximises the complete-data log-likelihood over the box, from `start`, by the
/// projected Newton of [`polish`], with the same certificate: the outcome's
/// log-likelihood and scaled score are the complete data's.
///
/// Any start will do under a router, whose problem is concave; under competition
/// the truth or the unlabelled fit is near enough.
///
/// # Errors
/// [`crate::error::Error::Dimension`] if there is not one label per row;
/// [`crate::error::Error::Value`] if a label names no expert.
///
/// # Shapes
/// `labels`: n.
pub fn labelled_maximum(
    data: &Data,
    labels: &[usize],
    start: &Parameters,
    bounds: &Bounds,
    options: NewtonOptions,
) -> Result<Outcome> {
    let backend = Labelled::new(data, labels, start.experts.len())?;
    if let Some(refused) = too_few_rows(&backend, data, start, bounds) {
        return Ok(refused);
    }
    Ok(polish(&backend, data, start, bounds, options))
}
