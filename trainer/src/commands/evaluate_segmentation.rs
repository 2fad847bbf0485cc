//! `trainer evaluate` for segmentation: Dice and intersection over union, masks, and a picture of a few.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use dataset::Subset;
use dataset::commands::cli::counted;
use dataset::format::csv_table;
use dataset::format::table;
use dataset::store::files;
use dataset::transform::Transform;
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use tch::Device;

use super::DataSource;
use super::evaluate::{check_split, file_stem, numbered, remark_ratio};
use super::segment::{evaluation_transform, with_mask};
use crate::config::SegmentConfig;
use crate::eval::bootstrap::{Bootstrap, Interval};
use crate::eval::overlap::{Overlap, run_lengths};
use crate::task::objective::Objective;
use crate::task::{Found, MaskRule, Segmentation, segment};
use crate::train::run_dir;
use crate::weights::load_tensors;
use crate::weights::source::read_weights;

/// What `evaluate` found of a segmentation run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentationReport {
    pub task: String,
    pub split: String,
    pub subset: String,
    pub ratio: f64,
    pub init: String,
    /// What tables call the start weights.
    pub start: String,
    pub records: usize,
    pub patients: usize,
    /// Records with something drawn, and without.
    pub positives: usize,
    pub empty: usize,
    /// Of the empty records, those for which nothing was predicted.
    pub empty_found_empty: usize,
    /// How probabilities became masks, and how an empty mask counts.
    pub rule: String,
    pub prediction: MaskRule,
    /// Side of the masks that were compared, in pixels.
    pub size: usize,
    /// Over all records.
    pub dice: Interval,
    pub iou: Interval,
    /// Over the positive ones; none where there is none.
    pub dice_positive: Option<Interval>,
    pub iou_positive: Option<Interval>,
}

/// Evaluates a segmentation run on a subset; writes `evaluation-SUBSET.json`, `predictions-SUBSET` as Parquet and CSV, and the
/// picture `segmentation-SUBSET.png`. `min_area` replaces that of the run.
pub fn evaluate_segmentation(
    run: &Path,
    source: &DataSource,
    subset: Subset,
    device: Device,
    draws: usize,
    min_area: Option<u64>,
) -> Result<SegmentationReport> {
    let config: SegmentConfig = run_dir::load_config(run)?;
    config.validate().with_context(|| run_dir::config_path(run).display().to_string())?;
    let (dataset, split) = (&source.dataset, source.split()?);
    check_split((&config.dataset, &config.split, &config.split_members), source)?;
    super::warn_unfinished(run, config.optimizer.steps);
    remark_ratio(&config.dataset, config.ratio, &[], source)?;
    let stem = file_stem(subset, &config.dataset, source);
    let rule = MaskRule { min_area: min_area.unwrap_or(config.prediction.min_area), ..config.prediction };
    let known = with_mask(dataset)?;
    let rows: Vec<u32> = split.rows(subset, None).into_iter().filter(|&row| known[row as usize]).collect();
    if rows.is_empty() {
        bail!("no record with a mask in the {} subset of split `{}`", subset.name(), split.name);
    }
    let transform = evaluation_transform(&config);
    let (decay, model) = (config.optimizer.layer_decay, &config.model);
    let objective = Segmentation::new(model, decay, rule, dataset, Vec::new(), transform, device)?;
    let loaded = load_tensors(objective.store(), &read_weights(run)?)?;
    if !loaded.is_complete() {
        bail!("the weights do not fit the run's configuration: {loaded}");
    }

    let (mut found, mut pictures) = (Predictions::default(), Pictures::default());
    segment(objective.model(), dataset, &rows, transform, rule, device, |record| {
        found.add(&record);
        pictures.add(&record, transform);
        Ok(())
    })?;
    let (record_ids, patient_ids) = (dataset.texts("record_id")?, dataset.texts("patient_id")?);
    let of_rows = |values: &[Option<String>]| -> Vec<String> {
        found.rows.iter().map(|&row| values[row as usize].clone().unwrap_or_default()).collect()
    };
    let (record_ids, patient_ids) = (of_rows(&record_ids), of_rows(&patient_ids));
    let bootstrap = Bootstrap { draws, seed: config.run.seed, ..Bootstrap::default() };
    let report = found.report(&config, rule, split.name.clone(), subset, &patient_ids, bootstrap)?;
    files::write_json(&run.join(format!("evaluation-{stem}.json")), &report)?;
    found.write(&run.join(format!("predictions-{stem}.parquet")), record_ids, patient_ids)?;
    pictures.write(&segmentation_picture(run, &stem))?;
    Ok(report)
}

