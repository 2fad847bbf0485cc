//! Retrieval between images and reports, and zero-shot classification, with intervals over patients.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use arrow_array::{ArrayRef, Float32Array, Int8Array, UInt64Array};
use dataset::commands::cli::counted;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::Contrasting;
use super::encoding::{Encoded, encode, encode_texts};
use super::retrieval::ranks;
use super::zero_shot::{Prompts, ensemble, probabilities};
use crate::config::{FindingTask, PRESETS, PretrainConfig, classify_preset};
use crate::eval::bootstrap::{Bootstrap, Interval, Predictions};
use crate::eval::metrics::{SPECIFICITY, Scores};
use crate::report::{Run, Section};
use crate::task::classify::{FindingScores, TaskLabels, add_scores, findings_table, write_with_note};
use crate::task::evaluation_files::MetricTable;
use crate::task::objective::Objective;
use crate::task::{
    Comparison, ComparisonRequest, Evaluated, EvaluationHeader, EvaluationRequest, Metric, RecordMetric, ZeroShot,
    compare_records, numbered,
};
use crate::train::distributed::Compute;

/// Evaluation of a contrast run on a subset, as stored in `evaluation-STEM.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContrastReport {
    /// What evaluations of all kinds begin with.
    #[serde(flatten)]
    pub header: EvaluationHeader,
    /// Retrieval; none where no record of the subset has a report.
    pub retrieval: Option<RetrievalScores>,
    /// Zero-shot classification, where it was asked for.
    pub zero_shot: Option<ZeroShotScores>,
}

/// Retrieval in both directions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetrievalScores {
    /// Images with a report.
    pub images: usize,
    /// Distinct reports.
    pub reports: usize,
    /// Each image asks for its report among the distinct ones.
    pub image_to_report: Direction,
    /// Each distinct report asks for one of its images.
    pub report_to_image: Direction,
}

/// Retrieval in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Share of the queries whose right answer is the first one.
    pub recall_1: Interval,
    /// Share of the queries whose right answer is among the first 5.
    pub recall_5: Interval,
    /// Share of the queries whose right answer is among the first 10.
    pub recall_10: Interval,
    /// Median rank of the right answers, from 1.
    pub median_rank: Interval,
}

/// Zero-shot classification.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ZeroShotScores {
    /// The findings, as they were asked for.
    pub task: String,
    /// The prompts.
    pub prompts: Prompts,
    /// Labeled records.
    pub records: usize,
    /// Metrics by finding. Sensitivity, Brier score and calibration error are of probabilities that nobody has calibrated.
    pub findings: Vec<FindingScores>,
    /// Mean over the findings for which the metric is defined.
    pub mean: Scores<Interval>,
}

/// Columns of predictions: whether the record's report is among so many first ones.
const FOUND: [(&str, u64); 3] = [("report among 1", 1), ("report among 5", 5), ("report among 10", 10)];

/// Column of predictions: whether the record has a report.
const HAS_REPORT: &str = "has report";

/// Keys of a direction in the JSON.
const DIRECTION: [&str; 4] = ["recall_1", "recall_5", "recall_10", "median_rank"];

/// What is written of each record.
type Column = (String, ArrayRef);

