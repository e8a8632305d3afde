//! The legend: one entry per labelled series, reference line and band.

use super::chart::Chart;
use super::font::{text_width, wrap};
use super::palette::{Colour, LineStyle, Marker};
use super::scene::{Anchor, INK, Point, Rectangle, Scene};
use super::series::{Direction, SeriesData};

pub(super) const TEXT_SIZE: f64 = 15.0;
pub(super) const LINE_WIDTH: f64 = 2.0;
pub(super) const REFERENCE_WIDTH: f64 = 1.25;
pub(super) const BAND_OPACITY: f64 = 0.18;
const LINE_HEIGHT: f64 = 20.0;
const ROW_GAP: f64 = 4.0;
const KEY_WIDTH: f64 = 36.0;
const KEY_GAP: f64 = 9.0;
const COLUMN_GAP: f64 = 30.0;

/// What an entry's key shows, in drawing order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Band,
    Reference(Direction, LineStyle),
    Line(LineStyle),
    Point(Marker),
}

impl Key {
    const fn layer(self) -> u8 {
        match self {
            Key::Band => 0,
            Key::Reference(..) => 1,
            Key::Line(_) => 2,
            Key::Point(_) => 3,
        }
    }
}

/// One line of the legend.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    label: String,
    colour: Colour,
    keys: Vec<Key>,
}

/// The entries of one or several charts; equal label and colour share one.
#[derive(Clone, Debug, Default)]
pub(super) struct Legend {
    entries: Vec<Entry>,
}

impl Legend {
    pub(super) fn of<'a>(charts: impl IntoIterator<Item = &'a Chart>) -> Self {
        let mut legend = Self::default();
        for chart in charts {
            for series in &chart.series {
                let key = match &series.data {
                    SeriesData::Points { marker, .. } => Key::Point(*marker),
                    SeriesData::Line { style, .. } => Key::Line(*style),
                    SeriesData::Band { .. } => Key::Band,
                };
                legend.add(&series.label, series.colour, key);
            }
            for line in &chart.reference_lines {
                let key = Key::Reference(line.direction, line.style);
                legend.add(&line.label, line.colour, key);
            }
            for band in &chart.shaded_bands {
                legend.add(&band.label, band.colour, Key::Band);
            }
        }
        for entry in &mut legend.entries {
            entry.keys.sort_by_key(|key| key.layer());
        }
        legend
    }

    fn add(&mut self, label: &str, colour: Colour, key: Key) {
        if label.is_empty() {
            return;
        }
        let same = |entry: &&mut Entry| entry.label == label && entry.colour == colour;
        match self.entries.iter_mut().find(same) {
            Some(entry) if entry.keys.contains(&key) => {}
            Some(entry) => entry.keys.push(key),
            None => self.entries.push(Entry {
                label: label.to_string(),
                colour,
                keys: vec![key],
            }),
        }
    }

    /// Sets the legend in `width` pixels: in columns, unless that takes more
    /// rows than setting the entries one after another.
    pub(super) fn layout(&self, width: f64) -> LegendLayout {
        let lines: Vec<Vec<String>> = self
            .entries
            .iter()
            .map(|entry| wrap(&entry.label, TEXT_SIZE, width - KEY_WIDTH - KEY_GAP))
            .collect();
        let widths: Vec<f64> = lines
            .iter()
            .map(|lines| {
                let text = lines.iter().map(|line| text_width(line, TEXT_SIZE));
                KEY_WIDTH + KEY_GAP + text.fold(0.0, f64::max)
            })
            .collect();
        let flowing = flowing_places(&widths, width);
        let places = aligned_places(&widths, width)
            .filter(|aligned| row_count(aligned) <= row_count(&flowing))
            .unwrap_or(flowing);
        let mut heights = vec![0.0; row_count(&places)];
        for (place, lines) in places.iter().zip(&lines) {
            let height = LINE_HEIGHT * lines.len() as f64 + ROW_GAP;
            heights[place.row] = height.max(heights[place.row]);
        }
        LegendLayout {
            entries: self.entries.clone(),
            lines,
            places,
            heights,
        }
    }
}

/// Where an entry stands: its distance from the left, and its row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    left: f64,
    row: usize,
}

fn row_count(places: &[Place]) -> usize {
    places.last().map_or(0, |place| place.row + 1)
}

/// Entries one after another, a new row wherever one is full.
fn flowing_places(widths: &[f64], width: f64) -> Vec<Place> {
    let mut next = Place { left: 0.0, row: 0 };
    let mut places = Vec::with_capacity(widths.len());
    for entry in widths {
        if next.left > 0.0 && next.left + entry > width {
            next = Place {
                left: 0.0,
                row: next.row + 1,
            };
        }
        places.push(next);
        next.left += entry + COLUMN_GAP;
    }
    places
}

