//! The dataset card, `README.md`. Hugging Face `datasets` reads the files and features from its head, and decodes PNG and
//! JPEG images by them.

use arrow_schema::DataType;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::format::manifest::{CARD, Manifest};
use crate::format::schema::{IMAGE, MASKS};
use crate::store::storage::Storage;

/// Writes the card of a dataset, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(storage: &Storage, manifest: &Manifest) -> Result<()> {
    let path = storage.path(CARD);
    let features = manifest
        .schema()
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            MASKS => masks(),
            IMAGE if manifest.image.encoding.is_file() => json!({"name": IMAGE, "dtype": "image"}),
            name => feature(name, field.data_type()),
        })
        .collect::<Vec<_>>();
    // JSON is YAML.
    let head = serde_json::to_string_pretty(&json!({
        "configs": [{"config_name": "default", "data_files": "shards/*.parquet"}],
        "dataset_info": {"features": features},
    }))
    .map_err(Error::json(&path))?;
    let totals = &manifest.totals;
    let page = format!(
        "---\n{head}\n---\n# {}\n\n{} radiographs of {} patients, {} with a report; written by {}. \
         `dataset.json` is the manifest.\n",
        manifest.source, totals.records, totals.patients, totals.reports, manifest.tool
    );
    storage.write(CARD, page)
}

/// The masks as a feature of `datasets`, which decodes each.
fn masks() -> Value {
    json!({"name": MASKS, "list": [{"name": "name", "dtype": "string"}, {"name": "png", "dtype": "image"}]})
}

/// A column as a feature of `datasets`.
pub(crate) fn feature(name: &str, kind: &DataType) -> Value {
    let fields = |fields: &arrow_schema::Fields| -> Vec<Value> {
        fields.iter().map(|field| feature(field.name(), field.data_type())).collect()
    };
    match kind {
        DataType::Struct(inner) => json!({"name": name, "struct": fields(inner)}),
        DataType::List(item) => match item.data_type() {
            DataType::Struct(inner) => json!({"name": name, "list": fields(inner)}),
            item => json!({"name": name, "list": primitive(item)}),
        },
        kind => json!({"name": name, "dtype": primitive(kind)}),
    }
}

/// A type as `datasets` names it.
pub(crate) fn primitive(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 => "string".to_owned(),
        DataType::FixedSizeBinary(bytes) => format!("fixed_size_binary[{bytes}]"),
        // Numbers and bytes have the same names in lower case.
        kind => kind.to_string().to_lowercase(),
    }
}
