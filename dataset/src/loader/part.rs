//! One dataset of a loader, and the records of it that are loaded.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::view::ViewKind;
use crate::loader::order::Draw;
use crate::loader::samples::{Sample, Samples};
use crate::loader::studies::{Slot, Studies};
use crate::split::ratio::Ratio;
use crate::split::stored::Split;
use crate::split::types::Subset;

/// One dataset of a mixture ([`Loader::mixture`](crate::Loader::mixture)), and the records of it that are loaded.
#[derive(Clone)]
pub struct MixturePart {
    pub(crate) dataset: Arc<Dataset>,
    rows: Option<Vec<u32>>,
}

impl MixturePart {
    /// All records of a dataset.
    pub fn new(dataset: &Arc<Dataset>) -> Self {
        Self { dataset: dataset.clone(), rows: None }
    }

    /// Loads one subset of a split.
    #[must_use]
    pub fn subset(self, split: &Split, subset: Subset) -> Self {
        self.rows(split.rows(subset, None))
    }

    /// Loads those records of a split's training subset whose labels may be seen at a ratio: a [`Ratio`], or a number in
    /// percent.
    ///
    /// # Errors
    /// When the split has no such ratio.
    pub fn ratio<R: TryInto<Ratio>>(self, split: &Split, ratio: R) -> Result<Self>
    where
        Error: From<R::Error>,
    {
        let ratio = ratio.try_into()?;
        split.check_ratio(ratio)?;
        Ok(self.rows(split.rows(Subset::Train, Some(ratio))))
    }

    /// Rows to load, by their numbers in the dataset; a row may occur several times. Default: all.
    #[must_use]
    pub fn rows(mut self, rows: Vec<u32>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Loads the dataset as it is with a join ([`Dataset::with_joins`]).
    ///
    /// # Errors
    /// When the join is missing, damaged, or of other shards.
    pub fn join(mut self, name: &str) -> Result<Self> {
        self.dataset = Arc::new(self.dataset.joined(&[name])?);
        Ok(self)
    }

    /// The rows, checked.
    pub(crate) fn checked_rows(&self) -> Result<Vec<u32>> {
        let rows = match &self.rows {
            Some(rows) => rows.clone(),
            None => self.dataset.all_rows()?,
        };
        if rows.is_empty() {
            return Err(Error::Invalid("loader: no record to load: is this subset or ratio empty?".to_owned()));
        }
        match rows.iter().find(|&&row| row as usize >= self.dataset.len()) {
            Some(row) => Err(Error::Invalid(format!("loader: row {row} of {} records", self.dataset.len()))),
            None => Ok(rows),
        }
    }

    /// An error of this dataset; in a mixture it names the dataset.
    pub(crate) fn error(&self, error: Error, is_mixed: bool) -> Error {
        if !is_mixed {
            return error;
        }
        let dataset = self.dataset.storage().path("").display().to_string();
        Error::InDataset { dataset, error: Box::new(error) }
    }
}

/// The records of one dataset, as a loader's threads use them.
pub(crate) struct Part {
    pub source: MixturePart,
    pub rows: Vec<u32>,
    /// How often the row of each position occurs before it: what distinguishes the copies of a record. Empty without
    /// copies.
    repeats: Vec<u32>,
    pub samples: Samples,
    /// The studies of the rows, where they are the samples.
    studies: Option<Studies>,
    /// Whether its records have no images: their reports are loaded alone.
    pub is_text_only: bool,
    /// The column of each of its findings in a batch's labels; none where they are the same.
    columns: Option<Vec<usize>>,
    /// How many earlier parts of the mixture are of the same dataset.
    pub copy: u64,
}

impl Part {
    /// `findings` are those of the batches.
    pub fn new(source: MixturePart, rows: Vec<u32>, samples: Samples, findings: &[String], copy: u64) -> Self {
        let own = source.dataset.findings();
        let place = |name: &String| findings.iter().position(|finding| finding == name).unwrap_or(0);
        let columns = (own != findings).then(|| own.iter().map(place).collect());
        let (studies, is_text_only) = (None, false);
        Self { repeats: repeats(&rows), source, rows, samples, studies, is_text_only, columns, copy }
    }

    /// The same with studies as its samples, where there are some, and with or without images.
    pub fn with(self, studies: Option<Studies>, is_text_only: bool) -> Self {
        Self { studies, is_text_only, ..self }
    }

    /// Whether its dataset is in an object store.
    pub fn is_remote(&self) -> bool {
        self.source.dataset.storage().as_folder().is_none()
    }

    /// Number of samples: studies or rows.
    pub fn len(&self) -> usize {
        self.studies.as_ref().map_or(self.rows.len(), Studies::len)
    }

    /// What distinguishes the sample of a position from others of its identifier in the same pass; 0 for the first one.
    pub fn copy_of(&self, position: usize) -> u64 {
        self.copy << 32 | u64::from(self.repeats.get(position).copied().unwrap_or(0))
    }

    /// Appends the rows of the sample of a position: one, or those of a study in the order of its views.
    pub fn add_rows(&self, position: usize, rows: &mut Vec<u32>) {
        match &self.studies {
            Some(studies) => rows.extend(studies.views(position).iter().map(|&(_, row)| row)),
            None => rows.push(self.rows[position]),
        }
    }

    /// Appends the slots of a drawn sample: one, or those of a study.
    pub fn add_slots(&self, draw: &Draw, seed: u64, slots: &mut Vec<Slot>) {
        let position = draw.position as usize;
        let copy = self.copy_of(position);
        if let Some(studies) = &self.studies {
            studies.add_slots(position, [seed, draw.pass, copy], slots);
        } else {
            let view = ViewKind::Unknown.code();
            slots.push(Slot { row: Some(self.rows[position]), own: Some(0), view, copy });
        }
    }

    /// Appends the labels of a sample of these records, `count` of them: NaN for findings that its dataset does not have. Of
    /// several records a finding is positive where it is in one of them, else uncertain, else negative.
    pub fn add_labels(&self, records: &[Sample], count: usize, labels: &mut Vec<f32>) {
        let start = labels.len();
        let Some(columns) = &self.columns else {
            let mut records = records.iter();
            labels.extend_from_slice(records.next().map_or(&[], |first| first.labels));
            for record in records {
                labels[start..]
                    .iter_mut()
                    .zip(record.labels)
                    .for_each(|(value, &label)| *value = either(*value, label));
            }
            return;
        };
        labels.resize(start + count, f32::NAN);
        for record in records {
            for (&column, &label) in columns.iter().zip(record.labels) {
                if let Some(value) = labels.get_mut(start + column) {
                    *value = either(*value, label);
                }
            }
        }
    }
}

/// The label of a finding that one record and another have, as [`Label::tensor_value`](crate::Label::tensor_value) defines
/// them.
fn either(one: f32, other: f32) -> f32 {
    let rank = |label: f32| match label {
        label if label > 0.0 => 3,
        label if label < 0.0 => 2,
        label if label.is_nan() => 0,
        _ => 1,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// How often each row occurs before its position; empty where none occurs twice.
fn repeats(rows: &[u32]) -> Vec<u32> {
    let mut seen: HashMap<u32, u32> = HashMap::with_capacity(rows.len());
    let before = |&row| {
        let count = seen.entry(row).or_insert(0);
        *count += 1;
        *count - 1
    };
    let repeats: Vec<u32> = rows.iter().map(before).collect();
    if repeats.iter().all(|&count| count == 0) { Vec::new() } else { repeats }
}
