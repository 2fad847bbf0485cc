//! Which records of a dataset count for a classification task, and their targets.

use std::sync::Arc;

use anyhow::Result;
use dataset::Subset;

use super::{LabelCounts, Labels};
use crate::config::{ClassifyConfig, FindingTask};
use crate::task::{DataSource, LabelCodes};

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
        let (data, dataset) = (&config.data, &source.dataset);
        let labels = Labels::new(dataset, &config.findings, data.uncertain, &data.uncertain_by_finding, data.missing)?;
        let wanted = FindingTask::parse(&config.keys.task)?.only_with;
        let only_with = (0..dataset.findings().len()).filter(|&at| wanted.contains(&dataset.findings()[at])).collect();
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
