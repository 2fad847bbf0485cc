//! Reads joins. What is read is compared with the checksums that it was written with.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_select::concat::concat;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};

use crate::error::{Error, Result, StoreFault, guarded};
use crate::format::checksums::{self, CHECKSUMS_KEY};
use crate::format::manifest::Manifest;
use crate::format::shard::{Fetched, byte_range};
use crate::join::facts::{JoinFacts, JoinKind, shards_sha256};
use crate::random;
use crate::store::storage::Storage;
use crate::store::stored_file::StoredFile;

/// Key of the [`JoinFacts`], as JSON, in the key-value metadata of a join's footer.
pub(crate) const FACTS_KEY: &str = "mrm_join";
/// Key of their CRC-32, in hexadecimal digits.
pub(crate) const FACTS_CRC32_KEY: &str = "mrm_join_crc32";

/// The error where the Parquet library panicked.
const BROKEN: &str = "its Parquet structure is damaged";

/// Path of join `name` in its dataset.
pub fn join_path(name: &str) -> String {
    format!("joins/{name}.parquet")
}

/// Names of the joins in a dataset; none where the storage cannot be listed.
///
/// # Errors
/// When listing fails.
pub fn known_joins(storage: &Storage) -> Result<Vec<String>> {
    if storage.is_read_only() {
        return Ok(Vec::new());
    }
    let of = |name: &str| Some(name.strip_prefix("joins/")?.strip_suffix(".parquet")?.to_owned());
    Ok(storage.list("joins")?.iter().filter_map(|listed| of(&listed.name)).collect())
}

/// A join of a dataset, open for reading; it can be shared by threads. It has a row for each record, in the order of the
/// dataset; the value is null in a record that no row of the table is about.
pub struct Join {
    name: String,
    facts: JoinFacts,
    /// Of the stored text of the facts.
    digest: u64,
    file: Arc<StoredFile>,
    metadata: ArrowReaderMetadata,
    /// First row of each row group, and the end of the last.
    starts: Vec<usize>,
    /// Of each column chunk, in the order of the file.
    crc32: Vec<u32>,
    /// By row group, where values are small.
    kept: Vec<OnceLock<ArrayRef>>,
}

impl Join {
    /// Opens join `name` of the dataset with this manifest.
    ///
    /// # Errors
    /// When it is missing or damaged, or was made for other shards than the dataset's.
    pub fn load(storage: &Storage, manifest: &Manifest, name: &str) -> Result<Self> {
        let join = Self::open(storage, name)?;
        if join.facts.dataset_sha256 != shards_sha256(manifest) {
            return Err(join.error("the dataset was changed or replaced after the join was made", storage));
        }
        if join.rows() != manifest.shards.iter().map(|shard| shard.rows as usize).sum::<usize>() {
            return Err(join.error(&format!("it has {} rows, the dataset has another number", join.rows()), storage));
        }
        Ok(join)
    }

