//! Whole reports of small fits.

use super::*;
use crate::analysis::{
    Attainment, Cells, Column, Design, Formula, Specification, Spurious, Table, UncertaintyOptions,
    criteria, dendrogram, residuals, search, uncertainty,
};
use crate::backend::Cpu;
use crate::fit::Stop;
use crate::rng::{Purpose, Stream};
use serde_json::Value;
use std::ops::RangeInclusive;
use std::path::Path;

/// n rows of y on two lines in x, the second from 5 on: with a soft passage, or none.
fn table(n: usize, is_step: bool) -> Table {
    let stream = Stream::named(3, "report", 0, Purpose::Data);
    let mut columns = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for i in 0..n {
        let x = 10.0 * (i as f64 + 0.5) / n as f64;
        let [share, level] = stream.uniform_pair(i as u64, 0);
        let noise = stream.standard_normal(i as u64, 1);
        let first = match is_step {
            true => x < 5.0,
            false => share > 1.0 / (1.0 + (5.0 - x).exp()),
        };
        let y = if first { 2.0 + x } else { 20.0 - 2.0 * x };
        let z = stream.standard_normal(i as u64, 2);
        for (column, value) in columns
            .iter_mut()
            .zip([x, z, level.round(), y + 0.5 * noise])
        {
            column.push(Some(value));
        }
    }
    let names = ["x", "z", "level", "y"];
    let columns = names.iter().zip(columns).map(|(name, cells)| Column {
        name: name.to_string(),
        cells: Cells::Number(cells),
    });
    Table::from_columns(Path::new("lines.csv"), columns.collect()).unwrap()
}

fn analysis_of(table: &Table, terms: [&str; 2], experts: RangeInclusive<usize>) -> Analysis {
    let [expert, gate] = terms.map(|text| Formula::parse(text).unwrap());
    let design = Design::new(table, "y", &expert, &gate).unwrap();
    let specification = Specification {
        starts: 12,
        ..Specification::default()
    };
    let backend = Cpu::new();
    let models: Vec<FittedModel> = experts
        .map(|experts| {
            let fitted = search(&backend, &design, &specification, experts).unwrap();
            let best = fitted.best().unwrap();
            let options = UncertaintyOptions::default();
            FittedModel {
                experts,
                criteria: Some(criteria(&design, best)),
                uncertainty: Some(uncertainty(&backend, &design, best, options).unwrap()),
                fitted,
            }
        })
        .collect();
    let slice = Slice::new(table, &design, &expert, &gate);
    let mut analysis = Analysis {
        source: "lines.csv".to_string(),
        command: ["smoe_fit", "lines.csv", "--response", "y"]
            .map(String::from)
            .to_vec(),
        design,
        specification,
        chosen: 0,
        chosen_by: None,
        dendrogram: None,
        models,
        slice,
        residuals: None,
        warnings: Vec::new(),
        seconds: 0.5,
    };
    if analysis.models.len() > 1 {
        let largest = analysis.models.last().unwrap().best().unwrap();
        analysis.dendrogram = dendrogram(&backend, &analysis.design, largest).ok();
        analysis.chosen_by = Some(Criterion::Bic);
        analysis.chosen = analysis.least(Criterion::Bic).unwrap();
    }
    let best = analysis.model().best().unwrap();
    analysis.residuals = Some(residuals(&analysis.design, &best.parameters));
    analysis
}

fn soft() -> Analysis {
    analysis_of(&table(120, false), ["x", "x"], 2..=2)
}

fn stepped() -> Analysis {
    analysis_of(&table(120, true), ["x", "x"], 2..=2)
}

fn several() -> Analysis {
    analysis_of(&table(120, false), ["x", "x"], 1..=3)
}

fn parsed(analysis: &Analysis) -> Value {
    serde_json::from_str(&json(analysis)).unwrap()
}

