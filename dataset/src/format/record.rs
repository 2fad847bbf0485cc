//! One row of a dataset: a radiograph with its report and labels, and its Arrow schema in a shard.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};
use serde::{Deserialize, Serialize};

use crate::format::label::Label;

/// Version of the format that this build writes, as in the manifest.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest version that this build reads.
pub const OLDEST_VERSION: u32 = 1;

/// Version in the schema metadata of shards. Version 2 of the format changed the manifest only, so that shards kept theirs.
const SHARD_VERSION: u32 = 1;

/// Key of the schema metadata that says how the `image` column is encoded.
pub(crate) const IMAGE_ENCODING_KEY: &str = "image_encoding";

/// The columns that contain images.
pub(crate) const IMAGE: &str = "image";
pub(crate) const MASK: &str = "mask";

/// Encoding of the bytes in the `image` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ImageEncoding {
    /// 8-bit gray, row-major, `height · width` bytes.
    Raw,
    /// PNG, 8-bit gray.
    Png,
    /// JPEG, 8-bit gray, quality 95.
    Jpeg,
}

impl ImageEncoding {
    /// Name in the schema metadata, in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Png => "png",
            Self::Jpeg => "jpeg",
        }
    }
}

/// The rectangle of a finding, in pixels of the stored image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundingBox {
    /// What the source calls it.
    pub label: String,
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width in pixels.
    pub width: f32,
    /// Height in pixels.
    pub height: f32,
}

/// One radiograph with its report. `docs/format.md` specifies each column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Unique in the dataset, and the same when the source is ingested again: `SOURCE/…`.
    pub record_id: String,
    /// Identifier of the patient in the source.
    pub patient_id: String,
    /// Identifier of the study; unique together with the patient.
    pub study_id: String,
    /// Identifier of the image in the source.
    pub image_id: String,
    /// Path of the raw file, relative to the raw directory.
    pub source_path: String,
    /// SHA-256 of the raw file.
    pub source_sha256: [u8; 32],
    /// The source's own subset: `train`, `validate` or `test`.
    pub subset: Option<String>,
    /// View: `PA`, `AP`, `LATERAL`, …
    pub view: Option<String>,
    /// `M`, `F` or `O`.
    pub sex: Option<String>,
    /// Age in years.
    pub age_years: Option<f32>,
    /// Height of the stored image in pixels; 0 where images were left out.
    pub height: u16,
    /// Width of the stored image in pixels.
    pub width: u16,
    /// Height of the raw image in pixels.
    pub source_height: u32,
    /// Width of the raw image in pixels.
    pub source_width: u32,
    /// Encoded as the dataset's [`ImageEncoding`] says; empty where images were left out.
    pub image: Vec<u8>,
    /// The text that was tokenized.
    pub report: Option<String>,
    /// The section "findings" of the report.
    pub findings: Option<String>,
    /// The section "impression" of the report.
    pub impression: Option<String>,
    /// Ids of the tokenizer, `[CLS]` first; neither padded nor masked.
    pub token_ids: Vec<i32>,
    /// One label for each finding of the dataset, in their order; `None` where it is not mentioned.
    pub labels: Vec<Option<Label>>,
    /// Boxes of findings.
    pub boxes: Vec<BoundingBox>,
    /// 1-bit PNG of the stored size.
    pub mask: Option<Vec<u8>>,
}

impl Record {
    /// The identifiers and the path, with the names of their columns.
    pub(crate) fn identifiers(&self) -> [(&str, &str); 5] {
        [
            ("record_id", &self.record_id),
            ("patient_id", &self.patient_id),
            ("study_id", &self.study_id),
            ("image_id", &self.image_id),
            ("source_path", &self.source_path),
        ]
    }
}

pub(crate) fn box_fields() -> Fields {
    Fields::from(vec![
        Field::new("label", DataType::Utf8, false),
        Field::new("x", DataType::Float32, false),
        Field::new("y", DataType::Float32, false),
        Field::new("width", DataType::Float32, false),
        Field::new("height", DataType::Float32, false),
    ])
}

pub(crate) fn label_fields(findings: &[String]) -> Fields {
    findings.iter().map(|finding| Field::new(finding, DataType::Int8, true)).collect()
}

/// Field name of list items, as the Parquet specification requires.
const ELEMENT: &str = "element";

pub(crate) fn token_item() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Int32, false))
}

pub(crate) fn box_item() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Struct(box_fields()), false))
}

/// The Arrow schema of a shard with these findings as labels.
///
/// A dataset without findings has a column `labels` with one field, `none`, of nulls, since Parquet has no empty struct.
pub fn schema(findings: &[String], encoding: ImageEncoding) -> Schema {
    let labels = if findings.is_empty() { label_fields(&["none".to_owned()]) } else { label_fields(findings) };
    Schema::new_with_metadata(
        vec![
            Field::new("record_id", DataType::Utf8, false),
            Field::new("patient_id", DataType::Utf8, false),
            Field::new("study_id", DataType::Utf8, false),
            Field::new("image_id", DataType::Utf8, false),
            Field::new("source_path", DataType::Utf8, false),
            Field::new("source_sha256", DataType::FixedSizeBinary(32), false),
            Field::new("subset", DataType::Utf8, true),
            Field::new("view", DataType::Utf8, true),
            Field::new("sex", DataType::Utf8, true),
            Field::new("age_years", DataType::Float32, true),
            Field::new("height", DataType::UInt16, false),
            Field::new("width", DataType::UInt16, false),
            Field::new("source_height", DataType::UInt32, false),
            Field::new("source_width", DataType::UInt32, false),
            Field::new(IMAGE, DataType::Binary, false),
            Field::new("report", DataType::Utf8, true),
            Field::new("findings", DataType::Utf8, true),
            Field::new("impression", DataType::Utf8, true),
            Field::new("token_ids", DataType::List(token_item()), false),
            Field::new("labels", DataType::Struct(labels), false),
            Field::new("boxes", DataType::List(box_item()), false),
            Field::new(MASK, DataType::Binary, true),
        ],
        HashMap::from([
            (IMAGE_ENCODING_KEY.to_owned(), encoding.name().to_owned()),
            ("mrm_format_version".to_owned(), SHARD_VERSION.to_string()),
        ]),
    )
}
