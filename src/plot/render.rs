//! Turns a scene into SVG or PNG through plotters' drawing back ends.

use std::io::BufWriter;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontFamily, FontTransform, IntoFont, RGBAColor, RGBColor, ShapeStyle, TextStyle,
};

use super::bitmap;
use super::font;
use super::scene::{Anchor, Point, Reading, Rgb, Scene, Shape, WHITE};

/// Pixels of the PNG per pixel of the page.
pub(super) const PNG_SCALE: u32 = 2;

/// The PNG is drawn this much larger and then averaged down, which smooths all
/// edges.
const OVERSAMPLING: u32 = 3;

/// SVG coordinates per pixel of the page: plotters' coordinates are integers,
/// and whole pixels would be too coarse.
const SVG_SCALE: u32 = 8;

/// The picture as a standalone SVG document.
pub(super) fn svg(scene: &Scene, (width, height): (u32, u32), description: &str) -> String {
    let mut document = String::new();
    {
        let size = (width * SVG_SCALE, height * SVG_SCALE);
        let mut backend = SVGBackend::with_string(&mut document, size);
        let drawn = draw(scene, &mut backend, SVG_SCALE, draw_svg_text);
        debug_assert!(drawn.is_ok(), "drawing into memory succeeds");
    }
    // plotters wrote its coordinates' extent as the size; the page is smaller.
    let body = document.split_once('>').map_or("", |(_, body)| body);
    format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">{body}",
        width * SVG_SCALE,
        height * SVG_SCALE,
        escaped(description),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Writes the picture to `path` and returns the reason if that fails.
pub(super) fn png(
    scene: &Scene,
    (width, height): (u32, u32),
    path: &std::path::Path,
) -> Result<(), String> {
    font::register();
    let scale = PNG_SCALE * OVERSAMPLING;
    let size = (width * scale, height * scale);
    let mut large = vec![255; 3 * size.0 as usize * size.1 as usize];
    {
        let mut backend = BitMapBackend::with_buffer(&mut large, size);
        draw(scene, &mut backend, scale, draw_bitmap_text).map_err(|e| e.to_string())?;
    }
    let pixels = averaged(&large, size.0 as usize);
    let size = (width * PNG_SCALE, height * PNG_SCALE);
    std::fs::File::create(path)
        .and_then(|file| bitmap::write(BufWriter::new(file), size, &pixels))
        .map_err(|e| e.to_string())
}

/// Averages squares of `OVERSAMPLING` pixels of an RGB image.
fn averaged(pixels: &[u8], width: usize) -> Vec<u8> {
    const N: usize = OVERSAMPLING as usize;
    let rows = pixels.chunks_exact(3 * width * N);
    let mut small = Vec::with_capacity(pixels.len() / (N * N));
    for square_row in rows {
        for x in 0..width / N {
            for channel in 0..3 {
                let sum: usize = (0..N * N)
                    .map(|i| 3 * (width * (i / N) + N * x + i % N) + channel)
                    .map(|position| usize::from(square_row[position]))
                    .sum();
                small.push(((sum + N * N / 2) / (N * N)) as u8);
            }
        }
    }
    small
}

/// A text ready for a back end.
struct Label<'a> {
    position: Point,
    text: &'a str,
    size: f64,
    colour: RGBColor,
    anchor: Anchor,
    reading: Reading,
}

fn draw<B: DrawingBackend>(
    scene: &Scene,
    backend: &mut B,
    scale: u32,
    draw_text: fn(&mut B, &Label) -> Result<(), String>,
) -> Result<(), String> {
    let scale = f64::from(scale);
    let place = |&(x, y): &Point| ((x * scale).round() as i32, (y * scale).round() as i32);
    let (width, height) = backend.get_size();
    let page = (width as i32, height as i32);
    backend
        .draw_rect((0, 0), page, &style(WHITE, 1.0), true)
        .map_err(|e| e.to_string())?;
    for shape in &scene.shapes {
        match shape {
            Shape::Path {
                points,
                width,
                colour,
            } => {
                let width = (width * scale).round().max(1.0) as u32;
                let style = style(*colour, 1.0).stroke_width(width);
                backend.draw_path(points.iter().map(place), &style)
            }
            Shape::Polygon {
                points,
                colour,
                opacity,
            } => backend.fill_polygon(points.iter().map(place), &style(*colour, *opacity)),
            Shape::Circle {
                centre,
                radius,
                colour,
            } => {
                let radius = (radius * scale).round() as u32;
                backend.draw_circle(place(centre), radius, &style(*colour, 1.0), true)
            }
            Shape::Text {
                position,
                text,
                size,
                colour,
                anchor,
                reading,
            } => {
                let label = Label {
                    position: (position.0 * scale, position.1 * scale),
                    text,
                    size: size * scale,
                    colour: RGBColor(colour.0, colour.1, colour.2),
                    anchor: *anchor,
                    reading: *reading,
                };
                draw_text(backend, &label)?;
                continue;
            }
        }
        .map_err(|e| e.to_string())?;
    }
    backend.present().map_err(|e| e.to_string())
}

fn style((red, green, blue): Rgb, opacity: f64) -> ShapeStyle {
    let colour: RGBAColor = RGBColor(red, green, blue).mix(opacity);
    colour.filled()
}

impl Label<'_> {
    /// The plotters style of this text, set from its upper edge.
    fn style(&self, size: f64, anchor: Anchor) -> TextStyle<'_> {
        let horizontal = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let transform = match self.reading {
            Reading::Rightwards => FontTransform::None,
            Reading::Upwards => FontTransform::Rotate270,
        };
        let font = (FontFamily::from(font::FAMILY), size).into_font();
        TextStyle::from(font.transform(transform))
            .color(&self.colour)
            .pos(Pos::new(horizontal, VPos::Top))
    }

    /// The place `along` further in reading direction and `above` the
    /// baseline.
    fn place(&self, along: f64, above: f64) -> (i32, i32) {
        let (x, y) = match self.reading {
            Reading::Rightwards => (self.position.0 + along, self.position.1 - above),
            Reading::Upwards => (self.position.0 - above, self.position.1 - along),
        };
        (x.round() as i32, y.round() as i32)
    }
}

/// plotters' SVG puts the baseline 0.76 em below the upper edge, and an em is
/// the font size over 1.24.
fn draw_svg_text(backend: &mut SVGBackend, label: &Label) -> Result<(), String> {
    let style = label.style(1.24 * label.size, label.anchor);
    let place = label.place(0.0, 0.76 * label.size);
    backend
        .draw_text(label.text, &style, place)
        .map_err(|e| e.to_string())
}

/// plotters' rasteriser ignores the space to the left of each glyph's outline,
/// so glyphs are set one by one. It takes the height of a line as the font
/// size and puts the baseline half of that below the upper edge.
fn draw_bitmap_text(backend: &mut BitMapBackend, label: &Label) -> Result<(), String> {
    let line = label.size * font::LINE_OVER_EM;
    let style = label.style(line, Anchor::Start);
    let width = font::text_width(label.text, label.size);
    let mut pen = match label.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -0.5 * width,
        Anchor::End => -width,
    };
    for c in label.text.chars() {
        let glyph = font::glyph(c, label.size);
        let place = label.place(pen + glyph.left_bearing.floor(), 0.5 * line);
        backend
            .draw_text(c.encode_utf8(&mut [0; 4]), &style, place)
            .map_err(|e| e.to_string())?;
        pen += glyph.advance;
    }
    Ok(())
}
