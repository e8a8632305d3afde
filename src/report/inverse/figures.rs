//! The smallest distance against the spread.

use crate::plot::{Axis, Chart, Colour, Estimate, Figure, Palette, Series};
use crate::sim::inverse::finding::{Finding, Quantity};
use crate::sim::inverse::split::Spread;
use crate::sim::inverse::study::{InverseCell, InversePlan};

/// Curves in one panel, so that no two share a colour.
const CURVES: usize = Palette::COLOURS.len();

/// A panel per coordinate and number of copies, more where the gates are many; then one per cell whose mass
/// errors are claimed.
pub(super) fn figure(plan: &InversePlan, findings: &[Finding]) -> Figure {
    let mut kinds: Vec<(Spread, usize)> = Vec::new();
    for cell in &plan.cells {
        let kind = (cell.case.coordinate, cell.case.copies);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let cells = || plan.cells.iter().zip(findings);
    let mut charts: Vec<Chart> = Vec::new();
    for kind in kinds {
        let of_kind = |cell: &InverseCell| (cell.case.coordinate, cell.case.copies) == kind;
        let all: Vec<_> = cells().filter(|(cell, _)| of_kind(cell)).collect();
        charts.extend(
            all.chunks(CURVES)
                .map(|part| distance_chart(plan, kind, part)),
        );
    }
    let claimed = |cell: &InverseCell| cell.case.raw_mass.or(cell.case.tilted_mass).is_some();
    let masses = cells().filter(|(cell, _)| claimed(cell));
    charts.extend(masses.map(|(cell, finding)| mass_chart(plan, cell, finding)));
    Figure::grid(charts.len().clamp(1, 3), charts).with_panel_size(600, 640)
}

fn empty_chart(title: String, subtitle: &str, y: &str) -> Chart {
    Chart::new(title, Axis::log10("spread δ"), Axis::log10(y)).with_subtitle(subtitle)
}

fn distance_chart(
    plan: &InversePlan,
    (coordinate, copies): (Spread, usize),
    cells: &[(&InverseCell, &Finding)],
) -> Chart {
    let title = format!("Spread in {}, {copies} copies", coordinate.words());
    let distance = plan.study.distance;
    let axis = format!("min {}", distance.formula());
    let mut chart = empty_chart(title, "smallest distance, all else free", &axis);
    let mut guides: Vec<Series> = Vec::new();
    for (place, (cell, finding)) in cells.iter().enumerate() {
        let gate = plan.study.gate.iter().position(|g| g.name == cell.gate);
        // The colour of a gate in every panel, as long as there are enough.
        let colour = match plan.study.gate.len() <= CURVES {
            true => Palette::colour(gate.unwrap_or(0)),
            false => Palette::colour(place),
        };
        for series in curve(&cell.gate, colour, finding, Quantity::Distance(distance)) {
            chart = chart.with_series(series);
        }
        let label = match cell.case.exponent.is_infinite() {
            true => "claimed: zero (bound on rounding)".to_string(),
            false => format!("claimed: exponent {}", cell.case.exponent),
        };
        if guides.iter().all(|guide| guide.label != label) {
            guides.extend(guide(label, cell, finding));
        }
    }
    guides.into_iter().fold(chart, Chart::with_series)
}

fn mass_chart(plan: &InversePlan, cell: &InverseCell, finding: &Finding) -> Chart {
    let case = &cell.case;
    let title = format!("{}: masses", cell.gate);
    let subtitle = format!(
        "spread in {}, {} copies",
        case.coordinate.words(),
        case.copies
    );
    let measured = Quantity::measured(plan.study.distance);
    let name = |quantity: Quantity| match quantity {
        Quantity::Distance(distance) => distance.formula(),
        Quantity::RawMass => "raw mass error",
        Quantity::TiltedMass => "tilted mass error",
    };
    let mut chart = empty_chart(title, &subtitle, "at the minimum");
    for (quantity, colour) in measured.into_iter().zip(Palette::COLOURS) {
        for series in curve(name(quantity), colour, finding, quantity) {
            chart = chart.with_series(series);
        }
    }
    chart
}

/// Points joined by a line.
fn curve(label: &str, colour: Colour, finding: &Finding, quantity: Quantity) -> [Series; 2] {
    let points: Vec<(f64, f64)> = finding
        .minima
        .iter()
        .map(|m| (m.delta, quantity.of(m)))
        .collect();
    let marks = points
        .iter()
        .map(|(x, y)| Estimate::exact(*x, *y))
        .collect();
    [
        Series::line(label, colour, points),
        Series::points(label, colour, marks),
    ]
}

/// The claimed power of delta through the last point in the window; for a claim of
/// zero the bounds on rounding.
fn guide(label: String, cell: &InverseCell, finding: &Finding) -> Option<Series> {
    let case = &cell.case;
    if case.exponent.is_infinite() {
        let bounds = finding.minima.iter().map(|m| (m.delta, m.rounding));
        return Some(Series::dashed(label, Colour::Black, bounds.collect()));
    }
    let last = finding
        .minima
        .iter()
        .rfind(|m| case.is_in_window(m.delta))?;
    let ends = [case.delta.to, case.delta.from];
    let at = |delta: f64| last.distance * (delta / last.delta).powf(case.exponent);
    let points = ends.map(|delta| (delta, at(delta))).to_vec();
    Some(Series::dashed(label, Colour::Black, points))
}
