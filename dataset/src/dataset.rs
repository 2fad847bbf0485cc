//! An opened dataset: any row by index or identifier, tables over all of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::OnceLock;

use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::format::image_codec::{self, GrayPixels};
use crate::format::manifest::{MANIFEST, Manifest, TOKENIZER};
use crate::format::record::{ImageEncoding, Record};
use crate::format::shard::Shard;
use crate::format::table;
use crate::loader::row_group_cache::Recent;
use crate::record_hint;
use crate::store::files;
use crate::store::storage::{Storage, StoredFile};

/// Rows of a shard up to which the manifest is believed before the shard is opened: four times the default.
const BELIEVED_ROWS: u64 = 1 << 13;

/// Rows of a dataset up to which such shards are believed.
const BELIEVED_TOTAL: usize = 1 << 26;

/// A dataset in a folder or in an object store. Shards are opened when they are first needed.
pub struct Dataset {
    storage: Storage,
    manifest: Manifest,
    shards: Vec<OnceLock<Shard>>,
    /// First row of each shard, and one past the last.
    starts: Vec<usize>,
    rows_by_id: OnceLock<HashMap<String, u32>>,
    recent: Recent,
    /// Whether what is read of shards is compared with their checksums.
    is_checked: bool,
}

impl Dataset {
    /// Opens the dataset at a path or URL (`file://`, `s3://`; see [`Storage::at`]) by its manifest.
    pub fn open(location: impl AsRef<OsStr>) -> Result<Self> {
        Self::open_in(Storage::at(location)?)
    }

    /// Opens the dataset in a place by its manifest.
    pub fn open_in(storage: Storage) -> Result<Self> {
        let manifest = Manifest::load(&storage)?;
        let mut starts = vec![0];
        for shard in &manifest.shards {
            let end = starts.last().copied().unwrap_or(0) as u64;
            let end = end.checked_add(shard.rows).filter(|&end| end <= u32::MAX.into());
            let many = || Error::Invalid(format!("{MANIFEST}: more records than there can be, at {}", shard.path));
            starts.push(end.ok_or_else(many)? as usize);
        }
        let shards = manifest.shards.iter().map(|_| OnceLock::new()).collect();
        let (rows_by_id, recent) = (OnceLock::new(), Recent::default());
        Ok(Self { storage, manifest, shards, starts, rows_by_id, recent, is_checked: true })
    }

