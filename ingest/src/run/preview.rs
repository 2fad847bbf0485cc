//! Text about a plan: counts of what is ingested, and why the rest is rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use arrow_array::StringArray;
use dataset::Storage;
use dataset::commands::cli::counted;
use dataset::commands::reject_reasons::{Group, group};
use dataset::format::manifest::REJECTS;
use dataset::format::table::{self, column};

use crate::error::{Error, Result};
use crate::reject::Reject;
use crate::run::plan::{Plan, PlannedRecord, ReportSource};

/// Number of reasons that every run prints.
pub const FEW_REASONS: usize = 3;

/// Number of reasons that a dry run prints.
const MANY_REASONS: usize = 20;

/// The `most` most frequent reasons among `(error, path)` pairs: for each, a line with the number and the reason, and a line
/// with an example.
pub fn reasons<'a>(rejects: impl Iterator<Item = (&'a str, &'a str)>, most: usize) -> Vec<String> {
    let rejects: Vec<(&str, String)> = rejects.map(|(error, path)| (error, format!("{path}: {error}"))).collect();
    let groups = group(rejects.iter().map(|(error, example)| (*error, example.as_str())));
    let mut lines = Vec::new();
    for Group { reason, count, example } in groups.iter().take(most) {
        // Where all errors of a reason are equal, the path is enough.
        let example = example.strip_suffix(reason).and_then(|path| path.strip_suffix(": ")).unwrap_or(example);
        lines.push(format!("{count:>7} × {reason}"));
        lines.push(format!("          e.g. {example}"));
    }
    if groups.len() > most {
        let rest: usize = groups.iter().skip(most).map(|group| group.count).sum();
        let inputs = counted(rest, "input");
        lines.push(format!("        … and {} for {inputs}", counted(groups.len() - most, "more reason")));
    }
    lines
}

/// The most frequent reasons of a plan's rejects, as [`reasons`] gives them.
pub fn plan_reasons(plan: &Plan, most: usize) -> Vec<String> {
    let rejects: Vec<(&str, String)> =
        plan.rejects.iter().map(|reject| (reject.error.as_str(), stored_path(plan, reject))).collect();
    reasons(rejects.iter().map(|(error, path)| (*error, path.as_str())), most)
}

/// The most frequent reasons of a finished dataset's rejects, as [`reasons`] gives them.
///
/// # Errors
/// When its table of rejects cannot be read.
pub fn dataset_reasons(out: &Path, most: usize) -> Result<Vec<String>> {
    let storage = Storage::at(out)?;
    let batches = table::from_parquet(&storage.path(REJECTS), storage.read(REJECTS)?)?;
    let mut rejects: Vec<(&str, &str)> = Vec::new();
    for batch in &batches {
        let text = |name: &str| column::<StringArray>(batch, name);
        if let (Some(errors), Some(paths)) = (text("error"), text("source_path")) {
            rejects.extend((0..batch.num_rows()).map(|row| (errors.value(row), paths.value(row))));
        }
    }
    Ok(reasons(rejects.into_iter(), most))
}

fn stored_path(plan: &Plan, reject: &Reject) -> String {
    plan.path_names.stored(&reject.source_path)
}

/// The error of a plan without records: the directory has no radiograph, or all are rejected, with the main reason.
pub fn empty(source: &str, raw: &Path, plan: &Plan) -> Error {
    let examples: Vec<String> =
        plan.rejects.iter().map(|reject| format!("{}: {}", stored_path(plan, reject), reject.error)).collect();
    let pairs = plan.rejects.iter().zip(&examples).map(|(reject, example)| (reject.error.as_str(), example.as_str()));
    let message = match group(pairs).first() {
        None => format!("no radiograph of `{source}` found here; docs/datasets.md shows the layout that is expected"),
        Some(Group { count, example, .. }) => {
            let all = plan.rejects.len();
            let inputs = if all == 1 { "the only input is".to_owned() } else { format!("all {all} inputs are") };
            format!("no radiograph is left: {inputs} rejected, {count} for a reason like this: {example}")
        }
    };
    Error::Empty { path: raw.to_path_buf(), message }
}