/// Evaluates a contrast run; writes `evaluation-STEM.json`, and `predictions-STEM` and `metrics-STEM` as Parquet and CSV.
pub(super) fn evaluate(request: &EvaluationRequest) -> Result<Evaluated> {
    let EvaluationRequest { source, subset, device, .. } = *request;
    let config: PretrainConfig = request.config.read()?;
    ensure!(
        config.tokenizer == source.tokenizer(),
        "{} was trained with another tokenizer than this dataset's: ingest it with the --tokenizer of the run's dataset",
        request.run.display()
    );
    let labeled = request.options.zero_shot.as_ref().map(|asked| Labeled::read(asked, request)).transpose()?;
    let rows = source.subset(subset, None)?;
    ensure!(!rows.is_empty(), "no record in the {} subset of split `{}`", subset.name(), source.split()?.name);
    let objective = Contrasting::new(&config.model, &Compute::on(device))?;
    let weights = request.load_weights(objective.store())?;
    let encoded = encode(&objective, &config, source, &rows)?;
    let bootstrap = Bootstrap { draws: request.options.draws, seed: config.run.seed, ..Bootstrap::default() };

    let mut columns = Vec::new();
    let retrieval = retrieve(request, &encoded, &bootstrap, &mut columns)?;
    let zero_shot = match &labeled {
        Some(labeled) => Some(labeled.classify(request, &objective, &config, &encoded, &bootstrap, &mut columns)?),
        None => None,
    };
    if retrieval.is_none() && zero_shot.is_none() {
        bail!(
            "no record of the {} subset has an image and a report to retrieve: give --zero-shot TASK for findings",
            subset.name()
        );
    }
    let named = columns.iter().map(|(name, column)| (name.as_str(), column.clone(), true)).collect();
    request.write_predictions(&encoded.rows, named)?;
    let header = request.header(weights, &request.patients(&encoded.rows)?)?;
    let report = ContrastReport { header: header.clone(), retrieval, zero_shot };
    request.files().write_metrics(report.metrics())?;
    request.finish(&report, &header, Vec::new())
}

impl ContrastReport {
    /// The rows of `metrics-STEM`.
    fn metrics(&self) -> MetricTable {
        let mut table = MetricTable::default();
        if let Some(scores) = &self.retrieval {
            for (name, of) in [("image_to_report", scores.image_to_report), ("report_to_image", scores.report_to_image)]
            {
                let values = [of.recall_1, of.recall_5, of.recall_10, of.median_rank];
                table.intervals(name, "retrieval.", DIRECTION, values.map(Some));
            }
        }
        if let Some(scores) = &self.zero_shot {
            add_scores(&mut table, "zero_shot.", &scores.findings, scores.mean);
        }
        table
    }
}

/// Retrieval among the records that have a report; none where no record has one.
fn retrieve(
    request: &EvaluationRequest,
    encoded: &Encoded,
    bootstrap: &Bootstrap,
    columns: &mut Vec<Column>,
) -> Result<Option<RetrievalScores>> {
    let with_report: Vec<(i64, usize)> =
        (0..).zip(&encoded.report_of).filter_map(|(at, report)| Some((at, (*report)?))).collect();
    if with_report.is_empty() {
        return Ok(None);
    }
    let (at, report_of): (Vec<i64>, Vec<usize>) = with_report.into_iter().unzip();
    let ranks = ranks(&encoded.images.index_select(0, &Tensor::from_slice(&at)), &encoded.reports, &report_of)?;
    let rows: Vec<u32> = at.iter().map(|&at| encoded.rows[at as usize]).collect();
    let patients = request.source.texts_of("patient_id", &rows)?;
    // A report belongs to the patient of its first image, whose record has its rank.
    let mut first_image: Vec<Option<usize>> = vec![None; ranks.of_images.len()];
    for (image, &report) in report_of.iter().enumerate() {
        first_image[report] = first_image[report].or(Some(image));
    }
    let of_reports = numbered(first_image.iter().map(|image| image.map_or("", |image| patients[image].as_str())));
    let of_images = numbered(patients.iter().map(String::as_str));

    let mut by_record: Vec<Option<u64>> = vec![None; encoded.rows.len()];
    at.iter().zip(&ranks.of_reports).for_each(|(&at, &rank)| by_record[at as usize] = Some(rank as u64));
    for (name, most) in FOUND {
        let found = by_record.iter().map(|rank| Some(f32::from(u8::from(rank.is_some_and(|rank| rank <= most)))));
        columns.push((name.to_owned(), Arc::new(found.collect::<Float32Array>())));
    }
    let has_report = by_record.iter().map(|rank| Some(f32::from(u8::from(rank.is_some()))));
    columns.push((HAS_REPORT.to_owned(), Arc::new(has_report.collect::<Float32Array>())));
    columns.push(("rank of report".to_owned(), Arc::new(UInt64Array::from(by_record))));
    let mut by_first_image: Vec<Option<u64>> = vec![None; encoded.rows.len()];
    for (image, &rank) in first_image.iter().zip(&ranks.of_images) {
        if let Some(image) = *image {
            by_first_image[at[image] as usize] = Some(rank as u64);
        }
    }
    columns.push(("rank of image".to_owned(), Arc::new(UInt64Array::from(by_first_image))));
    let scores = |ranks: &[i64], patients: &[u32]| Direction::of(ranks, patients, bootstrap).context("no query");
    Ok(Some(RetrievalScores {
        images: rows.len(),
        reports: ranks.of_images.len(),
        image_to_report: scores(&ranks.of_reports, &of_images)?,
        report_to_image: scores(&ranks.of_images, &of_reports)?,
    }))
}

