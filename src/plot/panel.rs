//! Draws one chart: axes, grid, data, titles and legend.

use super::axis::{Axis, Projection, Scale};
use super::chart::Chart;
use super::clip::{clip_line, clip_polygon};
use super::font::{text_width, wrap};
use super::legend::{BAND_OPACITY, LINE_WIDTH, REFERENCE_WIDTH};
use super::palette::{Colour, LineStyle, Marker};
use super::scene::{Anchor, GRID, INK, MINOR_GRID, Point, Reading, Rectangle, SOFT_INK, Scene};
use super::series::{Direction, Estimate, Interval, Series, SeriesData};
use super::tick::{Tick, TickKind, ticks};

const TITLE_SIZE: f64 = 19.0;
const TITLE_LINE: f64 = 25.0;
const SUBTITLE_SIZE: f64 = 15.0;
const SUBTITLE_LINE: f64 = 20.0;
const TITLE_GAP: f64 = 12.0;
const LABEL_SIZE: f64 = 16.0;
const LABEL_LINE: f64 = 21.0;
const TICK_SIZE: f64 = 14.5;
const TICK_LENGTH: f64 = 6.0;
const TICK_GAP: f64 = 5.0;
const LABEL_GAP: f64 = 12.0;
const AXIS_WIDTH: f64 = 1.25;
const GRID_WIDTH: f64 = 1.0;
const ERROR_WIDTH: f64 = 1.5;
const CAP: f64 = 4.5;

