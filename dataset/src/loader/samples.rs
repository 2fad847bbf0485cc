//! The columns of each record that a loader needs besides its image.
//!
//! They are read by row groups, each when one of its records is first needed, and kept: the first batch of a large dataset
//! is ready quickly, and each column is read once.

use std::sync::{Arc, OnceLock};

use arrow_array::{
    Array, Float32Array, Int8Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray, UInt16Array,
};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::label::Label;
use crate::format::mask_column::MaskColumn;
use crate::format::record_checks;
use crate::format::record_rows::field;
use crate::format::schema::{BOXES, LABELS, MASKS};
use crate::format::table::column;
use crate::random;
use crate::tokenizer::ReportTokenizer;

/// Which columns are read besides sizes and labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptionalColumns {
    pub text: bool,
    pub boxes: bool,
    pub masks: bool,
    /// The mask of a record that is read; `None` means its first one.
    pub mask_name: Option<String>,
}

impl OptionalColumns {
    /// The text is that of reports where they are `tokenized` when they are read.
    fn names(&self, tokenized: bool) -> Vec<&'static str> {
        let mut columns = vec!["record_id", "height", "width", LABELS];
        columns.extend(self.text.then_some(if tokenized { "report" } else { "token_ids" }));
        columns.extend(self.boxes.then_some(BOXES));
        columns.extend(self.masks.then_some(MASKS));
        columns
    }
}

/// A box of a source.
pub(crate) struct StoredBox {
    pub label: Arc<str>,
    /// x, y, width, height, in pixels of the stored image.
    pub rectangle: [f32; 4],
}

/// One record.
pub(crate) struct Sample<'a> {
    /// Digest of its identifier, which names its random streams.
    pub digest: u64,
    pub height: u16,
    pub width: u16,
    /// By finding, as [`Label::tensor_value`] defines them.
    pub labels: &'a [f32],
    pub token_ids: &'a [i32],
    pub boxes: &'a [StoredBox],
    /// A PNG.
    pub mask: Option<&'a [u8]>,
}

impl Sample<'_> {
    /// An error where a value is invalid for a model. An id outside of the vocabulary would be a failed assertion on the
    /// device, which names no record.
    fn check(&self, vocabulary: usize) -> Result<(), String> {
        record_checks::token_ids(self.token_ids, vocabulary)?;
        self.labels
            .iter()
            .try_for_each(|&value| record_checks::label((!value.is_nan()).then_some(value as i8)).map(drop))?;
        self.boxes.iter().try_for_each(|stored| record_checks::rectangle(stored.rectangle, (self.height, self.width)))
    }
}

/// The records of a row group.
struct Group {
    digests: Vec<u64>,
    /// (height, width).
    sides: Vec<(u16, u16)>,
    /// `[records, findings]`
    labels: Vec<f32>,
    token_ids: Lists<i32>,
    boxes: Lists<StoredBox>,
    masks: Option<MaskColumn>,
}

/// A list for each record, one after the other.
struct Lists<T> {
    items: Vec<T>,
    /// Start of each record's items, and the end of the last; empty where no lists were read.
    starts: Vec<usize>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { items: Vec::new(), starts: Vec::new() }
    }
}

impl<T> Lists<T> {
    fn of(&self, record: usize) -> &[T] {
        match self.starts.get(record..record + 2) {
            Some(&[start, end]) => &self.items[start..end],
            _ => &[],
        }
    }

    fn read(lists: &ListArray, mut items: impl FnMut(&dyn Array, &mut Vec<T>) -> Option<()>) -> Option<Self> {
        let mut read = Self { items: Vec::new(), starts: vec![0] };
        for record in 0..lists.len() {
            items(&lists.value(record), &mut read.items)?;
            read.starts.push(read.items.len());
        }
        Some(read)
    }
}

/// Makes the token ids of stored reports.
#[derive(Clone)]
pub(crate) struct ReportReader {
    pub tokenizer: Arc<ReportTokenizer>,
    /// Longest list of token ids.
    pub max_tokens: usize,
}

impl ReportReader {
    /// The token ids of a row group's reports; none for a record without a report.
    fn token_ids(&self, reports: &StringArray) -> Result<Lists<i32>> {
        let mut lists = Lists { items: Vec::new(), starts: vec![0] };
        for report in reports {
            if let Some(report) = report.filter(|report| !report.is_empty()) {
                lists.items.extend(self.tokenizer.token_ids(report, self.max_tokens)?);
            }
            lists.starts.push(lists.items.len());
        }
        Ok(lists)
    }
}

/// The row groups of a dataset that were needed so far.
pub(crate) struct Samples {
    dataset: Arc<Dataset>,
    columns: OptionalColumns,
    /// Makes token ids from the stored reports, in place of those that are stored.
    tokenizer: Option<ReportReader>,
    findings: usize,
    /// By shard, by row group.
    shards: Vec<OnceLock<Vec<OnceLock<Group>>>>,
}

