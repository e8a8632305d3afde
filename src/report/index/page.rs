//! The index as a page with thumbnails.

use super::MARK;
use super::condensed::{Line, counted};
use super::entry::{Effort, IndexClaim, IndexEntry};
use crate::plot::html::{escape, typeset};
use crate::sim::Verdict;

const STYLE: &str = concat!(
    include_str!("../../plot/page.css"),
    include_str!("style.css")
);

/// The text of `index.html`. The plots are those of the records, by relative path.
pub(super) fn page(groups: &[(&str, Vec<&IndexEntry>)]) -> String {
    let body: String = groups
        .iter()
        .map(|(heading, entries)| {
            let studies: String = entries.iter().map(|entry| study(entry)).collect();
            format!(
                "<section>\n<h2>{}</h2>\n{studies}</section>\n",
                typeset(heading)
            )
        })
        .collect();
    let links: String = groups
        .iter()
        .flat_map(|(_, entries)| entries)
        .map(|entry| format!("<a href=\"#{0}\">{0}</a>\n", anchor(entry)))
        .collect();
    format!(
        "{MARK}\n<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Studies</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <h1>Studies</h1>\n<p class=\"headline\">{}</p>\n<nav>\n{links}</nav>\n</header>\n\
         <main>\n{body}</main>\n</body>\n</html>\n",
        typeset(&headline(groups))
    )
}

fn headline(groups: &[(&str, Vec<&IndexEntry>)]) -> String {
    let entries = || groups.iter().flat_map(|(_, entries)| entries);
    let results = entries().flat_map(|e| &e.claims).flat_map(|c| &c.results);
    let counted = counted(results.map(|r| r.verdict));
    let parts: Vec<&str> = counted.iter().map(|c| c.text.as_str()).collect();
    let parts = match parts.is_empty() {
        true => "no record yet".to_string(),
        false => parts.join(", "),
    };
    format!(
        "{} studies. Claims, each series counted: {parts}. Intervals are 95 % intervals.",
        entries().count(),
    )
}

fn anchor(entry: &IndexEntry) -> String {
    escape(&format!("{}{}", entry.place, entry.name))
}

fn study(entry: &IndexEntry) -> String {
    let (page, image) = (escape(&entry.page()), escape(&entry.thumbnail()));
    let title = typeset(&entry.title);
    let Some(effort) = &entry.effort else {
        return format!(
            "<article class=\"study\" id=\"{}\">\n<div></div>\n<div>\n\
             <h3>{title}</h3>\n<p class=\"source\">{}</p>\n<p>Not recorded.</p>\n</div>\n</article>\n",
            anchor(entry),
            source(entry),
        );
    };
    format!(
        "<article class=\"study\" id=\"{}\">\n<a class=\"thumbnail\" href=\"{page}\">\
         <img src=\"{image}\" alt=\"Plot of {}\" loading=\"lazy\"></a>\n<div>\n\
         <h3><a href=\"{page}\">{title}</a></h3>\n<p class=\"source\">{}</p>\n{}\
         <p class=\"effort\">{}</p>\n</div>\n</article>\n",
        anchor(entry),
        escape(&entry.name),
        source(entry),
        claims(&entry.claims),
        typeset(&effort_text(effort))
    )
}

fn source(entry: &IndexEntry) -> String {
    format!(
        "<a href=\"{}\">{}</a> · {}",
        escape(&entry.design()),
        escape(&entry.name),
        typeset(&entry.reference)
    )
}

fn effort_text(effort: &Effort) -> String {
    let time = effort.time.as_ref();
    let time = time.map_or(String::new(), |time| format!(" Computing time: {time}."));
    let constants = match effort.constants.as_str() {
        "" => String::new(),
        constants => format!(" Constants: {constants}."),
    };
    format!(
        "{}. Failed: {}.{time}{constants}",
        effort.amount, effort.failed
    )
}

fn claims(claims: &[IndexClaim]) -> String {
    let rows: String = claims.iter().map(claim_rows).collect();
    format!("<div class=\"scroll\"><table class=\"claims\">\n{rows}</table></div>\n")
}

fn claim_rows(claim: &IndexClaim) -> String {
    let theorem = match claim.theorem.as_str() {
        "" => String::new(),
        theorem => format!(" <span class=\"theorem\">{}</span>", typeset(theorem)),
    };
    let lines: String = claim.lines().iter().map(line_row).collect();
    format!(
        "<tbody>\n<tr><th colspan=\"3\" scope=\"rowgroup\">{}{theorem}</th></tr>\n{lines}</tbody>\n",
        typeset(&claim.statement())
    )
}

fn line_row(line: &Line) -> String {
    let measured = match line.series.as_str() {
        "" => format!("<td colspan=\"2\">{}</td>", typeset(&line.measured)),
        series => format!(
            "<td>{}</td><td>{}</td>",
            escape(series),
            typeset(&line.measured)
        ),
    };
    let verdicts: Vec<String> = line
        .verdicts
        .iter()
        .map(|counted| {
            let class = match counted.verdict {
                Verdict::Missing => "missing",
                verdict => verdict.name(),
            };
            format!("<span class=\"verdict {class}\">{}</span>", counted.text)
        })
        .collect();
    format!("<tr>{measured}<td>{}</td></tr>\n", verdicts.join(" "))
}
