//! Charts arranged in a grid, and the files they are written to.

use std::path::Path;

use super::chart::Chart;
use super::legend::Legend;
use super::panel::{Margins, Panel};
use super::render;
use super::scene::{Rectangle, Scene};
use crate::error::{Error, Result};

/// Space around every panel.
const PADDING: f64 = 18.0;
const LEGEND_GAP: f64 = 14.0;
/// A plot area is never smaller than this; the figure grows instead.
const SMALLEST_PLOT: (f64, f64) = (160.0, 120.0);

/// Where the legend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegendPlacement {
    /// Below each panel, with that panel's entries.
    EachPanel,
    /// Once below all panels; entries of equal label and colour appear once.
    Shared,
}

/// One or more charts in a grid of equal panels.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The charts, row by row.
    pub panels: Vec<Chart>,
    /// Panels per row.
    pub columns: usize,
    /// Width and height of one panel in pixels, its legend included.
    pub panel_size: (u32, u32),
    /// Where the legend stands.
    pub legend: LegendPlacement,
    /// Heights of the rows' plot areas, relative to each other; empty for rows of
    /// equal panels.
    pub heights: Vec<f64>,
}

impl Figure {
    /// One chart, 900 pixels wide.
    pub fn single(chart: Chart) -> Self {
        Self {
            panels: vec![chart],
            columns: 1,
            panel_size: (900, 640),
            legend: LegendPlacement::EachPanel,
            heights: Vec::new(),
        }
    }

    /// Charts in rows of `columns`, each 720 pixels wide.
    pub fn grid(columns: usize, panels: Vec<Chart>) -> Self {
        Self {
            panels,
            columns,
            panel_size: (720, 560),
            legend: LegendPlacement::EachPanel,
            heights: Vec::new(),
        }
    }

    /// Charts one above the other, their plot areas equally wide, so that equal
    /// ranges of x stand above each other; `heights` of the plot areas are relative.
    /// A panel's size is that of all together, divided by their number.
    pub fn stack(heights: Vec<f64>, panels: Vec<Chart>) -> Self {
        Self {
            heights,
            ..Self::grid(1, panels)
        }
    }

    /// Charts side by side, each 720 pixels wide.
    pub fn row(panels: Vec<Chart>) -> Self {
        Self::grid(panels.len(), panels)
    }

    /// The same figure with panels of another size. A panel grows beyond it
    /// if titles, labels and legend leave too little room for the data.
    pub const fn with_panel_size(mut self, width: u32, height: u32) -> Self {
        self.panel_size = (width, height);
        self
    }

    /// The same figure with the legend elsewhere.
    pub const fn with_legend(mut self, legend: LegendPlacement) -> Self {
        self.legend = legend;
        self
    }

    /// The figure as a standalone SVG document. Its texts stay texts and are
    /// set in DejaVu Sans where the viewer has it.
    pub fn svg(&self) -> String {
        let (scene, size) = self.scene();
        let titles: Vec<&str> = self.panels.iter().map(|chart| &chart.title[..]).collect();
        render::svg(&scene, size, &titles.join("; "))
    }

    /// Writes the figure as SVG, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_svg(&self, path: &Path) -> Result<()> {
        replace_file(path, "svg", |temporary| {
            std::fs::write(temporary, self.svg()).map_err(|e| e.to_string())
        })
    }

    /// Writes the figure as PNG at twice its size in pixels, whole or not at
    /// all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_png(&self, path: &Path) -> Result<()> {
        let (scene, size) = self.scene();
        replace_file(path, "png", |temporary| {
            render::png(&scene, size, temporary)
        })
    }

    /// The picture, and its width and height.
    fn scene(&self) -> (Scene, (u32, u32)) {
        let layout = Layout::new(self);
        let mut scene = Scene::default();
        for (i, panel) in layout.panels.iter().enumerate() {
            let area = layout.plot_area(i);
            panel.draw(&mut scene, &area);
            if self.legend == LegendPlacement::EachPanel {
                let top = area.bottom + layout.row(i).margins.bottom + LEGEND_GAP;
                Legend::of([&self.panels[i]])
                    .layout(layout.legend_width)
                    .draw(&mut scene, (area.left, top));
            }
        }
        let (mut width, mut height) = (
            layout.panel_width * layout.columns as f64,
            layout.top(layout.rows.len()),
        );
        if self.legend == LegendPlacement::Shared {
            let left = PADDING + joined(&layout.panels).left;
            let legend = Legend::of(&self.panels).layout(width - left - PADDING);
            legend.draw(&mut scene, (left, height));
            height += legend.height() + PADDING;
        }
        width = width.ceil();
        (scene, (width as u32, height.ceil() as u32))
    }
}

/// Where the panels of a figure stand.
struct Layout<'a> {
    columns: usize,
    panels: Vec<Panel<'a>>,
    rows: Vec<Row>,
    /// Width of a plot area.
    plot_width: f64,
    panel_width: f64,
    legend_width: f64,
}

/// What the panels of a row share; all rows alike, unless a figure's rows differ in
/// height.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    margins: Margins,
    /// Height of a plot area.
    plot: f64,
    /// Height of the legend with its gap.
    legend: f64,
}

impl Row {
    fn height(&self) -> f64 {
        2.0 * PADDING + self.margins.top + self.plot + self.margins.bottom + self.legend
    }

