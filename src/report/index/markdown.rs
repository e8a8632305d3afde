//! The index as a table in Markdown.

use super::MARK;
use super::entry::{Effort, IndexClaim, IndexEntry, IndexResult};

/// The text of `README.md`.
pub(super) fn table(groups: &[(String, Vec<&IndexEntry>)]) -> String {
    let mut text = format!(
        "{MARK}\n\n# Studies\n\nWhat each study claims and what its recorded rows say, judged anew by \
         `rate_sweep check`. The same with plots: [index.html](index.html). Intervals are 95 % \
         intervals; exponents of inverse bounds are computed, not estimated, and have a tolerance \
         instead. Failed: fits without a certified maximum, minima without a certificate. Computing \
         time is that of all fits together; for inverse bounds, of all threads.\n"
    );
    for (heading, entries) in groups {
        text += &format!(
            "\n## {heading}\n\n| study | claim | measured | verdict |\n|---|---|---|---|\n"
        );
        text += &entries.iter().map(|e| study_lines(e)).collect::<String>();
        text += "\n| study | size | failed | computing time |\n|---|---|---|---|\n";
        text += &entries.iter().map(|e| effort_line(e)).collect::<String>();
    }
    text
}

fn study_lines(entry: &IndexEntry) -> String {
    let Some(_) = entry.effort else {
        return format!(
            "| [{}]({})<br>{} | | not recorded | |\n",
            entry.name,
            entry.design(),
            cell(&entry.title)
        );
    };
    let study = format!(
        "[{}]({}) ([design]({}))<br>{}",
        entry.name,
        entry.page(),
        entry.design(),
        cell(&entry.title)
    );
    let names = std::iter::once(study.as_str()).chain(std::iter::repeat(""));
    let lines = names.zip(&entry.claims);
    lines.map(|(name, claim)| claim_line(name, claim)).collect()
}

fn claim_line(name: &str, claim: &IndexClaim) -> String {
    let theorem = match claim.theorem.as_str() {
        "" => String::new(),
        theorem => format!("<br>*{}*", cell(theorem)),
    };
    let measured = |result: &IndexResult| {
        let text = format!("{} {}", result.series, result.measured);
        cell(text.trim())
    };
    let verdicts: Vec<&str> = claim.results.iter().map(|r| r.verdict.name()).collect();
    let all_equal = verdicts.windows(2).all(|pair| pair[0] == pair[1]);
    let verdict = match all_equal {
        true => verdicts.first().copied().unwrap_or_default().to_string(),
        false => verdicts.join("<br>"),
    };
    let results: Vec<String> = claim.results.iter().map(measured).collect();
    format!(
        "| {name} | {}{theorem} | {} | {verdict} |\n",
        cell(&claim.text),
        results.join("<br>")
    )
}

fn effort_line(entry: &IndexEntry) -> String {
    let Some(Effort {
        amount,
        failed,
        time,
    }) = &entry.effort
    else {
        return String::new();
    };
    let time = time.as_deref().unwrap_or("–");
    format!("| {} | {amount} | {failed} | {time} |\n", entry.name)
}

/// Text that cannot end its cell or become markup.
fn cell(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('|', "\\|")
        .replace('*', "\\*")
        .replace('\n', " ")
}
