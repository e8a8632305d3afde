//! Criteria against the number of experts.

use super::contents::{Analysis, Criteria, Criterion};
use crate::plot::{Axis, Chart, Colour, Estimate, Palette, ReferenceLine, Series};

/// AIC, BIC and ICL in one chart, the dendrogram criterion in a second if there is
/// one; none for a single number of experts.
pub(super) fn charts(analysis: &Analysis) -> Vec<Chart> {
    if analysis.models.len() < 2 {
        return Vec::new();
    }
    let classical: [(Criterion, fn(&Criteria) -> Option<f64>); 3] = [
        (Criterion::Aic, |c| Some(c.aic)),
        (Criterion::Bic, |c| Some(c.bic)),
        (Criterion::Icl, |c| Some(c.icl)),
    ];
    let mut charts = vec![chart(
        analysis,
        "Information criteria",
        "criterion",
        &classical,
    )];
    let dendrogram: [(Criterion, fn(&Criteria) -> Option<f64>); 1] =
        [(Criterion::Dendrogram, |c| c.dendrogram)];
    if analysis
        .models
        .iter()
        .any(|m| m.criteria.is_some_and(|c| c.dendrogram.is_some()))
    {
        charts.push(chart(
            analysis,
            "Dendrogram criterion",
            "criterion",
            &dendrogram,
        ));
    }
    charts
}

fn chart(
    analysis: &Analysis,
    title: &str,
    label: &str,
    criteria: &[(Criterion, fn(&Criteria) -> Option<f64>)],
) -> Chart {
    let mut chart = Chart::new(title, Axis::whole("experts"), Axis::linear(label))
        .with_subtitle("smaller is better");
    for (k, (criterion, value)) in criteria.iter().enumerate() {
        let points: Vec<(f64, f64)> = analysis
            .models
            .iter()
            .filter_map(|model| Some((model.experts as f64, value(model.criteria.as_ref()?)?)))
            .collect();
        let marks = points.iter().map(|&(x, y)| Estimate::exact(x, y)).collect();
        let colour = Palette::colour(k);
        chart = chart
            .with_series(Series::line(criterion.name(), colour, points))
            .with_series(Series::points(criterion.name(), colour, marks));
        if analysis.chosen_by == Some(*criterion) {
            let line = ReferenceLine::vertical(analysis.model().experts as f64, "chosen");
            chart = chart.with_reference_line(line.with_colour(Colour::Grey));
        }
    }
    chart
}
