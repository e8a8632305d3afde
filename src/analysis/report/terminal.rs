//! The report as plain text.

use super::contents::Analysis;
use super::tables::{self, Table};
use super::wording;

/// No line is longer, but for one that holds a single long word.
pub const WIDTH: usize = 100;

/// The whole report as text of at most [`WIDTH`] columns, numbers in ASCII.
pub fn terminal(analysis: &Analysis) -> String {
    let mut text = wrapped(&wording::headline(analysis), "");
    text.push('\n');
    for (term, description) in tables::at_a_glance(analysis) {
        let start = format!("{term:<16}");
        text.push_str(&wrapped(&(start + &description), &" ".repeat(16)));
    }
    let all = [
        tables::criteria(analysis),
        tables::estimates(analysis),
        tables::experts(analysis),
        tables::optima(analysis),
        tables::residuals(analysis),
    ];
    for table in all.iter().flatten() {
        text.push('\n');
        text.push_str(&set(table));
    }
    let warnings = analysis.all_warnings();
    if !warnings.is_empty() {
        text.push('\n');
    }
    for warning in warnings {
        text.push_str(&wrapped(&format!("warning: {warning}"), "  "));
    }
    text
}

/// A table: words to the left, numbers to the right of their columns.
fn set(table: &Table) -> String {
    const GAP: usize = 2;
    const NAME: usize = 30;
    let ascii_row = |cells: &Vec<String>| cells.iter().map(|cell| ascii(cell)).collect();
    let rows: Vec<Vec<String>> = table.rows.iter().map(ascii_row).collect();
    let widest = |lines: &[Vec<String>]| -> Vec<usize> {
        let width = |k: usize| lines.iter().map(|cells| cells[k].chars().count()).max();
        (0..table.headings.len())
            .map(|k| width(k).unwrap_or(0))
            .collect()
    };
    let mut headings = vec![ascii_row(&table.headings)];
    let mut widths = widest(&[&headings[..], &rows[..]].concat());
    let others: usize = widths.iter().skip(1).map(|w| w + GAP).sum();
    // A name gets what the numbers leave, and they leave it some.
    if widths.first().map_or(0, |&first| first.min(NAME)) + others > WIDTH {
        headings = in_two_lines(&headings[0], &widest(&rows));
        widths = widest(&[&headings[..], &rows[..]].concat());
    }
    let lines = [headings, rows].concat();
    // A name that leaves the numbers no room gets a line of its own.
    let numbers: usize = widths.iter().skip(1).map(|w| w + GAP).sum();
    if let Some(first) = widths.first_mut() {
        *first = (*first).min(WIDTH.saturating_sub(numbers).max(8));
    }
    let mut text = wrapped(&table.caption, "");
    for cells in &lines {
        let mut line = String::new();
        for (k, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let length = cell.chars().count();
            if k == 0 && length > width {
                text.push_str(&format!("  {cell}\n"));
                line.push_str(&" ".repeat(width));
                continue;
            }
            let blank = " ".repeat(width - length);
            let gap = if k == 0 { "" } else { "  " };
            line.push_str(&match k < table.words {
                true => format!("{gap}{cell}{blank}"),
                false => format!("{gap}{blank}{cell}"),
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for note in &table.notes {
        text.push_str(&wrapped(note, "  "));
    }
    text
}

/// Headings that are wider than their columns, broken after a blank or a hyphen.
fn in_two_lines(headings: &[String], widths: &[usize]) -> Vec<Vec<String>> {
    let broken = |(heading, &width): (&String, &usize)| {
        let middle = heading.len() / 2;
        let ends = heading.match_indices([' ', '-']).map(|(at, _)| at + 1);
        let at = ends.min_by_key(|at| at.abs_diff(middle));
        match at.filter(|_| heading.chars().count() > width) {
            None => (String::new(), heading.clone()),
            Some(at) => (heading[..at].trim().to_string(), heading[at..].to_string()),
        }
    };
    let (upper, lower): (Vec<String>, Vec<String>) =
        headings.iter().zip(widths).map(broken).unzip();
    match upper.iter().all(String::is_empty) {
        true => vec![lower],
        false => vec![upper, lower],
    }
}

/// Text in lines of at most [`WIDTH`] columns, all but the first indented.
fn wrapped(text: &str, indent: &str) -> String {
    let text = ascii(text);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    // Runs of blanks align descriptions: only single ones may become ends of lines.
    for word in text.split_inclusive(' ') {
        let length = line.chars().count() + word.trim_end().chars().count();
        if length > WIDTH && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, indent.to_string()));
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// Typeset numbers as programs write them; names keep their letters.
fn ascii(text: &str) -> String {
    const POWERS: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    let mut out = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '−' | '–' => out.push('-'),
            '∞' => out.push_str("inf"),
            '\u{202f}' => {}
            '\u{a0}' => out.push(' '),
            '’' => out.push('\''),
            '×' => {
                let rest: String = letters.clone().collect();
                let power = rest.strip_prefix("10").unwrap_or("");
                let digits: String = power
                    .chars()
                    .map_while(|c| match c {
                        '⁻' => Some('-'),
                        c => POWERS
                            .chars()
                            .position(|p| p == c)
                            .and_then(|d| char::from_digit(d as u32, 10)),
                    })
                    .collect();
                if digits.is_empty() {
                    out.push(letter);
                } else {
                    out.push_str(&format!("e{digits}"));
                    letters.nth(1 + digits.chars().count());
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ascii_and_names_stay() {
        assert_eq!(ascii("−1.50×10⁻⁶ [–, ∞]"), "-1.50e-6 [-, inf]");
        assert_eq!(
            ascii("größe²×2 10\u{202f}000 1.0×10¹² ms"),
            "größe²×2 10000 1.0e12 ms"
        );
    }

    #[test]
    fn a_long_name_stands_above_its_numbers() {
        let table = Table {
            caption: "Estimates".to_string(),
            words: 1,
            headings: vec!["Quantity".to_string(), "Estimate".to_string()],
            rows: vec![
                vec![format!("expert[1].{}", "x".repeat(100)), "1.5".to_string()],
                vec!["sigma".to_string(), "−20.25".to_string()],
            ],
            notes: Vec::new(),
        };
        let text = set(&table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[3].trim(), "1.5");
        assert!(lines[4].starts_with("sigma") && lines[4].ends_with("  -20.25"));
        assert_eq!(lines[3].len(), lines[4].len());
    }

    #[test]
    fn a_table_that_is_too_wide_breaks_its_headings() {
        let table = Table {
            headings: vec!["some long heading".to_string(); 8],
            rows: vec![vec!["1.5".to_string(); 8]],
            ..Table::default()
        };
        let text = set(&table);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn text_is_broken_between_words_only() {
        let text = wrapped(&"word ".repeat(50), "  ");
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.lines().skip(1).all(|line| line.starts_with("  word")));
        assert_eq!(text.split_whitespace().count(), 50);
        assert_eq!(wrapped("a   b", ""), "a   b\n");
    }
}