/// The output of a dry run: records, rejects by reason, labels by finding, subsets, views, and the first records.
pub fn page(plan: &Plan) -> String {
    let mut page = String::new();
    let mut line = |text: String| {
        let _ = writeln!(page, "{text}");
    };
    let records = &plan.records;
    let distinct = |of: fn(&PlannedRecord) -> (&str, &str)| records.iter().map(of).collect::<BTreeSet<_>>().len();
    line(format!(
        "to be ingested: {} ({}, {}; {} with a report)",
        counted(records.len(), "radiograph"),
        counted(distinct(|record| (record.patient_id.as_str(), record.study_id.as_str())), "study"),
        counted(distinct(|record| (record.patient_id.as_str(), "")), "patient"),
        records.iter().filter(|record| record.report != ReportSource::None).count(),
    ));
    line(format!("rejected: {}", counted(plan.rejects.len(), "input")));
    plan_reasons(plan, MANY_REASONS).into_iter().for_each(&mut line);
    let subset = |record: &PlannedRecord| record.subset.clone();
    line(format!("subsets: {}", counts(records.iter().map(subset), "not stated")));
    let view = |record: &PlannedRecord| record.view.clone();
    line(format!("views: {}", counts(records.iter().map(view), "not stated (DICOM headers may state it)")));
    line(format!("findings: {}", plan.findings.join(", ")));
    if !plan.findings.is_empty() {
        let longest = plan.findings.iter().map(|finding| finding.chars().count()).max().unwrap_or(0).clamp(16, 40);
        line(format!("{:<longest$}{:>10}{:>10}{:>11}{:>10}", "", "positive", "negative", "uncertain", "blank"));
        for (finding, [positive, negative, uncertain, blank]) in plan.findings.iter().zip(label_counts(plan)) {
            line(format!("{finding:<longest$}{positive:>10}{negative:>10}{uncertain:>11}{blank:>10}"));
        }
    }
    for record in records.iter().take(5) {
        line(format!(
            "{}  patient {}  study {}  {}",
            record.record_id,
            record.patient_id,
            record.study_id,
            plan.path_names.stored(&record.source_path)
        ));
    }
    page
}

/// For each finding the numbers of positive, negative, uncertain and blank labels, in one pass over the records.
fn label_counts(plan: &Plan) -> Vec<[usize; 4]> {
    let mut counts = vec![[0; 4]; plan.findings.len()];
    for record in &plan.records {
        for (counts, code) in counts.iter_mut().zip(&record.labels) {
            let of = match code {
                Some(1) => 0,
                Some(0) => 1,
                Some(_) => 2,
                None => 3,
            };
            counts[of] += 1;
        }
    }
    counts
}

/// `PA 12, AP 3, not stated 1`, the most frequent first.
fn counts(values: impl Iterator<Item = Option<String>>, none: &str) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value.unwrap_or_else(|| none.to_owned())).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    counts.iter().map(|(value, count)| format!("{value} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::Stage;

    fn reject(path: &str, error: &str) -> Reject {
        Reject { source_path: path.to_owned(), record_id: None, stage: Stage::Table, error: error.to_owned() }
    }

    #[test]
    fn the_most_frequent_reasons_have_an_example_each() {
        let mut rejects =
            vec![reject("b.png", "no table names this file"), reject("a.png", "no table names this file")];
        rejects.extend((2..9).map(|line| reject("t.csv", &format!("line {line}: column `A`: `w{line}` is no label"))));
        rejects.extend(["one", "two"].map(|error| reject("x", error)));
        let plan = Plan { rejects, ..Plan::default() };
        assert_eq!(
            plan_reasons(&plan, FEW_REASONS),
            [
                "      7 × line N: column `A`: `…` is no label",
                "          e.g. t.csv: line 2: column `A`: `w2` is no label",
                "      2 × no table names this file",
                "          e.g. b.png",
                "      1 × one",
                "          e.g. x",
                "        … and 1 more reason for 1 input",
            ]
        );
        let message = empty("folder", Path::new("raw"), &plan).to_string();
        assert_eq!(
            message,
            "raw: no radiograph is left: all 11 inputs are rejected, 7 for a reason like this: t.csv: line 2: column `A`: \
             `w2` is no label"
        );
        assert!(plan_reasons(&Plan::default(), FEW_REASONS).is_empty());
    }
}
