//! Small pieces of HTML.

/// Text made safe for an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// A section with a heading that links can point at.
pub(super) fn section(id: &str, heading: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{content}</section>\n")
}

/// Paragraphs: blank lines in `text` separate them.
pub(super) fn paragraphs(text: &str) -> String {
    text.split("\n\n")
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| format!("<p>{}</p>\n", escape(part)))
        .collect()
}

/// One paragraph of escaped text.
pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Terms with their descriptions, both as text.
pub(super) fn definitions(pairs: &[(String, String)]) -> String {
    let pair = |(term, text): &(String, String)| {
        format!("<dt>{}</dt><dd>{}</dd>\n", escape(term), escape(text))
    };
    format!(
        "<dl>\n{}</dl>\n",
        pairs.iter().map(pair).collect::<String>()
    )
}

/// A list of text.
pub(super) fn list(items: &[String]) -> String {
    let item = |text: &String| format!("<li>{}</li>\n", escape(text));
    format!(
        "<ul>\n{}</ul>\n",
        items.iter().map(item).collect::<String>()
    )
}

/// Preformatted text.
pub(super) fn code(text: &str) -> String {
    format!("<pre><code>{}</code></pre>\n", escape(text))
}

/// Content that a click unfolds.
pub(super) fn details(heading: &str, content: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{content}</details>\n",
        escape(heading)
    )
}

/// A table whose cells are HTML already; it scrolls sideways where it is wider
/// than the page. Headings are text.
pub(super) fn table(caption: &str, headings: &[String], rows: &[Vec<String>]) -> String {
    let heading: String = headings
        .iter()
        .map(|h| format!("<th scope=\"col\">{}</th>", escape(h)))
        .collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells.iter().map(|c| format!("<td>{c}</td>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let caption = match caption {
        "" => String::new(),
        text => format!("<caption>{}</caption>\n", escape(text)),
    };
    format!(
        "<div class=\"scroll\"><table class=\"numbers\">\n{caption}<thead><tr>{heading}</tr></thead>\n\
         <tbody>\n{}</tbody>\n</table></div>\n",
        rows.iter().map(row).collect::<String>()
    )
}

/// A number with what belongs to it in smaller type below.
pub(super) fn stacked(main: &str, below: &[String]) -> String {
    let small: String = below
        .iter()
        .map(|text| format!("<small>{}</small>", escape(text)))
        .collect();
    format!("{}{small}", escape(main))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b a=\"'\">&"), "&lt;b a=&quot;&#39;&quot;&gt;&amp;");
        assert!(paragraphs("a <i>\n\nb").contains("<p>a &lt;i&gt;</p>\n<p>b</p>"));
    }
}
