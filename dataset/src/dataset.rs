//! An opened dataset: any row by index or identifier, columns of all rows.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::OnceLock;

use arrow_array::{Array, RecordBatch, StringArray, UInt16Array};
use bytes::Bytes;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::format::image_codec::decode_mask;
use crate::format::manifest::{MANIFEST, Manifest, TOKENIZER};
use crate::format::mask_column::MaskColumn;
use crate::format::record::Record;
use crate::format::schema::MASKS;
use crate::format::shard::Shard;
use crate::format::table;
use crate::join::view::View;
use crate::loader::row_group_cache::RowGroupCache;
use crate::record_hint;
use crate::store::files;
use crate::store::storage::Storage;

/// Rows of a shard up to which the manifest's number is used before the shard is opened: four times the default.
const PLAUSIBLE_ROWS: u64 = 1 << 13;

/// Rows of a dataset up to which the manifest's numbers of such shards are used.
const PLAUSIBLE_TOTAL: usize = 1 << 26;

/// Height and width of the images of a row group.
pub(crate) type Sizes = Vec<(u16, u16)>;

/// A dataset in a folder or in an object store. Each shard is opened when it is first needed.
///
/// It can be shared by threads. Everything that is read of shards is compared with their checksums, where they have some.
pub struct Dataset {
    storage: Storage,
    manifest: Manifest,
    digest: u64,
    shards: Vec<OnceLock<Shard>>,
    /// First row of each shard, and the end of the last.
    starts: Vec<usize>,
    rows_by_id: OnceLock<HashMap<String, u32>>,
    /// By shard.
    ids: Vec<OnceLock<StringArray>>,
    pub(crate) cache: RowGroupCache,
    /// By shard, by row group.
    pub(crate) sizes: Vec<OnceLock<Vec<OnceLock<Sizes>>>>,
    is_checked: bool,
    view: View,
}

impl Dataset {
    /// Opens the dataset at a path or URL (see [`Storage::at`]). Only its manifest is read.
    ///
    /// # Errors
    /// When there is no dataset, it cannot be read, or its format version is unknown.
    pub fn open(location: impl AsRef<OsStr>) -> Result<Self> {
        Self::open_in(Storage::at(location)?)
    }

