//! One record: image, view, boxes, mask and text of a planned radiograph.

use std::path::Path;

use dataset::format::record::{BoundingBox, Record};
use dataset::format::record_checks;

use crate::file_system::{is_absence, is_refusal, retry};
use crate::image::mask;
use crate::image::pipeline::{self, Scratch, Stored};
use crate::reject::{Reject, Stage};
use crate::report::read::{Report, read_report};
use crate::report::tokenizer;
use crate::run::guards::{self, Guards};
use crate::run::hashing_reader::Stamps;
use crate::run::job::Job;
use crate::run::notes::PixelSums;
use crate::run::options::Options;
use crate::run::plan::{PlannedRecord, ReportSource};

/// A record that is ready to be written, with what the totals need of it.
pub struct FinishedRecord {
    pub record: Record,
    pub pixels: PixelSums,
    /// Why the record has no text, where its report cannot be used.
    pub reject: Option<Reject>,
    pub has_unknown_view: bool,
    pub guards: Guards,
}

impl Job<'_> {
    /// Reads and decodes the inputs of a record. `seen` gets the stamps of its files.
    ///
    /// # Errors
    /// The stage and a sentence on the cause, for the reject.
    pub fn record(
        &self,
        planned: &PlannedRecord,
        scratch: &mut Scratch,
        seen: &mut Stamps,
    ) -> Result<FinishedRecord, (Stage, String)> {
        let labels = planned.labels.iter().copied().map(record_checks::label).collect::<Result<_, _>>();
        let labels = labels.map_err(|message| (Stage::Table, message))?;
        let mut record = Record {
            record_id: planned.record_id.clone(),
            patient_id: planned.patient_id.clone(),
            study_id: planned.study_id.clone(),
            image_id: planned.image_id.clone(),
            source_path: self.plan.path_names.stored(&planned.source_path),
            subset: planned.subset.clone(),
            view: planned.view.clone(),
            sex: planned.sex.clone(),
            age_years: planned.age_years,
            labels,
            ..Record::default()
        };
        let mut pixels = PixelSums::default();
        let (mut has_unknown_view, mut guards) = (false, Guards::default());
        if !self.options.no_images {
            let stored = self.image(planned, scratch, seen, &mut record)?;
            has_unknown_view = record.view.is_none() && stored.header.has_unknown_view;
            pixels = PixelSums::of(&stored.image.pixels);
            let Stored { image, source, is_constant, header, .. } = stored;
            record.view = record.view.or_else(|| header.view.clone());
            guards = Guards::of(&guards::Image {
                record_id: &planned.record_id,
                stated_view: planned.view.as_deref(),
                view: record.view.as_deref(),
                header: &header,
                size: source,
                is_constant,
            });
            record.sex = record.sex.or(header.sex);
            record.age_years = record.age_years.or(header.age_years);
            record.image = image.encode(self.options.encoding).map_err(|error| (Stage::Decode, error.to_string()))?;
        }
        let report = read_report(self.raw, self.plan, planned, self.sums, seen).map_err(|error| error.to_string());
        let outcome = report.and_then(|report| report.map_or(Ok(()), |report| self.add_report(report, &mut record)));
        let reject = outcome.err().map(|error| Reject {
            source_path: match &planned.report {
                ReportSource::File(path) => path.to_string_lossy().into_owned(),
                _ => planned.source_path.clone(),
            },
            record_id: Some(planned.record_id.clone()),
            stage: Stage::Report,
            error: format!("{error}; its image is kept without text"),
        });
        Ok(FinishedRecord { record, pixels, reject, has_unknown_view, guards })
    }

    /// Reads the image of a record; fills in the columns that depend on its size: sides, boxes, mask.
    fn image(
        &self,
        planned: &PlannedRecord,
        scratch: &mut Scratch,
        seen: &mut Stamps,
        record: &mut Record,
    ) -> Result<Stored, (Stage, String)> {
        let Options { source_digest, intensity, size, resize, .. } = *self.options;
        let path = self.raw.join(&planned.source_path);
        let hashing = self.sums.hashing(source_digest, Path::new(&planned.source_path));
        let read = retry(|| pipeline::store_file(&path, hashing, intensity, size, resize, scratch));
        let (stamp, stored) = read.map_err(|error| {
            let message = match error {
                error if is_absence(&error) => {
                    seen.insert(planned.source_path.clone(), None);
                    "listed, but the file is missing".to_owned()
                }
                error if is_refusal(&error) => Reject::refusal(&error),
                error => error.to_string(),
            };
            (Stage::Read, message)
        })?;
        seen.insert(planned.source_path.clone(), Some(stamp.clone()));
        record.source_sha256 = stamp.digest;
        let in_decoding = |error: String| (Stage::Decode, error);
        let stored = stored.map_err(in_decoding)?;
        if self.options.reject_constant && stored.is_constant {
            return Err(in_decoding("all pixels have one value".to_owned()));
        }
        if self.options.reject_burned_in && stored.header.has_burned_in_text {
            return Err(in_decoding(
                "the pixels have text by BurnedInAnnotation, which may name the patient".to_owned(),
            ));
        }
        let Stored { image, source, place, .. } = &stored;
        (record.source_width, record.source_height) = *source;
        record.boxes = planned
            .boxes
            .iter()
            .map(|raw| BoundingBox {
                label: raw.label.clone(),
                x: (f64::from(raw.x) * place.scale.0 + place.offset.0) as f32,
                y: (f64::from(raw.y) * place.scale.1 + place.offset.1) as f32,
                width: (f64::from(raw.width) * place.scale.0) as f32,
                height: (f64::from(raw.height) * place.scale.1) as f32,
            })
            .collect();
        (record.height, record.width) = (image.height as u16, image.width as u16);
        let sides = (record.height, record.width);
        let check =
            |stored: &BoundingBox| record_checks::rectangle([stored.x, stored.y, stored.width, stored.height], sides);
        record.boxes.iter().try_for_each(check).map_err(in_decoding)?;
        let runs = planned.mask.as_ref();
        record.mask = runs
            .map(|runs| mask::stored(runs, *source, (image.width, image.height), *place))
            .transpose()
            .map_err(in_decoding)?;
        Ok(stored)
    }

    /// Adds the text of a report to its record; the record stays without any text where the tokenizer fails.
    fn add_report(&self, report: Report, record: &mut Record) -> Result<(), String> {
        let chosen = report.tokenized(self.options.report_text);
        if !chosen.is_empty() {
            if let Some(tokenizer) = self.tokenizer {
                record.token_ids = tokenizer::token_ids(tokenizer, &chosen, self.options.max_tokens)
                    .map_err(|error| error.to_string())?;
            }
            record.report = Some(chosen);
        }
        (record.findings, record.impression) = (report.sections.findings, report.sections.impression);
        Ok(())
    }
}
