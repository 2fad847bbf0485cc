//! Masked record modeling as an objective.

use anyhow::Result;
use dataset::Batch;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::model::mrm::{Mrm, MrmConfig, ReportBatch};
use crate::task::objective::{Evaluation, Loss, Objective, images, send};

/// A model that reconstructs masked patches and tokens.
pub struct Pretraining {
    store: VarStore,
    model: Mrm,
}

impl Pretraining {
    /// A randomly initialized model on a device.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(config: &MrmConfig, device: Device) -> Result<Self> {
        let store = VarStore::new(device);
        let model = Mrm::new(&store.root(), config)?;
        Ok(Self { store, model })
    }

    /// The model.
    pub fn model(&self) -> &Mrm {
        &self.model
    }
}

impl Objective for Pretraining {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let device = self.store.device();
        let image = images(batch, device);
        let output = if self.model.config().reconstructs_report() {
            // Records without a report take part in the image loss alone.
            let with_report = batch.with_report();
            let all = with_report.len() == batch.len();
            let of_reports = |table: &[i64]| -> Vec<i64> {
                let rows = with_report.iter().flat_map(|row| &table[row * batch.tokens()..(row + 1) * batch.tokens()]);
                rows.copied().collect()
            };
            let [seen, target, attention_mask] =
                [batch.token_ids(), batch.target_ids(), batch.attention_mask()].map(of_reports);
            let positions: Vec<i64> = (0_i64..)
                .zip(seen.iter().zip(&target))
                .filter_map(|(position, (seen, target))| (seen != target).then_some(position))
                .collect();
            let rows: Vec<i64> = with_report.iter().map(|&row| row as i64).collect();
            let list = |values: &[i64]| send(&Tensor::from_slice(values), device);
            let shape = [rows.len() as i64, batch.tokens() as i64];
            let table = |ids: &[i64]| send(&Tensor::from_slice(ids).view(shape), device);
            let (ids, labels, attention_mask) = (table(&seen), table(&target), table(&attention_mask));
            let (rows, masked) = (list(&rows), list(&positions));
            let report = ReportBatch {
                ids: &ids,
                labels: &labels,
                attention_mask: &attention_mask,
                type_ids: None,
                rows: (!all).then_some(&rows),
                masked: Some(&masked),
            };
            self.model.forward(&image, Some(report), None, true)?
        } else {
            self.model.forward(&image, None, None, true)?
        };
        let parts = [("loss_image", output.loss_image), ("loss_report", output.loss_report)];
        Ok(Loss {
            total: output.total,
            parts: parts.into_iter().filter_map(|(name, loss)| Some((name, loss?.detach()))).collect(),
        })
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}
