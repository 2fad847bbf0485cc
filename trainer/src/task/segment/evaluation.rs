//! Evaluation of a segmenter: Dice and intersection over union, the predicted masks, and an image of a few.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use dataset::commands::cli::counted;
use serde::{Deserialize, Serialize};

use super::class_dice::{ClassPixels, class_dice_interval};
use super::examples::{Examples, examples_image};
use super::{MaskRule, Segmentation, SegmentedRecord, evaluation_transform, masked, segment, with_mask};
use crate::config::SegmentConfig;
use crate::eval::bootstrap::{Bootstrap, Interval};
use crate::eval::overlap::{Overlap, run_lengths};
use crate::task::objective::Objective;
use crate::task::{Evaluated, EvaluationHeader, EvaluationRequest, Metric};
use crate::train::distributed::Compute;

/// Evaluation of a segmenter on a subset, as stored in `evaluation-STEM.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentationReport {
    /// What evaluations of all kinds begin with.
    #[serde(flatten)]
    pub header: EvaluationHeader,
    /// Records with something drawn.
    pub positives: usize,
    /// Records with an empty mask.
    pub empty: usize,
    /// Of the empty records, those with an empty prediction.
    pub empty_found_empty: usize,
    /// How probabilities became masks, and how an empty mask counts, in words.
    pub rule: String,
    /// The same as settings.
    pub prediction: MaskRule,
    /// Side of the compared masks in pixels.
    pub size: usize,
    /// Mean over all records.
    pub dice: Interval,
    /// Mean over all records.
    pub iou: Interval,
    /// Mean over the positive records; none where there is none.
    pub dice_positive: Option<Interval>,
    /// Mean over the positive records; none where there is none.
    pub iou_positive: Option<Interval>,
    /// Mean over the classes, background included, of all pixels of the subset together (mmsegmentation's mDice); none in
    /// evaluations of older versions.
    #[serde(default)]
    pub mdice: Option<Interval>,
}

/// Evaluates a segmenter; writes `evaluation-STEM.json`, `predictions-STEM` as Parquet and CSV, and the image
/// `segmentation-STEM.png`. The option `min_area` replaces that of the run.
pub(super) fn evaluate(request: &EvaluationRequest) -> Result<Evaluated> {
    let EvaluationRequest { source, subset, device, ref options, .. } = *request;
    let config: SegmentConfig = request.config.read()?;
    let (data, split) = (masked(&config, source), source.split()?);
    let warnings = request.ratio_warning(config.keys.ratio, &[])?.into_iter().collect();
    let rule = MaskRule { min_area: options.min_area.unwrap_or(config.prediction.min_area), ..config.prediction };
    let known = with_mask(&data)?;
    let rows: Vec<u32> = split.rows(subset, None).into_iter().filter(|&row| known[row as usize]).collect();
    if rows.is_empty() {
        bail!("no record with a mask in the {} subset of split `{}`", subset.name(), split.name);
    }
    let transform = evaluation_transform(&config);
    let decay = config.optimizer.schedule.layer_decay;
    let objective =
        Segmentation::new(&config.model, decay, rule, &data, Vec::new(), transform.clone(), &Compute::on(device))?;
    let weights = request.load_weights(objective.store())?;

    let (mut predictions, mut examples) = (Predictions::default(), Examples::default());
    segment(objective.model(), &data, &rows, transform.clone(), rule, device, |record| {
        predictions.add(&record);
        examples.add(&record, &transform);
        Ok(())
    })?;
    let patients = request.patients(&predictions.rows)?;
    let bootstrap = Bootstrap { draws: options.draws, seed: config.run.seed, ..Bootstrap::default() };
    let header = request.header(weights, &patients)?;
    let report = predictions.report(header.clone(), rule, &patients, bootstrap)?;
    request.write_predictions(&predictions.rows, predictions.columns())?;
    examples.write(&examples_image(request.run, &request.stem()))?;
    request.finish(&report, &header, warnings)
}

/// Mean Dice and IoU, over all records and over the positive ones.
pub(super) fn metrics(evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
    let report = SegmentationReport::deserialize(evaluation).context("not an evaluation of a segmenter")?;
    Ok(vec![
        Metric { key: "dice", title: "Dice", value: Some(report.dice) },
        Metric { key: "iou", title: "IoU", value: Some(report.iou) },
        Metric { key: "dice_positive", title: "Dice, positive", value: report.dice_positive },
        Metric { key: "iou_positive", title: "IoU, positive", value: report.iou_positive },
        Metric { key: "mdice", title: "mDice", value: report.mdice },
    ])
}