/// The terminal's text with single blanks for line ends.
fn unbroken(analysis: &Analysis) -> String {
    let text = terminal(analysis);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every `null` in named maps of a model has its reason.
fn assert_reasons(model: &Value) {
    let maps = [
        "parameters",
        "standard_errors",
        "sandwich_errors",
        "expected_errors",
        "wald_intervals",
    ];
    for map in maps {
        for (name, value) in model[map].as_object().unwrap() {
            let ends = value.as_array().into_iter().flatten();
            let is_missing = value.is_null() || ends.into_iter().any(Value::is_null);
            let reason = &model["missing"][format!("{map}.{name}")];
            assert_eq!(is_missing, reason.is_string(), "{map}.{name}");
        }
    }
    for key in ["log_likelihood", "aic", "bic", "icl", "dendrogram"] {
        assert_eq!(
            model[key].is_null(),
            model["missing"][key].is_string(),
            "{key}"
        );
    }
}

#[test]
fn json_has_the_promised_keys_and_the_numbers_of_the_fit() {
    let analysis = soft();
    let report = parsed(&analysis);
    let best = analysis.model().best().unwrap();
    assert_eq!(report["log_likelihood"].as_f64(), Some(best.log_likelihood));
    assert_eq!(report["converged"], true);
    assert_eq!(report["attainment"], "interior");
    assert_eq!(report["boundary"].as_array().unwrap().len(), 0);
    let criteria = analysis.model().criteria.as_ref().unwrap();
    assert_eq!(report["bic"].as_f64(), Some(criteria.bic));
    assert_eq!(report["degrees_of_freedom"], 8);
    let known = &analysis.model().uncertainty.as_ref().unwrap().estimates;
    for estimate in known {
        let name = &estimate.quantity.name;
        assert_eq!(report["parameters"][name].as_f64(), Some(estimate.value));
        let error = estimate.standard_error.clone().ok();
        assert_eq!(report["standard_errors"][name].as_f64(), error, "{name}");
    }
    let optima = report["optima"].as_array().unwrap();
    assert_eq!(optima.len(), analysis.model().fitted.optima.len());
    assert_eq!(optima[0]["gap"].as_f64(), Some(0.0));
    assert_eq!(optima[0]["parameters"], report["parameters"]);
    assert_reasons(&report);
    assert_eq!(report["models"].as_array().unwrap().len(), 1);
}

#[test]
fn keys_of_json_keep_their_order() {
    let text = json(&soft());
    let keys = [
        "version",
        "source",
        "rows",
        "gate",
        "chosen_by",
        "log_likelihood",
        "bic",
    ];
    let later = [
        "parameters",
        "standard_errors",
        "optima",
        "missing",
        "warnings",
        "models",
    ];
    let places: Vec<usize> = keys
        .iter()
        .chain(&later)
        .map(|key| text.find(&format!("\n  \"{key}\":")).expect(key))
        .collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(text, json(&soft()));
}

#[test]
fn several_numbers_of_experts_are_all_there_and_the_chosen_one_on_top() {
    let analysis = several();
    let report = parsed(&analysis);
    let models = report["models"].as_array().unwrap();
    assert_eq!(models.len(), 3);
    models.iter().for_each(assert_reasons);
    let chosen = models
        .iter()
        .find(|m| m["experts"] == report["experts"])
        .unwrap();
    for (key, value) in chosen.as_object().unwrap() {
        assert_eq!(&report[key], value, "{key}");
    }
    let bic = |model: &Value| model["bic"].as_f64().unwrap();
    assert!(models.iter().all(|model| bic(model) >= bic(&report)));
    assert!(models[0]["dendrogram"].is_null() && models[1]["dendrogram"].is_number());
    let text = terminal(&analysis);
    assert!(
        text.contains("Of 1 to 3 experts, 2 has the least BIC."),
        "{text}"
    );
    assert!(text.contains(&format!("*{:.3}", bic(&report))), "{text}");
}

#[test]
fn what_is_not_finite_becomes_null_with_a_reason() {
    let mut analysis = soft();
    let uncertainty = analysis.models[0].uncertainty.as_mut().unwrap();
    uncertainty.estimates[0].standard_error = Ok(f64::NAN);
    uncertainty.estimates[1].wald = Ok([0.0, f64::INFINITY]);
    analysis.models[0].criteria.as_mut().unwrap().icl = f64::NAN;
    analysis.models[0]
        .fitted
        .failures
        .push((Stop::NonFinite { iteration: 1 }, f64::NAN));
    let report = parsed(&analysis);
    assert!(report["standard_errors"]["expert[1].(Intercept)"].is_null());
    assert!(report["wald_intervals"]["expert[1].x"].is_null());
    assert!(report["icl"].is_null());
    assert!(report["failures"][0]["largest_log_likelihood"].is_null());
    assert_reasons(&report);
    let text = terminal(&analysis) + &page(&analysis);
    assert!(!text.contains("NaN"));
    assert!(text.contains("No certified optimum from 1 start: NonFinite"));
}

#[test]
fn the_terminal_text_is_narrow_plain_and_holds_what_counts() {
    for analysis in [soft(), stepped(), several()] {
        let text = terminal(&analysis);
        assert!(text.is_ascii());
        for line in text.lines() {
            assert!(line.len() <= WIDTH && line == line.trim_end(), "{line:?}");
        }
        let best = analysis.model().best().unwrap();
        assert!(text.contains(&format!("{:.6}", best.log_likelihood)));
        for name in [
            "expert[1].x",
            "expert[2].sigma",
            "gate[1].(Intercept)",
            "Sandwich",
        ] {
            assert!(text.contains(name), "{name}");
        }
    }
}

#[test]
fn a_gate_that_runs_away_is_named_with_its_limit() {
    let analysis = stepped();
    let best = analysis.model().best().unwrap();
    assert!(matches!(best.attainment, Attainment::NotAttained(_)));
    let value = format!("{:.6}", best.log_likelihood).replace('-', "−");
    let sentence = format!(
        "2 experts; log-likelihood {value} is a supremum that no gate attains: the weights tend \
         to a step between x 4.958333333 and 5.041666667"
    );
    assert!(page(&analysis).contains(&sentence));
    let text = unbroken(&analysis);
    assert!(text.contains("No standard error of gate[1].(Intercept), gate[1].x: the gate runs"));
    assert!(text.contains("warning: the likelihood has no maximum"));
    let report = parsed(&analysis);
    assert_eq!(report["attainment"], "not attained");
    assert!(
        report["boundary"]
            .as_array()
            .unwrap()
            .contains(&"gate[1].x".into())
    );
    assert!(report["standard_errors"]["gate[1].x"].is_null());
    assert_reasons(&report);
}

#[test]
fn spurious_optima_are_set_apart_with_their_reason() {
    let mut analysis = soft();
    let optima = &mut analysis.models[0].fitted.optima;
    let mut spurious = optima[0].clone();
    spurious.log_likelihood += 3.0;
    spurious.spurious = Some(Spurious::FewRows {
        expert: 1,
        rows: 4.25,
        least: 6.0,
    });
    optima.push(spurious);
    let reason = "spurious: expert 2 has 4.25 effective rows, fewer than 6.00";
    assert!(terminal(&analysis).contains(reason));
    let html = page(&analysis);
    assert!(html.contains(reason) && html.contains("\nspurious, above the best\n"));
    let report = parsed(&analysis);
    assert!(report["spurious"].is_null());
    let last = report["optima"].as_array().unwrap().last().unwrap().clone();
    assert!(last["spurious"].is_string() && last["gap"].as_f64() == Some(-3.0));

    let optima = &mut analysis.models[0].fitted.optima;
    optima.drain(..optima.len() - 1);
    let text = unbroken(&analysis);
    assert!(text.starts_with("2 experts: every optimum is spurious"));
    assert!(text.contains("use fewer experts"));
    assert!(parsed(&analysis)["spurious"].is_string());
}

#[test]
fn a_model_without_any_optimum_is_reported_as_such() {
    let mut analysis = soft();
    let model = &mut analysis.models[0];
    model.fitted.optima.clear();
    model.fitted.failures = vec![(Stop::MaxIterations, -10.0); 12];
    (model.criteria, model.uncertainty) = (None, None);
    analysis.residuals = None;
    let text = terminal(&analysis);
    assert!(text.starts_with("2 experts: none of 12 starts ended at a certified optimum."));
    assert!(text.contains("No certified optimum from 12 starts: MaxIterations"));
    let report = parsed(&analysis);
    assert_eq!(report["converged"], false);
    assert_reasons(&report);
    assert!(page(&analysis).contains("none of 12 starts"));
}

#[test]
fn a_page_loads_nothing_and_shows_every_figure() {
    let analysis = several();
    let html = page(&analysis);
    let without_names = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_names.contains("http") && !without_names.contains("src="));
    let links = without_names.matches("href=").count();
    assert_eq!(links, without_names.matches("href=\"#").count());
    // Fit with its gate, criteria and dendrogram, residuals twice.
    let optima = usize::from(analysis.model().fitted.optima.len() > 1);
    assert_eq!(html.matches("<svg").count(), 5 + optima);
    for id in [
        "model",
        "fit",
        "estimates",
        "optima",
        "experts",
        "residuals",
        "numbers",
    ] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
}

