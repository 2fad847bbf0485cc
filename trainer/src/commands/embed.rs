//! `trainer embed`: pooled features, one row a record.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use dataset::format::table::TableWriter;
use tch::Device;

use super::embedder::{Embedder, EncoderChoice};
use crate::task::{DataSource, Registry, unfinished_init};

/// Records of a row group: 25 MB of ViT-B's features, the most that is in memory at a time.
const GROUP: usize = 8192;

/// What was embedded.
#[derive(Debug)]
pub struct Embedded {
    /// Length of a feature vector.
    pub features: i64,
    /// What was loaded.
    pub loaded: String,
    /// A warning about an unfinished run.
    pub warning: Option<String>,
}

/// Writes `record_id`, `patient_id`, `study_id` and `features` of some rows, in their order. The features are a list of D floats:
/// the mean over patch tokens or the class token (`pooling`; none: as the encoder is configured), normalized by the encoder's
/// final norm where it is configured to keep one, else by `fc_norm` of a fine-tuned run, else by a plain layer normalization.
///
/// # Errors
/// When neither a preset nor a run gives the sizes, the weights do not fit, or no row is given.
pub fn embed(
    registry: &Registry,
    source: &DataSource,
    rows: &[u32],
    choice: &EncoderChoice,
    device: Device,
    out: &Path,
) -> Result<Embedded> {
    let embedder = Embedder::new(registry, choice, 0, device)?;
    let width = embedder.width();
    if rows.is_empty() {
        bail!("no record to embed");
    }
    dataset::store::files::check_place(out)?;
    let texts = ["record_id", "patient_id", "study_id"].map(|name| Ok((name, source.dataset.texts(name)?)));
    let texts = texts.into_iter().collect::<Result<Vec<_>>>()?;
    let mut table: Option<TableWriter> = None;
    let mut kept: Vec<f32> = Vec::new();
    let (mut from, mut done) = (0, 0);
    embedder.embed(source, rows, |batch| {
        done += batch.len() / width;
        kept.extend(batch);
        if done - from < GROUP && done < rows.len() {
            return Ok(());
        }
        let mut features = FixedSizeListBuilder::new(Float32Builder::with_capacity(kept.len()), width as i32);
        features.values().append_slice(&kept);
        (from..done).for_each(|_| features.append(true));
        let of_rows = |(name, values): &(&'static str, Vec<Option<String>>)| {
            let column: StringArray = rows[from..done].iter().map(|&row| values[row as usize].as_deref()).collect();
            (*name, Arc::new(column) as ArrayRef, *name != "record_id")
        };
        let columns = texts.iter().map(of_rows).chain([("features", Arc::new(features.finish()) as ArrayRef, false)]);
        let group = RecordBatch::try_from_iter_with_nullable(columns)?;
        if table.is_none() {
            table = Some(TableWriter::create(out, group.schema())?);
        }
        if let Some(table) = &mut table {
            table.write(&group)?;
        }
        kept.clear();
        from = done;
        Ok(())
    })?;
    if let Some(table) = table {
        table.finish()?;
    }
    Ok(Embedded {
        features: width as i64,
        loaded: embedder.loaded,
        warning: choice.weights.and_then(|weights| unfinished_init(&weights.to_string_lossy())),
    })
}
