//! Features of records that are computed once, kept in the folder of a probe.
//!
//! `features-KEY/part-00000.parquet` … have the features of consecutive records, so that a probe that was stopped continues at
//! the first part that is missing. The key is the digest of the weights, the encoder, the dataset and the records.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, StringArray};
use dataset::format::table::{column, read_table, write_table};
use dataset::random;
use dataset::store::files;

use crate::commands::embedder::Embedder;
use crate::task::DataSource;

/// Records of a part.
const PART: usize = 8192;

/// Features of some rows of a dataset.
pub(super) struct FeatureTable {
    values: Vec<f32>,
    width: usize,
    places: HashMap<u32, usize>,
    /// Digest of what they depend on.
    pub key: String,
}

impl FeatureTable {
    /// Features of some rows, from the parts that are there, else computed. `digest` is that of the weights; `progress` gets a
    /// line a part.
    ///
    /// # Errors
    /// When a record cannot be read, torch fails, or a part is damaged or cannot be written.
    pub fn of(
        folder: &Path,
        embedder: &Embedder,
        digest: &str,
        source: &DataSource,
        rows: &[u32],
        progress: &dyn Fn(&str),
    ) -> Result<Self> {
        let list = rows.iter().map(|row| format!("{row} ")).collect::<String>();
        let dataset = source.dataset_id();
        let all = format!("{digest}\n{}\n{dataset}\n{:016x}", embedder.settings, random::digest(&list));
        let key = format!("{:016x}", random::digest(&all));
        let folder = folder.join(format!("features-{key}"));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let ids = source.texts_of("record_id", rows)?;
        let mut values = Vec::with_capacity(rows.len() * embedder.width());
        let parts = rows.len().div_ceil(PART);
        for (number, (rows, ids)) in rows.chunks(PART).zip(ids.chunks(PART)).enumerate() {
            let path = folder.join(format!("part-{number:05}.parquet"));
            let part = if path.exists() {
                read(&path, ids, embedder.width())?
            } else {
                let mut part = Vec::with_capacity(rows.len() * embedder.width());
                embedder.embed(source, rows, |batch| {
                    part.extend(batch);
                    Ok(())
                })?;
                write(&path, ids, &part, embedder.width())?;
                progress(&format!("embedded part {} of {parts}: {} records", number + 1, rows.len()));
                part
            };
            values.extend(part);
        }
        let places = rows.iter().enumerate().map(|(place, &row)| (row, place)).collect();
        Ok(Self { values, width: embedder.width(), places, key })
    }

    /// Length of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vectors of some of the rows, `[rows, width]`, row-major.
    ///
    /// # Errors
    /// When a row was not embedded.
    pub fn of_rows(&self, rows: &[u32]) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(rows.len() * self.width);
        for row in rows {
            let place = *self.places.get(row).with_context(|| format!("row {row} has no features"))?;
            values.extend_from_slice(&self.values[place * self.width..(place + 1) * self.width]);
        }
        Ok(values)
    }
}

fn write(path: &Path, ids: &[String], values: &[f32], width: usize) -> Result<()> {
    let mut features = FixedSizeListBuilder::new(Float32Builder::with_capacity(values.len()), width as i32);
    features.values().append_slice(values);
    ids.iter().for_each(|_| features.append(true));
    let ids: StringArray = ids.iter().map(Some).collect();
    let columns: Vec<(&str, ArrayRef, bool)> =
        vec![("record_id", Arc::new(ids), false), ("features", Arc::new(features.finish()), false)];
    files::check_place(path)?;
    Ok(write_table(path, columns)?)
}

/// The vectors of a part, which must be those of some records.
fn read(path: &Path, ids: &[String], width: usize) -> Result<Vec<f32>> {
    let (mut stored, mut values): (Vec<String>, Vec<f32>) = (Vec::new(), Vec::new());
    for batch in read_table(path)? {
        let columns = || {
            let ids = column::<StringArray>(&batch, "record_id")?;
            let lists = column::<FixedSizeListArray>(&batch, "features")?;
            Some((ids, lists.values().as_any().downcast_ref::<Float32Array>()?))
        };
        let (ids, floats) = columns().with_context(|| format!("{} is no table of features", path.display()))?;
        stored.extend(ids.iter().map(|id| id.unwrap_or_default().to_owned()));
        values.extend_from_slice(floats.values());
    }
    if stored != ids || values.len() != ids.len() * width {
        bail!("{} has other records than it should have: remove it, and the probe computes it again", path.display());
    }
    Ok(values)
}
