//! Reads the report of a record, and makes the tokenizer of a run.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::format::manifest::TOKENIZER;
use dataset::progress::{OnProgress, Progress};
use dataset::store::files;
use rayon::prelude::*;
use tokenizers::Tokenizer;

use crate::dicom::limits::MAX_REPORT_BYTES;
use crate::error::{Error, Result};
use crate::file_system::{is_absence, is_refusal, retry};
use crate::reject::Reject;
use crate::report::sections::{self, Section, Sections};
use crate::report::tokenizer;
use crate::run::check_sums::CheckSums;
use crate::run::hashing_reader::{self, Damaged, Stamps};
use crate::run::keys::{NOTES, STAMPS};
use crate::run::left_alone::left_alone_when_canceled;
use crate::run::options::{Options, ReportText, TokenizerChoice};
use crate::run::plan::{Plan, PlannedRecord, ReportSource};
use crate::run::source_digest::SourceDigest;
use crate::sources::shared::table::decode_text;

/// Loads or trains the tokenizer of a run and writes it to the dataset. `None` without `--tokenizer`, and where a tokenizer
/// would be trained but there is no report.
pub fn tokenizer_of(
    raw: &Path,
    out: &Path,
    plan: &Plan,
    options: &Options,
    sums: &CheckSums,
    progress: &OnProgress,
) -> Result<Option<Tokenizer>> {
    let path = out.join(TOKENIZER);
    let mut seen = Stamps::new();
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::None => return Ok(None),
        // An interrupted run wrote it already; training again would give the same tokenizer.
        _ if path.try_exists().map_err(Error::io(&path))? => return Ok(Some(tokenizer::load(&path)?)),
        TokenizerChoice::File(given) => tokenizer::load(given)?,
        TokenizerChoice::Train(vocabulary) => {
            // Several images of a study have the same report. It is read once.
            let mut distinct = HashSet::new();
            let records: Vec<&PlannedRecord> =
                plan.records.iter().filter(|record| distinct.insert(&record.report)).collect();
            let read = |record: &PlannedRecord| {
                progress(Progress::Working)?;
                let mut seen = Stamps::new();
                let report = match read_report(raw, plan, record, sums, &mut seen) {
                    Ok(report) => report,
                    Err(NoReport::Unusable(_)) => None,
                    Err(NoReport::Refused { path, cause }) => return Err(Error::UnreadableReport { path, cause }),
                };
                Ok((seen, report.map(|report| report.corpus(options.report_text)).unwrap_or_default()))
            };
            let read: Vec<(Stamps, Vec<String>)> = records.into_par_iter().map(read).collect::<Result<_>>()?;
            let mut texts = Vec::new();
            for (stamp, corpus) in read {
                seen.extend(stamp);
                texts.extend(corpus);
            }
            if texts.is_empty() {
                // Without reports there is nothing to tokenize.
                return Ok(None);
            }
            let vocabulary = *vocabulary;
            left_alone_when_canceled(progress, move || tokenizer::train(&texts, vocabulary))?
        }
    };
    let text = tokenizer.to_string(true).map_err(|e| Error::Tokenizer(e.to_string()))?;
    hashing_reader::save(&out.join(NOTES).join(TOKENIZER).with_extension(STAMPS), &seen)?;
    files::write_atomic(&path, text.as_bytes())?;
    Ok(Some(tokenizer))
}

/// The text of a report and its sections.
pub struct Report {
    /// The whole text, line ends `\n`.
    pub text: String,
    /// The sections that records store.
    pub sections: Sections,
    /// All named sections, in the order of the report.
    pub texts: Vec<Section>,
}

