//! Masked record modeling as an objective.

use anyhow::Result;
use dataset::Batch;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::mrm::{Mrm, MrmConfig, ReportBatch};
use crate::objective::{Evaluation, Loss, Objective, images, send, tokens};

/// Restores removed patches and masked words.
pub struct Pretraining {
    store: VarStore,
    model: Mrm,
}

impl Pretraining {
    /// A model with start values, on the device.
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
        let output = if self.model.config().restores_report() {
            let ids = tokens(batch, batch.token_ids(), device);
            let labels = tokens(batch, batch.target_ids(), device);
            let attention_mask = tokens(batch, batch.attention_mask(), device);
            let positions: Vec<i64> = (0_i64..)
                .zip(batch.token_ids().iter().zip(batch.target_ids()))
                .filter_map(|(position, (seen, target))| (seen != target).then_some(position))
                .collect();
            let masked = send(&Tensor::from_slice(&positions), device);
            let report = ReportBatch {
                ids: &ids,
                labels: &labels,
                attention_mask: &attention_mask,
                type_ids: None,
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
