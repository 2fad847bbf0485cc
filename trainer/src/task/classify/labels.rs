//! Which labels of a dataset are the targets of a classifier, and how their codes are read.

use anyhow::{Result, bail};
use dataset::name_suggestion::did_you_mean;
use dataset::{Batch, Dataset};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::LabelCounts;
use crate::task::objective::send;

/// What an uncertain label counts as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uncertain {
    /// Negative.
    #[default]
    Zeros,
    /// Positive.
    Ones,
    /// Nothing: it is neither trained on nor evaluated.
    Ignore,
}

/// What a blank label (a finding that the source does not mention) counts as, in a record that has another label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Negative: not mentioned means not present, the convention of CheXpert and MIMIC-CXR.
    Zeros,
    /// Nothing: nobody looked, so it is neither trained on nor evaluated.
    Ignore,
}

/// Which labels of a dataset are the targets, and how their codes are read.
#[derive(Debug, Clone)]
pub struct Labels {
    /// The targets, in the order of the classifier's outputs.
    pub findings: Vec<String>,
    /// Position of each finding in the dataset's vocabulary.
    columns: Vec<usize>,
    /// Number of findings in the vocabulary.
    vocabulary: usize,
    /// One a finding.
    uncertain: Vec<Uncertain>,
    missing: Missing,
}

impl Labels {
    /// `exceptions` are findings with their own policy: `Edema=ones`.
    ///
    /// # Errors
    /// When the dataset lacks a finding, or an exception is malformed or of another finding.
    pub fn new(
        dataset: &Dataset,
        findings: &[String],
        uncertain: Uncertain,
        exceptions: &[String],
        missing: Missing,
    ) -> Result<Self> {
        Self::among(dataset.findings(), findings, uncertain, exceptions, missing)
    }

    /// As [`Self::new`], with `known` as the dataset's findings, such as those of a loader of several datasets.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn among(
        known: &[String],
        findings: &[String],
        uncertain: Uncertain,
        exceptions: &[String],
        missing: Missing,
    ) -> Result<Self> {
        let mut columns = Vec::new();
        for finding in findings {
            match known.iter().position(|name| name == finding) {
                Some(column) => columns.push(column),
                None => bail!(
                    "this dataset has no label `{finding}`; it has: {}{}",
                    known.join(", "),
                    did_you_mean(finding, known.iter().map(String::as_str))
                ),
            }
        }
        let mut policies = vec![uncertain; findings.len()];
        for exception in exceptions {
            let (finding, policy) = exception.split_once('=').unwrap_or((exception, ""));
            let place = findings.iter().position(|name| name == finding.trim());
            let policy = match policy.trim() {
                "zeros" => Some(Uncertain::Zeros),
                "ones" => Some(Uncertain::Ones),
                "ignore" => Some(Uncertain::Ignore),
                _ => None,
            };
            match (place, policy) {
                (Some(place), Some(policy)) => policies[place] = policy,
                (None, _) => bail!("data.uncertain_by_finding: the task has no finding `{}`", finding.trim()),
                (_, None) => bail!("data.uncertain_by_finding: `{exception}` is not FINDING=zeros|ones|ignore"),
            }
        }
        Ok(Self { findings: findings.to_vec(), columns, vocabulary: known.len(), uncertain: policies, missing })
    }

    /// The target of one code; none where it does not count.
    fn target(&self, code: Option<i8>, uncertain: Uncertain) -> Option<bool> {
        match (code, uncertain, self.missing) {
            (Some(1), _, _) | (Some(-1), Uncertain::Ones, _) => Some(true),
            (Some(0), _, _) | (Some(-1), Uncertain::Zeros, _) | (None, _, Missing::Zeros) => Some(false),
            _ => None,
        }
    }

    /// Targets of one record, from all its codes. In a record without any label nothing counts.
    pub fn targets(&self, codes: &[Option<i8>]) -> Vec<Option<bool>> {
        let labeled = codes.iter().any(Option::is_some);
        let target = |(&column, &uncertain)| if labeled { self.target(codes[column], uncertain) } else { None };
        self.columns.iter().zip(&self.uncertain).map(target).collect()
    }

    /// How many labels of each finding are positive, negative, uncertain and blank, over records given by all their codes.
    /// Records without any label have no blank ones.
    pub fn counts<'a>(&self, records: impl Iterator<Item = &'a [Option<i8>]>) -> Vec<LabelCounts> {
        let mut counts: Vec<LabelCounts> = (self.findings.iter().zip(&self.uncertain))
            .map(|(finding, &uncertain_as)| LabelCounts::new(finding, uncertain_as, self.missing))
            .collect();
        for codes in records.filter(|codes| codes.iter().any(Option::is_some)) {
            for (count, &column) in counts.iter_mut().zip(&self.columns) {
                count.add(codes[column]);
            }
        }
        counts
    }

    /// Targets of a batch, 0 or 1, and weights, 1 where a target counts; both `[B, C]`.
    pub(crate) fn tensors(&self, batch: &Batch, device: Device) -> (Tensor, Tensor) {
        let (mut targets, mut counts) = (Vec::new(), Vec::new());
        for row in batch.labels().chunks_exact(self.vocabulary) {
            let codes: Vec<Option<i8>> = row.iter().map(|code| (!code.is_nan()).then_some(*code as i8)).collect();
            for target in self.targets(&codes) {
                targets.push(f32::from(u8::from(target == Some(true))));
                counts.push(f32::from(u8::from(target.is_some())));
            }
        }
        let shape = [batch.len() as i64, self.columns.len() as i64];
        let tensor = |values: &[f32]| send(&Tensor::from_slice(values).view(shape), device);
        (tensor(&targets), tensor(&counts))
    }
}
