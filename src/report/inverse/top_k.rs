//! Table, figure and page of a top-K study.
//!
//! | file | content |
//! |---|---|
//! | `infima.csv` | one line per cell: the result |
//! | `claims.csv` | one line per cell: infimum, claimed range, verdict |
//! | `infima.svg`, `infima.png` | infimum against the smaller copy's share |
//! | `environment.toml` | where and when the infima were computed |
//! | `index.html` | all of it on one page |

use super::count_verdicts;
use crate::error::{Error, Result};
use crate::plot::html::{code, document, escape, paragraph, paragraphs, table};
use crate::plot::{Axis, Chart, Estimate, Figure, Palette, Series};
use crate::report::environment::{self, Environment};
use crate::report::format::{rounded, shortened, six_digits};
use crate::report::page::environment_list;
use crate::sim::inverse::top_k::record::{self, Infimum, of_cells, to_csv, verdicts};
use crate::sim::inverse::top_k::study::{TopKCell, TopKPlan};
use std::path::Path;

/// Writes infima and report into `folder`, the page last.
///
/// # Errors
/// [`Error::File`].
pub fn write_top_k(
    folder: &Path,
    plan: &TopKPlan,
    infima: &[Infimum],
    environment: &Environment,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, "create", &e))?;
    let figure = figure(plan, infima);
    let page = page(plan, infima, environment, &figure);
    let replace = |name: &str, text: &str| crate::error::replace(&folder.join(name), text);
    replace(record::FILE, &to_csv(infima))?;
    replace("claims.csv", &claims_csv(plan, infima))?;
    replace(environment::FILE, &environment.to_toml()?)?;
    figure.write_svg(&folder.join("infima.svg"))?;
    figure.write_png(&folder.join("infima.png"))?;
    replace("index.html", &page)
}

/// Why the stored `claims.csv` is not what the infima give now; `None` if it is.
pub fn top_k_is_stale(folder: &Path, plan: &TopKPlan, infima: &[Infimum]) -> Option<String> {
    crate::report::stale_file(folder, "claims.csv", &claims_csv(plan, infima))
}

fn claims_csv(plan: &TopKPlan, infima: &[Infimum]) -> String {
    let header = [
        "case",
        "kept",
        "share",
        "hellinger_sq",
        "low",
        "high",
        "verdict",
    ];
    let mut lines = vec![header.map(String::from).to_vec()];
    let found = of_cells(plan, infima)
        .into_iter()
        .zip(verdicts(plan, infima));
    for (cell, (infimum, verdict)) in plan.cells.iter().zip(found) {
        lines.push(vec![
            cell.case.name.clone(),
            cell.case.kept.to_string(),
            cell.share.to_string(),
            six_digits(infimum.map(|i| i.hellinger_sq)),
            six_digits(Some(cell.accept[0])),
            six_digits(Some(cell.accept[1])),
            verdict.name().to_string(),
        ]);
    }
    crate::report::csv::encode(&lines)
}

const HEADINGS: [&str; 8] = [
    "case", "kept", "share", "radius", "E h^2", "claimed", "starts", "verdict",
];

/// The texts of one line of the table.
fn texts(plan: &TopKPlan, infima: &[Infimum]) -> Vec<[String; HEADINGS.len()]> {
    let found = of_cells(plan, infima)
        .into_iter()
        .zip(verdicts(plan, infima));
    let cells = plan.cells.iter().zip(found);
    cells
        .map(|(cell, (infimum, verdict))| {
            let starts = |i: &Infimum| format!("{} of {}", i.agreeing, i.starts);
            [
                cell.case.name.clone(),
                cell.case.kept.to_string(),
                rounded(cell.share, 4),
                cell.case.radius.to_string(),
                infimum.map_or(String::new(), |i| rounded(i.hellinger_sq, 3)),
                accepted_infimum(cell),
                infimum.map_or(String::new(), starts),
                verdict.name().to_string(),
            ]
        })
        .collect()
}

/// The claimed range of a cell's E h^2.
pub(in crate::report) fn accepted_infimum(cell: &TopKCell) -> String {
    let [low, high] = cell.accept.map(|end| shortened(&rounded(end, 3)));
    match cell.accept {
        [0.0, _] => format!("≤ {high}"),
        // h^2 is at most 1.
        [_, 1.0] => format!("≥ {low}"),
        _ => format!("{low} to {high}"),
    }
}

