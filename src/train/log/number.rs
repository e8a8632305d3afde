//! Numbers that JSON has no word for.
//!
//! JSON knows neither infinity nor not-a-number; both are written as `null` and read
//! as not-a-number, so that the log of a run that diverged can be read.

use serde::{Deserialize, Deserializer};

/// A number, or `null`.
pub(in crate::train) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Numbers, or `null` among them.
pub(in crate::train) fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let values: Vec<Option<f64>> = Vec::deserialize(from)?;
    Ok(values.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect())
}
