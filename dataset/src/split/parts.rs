//! Counts of one subset or ratio of a split.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::split::index_table::IndexTable;
use crate::split::types::Member;

/// Counts of one subset or ratio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Subset, or ratio with `%`.
    pub name: String,
    /// Number of records.
    pub records: u64,
    /// Number of studies.
    pub studies: u64,
    /// Number of patients.
    pub patients: u64,
    /// Records with a label of any finding.
    // Older certificates without it are refused, with the command that makes the split again.
    #[serde(default, alias = "labelled")]
    pub labeled: u64,
    /// In the order of the dataset's findings.
    pub findings: Vec<FindingCount>,
}

/// How often a finding is positive in a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingCount {
    /// Name of the finding.
    pub finding: String,
    /// Number of positive records.
    pub positives: u64,
    /// Positives divided by labeled records; 0 where there are none.
    pub prevalence: f64,
}

/// A difference of prevalences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Absolute difference, 0 to 1.
    pub value: f64,
    /// Finding with this difference.
    pub finding: String,
    /// Part with this difference.
    pub part: String,
}

impl Part {
    pub(super) fn measure(
        name: String,
        members: &[Member],
        index_table: &IndexTable,
        findings: &[String],
        inside: &dyn Fn(&Member) -> bool,
    ) -> Self {
        let (mut records, mut labeled, mut positives) = (0, 0, vec![0; findings.len()]);
        let mut patients = vec![false; index_table.patient_names.len()];
        let mut studies = vec![false; index_table.len()];
        for row in (0..members.len()).filter(|&row| inside(&members[row])) {
            records += 1;
            labeled += u64::from(index_table.labeled[row]);
            patients[index_table.patients[row] as usize] = true;
            studies[index_table.studies[row] as usize] = true;
            index_table.positives(row).iter().for_each(|&finding| positives[finding] += 1);
        }
        let count = |seen: Vec<bool>| seen.into_iter().filter(|&seen| seen).count() as u64;
        let findings = findings.iter().zip(positives).map(|(finding, positives)| FindingCount {
            finding: finding.clone(),
            positives,
            prevalence: positives as f64 / labeled.max(1) as f64,
        });
        let (studies, patients) = (count(studies), count(patients));
        Self { name, records, studies, patients, labeled, findings: findings.collect() }
    }

    /// The counts of this part beside those of another, with their names.
    pub(super) fn compared<'a>(&'a self, measured: &'a Self) -> impl Iterator<Item = (String, u64, u64)> + 'a {
        let counts = [
            ("records", self.records, measured.records),
            ("studies", self.studies, measured.studies),
            ("patients", self.patients, measured.patients),
            ("labeled records", self.labeled, measured.labeled),
        ];
        let findings = self.findings.iter().zip(&measured.findings);
        counts.into_iter().map(|(what, stated, found)| (format!("{what} in {}", self.name), stated, found)).chain(
            findings.map(|(stated, found)| {
                (format!("positives of {} in {}", stated.finding, self.name), stated.positives, found.positives)
            }),
        )
    }
}

impl Deviation {
    /// The largest one over parts with labels; the first of equal ones.
    pub(super) fn largest(parts: &[Part], from: &Part) -> Option<Self> {
        let each = parts.iter().filter(|part| part.labeled > 0).flat_map(|part| {
            part.findings.iter().zip(&from.findings).map(|(own, whole)| Self {
                value: (own.prevalence - whole.prevalence).abs(),
                finding: own.finding.clone(),
                part: part.name.clone(),
            })
        });
        each.reduce(|largest, next| if next.value > largest.value { next } else { largest })
    }
}

impl Display for Deviation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} points ({}, {})", self.value * 100.0, self.finding, self.part)
    }
}
