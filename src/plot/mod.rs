//! Charts as SVG and PNG, with a built-in font.
//!
//! A [`Chart`] describes one panel: two [`Axis`] values, [`Series`],
//! [`ReferenceLine`]s and [`ShadedBand`]s. A [`Figure`] arranges one or more
//! charts in a grid and writes them. The legend has its own space below the
//! plot area and never covers data. The same figure always gives the same
//! bytes.
//!
//! ```
//! use smoe_lab::plot::{Axis, Chart, Estimate, Figure, Palette, Series};
//!
//! let chart = Chart::new("Rate", Axis::log10("n"), Axis::log10("Hellinger distance"))
//!     .with_series(Series::points(
//!         "softmax gate",
//!         Palette::colour(0),
//!         vec![
//!             Estimate::new(100.0, 0.09, 0.08, 0.10),
//!             Estimate::new(10_000.0, 0.009, 0.008, 0.010),
//!         ],
//!     ));
//! let svg = Figure::single(chart).svg();
//! assert!(svg.contains("softmax gate"));
//! ```

mod axis;
mod bitmap;
mod chart;
mod clip;
mod figure;
mod font;
pub mod html;
mod legend;
pub mod number;
mod palette;
mod panel;
mod render;
mod scene;
mod series;
#[cfg(test)]
mod tests;
mod tick;

pub use axis::{Axis, Scale};
pub use chart::Chart;
pub use figure::{Figure, LegendPlacement};
pub use palette::{Colour, LineStyle, Marker, Palette};
pub use series::{Direction, Estimate, Interval, ReferenceLine, Series, SeriesData, ShadedBand};
