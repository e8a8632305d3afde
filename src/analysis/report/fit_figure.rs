//! The fit over the data, and the gate below it.

use super::contents::Analysis;
use super::slice::Slice;
use crate::analysis::{Design, Optimum, Scaled, responsibilities_at};
use crate::model::Conditional;
use crate::plot::number::{counted, thousands};
use crate::plot::{
    Axis, Chart, Colour, Estimate, Figure, Interval, LineStyle, Marker, Palette, Series, SeriesData,
};

/// A row whose most responsible expert has less responsibility is drawn open.
const SURE: f64 = 0.9;
/// An expert is drawn bold where its weight is at least this.
const PRESENT: f64 = 0.05;
/// More points than this are thinned.
const MOST_POINTS: usize = 3000;
/// More points than this are drawn as dots.
const MOST_MARKERS: usize = 600;
/// Half the width of a band in standard deviations.
const HALF_WIDTH: f64 = 1.96;

/// Width and height of the figure, per panel.
const PANEL: (u32, u32) = (640, 400);

/// Data, experts and mixture mean above, weights below; `None` without a slice or an
/// optimum.
pub(super) fn figure(analysis: &Analysis) -> Option<Figure> {
    let slice = analysis.slice.as_ref()?;
    let best = analysis.model().best()?;
    let laws: Vec<Conditional> = slice
        .inputs
        .rows()
        .into_iter()
        .map(|x| best.parameters.conditional(&x.to_vec()))
        .collect();
    let curves = Curves {
        slice,
        laws: &laws,
        response: &analysis.design.response,
    };
    let experts = best.parameters.experts.len();
    let fit = fit(analysis, slice, best, &curves);
    let figure = match experts {
        1 => Figure::single(fit),
        _ => {
            let mut fit = fit;
            fit.x.label.clear();
            Figure::stack(vec![2.6, 1.0], vec![fit, weights(slice, &curves, experts)])
        }
    };
    Some(figure.with_panel_size(PANEL.0, PANEL.1))
}

/// What the figure's caption says.
pub(super) fn caption(analysis: &Analysis) -> String {
    let Some(slice) = &analysis.slice else {
        return String::new();
    };
    let experts = analysis.model().experts;
    let mut text = match experts {
        1 => "Line: mean, with ± 1.96 standard deviations.".to_string(),
        _ => format!(
            "Points have the mark of the expert with the largest responsibility; open ones are \
             less than {} % sure. Lines: the experts’ means with ± 1.96 standard deviations, thin \
             and dashed where the expert’s weight is below {} %. Black: mean of the mixture. \
             Below: the weights.",
            100.0 * SURE,
            100.0 * PRESENT
        ),
    };
    if !slice.held.is_empty() {
        text.push_str(&format!(
            " The curves hold {} fixed (numbers at their means, factors at their most frequent \
             level); the points do not.",
            slice.held.join(", ")
        ));
    }
    let rows = analysis.rows();
    if rows > MOST_POINTS {
        let shown = rows.div_ceil(every(rows));
        text.push_str(&format!(
            " Points: {} of {}, evenly over {}.",
            thousands(shown as u64),
            counted(rows, "row"),
            slice.covariate
        ));
    }
    text
}

/// Every how-many-th point is drawn.
pub(super) fn every(rows: usize) -> usize {
    rows.div_ceil(MOST_POINTS).max(1)
}

/// The laws on the slice, in raw units.
struct Curves<'a> {
    slice: &'a Slice,
    laws: &'a [Conditional],
    response: &'a Scaled,
}

impl Curves<'_> {
    /// (x, f(law)) where `f` has a value, and a break elsewhere.
    fn line(&self, f: impl Fn(&Conditional) -> Option<f64>) -> Vec<(f64, f64)> {
        let pairs = self.slice.values.iter().zip(self.laws);
        pairs
            .map(|(&x, law)| (x, f(law).unwrap_or(f64::NAN)))
            .collect()
    }

    fn expert(&self, law: &Conditional, expert: usize) -> f64 {
        self.response.raw(law.means[expert])
    }

    fn mixture(&self, law: &Conditional) -> f64 {
        self.response.raw(law.mean())
    }

    fn band(&self, expert: usize) -> Vec<Interval> {
        let pairs = self.slice.values.iter().zip(self.laws);
        pairs
            .map(|(&x, law)| {
                let half = HALF_WIDTH * self.response.deviation * law.variances[expert].sqrt();
                let centre = match is_present(law, expert) {
                    true => self.expert(law, expert),
                    false => f64::NAN,
                };
                Interval::new(x, centre - half, centre + half)
            })
            .collect()
    }
}