impl Report {
    /// The part that is tokenized.
    pub fn tokenized(&self, part: ReportText) -> String {
        let Sections { findings, impression, .. } = &self.sections;
        match part {
            ReportText::All => self.text.trim().to_owned(),
            ReportText::Impression => impression.clone().unwrap_or_default(),
            ReportText::FindingsImpression => {
                [findings, impression].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

impl Report {
    /// What a tokenizer is trained on: the part that is tokenized, then the named sections that are not in it.
    fn corpus(self, part: ReportText) -> Vec<String> {
        let tokenized = self.tokenized(part);
        let is_new = |section: &Section| !tokenized.contains(&section.text);
        let others: Vec<String> = self.texts.into_iter().filter(is_new).map(|section| section.text).collect();
        [tokenized].into_iter().chain(others).filter(|text| !text.is_empty()).collect()
    }
}

/// Why a record has no text.
#[derive(Debug, thiserror::Error)]
pub enum NoReport {
    /// The file is missing or cannot be used; a later run has the same result.
    #[error("{0}")]
    Unusable(String),
    /// The system refused to read the file; a later run may be able to read it.
    #[error("{}", Reject::refusal(cause))]
    Refused { path: PathBuf, cause: io::Error },
}

/// Reads the report of a record and compares its file with `sums`; `Ok(None)` where the source has none. `seen` gets the
/// stamp of its file.
pub fn read_report(
    raw: &Path,
    plan: &Plan,
    record: &PlannedRecord,
    sums: &CheckSums,
    seen: &mut Stamps,
) -> Result<Option<Report>, NoReport> {
    let text = match &record.report {
        ReportSource::None => return Ok(None),
        ReportSource::Text(text) => text.to_string(),
        ReportSource::Sections { text, sections } => {
            let named =
                |(name, text): &(String, Arc<str>)| Section { name: name.clone(), text: text.trim().to_owned() };
            let texts: Vec<Section> = sections.iter().map(named).filter(|section| !section.text.is_empty()).collect();
            let last =
                |name: &str| texts.iter().rfind(|section| section.name == name).map(|section| section.text.clone());
            let sections =
                Sections { findings: last("findings"), impression: last("impression"), ..Sections::default() };
            return Ok(Some(Report { text: text.to_string(), sections, texts }));
        }
        ReportSource::File(path) => {
            let path = plan.report_path(&record.report).unwrap_or_else(|| path.clone());
            let name = path.to_string_lossy().into_owned();
            let hashing = sums.hashing(SourceDigest::default(), &path);
            let path = raw.join(path);
            match retry(|| hashing_reader::read(&path, MAX_REPORT_BYTES, hashing)) {
                Ok((bytes, stamp)) => {
                    seen.insert(name, Some(stamp));
                    decode_text(bytes)
                }
                Err(error) if is_absence(&error) => {
                    seen.insert(name, None);
                    return Err(NoReport::Unusable("the study has no report file".to_owned()));
                }
                Err(cause) if is_refusal(&cause) => return Err(NoReport::Refused { path, cause }),
                Err(error) => {
                    seen.extend(Damaged::of(&error).map(|damaged| (name, Some(damaged.stamp.clone()))));
                    return Err(NoReport::Unusable(format!("the report cannot be read: {error}")));
                }
            }
        }
    };
    let texts = sections::named_sections(&text, record.conclusion);
    let sections = sections::sections_with(&text, record.conclusion);
    Ok(Some(Report { text, sections, texts }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_is_trained_on_every_text_once() {
        let report = || {
            let section = |name: &str, text: &str| Section { name: name.to_owned(), text: text.to_owned() };
            Report {
                text: "\nClear lungs.\nNormal.".to_owned(),
                sections: Sections { impression: Some("Normal.".to_owned()), ..Sections::default() },
                texts: vec![
                    section("findings", "Clear lungs."),
                    section("impression", "Normal."),
                    section("translation", "Pulmones claros."),
                ],
            }
        };
        assert_eq!(report().corpus(ReportText::All), ["Clear lungs.\nNormal.", "Pulmones claros."]);
        let [chosen, others @ ..] = &report().corpus(ReportText::Impression)[..] else { panic!("no text") };
        assert_eq!((chosen.as_str(), others.len()), ("Normal.", 2));
        // Without the chosen section, the others are left.
        let none = Report { sections: Sections::default(), ..report() };
        assert_eq!(none.corpus(ReportText::Impression).len(), 3);
    }
}
