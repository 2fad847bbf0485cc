//! Reports that a source states as sections.

use std::sync::Arc;

use crate::run::plan::ReportSource;

/// A report of sections, name and text each: its text has a line `NAME: …` for each section that is not empty.
pub fn report(sections: impl IntoIterator<Item = (String, String)>) -> ReportSource {
    let sections: Vec<(String, Arc<str>)> = sections
        .into_iter()
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(name, text)| (name, Arc::from(text.trim())))
        .collect();
    if sections.is_empty() {
        return ReportSource::None;
    }
    let lines: Vec<String> = sections.iter().map(|(name, text)| format!("{}: {text}", name.to_uppercase())).collect();
    ReportSource::Sections { text: lines.join("\n").into(), sections }
}
