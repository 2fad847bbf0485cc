//! Writes a join.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_buffer::NullBuffer;
use arrow_schema::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::checksums::{CHECKSUMS_KEY, PageChecksums};
use crate::format::record::Record;
use crate::format::record_batch::{BATCH_BYTES, fitting, to_batch};
use crate::join::facts::{JoinCounts, JoinFacts};
use crate::join::stored::{FACTS_CRC32_KEY, FACTS_KEY, join_path};
use crate::store::storage::Storage;

/// Most rows of a row group whose values are small.
const MOST_ROWS: usize = 1 << 16;

/// The rows of each row group of a join: whole row groups of the shards, one of them where values are large, since a loader
/// reads so many rows at once.
///
/// # Errors
/// When a shard cannot be opened.
pub fn row_groups(dataset: &Dataset, facts: &JoinFacts) -> Result<Vec<Range<usize>>> {
    let most = if facts.kind.is_large() { 1 } else { MOST_ROWS };
    let mut groups: Vec<Range<usize>> = Vec::new();
    for rows in stored_groups(dataset)? {
        match groups.last_mut() {
            Some(last) if rows.end - last.start <= most => last.end = rows.end,
            _ => groups.push(rows),
        }
    }
    Ok(groups)
}

/// The rows of each row group of the shards, in their order.
fn stored_groups(dataset: &Dataset) -> Result<Vec<Range<usize>>> {
    let (mut groups, mut first) = (Vec::new(), 0);
    for index in 0..dataset.manifest().shards.len() {
        let shard = dataset.shard(index)?;
        groups
            .extend((0..shard.groups()).map(|group| first + shard.group(group).start..first + shard.group(group).end));
        first += shard.rows();
    }
    Ok(groups)
}

/// Writes a join row group by row group into memory, and then as a whole into its dataset.
pub struct JoinWriter {
    writer: ArrowWriter<Vec<u8>>,
    checksums: PageChecksums,
    facts: JoinFacts,
    path: String,
}

impl JoinWriter {
    /// Begins a join of this name; the counts of the facts are those of [`JoinWriter::finish`].
    ///
    /// # Errors
    /// Those of the Parquet library.
    pub fn new(name: &str, facts: JoinFacts) -> Result<Self> {
        let path = join_path(name);
        let properties = WriterProperties::builder()
            .set_created_by(concat!("mrm ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(None)
            .build();
        let checksums = PageChecksums::default();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_page_store_factory(Arc::new(checksums.clone()));
        let writer = ArrowWriter::try_new_with_options(Vec::new(), facts.schema(), options)
            .map_err(Error::parquet(path.as_ref()))?;
        Ok(Self { writer, checksums, facts, path })
    }

    /// What the join is about.
    pub fn facts(&self) -> &JoinFacts {
        &self.facts
    }

    /// Appends a row group: the records in the order of the dataset, with `record_id` and the value of the join's kind; the
    /// value is null where `has_value` is false.
    ///
    /// # Errors
    /// When a value has another form than the kind's.
    pub fn write(&mut self, records: &[Record], has_value: &[bool]) -> Result<()> {
        let mut start = 0;
        while start < records.len() {
            let end = start + fitting(records[start..].iter(), BATCH_BYTES);
            let batch = self.batch(&records[start..end], &has_value[start..end])?;
            self.writer.write(&batch).map_err(Error::parquet(self.path.as_ref()))?;
            start = end;
        }
        self.writer.flush().map_err(Error::parquet(self.path.as_ref()))
    }

    fn batch(&self, records: &[Record], has_value: &[bool]) -> Result<RecordBatch> {
        let schema = self.facts.schema();
        let invalid = |error: ArrowError| Error::Invalid(format!("{}: {error}", self.path));
        let whole = to_batch(&schema, records).map_err(invalid)?;
        let column = with_nulls(whole.column(1), has_value).map_err(invalid)?;
        RecordBatch::try_new(schema, vec![whole.column(0).clone(), column]).map_err(invalid)
    }

    /// Completes the join with what was counted, and writes it into the dataset, whole or not at all, over one of the same name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, storage: &Storage, counts: JoinCounts) -> Result<JoinFacts> {
        let (path, bytes, facts) = self.complete(counts)?;
        storage.write(&path, bytes)?;
        Ok(facts)
    }

    /// As [`JoinWriter::finish`], unless there is a join of the same name ([`Storage::create`]); `None` where there is one of
    /// other bytes.
    ///
    /// # Errors
    /// As [`JoinWriter::finish`].
    pub fn finish_new(self, storage: &Storage, counts: JoinCounts) -> Result<Option<JoinFacts>> {
        let (path, bytes, facts) = self.complete(counts)?;
        Ok(storage.create(&path, bytes)?.then_some(facts))
    }

    /// The path, the bytes and the facts of the join.
    fn complete(mut self, counts: JoinCounts) -> Result<(String, Vec<u8>, JoinFacts)> {
        self.facts.counts = counts;
        let failed = |error| Error::parquet(self.path.as_ref())(error);
        let facts = serde_json::to_string(&self.facts).map_err(Error::json(self.path.as_ref()))?;
        let crc32 = format!("{:08x}", crc32fast::hash(facts.as_bytes()));
        for (key, value) in [(FACTS_KEY, facts), (FACTS_CRC32_KEY, crc32), (CHECKSUMS_KEY, self.checksums.encode())] {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let bytes = self.writer.into_inner().map_err(failed)?;
        Ok((self.path, bytes, self.facts))
    }
}

/// A column whose rows are null where `has_value` is false.
fn with_nulls(column: &ArrayRef, has_value: &[bool]) -> Result<ArrayRef, ArrowError> {
    let nulls = NullBuffer::from(has_value.to_vec());
    Ok(make_array(column.to_data().into_builder().nulls(Some(nulls)).build()?))
}
