//! One panel: what it shows, and the description of its axes.

use super::axis::Axis;
use super::series::{Direction, ReferenceLine, Series, SeriesData, ShadedBand};

/// One panel of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Heading; may be empty.
    pub title: String,
    /// Smaller line below the title; may be empty.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The series, in legend order.
    pub series: Vec<Series>,
    /// Lines across the whole plot area.
    pub reference_lines: Vec<ReferenceLine>,
    /// Bands across the whole plot area.
    pub shaded_bands: Vec<ShadedBand>,
}

impl Chart {
    /// A chart without data.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            subtitle: String::new(),
            x,
            y,
            series: Vec::new(),
            reference_lines: Vec::new(),
            shaded_bands: Vec::new(),
        }
    }

    /// The same chart with a subtitle.
    pub fn with_subtitle(mut self, subtitle: impl Into<String>) -> Self {
        self.subtitle = subtitle.into();
        self
    }

    /// The same chart with one more series.
    pub fn with_series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// The same chart with one more reference line.
    pub fn with_reference_line(mut self, line: ReferenceLine) -> Self {
        self.reference_lines.push(line);
        self
    }

    /// The same chart with one more shaded band.
    pub fn with_shaded_band(mut self, band: ShadedBand) -> Self {
        self.shaded_bands.push(band);
        self
    }

    /// The range of x to show.
    pub(super) fn x_range(&self) -> (f64, f64) {
        let (points, across) = self.extent(Direction::Vertical);
        self.x
            .resolve_range(points.into_iter().map(|(x, _)| x).chain(across))
    }

    /// The range of y to show.
    pub(super) fn y_range(&self) -> (f64, f64) {
        let (points, across) = self.extent(Direction::Horizontal);
        self.y
            .resolve_range(points.into_iter().map(|(_, y)| y).chain(across))
    }

    /// All places the data reaches, and the values of the reference lines and
    /// bands that run in `direction`.
    fn extent(&self, direction: Direction) -> (Vec<(f64, f64)>, Vec<f64>) {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for series in &self.series {
            match &series.data {
                SeriesData::Points { points: data, .. } => {
                    let drawn = data.iter().filter(|point| self.y.scale.admits(point.y));
                    points.extend(
                        drawn.flat_map(|point| {
                            [point.y, point.low, point.high].map(|y| (point.x, y))
                        }),
                    );
                }
                SeriesData::Line { points: data, .. } => points.extend(data),
                SeriesData::Band { intervals } => points.extend(
                    intervals
                        .iter()
                        .flat_map(|band| [(band.x, band.low), (band.x, band.high)]),
                ),
            }
        }
        points.retain(|&(x, y)| self.x.scale.admits(x) && self.y.scale.admits(y));
        let lines = self
            .reference_lines
            .iter()
            .filter(|line| line.direction == direction)
            .map(|line| line.value);
        let bands = self
            .shaded_bands
            .iter()
            .filter(|band| band.direction == direction)
            .flat_map(|band| [band.low, band.high]);
        (points, lines.chain(bands).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Colour, Estimate};

    #[test]
    fn ranges_cover_error_bars_bands_and_reference_lines_but_not_undrawable_points() {
        let chart = Chart::new("", Axis::linear(""), Axis::log10(""))
            .with_series(Series::points(
                "",
                Colour::Blue,
                vec![
                    Estimate::new(1.0, 2.0, -1.0, 4.0),
                    Estimate::new(50.0, f64::NAN, 1e-9, 1e9),
                ],
            ))
            .with_reference_line(ReferenceLine::vertical(3.0, ""))
            .with_shaded_band(ShadedBand::horizontal(1.0, 8.0, ""));
        let (low, high) = chart.x_range();
        assert!(low < 1.0 && low > 0.0 && high > 3.0 && high < 4.0);
        let (low, high) = chart.y_range();
        assert!(low < 1.0 && low > 0.5 && high > 8.0 && high < 16.0);
    }
}
