//! stub
use crate::{
    error::Result,
    sim::{Plan, Row, Summary},
};
use std::{path::Path, time::Duration};
pub struct Environment;
impl Environment {
    pub fn capture(_: &Plan, _: Option<usize>, _: Duration) -> Self {
        Environment
    }
    pub fn read_or_capture(_: &Path, _: &Plan, _: Duration) -> Self {
        Environment
    }
}
pub fn write(_: &Path, _: &Plan, _: &[Row], _: &Summary, _: &Environment) -> Result<()> {
    Ok(())
}
pub fn text_table(_: &Plan, s: &Summary) -> String {
    let mut t = String::new();
    for c in &s.claims {
        t += &format!(
            "{} {:?} {:?} {}\n",
            c.series,
            c.finding,
            c.accept,
            c.verdict.name()
        );
    }
    for x in &s.series {
        for c in &x.cells {
            t += &format!(
                "{} P={} n={} rows={} fail={} {:?} bound={} below={} passes={:.1} sec={:.3} {:?} {:?}\n",
                x.name,
                x.parameters,
                c.n,
                c.rows,
                c.failures,
                c.stops,
                c.on_bound,
                c.below_truth,
                c.passes,
                c.seconds,
                c.losses
                    .iter()
                    .map(|l| (l.loss.name(), l.mean.value, l.mean.error, l.median))
                    .collect::<Vec<_>>(),
                c.constants
                    .iter()
                    .map(|(k, e)| (k.symbol(), e.value, e.error))
                    .collect::<Vec<_>>()
            );
        }
    }
    t
}
pub fn claims_table(p: &Plan, s: &Summary) -> String {
    text_table(p, s)
}
pub fn is_stale(_: &Path, _: &Plan, _: &Summary) -> Option<String> {
    None
}
