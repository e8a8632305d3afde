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
}

impl Figure {
    /// One chart, 900 pixels wide.
    pub fn single(chart: Chart) -> Self {
        Self {
            panels: vec![chart],
            columns: 1,
            panel_size: (900, 640),
            legend: LegendPlacement::EachPanel,
        }
    }

    /// Charts in rows of `columns`, each 720 pixels wide.
    pub fn grid(columns: usize, panels: Vec<Chart>) -> Self {
        Self {
            panels,
            columns,
            panel_size: (720, 560),
            legend: LegendPlacement::EachPanel,
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
                let top = area.bottom + layout.margins.bottom + LEGEND_GAP;
                Legend::of([&self.panels[i]])
                    .layout(layout.legend_width)
                    .draw(&mut scene, (area.left, top));
            }
        }
        let (mut width, mut height) = (
            layout.panel_width * layout.columns as f64,
            layout.panel_height * self.panels.len().div_ceil(layout.columns) as f64,
        );
        if self.legend == LegendPlacement::Shared {
            let left = PADDING + layout.margins.left;
            let legend = Legend::of(&self.panels).layout(width - left - PADDING);
            legend.draw(&mut scene, (left, height));
            height += legend.height() + PADDING;
        }
        width = width.ceil();
        (scene, (width as u32, height.ceil() as u32))
    }
}

/// The sizes that all panels of a figure share.
struct Layout<'a> {
    columns: usize,
    panels: Vec<Panel<'a>>,
    margins: Margins,
    plot: (f64, f64),
    panel_width: f64,
    panel_height: f64,
    legend_width: f64,
}

impl<'a> Layout<'a> {
    fn new(figure: &'a Figure) -> Self {
        let width = f64::from(figure.panel_size.0) - 2.0 * PADDING;
        let height = f64::from(figure.panel_size.1) - 2.0 * PADDING;
        let mut plot = (0.8 * width, 0.7 * height);
        let mut panels: Vec<Panel> = Vec::new();
        let mut margins = Margins::default();
        let mut legend = 0.0;
        // The ticks depend on the plot area and the plot area on the ticks'
        // widths: the second round works with the size the first one found.
        for _ in 0..2 {
            panels = figure
                .panels
                .iter()
                .map(|chart| Panel::new(chart, plot.0, plot.1))
                .collect();
            margins = panels
                .iter()
                .map(Panel::margins)
                .fold(Margins::default(), Margins::joined);
            plot.0 = (width - margins.left - margins.right).max(SMALLEST_PLOT.0);
            legend = match figure.legend {
                LegendPlacement::Shared => 0.0,
                LegendPlacement::EachPanel => figure
                    .panels
                    .iter()
                    .map(|chart| Legend::of([chart]).layout(plot.0 + margins.right).height())
                    .fold(0.0, f64::max),
            };
            if legend > 0.0 {
                legend += LEGEND_GAP;
            }
            plot.1 = (height - margins.top - margins.bottom - legend).max(SMALLEST_PLOT.1);
        }
        Self {
            columns: figure.columns.clamp(1, figure.panels.len().max(1)),
            panels,
            margins,
            plot,
            panel_width: 2.0 * PADDING + margins.left + plot.0 + margins.right,
            panel_height: 2.0 * PADDING + margins.top + plot.1 + margins.bottom + legend,
            legend_width: plot.0 + margins.right,
        }
    }

    /// The plot area of panel `index`.
    fn plot_area(&self, index: usize) -> Rectangle {
        let (row, column) = (index / self.columns, index % self.columns);
        let left = self.panel_width * column as f64 + PADDING + self.margins.left;
        let top = self.panel_height * row as f64 + PADDING + self.margins.top;
        Rectangle {
            left,
            top,
            right: left + self.plot.0,
            bottom: top + self.plot.1,
        }
    }
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