/// One entry a record.
#[derive(Default)]
struct Predictions {
    rows: Vec<u32>,
    overlaps: Vec<Overlap>,
    masks: Vec<String>,
    size: usize,
}

impl Predictions {
    fn add(&mut self, record: &Found) {
        self.rows.push(record.row);
        self.overlaps.push(record.overlap);
        self.masks.push(run_lengths(record.prediction, record.size));
        self.size = record.size;
    }

    fn report(
        &self,
        config: &SegmentConfig,
        rule: MaskRule,
        split: String,
        subset: Subset,
        patient_ids: &[String],
        bootstrap: Bootstrap,
    ) -> Result<SegmentationReport> {
        let patients = numbered(patient_ids.iter().map(String::as_str));
        let interval = |value: fn(Overlap) -> f64, positive_only: bool| {
            let chosen = self.overlaps.iter().zip(&patients).filter(|(o, _)| !positive_only || o.is_positive());
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
            task: config.task.clone(),
            split,
            subset: subset.name().to_owned(),
            ratio: config.ratio,
            init: config.init.clone(),
            start: config.start.clone(),
            records: self.rows.len(),
            patients: patients.iter().max().map_or(0, |last| *last as usize + 1),
            positives,
            empty: self.rows.len() - positives,
            empty_found_empty: found_empty,
            rule: format!(
                "masks of {side}×{side} pixels, front where its probability is above {}; {area}; where nothing is drawn, Dice and IoU are 1 for an empty prediction and 0 for another; records without a mask are left out",
                rule.threshold
            ),
            prediction: rule,
            size: side,
            dice,
            iou,
            dice_positive: interval(Overlap::dice, true),
            iou_positive: interval(Overlap::iou, true),
        })
    }

    fn write(&self, path: &Path, record_ids: Vec<String>, patient_ids: Vec<String>) -> Result<()> {
        let numbers = |value: fn(Overlap) -> f64| -> ArrayRef {
            Arc::new(self.overlaps.iter().map(|&o| Some(value(o))).collect::<Float64Array>())
        };
        let areas = |value: fn(&Overlap) -> u64| -> ArrayRef {
            Arc::new(self.overlaps.iter().map(|o| Some(value(o))).collect::<UInt64Array>())
        };
        let texts = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
        let columns = vec![
            ("record_id", texts(record_ids), false),
            ("patient_id", texts(patient_ids), false),
            ("dice", numbers(Overlap::dice), false),
            ("iou", numbers(Overlap::iou), false),
            ("predicted_area", areas(|o| o.predicted), false),
            ("target_area", areas(|o| o.target), false),
            ("mask", texts(self.masks.clone()), false),
        ];
        csv_table::write(&path.with_extension("csv"), &columns)?;
        Ok(table::write_table(path, columns)?)
    }
}

/// Records of the picture, and how many of them have something drawn, if there are so many of both kinds.
const LINES: usize = 6;
const POSITIVE_LINES: usize = 4;

/// Pixels between two pictures.
const GAP: u32 = 4;

/// Colors of the drawn and of the predicted mask.
const DRAWN: [u8; 3] = [0, 158, 115];
const PREDICTED: [u8; 3] = [230, 120, 0];

