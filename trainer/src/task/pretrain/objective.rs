//! Masked record modeling as an objective.

use anyhow::Result;
use dataset::Batch;
use tch::Tensor;
use tch::nn::VarStore;

use crate::model::mrm::{Mrm, MrmConfig, ReportBatch, ReportLoss};
use crate::task::objective::{Evaluation, Loss, Objective, images, send};
use crate::train::distributed::{Compute, ProcessGroup};

/// A model that reconstructs masked patches and tokens.
pub struct Pretraining {
    store: VarStore,
    model: Mrm,
    group: ProcessGroup,
}

impl Pretraining {
    /// A randomly initialized model.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(config: &MrmConfig, compute: &Compute) -> Result<Self> {
        let store = VarStore::new(compute.device);
        let model = Mrm::new(&store.root(), config)?;
        Ok(Self { store, model, group: compute.group.clone() })
    }

    /// Computes the losses in place; see [`Mrm::set_in_place_loss`].
    #[must_use]
    pub fn in_place_loss(mut self, in_place: bool) -> Self {
        self.model.set_in_place_loss(in_place);
        self
    }

    /// The model.
    pub fn model(&self) -> &Mrm {
        &self.model
    }
}

impl Pretraining {
    /// The loss whose mean over the processes is that of the whole batch: each process has computed the mean over its own
    /// `counts` of images and of positions in reports.
    fn loss_of_all(&self, losses: [(&'static str, Option<Tensor>); 2], counts: [usize; 2]) -> Result<Loss> {
        let (device, config) = (self.store.device(), self.model.config());
        let mut total = Tensor::from(0.0_f32).to_device(device);
        let mut parts = Vec::new();
        for (((name, loss), count), weight) in
            losses.into_iter().zip(counts).zip([config.image_weight, config.report_weight])
        {
            let Some(loss) = loss else { continue };
            let count = Tensor::from(count as f32).to_device(device);
            let loss = self.group.mean(&(loss * &count), &count)?;
            total += &loss * weight;
            parts.push((name, loss.detach()));
        }
        Ok(Loss { total, parts })
    }
}

impl Objective for Pretraining {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let device = self.store.device();
        let image = images(batch, device);
        let mut positions_of_loss = 0;
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
            positions_of_loss = match self.model.config().report_loss {
                ReportLoss::All => seen.len(),
                ReportLoss::Masked => positions.len(),
            };
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
        if self.group.world_size() > 1 {
            return self.loss_of_all(parts, [batch.len(), positions_of_loss]);
        }
        Ok(Loss {
            total: output.total,
            parts: parts.into_iter().filter_map(|(name, loss)| Some((name, loss?.detach()))).collect(),
        })
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}
