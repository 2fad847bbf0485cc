//! The dataset card, `README.md`: for a person, and for Hugging Face `datasets`, which takes the files and the features
//! from its head. PNG and JPEG images come out as pictures.

use arrow_schema::DataType;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::format::manifest::{CARD, Manifest};
use crate::format::record::{self, IMAGE, ImageEncoding, MASK};
use crate::store::storage::Storage;

/// Writes the card of a dataset, in one step.
pub fn write(storage: &Storage, manifest: &Manifest) -> Result<()> {
    let path = storage.path(CARD);
    let features = record::schema(&manifest.labels, manifest.image.encoding)
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            MASK => json!({"name": MASK, "dtype": "image"}),
            IMAGE if manifest.image.encoding != ImageEncoding::Raw => json!({"name": IMAGE, "dtype": "image"}),
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
        "---\n{head}\n---\n# {}\n\n{} radiographs of {} patients, {} with a report; written by {}. What each column \
         means, and all else, stands in `dataset.json`.\n",
        manifest.source, totals.records, totals.patients, totals.reports, manifest.tool
    );
    storage.write(CARD, page)
}

/// A column as `datasets` describes it.
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

pub(crate) fn primitive(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 => "string".to_owned(),
        DataType::FixedSizeBinary(bytes) => format!("fixed_size_binary[{bytes}]"),
        // Numbers and bytes have the same names, in small letters.
        kind => kind.to_string().to_lowercase(),
    }
}
