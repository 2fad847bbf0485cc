//! Parquet files and a card for Hugging Face `datasets`: `load_dataset(OUT)` gives decoded images, and labels by name.
//!
//! An image is a struct of its bytes and a file name. The features are in the Arrow schema under `huggingface`, and in the
//! head of `README.md`, which also has the files of each subset.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, Float64Array, RecordBatch, StringArray, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use super::{ExportedMask, Piece, PieceWriter, Plan, Sample, Sections, TemporaryFile};
use crate::error::{Error, Result};
use crate::format::card::{feature, primitive};
use crate::format::record::Record;
use crate::format::record_batch::{BATCH_BYTES, fitting, to_batch};
use crate::format::schema::{IMAGE, MASKS};
use crate::format::table;
use crate::split::ratio::Ratio;
use crate::split::types::Subset;
use crate::store::files;

/// Rows of a row group. It is small, since the dataset viewer and shuffled readers read one at a time.
const ROWS_PER_GROUP: usize = 100;

/// Key of the schema metadata with the features.
const FEATURES: &str = "huggingface";

/// Name of the files of a subset. Without a split, all records are `train`, as in `datasets`.
fn section_name(subset: Option<Subset>) -> &'static str {
    subset.unwrap_or(Subset::Train).name()
}

/// One Parquet file each: `data/train-00000-of-00002.parquet`.
pub(super) fn pieces(sections: Sections, shard_size: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (subset, rows) in sections {
        let count = rows.len().div_ceil(shard_size);
        for (index, rows) in rows.chunks(shard_size).enumerate() {
            let path = format!("data/{}-{index:05}-of-{count:05}.parquet", section_name(subset));
            pieces.push(Piece { path, rows: rows.to_vec() });
        }
    }
    pieces
}

fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

fn mask_column(mask: &ExportedMask) -> String {
    format!("mask_{}", mask.name)
}

fn is_image(field: &Field) -> bool {
    field.data_type() == &DataType::Struct(image_fields())
}

/// The schema of the files, with the features in its metadata.
fn schema(plan: &Plan) -> Schema {
    let manifest = plan.dataset.manifest();
    let image = |name: &str| Field::new(name, DataType::Struct(image_fields()), true);
    let mut fields = Vec::new();
    for field in manifest.schema().fields() {
        match field.name().as_str() {
            IMAGE => fields.push(image(IMAGE)),
            MASKS => fields.extend(plan.masks.iter().map(|mask| image(&mask_column(mask)))),
            _ => fields.push(field.as_ref().clone()),
        }
    }
    if plan.split.is_some() {
        fields.push(Field::new("split_subset", DataType::Utf8, true));
        fields.push(Field::new("split_ratio", DataType::Float64, true));
    }
    let features: Map<String, Value> = fields.iter().map(|field| (field.name().clone(), described(field))).collect();
    let info = json!({"info": {"features": features}}).to_string();
    Schema::new_with_metadata(fields, HashMap::from([(FEATURES.to_owned(), info)]))
}

/// A column as the features describe it.
fn described(field: &Field) -> Value {
    fn of(kind: &DataType) -> Value {
        let inside = |fields: &Fields| -> Value {
            fields.iter().map(|field| (field.name().clone(), of(field.data_type()))).collect::<Map<_, _>>().into()
        };
        match kind {
            DataType::Struct(fields) => inside(fields),
            // All versions of `datasets` read this form of a list; the name of its type has changed.
            DataType::List(item) => json!([of(item.data_type())]),
            kind => json!({"dtype": primitive(kind), "_type": "Value"}),
        }
    }
    if is_image(field) { json!({"_type": "Image"}) } else { of(field.data_type()) }
}

/// Writes a Parquet file.
pub(super) struct Writer {
    file: ArrowWriter<TemporaryFile>,
    path: std::path::PathBuf,
    stored: SchemaRef,
    schema: SchemaRef,
    ending: &'static str,
    masks: Vec<ExportedMask>,
}

