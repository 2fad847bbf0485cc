//! Which records pre-training sees, and which of them have a report.

use anyhow::{Result, bail};
use arrow_array::ListArray;
use dataset::format::table;
use dataset::{Dataset, Subset};

use crate::config::{Epoch, PretrainConfig};
use crate::task::DataSource;

/// The records that pre-training sees.
pub struct TrainingRows {
    /// Their rows.
    pub rows: Vec<u32>,
    /// How many have a report, in words for the log.
    pub description: String,
}

impl TrainingRows {
    /// With a split, its whole training subset, since no label is used; else all records. A model that reconstructs reports
    /// alone learns nothing from a record without one, so such records are left out.
    ///
    /// # Errors
    /// When the model reconstructs reports, and no record has one.
    pub fn of(config: &PretrainConfig, source: &DataSource) -> Result<Self> {
        let (mut rows, of) = match &source.split {
            Some(split) => (split.rows(Subset::Train, None), format!("the training subset of split `{}`", split.name)),
            None => (source.dataset.all_rows()?, "this dataset".to_owned()),
        };
        if !config.model.reconstructs_report() {
            return Ok(Self { rows, description: String::new() });
        }
        let known = with_report(&source.dataset)?;
        let (all, reports) = (rows.len(), rows.iter().filter(|&&row| known[row as usize]).count());
        if reports == 0 && all > 0 {
            bail!(
                "none of the {all} records of {of} has a report to reconstruct: set model.reconstruct=image-only, or ingest the \
                 reports"
            );
        }
        let description = if config.model.reconstructs_image() {
            match all - reports {
                0 => " (all with a report)".to_owned(),
                _ => format!(" ({reports} with a report; the others take part in the image loss alone)"),
            }
        } else {
            rows.retain(|&row| known[row as usize]);
            format!(" with a report (the other {} are left out)", all - reports)
        };
        Ok(Self { rows, description })
    }

    /// The epoch of a run.
    pub fn epoch(&self, config: &PretrainConfig) -> Epoch {
        Epoch::new(self.rows.len(), config.optimizer.batch_size, config.optimizer.accumulation)
    }

    /// Steps of a run.
    pub fn steps(&self, config: &PretrainConfig) -> u64 {
        match config.optimizer.steps {
            0 => self.epoch(config).steps_of(config.optimizer.epochs),
            steps => steps,
        }
    }
}

/// Whether each record has a report: a token after `[CLS]`.
fn with_report(dataset: &Dataset) -> Result<Vec<bool>> {
    let totals = &dataset.manifest().totals;
    if totals.reports == totals.records {
        return Ok(vec![true; dataset.len()]); // without reading all tokens of a large dataset
    }
    let mut known = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&["token_ids"])? {
        let tokens = table::column::<ListArray>(&batch, "token_ids");
        known.extend((0..batch.num_rows()).map(|row| tokens.is_some_and(|tokens| tokens.value_length(row) > 1)));
    }
    Ok(known)
}
