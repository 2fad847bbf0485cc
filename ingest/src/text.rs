//! The text of a record: where it is read, which part of it counts, and the tokenizer of a run.

use std::collections::HashSet;
use std::path::Path;

use dataset::files;
use dataset::manifest::TOKENIZER;
use rayon::prelude::*;
use tokenizers::Tokenizer;

use crate::bounds::MAX_REPORT_BYTES;
use crate::error::{Error, Result};
use crate::inputs::{self, Stamps};
use crate::output::{NOTES, STAMPS};
use crate::plan::{Plan, ReportSource};
use crate::report;
use crate::run::{Options, ReportText, TokenizerChoice};
use crate::table::decode_text;
use crate::tokenizer;

/// The tokenizer, written to OUT in the same form as it is used.
pub fn tokenizer_of(raw: &Path, out: &Path, plan: &Plan, options: &Options) -> Result<Option<Tokenizer>> {
    let path = out.join(TOKENIZER);
    let mut seen = Stamps::new();
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
                    .filter(|record| seen.insert((&record.patient_id, &record.study_id)))
                    .map(|r| &r.report)
                    .collect()
            };
            let read: Vec<(Stamps, Option<String>)> = sources
                .into_par_iter()
                .map(|report| {
                    let mut seen = Stamps::new();
                    let text = read_report(raw, report, &mut seen).ok().flatten();
                    (seen, text.map(|text| tokenised_text(&text, options.report_text)))
                })
                .collect();
            let mut texts = Vec::new();
            for (stamp, text) in read {
                seen.extend(stamp);
                texts.extend(text.filter(|text| !text.is_empty()));
            }
            if texts.is_empty() {
                // A source of images alone: there is nothing to tokenise either.
                return Ok(None);
            }
            tokenizer::train(&texts, *vocabulary)?
        }
    };
    let text = made.to_string(true).map_err(|e| Error::Tokenizer(e.to_string()))?;
    inputs::save(&out.join(NOTES).join(TOKENIZER).with_extension(STAMPS), &seen)?;
    files::write_atomic(&path, text.as_bytes())?;
    Ok(Some(made))
}

/// The text of a report, and in `seen` what its file looked like; `Ok(None)` where the source has none.
pub fn read_report(raw: &Path, report: &ReportSource, seen: &mut Stamps) -> Result<Option<String>, String> {
    match report {
        ReportSource::None => Ok(None),
        ReportSource::Text(text) => Ok(Some(text.to_string())),
        ReportSource::File(path) => {
            let name = path.to_string_lossy().into_owned();
            match inputs::read(&raw.join(path), MAX_REPORT_BYTES) {
                Ok((bytes, stamp)) => {
                    seen.insert(name, Some(stamp));
                    Ok(Some(decode_text(bytes)))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    seen.insert(name, None);
                    Err("the study has no report file".to_owned())
                }
                Err(error) => Err(format!("the report cannot be read: {error}")),
            }
        }
    }
}

/// The part of a report that is tokenised.
pub fn tokenised_text(text: &str, part: ReportText) -> String {
    let sections = || report::main_sections(text);
    match part {
        ReportText::All => text.trim().to_owned(),
        ReportText::Impression => sections().impression.unwrap_or_default(),
        ReportText::FindingsImpression => {
            let found = sections();
            [found.findings, found.impression].into_iter().flatten().collect::<Vec<_>>().join("\n")
        }
    }
}