impl Direction {
    /// Scores of ranks, of a query each; the queries of a patient are drawn together. None without a query.
    fn of(ranks: &[i64], patients: &[u32], bootstrap: &Bootstrap) -> Option<Self> {
        let recall = |most: i64| {
            let found: Vec<f64> = ranks.iter().map(|&rank| f64::from(u8::from(rank <= most))).collect();
            bootstrap.mean(&found, patients)
        };
        let mut order: Vec<usize> = (0..ranks.len()).collect();
        order.sort_by_key(|&query| ranks[query]);
        // The smallest rank that at least half of the queries reach.
        let median = |weights: &[u32]| {
            let all: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let mut below = 0;
            let half = order.iter().find(|&&query| {
                below += 2 * u64::from(weights[query]);
                below >= all
            });
            half.map_or(f64::NAN, |&query| ranks[query] as f64)
        };
        Some(Self {
            recall_1: recall(1)?,
            recall_5: recall(5)?,
            recall_10: recall(10)?,
            median_rank: bootstrap.statistic(patients, median)?,
        })
    }
}

/// The labels of the findings that are classified without training.
struct Labeled {
    task: FindingTask,
    prompts: Prompts,
    labels: TaskLabels,
    /// Rows of the subset that have labels.
    rows: Vec<u32>,
}

impl Labeled {
    fn read(asked: &ZeroShot, request: &EvaluationRequest) -> Result<Self> {
        let task = FindingTask::parse(&asked.task).context("--zero-shot")?;
        let prompts = asked.prompts.as_deref().map(Prompts::read).transpose()?.unwrap_or_default();
        prompts.check(&task.findings)?;
        // Uncertain and blank labels count as in fine-tuning.
        let labels = TaskLabels::read(&classify_preset(PRESETS[0], &task, 100.0)?, request.source)?;
        let mut rows = labels.rows(request.source, request.subset, None)?;
        rows.sort_unstable();
        ensure!(!rows.is_empty(), "no record of the {} subset has labels for {}", request.subset.name(), asked.task);
        Ok(Self { task, prompts, labels, rows })
    }

