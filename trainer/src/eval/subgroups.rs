//! Metrics by group, such as by sex or age band, and the gap between the groups, with intervals from the same draws of patients.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Bootstrap, Interval, Predictions};
use super::decisions::Decisions;
use super::metrics::Ranking;

/// A group is compared with others for a finding if it has at least so many positives, and as many negatives.
pub const MIN_OF_EACH: usize = 10;

/// The group of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Grouping {
    /// The column that the groups come from.
    pub column: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Position in `groups`, one per row.
    pub of_row: Vec<u32>,
    /// Position of the group of rows without a value, which is never compared with others.
    pub unstated: Option<u32>,
}

/// One value per metric; none where undefined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupScores<T = f64> {
    /// Area under the receiver operating characteristic.
    pub auroc: Option<T>,
    /// F1 at the threshold that all groups share.
    pub f1: Option<T>,
    /// Sensitivity at this threshold.
    pub sensitivity: Option<T>,
    /// Specificity at this threshold.
    pub specificity: Option<T>,
}

impl<T> GroupScores<T> {
    /// Names of the metrics in tables, in the order of [`values`](Self::values).
    pub const NAMES: [&'static str; 4] = ["AUROC", "F1", "sensitivity", "specificity"];

    /// The metrics in the order of the fields.
    pub fn of([auroc, f1, sensitivity, specificity]: [Option<T>; 4]) -> Self {
        Self { auroc, f1, sensitivity, specificity }
    }

    /// The metrics in the order of the fields.
    pub fn values(self) -> [Option<T>; 4] {
        [self.auroc, self.f1, self.sensitivity, self.specificity]
    }
}

/// One group for one finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Name of the group.
    pub group: String,
    /// Positive records.
    pub positives: usize,
    /// Negative records.
    pub negatives: usize,
    /// Whether it counts for the gap: whether it has [`MIN_OF_EACH`] positives and negatives, and a stated value.
    pub compared: bool,
    /// The metrics.
    #[serde(flatten)]
    pub scores: GroupScores<Interval>,
}

/// The groups of one finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingGroups {
    /// The finding.
    pub finding: String,
    /// All groups that have a record.
    pub groups: Vec<Group>,
    /// Highest minus lowest value of the compared groups; none with fewer than two of them.
    pub gap: GroupScores<Interval>,
}

/// Means over findings by group, and their gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanGroups {
    /// The findings that are averaged: those for which all groups below are compared.
    pub findings: Vec<String>,
    /// The groups that are compared for some finding.
    pub groups: Vec<MeanGroup>,
    /// Highest minus lowest mean.
    pub gap: GroupScores<Interval>,
}

/// The mean over findings of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanGroup {
    /// Name of the group.
    pub group: String,
    /// The means.
    #[serde(flatten)]
    pub scores: GroupScores<Interval>,
}

/// Metrics by the groups of one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnGroups {
    /// The column.
    pub column: String,
    /// A group is compared from so many positives and negatives on.
    pub min_of_each: usize,
    /// By finding.
    pub findings: Vec<FindingGroups>,
    /// Over findings.
    pub mean: MeanGroups,
}

impl ColumnGroups {
    /// Whether the means say something that the findings alone do not: there are several findings, and groups to compare.
    pub fn shows_mean(&self) -> bool {
        self.findings.len() > 1 && !self.mean.findings.is_empty() && self.mean.groups.len() > 1
    }
}

/// The rows of one group that count for one finding.
struct Cell {
    ranking: Ranking,
    decisions: Option<Decisions>,
    positives: usize,
    negatives: usize,
    compared: bool,
}

impl Cell {
    fn values(&self, weights: &[u32]) -> [Option<f64>; 4] {
        let decided = self.decisions.as_ref().map(|decisions| decisions.weighted(weights).scores());
        let of = |value: fn(&super::decisions::DecisionScores) -> Option<f64>| decided.as_ref().and_then(value);
        [self.ranking.weighted(weights).auroc, of(|d| d.f1), of(|d| d.sensitivity), of(|d| d.specificity)]
    }
}

