//! What a chart shows: series, reference lines and shaded bands.

use super::palette::{Colour, LineStyle, Marker};

/// A point with an error bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Position along the x axis.
    pub x: f64,
    /// The estimate.
    pub y: f64,
    /// Lower end of the error bar.
    pub low: f64,
    /// Upper end of the error bar.
    pub high: f64,
}

impl Estimate {
    /// A point whose error bar runs from `low` to `high`.
    pub const fn new(x: f64, y: f64, low: f64, high: f64) -> Self {
        Self { x, y, low, high }
    }

    /// A point without an error bar.
    pub const fn exact(x: f64, y: f64) -> Self {
        Self::new(x, y, y, y)
    }
}

/// One cross-section of a shaded band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Position along the x axis.
    pub x: f64,
    /// Lower edge.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
}

impl Interval {
    /// The band at `x` from `low` to `high`.
    pub const fn new(x: f64, low: f64, high: f64) -> Self {
        Self { x, low, high }
    }
}

/// The data of a series, by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesData {
    /// Points with error bars.
    Points {
        /// The points, in any order.
        points: Vec<Estimate>,
        /// The shape drawn at each.
        marker: Marker,
    },
    /// A line through points, straight on the axes' scales.
    Line {
        /// The points in drawing order; one that has no place on the axes
        /// breaks the line.
        points: Vec<(f64, f64)>,
        /// Solid, dashed or dotted.
        style: LineStyle,
    },
    /// A shaded band around a curve.
    Band {
        /// The cross-sections in order of x.
        intervals: Vec<Interval>,
    },
}

/// One series and its legend entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The legend's text. An empty label keeps the series out of the legend;
    /// series of one chart that share label and colour share an entry.
    pub label: String,
    /// The colour.
    pub colour: Colour,
    /// The data.
    pub data: SeriesData,
}

impl Series {
    /// Points with error bars, drawn with the colour's own marker.
    pub fn points(label: impl Into<String>, colour: Colour, points: Vec<Estimate>) -> Self {
        Self {
            label: label.into(),
            colour,
            data: SeriesData::Points {
                points,
                marker: colour.marker(),
            },
        }
    }

    /// The same series with another marker, if it has markers.
    pub fn with_marker(mut self, other: Marker) -> Self {
        if let SeriesData::Points { marker, .. } = &mut self.data {
            *marker = other;
        }
        self
    }

    /// A solid line.
    pub fn line(label: impl Into<String>, colour: Colour, points: Vec<(f64, f64)>) -> Self {
        Self::styled_line(label, colour, points, LineStyle::Solid)
    }

    /// A dashed line.
    pub fn dashed(label: impl Into<String>, colour: Colour, points: Vec<(f64, f64)>) -> Self {
        Self::styled_line(label, colour, points, LineStyle::Dashed)
    }

    /// A shaded band.
    pub fn band(label: impl Into<String>, colour: Colour, intervals: Vec<Interval>) -> Self {
        Self {
            label: label.into(),
            colour,
            data: SeriesData::Band { intervals },
        }
    }

    fn styled_line(
        label: impl Into<String>,
        colour: Colour,
        points: Vec<(f64, f64)>,
        style: LineStyle,
    ) -> Self {
        Self {
            label: label.into(),
            colour,
            data: SeriesData::Line { points, style },
        }
    }
}

/// The direction in which a reference line or a shaded band runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Along the x axis, at a value of y.
    Horizontal,
    /// Along the y axis, at a value of x.
    Vertical,
}

/// A thin line across the whole plot area, named in the legend.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceLine {
    /// Where it runs.
    pub direction: Direction,
    /// Its value on the other axis.
    pub value: f64,
    /// The legend's text; empty for none.
    pub label: String,
    /// The colour.
    pub colour: Colour,
    /// Solid, dashed or dotted.
    pub style: LineStyle,
}

impl ReferenceLine {
    /// A solid grey line at `y = value`.
    pub fn horizontal(value: f64, label: impl Into<String>) -> Self {
        Self::new(Direction::Horizontal, value, label.into())
    }

    /// A solid grey line at `x = value`.
    pub fn vertical(value: f64, label: impl Into<String>) -> Self {
        Self::new(Direction::Vertical, value, label.into())
    }

    /// The same line in another colour.
    pub const fn with_colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }

    /// The same line in another style.
    pub const fn with_style(mut self, style: LineStyle) -> Self {
        self.style = style;
        self
    }

    fn new(direction: Direction, value: f64, label: String) -> Self {
        Self {
            direction,
            value,
            label,
            colour: Colour::Grey,
            style: LineStyle::Solid,
        }
    }
}

/// A band across the whole plot area, such as an acceptance region.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadedBand {
    /// Where it runs.
    pub direction: Direction,
    /// Lower edge on the other axis.
    pub low: f64,
    /// Upper edge on the other axis.
    pub high: f64,
    /// The legend's text; empty for none.
    pub label: String,
    /// The colour.
    pub colour: Colour,
}

impl ShadedBand {
    /// A grey band over `low <= y <= high`.
    pub fn horizontal(low: f64, high: f64, label: impl Into<String>) -> Self {
        Self::new(Direction::Horizontal, low, high, label.into())
    }

    /// A grey band over `low <= x <= high`.
    pub fn vertical(low: f64, high: f64, label: impl Into<String>) -> Self {
        Self::new(Direction::Vertical, low, high, label.into())
    }

    /// The same band in another colour.
    pub const fn with_colour(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }

    fn new(direction: Direction, low: f64, high: f64, label: String) -> Self {
        Self {
            direction,
            low,
            high,
            label,
            colour: Colour::Grey,
        }
    }
}