    fn classify(
        &self,
        request: &EvaluationRequest,
        objective: &Contrasting,
        config: &PretrainConfig,
        encoded: &Encoded,
        bootstrap: &Bootstrap,
        columns: &mut Vec<Column>,
    ) -> Result<ZeroShotScores> {
        let classes = self.task.findings.len();
        let mut by_class = Vec::new(); // [classes] of [N]
        for finding in &self.task.findings {
            let [positive, negative] = self.prompts.of(finding);
            let vector = |texts: &[String]| {
                Ok::<_, anyhow::Error>(ensemble(&encode_texts(objective, config, request.source, texts)?))
            };
            by_class.push(probabilities(&encoded.images, &vector(&positive)?, &vector(&negative)?));
        }
        let all = Vec::<f32>::try_from(Tensor::f_stack(&by_class, 1)?.to_kind(Kind::Float).flatten(0, 1))?; // [N, classes]
        let labeled: Vec<usize> =
            (0..encoded.rows.len()).filter(|&at| self.rows.binary_search(&encoded.rows[at]).is_ok()).collect();
        let rows: Vec<u32> = labeled.iter().map(|&at| encoded.rows[at]).collect();
        ensure!(!rows.is_empty(), "no labeled record of the {} subset has an image", request.subset.name());
        let scores: Vec<f32> = labeled.iter().flat_map(|&at| &all[at * classes..(at + 1) * classes]).copied().collect();
        let targets = self.labels.targets(&rows).concat();
        let patients = request.patients(&rows)?;
        let specificity = SPECIFICITY;
        let predictions = Predictions { scores: &scores, labels: &targets, patients: &patients, classes, specificity };
        let intervals = bootstrap.classes(predictions);

        for (class, finding) in self.task.findings.iter().enumerate() {
            let score: Float32Array = all.iter().skip(class).step_by(classes).copied().map(Some).collect();
            let mut of_records: Vec<Option<i8>> = vec![None; encoded.rows.len()];
            for (&at, targets) in labeled.iter().zip(targets.chunks(classes)) {
                of_records[at] = targets[class].map(i8::from);
            }
            columns.push((format!("score {finding}"), Arc::new(score)));
            columns.push((format!("label {finding}"), Arc::new(Int8Array::from(of_records))));
        }
        let counts = self.labels.counts(request.source, request.subset, None)?;
        Ok(ZeroShotScores {
            task: self.task.name.clone(),
            prompts: self.prompts.clone(),
            records: rows.len(),
            findings: FindingScores::of_classes(predictions, &intervals.classes, counts),
            mean: intervals.mean,
        })
    }
}

/// The metrics of an evaluation, the same ones of every run; none where they were not asked for.
pub(super) fn metrics(evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
    let report = ContrastReport::deserialize(evaluation).context("not an evaluation of a contrast run")?;
    let (images, reports) = match &report.retrieval {
        Some(scores) => (Some(scores.image_to_report), Some(scores.report_to_image)),
        None => (None, None),
    };
    let mean = report.zero_shot.as_ref().map(|scores| scores.mean);
    let metric = |key, title, value| Metric { key, title, value };
    Ok(vec![
        metric("image_to_report_recall_1", "image → report R@1", images.map(|of| of.recall_1)),
        metric("image_to_report_recall_5", "image → report R@5", images.map(|of| of.recall_5)),
        metric("image_to_report_recall_10", "image → report R@10", images.map(|of| of.recall_10)),
        metric("image_to_report_median_rank", "image → report median rank", images.map(|of| of.median_rank)),
        metric("report_to_image_recall_1", "report → image R@1", reports.map(|of| of.recall_1)),
        metric("report_to_image_recall_5", "report → image R@5", reports.map(|of| of.recall_5)),
        metric("report_to_image_recall_10", "report → image R@10", reports.map(|of| of.recall_10)),
        metric("report_to_image_median_rank", "report → image median rank", reports.map(|of| of.median_rank)),
        metric("zero_shot_auroc", "zero-shot AUROC", mean.and_then(|mean| mean.auroc)),
        metric("zero_shot_average_precision", "zero-shot AUPRC", mean.and_then(|mean| mean.average_precision)),
    ])
}

/// Sections of the page with the zero-shot classification of each finding, one an evaluation.
pub(super) fn zero_shot_sections(runs: &[&Run]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for run in runs {
        for evaluation in &run.evaluations {
            let report =
                ContrastReport::deserialize(&evaluation.json).context("not an evaluation of a contrast run")?;
            let Some(scores) = &report.zero_shot else { continue };
            let html = format!(
                "<p>{}. The probabilities come from prompts and are not calibrated: the Brier score and the ECE include \
                 that.</p>\n{}",
                counted(scores.records, "labeled record"),
                findings_table(&scores.findings, scores.mean, SPECIFICITY, report.header.draws)?
            );
            let title = format!("zero-shot classification: {} on {}", run.name, evaluation.stem);
            sections.push(Section { title, html });
        }
    }
    Ok(sections)
}