/// Entries in columns, in as few rows as possible and then in as few columns;
/// `None` if not even one column fits.
fn aligned_places(widths: &[f64], width: f64) -> Option<Vec<Place>> {
    let lefts = |columns: usize| -> Option<Vec<f64>> {
        let mut lefts = Vec::with_capacity(columns);
        let mut left = 0.0;
        for column in 0..columns {
            lefts.push(left);
            let own = widths.iter().skip(column).step_by(columns);
            left += own.fold(0.0, |a, &b| f64::max(a, b)) + COLUMN_GAP;
        }
        (left - COLUMN_GAP <= width).then_some(lefts)
    };
    let count = widths.len();
    let widest = (1..=count).rev().find_map(lefts)?;
    let fewest = count.div_ceil(count.div_ceil(widest.len()));
    let columns = lefts(fewest).unwrap_or(widest);
    let place = |i: usize| Place {
        left: columns[i % columns.len()],
        row: i / columns.len(),
    };
    Some((0..count).map(place).collect())
}

/// A legend whose entries have their places.
#[derive(Clone, Debug)]
pub(super) struct LegendLayout {
    entries: Vec<Entry>,
    /// The lines of each entry's label.
    lines: Vec<Vec<String>>,
    places: Vec<Place>,
    /// The height of each row.
    heights: Vec<f64>,
}

impl LegendLayout {
    pub(super) fn height(&self) -> f64 {
        self.heights.iter().sum()
    }

    /// Draws the legend with its upper left corner at `corner`.
    pub(super) fn draw(&self, scene: &mut Scene, corner: Point) {
        let entries = self.entries.iter().zip(&self.lines).zip(&self.places);
        for ((entry, lines), place) in entries {
            let left = corner.0 + place.left;
            let top = corner.1 + self.heights[..place.row].iter().sum::<f64>();
            let middle = top + 0.5 * LINE_HEIGHT;
            entry.draw_key(scene, (left, middle));
            for (number, line) in lines.iter().enumerate() {
                let baseline = middle + 0.36 * TEXT_SIZE + LINE_HEIGHT * number as f64;
                let position = (left + KEY_WIDTH + KEY_GAP, baseline);
                scene.text(line, position, TEXT_SIZE, INK, Anchor::Start);
            }
        }
    }
}

impl Entry {
    /// Draws the key with the middle of its left edge at `(left, y)`.
    fn draw_key(&self, scene: &mut Scene, (left, y): Point) {
        let colour = self.colour.rgb();
        let centre = (left + 0.5 * KEY_WIDTH, y);
        let along = [(left, y), (left + KEY_WIDTH, y)];
        let upright = [(centre.0, y - 9.0), (centre.0, y + 9.0)];
        for &key in &self.keys {
            match key {
                Key::Band => {
                    let area = Rectangle {
                        left,
                        top: y - 7.0,
                        right: left + KEY_WIDTH,
                        bottom: y + 7.0,
                    };
                    scene.rectangle(&area, colour, BAND_OPACITY);
                }
                Key::Reference(Direction::Horizontal, style) => {
                    scene.line(&along, style, REFERENCE_WIDTH, colour);
                }
                Key::Reference(Direction::Vertical, style) => {
                    scene.line(&upright, style, REFERENCE_WIDTH, colour);
                }
                Key::Line(style) => scene.line(&along, style, LINE_WIDTH, colour),
                Key::Point(marker) => {
                    scene.marker_rim(marker, centre);
                    scene.marker(marker, centre, colour);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Axis, Estimate, Series};

    fn chart(labels: &[&str]) -> Chart {
        let mut chart = Chart::new("", Axis::linear(""), Axis::linear(""));
        for label in labels {
            let points = vec![Estimate::exact(0.0, 0.0)];
            chart = chart.with_series(Series::points(*label, Colour::Blue, points));
        }
        chart
    }

    #[test]
    fn points_and_line_of_the_same_label_share_an_entry() {
        let chart = chart(&["a"]).with_series(Series::line("a", Colour::Blue, vec![]));
        let legend = Legend::of([&chart, &chart]);
        assert_eq!(legend.entries.len(), 1);
        assert_eq!(
            legend.entries[0].keys,
            [Key::Line(LineStyle::Solid), Key::Point(Marker::Circle)]
        );
    }

    #[test]
    fn a_narrow_legend_has_more_rows_than_a_wide_one() {
        let chart = chart(&["first series", "second series", "third series"]);
        let legend = Legend::of([&chart]);
        assert_eq!(legend.layout(2000.0).heights.len(), 1);
        assert_eq!(legend.layout(150.0).heights.len(), 3);
    }

    #[test]
    fn entries_stand_in_columns_unless_that_takes_more_rows() {
        let lefts = |widths: &[f64]| -> Vec<f64> {
            let layout = aligned_places(widths, 300.0).unwrap();
            layout.iter().map(|place| place.left).collect()
        };
        assert_eq!(lefts(&[60.0, 80.0, 70.0, 60.0]), [0.0, 100.0, 0.0, 100.0]);
        let chart = chart(&["a", "b", "c", "one entry as wide as the whole legend"]);
        let width = 45.0 + text_width("one entry as wide as the whole legend", TEXT_SIZE);
        assert_eq!(Legend::of([&chart]).layout(width).heights.len(), 2);
    }

    #[test]
    fn a_chart_without_labels_needs_no_space_for_a_legend() {
        assert_eq!(Legend::of([&chart(&[""])]).layout(100.0).height(), 0.0);
    }
}
