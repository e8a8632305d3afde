//! Criteria against the number of experts.

use super::contents::{Analysis, Criterion};
use crate::plot::{Axis, Chart, Colour, Estimate, Palette, ReferenceLine, Series};

/// AIC, BIC and ICL in one chart, the dendrogram criterion in a second if there is
/// one; none for a single number of experts.
pub(super) fn charts(analysis: &Analysis) -> Vec<Chart> {
    if analysis.models.len() < 2 {
        return Vec::new();
    }
    let classical = [Criterion::Aic, Criterion::Bic, Criterion::Icl];
    let mut charts = vec![chart(analysis, "Information criteria", &classical)];
    if analysis.least(Criterion::Dendrogram).is_some() {
        charts.push(chart(
            analysis,
            "Dendrogram criterion",
            &[Criterion::Dendrogram],
        ));
    }
    charts
}

fn chart(analysis: &Analysis, title: &str, criteria: &[Criterion]) -> Chart {
    let ends = [
        &analysis.models[0],
        &analysis.models[analysis.models.len() - 1],
    ];
    let [first, last] = ends.map(|model| model.experts as f64);
    let x = Axis::whole("experts").with_range(first - 0.3, last + 0.3);
    let mut chart = Chart::new(title, x, Axis::linear("")).with_subtitle("smaller is better");
    for (k, &criterion) in criteria.iter().enumerate() {
        let points: Vec<(f64, f64)> = analysis
            .models
            .iter()
            .filter_map(|model| Some((model.experts as f64, analysis.criterion(model, criterion)?)))
            .collect();
        let marks = points.iter().map(|&(x, y)| Estimate::exact(x, y)).collect();
        let colour = Palette::colour(k);
        chart = chart
            .with_series(Series::line(criterion.name(), colour, points))
            .with_series(Series::points(criterion.name(), colour, marks));
        if analysis.chosen_by == Some(criterion) {
            let line = ReferenceLine::vertical(analysis.model().experts as f64, "chosen");
            chart = chart.with_reference_line(line.with_colour(Colour::Grey));
        }
    }
    chart
}