/// Space around the plot area that titles and axes need.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Margins {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Margins {
    /// The larger of each.
    pub(super) const fn joined(self, other: Self) -> Self {
        Self {
            left: self.left.max(other.left),
            right: self.right.max(other.right),
            top: self.top.max(other.top),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// A chart ready to be drawn into a plot area of about known size.
pub(super) struct Panel<'a> {
    chart: &'a Chart,
    x_range: (f64, f64),
    y_range: (f64, f64),
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    title: Vec<String>,
    subtitle: Vec<String>,
    x_label: Vec<String>,
    y_label: Vec<String>,
}

impl<'a> Panel<'a> {
    /// Chooses ticks and breaks texts for a plot area of this size.
    pub(super) fn new(chart: &'a Chart, width: f64, height: f64) -> Self {
        let (x_range, y_range) = (chart.x_range(), chart.y_range());
        Self {
            chart,
            x_range,
            y_range,
            x_ticks: fitting_x_ticks(&chart.x, x_range, width),
            y_ticks: ticks(
                chart.y.scale,
                y_range,
                (height / 40.0).clamp(2.0, 8.0) as usize,
            ),
            title: wrap(&chart.title, TITLE_SIZE, width),
            subtitle: wrap(&chart.subtitle, SUBTITLE_SIZE, width),
            x_label: wrap(&chart.x.label, LABEL_SIZE, width),
            y_label: wrap(&chart.y.label, LABEL_SIZE, height),
        }
    }

    /// The space this panel needs around its plot area, legend excluded.
    pub(super) fn margins(&self) -> Margins {
        let titles =
            TITLE_LINE * self.title.len() as f64 + SUBTITLE_LINE * self.subtitle.len() as f64;
        let label = |lines: &[String]| match lines.len() {
            0 => 0.0,
            count => LABEL_GAP + LABEL_LINE * count as f64,
        };
        let ticks = TICK_LENGTH + TICK_GAP;
        Margins {
            left: ticks + self.widest_y_tick() + label(&self.y_label),
            right: 0.5 * widest(&self.x_ticks),
            top: titles
                + if titles > 0.0 {
                    TITLE_GAP
                } else {
                    0.5 * TICK_SIZE
                },
            bottom: ticks + TICK_SIZE + label(&self.x_label),
        }
    }

    fn widest_y_tick(&self) -> f64 {
        widest(&self.y_ticks)
    }

    /// Draws everything but the legend.
    pub(super) fn draw(&self, scene: &mut Scene, area: &Rectangle) {
        let plot = Plot {
            area: *area,
            x: Projection::new(self.chart.x.scale, self.x_range, area.left, area.right),
            y: Projection::new(self.chart.y.scale, self.y_range, area.bottom, area.top),
        };
        for band in &self.chart.shaded_bands {
            plot.shaded_band(scene, band.direction, (band.low, band.high), band.colour);
        }
        plot.grid(scene, &self.x_ticks, &self.y_ticks);
        for line in &self.chart.reference_lines {
            plot.reference_line(scene, line.direction, line.value, line.colour, line.style);
        }
        for layer in [draw_band, draw_dots, draw_line, draw_markers] {
            for series in &self.chart.series {
                layer(&plot, scene, series);
            }
        }
        plot.axes(scene, &self.x_ticks, &self.y_ticks);
        self.titles(scene, area);
        self.labels(scene, area);
    }

    fn titles(&self, scene: &mut Scene, area: &Rectangle) {
        let mut baseline = area.top - TITLE_GAP - 0.25 * SUBTITLE_SIZE;
        for line in self.subtitle.iter().rev() {
            let position = (area.left, baseline);
            scene.text(line, position, SUBTITLE_SIZE, SOFT_INK, Anchor::Start);
            baseline -= SUBTITLE_LINE;
        }
        for line in self.title.iter().rev() {
            scene.text(line, (area.left, baseline), TITLE_SIZE, INK, Anchor::Start);
            baseline -= TITLE_LINE;
        }
    }

    fn labels(&self, scene: &mut Scene, area: &Rectangle) {
        let middle = (
            0.5 * (area.left + area.right),
            0.5 * (area.top + area.bottom),
        );
        let ticks = TICK_LENGTH + TICK_GAP;
        let mut baseline = area.bottom + ticks + TICK_SIZE + LABEL_GAP + LABEL_SIZE;
        for line in &self.x_label {
            let position = (middle.0, baseline);
            scene.text(line, position, LABEL_SIZE, INK, Anchor::Middle);
            baseline += LABEL_LINE;
        }
        let mut baseline = area.left - ticks - self.widest_y_tick() - LABEL_GAP;
        for line in self.y_label.iter().rev() {
            scene.directed_text(
                line,
                (baseline, middle.1),
                LABEL_SIZE,
                INK,
                Anchor::Middle,
                Reading::Upwards,
            );
            baseline -= LABEL_LINE;
        }
    }
}

fn widest(ticks: &[Tick]) -> f64 {
    ticks
        .iter()
        .map(|tick| text_width(&tick.label, TICK_SIZE))
        .fold(0.0, f64::max)
}

/// As many ticks as fit below an axis of this width without touching.
fn fitting_x_ticks(axis: &Axis, range: (f64, f64), width: f64) -> Vec<Tick> {
    let projection = Projection::new(axis.scale, range, 0.0, width);
    let fits = |ticks: &Vec<Tick>| {
        let mut free = f64::NEG_INFINITY;
        ticks.iter().filter(|t| t.kind == TickKind::Major).all(|t| {
            let centre = projection.place(t.value).unwrap_or(0.0);
            let half = 0.5 * text_width(&t.label, TICK_SIZE);
            let is_free = centre - half >= free;
            free = centre + half + 0.8 * TICK_SIZE;
            is_free
        })
    };
    let most = match axis.scale {
        Scale::Linear | Scale::Whole => 8,
        Scale::Log10 => 9,
    };
    (2..=most)
        .rev()
        .map(|target| ticks(axis.scale, range, target))
        .find(fits)
        .unwrap_or_else(|| ticks(axis.scale, range, 2))
}

/// A plot area and the places of values in it.
struct Plot {
    area: Rectangle,
    x: Projection,
    y: Projection,
}

impl Plot {
    fn place(&self, x: f64, y: f64) -> Option<Point> {
        self.x.place(x).zip(self.y.place(y))
    }

    fn shaded_band(
        &self,
        scene: &mut Scene,
        direction: Direction,
        (low, high): (f64, f64),
        colour: Colour,
    ) {
        let axis = match direction {
            Direction::Horizontal => &self.y,
            Direction::Vertical => &self.x,
        };
        let Some((low, high)) = axis.place_end(low).zip(axis.place_end(high)) else {
            return;
        };
        let mut band = self.area;
        match direction {
            Direction::Horizontal => (band.top, band.bottom) = (high, low),
            Direction::Vertical => (band.left, band.right) = (low, high),
        }
        self.filled(scene, &band.corners(), colour);
    }

    fn filled(&self, scene: &mut Scene, outline: &[Point], colour: Colour) {
        let clipped = clip_polygon(outline, &self.area);
        if clipped.len() > 2 {
            scene.polygon(clipped, colour.rgb(), BAND_OPACITY);
        }
    }

    fn reference_line(
        &self,
        scene: &mut Scene,
        direction: Direction,
        value: f64,
        colour: Colour,
        style: LineStyle,
    ) {
        let area = &self.area;
        let line = match direction {
            Direction::Horizontal => self
                .y
                .place(value)
                .filter(|&y| self.y.shows(y))
                .map(|y| [(area.left, y), (area.right, y)]),
            Direction::Vertical => self
                .x
                .place(value)
                .filter(|&x| self.x.shows(x))
                .map(|x| [(x, area.bottom), (x, area.top)]),
        };
        if let Some(line) = line {
            scene.line(&line, style, REFERENCE_WIDTH, colour.rgb());
        }
    }

    /// Minor lines first, so that major lines cross over them.
    fn grid(&self, scene: &mut Scene, x_ticks: &[Tick], y_ticks: &[Tick]) {
        let area = &self.area;
        for (kind, colour) in [(TickKind::Minor, MINOR_GRID), (TickKind::Major, GRID)] {
            for x in places(&self.x, x_ticks, kind) {
                scene.path(vec![(x, area.bottom), (x, area.top)], GRID_WIDTH, colour);
            }
            for y in places(&self.y, y_ticks, kind) {
                scene.path(vec![(area.left, y), (area.right, y)], GRID_WIDTH, colour);
            }
        }
    }

    fn axes(&self, scene: &mut Scene, x_ticks: &[Tick], y_ticks: &[Tick]) {
        let Rectangle {
            left, bottom, top, ..
        } = self.area;
        for (kind, length) in [
            (TickKind::Minor, 0.5 * TICK_LENGTH),
            (TickKind::Major, TICK_LENGTH),
        ] {
            for x in places(&self.x, x_ticks, kind) {
                let tick = vec![(x, bottom), (x, bottom + length)];
                scene.path(tick, GRID_WIDTH, INK);
            }
            for y in places(&self.y, y_ticks, kind) {
                scene.path(vec![(left - length, y), (left, y)], GRID_WIDTH, INK);
            }
        }
        let frame = vec![(left, top), (left, bottom), (self.area.right, bottom)];
        scene.path(frame, AXIS_WIDTH, INK);
        for tick in x_ticks.iter().filter(|tick| tick.kind == TickKind::Major) {
            if let Some(x) = self.x.place(tick.value) {
                let position = (x, bottom + TICK_LENGTH + TICK_GAP + 0.8 * TICK_SIZE);
                scene.text(&tick.label, position, TICK_SIZE, INK, Anchor::Middle);
            }
        }
        for tick in y_ticks.iter().filter(|tick| tick.kind == TickKind::Major) {
            if let Some(y) = self.y.place(tick.value) {
                let position = (left - TICK_LENGTH - TICK_GAP, y + 0.36 * TICK_SIZE);
                scene.text(&tick.label, position, TICK_SIZE, INK, Anchor::End);
            }
        }
    }

    /// The vertical line of an error bar, with a cap at each end in view.
    fn error_bar(&self, scene: &mut Scene, point: &Estimate, colour: Colour) {
        let Some((x, y)) = self.place(point.x, point.y) else {
            return;
        };
        for end in [point.low, point.high] {
            let Some(place) = self.y.place_end(end).filter(|&place| place != y) else {
                continue;
            };
            for line in clip_line(&[(x, y), (x, place)], &self.area) {
                scene.path(line, ERROR_WIDTH, colour.rgb());
            }
            let is_whole = self.y.place(end).is_some() && self.y.shows(place);
            if is_whole && self.x.shows(x) {
                let cap = vec![(x - CAP, place), (x + CAP, place)];
                scene.path(cap, ERROR_WIDTH, colour.rgb());
            }
        }
    }
}

/// The page coordinates of the ticks of one kind.
fn places(axis: &Projection, ticks: &[Tick], kind: TickKind) -> impl Iterator<Item = f64> {
    ticks
        .iter()
        .filter(move |tick| tick.kind == kind)
        .filter_map(|tick| axis.place(tick.value))
}

fn draw_band(plot: &Plot, scene: &mut Scene, series: &Series) {
    let SeriesData::Band { intervals } = &series.data else {
        return;
    };
    let place = |band: &Interval| {
        let x = plot.x.place(band.x)?;
        let low = plot.y.place_end(band.low)?;
        Some((x, low, plot.y.place_end(band.high)?))
    };
    let places: Vec<Option<(f64, f64, f64)>> = intervals.iter().map(place).collect();
    for run in places.split(Option::is_none) {
        let upper = run.iter().flatten().map(|&(x, _, high)| (x, high));
        let lower = run.iter().flatten().rev().map(|&(x, low, _)| (x, low));
        let outline: Vec<Point> = upper.chain(lower).collect();
        plot.filled(scene, &outline, series.colour);
    }
}

fn draw_line(plot: &Plot, scene: &mut Scene, series: &Series) {
    let SeriesData::Line { points, style } = &series.data else {
        return;
    };
    let places: Vec<Option<Point>> = points.iter().map(|&(x, y)| plot.place(x, y)).collect();
    for run in places.split(Option::is_none) {
        let run: Vec<Point> = run.iter().flatten().copied().collect();
        for part in clip_line(&run, &plot.area) {
            scene.line(&part, *style, LINE_WIDTH, series.colour.rgb());
        }
    }
}

/// Small marks for many points, which would hide the lines.
fn draw_dots(plot: &Plot, scene: &mut Scene, series: &Series) {
    if let SeriesData::Points { points, marker } = &series.data
        && marker.is_dot()
    {
        draw_points(plot, scene, series.colour, points, *marker);
    }
}

fn draw_markers(plot: &Plot, scene: &mut Scene, series: &Series) {
    if let SeriesData::Points { points, marker } = &series.data
        && !marker.is_dot()
    {
        draw_points(plot, scene, series.colour, points, *marker);
    }
}

fn draw_points(
    plot: &Plot,
    scene: &mut Scene,
    colour: Colour,
    points: &[Estimate],
    marker: Marker,
) {
    let places: Vec<Point> = points
        .iter()
        .filter_map(|point| plot.place(point.x, point.y))
        .filter(|&(x, y)| plot.x.shows(x) && plot.y.shows(y))
        .collect();
    // The rims set the markers off from other series, not from their own bars.
    for &place in &places {
        scene.marker_rim(marker, place);
    }
    for point in points {
        plot.error_bar(scene, point, colour);
    }
    for &place in &places {
        scene.marker(marker, place, colour.rgb());
    }
}
