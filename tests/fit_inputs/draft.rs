//! A table before it is written, and how it is written.

use rand::RngExt;
use rand_philox::Philox;

/// Columns y (two lines with noise), x, z and the factor g, and how they are used.
pub struct Draft {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub response: String,
    pub expert: String,
    pub gate: String,
    pub delimiter: char,
    pub line_end: &'static str,
    pub all_quoted: bool,
    pub byte_order_mark: bool,
}

impl Draft {
    pub fn sound(rng: &mut Philox) -> Self {
        let count = rng.random_range(12..60);
        let row = |rng: &mut Philox| {
            let (x, z) = (rng.random_range(-3.0..3.0f64), rng.random_range(0.0..1.0));
            let noise: f64 = rng.random_range(-0.5..0.5);
            let y = noise + if x < 0.5 { 2.0 * x } else { 5.0 - x };
            let g = pick(rng, &["a", "b", "c"]);
            vec![
                format!("{y:.4}"),
                format!("{x:.3}"),
                format!("{z:.6}"),
                g.into(),
            ]
        };
        let rows = (0..count).map(|_| row(rng)).collect();
        let expert = pick(rng, &["x", "x,x^2", "x,g", "x,z,x:z"]);
        Draft {
            header: ["y", "x", "z", "g"].map(String::from).to_vec(),
            rows,
            response: "y".into(),
            expert: expert.into(),
            gate: pick(rng, &["x", "", "x,z", "1"]).into(),
            delimiter: ',',
            line_end: "\n",
            all_quoted: false,
            byte_order_mark: false,
        }
    }

    /// Replaces the cells of a column by (row, cell) -> cell.
    pub fn map(&mut self, column: &str, mut new: impl FnMut(usize, &str) -> String) {
        if let Some(j) = self.header.iter().position(|name| name == column) {
            for (i, row) in self.rows.iter_mut().enumerate() {
                if let Some(cell) = row.get_mut(j) {
                    *cell = new(i, cell);
                }
            }
        }
    }

    /// As [`Draft::map`], for numbers.
    pub fn map_number(&mut self, column: &str, new: impl Fn(f64) -> f64) {
        self.map(column, |_, cell| match cell.parse() {
            Ok(number) => format!("{:e}", new(number)),
            Err(_) => cell.into(),
        });
    }

    /// Adds a column made of another one's cells.
    pub fn add(&mut self, name: &str, from: &str, new: impl Fn(&str) -> String) {
        let j = self.header.iter().position(|name| name == from);
        self.header.push(name.into());
        for row in &mut self.rows {
            let cell = j.and_then(|j| row.get(j)).map_or(String::new(), |c| new(c));
            row.push(cell);
        }
    }

    pub fn rename(&mut self, old: &str, new: &str) {
        let header = self.header.iter_mut();
        header
            .filter(|name| *name == old)
            .for_each(|name| *name = new.into());
    }

    /// Replaces a random cell of a column.
    pub fn strike(&mut self, rng: &mut Philox, column: &str, cell: &str) {
        if !self.rows.is_empty() {
            let struck = rng.random_range(0..self.rows.len());
            self.map(column, |i, old| if i == struck { cell } else { old }.into());
        }
    }

    pub fn written(&self) -> Vec<u8> {
        let mut text = String::new();
        if self.byte_order_mark {
            text.push('\u{feff}');
        }
        for row in std::iter::once(&self.header).chain(&self.rows) {
            for (j, cell) in row.iter().enumerate() {
                if j > 0 {
                    text.push(self.delimiter);
                }
                match self.all_quoted {
                    true => text.push_str(&format!("\"{}\"", cell.replace('"', "\"\""))),
                    false => text.push_str(cell),
                }
            }
            text.push_str(self.line_end);
        }
        text.into_bytes()
    }
}

/// One of the choices.
pub fn pick<'a>(rng: &mut Philox, choices: &[&'a str]) -> &'a str {
    choices[rng.random_range(0..choices.len())]
}
