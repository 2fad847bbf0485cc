//! `croissant.json`: the dataset in the format of MLCommons Croissant 1.0 (JSON-LD), for search engines, catalogs and the
//! package `mlcroissant`, which can read the records.
//!
//! License, citation and address are missing, since the publisher of a dataset has to add them; `mlcroissant` warns about
//! that.

use std::collections::HashSet;

use arrow_schema::{DataType, FieldRef, Fields};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::format::manifest::{CROISSANT, Manifest};
use crate::format::record::ImageEncoding;
use crate::format::schema::{IMAGE, MASKS, SOURCE_DIGEST};
use crate::store::storage::Storage;

/// The context of Croissant 1.0, from its examples.
const CONTEXT: &str = r#"{
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform"
}"#;

const PARQUET: &str = "application/x-parquet";

/// Writes the description of a dataset, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(storage: &Storage, manifest: &Manifest) -> Result<()> {
    let context: Value = serde_json::from_str(CONTEXT).map_err(Error::json(&storage.path(CROISSANT)))?;
    let shards = manifest.shards.iter().map(|shard| {
        json!({
            "@type": "cr:FileObject",
            "@id": shard.path,
            "name": shard.path,
            "contentUrl": shard.path,
            "contentSize": format!("{} B", shard.bytes),
            "encodingFormat": PARQUET,
            "sha256": shard.sha256,
        })
    });
    let all = json!({
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "All shards; one row is one radiograph with its report.",
        "encodingFormat": PARQUET,
        "includes": "shards/*.parquet",
    });
    let totals = &manifest.totals;
    let description = format!(
        "{} radiographs of {} patients, {} with a report; written by {}.",
        totals.records, totals.patients, totals.reports, manifest.tool
    );
    let schema = manifest.schema();
    let fields = schema.fields().iter().map(|column| field(column.name(), column.data_type(), manifest));
    let page = json!({
        "@context": context,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": manifest.source,
        "description": description,
        "distribution": shards.chain([all]).collect::<Vec<_>>(),
        "recordSet": [{
            "@type": "cr:RecordSet",
            "@id": "records",
            "name": "records",
            "description": "One radiograph with its report and labels.",
            "key": {"@id": "records/record_id"},
            "field": fields.collect::<Vec<_>>(),
        }],
    });
    storage.write_json(CROISSANT, &page)
}

/// A column as a field of the records.
fn field(name: &str, kind: &DataType, manifest: &Manifest) -> Value {
    let mut field = json!({"@type": "cr:Field", "@id": format!("records/{name}"), "name": name});
    if let Some(meaning) = meaning(name, manifest.image.encoding) {
        field["description"] = meaning.into();
    }
    let is_image = name == IMAGE && manifest.image.encoding.is_file();
    match kind {
        DataType::Struct(parts) => field["subField"] = sub_fields(name, name, parts, "$"),
        DataType::List(item) => {
            field["repeated"] = true.into();
            match item.data_type() {
                DataType::Struct(parts) => field["subField"] = sub_fields(name, name, parts, "$[*]"),
                item => {
                    field["dataType"] = data_type(item).into();
                    field["source"] = source(name);
                }
            }
        }
        kind => {
            field["dataType"] = if is_image { "sc:ImageObject" } else { data_type(kind) }.into();
            field["source"] = source(name);
        }
    }
    field
}

/// The parts of a struct in a column. `id` is the identifier of the struct, `path` its JSON path.
fn sub_fields(column: &str, id: &str, parts: &Fields, path: &str) -> Value {
    let mut taken = HashSet::new();
    let sub_field = |(index, part): (usize, &FieldRef)| {
        let mut own = safe(part.name());
        while !taken.insert(own.clone()) {
            own = format!("{own}_{index}");
        }
        let id = format!("{id}/{own}");
        let quoted = part.name().replace('\\', "\\\\").replace('\'', "\\'");
        let path = format!("{path}['{quoted}']");
        let mut field = json!({"@type": "cr:Field", "@id": format!("records/{id}"), "name": part.name()});
        let (kind, path) = match part.data_type() {
            DataType::Struct(parts) => {
                field["subField"] = sub_fields(column, &id, parts, &path);
                return field;
            }
            DataType::List(item) => {
                field["repeated"] = true.into();
                (item.data_type(), format!("{path}[*]"))
            }
            kind => (kind, path),
        };
        let is_image = column == MASKS && kind == &DataType::Binary;
        field["dataType"] = if is_image { "sc:ImageObject" } else { data_type(kind) }.into();
        field["source"] = source(column);
        field["source"]["transform"] = json!({"jsonPath": path});
        field
    };
    parts.iter().enumerate().map(sub_field).collect()
}

fn source(column: &str) -> Value {
    json!({"fileSet": {"@id": "shards"}, "extract": {"column": column}})
}

/// The nearest type of schema.org, which has none for bytes.
fn data_type(kind: &DataType) -> &'static str {
    match kind {
        DataType::Int8 | DataType::Int32 | DataType::UInt16 | DataType::UInt32 => "sc:Integer",
        DataType::Float32 | DataType::Float64 => "sc:Float",
        _ => "sc:Text",
    }
}

/// A name as a part of an identifier, which has neither spaces nor slashes.
fn safe(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}

/// The description of a column whose name does not explain it.
fn meaning(name: &str, encoding: ImageEncoding) -> Option<&'static str> {
    Some(match name {
        "record_id" => "Unique; the same when the source is ingested again.",
        "source_path" => {
            "Path of the raw file, relative to the raw directory; FILE#ROW for an image in a Parquet file."
        }
        SOURCE_DIGEST => "Digest of the raw file, 32 bytes; the key source_digest of dataset.json has the algorithm.",
        "subset" => "The source's own subset: train, validate or test.",
        "study_datetime" => "Date, or date and time, of the study as de-identified, in ISO 8601 without a zone.",
        "study_order" => "Number by which the patient's studies are ordered in time.",
        "pixel_spacing" => "Distance of rows and of columns of the raw image in millimeters.",
        "window" => "Default window of stored pixels of more than 8 bits.",
        "height" | "width" => "Size of the stored image in pixels.",
        "source_height" | "source_width" => "Size of the raw image in pixels.",
        IMAGE if encoding == ImageEncoding::Raw => "8-bit gray pixels, row-major: height · width bytes.",
        IMAGE if encoding == ImageEncoding::Raw16 => {
            "16-bit gray pixels, little endian, row-major: 2 · height · width bytes."
        }
        IMAGE if encoding == ImageEncoding::Png16 => "16-bit gray image.",
        IMAGE => "8-bit gray image.",
        "language" => "Language of the report, as BCP 47 writes it.",
        "report" => "The text that was tokenized.",
        "findings" | "impression" => "This section of the report.",
        "token_ids" => "[CLS] first; neither padded nor masked; cut to the maximum length.",
        "texts" => "All named sections of the report, in its order, each with its token ids.",
        "labels" => "By finding: 1 positive, 0 negative, -1 uncertain, null not mentioned.",
        "label_origin" => "Where the labels are from: radiologist, consensus, nlp:chexpert and so on.",
        "grades" => "Number of the grade in its scale, which dataset.json lists, counted from 0.",
        "readings" => "The labels of each reader, where several read the image.",
        "boxes" => "Rectangles in pixels of the stored image.",
        MASKS => "Segmentation masks of the stored size, 1 bit a pixel.",
        _ => return None,
    })
}
