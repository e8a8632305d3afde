//! Charts as SVG and PNG, with a built-in font.