impl Writer {
    pub(super) fn create(path: &Path, plan: &Plan) -> Result<Self> {
        let manifest = plan.dataset.manifest();
        let schema = Arc::new(schema(plan));
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("mrm ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROWS_PER_GROUP));
        for field in schema.fields().iter().filter(|field| is_image(field)) {
            // Images are compressed already.
            let column = ColumnPath::new(vec![field.name().clone(), "bytes".to_owned()]);
            properties = properties
                .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        // Some readers do not read the Arrow schema.
        let features = schema.metadata().get(FEATURES).cloned();
        let properties = properties.set_key_value_metadata(Some(vec![KeyValue::new(FEATURES.to_owned(), features)]));
        let file = ArrowWriter::try_new(TemporaryFile::create(path)?, schema.clone(), Some(properties.build()))
            .map_err(Error::parquet(path))?;
        let (stored, masks) = (Arc::new(manifest.schema()), plan.masks.clone());
        Ok(Self { file, path: path.to_path_buf(), stored, schema, ending: plan.ending(), masks })
    }

    fn batch(&self, samples: Vec<Sample>) -> Result<RecordBatch, ArrowError> {
        let (mut keys, mut records) = (Vec::new(), Vec::<Record>::new());
        let (mut subsets, mut ratios) = (Vec::new(), Vec::new());
        for sample in samples {
            keys.push(sample.key);
            records.push(sample.record);
            let (subset, ratio) = sample.membership.unwrap_or_default();
            subsets.push(subset.map(Subset::name));
            ratios.push(ratio.map(Ratio::percent));
        }
        let batch = to_batch(&self.stored, &records)?;
        let images = |bytes: BinaryArray, ending: &str| -> Result<ArrayRef, ArrowError> {
            let has_image: Vec<bool> =
                (0..bytes.len()).map(|row| bytes.is_valid(row) && !bytes.value(row).is_empty()).collect();
            let paths: StringArray = keys.iter().map(|key| Some(format!("{key}.{ending}"))).collect();
            let parts: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(paths)];
            Ok(Arc::new(StructArray::try_new(image_fields(), parts, Some(NullBuffer::from(has_image)))?))
        };
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
            if let Some(mask) = self.masks.iter().find(|mask| is_image(field) && mask_column(mask) == *field.name()) {
                let files = records.iter().map(|record| mask.of(record)).collect();
                return images(files, &format!("mask.{}.png", mask.key));
            }
            match field.name().as_str() {
                IMAGE => {
                    let bytes = table::column::<BinaryArray>(&batch, IMAGE)
                        .ok_or_else(|| ArrowError::SchemaError(format!("`{IMAGE}` does not contain bytes")))?;
                    images(bytes.clone(), self.ending)
                }
                "split_subset" => Ok(Arc::new(StringArray::from(subsets.clone()))),
                "split_ratio" => Ok(Arc::new(Float64Array::from(ratios.clone()))),
                name => batch
                    .column_by_name(name)
                    .cloned()
                    .ok_or_else(|| ArrowError::SchemaError(format!("there is no column `{name}`"))),
            }
        });
        RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<_, _>>()?)
    }
}

impl PieceWriter for Writer {
    fn write(&mut self, mut samples: Vec<Sample>) -> Result<()> {
        while !samples.is_empty() {
            let after = samples.split_off(fitting(samples.iter().map(|sample| &sample.record), BATCH_BYTES));
            let batch = self
                .batch(std::mem::replace(&mut samples, after))
                .map_err(|error| Error::Shard { shard: self.path.display().to_string(), message: error.to_string() })?;
            self.file.write(&batch).map_err(Error::parquet(&self.path))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { file, path, .. } = *self;
        file.into_inner().map_err(Error::parquet(&path))?.publish()
    }
}

/// Writes `README.md`: files and features in its head, then a short description.
pub(super) fn write_card(out: &Path, plan: &Plan) -> Result<()> {
    let path = out.join("README.md");
    let features: Vec<Value> = schema(plan)
        .fields()
        .iter()
        .map(|field| match field.name() {
            name if is_image(field) => json!({"name": name, "dtype": "image"}),
            name => feature(name, field.data_type()),
        })
        .collect();
    let name = |subset: &Option<Subset>| section_name(*subset);
    let files: Vec<Value> = plan
        .sections
        .iter()
        .map(|(subset, _)| json!({"split": name(subset), "path": format!("data/{}-*.parquet", name(subset))}))
        .collect();
    let splits: Vec<Value> =
        plan.sections.iter().map(|(subset, rows)| json!({"name": name(subset), "num_examples": rows})).collect();
    let head = json!({
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features, "splits": splits},
    });
    // JSON is YAML.
    let head = serde_json::to_string_pretty(&head).map_err(Error::json(&path))?;
    let manifest = plan.dataset.manifest();
    let counts: String =
        plan.sections.iter().map(|(subset, rows)| format!("| {} | {rows} |\n", name(subset))).collect();
    let made = match &plan.split {
        Some(split) => format!(" by its split `{}`", split.name),
        None => String::new(),
    };
    let page = format!(
        "---\n{head}\n---\n# {}\n\nRadiographs with their reports and labels, exported{made} from a dataset that {} \
         wrote.\n\n| split | records |\n| --- | --- |\n{counts}\nLabels: 1 positive, 0 negative, -1 uncertain, null not \
         mentioned. Boxes are in pixels of `image`.\n",
        manifest.source, manifest.tool
    );
    files::write_atomic(&path, page.as_bytes())
}
