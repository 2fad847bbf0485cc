//! The report's section on a classifier's evaluation: a table of all findings.

use std::fmt::Write as _;

use anyhow::Result;
use dataset::commands::cli::counted;
use serde::Deserialize;

use super::ClassificationReport;
use crate::eval::bootstrap::Interval;
use crate::eval::metrics::Scores;
use crate::report::{Run, Section, escape, interval_cell};

/// One section an evaluation.
pub(super) fn sections(runs: &[&Run]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for run in runs {
        for evaluation in &run.evaluations {
            let report = ClassificationReport::deserialize(&evaluation.json)?;
            sections.push(Section { title: format!("{} on {}", run.name, evaluation.stem), html: table(&report)? });
        }
    }
    Ok(sections)
}

fn table(report: &ClassificationReport) -> Result<String> {
    let header = &report.header;
    let mut html = format!(
        "<p>{} of {}; {}% of the training labels; {}; seed {}.</p>\n<div class=\"scroll\"><table>\n\
         <tr><th>finding</th><th>positive</th><th>negative</th><th>AUROC</th><th>AUPRC</th>\
         <th>sensitivity at specificity {}</th><th>Brier</th><th>ECE</th></tr>\n",
        counted(header.records, "record"),
        counted(header.patients, "patient"),
        header.ratio,
        escape(&header.init_name),
        header.seed,
        report.specificity
    );
    for row in &report.findings {
        let (name, cells) = (escape(&row.finding), cells(&row.scores));
        writeln!(html, "<tr><td>{name}</td><td>{}</td><td>{}</td>{cells}</tr>", row.positives, row.negatives)?;
    }
    writeln!(html, "<tr><td>mean</td><td></td><td></td>{}</tr>", cells(&report.mean))?;
    html += "</table></div>\n";
    Ok(html)
}

fn cells(scores: &Scores<Interval>) -> String {
    let Scores { auroc, average_precision, sensitivity, brier, calibration_error } = *scores;
    [auroc, average_precision, sensitivity, brier, calibration_error].map(interval_cell).concat()
}