#[test]
fn names_of_users_cannot_become_markup() {
    let mut table = table(60, false);
    let mut columns = table.columns().to_vec();
    columns[0].name = "<i>x".to_string();
    table = Table::from_columns(table.path(), columns).unwrap();
    let mut analysis = analysis_of(&table, ["<i>x", "<i>x"], 1..=1);
    analysis.warnings.push("<b>".to_string());
    let html = page(&analysis);
    assert!(!html.contains("<i>") && !html.contains("<b>") && html.contains("&lt;i&gt;x"));
}

#[test]
fn a_folder_gets_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("made/here");
    let analysis = several();
    for _ in 0..2 {
        write(&out, &analysis, &[("predictions.csv", "mean\n1\n")]).unwrap();
    }
    let files = ["index.html", "fit.json", "table.txt", "predictions.csv"];
    let names = ["fit", "criteria", "residuals"];
    let pictures = names
        .iter()
        .flat_map(|n| [format!("figures/{n}.svg"), format!("figures/{n}.png")]);
    for file in files.iter().map(|f| f.to_string()).chain(pictures) {
        assert!(
            std::fs::metadata(out.join(&file)).unwrap().len() > 5,
            "{file}"
        );
    }
    // Nothing temporary is left.
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), files.len() + 1);
    assert_eq!(
        std::fs::read_to_string(out.join("fit.json")).unwrap(),
        json(&analysis)
    );
}

