//! A picture as a list of shapes, before it becomes SVG or PNG.

use super::palette::{LineStyle, Marker};

/// A place on the page, in pixels from its upper left corner.
pub(super) type Point = (f64, f64);

/// Red, green and blue.
pub(super) type Rgb = (u8, u8, u8);

pub(super) const WHITE: Rgb = (255, 255, 255);
/// Titles, labels and axes.
pub(super) const INK: Rgb = (38, 38, 38);
/// Subtitles.
pub(super) const SOFT_INK: Rgb = (89, 89, 89);
pub(super) const GRID: Rgb = (222, 222, 222);
pub(super) const MINOR_GRID: Rgb = (241, 241, 241);

/// Radius of a round marker.
const MARKER_SIZE: f64 = 4.75;
/// Radius of a dot.
const DOT_SIZE: f64 = 2.4;

/// A rectangle on the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rectangle {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Rectangle {
    pub(super) const fn corners(&self) -> [Point; 4] {
        [
            (self.left, self.top),
            (self.right, self.top),
            (self.right, self.bottom),
            (self.left, self.bottom),
        ]
    }
}

/// Which part of a text stands at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Which way a text reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Rightwards,
    Upwards,
}

/// One thing to draw. Later shapes cover earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Path {
        points: Vec<Point>,
        width: f64,
        colour: Rgb,
    },
    Polygon {
        points: Vec<Point>,
        colour: Rgb,
        opacity: f64,
    },
    Circle {
        centre: Point,
        radius: f64,
        colour: Rgb,
    },
    Text {
        /// The position of the anchor on the baseline.
        position: Point,
        text: String,
        /// Height of an em.
        size: f64,
        colour: Rgb,
        anchor: Anchor,
        reading: Reading,
    },
}

/// The shapes of a picture, in drawing order.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    pub(super) shapes: Vec<Shape>,
}

impl Scene {
    pub(super) fn path(&mut self, points: Vec<Point>, width: f64, colour: Rgb) {
        self.shapes.push(Shape::Path {
            points,
            width,
            colour,
        });
    }

    pub(super) fn polygon(&mut self, points: Vec<Point>, colour: Rgb, opacity: f64) {
        self.shapes.push(Shape::Polygon {
            points,
            colour,
            opacity,
        });
    }

    pub(super) fn rectangle(&mut self, rectangle: &Rectangle, colour: Rgb, opacity: f64) {
        self.polygon(rectangle.corners().to_vec(), colour, opacity);
    }

    pub(super) fn text(
        &mut self,
        text: &str,
        position: Point,
        size: f64,
        colour: Rgb,
        anchor: Anchor,
    ) {
        self.directed_text(text, position, size, colour, anchor, Reading::Rightwards);
    }

    pub(super) fn directed_text(
        &mut self,
        text: &str,
        position: Point,
        size: f64,
        colour: Rgb,
        anchor: Anchor,
        reading: Reading,
    ) {
        self.shapes.push(Shape::Text {
            position,
            text: text.to_string(),
            size,
            colour,
            anchor,
            reading,
        });
    }

    /// A polyline in a style; dashes continue around corners.
    pub(super) fn line(&mut self, points: &[Point], style: LineStyle, width: f64, colour: Rgb) {
        let pattern = match style {
            LineStyle::Solid => {
                self.path(points.to_vec(), width, colour);
                return;
            }
            LineStyle::Dashed => [4.5 * width, 3.0 * width],
            LineStyle::Dotted => [1.25 * width, 2.0 * width],
        };
        for dash in dashes(points, pattern) {
            self.path(dash, width, colour);
        }
    }

    /// The white ground of a marker, which sets it off from what it covers.
    pub(super) fn marker_rim(&mut self, marker: Marker, centre: Point) {
        const RIM: f64 = 1.25;
        if !marker.is_dot() {
            self.marker_body(marker, centre, MARKER_SIZE + RIM, WHITE);
        }
    }

    /// A marker without its rim.
    pub(super) fn marker(&mut self, marker: Marker, centre: Point, colour: Rgb) {
        let (size, stroke) = match marker.is_dot() {
            true => (DOT_SIZE, 1.0),
            false => (MARKER_SIZE, 1.75),
        };
        self.marker_body(marker, centre, size, colour);
        if marker.is_open() {
            self.marker_body(marker, centre, size - stroke, WHITE);
        }
    }

    /// A filled marker about as large as a circle of radius `size`.
    fn marker_body(&mut self, marker: Marker, (x, y): Point, size: f64, colour: Rgb) {
        let points = match marker {
            Marker::Circle | Marker::OpenCircle | Marker::Dot | Marker::OpenDot => {
                self.shapes.push(Shape::Circle {
                    centre: (x, y),
                    radius: size,
                    colour,
                });
                return;
            }
            Marker::Square | Marker::OpenSquare => {
                let half = 0.9 * size;
                vec![
                    (x - half, y - half),
                    (x + half, y - half),
                    (x + half, y + half),
                    (x - half, y + half),
                ]
            }
            Marker::Triangle | Marker::OpenTriangle => triangle((x, y), 1.3 * size, -1.0),
            Marker::InvertedTriangle | Marker::OpenInvertedTriangle => {
                triangle((x, y), 1.3 * size, 1.0)
            }
            Marker::Diamond | Marker::OpenDiamond => {
                let half = 1.3 * size;
                vec![(x, y - half), (x + half, y), (x, y + half), (x - half, y)]
            }
        };
        self.polygon(points, colour, 1.0);
    }
}

/// An equilateral triangle around its centroid; `down` is 1 for a point that
/// looks down the page and -1 for one that looks up.
fn triangle((x, y): Point, radius: f64, down: f64) -> Vec<Point> {
    let half_side = 0.75f64.sqrt() * radius;
    vec![
        (x, y + down * radius),
        (x + half_side, y - 0.5 * down * radius),
        (x - half_side, y - 0.5 * down * radius),
    ]
}

/// Cuts a polyline into dashes of `pattern = [drawn, skipped]` pixels.
fn dashes(points: &[Point], pattern: [f64; 2]) -> Vec<Vec<Point>> {
    let mut dashes = Vec::new();
    let mut current: Vec<Point> = points.first().copied().into_iter().collect();
    let mut is_drawn = true;
    let mut left = pattern[0];
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        let mut length = (to.0 - from.0).hypot(to.1 - from.1);
        while length > left {
            let share = left / length;
            from = (
                from.0 + share * (to.0 - from.0),
                from.1 + share * (to.1 - from.1),
            );
            length -= left;
            current.push(from);
            if is_drawn {
                dashes.push(std::mem::take(&mut current));
            }
            is_drawn = !is_drawn;
            current = vec![from];
            left = pattern[usize::from(!is_drawn)];
        }
        left -= length;
        current.push(to);
    }
    if is_drawn && current.len() > 1 {
        dashes.push(current);
    }
    dashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_their_share_of_a_line_and_continue_around_corners() {
        let dashes = dashes(&[(0.0, 0.0), (15.0, 0.0), (15.0, 15.0)], [10.0, 2.0]);
        assert_eq!(dashes[0], [(0.0, 0.0), (10.0, 0.0)]);
        assert_eq!(dashes[1], [(12.0, 0.0), (15.0, 0.0), (15.0, 7.0)]);
        assert_eq!(dashes[2], [(15.0, 9.0), (15.0, 15.0)]);
        assert_eq!(dashes.len(), 3);
    }
}