/// Metrics by group. `thresholds` has one entry a finding; none: the metrics at a threshold are undefined.
///
/// # Panics
/// When the slices do not fit each other.
pub fn by_group(
    bootstrap: &Bootstrap,
    predictions: Predictions,
    findings: &[String],
    thresholds: &[Option<f32>],
    grouping: &Grouping,
) -> ColumnGroups {
    let Predictions { scores, labels, patients, classes, .. } = predictions;
    assert!(grouping.of_row.len() == patients.len() && findings.len() == classes && thresholds.len() == classes);
    let cell = |group: usize, class: usize| {
        let label = |row: usize| labels[row * classes + class].filter(|_| grouping.of_row[row] as usize == group);
        let rows = || (0..patients.len()).map(|row| (scores[row * classes + class], label(row)));
        let count = |wanted: bool| rows().filter(|row| row.1 == Some(wanted)).count();
        let (positives, negatives) = (count(true), count(false));
        let is_stated = grouping.unstated != Some(group as u32);
        Cell {
            ranking: Ranking::of(rows()),
            decisions: thresholds[class].and_then(|threshold| Decisions::new(rows(), threshold)),
            positives,
            negatives,
            compared: is_stated && positives >= MIN_OF_EACH && negatives >= MIN_OF_EACH,
        }
    };
    let groups = grouping.groups.len();
    let cells: Vec<Vec<Cell>> =
        (0..groups).map(|group| (0..classes).map(|class| cell(group, class)).collect()).collect();
    let large: Vec<usize> = (0..groups).filter(|&group| cells[group].iter().any(|cell| cell.compared)).collect();
    let averaged: Vec<usize> = (0..classes)
        .filter(|&class| !large.is_empty() && large.iter().all(|&group| cells[group][class].compared))
        .collect();

    // By group and finding; then the gap of each finding; then the mean of each large group; then the gap of the means.
    let statistics = |weights: &[u32]| {
        let mut all: Vec<[Option<f64>; 4]> = cells.iter().flatten().map(|cell| cell.values(weights)).collect();
        let gaps: Vec<_> = (0..classes)
            .map(|class| {
                let compared = (0..groups).filter(|&group| cells[group][class].compared);
                gap(compared.map(|group| all[group * classes + class]))
            })
            .collect();
        let mean = |&group: &usize| -> [Option<f64>; 4] {
            std::array::from_fn(|metric| {
                let counted = averaged.iter().filter(|&&class| metric == 0 || thresholds[class].is_some());
                let values = counted.map(|&class| all[group * classes + class][metric]).collect::<Option<Vec<_>>>()?;
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            })
        };
        let means: Vec<_> = large.iter().map(mean).collect();
        all.extend(gaps);
        all.extend(&means);
        all.push(gap(means.into_iter()));
        all
    };
    let (summarized, _) = bootstrap.by_class(patients, 0, statistics);
    let of = |at: usize| GroupScores::of(summarized[at]);
    let group = |group: usize, class: usize| {
        let Cell { positives, negatives, compared, .. } = cells[group][class];
        let name = grouping.groups[group].clone();
        Group { group: name, positives, negatives, compared, scores: of(group * classes + class) }
    };
    let of_finding = |class: usize| FindingGroups {
        finding: findings[class].clone(),
        groups: (0..groups).map(|at| group(at, class)).collect(),
        gap: of(groups * classes + class),
    };
    let means = (groups + 1) * classes;
    let mean =
        |(at, &group): (usize, &usize)| MeanGroup { group: grouping.groups[group].clone(), scores: of(means + at) };
    ColumnGroups {
        column: grouping.column.clone(),
        min_of_each: MIN_OF_EACH,
        findings: (0..classes).map(of_finding).collect(),
        mean: MeanGroups {
            findings: averaged.iter().map(|&class| findings[class].clone()).collect(),
            groups: large.iter().enumerate().map(mean).collect(),
            gap: of(means + large.len()),
        },
    }
}

