//! The scores of labeled records, and all that an evaluation computes from them.

use anyhow::Result;
use dataset::Subset;

use super::TaskLabels;
use super::adaptive_bins::AdaptiveBins;
use super::results::{AtThreshold, ClassificationReport, FindingCalibration, FindingDecisions, FindingScores};
use super::thresholds::{FindingThreshold, Thresholds};
use crate::eval::bootstrap::{Bootstrap, Predictions};
use crate::eval::curves::Curves;
use crate::eval::decisions::{Confusion, DecisionScores, Decisions, f1_threshold};
use crate::eval::metrics::Ranking;
use crate::eval::subgroups::{ColumnGroups, by_group};
use crate::task::{DataSource, EvaluationHeader, SubgroupColumn, numbered};

/// Scores and targets of some records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scored {
    /// Rows of the dataset.
    pub rows: Vec<u32>,
    /// `[rows, findings]`.
    pub scores: Vec<f32>,
    /// `[rows, findings]`; none where a label does not count.
    pub targets: Vec<Option<bool>>,
    /// A number per row, equal for rows of one patient.
    pub patients: Vec<u32>,
    findings: usize,
}

/// How an evaluation is computed.
pub(crate) struct Measures<'a> {
    pub bootstrap: Bootstrap,
    /// Sensitivity is reported at this specificity.
    pub specificity: f64,
    pub subgroups: &'a [SubgroupColumn],
}

impl Scored {
    /// Rows of a dataset with their scores, `[rows, findings]`.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn new(source: &DataSource, task: &TaskLabels, rows: Vec<u32>, scores: Vec<f32>) -> Result<Self> {
        let targets = task.targets(&rows).concat();
        let patients = numbered(source.texts_of("patient_id", &rows)?.iter().map(String::as_str));
        Ok(Self { findings: task.labels.findings.len(), rows, scores, targets, patients })
    }

    /// No records.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The same records with other scores.
    pub fn with_scores(&self, scores: Vec<f32>) -> Self {
        Self { scores, ..self.clone() }
    }

    /// Score and target of each row for one finding.
    pub fn class(&self, class: usize) -> impl Iterator<Item = (f32, Option<bool>)> + '_ {
        let column = move |row: usize| row * self.findings + class;
        (0..self.rows.len()).map(move |row| (self.scores[column(row)], self.targets[column(row)]))
    }

    fn predictions(&self, specificity: f64) -> Predictions<'_> {
        let Self { scores, targets, patients, findings, .. } = self;
        Predictions { scores, labels: targets, patients, classes: *findings, specificity }
    }

    /// All metrics of a subset's records. Without thresholds, `Err` says why.
    ///
    /// # Errors
    /// When the dataset cannot be read, or has no column of a subgroup.
    pub fn report(
        &self,
        source: &DataSource,
        task: &TaskLabels,
        subset: Subset,
        header: EvaluationHeader,
        thresholds: &Result<Thresholds, String>,
        measures: &Measures,
    ) -> Result<ClassificationReport> {
        let findings = &task.labels.findings;
        let columns = measures.subgroups.iter().map(|column| column.grouping(source, &self.rows));
        let groupings = columns.collect::<Result<Vec<_>>>()?;
        let predictions = self.predictions(measures.specificity);
        let by_class = measures.bootstrap.classes(predictions);
        let values = thresholds.as_ref().map_or_else(|_| vec![None; findings.len()], Thresholds::values);
        let group = |grouping| by_group(&measures.bootstrap, predictions, findings, &values, grouping);
        Ok(ClassificationReport {
            header,
            specificity: measures.specificity,
            findings: FindingScores::of_classes(predictions, &by_class.classes, task.counts(source, subset, None)?),
            mean: by_class.mean,
            at_threshold: thresholds.as_ref().ok().map(|chosen| self.at_threshold(chosen, &measures.bootstrap)),
            without_threshold: thresholds.as_ref().err().cloned(),
            calibration: self.calibration(findings, &measures.bootstrap),
            subgroups: groupings.iter().map(group).collect::<Vec<ColumnGroups>>(),
            probe: None,
        })
    }

    /// Decisions at thresholds that are fixed: the intervals do not include their choice.
    fn at_threshold(&self, thresholds: &Thresholds, bootstrap: &Bootstrap) -> AtThreshold {
        let decide = |class: usize| Decisions::new(self.class(class), thresholds.findings[class].threshold?);
        let decisions: Vec<Option<Decisions>> = (0..self.findings).map(decide).collect();
        let counts = |weights: &[u32]| -> Vec<Option<Confusion>> {
            decisions.iter().map(|decisions| Some(decisions.as_ref()?.weighted(weights))).collect()
        };
        let values = |confusion: Option<Confusion>| confusion.map_or([None; 6], |counts| counts.scores().values());
        // By finding, then of all together.
        let statistics = |weights: &[u32]| {
            let counts = counts(weights);
            let all = counts.iter().flatten().fold(Confusion::default(), |sum, &counts| sum + counts);
            counts.into_iter().chain([Some(all)]).map(values).collect()
        };
        let (mut by_class, mean) = bootstrap.by_class(&self.patients, self.findings, statistics);
        let micro = by_class.pop().unwrap_or([None; 6]);
        let rows = thresholds.findings.iter().zip(counts(&vec![1; self.rows.len()])).zip(by_class);
        AtThreshold {
            chosen_on: thresholds.chosen_on.clone(),
            chosen_on_records: thresholds.records,
            findings: rows
                .map(|((chosen, confusion), scores)| FindingDecisions {
                    finding: chosen.finding.clone(),
                    threshold: chosen.threshold,
                    confusion,
                    scores: DecisionScores::of(scores),
                })
                .collect(),
            mean: DecisionScores::of(mean),
            micro: DecisionScores::of(micro),
        }
    }

    /// Reliability by finding. The bins are fixed: the intervals do not include their choice.
    fn calibration(&self, findings: &[String], bootstrap: &Bootstrap) -> Vec<FindingCalibration> {
        let curves: Vec<Curves> = (0..self.findings).map(|class| Curves::of(self.class(class))).collect();
        let divided = |(class, curves): (usize, &Curves)| AdaptiveBins::new(self.class(class), &curves.adaptive);
        let bins: Vec<AdaptiveBins> = curves.iter().enumerate().map(divided).collect();
        let statistics = |weights: &[u32]| bins.iter().map(|bins| [bins.error(weights)]).collect();
        let (errors, _) = bootstrap.by_class(&self.patients, 0, statistics);
        let rows = findings.iter().zip(curves).zip(errors);
        rows.map(|((finding, Curves { calibration, adaptive, .. }), [error])| FindingCalibration {
            finding: finding.clone(),
            equal_width: calibration,
            adaptive,
            adaptive_calibration_error: error,
        })
        .collect()
    }

    /// The thresholds with the highest F1 on these records, which are those of a subset.
    pub fn thresholds(&self, findings: &[String], subset: Subset) -> Thresholds {
        let threshold = |(class, finding): (usize, &String)| FindingThreshold {
            finding: finding.clone(),
            threshold: f1_threshold(self.class(class)),
        };
        Thresholds {
            chosen_on: subset.name().to_owned(),
            records: self.rows.len(),
            findings: findings.iter().enumerate().map(threshold).collect(),
        }
    }

    /// The AUROC of each finding.
    pub fn aurocs(&self) -> Vec<Option<f64>> {
        (0..self.findings).map(|class| Ranking::of(self.class(class)).scores().auroc).collect()
    }
}