fn is_present(law: &Conditional, expert: usize) -> bool {
    law.log_weights[expert] >= PRESENT.ln()
}

fn fit(analysis: &Analysis, slice: &Slice, best: &Optimum, curves: &Curves) -> Chart {
    let experts = best.parameters.experts.len();
    let design = &analysis.design;
    let (x, y) = (axis(slice), Axis::linear(&design.response.name));
    let title = format!("{} given {}", design.response.name, slice.covariate);
    let mut chart = Chart::new(title, x, y);
    if !slice.held.is_empty() {
        chart.subtitle = format!("curves at typical {}", slice.held.join(", "));
    }
    let points = marked(design, slice, best);
    let low = points.iter().map(|p| p.y).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.y).fold(f64::NEG_INFINITY, f64::max);
    let room = 0.06 * (high - low);
    // Lines of experts may leave the data far behind where they have no weight.
    chart.y = chart.y.with_range(low - room, high + room);
    for expert in 0..experts {
        let (label, colour) = (label(expert, experts), Palette::colour(expert));
        let bold = curves.line(|law| is_present(law, expert).then(|| curves.expert(law, expert)));
        let thin =
            curves.line(|law| (!is_present(law, expert)).then(|| curves.expert(law, expert)));
        chart = chart
            .with_series(Series::band(&label, colour, curves.band(expert)))
            .with_series(Series::line(&label, colour, bold))
            .with_series(Series::dashed("", colour, thin));
        for is_sure in [true, false] {
            let own = points
                .iter()
                .filter(|p| p.expert == expert && p.is_sure == is_sure);
            let own: Vec<Estimate> = own.map(|p| Estimate::exact(p.x, p.y)).collect();
            let marker = marker(expert, points.len());
            let (text, marker) = match is_sure {
                true => (label.as_str(), marker),
                false => ("", marker.open()),
            };
            chart = chart.with_series(Series::points(text, colour, own).with_marker(marker));
        }
    }
    if experts > 1 {
        // Dotted, so that the lines of experts are seen below it.
        let data = SeriesData::Line {
            points: curves.line(|law| Some(curves.mixture(law))),
            style: LineStyle::Dotted,
        };
        chart = chart.with_series(Series {
            label: "mean of the mixture".to_string(),
            colour: Colour::Black,
            data,
        });
    }
    chart
}

fn weights(slice: &Slice, curves: &Curves, experts: usize) -> Chart {
    let y = Axis::linear("weight").with_range(-0.03, 1.03);
    let mut chart = Chart::new("", axis(slice), y);
    for expert in 0..experts {
        let line = curves.line(|law| Some(law.log_weights[expert].exp()));
        chart = chart.with_series(Series::line("", Palette::colour(expert), line));
    }
    chart
}

fn axis(slice: &Slice) -> Axis {
    let ends = slice.values.first().zip(slice.values.last());
    let axis = Axis::linear(&slice.covariate);
    ends.map_or(axis.clone(), |(&low, &high)| {
        let room = 0.03 * (high - low);
        axis.with_range(low - room, high + room)
    })
}

fn label(expert: usize, experts: usize) -> String {
    match experts {
        1 => "mean".to_string(),
        _ => format!("expert {}", expert + 1),
    }
}

/// Shapes that have an open form too.
fn marker(expert: usize, points: usize) -> Marker {
    const SHAPES: [Marker; 5] = [
        Marker::Circle,
        Marker::Square,
        Marker::Triangle,
        Marker::Diamond,
        Marker::InvertedTriangle,
    ];
    match points > MOST_MARKERS {
        true => Marker::Dot,
        false => SHAPES[expert % SHAPES.len()],
    }
}

/// A row of the data with the expert it most likely came from.
struct Marked {
    x: f64,
    y: f64,
    expert: usize,
    is_sure: bool,
}

/// The rows, thinned evenly along the covariate if they are many.
fn marked(design: &Design, slice: &Slice, best: &Optimum) -> Vec<Marked> {
    let mut order: Vec<usize> = (0..design.data.len()).collect();
    order.sort_by(|&a, &b| slice.observed[a].total_cmp(&slice.observed[b]));
    let shown = order.into_iter().step_by(every(design.data.len()));
    shown
        .map(|row| {
            let (x, y) = design.data.row(row);
            let law = best.parameters.conditional(&x);
            let mut shares = vec![0.0; law.means.len()];
            responsibilities_at(&law, y, &mut shares);
            let expert = (0..shares.len())
                .max_by(|&a, &b| shares[a].total_cmp(&shares[b]))
                .expect("at least one expert");
            Marked {
                x: slice.observed[row],
                y: design.response.raw(y),
                expert,
                is_sure: shares[expert] >= SURE,
            }
        })
        .collect()
}