#[test]
fn a_slice_passes_through_the_design_and_holds_what_it_names() {
    let table = table(40, false);
    let [expert, gate] = ["x,x^2", "x"].map(|text| Formula::parse(text).unwrap());
    let design = Design::new(&table, "y", &expert, &gate).unwrap();
    let slice = Slice::new(&table, &design, &expert, &gate).unwrap();
    assert!(slice.held.is_empty() && slice.covariate == "x");
    assert!(slice.values.windows(2).all(|pair| pair[0] < pair[1]));
    let ends = [0, slice.values.len() - 1].map(|k| slice.inputs.row(k).to_vec());
    assert_eq!(ends, [0, 39].map(|row| design.data.row(row).0));

    let [expert, gate] = ["factor(level),x,z", "z"].map(|text| Formula::parse(text).unwrap());
    let design = Design::new(&table, "y", &expert, &gate).unwrap();
    let slice = Slice::new(&table, &design, &expert, &gate).unwrap();
    assert_eq!((slice.covariate.as_str(), slice.held.len()), ("x", 2));
    // z at its mean is 0 standardised; the level is one of those seen; x alone moves.
    let moving: Vec<bool> = slice
        .inputs
        .columns()
        .into_iter()
        .map(|column| column.iter().any(|v| *v != column[0]))
        .collect();
    assert_eq!(moving.iter().filter(|moves| **moves).count(), 1);
    let still = moving.iter().position(|moves| !moves);
    assert!(still.is_some() && slice.inputs.iter().all(|v| v.is_finite()));

    let [expert, gate] = ["factor(level)", ""].map(|text| Formula::parse(text).unwrap());
    let design = Design::new(&table, "y", &expert, &gate).unwrap();
    assert_eq!(Slice::new(&table, &design, &expert, &gate), None);
}

#[test]
fn many_rows_are_thinned_and_the_page_says_so() {
    let analysis = analysis_of(&table(7000, false), ["x", "x"], 2..=2);
    let html = page(&analysis);
    assert!(html.len() < 2_000_000, "{}", html.len());
    assert!(html.contains("Points: 2334 of 7000 rows"));
    assert!(html.contains("Of 7000 points about 1750 are drawn."));
}
