//! The columns of each record that a loader needs besides its image.
//!
//! They are read by row groups, each when one of its records is first needed, and kept: the first batch of a large dataset
//! is ready quickly, and each column is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arrow_array::{
    Array, Float32Array, Int8Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray, UInt16Array,
};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::label::Label;
use crate::format::mask_column::MaskColumn;
use crate::format::record_checks;
use crate::format::record_rows::{field, window_at};
use crate::format::schema::{BOXES, LABELS, MASKS, WINDOW};
use crate::format::shard::Shard;
use crate::format::table::column;
use crate::loader::lists::Lists;
use crate::loader::texts::{RecordTexts, TextReader, Texts};
use crate::random;

/// Which columns are read besides sizes and labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptionalColumns {
    pub text: bool,
    pub boxes: bool,
    pub masks: bool,
    /// The mask of a record that is read; `None` means its first one.
    pub mask_name: Option<String>,
    /// The windows of pixels of 16 bits.
    pub windows: bool,
}

impl OptionalColumns {
    /// The text is that of reports where they are `tokenized` when they are read.
    fn names(&self, tokenized: bool) -> Vec<&'static str> {
        let mut columns = vec!["record_id", "height", "width", LABELS];
        columns.extend(self.text.then_some(if tokenized { "report" } else { "token_ids" }));
        columns.extend(self.boxes.then_some(BOXES));
        columns.extend(self.masks.then_some(MASKS));
        columns.extend(self.windows.then_some(WINDOW));
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
    /// Its sections and sentences.
    pub texts: RecordTexts<'a>,
    pub boxes: &'a [StoredBox],
    /// A PNG.
    pub mask: Option<&'a [u8]>,
    /// Center and width of the window of pixels of 16 bits.
    pub window: Option<[f32; 2]>,
}

impl Sample<'_> {
    /// An error where a value is invalid for a model. An id outside of the vocabulary would be a failed assertion on the
    /// device, which names no record.
    fn check(&self, vocabulary: usize) -> Result<(), String> {
        record_checks::token_ids(self.token_ids, vocabulary)?;
        self.texts.sections().try_for_each(|ids| record_checks::token_ids(ids, vocabulary))?;
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
    texts: Texts,
    boxes: Lists<StoredBox>,
    masks: Option<MaskColumn>,
    /// Of each record; empty where pixels have 8 bits.
    windows: Vec<Option<[f32; 2]>>,
}

/// The row groups of a dataset that were needed so far.
pub(crate) struct Samples {
    dataset: Arc<Dataset>,
    columns: OptionalColumns,
    texts: TextReader,
    findings: usize,
    /// By shard, by row group.
    shards: Vec<OnceLock<Vec<OnceLock<Group>>>>,
}

