//! What a loader needs of each record beside its image. It is read by row groups, each when one of its records is first
//! wanted, and kept: a loader over a large dataset gives its first batch at once, and each column is read once.

use std::sync::{Arc, OnceLock};

use arrow_array::{
    Array, BinaryArray, Float32Array, Int8Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt16Array,
};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::record_checks;
use crate::format::table::column;
use crate::random;

/// What is wanted beside sides and labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub text: bool,
    pub boxes: bool,
    pub masks: bool,
}

impl Wanted {
    fn columns(self) -> Vec<&'static str> {
        let mut columns = vec!["record_id", "height", "width", "labels"];
        columns.extend(self.text.then_some("token_ids"));
        columns.extend(self.boxes.then_some("boxes"));
        columns.extend(self.masks.then_some("mask"));
        columns
    }
}

/// A source's rectangle in stored-image pixels: x, y, width, height.
pub struct Drawn {
    pub label: Arc<str>,
    pub place: [f32; 4],
}

/// One record.
pub struct Sample<'a> {
    /// Digest of its identifier, which names its random streams.
    pub digest: u64,
    pub height: u16,
    pub width: u16,
    /// Codes: 1, 0, -1 uncertain, NaN not mentioned.
    pub labels: &'a [f32],
    pub token_ids: &'a [i32],
    pub boxes: &'a [Drawn],
    /// A PNG.
    pub mask: Option<&'a [u8]>,
}

impl Sample<'_> {
    /// An error where a value would make a model fail or learn nonsense: an id outside of the vocabulary is an assertion
    /// on a device, which names no record.
    fn check(&self, vocabulary: usize) -> Result<(), String> {
        record_checks::token_ids(self.token_ids, vocabulary)?;
        self.labels.iter().filter(|code| !code.is_nan()).try_for_each(|&code| record_checks::label(code as i8))?;
        self.boxes.iter().try_for_each(|drawn| record_checks::place(drawn.place, (self.height, self.width)))
    }
}

/// The records of a row group, their lists one behind the other.
struct Group {
    digests: Vec<u64>,
    /// (height, width).
    sides: Vec<(u16, u16)>,
    labels: Vec<f32>,
    token_ids: Lists<i32>,
    boxes: Lists<Drawn>,
    masks: Option<BinaryArray>,
}

/// A list for each record.
struct Lists<T> {
    items: Vec<T>,
    /// Start of each record's items, and one past the last; empty where no lists were read.
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

/// The row groups of a dataset that were needed so far.
pub struct Samples {
    dataset: Arc<Dataset>,
    wanted: Wanted,
    findings: usize,
    /// By shard, by row group.
    shards: Vec<OnceLock<Vec<OnceLock<Group>>>>,
}

impl Samples {
    /// Of this dataset; nothing is read yet.
    pub fn new(dataset: Arc<Dataset>, wanted: Wanted) -> Self {
        let (findings, shards) = (dataset.findings().len(), dataset.manifest().shards.len());
        Self { dataset, wanted, findings, shards: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    /// The record of a row.
    ///
    /// # Errors
    /// When its shard or row group cannot be read.
    pub fn of(&self, row: usize) -> Result<Sample<'_>> {
        let (index, row) = self.dataset.place(row)?;
        let shard = self.dataset.shard(index)?;
        let number = shard.group_of(row)?;
        let groups = self.shards[index].get_or_init(|| (0..shard.groups()).map(|_| OnceLock::new()).collect());
        let group = if let Some(group) = groups[number].get() {
            group
        } else {
            let batch = shard.group_columns(number, &self.wanted.columns())?;
            let other = || shard.row_error(row, "a column has another type than the format's");
            // Two threads may read the same group; one of the two is dropped.
            let group = Group::read(&batch, self.findings).ok_or_else(other)?;
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
            mask: group.masks.as_ref().filter(|masks| masks.is_valid(at)).map(|masks| masks.value(at)),
        };
        let checked = sample.check(self.dataset.manifest().text.vocabulary);
        checked.map(|()| sample).map_err(|message| shard.row_error(row, format!("{message}; ingest again")))
    }

    /// The error of a record that cannot be used.
    pub fn refused(&self, row: usize, message: &str) -> Error {
        match self.dataset.locate(row) {
            Ok((shard, row)) => shard.row_error(row, message),
            Err(error) => error,
        }
    }
}

impl Group {
    /// `None` where a column has another type than the format's.
    fn read(batch: &RecordBatch, findings: usize) -> Option<Self> {
        let ids = column::<StringArray>(batch, "record_id")?;
        let (heights, widths) = (column::<UInt16Array>(batch, "height")?, column::<UInt16Array>(batch, "width")?);
        let fields = column::<StructArray>(batch, "labels")?.columns().iter().take(findings);
        let codes: Vec<&Int8Array> = fields.map(|codes| codes.as_any().downcast_ref()).collect::<Option<_>>()?;
        let mut labels = Vec::with_capacity(ids.len() * findings);
        for record in 0..ids.len() {
            let code = |codes: &&Int8Array| if codes.is_valid(record) { codes.value(record).into() } else { f32::NAN };
            labels.extend(codes.iter().map(code));
        }
        let token_ids = match column::<ListArray>(batch, "token_ids") {
            None => Lists::default(),
            Some(lists) => Lists::read(lists, |list, items| {
                items.extend_from_slice(list.as_any().downcast_ref::<Int32Array>()?.values());
                Some(())
            })?,
        };
        let boxes = match column::<ListArray>(batch, "boxes") {
            None => Lists::default(),
            Some(lists) => Lists::read(lists, |list, items| {
                let list = list.as_any().downcast_ref::<StructArray>()?;
                let names = list.column(0).as_any().downcast_ref::<StringArray>()?;
                let edge = |at: usize| list.column(at).as_any().downcast_ref::<Float32Array>();
                let edges = [edge(1)?, edge(2)?, edge(3)?, edge(4)?];
                items.extend(
                    (0..list.len())
                        .map(|at| Drawn { label: names.value(at).into(), place: edges.map(|edge| edge.value(at)) }),
                );
                Some(())
            })?,
        };
        Some(Self {
            digests: (0..ids.len()).map(|record| random::digest(ids.value(record))).collect(),
            sides: heights.values().iter().copied().zip(widths.values().iter().copied()).collect(),
            labels,
            token_ids,
            boxes,
            masks: column::<BinaryArray>(batch, "mask").cloned(),
        })
    }
}