    /// What of the height of a panel is left for its plot area.
    fn room(&self, height: f64) -> f64 {
        height - self.margins.top - self.margins.bottom - self.legend
    }
}

impl<'a> Layout<'a> {
    fn new(figure: &'a Figure) -> Self {
        let width = f64::from(figure.panel_size.0) - 2.0 * PADDING;
        let height = f64::from(figure.panel_size.1) - 2.0 * PADDING;
        let columns = figure.columns.clamp(1, figure.panels.len().max(1));
        let count = figure.panels.len().div_ceil(columns);
        // Relative to their mean; `None` for rows of equal panels.
        let total: f64 = figure.heights.iter().sum();
        let share = |row: usize| figure.heights.get(row).map(|h| h * count as f64 / total);
        let first = |row| Row {
            plot: 0.7 * height * share(row).unwrap_or(1.0),
            ..Row::default()
        };
        let mut rows: Vec<Row> = (0..count).map(first).collect();
        let mut plot_width = 0.8 * width;
        let mut panels: Vec<Panel> = Vec::new();
        let mut margins = Margins::default();
        // The ticks depend on the plot area and the plot area on the ticks'
        // widths: the second round works with the size the first one found.
        for _ in 0..2 {
            panels = figure
                .panels
                .iter()
                .enumerate()
                .map(|(i, chart)| Panel::new(chart, plot_width, rows[i / columns].plot))
                .collect();
            margins = joined(&panels);
            plot_width = (width - margins.left - margins.right).max(SMALLEST_PLOT.0);
            let legend_height = |charts: &[Chart]| {
                let heights = charts.iter().map(|chart| {
                    Legend::of([chart])
                        .layout(plot_width + margins.right)
                        .height()
                });
                let height = match figure.legend {
                    LegendPlacement::Shared => 0.0,
                    LegendPlacement::EachPanel => heights.fold(0.0, f64::max),
                };
                height + if height > 0.0 { LEGEND_GAP } else { 0.0 }
            };
            for (k, row) in rows.iter_mut().enumerate() {
                let own = match share(k) {
                    None => 0..figure.panels.len(),
                    Some(_) => k * columns..((k + 1) * columns).min(figure.panels.len()),
                };
                row.margins = joined(&panels[own.clone()]);
                row.legend = legend_height(&figure.panels[own]);
            }
            let mean_room = rows.iter().map(|row| row.room(height)).sum::<f64>() / count as f64;
            for (k, row) in rows.iter_mut().enumerate() {
                let own = match share(k) {
                    None => row.room(height),
                    Some(share) => share * mean_room,
                };
                row.plot = own.max(SMALLEST_PLOT.1);
            }
        }
        Self {
            columns,
            panels,
            rows,
            plot_width,
            panel_width: 2.0 * PADDING + margins.left + plot_width + margins.right,
            legend_width: plot_width + margins.right,
        }
    }

    /// The row of panel `index`.
    fn row(&self, index: usize) -> &Row {
        &self.rows[index / self.columns]
    }

    /// The upper edge of a row.
    fn top(&self, row: usize) -> f64 {
        let above = &self.rows[..row];
        match above.iter().all(|row| row == &self.rows[0]) {
            true => above.first().map_or(0.0, Row::height) * row as f64,
            false => above.iter().map(Row::height).sum(),
        }
    }

    /// The plot area of panel `index`.
    fn plot_area(&self, index: usize) -> Rectangle {
        let (row, column) = (index / self.columns, index % self.columns);
        let margins = joined(&self.panels);
        let left = self.panel_width * column as f64 + PADDING + margins.left;
        let top = self.top(row) + PADDING + self.rows[row].margins.top;
        Rectangle {
            left,
            top,
            right: left + self.plot_width,
            bottom: top + self.rows[row].plot,
        }
    }
}

/// The margins that suit all of the panels.
fn joined(panels: &[Panel]) -> Margins {
    panels
        .iter()
        .map(Panel::margins)
        .fold(Margins::default(), Margins::joined)
}

/// Lets `write` fill a temporary file beside `path`, then puts it in place.
fn replace_file(
    path: &Path,
    extension: &str,
    write: impl FnOnce(&Path) -> std::result::Result<(), String>,
) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    let temporary = path.with_file_name(format!(".{name}.{process}.{extension}"));
    write(&temporary)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(|e| e.to_string()))
        .map_err(|reason| {
            // Best effort: the first failure is the one to report.
            let _ = std::fs::remove_file(&temporary);
            Error::File {
                path: path.to_path_buf(),
                action: "write",
                reason,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Axis;

    #[test]
    fn stacked_panels_share_their_width_and_divide_the_height() {
        let upper = Chart::new(
            "Title",
            Axis::linear(""),
            Axis::linear("values").with_range(0.0, 1e5),
        );
        let lower = Chart::new("", Axis::linear("x"), Axis::linear("").with_range(0.0, 1.0));
        let figure = Figure::stack(vec![3.0, 1.0], vec![upper, lower]).with_panel_size(600, 400);
        let layout = Layout::new(&figure);
        let [upper, lower] = [0, 1].map(|k| layout.plot_area(k));
        assert_eq!((upper.left, upper.right), (lower.left, lower.right));
        let heights = [upper, lower].map(|area| area.bottom - area.top);
        assert!((heights[0] - 3.0 * heights[1]).abs() < 1e-9);
        assert!(upper.bottom < lower.top);
        assert!((layout.top(2) - 800.0).abs() < 1e-9);
    }
}
