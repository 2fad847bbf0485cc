//! Masked record modeling as an objective.

use anyhow::Result;
use dataset::Batch;
use tch::Device;
use tch::nn::VarStore;

use crate::mrm::{Mrm, MrmConfig, ReportBatch};
use crate::objective::{Evaluation, Loss, Objective, images, tokens};

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
            let report = ReportBatch { ids: &ids, labels: &labels, attention_mask: &attention_mask, type_ids: None };
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
