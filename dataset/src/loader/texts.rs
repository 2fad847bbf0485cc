//! The texts of records besides the token ids of their reports: named sections, and the sentences of reports.

use std::sync::Arc;

use arrow_array::{Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray};

use crate::error::Result;
use crate::format::record_rows::field;
use crate::format::table::column;
use crate::loader::lists::Lists;
use crate::loader::sentences::sentences;
use crate::loader::settings::TextSource;
use crate::tokenizer::ReportTokenizer;

/// Sections that have a column of their own in datasets of any version.
const COLUMNS: [&str; 2] = ["findings", "impression"];

/// The column of sections.
const TEXTS: &str = "texts";

/// Makes the token ids of stored reports.
#[derive(Clone)]
pub(crate) struct ReportReader {
    pub tokenizer: Arc<ReportTokenizer>,
    /// Longest list of token ids.
    pub max_tokens: usize,
}

impl ReportReader {
    /// The token ids of a row group's reports; none for a record without a report.
    pub fn token_ids(&self, reports: &StringArray) -> Result<Lists<i32>> {
        let mut lists = Lists::default();
        for report in reports {
            lists.push(|ids| self.add_ids(report, ids))?;
        }
        Ok(lists)
    }

    fn add_ids(&self, text: Option<&str>, ids: &mut Vec<i32>) -> Result<()> {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            ids.extend(self.tokenizer.token_ids(text, self.max_tokens)?);
        }
        Ok(())
    }
}

/// Reads the texts of a sample that are no whole reports.
pub(crate) struct TextReader {
    /// Where each text is from.
    pub sources: Vec<TextSource>,
    /// None where no texts are loaded.
    pub reader: Option<ReportReader>,
    /// Whether stored token ids are of another tokenizer.
    pub is_other: bool,
}

impl TextReader {
    /// The columns that are needed.
    pub fn columns(&self) -> Vec<&'static str> {
        let mut columns = Vec::new();
        for source in &self.sources {
            match source {
                TextSource::Report => {}
                TextSource::Section(name) => {
                    columns.push(TEXTS);
                    columns.extend(COLUMNS.into_iter().filter(|column| *column == name.as_str()));
                }
                TextSource::Sentences(_) => columns.push("report"),
            }
        }
        columns
    }

    /// The texts of the records of a row group; `None` where a column has another type than the format's.
    pub fn read(&self, batch: &RecordBatch) -> Result<Option<Texts>> {
        let mut texts = Texts::default();
        let Some(reader) = &self.reader else { return Ok(Some(texts)) };
        for source in &self.sources {
            let section = match source {
                TextSource::Section(name) => self.section(reader, batch, name)?,
                _ => Some(Lists::default()),
            };
            let Some(section) = section else { return Ok(None) };
            texts.sections.push(section);
        }
        if self.sources.iter().any(|source| matches!(source, TextSource::Sentences(_))) {
            let Some(reports) = column::<StringArray>(batch, "report") else { return Ok(None) };
            for report in reports {
                for sentence in sentences(report.unwrap_or_default()) {
                    let ids = reader.tokenizer.token_ids(sentence, usize::MAX)?;
                    // Without [CLS].
                    texts.sentences.push(|all| -> Result<()> {
                        all.extend_from_slice(ids.get(1..).unwrap_or_default());
                        Ok(())
                    })?;
                }
                texts.ends.push(texts.sentences.len());
            }
        }
        Ok(Some(texts))
    }

    /// The token ids of a section.
    fn section(&self, reader: &ReportReader, batch: &RecordBatch, name: &str) -> Result<Option<Lists<i32>>> {
        let parts = || {
            let lists = column::<ListArray>(batch, TEXTS)?;
            let parts = lists.values().as_any().downcast_ref::<StructArray>()?;
            let texts = |name| field::<StringArray>(parts, name);
            let ids = field::<ListArray>(parts, "token_ids")?;
            let all_ids = ids.values().as_any().downcast_ref::<Int32Array>()?.values();
            Some((lists.value_offsets(), texts("name")?, texts("text")?, ids.value_offsets(), all_ids))
        };
        let Some((places, names, contents, ids, all_ids)) = parts() else { return Ok(None) };
        let whole = column::<StringArray>(batch, name);
        let mut sections = Lists::default();
        for record in 0..batch.num_rows() {
            let mut of_record = places[record] as usize..places[record + 1] as usize;
            // Of several of a name the last one, as in the columns of `ingest`.
            let stored = of_record.rfind(|&at| names.value(at) == name);
            sections.push(|out| match stored {
                Some(at) if !self.is_other => {
                    out.extend_from_slice(&all_ids[ids[at] as usize..ids[at + 1] as usize]);
                    Ok(())
                }
                Some(at) => reader.add_ids(Some(contents.value(at)), out),
                // Older datasets have these sections without token ids.
                None => {
                    reader.add_ids(whole.filter(|texts| texts.is_valid(record)).map(|texts| texts.value(record)), out)
                }
            })?;
        }
        Ok(Some(sections))
    }
}

/// The texts of the records of a row group.
#[derive(Default)]
pub(crate) struct Texts {
    /// Token ids of the section, by text; empty for texts of another kind.
    sections: Vec<Lists<i32>>,
    /// Token ids of each sentence of all records, without `[CLS]`.
    sentences: Lists<i32>,
    /// The end of each record's sentences.
    ends: Vec<usize>,
}

impl Texts {
    /// The texts of a record.
    pub fn of(&self, record: usize) -> RecordTexts<'_> {
        RecordTexts { texts: self, record }
    }
}

/// The texts of one record.
#[derive(Clone, Copy)]
pub(crate) struct RecordTexts<'a> {
    texts: &'a Texts,
    record: usize,
}

impl<'a> RecordTexts<'a> {
    /// Token ids of the section that is text `number` of a sample, `[CLS]` first; empty where the record has none.
    pub fn section(&self, number: usize) -> &'a [i32] {
        let ids = self.texts.sections.get(number).map_or(&[][..], |lists| lists.of(self.record));
        if ids.len() > 1 { ids } else { &[] }
    }

    /// Token ids of the sentences of the report, each without `[CLS]`.
    pub fn sentences(&self) -> impl ExactSizeIterator<Item = &'a [i32]> {
        let texts = self.texts;
        let start = self.record.checked_sub(1).and_then(|before| texts.ends.get(before).copied()).unwrap_or(0);
        let end = texts.ends.get(self.record).copied().unwrap_or(start);
        (start..end).map(|sentence| texts.sentences.of(sentence))
    }

    /// The token ids of all sections.
    pub fn sections(&self) -> impl Iterator<Item = &'a [i32]> {
        (0..self.texts.sections.len()).map(|number| self.section(number))
    }
}
