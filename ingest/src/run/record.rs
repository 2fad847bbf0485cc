//! One record: image, view, boxes, masks and texts of a planned radiograph.

use std::path::Path;

use dataset::Label;
use dataset::format::pixel_sums::PixelSums;
use dataset::format::record::{BoundingBox, NamedMask, NamedText, Reading, Record};
use dataset::format::record_checks;

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::file_system::{is_absence, is_refusal, retry};
use crate::image::mask;
use crate::image::mask_file;
use crate::image::pipeline::{self, Scratch, Stored};
use crate::image::store16;
use crate::reject::{Reject, Stage};
use crate::report::read::{Report, read_report};
use crate::report::sections::Section;
use crate::report::tokenizer;
use crate::run::guards::{self, Guards};
use crate::run::hashing_reader::{self, Stamps};
use crate::run::job::Job;
use crate::run::options::{Options, PixelBits};
use crate::run::plan::{MaskSource, PlannedRecord, ReportSource};

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
        let of_table = |message: String| (Stage::Table, message);
        let labels = labels_of(&planned.labels).map_err(of_table)?;
        let readings = planned.readings.iter().map(|reading| {
            record_checks::name("readings", &reading.reader)?;
            Ok(Reading { reader: reading.reader.clone(), labels: labels_of(&reading.labels)? })
        });
        let readings = readings.collect::<Result<Vec<_>, String>>().map_err(of_table)?;
        self.check(planned).map_err(of_table)?;
        let is_labeled = labels.iter().chain(readings.iter().flat_map(|reading| &reading.labels)).any(Option::is_some);
        let mut record = Record {
            record_id: planned.record_id.clone(),
            patient_id: planned.patient_id.clone(),
            study_id: planned.study_id.clone(),
            image_id: planned.image_id.clone(),
            source_path: self.plan.path_names.stored(&planned.source_path),
            subset: planned.subset.clone(),
            study_datetime: planned.study_datetime.clone(),
            study_order: planned.study_order,
            view: planned.view.clone(),
            sex: planned.sex.clone(),
            age_years: planned.age_years,
            pixel_spacing: planned.pixel_spacing,
            labels,
            label_origin: planned.label_origin.clone().filter(|_| is_labeled),
            grades: planned.grades.clone(),
            readings,
            ..Record::default()
        };
        let mut pixels = PixelSums::default();
        let (mut has_unknown_view, mut guards) = (false, Guards::default());
        if !self.options.no_images {
            let stored = self.image(planned, scratch, seen, &mut record)?;
            has_unknown_view = record.view.is_none() && stored.header.has_unknown_view;
            pixels = PixelSums::of(&stored.image.pixels);
            let Stored { image, deep, source, is_constant, header, .. } = stored;
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
            record.pixel_spacing = record.pixel_spacing.or(header.pixel_spacing);
            record.window = deep.as_ref().map(|deep| deep.window);
            let encoding = self.options.stored_encoding();
            let encoded = deep.map_or_else(|| image.encode(encoding), |deep| deep.pixels.encode(encoding));
            record.image = encoded.map_err(|error| (Stage::Decode, error.to_string()))?;
        }
        let report = read_report(self.raw, self.plan, planned, self.sums, seen).map_err(|error| error.to_string());
        let outcome = report.and_then(|report| report.map_or(Ok(()), |report| self.add_report(report, &mut record)));
        record.language = planned.language.clone().filter(|_| record.report.is_some() || !record.texts.is_empty());
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

    /// Checks the values of a plan that are stored as they are.
    fn check(&self, planned: &PlannedRecord) -> Result<(), String> {
        planned.study_datetime.as_deref().map_or(Ok(()), record_checks::datetime)?;
        planned.pixel_spacing.map_or(Ok(()), record_checks::pixel_spacing)?;
        planned.language.as_deref().map_or(Ok(()), record_checks::language)?;
        planned.label_origin.as_deref().map_or(Ok(()), |origin| record_checks::name("label_origin", origin))?;
        planned.boxes.iter().try_for_each(record_checks::box_details)?;
        record_checks::grades(&planned.grades, &self.plan.grades)
    }

    /// Reads the image of a record; fills in the columns that depend on its size: sides, pixel spacing, boxes, masks.
    fn image(
        &self,
        planned: &PlannedRecord,
        scratch: &mut Scratch,
        seen: &mut Stamps,
        record: &mut Record,
    ) -> Result<Stored, (Stage, String)> {
        let Options { source_digest, intensity, size, resize, bits, .. } = *self.options;
        let path = self.raw.join(&planned.source_path);
        let hashing = self.sums.hashing(source_digest, Path::new(&planned.source_path));
        let read = if let Some(row) = &planned.image_row {
            let store = match bits {
                PixelBits::Eight => pipeline::store,
                PixelBits::Sixteen => store16::store,
            };
            let mut bytes = std::mem::take(&mut scratch.file);
            let stamp = retry(|| hashing_reader::read_row(self.tables, self.raw, row, source_digest, &mut bytes));
            let read = stamp.map(|stamp| (stamp, store(&bytes, intensity, size, resize, scratch)));
            scratch.file = bytes;
            read
        } else {
            let store = match bits {
                PixelBits::Eight => pipeline::store_file,
                PixelBits::Sixteen => store16::store_file,
            };
            retry(|| store(&path, hashing, intensity, size, resize, scratch))
        };
        let (stamp, stored) = read.map_err(|error| {
            let message = match error {
                error if is_absence(&error) => {
                    let file = planned.image_row.as_ref().map_or(planned.source_path.as_str(), |row| &row.file);
                    seen.insert(file.to_owned(), None);
                    "listed, but the file is missing".to_owned()
                }
                error if is_refusal(&error) => Reject::refusal(&error),
                error => error.to_string(),
            };
            (Stage::Read, message)
        })?;
        seen.insert(planned.source_path.clone(), Some(stamp.clone()));
        record.source_digest = stamp.digest;
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
        if let (Some(spacing), Some(size)) = (&mut record.pixel_spacing, planned.spacing_size) {
            for (spacing, (old, new)) in spacing.iter_mut().zip(size.into_iter().zip([source.1, source.0])) {
                *spacing = (f64::from(*spacing) * f64::from(old) / f64::from(new)) as f32;
            }
            record_checks::pixel_spacing(*spacing).map_err(|message| (Stage::Table, message))?;
        }
        let unit = if planned.relative_boxes { (f64::from(source.0), f64::from(source.1)) } else { (1.0, 1.0) };
        record.boxes = planned.boxes.iter().map(|raw| place.boxed(raw, unit)).collect();
        (record.height, record.width) = (image.height as u16, image.width as u16);
        let sides = (record.height, record.width);
        let check =
            |stored: &BoundingBox| record_checks::rectangle([stored.x, stored.y, stored.width, stored.height], sides);
        record.boxes.iter().try_for_each(check).map_err(in_decoding)?;
        for mask in &planned.masks {
            let drawn = match &mask.pixels {
                MaskSource::Runs(runs) => runs.draw(source.0, source.1).map_err(in_decoding)?,
                MaskSource::File(path) => self.mask_file(path, *source, seen)?,
            };
            let png = mask::stored(&drawn, *source, (image.width, image.height), *place).map_err(in_decoding)?;
            record.masks.push(NamedMask { name: mask.name.clone(), png });
        }
        Ok(stored)
    }

    /// Reads a mask of an image of this width and height from a file.
    fn mask_file(&self, path: &Path, size: (u32, u32), seen: &mut Stamps) -> Result<Vec<u8>, (Stage, String)> {
        let name = path.to_string_lossy().into_owned();
        let shown = self.plan.path_names.stored(&name);
        let hashing = self.sums.hashing(self.options.source_digest, path);
        let read = || hashing_reader::read(&self.raw.join(path), MAX_FILE_BYTES, hashing);
        let (bytes, stamp) = retry(read).map_err(|error| {
            let message = match error {
                error if is_absence(&error) => {
                    seen.insert(name.clone(), None);
                    format!("the file of its mask is missing: {shown}")
                }
                error if is_refusal(&error) => format!("{} (its mask {shown})", Reject::refusal(&error)),
                error => format!("its mask {shown}: {error}"),
            };
            (Stage::Read, message)
        })?;
        seen.insert(name, Some(stamp));
        mask_file::decode(&bytes, size).map_err(|error| (Stage::Decode, format!("its mask {shown}: {error}")))
    }

    /// Adds the text of a report to its record; the record stays without any text where the tokenizer fails.
    fn add_report(&self, report: Report, record: &mut Record) -> Result<(), String> {
        let token_ids = |text: &str| match self.tokenizer {
            None => Ok(Vec::new()),
            Some(tokenizer) => {
                tokenizer::token_ids(tokenizer, text, self.options.max_tokens).map_err(|error| error.to_string())
            }
        };
        let chosen = report.tokenized(self.options.report_text);
        let texts = report.texts.into_iter().map(|Section { name, text }| {
            record_checks::name("texts", &name)?;
            Ok(NamedText { token_ids: token_ids(&text)?, name, text })
        });
        let texts = texts.collect::<Result<_, String>>()?;
        if !chosen.is_empty() {
            record.token_ids = token_ids(&chosen)?;
            record.report = Some(chosen);
        }
        record.texts = texts;
        (record.findings, record.impression) = (report.sections.findings, report.sections.impression);
        Ok(())
    }
}

/// The labels of these codes.
fn labels_of(codes: &[Option<i8>]) -> Result<Vec<Option<Label>>, String> {
    codes.iter().copied().map(record_checks::label).collect()
}
