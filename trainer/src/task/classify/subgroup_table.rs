//! `subgroups-STEM`: metrics by group as one table, one row a column, finding and group. The group `gap` is the highest minus the
//! lowest value of the compared groups, the finding `mean` the mean over findings. `draws` are those that defined the value.

use std::sync::Arc;

use anyhow::Result;
use arrow_array::{ArrayRef, Float64Array, Int8Array, StringArray, UInt64Array};

use crate::eval::bootstrap::Interval;
use crate::eval::subgroups::{ColumnGroups, GroupScores};
use crate::task::EvaluationFiles;

/// Name of the table.
const NAME: &str = "subgroups";

/// Names of the columns of each metric, in the order of [`GroupScores::values`].
const METRICS: [&str; 4] = ["auroc", "f1", "sensitivity", "specificity"];

/// A row: column, finding, group; positives and negatives, and whether the group counts for the gap; the metrics.
type Row<'a> = (&'a str, &'a str, &'a str, Option<(usize, usize, bool)>, GroupScores<Interval>);

fn rows(columns: &[ColumnGroups]) -> Vec<Row<'_>> {
    let mut all = Vec::new();
    for column in columns {
        for finding in &column.findings {
            let of = (column.column.as_str(), finding.finding.as_str());
            for group in &finding.groups {
                let counts = (group.positives, group.negatives, group.compared);
                all.push((of.0, of.1, group.group.as_str(), Some(counts), group.scores));
            }
            all.push((of.0, of.1, "gap", None, finding.gap));
        }
        let mean = &column.mean;
        all.extend(mean.groups.iter().map(|g| (column.column.as_str(), "mean", g.group.as_str(), None, g.scores)));
        all.push((&column.column, "mean", "gap", None, mean.gap));
    }
    all
}

/// Writes the table; without subgroups, removes that of an earlier evaluation.
pub(super) fn write(files: &EvaluationFiles, columns: &[ColumnGroups]) -> Result<()> {
    if columns.is_empty() {
        files.remove_table(NAME);
        return Ok(());
    }
    let rows = rows(columns);
    let texts = |text: fn(&Row) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(text(row))).collect::<StringArray>())
    };
    let counts = |count: fn((usize, usize, bool)) -> usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.3.map(|counts| count(counts) as u64)).collect::<UInt64Array>())
    };
    let compared: Int8Array = rows.iter().map(|row| row.3.map(|counts| i8::from(counts.2))).collect();
    let names: Vec<[String; 4]> = METRICS
        .iter()
        .map(|name| [(*name).to_owned(), format!("{name} low"), format!("{name} high"), format!("{name} draws")])
        .collect();
    let mut all: Vec<(&str, ArrayRef, bool)> = vec![
        ("column", texts(|row| row.0.to_owned()), false),
        ("finding", texts(|row| row.1.to_owned()), false),
        ("group", texts(|row| row.2.to_owned()), false),
        ("positives", counts(|counts| counts.0), true),
        ("negatives", counts(|counts| counts.1), true),
        ("compared", Arc::new(compared), true),
    ];
    for (at, names) in names.iter().enumerate() {
        let values = |value: fn(Interval) -> f64| -> ArrayRef {
            Arc::new(rows.iter().map(|row| row.4.values()[at].map(value)).collect::<Float64Array>())
        };
        all.push((&names[0], values(|i| i.value), true));
        all.push((&names[1], values(|i| i.low), true));
        all.push((&names[2], values(|i| i.high), true));
        let draws: UInt64Array = rows.iter().map(|row| row.4.values()[at].map(|i| i.draws as u64)).collect();
        all.push((&names[3], Arc::new(draws), true));
    }
    files.write_table(NAME, all)
}
