//! The report's section on a classifier's evaluation: tables of all findings, curves and subgroups.

use std::fmt::Write as _;

use anyhow::Result;
use dataset::commands::cli::counted;
use serde::Deserialize;

use super::results::{AtThreshold, ClassificationReport, FindingScores};
use super::{curve_charts, curve_table};
use crate::eval::bootstrap::Interval;
use crate::eval::decisions::DecisionScores;
use crate::eval::metrics::Scores;
use crate::eval::subgroups::{ColumnGroups, GroupScores};
use crate::report::{Run, Section, escape, marked_cell, with_note};

/// One section an evaluation.
pub(super) fn sections(runs: &[&Run]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for run in runs {
        for evaluation in &run.evaluations {
            let report = ClassificationReport::deserialize(&evaluation.json)?;
            let mut html = table(&report)?;
            let draws = report.header.draws;
            if let Some(decisions) = &report.at_threshold {
                let title = format!("decisions at a threshold {}", decisions.origin());
                html += &folded(&title, &at_threshold(decisions, draws)?);
            }
            let curves = curve_table::read(&run.path, &evaluation.stem)?.unwrap_or_default();
            let charts = curve_charts::charts(&report, &curves);
            if !charts.is_empty() {
                html += &folded("ROC, precision-recall and reliability curves", &charts);
            }
            for column in &report.subgroups {
                html += &folded(&format!("subgroups by {}", column.column), &subgroups(column, draws)?);
            }
            sections.push(Section { title: format!("{} on {}", run.name, evaluation.stem), html });
        }
    }
    Ok(sections)
}

/// A part of a section that is shown when its title is clicked.
fn folded(title: &str, html: &str) -> String {
    format!("<details><summary>{}</summary>\n{html}</details>\n", escape(title))
}

fn table(report: &ClassificationReport) -> Result<String> {
    let header = &report.header;
    let mut html = format!(
        "<p>{} of {}; {}% of the training labels; {}; seed {}.</p>\n",
        counted(header.records, "record"),
        counted(header.patients, "patient"),
        header.ratio,
        escape(&header.init_name),
        header.seed
    );
    for note in [report.probe.as_ref().map(ToString::to_string), report.without_threshold.clone()].into_iter().flatten()
    {
        writeln!(html, "<p>{}</p>", escape(&note))?;
    }
    html += &findings_table(&report.findings, report.mean, report.specificity, header.draws)?;
    Ok(html)
}

/// The metrics of all findings and their means; sensitivity is that at a specificity. `draws` were asked for.
pub(crate) fn findings_table(
    findings: &[FindingScores],
    mean: Scores<Interval>,
    specificity: f64,
    draws: usize,
) -> Result<String> {
    // Evaluations of older versions have none.
    let has_delong = findings.iter().any(|row| row.auroc_delong.is_some());
    let delong = if has_delong { "<th>95% (DeLong)</th>" } else { "" };
    let mut html = format!(
        "<div class=\"scroll\"><table>\n\
         <tr><th>finding</th><th>positive</th><th>negative</th><th>AUROC</th>{delong}<th>AUPRC</th>\
         <th>sensitivity at specificity {specificity}</th><th>Brier</th><th>ECE</th></tr>\n"
    );
    let metrics = |scores: Scores<Interval>, delong: String| {
        let [auroc, others @ ..] = scores.values();
        let delong = if has_delong { format!("<td>{delong}</td>") } else { String::new() };
        format!("{}{delong}{}", marked_cell(auroc, draws), cells(others, draws))
    };
    for row in findings {
        let delong = row.auroc_delong.map_or("undefined".to_owned(), |i| format!("{:.3}–{:.3}", i.low, i.high));
        let (name, cells) = (escape(&row.finding), metrics(row.scores, delong));
        writeln!(html, "<tr><td>{name}</td><td>{}</td><td>{}</td>{cells}</tr>", row.positives, row.negatives)?;
    }
    writeln!(html, "<tr><td>mean</td><td></td><td></td>{}</tr>", metrics(mean, String::new()))?;
    html += "</table></div>\n";
    if has_delong {
        html +=
            "<p>DeLong's interval takes all records as independent; the others are from draws of whole patients.</p>\n";
    }
    Ok(with_note(html))
}

