//! The columns of a record as JSON.

use serde::{Serialize, Serializer};

use super::Sample;
use crate::format::label::Label;
use crate::format::record::{BoundingBox, Record};
use crate::split::ratio::Ratio;
use crate::split::types::Subset;
use crate::store::files;

/// All columns of a record but the images.
#[derive(Serialize)]
pub(super) struct Columns<'a> {
    record_id: &'a str,
    patient_id: &'a str,
    study_id: &'a str,
    image_id: &'a str,
    source_path: &'a str,
    source_digest: String,
    subset: Option<&'a str>,
    study_datetime: Option<&'a str>,
    study_order: Option<u32>,
    view: Option<&'a str>,
    sex: Option<&'a str>,
    age_years: Option<f32>,
    height: u16,
    width: u16,
    source_height: u32,
    source_width: u32,
    pixel_spacing: Option<[f32; 2]>,
    window: Option<[f32; 2]>,
    language: Option<&'a str>,
    report: Option<&'a str>,
    findings: Option<&'a str>,
    impression: Option<&'a str>,
    token_ids: &'a [i32],
    texts: Vec<JsonText<'a>>,
    labels: Named<'a, Label>,
    label_origin: Option<&'a str>,
    grades: Named<'a, i8>,
    readings: Vec<JsonReading<'a>>,
    boxes: &'a [BoundingBox],
    #[serde(flatten)]
    membership: Option<Membership>,
}

#[derive(Serialize)]
struct Membership {
    split_subset: Option<Subset>,
    split_ratio: Option<Ratio>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(sample: &'a Sample, findings: &'a [String], grades: &'a [String]) -> Self {
        let record = &sample.record;
        Self {
            record_id: &record.record_id,
            patient_id: &record.patient_id,
            study_id: &record.study_id,
            image_id: &record.image_id,
            source_path: &record.source_path,
            source_digest: files::hex(&record.source_digest),
            subset: record.subset.as_deref(),
            study_datetime: record.study_datetime.as_deref(),
            study_order: record.study_order,
            view: record.view.as_deref(),
            sex: record.sex.as_deref(),
            age_years: record.age_years,
            height: record.height,
            width: record.width,
            source_height: record.source_height,
            source_width: record.source_width,
            pixel_spacing: record.pixel_spacing,
            window: record.window,
            language: record.language.as_deref(),
            report: record.report.as_deref(),
            findings: record.findings.as_deref(),
            impression: record.impression.as_deref(),
            token_ids: &record.token_ids,
            texts: texts(record),
            labels: Named { names: findings, values: &record.labels },
            label_origin: record.label_origin.as_deref(),
            grades: Named { names: grades, values: &record.grades },
            readings: readings(record, findings),
            boxes: &record.boxes,
            membership: sample.membership.map(|(split_subset, split_ratio)| Membership { split_subset, split_ratio }),
        }
    }
}

/// An object of findings or grades with their codes, null where there is none.
pub(super) struct Named<'a, T> {
    names: &'a [String],
    values: &'a [Option<T>],
}

impl<T: Serialize> Serialize for Named<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names.iter().zip(self.values))
    }
}

/// A section in JSON.
#[derive(Serialize)]
pub(super) struct JsonText<'a> {
    name: &'a str,
    text: &'a str,
    token_ids: &'a [i32],
}

/// The sections of a record for JSON.
pub(super) fn texts(record: &Record) -> Vec<JsonText<'_>> {
    let named = record.texts.iter();
    named.map(|text| JsonText { name: &text.name, text: &text.text, token_ids: &text.token_ids }).collect()
}

/// The labels of a reader in JSON.
#[derive(Serialize)]
pub(super) struct JsonReading<'a> {
    reader: &'a str,
    labels: Named<'a, Label>,
}

/// The readings of a record for JSON.
pub(super) fn readings<'a>(record: &'a Record, findings: &'a [String]) -> Vec<JsonReading<'a>> {
    let labels = |labels: &'a [Option<Label>]| Named { names: findings, values: labels };
    let named = record.readings.iter();
    named.map(|reading| JsonReading { reader: &reading.reader, labels: labels(&reading.labels) }).collect()
}