/// The first few records, as they come: image, drawn mask, predicted mask.
#[derive(Default)]
struct Pictures {
    positive: Vec<RgbImage>,
    empty: Vec<RgbImage>,
}

impl Pictures {
    fn add(&mut self, record: &Found, transform: Transform) {
        let kind = if record.overlap.is_positive() { &mut self.positive } else { &mut self.empty };
        if kind.len() < LINES {
            kind.push(line(record, transform));
        }
    }

    /// Writes one picture with a record a line.
    fn write(&self, path: &Path) -> Result<()> {
        let positive = self.positive.len().min(POSITIVE_LINES.max(LINES.saturating_sub(self.empty.len())));
        let empty = self.empty.len().min(LINES - positive);
        let lines: Vec<&RgbImage> = self.positive[..positive].iter().chain(&self.empty[..empty]).collect();
        let Some(first) = lines.first() else { return Ok(()) };
        let (width, height) = first.dimensions();
        let mut canvas = RgbImage::from_pixel(width, lines.len() as u32 * (height + GAP) - GAP, Rgb([255; 3]));
        for (position, picture) in (0..).zip(&lines) {
            image::imageops::replace(&mut canvas, *picture, 0, position * i64::from(height + GAP));
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        canvas.write_to(&mut bytes, image::ImageFormat::Png)?;
        Ok(files::write_atomic(path, &bytes.into_inner())?)
    }
}

/// One record: image, drawn mask over it, predicted mask over it.
fn line(record: &Found, transform: Transform) -> RgbImage {
    let size = record.size as u32;
    let step = size + GAP;
    let mut canvas = RgbImage::from_pixel(3 * step - GAP, size, Rgb([255; 3]));
    for (at, level) in record.image.iter().enumerate() {
        let (x, y) = (at as u32 % size, at as u32 / size);
        let gray = ((level * transform.std + transform.mean) * 255.0).round().clamp(0.0, 255.0) as u8;
        // Half the color, half the picture under it.
        let tinted =
            |marked: bool, color: [u8; 3]| Rgb(color.map(|channel| if marked { channel.midpoint(gray) } else { gray }));
        canvas.put_pixel(x, y, tinted(false, DRAWN));
        canvas.put_pixel(step + x, y, tinted(record.target[at] == 1, DRAWN));
        canvas.put_pixel(2 * step + x, y, tinted(record.prediction[at] == 1, PREDICTED));
    }
    canvas
}

impl std::fmt::Display for SegmentationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shown = |interval: &Option<Interval>| match interval {
            Some(i) => format!("{:.3} ({:.3}..{:.3})", i.value, i.low, i.high),
            None => "undefined".to_owned(),
        };
        let Self { records, patients, subset, split, positives, empty, empty_found_empty, .. } = self;
        let counts = (counted(*records, "record"), counted(*patients, "patient"));
        writeln!(f, "{} of {}, subset {subset} of split {split}", counts.0, counts.1)?;
        writeln!(f, "{}", self.rule)?;
        writeln!(f, "{:<28}{:>9}  {:<24}{:<24}", "records", "", "Dice (95%)", "IoU (95%)")?;
        let (dice, iou) = (shown(&Some(self.dice)), shown(&Some(self.iou)));
        writeln!(f, "{:<28}{records:>9}  {dice:<24}{iou:<24}", "all")?;
        let (dice, iou) = (shown(&self.dice_positive), shown(&self.iou_positive));
        writeln!(f, "{:<28}{positives:>9}  {dice:<24}{iou:<24}", "with something drawn")?;
        write!(f, "{:<28}{empty:>9}  nothing predicted in {empty_found_empty}", "with an empty mask")
    }
}

/// The picture that an evaluation wrote.
pub fn segmentation_picture(run: &Path, subset: &str) -> PathBuf {
    run.join(format!("segmentation-{subset}.png"))
}
