//! Which records of a dataset count for a classification task, and their targets.

use std::sync::Arc;

use anyhow::Result;
use dataset::Subset;
use serde::{Deserialize, Serialize};

use super::{LabelCounts, Labels, Missing, Uncertain};
use crate::config::{ClassifyConfig, FindingTask};
use crate::task::{DataSource, LabelCodes};

/// How labels are read: the keys of a run's `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelPolicy {
    /// What uncertain labels count as.
    pub uncertain: Uncertain,
    /// Findings for which they count as something else.
    pub uncertain_by_finding: Vec<String>,
    /// What blank labels count as.
    pub missing: Missing,
}

impl LabelPolicy {
    /// The default of a task.
    pub fn of(task: &FindingTask) -> Self {
        Self { uncertain: Uncertain::default(), uncertain_by_finding: Vec::new(), missing: task.missing() }
    }
}

/// The labels of a run's task in a dataset, and which records count for it.
pub struct TaskLabels {
    /// The targets.
    pub labels: Labels,
    /// Codes of all records.
    codes: Arc<LabelCodes>,
    /// Columns of the findings of which one must be positive; empty: all records count.
    only_with: Vec<usize>,
}

impl TaskLabels {
    /// Those of a run in a dataset.
    ///
    /// # Errors
    /// When the dataset lacks a finding.
    pub fn read(config: &ClassifyConfig, source: &DataSource) -> Result<Self> {
        let data = &config.data;
        let policy = LabelPolicy {
            uncertain: data.uncertain,
            uncertain_by_finding: data.uncertain_by_finding.clone(),
            missing: data.missing,
        };
        let task = FindingTask { findings: config.findings.clone(), ..FindingTask::parse(&config.keys.task)? };
        Self::of(&task, &policy, source)
    }

    /// Those of a task in a dataset.
    ///
    /// # Errors
    /// When the dataset lacks a finding, or an exception of the policy is malformed.
    pub fn of(task: &FindingTask, policy: &LabelPolicy, source: &DataSource) -> Result<Self> {
        let LabelPolicy { uncertain, uncertain_by_finding, missing } = policy;
        let known = source.dataset.findings();
        let labels = Labels::new(&source.dataset, &task.findings, *uncertain, uncertain_by_finding, *missing)?;
        let only_with = (0..known.len()).filter(|&at| task.only_with.contains(&known[at])).collect();
        Ok(Self { labels, codes: source.labels()?, only_with })
    }

    /// Rows of a subset with at least one target that counts.
    ///
    /// # Errors
    /// When there is no split.
    pub fn rows(&self, source: &DataSource, subset: Subset, ratio: Option<f64>) -> Result<Vec<u32>> {
        let mut rows = source.subset(subset, ratio)?;
        rows.retain(|&row| {
            let codes = &self.codes[row as usize];
            self.counts_for_task(codes) && self.labels.targets(codes).iter().any(Option::is_some)
        });
        Ok(rows)
    }

    /// Whether a record counts for the task, by its codes.
    fn counts_for_task(&self, codes: &[Option<i8>]) -> bool {
        self.only_with.is_empty() || self.only_with.iter().any(|&column| codes[column] == Some(1))
    }

    /// The labels of a subset by finding, and how they are counted; blank ones included.
    ///
    /// # Errors
    /// When there is no split.
    pub fn counts(&self, source: &DataSource, subset: Subset, ratio: Option<f64>) -> Result<Vec<LabelCounts>> {
        let rows = source.subset(subset, ratio)?;
        let codes = rows.iter().map(|&row| self.codes[row as usize].as_slice());
        Ok(self.labels.counts(codes.filter(|codes| self.counts_for_task(codes))))
    }

    /// Targets of some rows, one list a row.
    pub fn targets(&self, rows: &[u32]) -> Vec<Vec<Option<bool>>> {
        rows.iter().map(|&row| self.labels.targets(&self.codes[row as usize])).collect()
    }
}