/// The infima and verdicts of all cells, for the terminal.
pub fn top_k_table(plan: &TopKPlan, infima: &[Infimum]) -> String {
    let study = &plan.study;
    let claims = count_verdicts(&verdicts(plan, infima));
    let mut text = format!("{}: {}\nClaims: {claims}\n\n", study.name, study.title);
    let mut lines = vec![HEADINGS.map(String::from)];
    lines.extend(texts(plan, infima));
    let length = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|k| lines.iter().map(|l| length(&l[k])).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let padded: Vec<String> = cells.map(|(c, &width)| format!("{c:<width$}")).collect();
        text.push_str(&format!("  {}\n", padded.join("  ").trim_end()));
    }
    text
}

fn figure(plan: &TopKPlan, infima: &[Infimum]) -> Figure {
    let x = Axis::log10("share of the smaller copy");
    let mut chart = Chart::new("Two copies of one expert", x, Axis::log10("inf E h²"))
        .with_subtitle("values below 1e-10 are left out: see the table");
    let mut drawn = 0;
    for case in &plan.study.case {
        let of_case = infima.iter().filter(|i| i.case == case.name);
        let mut points: Vec<(f64, f64)> = of_case
            .map(|i| (i.share.min(1.0 - i.share), i.hellinger_sq))
            .filter(|(_, value)| *value > ZERO)
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.is_empty() {
            continue;
        }
        let (colour, label) = (Palette::colour(drawn), case.name.as_str());
        drawn += 1;
        let marks = points
            .iter()
            .map(|(x, y)| Estimate::exact(*x, *y))
            .collect();
        chart = chart
            .with_series(Series::line(label, colour, points))
            .with_series(Series::points(label, colour, marks));
    }
    Figure::single(chart)
}

/// What is drawn lies above what a search leaves of a zero.
const ZERO: f64 = 1e-10;

fn page(plan: &TopKPlan, infima: &[Infimum], environment: &Environment, figure: &Figure) -> String {
    let study = &plan.study;
    let rows: Vec<Vec<String>> = texts(plan, infima)
        .iter()
        .map(|row| row.iter().map(|text| escape(text)).collect())
        .collect();
    let caption = "Smallest E h^2 found, share of the first copy at the centre of the box";
    let methods = format!(
        "The true expert has two copies that share its weight; the fit keeps the stated number of \
         experts. Radius 0: the fit as it is. Otherwise E h^2 is minimised over all coordinates \
         within that distance by pattern search from the centre and {} random points, X on the \
         middles of {} equal cells. Every value in the table is by adaptive quadrature over the \
         continuous law of X, cut where the set of kept experts changes.",
        study.starts, study.points
    );
    let mut truths: Vec<String> = Vec::new();
    for cell in &plan.cells {
        let truth = code(&cell.truth.to_toml());
        if !truths.contains(&truth) {
            truths.push(truth);
        }
    }
    let aim = paragraphs(&study.aim) + &paragraph(&format!("Reference: {}", study.reference));
    // An absolute path means nothing on another machine.
    let path = match study.path.is_relative() {
        true => study.path.display().to_string(),
        false => format!("{}.toml", study.name),
    };
    let command = format!("cargo run --bin rate_sweep -- inverse {path}");
    let sections = [
        ("aim", "Aim", aim),
        (
            "results",
            "Infima",
            table(caption, 1, &HEADINGS.map(String::from), &rows),
        ),
        (
            "figures",
            "Figures",
            format!("<figure>{}</figure>\n", figure.svg()),
        ),
        ("methods", "Methods", paragraph(&methods)),
        ("truths", "Truths", truths.concat()),
        ("limits", "Limits", paragraphs(&study.limits)),
        ("environment", "Environment", environment_list(environment)),
        ("reproduce", "Reproduce", code(&command)),
    ];
    let claims = count_verdicts(&verdicts(plan, infima));
    let headline = format!("{} infima; claims: {claims}.", plan.cells.len());
    document(&study.title, &headline, &sections)
}
