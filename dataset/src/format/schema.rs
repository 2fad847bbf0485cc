//! The columns of a shard as an Arrow schema. `docs/format.md` specifies them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};

use crate::format::grade::GradeScale;
use crate::format::record::ImageEncoding;

/// Version of the columns, in the schema metadata of shards.
const SHARD_VERSION: u32 = 2;

/// Key of the schema metadata that says how the `image` column is encoded.
pub(crate) const IMAGE_ENCODING_KEY: &str = "image_encoding";

/// Columns that code handles by name.
pub(crate) const SOURCE_DIGEST: &str = "source_digest";
pub(crate) const IMAGE: &str = "image";
pub(crate) const LABELS: &str = "labels";
pub(crate) const GRADES: &str = "grades";
pub(crate) const BOXES: &str = "boxes";
pub(crate) const WINDOW: &str = "window";
/// The column of masks.
pub const MASKS: &str = "masks";

/// Columns of bytes, which tables of metadata leave out.
pub const BINARY: [&str; 3] = [IMAGE, MASKS, SOURCE_DIGEST];

/// Field name of list items, as the Parquet specification requires.
const ELEMENT: &str = "element";

/// A field without nulls.
fn required(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

/// A field that may be null.
fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(required(ELEMENT, item)))
}

fn structure(fields: Vec<Field>) -> DataType {
    DataType::Struct(fields.into())
}

/// Struct of small numbers, one field for each name.
fn codes<'a>(names: impl Iterator<Item = &'a str>) -> DataType {
    DataType::Struct(names.map(|name| optional(name, DataType::Int8)).collect::<Fields>())
}

/// The type of `boxes`.
fn boxes() -> DataType {
    let edges = ["x", "y", "width", "height"].map(|edge| required(edge, DataType::Float32));
    let mut fields = vec![required("label", DataType::Utf8)];
    fields.extend(edges);
    fields.push(optional("score", DataType::Float32));
    fields.extend(["sentence", "reader"].map(|name| optional(name, DataType::Utf8)));
    list(structure(fields))
}

/// The Arrow schema of a shard with these findings and grades.
///
/// A dataset without findings has a column `labels` with one field, `none`, of nulls, since Parquet has no empty struct. A
/// dataset without grades has no column `grades`.
pub fn schema(findings: &[String], grades: &[GradeScale], encoding: ImageEncoding) -> Schema {
    use DataType::{Binary, FixedSizeBinary, Float32, Int32, UInt16, UInt32, Utf8};
    let labels =
        || if findings.is_empty() { codes(["none"].into_iter()) } else { codes(findings.iter().map(String::as_str)) };
    let text = vec![required("name", Utf8), required("text", Utf8), required("token_ids", list(Int32))];
    let reading = vec![required("reader", Utf8), required(LABELS, labels())];
    let mut fields = vec![
        required("record_id", Utf8),
        required("patient_id", Utf8),
        required("study_id", Utf8),
        required("image_id", Utf8),
        required("source_path", Utf8),
        required(SOURCE_DIGEST, FixedSizeBinary(32)),
        optional("subset", Utf8),
        optional("study_datetime", Utf8),
        optional("study_order", UInt32),
        optional("view", Utf8),
        optional("sex", Utf8),
        optional("age_years", Float32),
        required("height", UInt16),
        required("width", UInt16),
        required("source_height", UInt32),
        required("source_width", UInt32),
        optional("pixel_spacing", structure(vec![required("row", Float32), required("column", Float32)])),
        optional(WINDOW, structure(vec![required("center", Float32), required("width", Float32)])),
        required(IMAGE, Binary),
        optional("language", Utf8),
        optional("report", Utf8),
        optional("findings", Utf8),
        optional("impression", Utf8),
        required("token_ids", list(Int32)),
        required("texts", list(structure(text))),
        required(LABELS, labels()),
        optional("label_origin", Utf8),
    ];
    if !grades.is_empty() {
        fields.push(required(GRADES, codes(grades.iter().map(|scale| scale.name.as_str()))));
    }
    fields.extend([
        required("readings", list(structure(reading))),
        required(BOXES, boxes()),
        required(MASKS, list(structure(vec![required("name", Utf8), required("png", Binary)]))),
    ]);
    let metadata = HashMap::from([
        (IMAGE_ENCODING_KEY.to_owned(), encoding.name().to_owned()),
        ("mrm_format_version".to_owned(), SHARD_VERSION.to_string()),
    ]);
    Schema::new_with_metadata(fields, metadata)
}