    /// Opens a join without a look at its dataset.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn open(storage: &Storage, name: &str) -> Result<Self> {
        match Self::open_if_there(storage, name)? {
            Some(join) => Ok(join),
            None => Err(Error::Join { name: name.to_owned(), message: missing(storage, name)? }),
        }
    }

    /// As [`Join::open`]; `None` where there is none of this name.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn open_if_there(storage: &Storage, name: &str) -> Result<Option<Self>> {
        let (file, tail) = match storage.open(&join_path(name)) {
            Ok(opened) => opened,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |message: String| Error::Join {
            name: name.to_owned(),
            message: format!("{message}; make it again, or restore it from a copy"),
        };
        let read = guarded(BROKEN, || Self::read(name, Arc::new(file), tail));
        read.map(Some).map_err(|error| match error {
            Error::Invalid(message) => damaged(message),
            other => other,
        })
    }

    fn read(name: &str, file: Arc<StoredFile>, tail: bytes::Bytes) -> Result<Self> {
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(error.to_string());
        let length = file.length();
        let start = length.saturating_sub(tail.len() as u64);
        let footer = Fetched { file: Some(file.clone()), length, pieces: vec![(start, tail)] };
        let parquet = ParquetMetaDataReader::new().parse_and_finish(&footer).map_err(|error| invalid(&error))?;
        let metadata =
            ArrowReaderMetadata::try_new(Arc::new(parquet), ArrowReaderOptions::new()).map_err(|e| invalid(&e))?;
        let stated = metadata.metadata().file_metadata();
        let value = |key: &str| {
            let found = stated.key_value_metadata().into_iter().flatten().find(|entry| entry.key == key);
            found.and_then(|entry| entry.value.clone()).ok_or_else(|| Error::Invalid(format!("it has no key `{key}`")))
        };
        let text = value(FACTS_KEY)?;
        if format!("{:08x}", crc32fast::hash(text.as_bytes())) != value(FACTS_CRC32_KEY)? {
            return Err(Error::Invalid("its facts differ from what was written".to_owned()));
        }
        let facts: JoinFacts = serde_json::from_str(&text).map_err(|error| invalid(&error))?;
        if metadata.schema().fields() != facts.schema().fields() {
            return Err(Error::Invalid("it has other columns than its kind".to_owned()));
        }
        let crc32 = checksums::decode(&value(CHECKSUMS_KEY)?);
        let crc32 = crc32.ok_or_else(|| Error::Invalid("its checksums are damaged".to_owned()))?;
        let mut starts = vec![0];
        for group in metadata.metadata().row_groups() {
            starts.push(starts.last().copied().unwrap_or(0) + group.num_rows() as usize);
        }
        let chunks: usize = metadata.metadata().row_groups().iter().map(RowGroupMetaData::num_columns).sum();
        if chunks != crc32.len() {
            return Err(Error::Invalid(format!("it has {chunks} column chunks and {} checksums", crc32.len())));
        }
        let groups = if facts.kind.is_large() { 0 } else { starts.len() - 1 };
        let kept = (0..groups).map(|_| OnceLock::new()).collect();
        let digest = random::digest(&text);
        Ok(Self { name: name.to_owned(), facts, digest, file, metadata, starts, crc32, kept })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is about.
    pub fn facts(&self) -> &JoinFacts {
        &self.facts
    }

    /// Digest of its facts as they are stored: the same for all versions of this library.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether it has labels.
    pub(crate) fn has_labels(&self) -> bool {
        self.facts.kind == JoinKind::Labels
    }

    /// Number of records.
    pub fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The rows of each row group.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        self.starts.array_windows().map(|&[start, end]| start..end)
    }

    /// An error with the command that makes the join again.
    pub(crate) fn error(&self, message: &str, storage: &Storage) -> Error {
        let again = self.facts.command.replacen("ingest join", &format!("ingest join {storage}"), 1);
        Error::Join { name: self.name.clone(), message: format!("{message}; make it again: {again} --overwrite") }
    }

    /// The values of some records, in the order of the dataset: a column of the join's kind, null in a record that no row is
    /// about.
    ///
    /// # Errors
    /// When there are no such records, or they cannot be read.
    pub fn values(&self, rows: Range<usize>) -> Result<ArrayRef> {
        let failed = |message: String| Error::Join { name: self.name.clone(), message };
        if rows.start > rows.end || rows.end > self.rows() {
            return Err(failed(format!("no records {} to {}", rows.start, rows.end)));
        }
        let mut pieces: Vec<ArrayRef> = Vec::new();
        for (group, own) in self.groups().enumerate() {
            let (start, end) = (own.start.max(rows.start), own.end.min(rows.end));
            if start < end {
                pieces.push(self.group(group)?.slice(start - own.start, end - start));
            }
        }
        match pieces.as_slice() {
            [] => Ok(arrow_array::new_empty_array(self.facts.schema().field(1).data_type())),
            [only] => Ok(only.clone()),
            several => {
                let several: Vec<&dyn Array> = several.iter().map(AsRef::as_ref).collect();
                concat(&several).map_err(|error| failed(error.to_string()))
            }
        }
    }

    /// The values of a row group.
    fn group(&self, group: usize) -> Result<ArrayRef> {
        let kept = self.kept.get(group);
        if let Some(values) = kept.and_then(OnceLock::get) {
            return Ok(values.clone());
        }
        let values = self.columns(group, &[self.facts.kind.name()])?.column(0).clone();
        Ok(kept.map_or_else(|| values.clone(), |slot| slot.get_or_init(|| values.clone()).clone()))
    }

    /// Some columns of a row group, as one batch.
    pub(crate) fn columns(&self, group: usize, names: &[&str]) -> Result<RecordBatch> {
        guarded(BROKEN, || self.checked_columns(group, names)).map_err(|error| match error {
            Error::Invalid(message) => Error::Join {
                name: self.name.clone(),
                message: format!("{message}; make it again, or restore it from a copy"),
            },
            other => other,
        })
    }

    fn checked_columns(&self, group: usize, names: &[&str]) -> Result<RecordBatch> {
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(error.to_string());
        let parquet = self.metadata.metadata();
        let schema = parquet.file_metadata().schema_descr();
        let roots = schema.root_schema().get_fields();
        let projection =
            ProjectionMask::roots(schema, (0..roots.len()).filter(|&at| names.contains(&roots[at].name())));
        let before: usize = parquet.row_groups()[..group].iter().map(RowGroupMetaData::num_columns).sum();
        let mut chunks = Vec::new();
        for (leaf, chunk) in parquet.row_group(group).columns().iter().enumerate() {
            if projection.leaf_included(leaf) {
                let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                let range = byte_range(start, chunk.compressed_size());
                let range = range.ok_or_else(|| invalid(&"a column is outside of the file"))?;
                chunks.push((range, self.crc32[before + leaf], chunk.column_path().string()));
            }
        }
        let ranges: Vec<Range<u64>> = chunks.iter().map(|(range, ..)| range.clone()).collect();
        let check = |at: usize, bytes: &[u8]| {
            let (_, crc32, column) = &chunks[at];
            if crc32fast::hash(bytes) == *crc32 {
                return Ok(());
            }
            let rows = format!("rows {} to {}", self.starts[group], self.starts[group + 1]);
            Err(Error::Invalid(format!("{rows}: `{column}` is damaged: its CRC-32 is another one")))
        };
        let read = self.file.read_checked(&ranges, check)?;
        let mut pieces: Vec<(u64, bytes::Bytes)> = ranges.iter().map(|range| range.start).zip(read).collect();
        pieces.sort_unstable_by_key(|(start, _)| *start);
        let file = Fetched { file: None, length: self.file.length(), pieces };
        let rows = self.starts[group + 1] - self.starts[group];
        let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(projection)
            .with_row_groups(vec![group])
            .with_batch_size(rows.max(1))
            .build()
            .map_err(|error| invalid(&error))?;
        let batch = reader.next().ok_or_else(|| invalid(&"a row group is empty"))?.map_err(|error| invalid(&error))?;
        if batch.num_rows() != rows {
            return Err(invalid(&format!("a row group has {} rows and not {rows}", batch.num_rows())));
        }
        Ok(batch)
    }
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::Io { cause, .. } => cause.kind() == std::io::ErrorKind::NotFound,
        Error::Store { fault, .. } => *fault == StoreFault::NoObject,
        _ => false,
    }
}

/// Why there is no join of a name, and which there are.
fn missing(storage: &Storage, name: &str) -> Result<String> {
    let known = known_joins(storage)?;
    Ok(if known.is_empty() {
        let shown = storage.path("");
        format!("this dataset has no join; make one: ingest join {} --name {name}", Path::new(&shown).display())
    } else {
        format!("there is none of this name (there are: {}); make one with `ingest join`", known.join(", "))
    })
}
