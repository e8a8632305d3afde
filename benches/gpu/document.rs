//! Markdown, printed as it is written.

#[derive(Default)]
pub struct Document {
    text: String,
    /// Headings so far: the first is the document's own.
    headings: usize,
}

impl Document {
    pub fn text(&self) -> &str {
        &self.text
    }

    fn add(&mut self, text: &str) {
        println!("{text}");
        self.text += text;
        self.text.push('\n');
    }

    pub fn heading(&mut self, text: &str) {
        let level = if self.headings == 0 { "#" } else { "\n##" };
        self.headings += 1;
        self.add(&format!("{level} {text}"));
    }

    pub fn paragraph(&mut self, text: &str) {
        self.add(&format!("\n{text}"));
    }

    pub fn table(&mut self, table: Table) {
        self.add(&format!("\n{}", table.lines.join("\n")));
    }
}

pub struct Table {
    lines: Vec<String>,
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        let rule = vec!["---:"; columns.len()];
        Table {
            lines: [columns, &rule[..]].map(line).to_vec(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        self.lines.push(line(&cells));
    }
}

fn line(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Three significant digits.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if !(1e-3..1e6).contains(&size) && value != 0.0 {
        return format!("{value:.2e}");
    }
    let digits = 2 - size.max(1e-9).log10().floor() as i32;
    format!("{value:.*}", digits.max(0) as usize)
}

pub fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}
