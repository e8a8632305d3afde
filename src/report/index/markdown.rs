//! The index as a table in Markdown.

use super::MARK;
use super::condensed::Line;
use super::entry::{Effort, IndexClaim, IndexEntry};

/// The text of `README.md`.
pub(super) fn table(groups: &[(&str, Vec<&IndexEntry>)]) -> String {
    let mut text = format!(
        "{MARK}\n\n# Studies\n\nWhat each study claims and what its recorded rows say, judged anew by \
         `rate_sweep check`. The same with plots: [index.html](index.html). Intervals are 95 % \
         intervals; exponents and infima of inverse bounds are computed, not estimated. A claim about \
         many series is one line of counts and the range of its numbers, with every failure named. \
         Failed: fits without a certified maximum, minima without a certificate, positive infima that \
         one start alone found. Computing time is that of all fits together; without Monte Carlo, of \
         all threads. Constants: the range of each ratio to its limit.\n"
    );
    for (heading, entries) in groups {
        text += &format!(
            "\n## {heading}\n\n| study | claim | measured | verdict |\n|---|---|---|---|\n"
        );
        text += &entries.iter().map(|e| study_lines(e)).collect::<String>();
        text += &efforts(entries);
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
    let lines = claim.lines();
    let measured = |line: &Line| {
        cell(&match line.series.as_str() {
            "" => line.measured.clone(),
            series => format!("{series}: {}", line.measured),
        })
    };
    let verdicts: Vec<String> = lines.iter().map(verdicts).collect();
    let all_equal = verdicts.windows(2).all(|pair| pair[0] == pair[1]);
    let verdict = match all_equal {
        true => verdicts.first().cloned().unwrap_or_default(),
        false => verdicts.join("<br>"),
    };
    let found: Vec<String> = lines.iter().map(measured).collect();
    format!(
        "| {name} | {}{theorem} | {} | {verdict} |\n",
        cell(&claim.statement()),
        found.join("<br>")
    )
}

fn verdicts(line: &Line) -> String {
    let texts: Vec<&str> = line.verdicts.iter().map(|v| v.text.as_str()).collect();
    texts.join(", ")
}

/// What the studies took; nothing if none is recorded.
fn efforts(entries: &[&IndexEntry]) -> String {
    let efforts = || {
        entries
            .iter()
            .filter_map(|e| Some((*e, e.effort.as_ref()?)))
    };
    let has_constants = efforts().any(|(_, effort)| !effort.constants.is_empty());
    let lines: String = efforts()
        .map(|(entry, effort)| effort_line(entry, effort, has_constants))
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let (constants, rule) = match has_constants {
        true => (" constants |", "---|"),
        false => ("", ""),
    };
    format!(
        "\n| study | size | failed | computing time |{constants}\n|---|---|---|---|{rule}\n{lines}"
    )
}

fn effort_line(entry: &IndexEntry, effort: &Effort, has_constants: bool) -> String {
    let Effort {
        amount,
        failed,
        time,
        constants,
    } = effort;
    let time = time.as_deref().unwrap_or("–");
    let constants = match has_constants {
        true => format!(" {} |", constants.replace("; ", "<br>")),
        false => String::new(),
    };
    format!(
        "| [<img src=\"{}\" width=\"150\" alt=\"\">]({})<br>{} | {amount} | {failed} | {time} |{constants}\n",
        entry.thumbnail(),
        entry.page(),
        entry.name
    )
}

/// Text that cannot end its cell or become markup.
fn cell(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('|', "\\|")
        .replace('*', "\\*")
        .replace('\n', " ")
}