fn at_threshold(decisions: &AtThreshold, draws: usize) -> Result<String> {
    let heads: String = DecisionScores::<()>::NAMES.iter().map(|name| format!("<th>{name}</th>")).collect();
    let mut html = format!(
        "<div class=\"scroll\"><table>\n<tr><th>finding</th><th>threshold</th>{heads}<th>TP</th><th>FP</th><th>FN</th>\
         <th>TN</th></tr>\n"
    );
    for row in &decisions.findings {
        let threshold = row.threshold.map_or("none".to_owned(), |threshold| format!("{threshold:.3}"));
        let counts = row.confusion.map_or("<td></td>".repeat(4), |c| {
            let counts = [c.true_positives, c.false_positives, c.false_negatives, c.true_negatives];
            counts.map(|count| format!("<td>{count}</td>")).concat()
        });
        let (name, cells) = (escape(&row.finding), cells(row.scores.values(), draws));
        writeln!(html, "<tr><td>{name}</td><td>{threshold}</td>{cells}{counts}</tr>")?;
    }
    for (name, scores) in [("macro", decisions.mean), ("micro", decisions.micro)] {
        writeln!(html, "<tr><td>{name}</td><td></td>{}{}</tr>", cells(scores.values(), draws), "<td></td>".repeat(4))?;
    }
    html += "</table></div>\n<p>The thresholds are fixed: the intervals do not include their choice. Macro: mean over findings; \
             micro: all decisions together.</p>\n";
    Ok(with_note(html))
}

fn subgroups(column: &ColumnGroups, draws: usize) -> Result<String> {
    let heads: String = GroupScores::<()>::NAMES.iter().map(|name| format!("<th>{name}</th>")).collect();
    let mut html = format!(
        "<p>F1, sensitivity and specificity at the threshold that all groups share. Gap: highest minus lowest value of the \
         groups with at least {} positives and negatives of the finding and a stated value; others are gray.</p>\n\
         <div class=\"scroll\"><table>\n<tr><th>finding</th><th>group</th><th>positive</th><th>negative</th>{heads}</tr>\n",
        column.min_of_each
    );
    for finding in &column.findings {
        let name = escape(&finding.finding);
        for group in &finding.groups {
            let class = if group.compared { "" } else { " class=\"gray\"" };
            let (of, cells) = (escape(&group.group), cells(group.scores.values(), draws));
            let (positives, negatives) = (group.positives, group.negatives);
            writeln!(
                html,
                "<tr{class}><td>{name}</td><td>{of}</td><td>{positives}</td><td>{negatives}</td>{cells}</tr>"
            )?;
        }
        if finding.groups.iter().filter(|group| group.compared).count() < 2 {
            continue;
        }
        let cells = cells(finding.gap.values(), draws);
        writeln!(html, "<tr class=\"gap\"><td>{name}</td><td>gap</td><td></td><td></td>{cells}</tr>")?;
    }
    let mean = &column.mean;
    let shows_mean = column.shows_mean();
    if shows_mean {
        for group in &mean.groups {
            let (of, cells) = (escape(&group.group), cells(group.scores.values(), draws));
            writeln!(html, "<tr><td>mean</td><td>{of}</td><td></td><td></td>{cells}</tr>")?;
        }
        let cells = cells(mean.gap.values(), draws);
        writeln!(html, "<tr class=\"gap\"><td>mean</td><td>gap</td><td></td><td></td>{cells}</tr>")?;
    }
    html += "</table></div>\n";
    if shows_mean {
        writeln!(html, "<p>The mean is over: {}.</p>", escape(&mean.findings.join(", ")))?;
    }
    Ok(with_note(html))
}

fn cells<const N: usize>(values: [Option<Interval>; N], draws: usize) -> String {
    values.map(|value| marked_cell(value, draws)).concat()
}
