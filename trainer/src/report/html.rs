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

/// A value with its interval as a cell of a table.
pub fn interval_cell(interval: Option<Interval>) -> String {
    match interval {
        Some(i) => format!("<td>{:.3} <small>{:.3}–{:.3}</small></td>", i.value, i.low, i.high),
        None => "<td>undefined</td>".to_owned(),
    }
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