impl Samples {
    /// Nothing is read yet.
    pub fn new(dataset: Arc<Dataset>, columns: OptionalColumns, tokenizer: Option<ReportReader>) -> Self {
        let (findings, shards) = (dataset.findings().len(), dataset.manifest().shards.len());
        Self { dataset, columns, tokenizer, findings, shards: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    /// Whether token ids are made from the stored reports.
    pub fn tokenizes(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The record of a row.
    ///
    /// # Errors
    /// When its shard or row group cannot be read, or it has an invalid value.
    pub fn of(&self, row: usize) -> Result<Sample<'_>> {
        let (index, row) = self.dataset.place(row)?;
        let shard = self.dataset.shard(index)?;
        let number = shard.group_of(row)?;
        let groups = self.shards[index].get_or_init(|| (0..shard.groups()).map(|_| OnceLock::new()).collect());
        let group = if let Some(group) = groups[number].get() {
            group
        } else {
            let names = self.columns.names(self.tokenizer.is_some());
            let batch = self.dataset.group_columns(index, number, &names)?;
            let wrong_type = || shard.row_error(row, "a column has another type than the format's");
            // Two threads may read the same group; the second result is dropped.
            let mut group = Group::read(&batch, self.findings, &self.columns).ok_or_else(wrong_type)?;
            if let Some(tokenizer) = &self.tokenizer {
                let reports = column::<StringArray>(&batch, "report").ok_or_else(wrong_type)?;
                group.token_ids =
                    tokenizer.token_ids(reports).map_err(|error| shard.row_error(row, error.to_string()))?;
            }
            groups[number].get_or_init(|| group)
        };
        let at = row - shard.group(number).start;
        let (Some(&digest), Some(&(height, width))) = (group.digests.get(at), group.sides.get(at)) else {
            return Err(shard.row_error(row, "its row group is too short"));
        };
        let sample = Sample {
            digest,
            height,
            width,
            labels: &group.labels[at * self.findings..(at + 1) * self.findings],
            token_ids: group.token_ids.of(at),
            boxes: group.boxes.of(at),
            mask: group.masks.as_ref().and_then(|masks| masks.get(at, self.columns.mask_name.as_deref())),
        };
        let stored = self.dataset.manifest().text.vocabulary;
        let checked = sample.check(self.tokenizer.as_ref().map_or(stored, |reader| reader.tokenizer.vocabulary()));
        checked.map(|()| sample).map_err(|message| shard.row_error(row, format!("{message}; ingest again")))
    }

    /// The error of a record that cannot be used.
    pub fn row_error(&self, row: usize, message: &str) -> Error {
        match self.dataset.locate(row) {
            Ok((shard, row)) => shard.row_error(row, message),
            Err(error) => error,
        }
    }
}

impl Group {
    /// `None` where a column has another type than the format's.
    fn read(batch: &RecordBatch, findings: usize, columns: &OptionalColumns) -> Option<Self> {
        let ids = column::<StringArray>(batch, "record_id")?;
        let (heights, widths) = (column::<UInt16Array>(batch, "height")?, column::<UInt16Array>(batch, "width")?);
        let fields = column::<StructArray>(batch, LABELS)?.columns().iter().take(findings);
        let codes: Vec<&Int8Array> = fields.map(|codes| codes.as_any().downcast_ref()).collect::<Option<_>>()?;
        let mut labels = Vec::with_capacity(ids.len() * findings);
        for record in 0..ids.len() {
            // The raw code, so that an invalid one is an error of its record alone.
            let value = |codes: &&Int8Array| {
                if codes.is_valid(record) { f32::from(codes.value(record)) } else { Label::tensor_value(None) }
            };
            labels.extend(codes.iter().map(value));
        }
        let token_ids = match column::<ListArray>(batch, "token_ids") {
            None => Lists::default(),
            Some(lists) => Lists::read(lists, |list, items| {
                items.extend_from_slice(list.as_any().downcast_ref::<Int32Array>()?.values());
                Some(())
            })?,
        };
        let boxes = match column::<ListArray>(batch, BOXES) {
            None => Lists::default(),
            Some(lists) => Lists::read(lists, |list, items| {
                let list = list.as_any().downcast_ref::<StructArray>()?;
                let names = field::<StringArray>(list, "label")?;
                let edge = |name: &str| field::<Float32Array>(list, name);
                let edges = [edge("x")?, edge("y")?, edge("width")?, edge("height")?];
                items.extend((0..list.len()).map(|at| StoredBox {
                    label: names.value(at).into(),
                    rectangle: edges.map(|edge| edge.value(at)),
                }));
                Some(())
            })?,
        };
        Some(Self {
            digests: (0..ids.len()).map(|record| random::digest(ids.value(record))).collect(),
            sides: heights.values().iter().copied().zip(widths.values().iter().copied()).collect(),
            labels,
            token_ids,
            boxes,
            masks: if columns.masks { Some(MaskColumn::of(batch)?) } else { None },
        })
    }
}