    /// Reads images and columns without comparing them with their checksums: a benchmark measures so what that costs.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.is_checked = false;
        self
    }

    /// Where the dataset lies.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The findings, in the order of [`Record::labels`].
    pub fn findings(&self) -> &[String] {
        &self.manifest.labels
    }

    /// Whether there is a tokenizer, hence `token_ids`.
    pub fn has_tokenizer(&self) -> bool {
        self.manifest.text.vocabulary > 0
    }

    /// The tokenizer that made `token_ids`, where there is one.
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
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| broken(&error))?;
        let (found, stated) = (tokenizer.get_vocab_size(true), self.manifest.text.vocabulary);
        if found != stated {
            return Err(broken(&format!("a vocabulary of {found} pieces, the manifest says {stated}")));
        }
        Ok(Some(tokenizer))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// All row numbers. Memory is taken for as many records as there are, so a manifest that claims unusually many is
    /// first compared with the footers of its shards.
    ///
    /// # Errors
    /// When a shard that claims many rows has others, or cannot be opened.
    pub fn all_rows(&self) -> Result<Vec<u32>> {
        let claims_much = |rows: u64| rows > BELIEVED_ROWS || self.len() > BELIEVED_TOTAL;
        for (index, _) in self.manifest.shards.iter().enumerate().filter(|(_, info)| claims_much(info.rows)) {
            self.shard(index)?;
        }
        Ok((0..self.len() as u32).collect())
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shard `index`, opened.
    pub fn shard(&self, index: usize) -> Result<&Shard> {
        let slot = &self.shards[index];
        if let Some(shard) = slot.get() {
            return Ok(shard);
        }
        let info = &self.manifest.shards[index];
        let shard = Shard::open(&self.storage, info)?;
        let shard = if self.is_checked { shard } else { shard.without_checksums() };
        if shard.rows() as u64 != info.rows {
            let message = format!("{} rows, the manifest says {}", shard.rows(), info.rows);
            return Err(Error::Shard { shard: info.path.clone(), message });
        }
        // A struct needs a field: without findings there is one that means nothing.
        if shard.findings() != self.manifest.labels && !self.manifest.labels.is_empty() {
            let message = "other findings than the manifest's".to_owned();
            return Err(Error::Shard { shard: info.path.clone(), message });
        }
        let (found, stated) = (shard.encoding(), self.manifest.image.encoding);
        if found != stated {
            let message = format!("its images are {}, the manifest says {}", found.name(), stated.name());
            return Err(Error::Shard { shard: info.path.clone(), message });
        }
        Ok(slot.get_or_init(|| shard))
    }

    /// The index of the shard that holds a row, and the row within it.
    pub(crate) fn place(&self, row: usize) -> Result<(usize, usize)> {
        if row >= self.len() {
            return Err(Error::Invalid(format!("row {row} of a dataset of {} records", self.len())));
        }
        let index = self.starts.partition_point(|&start| start <= row) - 1;
        Ok((index, row - self.starts[index]))
    }

    /// The shard that holds a row, and the row within it.
    pub(crate) fn locate(&self, row: usize) -> Result<(&Shard, usize)> {
        let (index, row) = self.place(row)?;
        Ok((self.shard(index)?, row))
    }

    /// One whole row: its image, and its texts and labels with those of its row group, which are kept for the next.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written (by its checksums, where the shard has some).
    pub fn record(&self, row: usize) -> Result<Record> {
        self.record_from(None, row)
    }

    /// As [`Dataset::record`]; its image is not read where its page was fetched before ([`Dataset::image_pages`]).
    pub(crate) fn record_from(&self, page: Option<&Bytes>, row: usize) -> Result<Record> {
        let mut record = self.record_without_image(row)?;
        let (shard, row) = self.locate(row)?;
        let length = usize::from(record.height) * usize::from(record.width);
        let raw_length = (shard.encoding() == ImageEncoding::Raw).then_some(length);
        shard.image_bytes(row, raw_length, page, &mut record.image)?;
        Ok(record)
    }

    /// As [`Dataset::record`], with no image in it, and none read.
    pub(crate) fn record_without_image(&self, row: usize) -> Result<Record> {
        let (index, row) = self.place(row)?;
        let shard = self.shard(index)?;
        let group = shard.group_of(row)?;
        let batch = self.recent.get((index, group), || shard.texts_and_labels(group))?;
        shard.record_of(&batch, row)
    }

    /// The row of a record.
    pub fn row_of(&self, record_id: &str) -> Result<usize> {
        if self.rows_by_id.get().is_none() {
            let ids = self.texts("record_id")?;
            let map = ids.into_iter().enumerate().filter_map(|(row, id)| Some((id?, row as u32))).collect();
            let _ = self.rows_by_id.set(map);
        }
        let found = self.rows_by_id.get().and_then(|map| map.get(record_id));
        found.map(|&row| row as usize).ok_or_else(|| Error::UnknownRecord {
            record_id: record_id.to_owned(),
            hint: record_hint::hint(&|column| self.texts(column), record_id).unwrap_or_default(),
        })
    }

    /// One decoded image.
    pub fn image(&self, row: usize, height: u16, width: u16) -> Result<GrayPixels> {
        let mut pixels = Vec::new();
        self.image_into(row, height, width, &mut pixels)?;
        Ok(GrayPixels { width: width.into(), height: height.into(), pixels })
    }

    /// The pages of some images, fetched at the same time, for [`Dataset::image_from`]; none where the dataset lies in a
    /// folder, whose images are best read one by one.
    pub fn image_pages(&self, rows: &[u32]) -> Result<Vec<Bytes>> {
        if self.storage.as_folder().is_some() {
            return Ok(Vec::new());
        }
        let located: Vec<_> = rows.iter().map(|&row| self.locate(row as usize)).collect::<Result<_>>()?;
        let pages: Vec<_> =
            located.iter().map(|(shard, row)| Ok((shard.file(), shard.image_page(*row)?))).collect::<Result<_>>()?;
        StoredFile::read_each(&pages)
    }

    /// Decodes one image of known sides into a buffer that is reused: `height · width` bytes, row-major.
    pub fn image_into(&self, row: usize, height: u16, width: u16, pixels: &mut Vec<u8>) -> Result<()> {
        self.image_from(None, row, height, width, pixels)
    }

    /// As [`Dataset::image_into`]; reads nothing where its page was fetched before.
    pub fn image_from(
        &self,
        page: Option<&Bytes>,
        row: usize,
        height: u16,
        width: u16,
        pixels: &mut Vec<u8>,
    ) -> Result<()> {
        let (shard, local) = self.locate(row)?;
        let length = usize::from(height) * usize::from(width);
        match shard.encoding() {
            ImageEncoding::Raw => shard.image_bytes(local, Some(length), page, pixels)?,
            ImageEncoding::Png | ImageEncoding::Jpeg => {
                let mut encoded = Vec::new();
                pixels.clear();
                shard.image_bytes(local, None, page, &mut encoded)?;
                // Ingested without images.
                if !(encoded.is_empty() && length == 0) {
                    let decoded = image_codec::decode_stored(&encoded, shard.encoding());
                    let decoded = decoded.map_err(|error| shard.row_error(local, error))?;
                    if (decoded.height, decoded.width) != (height.into(), width.into()) {
                        let (found, stated) = ((decoded.height, decoded.width), (height, width));
                        let told =
                            format!("image of {}×{}, its columns say {}×{}", found.0, found.1, stated.0, stated.1);
                        return Err(shard.row_error(local, told));
                    }
                    *pixels = decoded.pixels;
                }
            }
        }
        if pixels.len() == length {
            Ok(())
        } else {
            let told = format!("image of {} bytes, its columns say {height}×{width}", pixels.len());
            Err(shard.row_error(local, told))
        }
    }

    /// Some columns over all shards, one or more batches a shard, in row order.
    pub fn columns(&self, names: &[&str]) -> Result<Vec<RecordBatch>> {
        self.first_columns(names, self.len())
    }

    /// Some columns of the shards that hold the first `rows` rows.
    pub(crate) fn first_columns(&self, names: &[&str], rows: usize) -> Result<Vec<RecordBatch>> {
        let shards: Vec<Vec<RecordBatch>> =
            (0..self.starts.partition_point(|&start| start < rows).min(self.shards.len()))
                .into_par_iter()
                .map(|index| self.shard(index)?.columns(names))
                .collect::<Result<_>>()?;
        Ok(shards.into_iter().flatten().collect())
    }

    /// One text column over all shards.
    pub fn texts(&self, name: &str) -> Result<Vec<Option<String>>> {
        let mut values = Vec::new();
        for batch in self.columns(&[name])? {
            let array = table::column::<arrow_array::StringArray>(&batch, name)
                .ok_or_else(|| Error::Invalid(format!("`{name}` is not a text column")))?;
            values.extend((0..array.len()).map(|i| array.is_valid(i).then(|| array.value(i).to_owned())));
        }
        Ok(values)
    }

    /// The labels of all records: `[records][findings]`, `None` where a finding is not mentioned.
    pub fn labels(&self) -> Result<Vec<Vec<Option<i8>>>> {
        let mut rows = Vec::new();
        for batch in self.columns(&["labels"])? {
            let labels = table::column::<arrow_array::StructArray>(&batch, "labels")
                .ok_or_else(|| Error::Invalid("`labels` is not a struct".to_owned()))?;
            let codes: Vec<&arrow_array::Int8Array> = labels
                .columns()
                .iter()
                .take(self.findings().len())
                .filter_map(|codes| codes.as_any().downcast_ref())
                .collect();
            for row in 0..batch.num_rows() {
                rows.push(codes.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect());
            }
        }
        Ok(rows)
    }
}
