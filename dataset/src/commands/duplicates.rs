//! Records with equal images, as text or JSON.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::Hash;

use serde::Serialize;

use crate::commands::wording::counted;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::progress::OnProgress;
use crate::split::duplicates;
use crate::split::index_table::IndexTable;
use crate::split::{Split, Subset};

/// The equal images of a dataset.
#[derive(Debug, Serialize)]
pub struct Duplicates {
    /// Records with equal stored pixels.
    pub groups: Vec<Vec<DuplicateRecord>>,
    /// Records in all groups.
    pub records: usize,
    /// Groups with records of several patients.
    pub of_several_patients: usize,
    /// Groups with records in more than one subset.
    pub in_several_subsets: usize,
}

/// A record whose image another one has, too.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct DuplicateRecord {
    /// Its identifier.
    pub record_id: String,
    /// Its patient.
    pub patient_id: String,
    /// Its subset; `None` where it has none.
    pub subset: Option<String>,
}

impl Duplicates {
    /// Finds the equal images of a dataset, with the subsets of a split or else the source's own. Every image is read.
    ///
    /// # Errors
    /// When an image, a column or the split cannot be read, or `progress` cancels.
    pub fn of(dataset: &Dataset, split: Option<&str>, progress: &OnProgress) -> Result<Self> {
        let subsets: Vec<Option<String>> = match split {
            None => dataset.texts("subset")?,
            Some(name) => {
                let members = Split::load(dataset, name)?.members;
                members.iter().map(|member| member.subset.map(Subset::name).map(str::to_owned)).collect()
            }
        };
        let index_table = IndexTable::load(dataset)?;
        let record = |&row: &u32| {
            let row = row as usize;
            DuplicateRecord {
                record_id: index_table.records[row].clone(),
                patient_id: index_table.patient_names[index_table.patients[row] as usize].clone(),
                subset: subsets[row].clone(),
            }
        };
        let groups = duplicates::groups(dataset, progress)?;
        let groups: Vec<Vec<DuplicateRecord>> = groups.iter().map(|rows| rows.iter().map(record).collect()).collect();
        let count = |holds: &dyn Fn(&[DuplicateRecord]) -> bool| groups.iter().filter(|group| holds(group)).count();
        Ok(Self {
            records: groups.iter().map(Vec::len).sum(),
            of_several_patients: count(&|group| differ(group.iter().map(|record| &record.patient_id))),
            in_several_subsets: count(&|group| differ(group.iter().filter_map(|record| record.subset.as_ref()))),
            groups,
        })
    }

    /// A line with the counts, and one for each group.
    pub fn page(&self) -> String {
        let mut page = format!(
            "{} of equal images with {}; {} of several patients, {} in several subsets\n",
            counted(self.groups.len(), "group"),
            counted(self.records, "record"),
            self.of_several_patients,
            self.in_several_subsets
        );
        for group in &self.groups {
            let record = |it: &DuplicateRecord| {
                let subset = it.subset.as_deref().unwrap_or("no subset");
                format!("{} (patient {}, {subset})", it.record_id, it.patient_id)
            };
            let _ = writeln!(page, "  {}", group.iter().map(record).collect::<Vec<_>>().join(", "));
        }
        page
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// None in practice: all of it can be written as JSON.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(text + "\n")
    }
}

fn differ<T: Eq + Hash>(values: impl Iterator<Item = T>) -> bool {
    values.collect::<HashSet<T>>().len() > 1
}
