//! Colours, markers and line styles that stay distinct for colour-blind
//! readers and in grey print.

/// A colour of the Okabe-Ito palette, two dark ones after Tol, or a neutral one.
///
/// Okabe and Ito's yellow is left out: it is too pale on white paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Blue.
    Blue,
    /// Vermillion.
    Vermillion,
    /// Bluish green.
    BluishGreen,
    /// Reddish purple.
    ReddishPurple,
    /// Orange.
    Orange,
    /// Sky blue.
    SkyBlue,
    /// Indigo (Tol's muted palette).
    Indigo,
    /// Olive (Tol's muted palette).
    Olive,
    /// Black: for what theory says.
    Black,
    /// Grey: for reference lines and acceptance bands.
    Grey,
}

impl Colour {
    /// Red, green and blue, each from 0 to 255.
    pub const fn rgb(self) -> (u8, u8, u8) {
        match self {
            Colour::Blue => (0, 114, 178),
            Colour::Vermillion => (213, 94, 0),
            Colour::BluishGreen => (0, 158, 115),
            Colour::ReddishPurple => (204, 121, 167),
            Colour::Orange => (230, 159, 0),
            Colour::SkyBlue => (86, 180, 233),
            Colour::Indigo => (51, 34, 136),
            Colour::Olive => (122, 122, 40),
            Colour::Black => (0, 0, 0),
            Colour::Grey => (118, 118, 118),
        }
    }

    /// The marker that goes with this colour, so that series stay apart in
    /// grey print.
    pub const fn marker(self) -> Marker {
        match self {
            Colour::Blue => Marker::Circle,
            Colour::Vermillion => Marker::Square,
            Colour::BluishGreen => Marker::Triangle,
            Colour::ReddishPurple => Marker::Diamond,
            Colour::Orange => Marker::InvertedTriangle,
            Colour::SkyBlue => Marker::OpenCircle,
            Colour::Indigo | Colour::Black => Marker::OpenSquare,
            Colour::Olive | Colour::Grey => Marker::OpenDiamond,
        }
    }
}

/// The order in which colours are handed to series.
#[derive(Clone, Copy, Debug)]
pub struct Palette;

impl Palette {
    /// The colours in order, without the neutral ones.
    pub const COLOURS: [Colour; 8] = [
        Colour::Blue,
        Colour::Vermillion,
        Colour::BluishGreen,
        Colour::ReddishPurple,
        Colour::Orange,
        Colour::SkyBlue,
        Colour::Indigo,
        Colour::Olive,
    ];

    /// The colour of series `index`, counted from 0; starts over after the
    /// last.
    pub const fn colour(index: usize) -> Colour {
        Self::COLOURS[index % Self::COLOURS.len()]
    }
}

/// The shape drawn at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Filled circle.
    Circle,
    /// Filled square.
    Square,
    /// Filled triangle, point up.
    Triangle,
    /// Filled diamond.
    Diamond,
    /// Filled triangle, point down.
    InvertedTriangle,
    /// Circle with a white interior.
    OpenCircle,
    /// Square with a white interior.
    OpenSquare,
    /// Diamond with a white interior.
    OpenDiamond,
    /// Triangle, point up, with a white interior.
    OpenTriangle,
    /// Triangle, point down, with a white interior.
    OpenInvertedTriangle,
    /// Small filled circle without a rim, below lines: for many points.
    Dot,
    /// Small circle with a white interior, likewise.
    OpenDot,
}

impl Marker {
    /// The same shape with a white interior.
    pub const fn open(self) -> Marker {
        match self {
            Marker::Circle | Marker::OpenCircle => Marker::OpenCircle,
            Marker::Square | Marker::OpenSquare => Marker::OpenSquare,
            Marker::Diamond | Marker::OpenDiamond => Marker::OpenDiamond,
            Marker::Triangle | Marker::OpenTriangle => Marker::OpenTriangle,
            Marker::InvertedTriangle | Marker::OpenInvertedTriangle => Marker::OpenInvertedTriangle,
            Marker::Dot | Marker::OpenDot => Marker::OpenDot,
        }
    }

    /// Whether it is for many points.
    pub(super) fn is_dot(self) -> bool {
        matches!(self, Marker::Dot | Marker::OpenDot)
    }

    /// Whether the interior is white.
    pub(super) fn is_open(self) -> bool {
        self == self.open()
    }
}

/// How a line is stroked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStyle {
    /// Unbroken.
    Solid,
    /// Dashes.
    Dashed,
    /// Short dots.
    Dotted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_starts_over_after_its_last_colour() {
        assert_eq!(Palette::colour(0), Palette::colour(8));
    }

    #[test]
    fn no_two_colours_of_the_palette_share_a_marker() {
        for (i, a) in Palette::COLOURS.iter().enumerate() {
            for b in &Palette::COLOURS[..i] {
                assert_ne!(a.marker(), b.marker());
            }
        }
    }
}
