//! `curves-STEM`: the curves of all findings as one table, one row a point.
//!
//! | `curve` | `x` | `y` | `threshold` | `records` |
//! | --- | --- | --- | --- | --- |
//! | `roc` | false positive rate | sensitivity | positive from this score on; null: no record is | null |
//! | `precision-recall` | recall | precision | as above | null |
//! | `calibration` (equal width), `calibration-adaptive` (equal counts) | mean score | share of positives | null | of the bin |

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::{Array, Float32Array, Float64Array, StringArray, UInt64Array};
use dataset::format::table::{column, read_table};

use crate::eval::curves::{Bin, Curves, Point};
use crate::task::EvaluationFiles;

/// Name of the table.
const NAME: &str = "curves";

const ROC: &str = "roc";
const PRECISION_RECALL: &str = "precision-recall";
const CALIBRATION: &str = "calibration";
const ADAPTIVE: &str = "calibration-adaptive";

/// The columns of the table.
#[derive(Default)]
struct Columns<'a> {
    finding: Vec<&'a str>,
    curve: Vec<&'static str>,
    x: Vec<f64>,
    y: Vec<f64>,
    threshold: Vec<Option<f32>>,
    records: Vec<Option<u64>>,
}

impl<'a> Columns<'a> {
    fn points(&mut self, finding: &'a str, curve: &'static str, points: &[Point]) {
        for point in points {
            self.push(finding, curve, point.x, point.y, point.threshold, None);
        }
    }

    fn bins(&mut self, finding: &'a str, curve: &'static str, bins: &[Bin]) {
        for bin in bins {
            self.push(finding, curve, bin.mean_score, bin.positive_share, None, Some(bin.records));
        }
    }

    fn push(&mut self, finding: &'a str, curve: &'static str, x: f64, y: f64, at: Option<f32>, records: Option<u64>) {
        self.finding.push(finding);
        self.curve.push(curve);
        self.x.push(x);
        self.y.push(y);
        self.threshold.push(at);
        self.records.push(records);
    }
}

/// Writes the curves of all findings.
pub(super) fn write(files: &EvaluationFiles, findings: &[&str], curves: &[Curves]) -> Result<()> {
    let mut all = Columns::default();
    for (finding, curves) in findings.iter().zip(curves) {
        all.points(finding, ROC, &curves.roc);
        all.points(finding, PRECISION_RECALL, &curves.precision_recall);
        all.bins(finding, CALIBRATION, &curves.calibration);
        all.bins(finding, ADAPTIVE, &curves.adaptive);
    }
    files.write_table(
        NAME,
        vec![
            ("finding", Arc::new(StringArray::from(all.finding)), false),
            ("curve", Arc::new(StringArray::from(all.curve)), false),
            ("x", Arc::new(Float64Array::from(all.x)), false),
            ("y", Arc::new(Float64Array::from(all.y)), false),
            ("threshold", Arc::new(Float32Array::from(all.threshold)), true),
            ("records", Arc::new(UInt64Array::from(all.records)), true),
        ],
    )
}

/// The curves of an evaluation by finding, in the order of the table; none where the evaluation wrote no curves.
pub(super) fn read(run: &Path, stem: &str) -> Result<Option<Vec<(String, Curves)>>> {
    let path = EvaluationFiles::new(run, stem).table(NAME);
    if !path.exists() {
        return Ok(None);
    }
    let mut all: Vec<(String, Curves)> = Vec::new();
    for batch in read_table(&path)? {
        let columns = || {
            let texts = |name| column::<StringArray>(&batch, name);
            let numbers = |name| column::<Float64Array>(&batch, name);
            let thresholds = column::<Float32Array>(&batch, "threshold")?;
            let records = column::<UInt64Array>(&batch, "records")?;
            Some((texts("finding")?, texts("curve")?, numbers("x")?, numbers("y")?, thresholds, records))
        };
        let (findings, names, x, y, thresholds, records) =
            columns().with_context(|| format!("{} is no table of curves", path.display()))?;
        for row in 0..batch.num_rows() {
            if all.last().is_none_or(|(finding, _)| finding != findings.value(row)) {
                all.push((findings.value(row).to_owned(), Curves::default()));
            }
            let Some((_, curves)) = all.last_mut() else { continue };
            let threshold = thresholds.is_valid(row).then(|| thresholds.value(row));
            let point = Point { x: x.value(row), y: y.value(row), threshold };
            let bin = Bin { records: records.value(row), mean_score: x.value(row), positive_share: y.value(row) };
            match names.value(row) {
                ROC => curves.roc.push(point),
                PRECISION_RECALL => curves.precision_recall.push(point),
                CALIBRATION => curves.calibration.push(bin),
                ADAPTIVE => curves.adaptive.push(bin),
                _ => {}
            }
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_read_as_they_were_written() {
        let folder = std::env::temp_dir().join(format!("mrm-curves-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let rows = |shift: f32| (0..60).map(move |row| (row as f32 / 80.0 + shift, Some(row * 7 % 5 < 2)));
        let curves = [Curves::of(rows(0.0)), Curves::of(rows(0.2))];
        let files = EvaluationFiles::new(&folder, "test");
        write(&files, &["Edema", "Pleural, \"other\""], &curves).unwrap();
        let read_back = read(&folder, "test").unwrap().unwrap();
        let names: Vec<&str> = read_back.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Edema", "Pleural, \"other\""]);
        assert!(read_back.iter().map(|(_, curves)| curves).eq(&curves));
        assert!(files.table(NAME).with_extension("csv").is_file());
        files.remove_table(NAME);
        assert!(read(&folder, "test").unwrap().is_none());
        std::fs::remove_dir(&folder).unwrap();
    }
}
