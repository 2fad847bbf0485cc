//! Masked record modeling as an objective.

use anyhow::Result;
use dataset::Batch;
use tch::Tensor;
use tch::nn::VarStore;

use super::record_modeling::{Inputs, RecordModeling};
use crate::model::mrm::{Mrm, MrmConfig};
use crate::task::objective::{Evaluation, Loss, Objective, Staged};
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

    /// Computes the losses of single records, too; see [`Mrm::set_record_losses`].
    #[must_use]
    pub fn record_losses(mut self, record_losses: bool) -> Self {
        self.model.set_record_losses(record_losses);
        self
    }

    /// The model.
    pub fn model(&self) -> &Mrm {
        &self.model
    }

    fn modeling(&self) -> RecordModeling<'_> {
        RecordModeling { model: &self.model, group: &self.group, device: self.store.device() }
    }

    fn loss_of_inputs(&self, inputs: &Inputs) -> Result<Loss> {
        let modeling = self.modeling();
        modeling.loss(inputs, modeling.forward(inputs)?)
    }
}

impl Objective for Pretraining {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        self.loss_of_inputs(&self.modeling().inputs(batch, false))
    }

    fn staged(&self) -> Option<&dyn Staged> {
        // Of several processes, each waits for the others within the loss.
        (self.group.world_size() == 1).then_some(self)
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}

impl Staged for Pretraining {
    /// None where a record has no image or no report: their numbers would be further shapes. None with weights of tokens.
    fn stage(&self, batch: &Batch) -> Result<Option<Vec<Tensor>>> {
        let has_images = batch.has_image().iter().all(|&has| has > 0);
        let has_reports = || batch.with_report().len() == batch.len() && batch.token_weights().is_empty();
        let is_plain = has_images && (!self.model.config().reconstructs_report() || has_reports());
        Ok(is_plain.then(|| self.modeling().inputs(batch, true).into_tensors()))
    }

    fn loss_of(&self, inputs: &[Tensor]) -> Result<Loss> {
        self.loss_of_inputs(&Inputs::of(inputs)?)
    }
}
