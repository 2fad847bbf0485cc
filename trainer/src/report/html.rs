//! Pieces of HTML that sections are made of.

use base64::Engine as _;

use crate::eval::bootstrap::Interval;

/// A section of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its heading, as plain text.
    pub title: String,
    /// Its content, as HTML.
    pub html: String,
}

impl Section {
    /// The section with its heading.
    pub(super) fn to_html(&self) -> String {
        format!("<section>\n<h2>{}</h2>\n{}</section>\n", escape(&self.title), self.html)
    }
}

/// A text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What a `*` after an interval means.
pub const THIN: &str =
    "* defined in fewer than nine of ten draws: too few positives or negatives for a reliable interval";

/// A value with its interval as a cell of a table, for metrics that every draw defines.
pub fn interval_cell(interval: Option<Interval>) -> String {
    marked_cell(interval, 0)
}

/// A value with its interval as a cell of a table, with a `*` where the interval is unreliable
/// ([`Interval::is_thin`]). `draws` were asked for.
pub fn marked_cell(interval: Option<Interval>, draws: usize) -> String {
    match interval {
        Some(i) => {
            let mark = if i.is_thin(draws) { "*" } else { "" };
            format!("<td>{:.3} <small>{:.3}–{:.3}</small>{mark}</td>", i.value, i.low, i.high)
        }
        None => "<td>undefined</td>".to_owned(),
    }
}

/// A table, and below it what `*` means if one of its cells has one.
pub fn with_note(mut table: String) -> String {
    // Texts are escaped, so this is a mark.
    if table.contains("</small>*</td>") {
        table += &format!("<p>{THIN}.</p>\n");
    }
    table
}

/// A PNG with a caption, stored in the page.
pub fn image_figure(png: &[u8], alternative: &str, caption: &str) -> String {
    let data = base64::engine::general_purpose::STANDARD.encode(png);
    format!(
        "<figure><img alt=\"{}\" src=\"data:image/png;base64,{data}\"><figcaption>{}</figcaption></figure>\n",
        escape(alternative),
        escape(caption)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreliable_intervals_are_marked_and_explained() {
        let cell = |draws| marked_cell(Some(Interval { value: 0.5, low: 0.25, high: 0.75, draws }), 100);
        assert_eq!(cell(89), "<td>0.500 <small>0.250–0.750</small>*</td>");
        assert_eq!(cell(90), "<td>0.500 <small>0.250–0.750</small></td>");
        assert_eq!(marked_cell(None, 100), "<td>undefined</td>");
        assert!(with_note(cell(90) + &cell(89)).ends_with("for a reliable interval.</p>\n"));
        let name = format!("<td>{}</td>", escape("a</small>*</td>"));
        assert_eq!(with_note(cell(90) + &name), cell(90) + &name);
    }
}
