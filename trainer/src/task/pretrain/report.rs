//! The report's section on reconstructions: images side by side, and reports with their masked tokens.

use std::fmt::Write as _;

use anyhow::Result;
use dataset::store::files;

use super::{ReconstructedRecord, Token};
use crate::config::PretrainConfig;
use crate::report::{Run, Section, escape, image_figure};

/// One section for each run with a `reconstruction.png`.
pub(in crate::task) fn sections(runs: &[&Run]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for run in runs {
        let image = run.path.join("reconstruction.png");
        if !image.exists() {
            continue;
        }
        let records: Vec<ReconstructedRecord> = files::read_json(&image.with_extension("json"))?;
        let config = run.config.as_ref().and_then(|file| file.read::<PretrainConfig>().ok());
        let columns = match config {
            Some(config) if !config.model.reconstructs_image() => "masked, original",
            _ => "masked, reconstructed, original",
        };
        let caption = format!(
            "One record a line: {columns}. Each reconstructed patch takes mean and standard deviation from the original, as the loss \
             does."
        );
        let mut html = image_figure(&std::fs::read(&image)?, columns, &caption);
        let with_report = || records.iter().filter(|record| !record.tokens.is_empty());
        if with_report().next().is_some() {
            html += "<p>Reports of the same records. <span class=\"right\">masked, reconstructed correctly</span>, \
                     <span class=\"wrong\">reconstructed wrongly <s>true token</s></span>; the rest was visible.</p>\n";
        }
        for record in with_report() {
            let text: String = record.tokens.iter().skip(1).map(token).collect();
            writeln!(html, "<p class=\"words\"><b>{}</b> {text}</p>", escape(&record.record_id))?;
        }
        sections.push(Section { title: format!("Reconstructions of {}", run.name), html });
    }
    Ok(sections)
}

/// A token as text; a piece that continues a word joins it.
fn token(token: &Token) -> String {
    let text = |piece: &str| escape(piece.strip_prefix("##").unwrap_or(piece));
    let space = if token.token.starts_with("##") { "" } else { " " };
    match &token.reconstructed {
        None => format!("{space}{}", text(&token.token)),
        Some(piece) if *piece == token.token => format!("{space}<span class=\"right\">{}</span>", text(piece)),
        Some(piece) => format!("{space}<span class=\"wrong\">{} <s>{}</s></span>", text(piece), text(&token.token)),
    }
}
