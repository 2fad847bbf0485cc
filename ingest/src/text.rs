//! The text of a record: where it is read, which part of it counts, and the tokenizer of a run.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use dataset::files;
use dataset::manifest::TOKENIZER;
use rayon::prelude::*;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::plan::{Plan, ReportSource};
use crate::report::{self, Section};
use crate::run::{Options, ReportText, TokenizerChoice};
use crate::table::decode_text;
use crate::tokenizer;

/// The tokenizer, written to OUT in the same form as it is used.
pub fn tokenizer_of(raw: &Path, out: &Path, plan: &Plan, options: &Options) -> Result<Option<Tokenizer>> {
    let path = out.join(TOKENIZER);
    let made = match &options.tokenizer {
        TokenizerChoice::None => return Ok(None),
        // An interrupted run got this far: the same corpus would give the same tokenizer again.
        _ if path.exists() => return tokenizer::load(&path).map(Some),
        TokenizerChoice::File(given) => tokenizer::load(given)?,
        TokenizerChoice::Train(vocabulary) => {
            let sources: Vec<&ReportSource> = {
                let mut seen = HashSet::new();
                // A study's report stands with each of its images, and is one text.
                plan.records
                    .iter()
                    .filter(|record| seen.insert((&record.patient_id, &record.study_id, &record.report)))
                    .map(|r| &r.report)
                    .collect()
            };
            let texts: Vec<String> = sources
                .into_par_iter()
                .filter_map(|report| read_report(raw, report).ok().flatten())
                .map(|report| report.part(options.report_text))
                .filter(|text| !text.is_empty())
                .collect();
            if texts.is_empty() {
                // A source of images alone: there is nothing to tokenise either.
                return Ok(None);
            }
            tokenizer::train(&texts, *vocabulary)?
        }
    };
    let text = made.to_string(true).map_err(|e| Error::Tokenizer(e.to_string()))?;
    files::write_atomic(&path, text.as_bytes())?;
    Ok(Some(made))
}

/// A report as it was found.
pub struct Report {
    /// The whole text.
    pub text: String,
    pub findings: Option<String>,
    pub impression: Option<String>,
}

impl Report {
    /// Cuts a text into sections by the field's rules.
    fn of_text(text: String) -> Self {
        let found = report::main_sections(&text);
        Self { text, findings: found.findings, impression: found.impression }
    }

    /// Takes sections as the source gives them; the text has a line `NAME: …` for each that is not empty.
    fn of_sections(sections: &[Section]) -> Self {
        let stated = || sections.iter().filter(|section| !section.text.is_empty());
        let text = |name: &str| stated().find(|section| section.name == name).map(|section| section.text.clone());
        let line = |section: &Section| format!("{}: {}", section.name.to_uppercase(), section.text);
        Self {
            text: stated().map(line).collect::<Vec<_>>().join("\n"),
            findings: text("findings"),
            impression: text("impression"),
        }
    }

    /// The part that is tokenised.
    pub fn part(&self, part: ReportText) -> String {
        match part {
            ReportText::All => self.text.trim().to_owned(),
            ReportText::Impression => self.impression.clone().unwrap_or_default(),
            ReportText::FindingsImpression => {
                [&self.findings, &self.impression].into_iter().flatten().cloned().collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Reads a report; `Ok(None)` where the source has none.
pub fn read_report(raw: &Path, report: &ReportSource) -> Result<Option<Report>, String> {
    match report {
        ReportSource::None => Ok(None),
        ReportSource::Text(text) => Ok(Some(Report::of_text(text.to_string()))),
        ReportSource::Sections(sections) => Ok(Some(Report::of_sections(sections))),
        ReportSource::File(path) => match fs::read(raw.join(path)) {
            Ok(bytes) => Ok(Some(Report::of_text(decode_text(bytes)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err("the study has no report file".to_owned())
            }
            Err(error) => Err(format!("the report cannot be read: {error}")),
        },
    }
}
