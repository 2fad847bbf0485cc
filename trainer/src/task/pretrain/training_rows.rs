//! Which records pre-training sees, and which of them have a report.

use anyhow::{Result, bail};
use arrow_array::ListArray;
use dataset::format::table;
use dataset::loader::count_studies;
use dataset::{Dataset, Subset};

use super::without_reports;
use crate::config::{Epoch, PretrainConfig};
use crate::task::{DataSource, lengths};

/// The records that pre-training sees.
pub struct TrainingRows {
    /// Their rows, of each dataset.
    pub rows: Vec<Vec<u32>>,
    /// How many samples each dataset has: rows, or their studies.
    pub samples: Vec<usize>,
    /// How many have a report, in words for the log.
    pub description: String,
    /// Samples of an epoch.
    records: usize,
}

impl TrainingRows {
    /// With a split, its whole training subset, since no label is used; else all records. A model that reconstructs no images
    /// learns nothing from a record without a report, so such records are left out.
    ///
    /// # Errors
    /// When the model reads reports, and no record has one, or when the mixture is impossible.
    pub fn of(config: &PretrainConfig, source: &DataSource) -> Result<Self> {
        let rows_of = |source: &DataSource| match &source.split {
            Some(split) => Ok(split.rows(Subset::Train, None)),
            None => source.dataset.all_rows(),
        };
        let mut rows = source.all().map(rows_of).collect::<Result<Vec<_>, _>>()?;
        let description =
            if config.model.reads_reports() { keep_reports(config, source, &mut rows)? } else { String::new() };
        let samples = if config.data.studies > 0 {
            let studies = source.all().zip(&rows).map(|(source, rows)| count_studies(&source.dataset, rows));
            studies.collect::<Result<_, _>>()?
        } else {
            lengths(&rows)
        };
        Ok(Self { records: source.epoch_records(&samples)?, rows, samples, description })
    }

    /// The epoch of a run.
    pub fn epoch(&self, config: &PretrainConfig) -> Epoch {
        Epoch::new(self.records, config.optimizer.batch_size, config.optimizer.accumulation)
    }

    /// Steps of a run.
    pub fn steps(&self, config: &PretrainConfig) -> u64 {
        match config.optimizer.steps {
            0 => self.epoch(config).steps_of(config.optimizer.epochs),
            steps => steps,
        }
    }
}

/// Counts the reports among rows of each dataset, in words; leaves out the others where the model reconstructs reports alone.
fn keep_reports(config: &PretrainConfig, source: &DataSource, rows: &mut [Vec<u32>]) -> Result<String> {
    let of = match &source.split {
        Some(split) => format!("the training subset of split `{}`", split.name),
        None if source.others.is_empty() => "this dataset".to_owned(),
        None => "these datasets".to_owned(),
    };
    let known = source.all().map(|source| with_report(&source.dataset)).collect::<Result<Vec<_>>>()?;
    let all: usize = rows.iter().map(Vec::len).sum();
    let has = |(rows, known): (&Vec<u32>, &Vec<bool>)| rows.iter().filter(|&&row| known[row as usize]).count();
    let reports: usize = rows.iter().zip(&known).map(has).sum();
    if reports == 0 && all > 0 {
        bail!("none of the {all} records of {of} has a report to {}, or ingest the reports", without_reports(config));
    }
    if config.model.reconstructs_image() {
        return Ok(match all - reports {
            0 => " (all with a report)".to_owned(),
            _ => format!(" ({reports} with a report; the others take part in the image loss alone)"),
        });
    }
    rows.iter_mut().zip(&known).for_each(|(rows, known)| rows.retain(|&row| known[row as usize]));
    Ok(format!(" with a report (the other {} are left out)", all - reports))
}

/// Whether each record has a report: a token after `[CLS]`, or in a dataset without token ids, a text.
fn with_report(dataset: &Dataset) -> Result<Vec<bool>> {
    let totals = &dataset.manifest().totals;
    if totals.reports == totals.records {
        return Ok(vec![true; dataset.len()]); // without reading all tokens of a large dataset
    }
    if !dataset.has_tokenizer() {
        let reports = dataset.texts("report")?;
        return Ok(reports.iter().map(|report| report.as_ref().is_some_and(|text| !text.is_empty())).collect());
    }
    let mut known = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&["token_ids"])? {
        let tokens = table::column::<ListArray>(&batch, "token_ids");
        known.extend((0..batch.num_rows()).map(|row| tokens.is_some_and(|tokens| tokens.value_length(row) > 1)));
    }
    Ok(known)
}