/// One entry a record.
#[derive(Default)]
struct Predictions {
    rows: Vec<u32>,
    overlaps: Vec<Overlap>,
    pixels: Vec<ClassPixels>,
    masks: Vec<String>,
    size: usize,
}

impl Predictions {
    fn add(&mut self, record: &SegmentedRecord) {
        self.rows.push(record.row);
        self.overlaps.push(record.overlap);
        self.pixels.push(record.class_pixels());
        self.masks.push(run_lengths(record.prediction, record.size));
        self.size = record.size;
    }

    fn report(
        &self,
        header: EvaluationHeader,
        rule: MaskRule,
        patients: &[u32],
        bootstrap: Bootstrap,
    ) -> Result<SegmentationReport> {
        let interval = |value: fn(Overlap) -> f64, positive_only: bool| {
            let chosen = self.overlaps.iter().zip(patients).filter(|(o, _)| !positive_only || o.is_positive());
            let (values, patients): (Vec<f64>, Vec<u32>) = chosen.map(|(&o, &patient)| (value(o), patient)).unzip();
            bootstrap.mean(&values, &patients)
        };
        let (Some(dice), Some(iou)) = (interval(Overlap::dice, false), interval(Overlap::iou, false)) else {
            bail!("no record to evaluate");
        };
        let positives = self.overlaps.iter().filter(|o| o.is_positive()).count();
        let found_empty = self.overlaps.iter().filter(|o| !o.is_positive() && o.predicted == 0).count();
        let area = match rule.min_area {
            0 => "any predicted pixel counts".to_owned(),
            least => format!("a prediction of fewer than {least} pixels counts as empty"),
        };
        let side = self.size;
        Ok(SegmentationReport {
            header,
            positives,
            empty: self.rows.len() - positives,
            empty_found_empty: found_empty,
            rule: format!(
                "masks of {side}×{side} pixels, foreground where its probability is above {}; {area}; where nothing is \
                 drawn, Dice and IoU are 1 for an empty prediction and 0 for any other; records without a mask are left out",
                rule.threshold
            ),
            prediction: rule,
            size: side,
            dice,
            iou,
            dice_positive: interval(Overlap::dice, true),
            iou_positive: interval(Overlap::iou, true),
            mdice: class_dice_interval(&self.pixels, patients, bootstrap),
        })
    }

    /// The columns of the table of predictions.
    fn columns(&self) -> Vec<(&'static str, ArrayRef, bool)> {
        let numbers = |value: fn(Overlap) -> f64| -> ArrayRef {
            Arc::new(self.overlaps.iter().map(|&o| Some(value(o))).collect::<Float64Array>())
        };
        let areas = |value: fn(&Overlap) -> u64| -> ArrayRef {
            Arc::new(self.overlaps.iter().map(|o| Some(value(o))).collect::<UInt64Array>())
        };
        vec![
            ("dice", numbers(Overlap::dice), false),
            ("iou", numbers(Overlap::iou), false),
            ("predicted_area", areas(|o| o.predicted), false),
            ("target_area", areas(|o| o.target), false),
            ("mask", Arc::new(StringArray::from(self.masks.clone())), false),
        ]
    }
}

impl std::fmt::Display for SegmentationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shown = |interval: &Option<Interval>| match interval {
            Some(i) => format!("{:.3} ({:.3}..{:.3})", i.value, i.low, i.high),
            None => "undefined".to_owned(),
        };
        let Self { header, positives, empty, empty_found_empty, .. } = self;
        let EvaluationHeader { records, patients, subset, split, .. } = header;
        let counts = (counted(*records, "record"), counted(*patients, "patient"));
        writeln!(f, "{} of {}, subset {subset} of split {split}", counts.0, counts.1)?;
        writeln!(f, "{}", self.rule)?;
        writeln!(f, "{:<28}{:>9}  {:<24}{:<24}", "records", "", "Dice (95%)", "IoU (95%)")?;
        let (dice, iou) = (shown(&Some(self.dice)), shown(&Some(self.iou)));
        writeln!(f, "{:<28}{records:>9}  {dice:<24}{iou:<24}", "all")?;
        let (dice, iou) = (shown(&self.dice_positive), shown(&self.iou_positive));
        writeln!(f, "{:<28}{positives:>9}  {dice:<24}{iou:<24}", "with something drawn")?;
        write!(f, "{:<28}{empty:>9}  nothing predicted in {empty_found_empty}", "with an empty mask")?;
        if self.mdice.is_some() {
            let mdice = shown(&self.mdice);
            write!(f, "\nmDice (mean over background and foreground, all pixels together): {mdice}")?;
        }
        Ok(())
    }
}
