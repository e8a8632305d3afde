//! PNG files of drawings: few colours, large plain areas.

use std::collections::HashMap;
use std::io::{self, Write};

/// Colours that a palette holds.
const MOST_COLOURS: usize = 256;
/// How many of them are the most frequent; the others are those farthest from
/// what the palette holds already.
const FREQUENT: usize = 192;
/// Largest change of a channel, of 255, by which a colour may move into the
/// palette. Rare colours are those of single pixels on smoothed edges.
const LARGEST_CHANGE: u8 = 24;

/// Writes an RGB image, three bytes per pixel, row by row. Smoothed edges of a
/// drawing have more than 256 colours, but almost all pixels have one of a few:
/// the others take the nearest colour of a palette, unless one would have to move
/// visibly. Then, all colours are kept.
pub(super) fn write(out: impl Write, (width, height): (u32, u32), pixels: &[u8]) -> io::Result<()> {
    let palette = Palette::of(pixels);
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Best);
    match &palette {
        Some(palette) => {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(palette.colours.concat());
            // Differences of indices mean nothing.
            encoder.set_filter(png::FilterType::NoFilter);
            encoder.set_adaptive_filter(png::AdaptiveFilterType::NonAdaptive);
        }
        None => {
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_adaptive_filter(png::AdaptiveFilterType::Adaptive);
        }
    }
    let mut writer = encoder.write_header()?;
    match &palette {
        Some(palette) => writer.write_image_data(&palette.indices(pixels))?,
        None => writer.write_image_data(pixels)?,
    }
    writer.finish()?;
    Ok(())
}

type Colour = [u8; 3];

fn colours(pixels: &[u8]) -> impl Iterator<Item = Colour> {
    pixels.chunks_exact(3).map(|p| [p[0], p[1], p[2]])
}

/// At most 256 colours, and for each colour of an image its place among them.
struct Palette {
    colours: Vec<Colour>,
    places: HashMap<Colour, u8>,
}

impl Palette {
    /// `None` if a colour lies too far from all of the palette.
    fn of(pixels: &[u8]) -> Option<Self> {
        let mut counts: HashMap<Colour, usize> = HashMap::new();
        for colour in colours(pixels) {
            *counts.entry(colour).or_insert(0) += 1;
        }
        let mut found: Vec<(Colour, usize)> = counts.into_iter().collect();
        found.sort_by_key(|(colour, count)| (std::cmp::Reverse(*count), *colour));
        let mut kept: Vec<Colour> = found.iter().take(FREQUENT).map(|(c, _)| *c).collect();
        let mut distances: Vec<u8> = found.iter().map(|(c, _)| nearest(*c, &kept).1).collect();
        while kept.len() < MOST_COLOURS {
            let Some((farthest, 1..)) = (distances.iter().copied().enumerate())
                .max_by_key(|(place, distance)| (*distance, std::cmp::Reverse(*place)))
            else {
                break;
            };
            kept.push(found[farthest].0);
            for (distance, (colour, _)) in distances.iter_mut().zip(&found) {
                *distance = change(*colour, found[farthest].0).0.min(*distance);
            }
        }
        if distances.iter().any(|distance| *distance > LARGEST_CHANGE) {
            return None;
        }
        let place = |colour: Colour| (colour, nearest(colour, &kept).0 as u8);
        let places = found.iter().map(|(colour, _)| place(*colour)).collect();
        Some(Palette {
            colours: kept,
            places,
        })
    }

    fn indices(&self, pixels: &[u8]) -> Vec<u8> {
        colours(pixels).map(|colour| self.places[&colour]).collect()
    }
}

/// The place of the nearest colour of a list that is not empty, and its change.
fn nearest(colour: Colour, list: &[Colour]) -> (usize, u8) {
    let places = 0..list.len();
    let place = places.min_by_key(|&k| change(colour, list[k])).unwrap_or(0);
    (
        place,
        list.get(place).map_or(0, |other| change(colour, *other).0),
    )
}

/// How far two colours are apart: the largest difference of a channel, then the
/// sum over the channels.
fn change(a: Colour, b: Colour) -> (u8, u32) {
    let differences = [0, 1, 2].map(|k| a[k].abs_diff(b[k]));
    let largest = differences.into_iter().max().unwrap_or(0);
    (largest, differences.into_iter().map(u32::from).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(pixels: &[u8], size: (u32, u32)) -> (png::ColorType, Vec<u8>) {
        let mut file = Vec::new();
        write(&mut file, size, pixels).unwrap();
        let mut decoder = png::Decoder::new(file.as_slice());
        let stored = decoder.read_header_info().unwrap().color_type;
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut image = vec![0; reader.output_buffer_size()];
        reader.next_frame(&mut image).unwrap();
        (stored, image)
    }

    #[test]
    fn a_drawing_of_few_colours_reads_back_as_it_was() {
        let pixels: Vec<u8> = (0..256u32)
            .flat_map(|k| [k as u8, (3 * k) as u8, 255])
            .collect();
        let (stored, image) = read_back(&pixels, (16, 16));
        assert_eq!(stored, png::ColorType::Indexed);
        assert_eq!(image, pixels);
    }

    #[test]
    fn rare_colours_move_by_no_more_than_nobody_sees() {
        // 512 shades near to each other: half of them are replaced.
        let pixels: Vec<u8> = (0..512u32)
            .flat_map(|k| [(k / 2) as u8, (k / 2) as u8, (k % 2) as u8])
            .collect();
        let (stored, image) = read_back(&pixels, (32, 16));
        assert_eq!(stored, png::ColorType::Indexed);
        let largest = pixels.iter().zip(&image).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!(largest, Some(1));
    }

    #[test]
    fn an_image_of_many_colours_keeps_them_all() {
        let pixels: Vec<u8> = (0..4096u32)
            .flat_map(|k| {
                [
                    (k % 16 * 17) as u8,
                    (k / 16 % 16 * 17) as u8,
                    (k / 256 * 17) as u8,
                ]
            })
            .collect();
        let (stored, image) = read_back(&pixels, (64, 64));
        assert_eq!(stored, png::ColorType::Rgb);
        assert_eq!(image, pixels);
    }
}