    /// Opens the dataset in a storage. Only its manifest is read.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_in(storage: Storage) -> Result<Self> {
        let stored = Manifest::load_with_digest(&storage)?;
        let (manifest, digest) = stored.ok_or_else(|| Error::NotADataset { path: storage.path("") })?;
        Self::of_manifest(storage, manifest, digest)
    }

    fn of_manifest(storage: Storage, manifest: Manifest, digest: u64) -> Result<Self> {
        let mut starts = vec![0];
        for shard in &manifest.shards {
            let end = starts.last().copied().unwrap_or(0) as u64;
            let end = end.checked_add(shard.rows).filter(|&end| end <= u32::MAX.into());
            let too_many =
                || Error::Invalid(format!("{MANIFEST}: {}: more than {} records in all", shard.path, u32::MAX));
            starts.push(end.ok_or_else(too_many)? as usize);
        }
        let shards = manifest.shards.iter().map(|_| OnceLock::new()).collect();
        let sizes = manifest.shards.iter().map(|_| OnceLock::new()).collect();
        let ids = manifest.shards.iter().map(|_| OnceLock::new()).collect();
        let (rows_by_id, cache, view) = (OnceLock::new(), RowGroupCache::default(), View::stored(&manifest));
        Ok(Self { storage, manifest, digest, shards, starts, rows_by_id, ids, cache, sizes, is_checked: true, view })
    }

    /// The same dataset as it is stored, opened again.
    pub(crate) fn reopened(&self) -> Result<Self> {
        let dataset = Self::of_manifest(self.storage.clone(), self.manifest.clone(), self.digest)?;
        Ok(Self { is_checked: self.is_checked, ..dataset })
    }

    /// The dataset, seen with joins.
    #[must_use]
    pub(crate) fn seen(self, view: View) -> Self {
        // Cached rows are those of another view.
        Self { view, cache: RowGroupCache::default(), ..self }
    }

    /// The joins that the dataset is seen with.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Reads images and columns without comparing them with their checksums. A benchmark measures the cost of checksums with
    /// it.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.is_checked = false;
        self
    }

    /// Where the dataset is stored.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Digest of the stored manifest, which has the digests of all shards: the same for all versions of this library.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The findings, in the order of [`Record::labels`]: those of the manifest, then those that [joins](Dataset::with_joins)
    /// add.
    pub fn findings(&self) -> &[String] {
        &self.view.findings
    }

    /// The names of masks: those of the manifest, then those that joins add.
    pub fn mask_names(&self) -> &[String] {
        &self.view.masks
    }

    /// Whether there is a tokenizer, hence `token_ids`.
    pub fn has_tokenizer(&self) -> bool {
        self.manifest.text.vocabulary > 0
    }

    /// The tokenizer that made `token_ids`; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is not the one that the manifest names.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        if !self.has_tokenizer() {
            return Ok(None);
        }
        let broken = |message: &dyn std::fmt::Display| {
            let remedy = "restore it from a copy, or ingest again with --overwrite";
            Error::Invalid(format!("{}: {message}; {remedy}", self.storage.path(TOKENIZER).display()))
        };
        let bytes = self.storage.read(TOKENIZER)?;
        if files::hex(&Sha256::digest(&bytes)) != self.manifest.text.tokenizer_sha256 {
            return Err(broken(&"not the tokenizer that made the token ids"));
        }
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| broken(&error))?;
        // As when the token ids were made.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| broken(&error))?;
        let (size, expected) = (tokenizer.get_vocab_size(true), self.manifest.text.vocabulary);
        if size != expected {
            return Err(broken(&format!("a vocabulary of {size} pieces, the manifest says {expected}")));
        }
        Ok(Some(tokenizer))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All row numbers. Since this allocates memory for all records, a manifest with an unusually large number of them is
    /// first compared with the footers of its shards.
    ///
    /// # Errors
    /// When a shard with many rows has another number of them, or cannot be opened.
    pub fn all_rows(&self) -> Result<Vec<u32>> {
        let is_implausible = |rows: u64| rows > PLAUSIBLE_ROWS || self.len() > PLAUSIBLE_TOTAL;
        for (index, _) in self.manifest.shards.iter().enumerate().filter(|(_, info)| is_implausible(info.rows)) {
            self.shard(index)?;
        }
        Ok((0..self.len() as u32).collect())
    }

    /// Shard `index`, opened.
    ///
    /// # Errors
    /// When it cannot be opened, or contradicts the manifest.
    ///
    /// # Panics
    /// When the manifest has no such shard.
    pub fn shard(&self, index: usize) -> Result<&Shard> {
        let slot = &self.shards[index];
        if let Some(shard) = slot.get() {
            return Ok(shard);
        }
        let info = &self.manifest.shards[index];
        let contradiction = |message: String| Err(Error::Shard { shard: info.path.clone(), message });
        let shard = Shard::open(&self.storage, info)?;
        let shard = if self.is_checked { shard } else { shard.without_checksums() };
        if shard.rows() as u64 != info.rows {
            return contradiction(format!("{} rows, the manifest says {}", shard.rows(), info.rows));
        }
        // A dataset without findings has one field that means nothing, since a struct needs a field.
        if shard.findings() != self.manifest.labels && !self.manifest.labels.is_empty() {
            return contradiction("other findings than the manifest's".to_owned());
        }
        if !shard.grades().iter().eq(self.manifest.grades.iter().map(|scale| &scale.name)) {
            return contradiction("other grades than the manifest's".to_owned());
        }
        let (encoding, expected) = (shard.encoding(), self.manifest.image.encoding);
        if encoding != expected {
            let message = format!("its images are {}, the manifest says {}", encoding.name(), expected.name());
            return contradiction(message);
        }
        Ok(slot.get_or_init(|| shard))
    }

    /// The index of the shard of a row, and the row within it.
    pub(crate) fn place(&self, row: usize) -> Result<(usize, usize)> {
        if row >= self.len() {
            return Err(Error::Invalid(format!("row {row} of a dataset of {} records", self.len())));
        }
        let index = self.starts.partition_point(|&start| start <= row) - 1;
        Ok((index, row - self.starts[index]))
    }

    /// The shard of a row, and the row within it.
    pub(crate) fn locate(&self, row: usize) -> Result<(&Shard, usize)> {
        let (index, row) = self.place(row)?;
        Ok((self.shard(index)?, row))
    }

    /// One whole record. Its texts and labels are read with those of its row group, which are cached for the next record.
    ///
    /// # Errors
    /// When it cannot be read, or differs from what was written (by its checksums, where the shard has some).
    pub fn record(&self, row: usize) -> Result<Record> {
        self.record_from(None, row)
    }

    /// As [`Dataset::record`]; its image is not read where its page was fetched before ([`Dataset::image_pages`]).
    pub(crate) fn record_from(&self, page: Option<&Bytes>, row: usize) -> Result<Record> {
        let mut record = self.record_without_image(row)?;
        let (shard, row) = self.locate(row)?;
        let raw_length = shard.encoding().raw_bytes(record.height, record.width);
        let page = shard.intact(row, page)?;
        shard.image_bytes(row, raw_length, page, &mut record.image)?;
        Ok(record)
    }

    /// As [`Dataset::record`], but its image is not read and left empty.
    ///
    /// # Errors
    /// As [`Dataset::record`].
    pub fn record_without_image(&self, row: usize) -> Result<Record> {
        let (index, row) = self.place(row)?;
        let shard = self.shard(index)?;
        let group = shard.group_of(row)?;
        let first = self.starts[index] + shard.group(group).start;
        let batch = self.cache.get((index, group), || self.view.apply(shard.texts_and_labels(group)?, first))?;
        shard.record_of(&batch, row)
    }

    /// Some columns of one row group of a shard, as one batch.
    pub(crate) fn group_columns(&self, shard: usize, group: usize, names: &[&str]) -> Result<RecordBatch> {
        let opened = self.shard(shard)?;
        self.view.apply(opened.group_columns(group, names)?, self.starts[shard] + opened.group(group).start)
    }

    /// The identifier of a record. Those of its shard are read once and kept.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn record_id(&self, row: usize) -> Result<&str> {
        let (index, row) = self.place(row)?;
        let slot = &self.ids[index];
        if slot.get().is_none() {
            let batches = self.shard(index)?.columns(&["record_id"])?;
            let columns = batches.iter().filter_map(|batch| table::column::<StringArray>(batch, "record_id"));
            let _ = slot.set(columns.flatten().collect());
        }
        let ids = slot.get().filter(|ids| row < ids.len() && ids.is_valid(row));
        ids.map(|ids| ids.value(row)).ok_or_else(|| Error::Shard {
            shard: self.manifest.shards[index].path.clone(),
            message: format!("row {row} has no record_id"),
        })
    }

    /// Whether something is drawn in each record's mask of a name, or in its first one.
    ///
    /// # Errors
    /// Names shard and row where a mask cannot be decoded or has another size than its image.
    pub fn has_drawn_mask(&self, name: Option<&str>) -> Result<Vec<bool>> {
        let mut drawn = Vec::with_capacity(self.len());
        for batch in self.columns(&[MASKS, "height", "width"])? {
            let masks = MaskColumn::of(&batch);
            let [heights, widths] = ["height", "width"].map(|side| table::column::<UInt16Array>(&batch, side));
            let first = drawn.len();
            let is_drawn = |at: usize| -> Result<bool> {
                let Some(png) = masks.as_ref().and_then(|masks| masks.get(at, name)) else { return Ok(false) };
                let (shard, row) = self.locate(first + at)?;
                let (Some(heights), Some(widths)) = (heights, widths) else {
                    return Err(shard.row_error(row, "height or width has another type than the format's"));
                };
                let mask = decode_mask(png, (heights.value(at), widths.value(at)));
                Ok(mask.map_err(|error| shard.row_error(row, error))?.pixels.iter().any(|&level| level > 0))
            };
            drawn.extend((0..batch.num_rows()).into_par_iter().map(is_drawn).collect::<Result<Vec<_>>>()?);
        }
        Ok(drawn)
    }

    /// The row of a record.
    ///
    /// # Errors
    /// When there is no such record; the message suggests others.
    pub fn row_of(&self, record_id: &str) -> Result<usize> {
        if self.rows_by_id.get().is_none() {
            let ids = self.texts("record_id")?;
            let map = ids.into_iter().enumerate().filter_map(|(row, id)| Some((id?, row as u32))).collect();
            let _ = self.rows_by_id.set(map);
        }
        let row = self.rows_by_id.get().and_then(|map| map.get(record_id));
        row.map(|&row| row as usize).ok_or_else(|| Error::UnknownRecord {
            record_id: record_id.to_owned(),
            hint: record_hint::hint(&|column| self.texts(column), record_id).unwrap_or_default(),
        })
    }

    /// Some columns of all shards, one or more batches for each shard, in row order.
    ///
    /// # Errors
    /// When a shard cannot be read. Unknown names are ignored.
    pub fn columns(&self, names: &[&str]) -> Result<Vec<RecordBatch>> {
        self.first_columns(names, self.len())
    }

    /// Some columns of the shards that contain the first `rows` rows.
    pub(crate) fn first_columns(&self, names: &[&str], rows: usize) -> Result<Vec<RecordBatch>> {
        self.columns_of(&self.view, names, rows)
    }

    /// Some columns of the shards that contain the first `rows` rows, as another view shows them.
    pub(crate) fn columns_of(&self, view: &View, names: &[&str], rows: usize) -> Result<Vec<RecordBatch>> {
        let of_shard = |index: usize| {
            let mut first = self.starts[index];
            let seen = self.shard(index)?.columns(names)?.into_iter().map(|batch| {
                let rows = batch.num_rows();
                first += rows;
                view.apply(batch, first - rows)
            });
            seen.collect::<Result<Vec<_>>>()
        };
        let shards: Vec<Vec<RecordBatch>> =
            (0..self.starts.partition_point(|&start| start < rows).min(self.shards.len()))
                .into_par_iter()
                .map(of_shard)
                .collect::<Result<_>>()?;
        Ok(shards.into_iter().flatten().collect())
    }
}