impl Samples {
    /// Nothing is read yet.
    pub fn new(dataset: Arc<Dataset>, columns: OptionalColumns, texts: TextReader) -> Self {
        let (findings, shards) = (dataset.findings().len(), dataset.manifest().shards.len());
        Self { dataset, columns, texts, findings, shards: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    /// Whether token ids are made from the stored reports.
    pub fn tokenizes(&self) -> bool {
        self.texts.is_other
    }

    /// Opens the shards and reads the row groups of some rows, several at the same time: a store takes as long for many as for
    /// one. What cannot be read is left to [`Samples::of`].
    pub fn read_ahead(&self, rows: &[u32]) {
        let places: Vec<(usize, usize)> =
            rows.iter().filter_map(|&row| self.dataset.place(row as usize).ok()).collect();
        let closed: BTreeSet<usize> =
            places.iter().map(|&(shard, _)| shard).filter(|&shard| self.shards[shard].get().is_none()).collect();
        at_once(closed.into_iter().collect(), |shard| drop(self.groups(shard)));
        // By row group, one of its rows.
        let mut missing = BTreeMap::new();
        for (index, row) in places {
            let Ok((shard, groups)) = self.groups(index) else { continue };
            let Ok(number) = shard.group_of(row) else { continue };
            if groups[number].get().is_none() {
                missing.entry((index, number)).or_insert((index, row));
            }
        }
        at_once(missing.into_values().collect(), |(index, row)| drop(self.group(index, row)));
    }

    /// Number of row groups that were read.
    #[cfg(test)]
    pub fn groups_read(&self) -> usize {
        self.shards.iter().filter_map(OnceLock::get).flatten().filter(|group| group.get().is_some()).count()
    }

    /// A shard, and its row groups that were read.
    fn groups(&self, index: usize) -> Result<(&Shard, &[OnceLock<Group>])> {
        let shard = self.dataset.shard(index)?;
        Ok((shard, self.shards[index].get_or_init(|| (0..shard.groups()).map(|_| OnceLock::new()).collect())))
    }

    /// The row group of a row of a shard.
    fn group(&self, index: usize, row: usize) -> Result<&Group> {
        let (shard, groups) = self.groups(index)?;
        let number = shard.group_of(row)?;
        if let Some(group) = groups[number].get() {
            return Ok(group);
        }
        let mut names = self.columns.names(self.texts.is_other);
        names.extend(self.texts.columns());
        let batch = self.dataset.group_columns(index, number, &names)?;
        let wrong_type = || shard.row_error(row, "a column has another type than the format's");
        // Two threads may read the same group; the second result is dropped.
        let mut group = Group::read(&batch, self.findings, &self.columns).ok_or_else(wrong_type)?;
        let not_tokenized = |error: Error| shard.row_error(row, error.to_string());
        if let Some(reader) = self.texts.reader.as_ref().filter(|_| self.columns.text && self.texts.is_other) {
            let reports = column::<StringArray>(&batch, "report").ok_or_else(wrong_type)?;
            group.token_ids = reader.token_ids(reports).map_err(not_tokenized)?;
        }
        group.texts = self.texts.read(&batch).map_err(not_tokenized)?.ok_or_else(wrong_type)?;
        Ok(groups[number].get_or_init(|| group))
    }

    /// The record of a row.
    ///
    /// # Errors
    /// When its shard or row group cannot be read, or it has an invalid value.
    pub fn of(&self, row: usize) -> Result<Sample<'_>> {
        let (index, row) = self.dataset.place(row)?;
        let group = self.group(index, row)?;
        let shard = self.dataset.shard(index)?;
        let at = row - shard.group(shard.group_of(row)?).start;
        let (Some(&digest), Some(&(height, width))) = (group.digests.get(at), group.sides.get(at)) else {
            return Err(shard.row_error(row, "its row group is too short"));
        };
        let sample = Sample {
            digest,
            height,
            width,
            labels: &group.labels[at * self.findings..(at + 1) * self.findings],
            token_ids: group.token_ids.of(at),
            texts: group.texts.of(at),
            boxes: group.boxes.of(at),
            mask: group.masks.as_ref().and_then(|masks| masks.get(at, self.columns.mask_name.as_deref())),
            window: group.windows.get(at).copied().flatten(),
        };
        let stored = self.dataset.manifest().text.vocabulary;
        let reader = self.texts.reader.as_ref().filter(|_| self.texts.is_other);
        let checked = sample.check(reader.map_or(stored, |reader| reader.tokenizer.vocabulary()));
        let bits = if self.columns.windows && height > 0 { 16 } else { 8 };
        let checked = checked.and_then(|()| record_checks::window(sample.window, bits));
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

/// Threads that wait for row groups at the same time.
const WAITING: usize = 32;

/// Does some work for each item, on threads that wait most of the time.
fn at_once<T: Copy + Send + Sync>(items: Vec<T>, work: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for some in items.chunks(items.len().div_ceil(WAITING).max(1)) {
            let work = &work;
            // Where no thread can be started, the work is left undone.
            let _ = std::thread::Builder::new().spawn_scoped(scope, move || some.iter().for_each(|&item| work(item)));
        }
    });
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
            texts: Texts::default(),
            boxes,
            masks: if columns.masks { Some(MaskColumn::of(batch)?) } else { None },
            windows: if columns.windows {
                (0..ids.len()).map(|record| window_at(batch, record)).collect::<Option<_>>()?
            } else {
                Vec::new()
            },
        })
    }
}
