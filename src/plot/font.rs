//! The built-in font and the width of its texts.

use std::sync::LazyLock;

use plotters::style::{FontStyle, register_font};

/// DejaVu Sans, version 2.37. Its licence lies beside it.
static DATA: &[u8] = include_bytes!("fonts/DejaVuSans.ttf");

/// The font's name: in SVG a list of families, of which the viewer takes the
/// first it has, and in PNG the name under which the built-in font is known.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Height of the font's line over height of its em.
pub(super) const LINE_OVER_EM: f64 = 2384.0 / 2048.0;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::read);

/// Makes the built-in font known to plotters.
///
/// # Panics
/// If the built-in font is broken, which a test rules out.
pub(super) fn register() {
    static REGISTERED: LazyLock<()> = LazyLock::new(|| {
        assert!(
            register_font(FAMILY, FontStyle::Normal, DATA).is_ok(),
            "the built-in font is readable"
        );
    });
    LazyLock::force(&REGISTERED);
}

/// The width of `text` at em height `size`.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| glyph(c, size).advance).sum()
}

/// Horizontal metrics of one glyph.
#[derive(Clone, Copy, Debug)]
pub(super) struct GlyphMetrics {
    /// From this glyph's origin to the next one's.
    pub(super) advance: f64,
    /// From the origin to the outline's left edge.
    pub(super) left_bearing: f64,
}

/// The metrics of the glyph of `c` at em height `size`.
pub(super) fn glyph(c: char, size: f64) -> GlyphMetrics {
    let metrics = &*METRICS;
    let glyph = metrics.glyph_index(c);
    let scale = size / metrics.units_per_em;
    GlyphMetrics {
        advance: scale * metrics.advance(glyph),
        left_bearing: scale * metrics.left_bearing(glyph),
    }
}

/// Breaks `text` at spaces into lines no wider than `width`; a longer word
/// stays whole.
pub(super) fn wrap(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// The tables of the font that say how wide its glyphs are.
struct Metrics {
    units_per_em: f64,
    /// Format 4 of the character map: 16-bit characters.
    character_map: usize,
    horizontal: usize,
    horizontal_count: usize,
}

impl Metrics {
    fn read() -> Self {
        let character_maps = table(b"cmap");
        let subtables = word(character_maps + 2);
        let character_map = (0..subtables)
            .map(|i| character_maps + long(character_maps + 4 + 8 * i + 4))
            .find(|&subtable| word(subtable) == 4)
            .expect("the built-in font maps 16-bit characters");
        Self {
            units_per_em: word(table(b"head") + 18) as f64,
            character_map,
            horizontal: table(b"hmtx"),
            horizontal_count: word(table(b"hhea") + 34),
        }
    }

    /// The glyph of a character; 0, the font's box, for an unknown one.
    fn glyph_index(&self, c: char) -> usize {
        let Ok(code) = u16::try_from(c as u32) else {
            return 0;
        };
        let code = usize::from(code);
        let doubled = word(self.character_map + 6);
        let ends = self.character_map + 14;
        let starts = ends + doubled + 2;
        let deltas = starts + doubled;
        let offsets = deltas + doubled;
        let Some(i) = (0..doubled / 2).find(|i| word(ends + 2 * i) >= code) else {
            return 0;
        };
        let start = word(starts + 2 * i);
        if start > code {
            return 0;
        }
        let delta = word(deltas + 2 * i);
        let offset_position = offsets + 2 * i;
        match word(offset_position) {
            0 => (code + delta) % 0x1_0000,
            offset => match word(offset_position + offset + 2 * (code - start)) {
                0 => 0,
                glyph => (glyph + delta) % 0x1_0000,
            },
        }
    }

    fn advance(&self, glyph: usize) -> f64 {
        word(self.horizontal + 4 * glyph.min(self.horizontal_count - 1)) as f64
    }

    fn left_bearing(&self, glyph: usize) -> f64 {
        let position = if glyph < self.horizontal_count {
            self.horizontal + 4 * glyph + 2
        } else {
            self.horizontal + 4 * self.horizontal_count + 2 * (glyph - self.horizontal_count)
        };
        f64::from(word(position) as u16 as i16)
    }
}

/// The position of a table of the font.
fn table(tag: &[u8; 4]) -> usize {
    (0..word(4))
        .map(|i| 12 + 16 * i)
        .find(|&record| &DATA[record..record + 4] == tag)
        .map(|record| long(record + 8))
        .expect("the built-in font has all tables")
}

/// The 16-bit number at a position of the font.
fn word(position: usize) -> usize {
    usize::from(DATA[position]) << 8 | usize::from(DATA[position + 1])
}

/// The 32-bit number at a position of the font.
fn long(position: usize) -> usize {
    word(position) << 16 | word(position + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::style::{FontFamily, IntoFont};

    #[test]
    fn text_widths_agree_with_the_rasteriser() {
        register();
        for text in ["1000", "nnnn", "10⁻³", "−√≤θ"] {
            let font = (FontFamily::from(FAMILY), 1000.0 * LINE_OVER_EM).into_font();
            let (rasterised, _) = font.box_size(text).unwrap();
            let width = text_width(text, 1000.0);
            assert!(
                (width - f64::from(rasterised)).abs() < 2.0,
                "{text}: {width} {rasterised}"
            );
        }
    }

    #[test]
    fn characters_of_charts_have_glyphs() {
        for c in "slope −0.5 [×⁰¹²³⁴⁵⁶⁷⁸⁹⁻] √n ≤ ≥ ± → ∞ Ĥ θ σ α β λ · – —".chars()
        {
            assert_ne!(METRICS.glyph_index(c), 0, "{c}");
        }
    }

    #[test]
    fn a_long_text_is_broken_at_spaces() {
        let lines = wrap("aaa bbb ccc", 10.0, text_width("aaa bbb", 10.0));
        assert_eq!(lines, ["aaa bbb", "ccc"]);
        assert!(wrap("", 10.0, 100.0).is_empty());
    }
}
