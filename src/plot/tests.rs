//! Whole figures: what is in them, and that odd data does no harm.

use std::path::Path;

use super::*;
use crate::error::Error;

fn chart_of_all_kinds() -> Chart {
    let line = vec![(100.0, 0.09), (10_000.0, 0.009)];
    Chart::new("Title", Axis::log10("Sample size"), Axis::log10("Distance"))
        .with_subtitle("Subtitle")
        .with_series(Series::points(
            "softmax & top-1",
            Colour::Blue,
            vec![
                Estimate::new(100.0, 0.09, 0.08, 0.1),
                Estimate::new(1e4, 0.009, 0.0, 0.01),
            ],
        ))
        .with_series(Series::line(
            "slope −0.503 [−0.512, −0.494]",
            Colour::Vermillion,
            line.clone(),
        ))
        .with_series(Series::dashed("theorem", Colour::Black, line))
        .with_series(Series::band(
            "confidence band",
            Colour::BluishGreen,
            vec![
                Interval::new(100.0, 0.07, 0.11),
                Interval::new(1e4, 0.007, 0.011),
            ],
        ))
        .with_reference_line(ReferenceLine::horizontal(0.02, "floor"))
        .with_reference_line(ReferenceLine::vertical(1000.0, "onset"))
        .with_shaded_band(ShadedBand::vertical(2000.0, 3000.0, "acceptance"))
}

#[test]
fn every_kind_of_series_line_and_band_has_its_label_in_the_svg() {
    let svg = Figure::single(chart_of_all_kinds()).svg();
    for text in [
        "Title",
        "Subtitle",
        "Sample size",
        "Distance",
        "softmax &amp; top-1",
        "slope −0.503 [−0.512, −0.494]",
        "theorem",
        "confidence band",
        "floor",
        "onset",
        "acceptance",
    ] {
        assert!(svg.contains(&format!("\n{text}\n")), "{text}");
    }
    assert_eq!(svg.matches("<svg").count(), 1);
    assert_eq!(svg.matches("</svg>").count(), 1);
}

#[test]
fn the_same_figure_gives_the_same_bytes() {
    let figure = Figure::row(vec![chart_of_all_kinds(), chart_of_all_kinds()]);
    assert_eq!(figure.svg(), figure.clone().svg());
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str| {
        let path = folder.path().join(name);
        figure.write_png(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(bytes("a.png"), bytes("b.png"));
}

#[test]
fn values_without_a_place_on_the_axes_do_no_harm() {
    let odd = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -1.0,
        1.0,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
    ];
    for x in [Axis::linear("x"), Axis::log10("x")] {
        for y in [
            Axis::linear("y"),
            Axis::log10("y"),
            Axis::log10("y").with_range(-1.0, f64::NAN),
            Axis::linear("y").with_range(2.0, 3.0),
        ] {
            let mut chart = Chart::new("", x.clone(), y);
            for a in odd {
                for b in odd {
                    chart = chart
                        .with_series(Series::points(
                            "points",
                            Colour::Blue,
                            vec![Estimate::new(a, b, b, a), Estimate::new(1.0, 1.0, a, b)],
                        ))
                        .with_series(Series::dashed("line", Colour::Blue, vec![(a, b), (b, a)]))
                        .with_series(Series::band(
                            "band",
                            Colour::Blue,
                            vec![Interval::new(a, b, a), Interval::new(b, a, b)],
                        ));
                }
                chart = chart
                    .with_reference_line(ReferenceLine::horizontal(a, "line"))
                    .with_shaded_band(ShadedBand::horizontal(a, 1.0, "band"));
            }
            let svg = Figure::single(chart).svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }
}

#[test]
fn dots_lie_below_lines_and_markers_above() {
    let is_below = |marker: Marker| {
        let points = vec![Estimate::exact(1.0, 1.0), Estimate::exact(2.0, 2.0)];
        let line = Series::line("", Colour::Black, vec![(1.0, 1.0), (2.0, 2.0)]);
        let points = Series::points("", Colour::Blue, points).with_marker(marker);
        let chart = Chart::new("", Axis::linear(""), Axis::linear(""));
        let svg = Figure::single(chart.with_series(line).with_series(points)).svg();
        // Blue marks, and the one black line as wide as a line.
        let (mark, line) = ("#0072B2", "stroke=\"#000000\"");
        svg.find(mark).unwrap() < svg.find(line).unwrap()
    };
    for marker in [Marker::Dot, Marker::OpenDot] {
        assert!(is_below(marker));
    }
    for marker in [Marker::Circle, Marker::Triangle, Marker::Triangle.open()] {
        assert!(!is_below(marker));
    }
}

#[test]
fn an_error_bar_below_all_logarithms_reaches_the_axis() {
    let lowest_end = |low: f64| {
        let point = Estimate::new(1.0, 1.0, low, 2.0);
        let axis = Axis::log10("").with_range(0.1, 10.0);
        let chart = Chart::new("", Axis::linear(""), axis).with_series(Series::points(
            "",
            Colour::Blue,
            vec![point],
        ));
        Figure::single(chart).svg()
    };
    // Beyond the axis or without a logarithm: the same clipped bar, no cap.
    assert_eq!(lowest_end(-1.0), lowest_end(0.01));
    assert_ne!(lowest_end(-1.0), lowest_end(0.5));
}

#[test]
fn empty_charts_and_figures_and_single_points_are_drawn() {
    let empty = || Chart::new("", Axis::linear(""), Axis::log10(""));
    let single = empty().with_series(Series::points(
        "single",
        Colour::Blue,
        vec![Estimate::exact(3.0, 3.0)],
    ));
    let hollow = empty()
        .with_series(Series::points("none", Colour::Blue, vec![]))
        .with_series(Series::line("none", Colour::Blue, vec![]))
        .with_series(Series::band("none", Colour::Blue, vec![]));
    for figure in [
        Figure::single(empty()),
        Figure::single(single),
        Figure::single(hollow),
        Figure::grid(0, vec![empty()]),
        Figure::row(vec![]),
        Figure::single(empty()).with_panel_size(1, 1),
        Figure::row(vec![]).with_legend(LegendPlacement::Shared),
    ] {
        assert!(figure.svg().contains("</svg>"));
    }
}

#[test]
fn a_shared_legend_names_each_entry_once() {
    let panels = vec![chart_of_all_kinds(); 3];
    let own = Figure::grid(2, panels.clone());
    assert_eq!(own.svg().matches("\ntheorem\n").count(), 3);
    let shared = own.with_legend(LegendPlacement::Shared);
    assert_eq!(shared.svg().matches("\ntheorem\n").count(), 1);
}

#[test]
fn a_png_has_the_signature_and_twice_the_size_of_the_figure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figure.png");
    Figure::grid(2, vec![chart_of_all_kinds(); 3])
        .with_panel_size(600, 500)
        .write_png(&path)
        .unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (2400, 2000));
}

#[test]
fn writing_replaces_the_file_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figure.svg");
    std::fs::write(&path, "old").unwrap();
    let figure = Figure::single(chart_of_all_kinds());
    figure.write_svg(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), figure.svg());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_with_the_path() {
    let path = Path::new("no/such/folder/figure.png");
    let figure = Figure::single(chart_of_all_kinds());
    for result in [figure.write_png(path), figure.write_svg(path)] {
        assert!(matches!(result, Err(Error::File { path: named, .. }) if named == path));
    }
}
