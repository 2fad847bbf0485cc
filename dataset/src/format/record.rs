//! One row of a dataset: a radiograph with its report and labels, and the Arrow schema it has in a shard.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};
use serde::{Deserialize, Serialize};

/// Version of the shard format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Key of the schema metadata that says how the `image` column is encoded.
pub(crate) const IMAGE_ENCODING_KEY: &str = "image_encoding";

/// Columns of bytes that pictures lie in.
pub(crate) const IMAGE: &str = "image";
pub(crate) const MASK: &str = "mask";

/// Label code of a finding that the source leaves open.
pub const UNCERTAIN: i8 = -1;

/// How the bytes of the `image` column are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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
    /// Name as it stands in the schema metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Png => "png",
            Self::Jpeg => "jpeg",
        }
    }
}

/// A finding's rectangle in stored-image pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundingBox {
    pub label: String,
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// One radiograph with its report. See the crate's front page for the meaning of each column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub record_id: String,
    pub patient_id: String,
    pub study_id: String,
    pub image_id: String,
    pub source_path: String,
    pub source_sha256: [u8; 32],
    pub subset: Option<String>,
    pub view: Option<String>,
    pub sex: Option<String>,
    pub age_years: Option<f32>,
    pub height: u16,
    pub width: u16,
    pub source_height: u32,
    pub source_width: u32,
    /// Encoded as the dataset's [`ImageEncoding`] says; empty where images were left out.
    pub image: Vec<u8>,
    pub report: Option<String>,
    pub findings: Option<String>,
    pub impression: Option<String>,
    pub token_ids: Vec<i32>,
    /// One code a finding, in the order of the label vocabulary.
    pub labels: Vec<Option<i8>>,
    pub boxes: Vec<BoundingBox>,
    /// 1-bit PNG of the stored size.
    pub mask: Option<Vec<u8>>,
}

impl Record {
    /// Its identifiers and its path, with the names of their columns.
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

/// Field name of list items; `element` is what the Parquet specification asks for.
const ELEMENT: &str = "element";

pub(crate) fn token_item() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Int32, false))
}

pub(crate) fn box_item() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Struct(box_fields()), false))
}

/// Arrow schema of a shard with these findings as labels.
///
/// A dataset without any label keeps the `labels` column, with one null field `none`, since Parquet knows no empty
/// struct.
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
            ("mrm_format_version".to_owned(), FORMAT_VERSION.to_string()),
        ]),
    )
}