/// Compares the retrieval of reports by two evaluated runs on the same records.
pub(super) fn compare(request: &ComparisonRequest) -> Result<Comparison> {
    let titles = ["image → report R@1", "image → report R@5", "image → report R@10"];
    let keys = ["image_to_report_recall_1", "image_to_report_recall_5", "image_to_report_recall_10"];
    let metrics: Vec<RecordMetric> = (keys.into_iter().zip(titles).zip(FOUND))
        .map(|((key, title), (column, _))| RecordMetric { key, column, title, only_where: Some(HAS_REPORT) })
        .collect();
    compare_records(request, &metrics, HAS_REPORT)
}

impl std::fmt::Display for ContrastReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { header, retrieval, zero_shot } = self;
        let mut text = String::new();
        write!(
            text,
            "{} of {}, subset {} of split {}; 95% intervals over patients",
            counted(header.records, "record"),
            counted(header.patients, "patient"),
            header.subset,
            header.split
        )?;
        let shown = |value: &Interval| {
            let mark = if value.is_thin(header.draws) { "*" } else { "" };
            format!("{:.3} ({:.3}–{:.3}){mark}", value.value, value.low, value.high)
        };
        if let Some(scores) = retrieval {
            write!(text, "\n{:<34}{:<22}{:<22}{:<22}median rank", "retrieval", "R@1", "R@5", "R@10")?;
            let image_to_report =
                format!("{} → {}", counted(scores.images, "image"), counted(scores.reports, "report"));
            let report_to_image =
                format!("{} → {}", counted(scores.reports, "report"), counted(scores.images, "image"));
            for (name, of) in [(image_to_report, &scores.image_to_report), (report_to_image, &scores.report_to_image)] {
                let Direction { recall_1, recall_5, recall_10, median_rank } = of;
                write!(text, "\n{name:<34}{:<22}{:<22}{:<22}", shown(recall_1), shown(recall_5), shown(recall_10))?;
                write!(text, "{:.0} ({:.0}–{:.0})", median_rank.value, median_rank.low, median_rank.high)?;
            }
        }
        if let Some(scores) = zero_shot {
            write!(text, "\n{:<34}{:>9}{:>9}  {:<22}AUPRC", "zero-shot", "positive", "negative", "AUROC")?;
            let shown = |value: &Option<Interval>| value.as_ref().map_or_else(|| "undefined".to_owned(), shown);
            for row in &scores.findings {
                let Scores { auroc, average_precision, .. } = &row.scores;
                write!(text, "\n{:<34}{:>9}{:>9}  ", row.finding, row.positives, row.negatives)?;
                write!(text, "{:<22}{}", shown(auroc), shown(average_precision))?;
            }
            let Scores { auroc, average_precision, .. } = &scores.mean;
            write!(text, "\n{:<52}  {:<22}{}", "mean over defined findings", shown(auroc), shown(average_precision))?;
        }
        write_with_note(f, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_and_median_follow_from_the_ranks() {
        let bootstrap = Bootstrap { draws: 200, ..Bootstrap::default() };
        let scores = Direction::of(&[1, 7, 3, 20], &[0, 1, 2, 3], &bootstrap).unwrap();
        let values = [scores.recall_1, scores.recall_5, scores.recall_10, scores.median_rank].map(|of| of.value);
        assert_eq!(values, [0.25, 0.5, 0.75, 3.0]);
        assert!(scores.median_rank.low < 3.0 && scores.median_rank.high > 3.0, "{:?}", scores.median_rank);
        // All queries of one patient: each draw has them all.
        let one = Direction::of(&[1, 7, 3, 20], &[5, 5, 5, 5], &bootstrap).unwrap();
        assert_eq!((one.median_rank.low, one.median_rank.high), (3.0, 3.0));
        assert!(Direction::of(&[], &[], &bootstrap).is_none());
    }
}
