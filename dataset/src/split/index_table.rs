//! Who is in a dataset: the columns that splits are made of, in few allocations, since each training run reads them.

use std::collections::HashMap;

use arrow_array::{Array, Int8Array, StringArray, StructArray};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::table;
use crate::split::types::Unit;

/// Records with their patients, studies and positive findings, in the order of the dataset's rows.
pub struct Roster {
    pub records: Vec<String>,
    /// Index of each record's patient in `patient_names`.
    pub patients: Vec<u32>,
    pub patient_names: Vec<String>,
    /// Number of each record's study; studies of two patients are two, whatever they are called.
    pub studies: Vec<u32>,
    /// Whether anything is stated about any finding of a record.
    pub labeled: Vec<bool>,
    findings: usize,
    /// Positives of record `i`: `positives[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    positives: Vec<usize>,
}

/// One record of a roster.
pub struct Entry<'a> {
    pub record: &'a str,
    pub patient: &'a str,
    pub study: &'a str,
    /// Places of the findings that are positive.
    pub positives: Vec<usize>,
    /// Whether anything is stated about any finding.
    pub labeled: bool,
}

impl Roster {
    /// Reads the roster of a dataset.
    pub fn load(dataset: &Dataset) -> Result<Self> {
        let batches = dataset.columns(&["record_id", "patient_id", "study_id", "labels"])?;
        let mut entries = Vec::with_capacity(dataset.len());
        for batch in &batches {
            let texts = |name: &str| {
                let wrong = || Error::Invalid(format!("`{name}` is not a text column"));
                table::column::<StringArray>(batch, name).ok_or_else(wrong)
            };
            let (records, patients, studies) = (texts("record_id")?, texts("patient_id")?, texts("study_id")?);
            let codes = table::column::<StructArray>(batch, "labels")
                .and_then(|labels| {
                    let columns = labels.columns().iter().take(dataset.findings().len());
                    columns.map(|codes| codes.as_any().downcast_ref::<Int8Array>()).collect::<Option<Vec<_>>>()
                })
                .ok_or_else(|| Error::Invalid("`labels` is not a struct of int8".to_owned()))?;
            entries.extend((0..batch.num_rows()).map(|row| Entry {
                record: records.value(row),
                patient: patients.value(row),
                study: studies.value(row),
                positives:
                    (0..codes.len()).filter(|&at| codes[at].is_valid(row) && codes[at].value(row) == 1).collect(),
                labeled: codes.iter().any(|codes| codes.is_valid(row)),
            }));
        }
        Ok(Self::new(dataset.findings().len(), entries))
    }

    /// A roster of these records, of a dataset with so many findings.
    pub fn new(findings: usize, entries: Vec<Entry>) -> Self {
        let mut roster = Self {
            records: Vec::with_capacity(entries.len()),
            patients: Vec::with_capacity(entries.len()),
            patient_names: Vec::new(),
            studies: Vec::with_capacity(entries.len()),
            labeled: Vec::with_capacity(entries.len()),
            findings,
            starts: vec![0],
            positives: Vec::new(),
        };
        let mut patient_of: HashMap<&str, u32> = HashMap::new();
        let mut study_of: HashMap<(u32, &str), u32> = HashMap::new();
        for entry in entries {
            roster.records.push(entry.record.to_owned());
            let patient = *patient_of.entry(entry.patient).or_insert_with_key(|name| {
                roster.patient_names.push((*name).to_owned());
                roster.patient_names.len() as u32 - 1
            });
            roster.patients.push(patient);
            let next = study_of.len() as u32;
            roster.studies.push(*study_of.entry((patient, entry.study)).or_insert(next));
            roster.labeled.push(entry.labeled);
            roster.positives.extend(entry.positives);
            roster.starts.push(roster.positives.len());
        }
        roster
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

    /// The findings that are positive in a record.
    pub fn positives(&self, row: usize) -> &[usize] {
        &self.positives[self.starts[row]..self.starts[row + 1]]
    }

    /// What a record must stay together with: records with the same number.
    pub fn group(&self, unit: Unit, row: usize) -> u32 {
        match unit {
            Unit::Patient => self.patients[row],
            Unit::Study => self.studies[row],
            Unit::Image => row as u32,
        }
    }

    /// The rows in the order of their identifiers, so that the order of shards does not matter.
    pub fn by_identifier(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        if !self.records.is_sorted() {
            order.sort_by(|&a, &b| self.records[a].cmp(&self.records[b]));
        }
        order
    }
}