/// Highest minus lowest value of each metric; none with fewer than two groups, or where one has no value.
fn gap(groups: impl Iterator<Item = [Option<f64>; 4]>) -> [Option<f64>; 4] {
    let groups: Vec<_> = groups.collect();
    std::array::from_fn(|metric| {
        let values = groups.iter().map(|values| values[metric]).collect::<Option<Vec<f64>>>()?;
        let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        (values.len() > 1).then_some(high - low)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::decisions::Confusion;
    use crate::eval::metrics::auroc;
    use dataset::random::Stream;

    struct Rows {
        scores: Vec<f32>,
        labels: Vec<Option<bool>>,
        patients: Vec<u32>,
        grouping: Grouping,
    }

    /// 400 patients with two records each, in three groups and a fourth without a value, two findings; the scores of group 1
    /// are worse, and the second finding is rare in group 2.
    fn rows() -> Rows {
        let mut random = Stream::new(&[11]);
        let (mut scores, mut labels, mut of_row) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..800_u32 {
            let group = row / 2 % 4;
            for finding in 0..2 {
                let share = if finding == 1 && group == 2 { 0.01 } else { 0.3 };
                let positive = random.uniform() < share;
                let signal = if group == 1 { 0.1 } else { 0.5 };
                scores.push((random.uniform() * 0.5 + if positive { signal } else { 0.0 }) as f32);
                labels.push((random.uniform() < 0.95).then_some(positive));
            }
            of_row.push(group);
        }
        let groups = ["a", "b", "c", "not stated"].map(str::to_owned).to_vec();
        let grouping = Grouping { column: "site".to_owned(), groups, of_row, unstated: Some(3) };
        Rows { scores, labels, patients: (0..800).map(|row| row / 2).collect(), grouping }
    }

    fn grouped(rows: &Rows) -> ColumnGroups {
        let predictions = Predictions {
            scores: &rows.scores,
            labels: &rows.labels,
            patients: &rows.patients,
            classes: 2,
            specificity: 0.9,
        };
        let findings = ["Edema", "Hernia"].map(str::to_owned);
        let bootstrap = Bootstrap { draws: 200, seed: 3, level: 0.95 };
        by_group(&bootstrap, predictions, &findings, &[Some(0.5), None], &rows.grouping)
    }

    #[test]
    fn values_of_a_group_are_those_of_its_rows_alone() {
        let rows = rows();
        let column = grouped(&rows);
        for (class, finding) in column.findings.iter().enumerate() {
            for (number, group) in finding.groups.iter().enumerate() {
                let of_group: Vec<usize> =
                    (0..800).filter(|&row| rows.grouping.of_row[row] as usize == number).collect();
                let scores: Vec<f32> = of_group.iter().map(|&row| rows.scores[row * 2 + class]).collect();
                let labels: Vec<Option<bool>> = of_group.iter().map(|&row| rows.labels[row * 2 + class]).collect();
                assert_eq!(group.scores.auroc.map(|i| i.value), auroc(&scores, &labels));
                let count = |predicted: bool, label: bool| {
                    let is = |(score, of_row): &(&f32, &Option<bool>)| {
                        (**score >= 0.5) == predicted && **of_row == Some(label)
                    };
                    scores.iter().zip(&labels).filter(is).count() as u64
                };
                let confusion = Confusion {
                    true_positives: count(true, true),
                    false_positives: count(true, false),
                    false_negatives: count(false, true),
                    true_negatives: count(false, false),
                };
                assert_eq!(group.positives as u64, confusion.true_positives + confusion.false_negatives);
                let expected = (class == 0).then(|| confusion.scores());
                assert_eq!(group.scores.f1.map(|i| i.value), expected.and_then(|scores| scores.f1));
                assert_eq!(group.scores.specificity.map(|i| i.value), expected.and_then(|scores| scores.specificity));
            }
        }
    }

    #[test]
    fn means_are_over_the_findings_that_define_them() {
        let mut rows = rows();
        rows.grouping.of_row.iter_mut().for_each(|group| *group %= 2);
        rows.grouping.groups.truncate(2);
        rows.grouping.unstated = None;
        let column = grouped(&rows);
        assert_eq!(column.mean.findings, ["Edema", "Hernia"]);
        for (number, mean) in column.mean.groups.iter().enumerate() {
            let [edema, hernia] = [0, 1].map(|class: usize| column.findings[class].groups[number].scores);
            let aurocs = [edema, hernia].map(|scores| scores.auroc.unwrap().value);
            assert_eq!(mean.scores.auroc.unwrap().value, aurocs.iter().sum::<f64>() / 2.0);
            // The second finding has no threshold.
            assert_eq!(mean.scores.f1.unwrap().value, edema.f1.unwrap().value);
        }
    }

    #[test]
    fn means_are_shown_for_several_findings_and_groups() {
        let column = grouped(&rows());
        assert!(column.shows_mean() && column.mean.groups.len() == 3);
        let changed = |change: fn(&mut ColumnGroups)| {
            let mut column = column.clone();
            change(&mut column);
            column.shows_mean()
        };
        assert!(!changed(|column| column.findings.truncate(1)));
        assert!(!changed(|column| column.mean.findings.clear()));
        assert!(!changed(|column| column.mean.groups.truncate(1)));
    }

    #[test]
    fn gaps_are_between_groups_with_enough_records() {
        let column = grouped(&rows());
        let compared = |class: usize| column.findings[class].groups.iter().map(|g| g.compared).collect::<Vec<_>>();
        assert_eq!([compared(0), compared(1)], [[true, true, true, false], [true, true, false, false]]);
        let aurocs = |class: usize, groups: &[usize]| -> Vec<f64> {
            groups.iter().map(|&at| column.findings[class].groups[at].scores.auroc.unwrap().value).collect()
        };
        let spread = |values: &[f64]| {
            values.iter().fold(f64::MIN, |a, &b| a.max(b)) - values.iter().fold(f64::MAX, |a, &b| a.min(b))
        };
        assert_eq!(super::gap([[Some(0.5); 4]].into_iter()), [None; 4]);
        let gap = column.findings[0].gap.auroc.unwrap();
        assert_eq!(gap.value, spread(&aurocs(0, &[0, 1, 2])));
        assert!(gap.low > 0.05 && gap.low < gap.value && gap.value < gap.high, "{gap:?}");
        assert_eq!(column.findings[1].gap.auroc.unwrap().value, spread(&aurocs(1, &[0, 1])));
        assert_eq!(column.findings[1].gap.f1, None, "no threshold");
        // Group c has too few positives of the second finding, so that the mean is over the first one alone.
        assert_eq!((column.mean.findings.as_slice(), column.mean.groups.len()), (&["Edema".to_owned()][..], 3));
        assert_eq!(column.mean.gap, column.findings[0].gap);
        assert_eq!(column.mean.groups[1].scores, column.findings[0].groups[1].scores);
        let json = serde_json::to_value(&column).unwrap();
        assert_eq!(json["findings"][0]["groups"][3]["group"], "not stated");
        assert_eq!(serde_json::from_value::<ColumnGroups>(json).unwrap(), column);
    }
}
