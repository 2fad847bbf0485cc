//! The columns of a dataset that splits are made of, in few allocations, since each training run reads them.

use std::collections::HashMap;

use arrow_array::{Array, Int8Array, StringArray, StructArray};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::label::Label;
use crate::format::table;
use crate::join::view::View;
use crate::split::types::Unit;

/// Records with their patients, studies and positive findings, in the order of the dataset's rows.
pub struct IndexTable {
    /// Identifier of each record.
    pub records: Vec<String>,
    /// Index of each record's patient in `patient_names`.
    pub patients: Vec<u32>,
    /// Identifiers of the patients.
    pub patient_names: Vec<String>,
    /// Number of each record's study; studies of two patients differ, even if they have the same identifier.
    pub studies: Vec<u32>,
    /// Whether a record has a label of any finding.
    pub labeled: Vec<bool>,
    findings: usize,
    /// The positive findings of record `i` are `positives[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    positives: Vec<usize>,
    /// Groups of rows with equal images, and the number of the group of units that each row stays together with.
    duplicates: Option<(Vec<Vec<u32>>, Vec<u32>)>,
}

/// One record of an index_table.
pub struct Entry<'a> {
    /// Identifier of the record.
    pub record: &'a str,
    /// Identifier of its patient.
    pub patient: &'a str,
    /// Identifier of its study.
    pub study: &'a str,
    /// Positions of its positive findings.
    pub positives: Vec<usize>,
    /// Whether it has a label of any finding.
    pub labeled: bool,
}

impl IndexTable {
    /// Reads the columns of a dataset as they are stored, without joins.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(dataset: &Dataset) -> Result<Self> {
        Self::load_with(dataset, &View::stored(dataset.manifest()))
    }

    /// Reads the columns of a dataset with the labels of a view.
    pub(crate) fn load_with(dataset: &Dataset, view: &View) -> Result<Self> {
        let names = ["record_id", "patient_id", "study_id", "labels"];
        let batches = dataset.columns_of(view, &names, dataset.len())?;
        let findings = view.findings.len();
        let mut entries = Vec::with_capacity(dataset.len());
        for batch in &batches {
            let texts = |name: &str| {
                let wrong = || Error::Invalid(format!("`{name}` is not a text column"));
                table::column::<StringArray>(batch, name).ok_or_else(wrong)
            };
            let (records, patients, studies) = (texts("record_id")?, texts("patient_id")?, texts("study_id")?);
            let codes = table::column::<StructArray>(batch, "labels")
                .and_then(|labels| {
                    let columns = labels.columns().iter().take(findings);
                    columns.map(|codes| codes.as_any().downcast_ref::<Int8Array>()).collect::<Option<Vec<_>>>()
                })
                .ok_or_else(|| Error::Invalid("`labels` is not a struct of int8".to_owned()))?;
            entries.extend((0..batch.num_rows()).map(|row| {
                Entry {
                    record: records.value(row),
                    patient: patients.value(row),
                    study: studies.value(row),
                    positives: (0..codes.len())
                        .filter(|&at| codes[at].is_valid(row) && codes[at].value(row) == Label::Positive.code())
                        .collect(),
                    labeled: codes.iter().any(|codes| codes.is_valid(row)),
                }
            }));
        }
        Ok(Self::new(findings, entries))
    }

    /// A table of these records, of a dataset with so many findings.
    pub fn new(findings: usize, entries: Vec<Entry>) -> Self {
        let mut index_table = Self {
            records: Vec::with_capacity(entries.len()),
            patients: Vec::with_capacity(entries.len()),
            patient_names: Vec::new(),
            studies: Vec::with_capacity(entries.len()),
            labeled: Vec::with_capacity(entries.len()),
            findings,
            starts: vec![0],
            positives: Vec::new(),
            duplicates: None,
        };
        let mut patient_of: HashMap<&str, u32> = HashMap::new();
        let mut study_of: HashMap<(u32, &str), u32> = HashMap::new();
        for entry in entries {
            index_table.records.push(entry.record.to_owned());
            let patient = *patient_of.entry(entry.patient).or_insert_with_key(|name| {
                index_table.patient_names.push((*name).to_owned());
                index_table.patient_names.len() as u32 - 1
            });
            index_table.patients.push(patient);
            let next = study_of.len() as u32;
            index_table.studies.push(*study_of.entry((patient, entry.study)).or_insert(next));
            index_table.labeled.push(entry.labeled);
            index_table.positives.extend(entry.positives);
            index_table.starts.push(index_table.positives.len());
        }
        index_table
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Number of findings of the dataset.
    pub fn findings(&self) -> usize {
        self.findings
    }

    /// Positions of the positive findings of a record.
    pub fn positives(&self, row: usize) -> &[usize] {
        &self.positives[self.starts[row]..self.starts[row + 1]]
    }

    /// Keeps rows together, and with them all other rows of their units. `joined` has the number of the group of each row.
    pub(crate) fn keep_together(&mut self, groups: Vec<Vec<u32>>, joined: Vec<u32>) {
        self.duplicates = Some((groups, joined));
    }

    /// The groups of rows with equal images, where they are kept together.
    pub(crate) fn duplicates(&self) -> Option<&[Vec<u32>]> {
        self.duplicates.as_ref().map(|(groups, _)| groups.as_slice())
    }

    /// Number of the group of records that a record stays together with.
    pub fn group(&self, unit: Unit, row: usize) -> u32 {
        if let Some((_, joined)) = &self.duplicates {
            return joined[row];
        }
        match unit {
            Unit::Patient => self.patients[row],
            Unit::Study => self.studies[row],
            Unit::Image => row as u32,
        }
    }

    /// The rows in the order of their identifiers, which does not depend on the order of the shards.
    pub fn by_identifier(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        if !self.records.is_sorted() {
            order.sort_by(|&a, &b| self.records[a].cmp(&self.records[b]));
        }
        order
    }
}
