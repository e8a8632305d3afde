//! Pieces of self-contained HTML pages: nothing in them is loaded from elsewhere.

use super::chart::Chart;
use super::figure::Figure;

const STYLE: &str = include_str!("page.css");

/// A page of titled sections, (anchor, heading, content); empty ones are left
/// out. `title` and `headline` are text.
pub fn document(title: &str, headline: &str, sections: &[(&str, &str, String)]) -> String {
    let title = escape(title);
    let shown = || {
        sections
            .iter()
            .filter(|(_, _, content)| !content.is_empty())
    };
    let links: String = shown()
        .map(|(id, heading, _)| format!("<a href=\"#{id}\">{heading}</a>\n"))
        .collect();
    let body: String = shown()
        .map(|(id, heading, content)| section(id, heading, content))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <h1>{title}</h1>\n<p class=\"headline\">{}</p>\n<nav>\n{links}</nav>\n</header>\n\
         <main>\n{body}</main>\n</body>\n</html>\n",
        typeset(headline),
    )
}

/// Charts with one caption; one image per chart, so that they stack on a narrow
/// screen. Nothing for no charts.
pub fn panels(charts: &[Chart], size: (u32, u32), caption: &str) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let images: String = charts
        .iter()
        .map(|chart| {
            Figure::single(chart.clone())
                .with_panel_size(size.0, size.1)
                .svg()
        })
        .collect();
    format!(
        "<figure><div class=\"panels\">\n{images}\n</div>\n<figcaption>{}</figcaption></figure>\n",
        typeset(caption)
    )
}

/// A figure of several panels in one image, such as stacked ones, with a caption.
pub fn figure(figure: &Figure, caption: &str) -> String {
    format!(
        "<figure><div class=\"panels\">\n{}\n</div>\n<figcaption>{}</figcaption></figure>\n",
        figure.svg(),
        typeset(caption)
    )
}

/// Text made safe for an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Text set for reading: escaped, no line break inside "95 %" and "n = 10", and
/// the exponents of `n^(1/2)` and `10^4` raised.
pub fn typeset(text: &str) -> String {
    let mut safe = escape(text)
        .replace(" %", "\u{a0}%")
        .replace("log n", "log\u{a0}n");
    for sign in ["=", "≤", "/"] {
        safe = safe.replace(&format!(" {sign} "), &format!("\u{a0}{sign}\u{a0}"));
    }
    let mut html = String::new();
    let mut rest = safe.as_str();
    while let Some((before, after)) = rest.split_once('^') {
        let Some((raised, later)) = exponent(after) else {
            break;
        };
        html.push_str(&format!("{before}<sup>{raised}</sup>"));
        rest = later;
    }
    html + rest
}

/// What stands at the start of `text` in brackets or in digits, and the rest.
fn exponent(text: &str) -> Option<(&str, &str)> {
    if let Some(inside) = text.strip_prefix('(') {
        return inside.split_once(')');
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A section with a heading that links can point at.
pub fn section(id: &str, heading: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{content}</section>\n")
}

/// Paragraphs: blank lines in `text` separate them.
pub fn paragraphs(text: &str) -> String {
    text.split("\n\n")
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| format!("<p>{}</p>\n", typeset(part)))
        .collect()
}

/// One paragraph of escaped text.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", typeset(text))
}

/// Terms with their descriptions, both as text.
pub fn definitions(pairs: &[(String, String)]) -> String {
    let pair = |(term, text): &(String, String)| {
        format!("<dt>{}</dt><dd>{}</dd>\n", typeset(term), typeset(text))
    };
    format!(
        "<dl>\n{}</dl>\n",
        pairs.iter().map(pair).collect::<String>()
    )
}

/// A list of text.
pub fn list(items: &[String]) -> String {
    let item = |text: &String| format!("<li>{}</li>\n", typeset(text));
    format!(
        "<ul>\n{}</ul>\n",
        items.iter().map(item).collect::<String>()
    )
}

/// Preformatted text.
pub fn code(text: &str) -> String {
    format!("<pre><code>{}</code></pre>\n", escape(text))
}

/// Content that a click unfolds.
pub fn details(heading: &str, content: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{content}</details>\n",
        typeset(heading)
    )
}

/// A table whose cells are HTML already; it scrolls sideways where it is wider
/// than the page. Headings are text. The first `words` columns hold words, the
/// others numbers.
pub fn table(caption: &str, words: usize, headings: &[String], rows: &[Vec<String>]) -> String {
    let class = |k: usize| if k < words { " class=\"words\"" } else { "" };
    let heading: String = headings
        .iter()
        .enumerate()
        .map(|(k, h)| format!("<th scope=\"col\"{}>{}</th>", class(k), typeset(h)))
        .collect();
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().enumerate();
        let cells: String = cells
            .map(|(k, c)| format!("<td{}>{c}</td>", class(k)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let caption = match caption {
        "" => String::new(),
        text => format!("<caption>{}</caption>\n", typeset(text)),
    };
    format!(
        "<div class=\"scroll\"><table class=\"numbers\">\n{caption}<thead><tr>{heading}</tr></thead>\n\
         <tbody>\n{}</tbody>\n</table></div>\n",
        rows.iter().map(row).collect::<String>()
    )
}

/// A number with what belongs to it in smaller type: beside and below it.
pub fn annotated(main: &str, beside: &str, below: &str) -> String {
    format!(
        "{} <small>{}</small><small class=\"below\">{}</small>",
        typeset(main),
        typeset(beside),
        typeset(below)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b a=\"'\">&"), "&lt;b a=&quot;&#39;&quot;&gt;&amp;");
        assert_eq!(
            typeset("n^(<1/2) at 95 %"),
            "n<sup>&lt;1/2</sup> at 95\u{a0}%"
        );
        assert_eq!(typeset("10^4 open^(1"), "10<sup>4</sup> open^(1");
        assert!(paragraphs("a <i>\n\nb").contains("<p>a &lt;i&gt;</p>\n<p>b</p>"));
    }
}
