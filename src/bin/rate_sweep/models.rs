//! Commands on model files.

use crate::output::{json_number, print};
use smoe_lab::error::{Error, Result};
use smoe_lab::loss::density::{Effort, density_distance};
use smoe_lab::loss::divergence::Wanted;
use smoe_lab::loss::voronoi::{applicable, voronoi_loss};
use smoe_lab::model::{draw_sample, read_model};
use smoe_lab::rng::{Purpose, Stream};
use smoe_lab::sim::data::read_points;
use std::fmt::Write;
use std::path::Path;

/// Rows drawn and printed at a time.
const CHUNK: usize = 65_536;

pub fn distance(first: &Path, second: &Path, json: bool) -> Result<bool> {
    let (p, q) = (read_model(first)?, read_model(second)?);
    let d = density_distance(&p, &q.parameters, Wanted::All, Effort::default()).map_err(|e| {
        // The models are valid by themselves: they disagree on the dimension.
        Error::input(second, "input", e.to_string())
    })?;
    let means = [
        ("hellinger_mean", d.hellinger),
        ("hellinger_sq_mean", d.hellinger_sq),
        ("tv_mean", d.total_variation),
        ("kl_mean", d.kullback_leibler),
    ];
    // A loss that the pair does not admit (another gate, say) is left out.
    let voronoi: Vec<(&str, f64)> = applicable(&p)
        .into_iter()
        .filter_map(|loss| Some((loss.name(), voronoi_loss(loss, &q.parameters, &p).ok()?)))
        .collect();
    let mut text = String::new();
    if json {
        let fields: Vec<String> = means
            .iter()
            .flat_map(|(name, mean)| {
                [
                    format!("\"{name}\": {}", json_number(mean.value)),
                    format!("\"{name}_error\": {}", json_number(mean.error)),
                ]
            })
            .collect();
        let losses: Vec<String> = voronoi
            .iter()
            .map(|(name, value)| format!("\"{name}\": {}", json_number(*value)))
            .collect();
        let _ = writeln!(
            text,
            "{{{}, \"voronoi\": {{{}}}}}",
            fields.join(", "),
            losses.join(", ")
        );
    } else {
        for (name, mean) in means {
            let _ = writeln!(text, "{name:<20} {:.12e}  ± {:.1e}", mean.value, mean.error);
        }
        for (name, value) in voronoi {
            let _ = writeln!(text, "{:<20} {value:.12e}", format!("voronoi {name}"));
        }
    }
    print(&text);
    Ok(true)
}

pub fn density(model: &Path, points: &Path, json: bool) -> Result<bool> {
    let model = read_model(model)?;
    let data = read_points(points, &input_columns(model.input.dimension()), "y")?;
    let values: Vec<f64> = (0..data.len())
        .map(|i| {
            let (x, y) = data.row(i);
            model.parameters.log_density(&x, y)
        })
        .collect();
    if json {
        let list: Vec<String> = values.iter().map(|v| json_number(*v)).collect();
        print(&format!("{{\"log_density\": [{}]}}\n", list.join(", ")));
    } else {
        let lines: Vec<String> = values.iter().map(|v| format!("{v:.16e}\n")).collect();
        print(&format!("log_density\n{}", lines.concat()));
    }
    Ok(true)
}

pub fn sample(model: &Path, rows: usize, seed: u64) -> Result<bool> {
    let model = read_model(model)?;
    let stream = Stream::named(seed, "sample", 0, Purpose::Data);
    let mut header = input_columns(model.input.dimension());
    header.push("y".to_string());
    // A lattice gives the counts of its cells, all at once.
    let (chunk, last) = match model.input.is_lattice() {
        true => (rows, ",count"),
        false => (CHUNK, ""),
    };
    print(&format!("{}{last}\n", header.join(",")));
    let mut first = 0;
    while first < rows {
        let data = draw_sample(&model, first, chunk.min(rows - first), &stream);
        let mut text = String::new();
        for i in 0..data.len() {
            let (x, y) = data.row(i);
            for value in x {
                let _ = write!(text, "{value},");
            }
            let _ = match data.counts() {
                Some(counts) => writeln!(text, "{y},{}", counts[i]),
                None => writeln!(text, "{y}"),
            };
        }
        if !print(&text) {
            break;
        }
        first += chunk;
    }
    Ok(true)
}

fn input_columns(dimension: usize) -> Vec<String> {
    (1..=dimension).map(|j| format!("x{j}")).collect()
}
