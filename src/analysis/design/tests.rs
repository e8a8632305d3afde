use super::*;
use crate::analysis::table::Cells;
use crate::analysis::table::Column;
use std::path::Path;

fn text_column(name: &str, cells: &[&str]) -> Column {
    let cell = |cell: &&str| (!cell.is_empty()).then(|| cell.to_string());
    Column {
        name: name.into(),
        cells: Cells::Text(cells.iter().map(cell).collect()),
    }
}

fn number_column(name: &str, cells: &[f64]) -> Column {
    let cell = |&cell: &f64| (!cell.is_nan()).then_some(cell);
    Column {
        name: name.into(),
        cells: Cells::Number(cells.iter().map(cell).collect()),
    }
}

fn table(columns: Vec<Column>) -> Table {
    Table::from_columns(Path::new("t.csv"), columns).unwrap()
}

fn design(table: &Table, expert: &str, gate: &str) -> Result<Design> {
    let formula = |text| Formula::parse(text).unwrap();
    Design::new(table, "y", &formula(expert), &formula(gate))
}

const Y: [f64; 6] = [1.0, 3.0, 2.0, 5.0, 4.0, 9.0];
const X: [f64; 6] = [1.0, 2.0, 4.0, 5.0, 7.0, 6.5];

#[test]
fn experts_and_gate_share_a_feature() {
    let table = table(vec![number_column("y", &Y), number_column("x", &X)]);
    let design = design(&table, "x,x^2", "x").unwrap();
    assert_eq!(design.data.dimension(), 2);
    assert_eq!(design.expert.features, [0, 1]);
    assert_eq!(design.gate.features, [0]);
    assert_eq!(design.expert.terms, ["(Intercept)", "x", "x^2"]);
    assert_eq!(design.gate.to_raw.dim(), (2, 3));
}

#[test]
fn a_text_column_is_a_factor_of_treatment_contrasts() {
    let sex = text_column("sex", &["m", "f", "f", "m", "d", "f"]);
    let table = table(vec![number_column("y", &Y), number_column("x", &X), sex]);
    let design = design(&table, "x,sex", "").unwrap();
    assert_eq!(design.expert.terms, ["(Intercept)", "x", "sex=f", "sex=m"]);
    assert_eq!(design.gate.terms, ["(Intercept)"]);
}
